"""What the fleet lacks of a device, and when to ask for it. Pure: times in seconds of Unix time.

A device that has everything it sent sends again what is asked for; one that is away, or lacks it itself, is
not helped by asking more often. So each time that nothing comes of it the wait is doubled.
"""

from dataclasses import dataclass

from agent.commands import RESEND_MOST
from agent.fleet.device_log import Entry

FIRST_S, LONGEST_S = 300.0, 6 * 3600.0
AT_ONCE = 32
"""Devices that are asked in one look: a broker that dies leaves gaps in all of them."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries of one journal that its device has signed for, and that are not here."""

    device: str
    epoch: str
    first: int
    last: int
    receipt: bytes | None
    """The newest that was given for this journal: it says how much is here."""

    @property
    def wanted(self) -> dict[str, object]:
        """Arguments of the command that brings the first of them."""
        return {
            "first": self.first,
            "last": min(self.last, self.first + RESEND_MOST - 1),
            "epoch": self.epoch,
        }


@dataclass(slots=True)
class _Asked:
    gap: Gap
    at: float
    wait_s: float


class Patience:
    """Remembers what was asked for."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def due(self, gaps: list[Gap], births: dict[str, Entry | None], now: float) -> list[Gap]:
        """Those to be asked for now, of devices that are there and still have that journal."""
        here = [gap for gap in gaps if _is_here(gap, births.get(gap.device))]
        due = [gap for gap in here if self._is_due(gap, now)][:AT_ONCE]
        for gap in due:
            self._note(gap, now)
        return due

    def _is_due(self, gap: Gap, now: float) -> bool:
        asked = self._asked.get(gap.device)
        return asked is None or now >= asked.at + asked.wait_s

    def _note(self, gap: Gap, now: float) -> None:
        asked = self._asked.get(gap.device)
        vain = asked is not None and (asked.gap.epoch, asked.gap.first) == (gap.epoch, gap.first)
        wait_s = min(LONGEST_S, 2 * asked.wait_s) if asked is not None and vain else FIRST_S
        self._asked[gap.device] = _Asked(gap, now, wait_s)


def _is_here(gap: Gap, birth: Entry | None) -> bool:
    return birth is not None and birth.get("online") is True and birth.get("epoch") == gap.epoch
