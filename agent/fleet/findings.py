"""What the fleet may have to say about a device's history, and how a signed checkpoint is judged. No I/O.

Entries carry no signature: only a checkpoint of the device's key vouches for them. So a finding against a
device always rests on something it has signed, except CONTRADICTION and GAP, which may be the broker's doing.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.note import Checkpoint

LONGEST_LIST = 8
"""Ranges that a finding names; the rest is counted."""

Range = tuple[int, int]
"""First and last sequence."""


class Kind(StrEnum):
    GAP = "GAP"
    """Entries below a signed size have not come."""
    ROLLBACK = "ROLLBACK"
    """The device has gone back behind what it had signed, and goes on from there differently."""
    FORK = "FORK"
    """Two histories of one size, or a signed root that the entries received do not have."""
    BAD_SIGNATURE = "BAD_SIGNATURE"
    """A checkpoint that the device's pinned key has not signed, or another key than the pinned one."""
    CONTRADICTION = "CONTRADICTION"
    """Two entries under one id. The signed root decides which of them is the device's."""
    NEW_EPOCH = "NEW_EPOCH"
    """The device has begun a new journal."""


GRAVE = frozenset({Kind.ROLLBACK, Kind.FORK})
"""What no accident of the network explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Reported once: `about` tells two findings of one kind apart."""

    kind: Kind
    device: str
    epoch: str = ""
    about: str = ""
    text: str

    @property
    def remedy(self) -> str:
        """What puts it right, for people; empty where nothing does that can be said in a line."""
        if self.kind is not Kind.GAP:
            return ""
        return f"; to ask again: postern fleet command resend --device {self.device} --arg first={self.about}"

    def as_json(self) -> dict[str, Any]:
        return {"finding": self.kind, "device": self.device, "epoch": self.epoch, "text": self.text}


class Verdict(StrEnum):
    """What a signed checkpoint is worth, as it is stored."""

    PENDING = "pending"
    AGREED = "agreed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, with the finding's kind and words where it is bad."""

    verdict: Verdict
    kind: Kind | None = None
    text: str = ""
    proven: bool = False
    """Whether two signed statements of the device contradict each other: no forged entry can cause that."""


def judge(
    new: Checkpoint, *, rival: bytes | None, signed: int, agreed: int, computed: bytes | None
) -> Judged:
    """What to think of a checkpoint that the device has signed.

    `rival` is another root that it signed for the same size, `signed` the largest size it signed before,
    `agreed` the size up to which entries and signed root are known to agree, `computed` the root over the
    entries received, None while some are missing.
    """
    if rival is not None:
        kind = Kind.ROLLBACK if new.size < signed else Kind.FORK
        text = f"size {new.size} was signed with two roots, {rival.hex()[:16]} and {new.root.hex()[:16]}"
        return Judged(Verdict.REFUSED, kind, f"{text}; the largest signed was {signed}", proven=True)
    if computed is None:
        return Judged(Verdict.PENDING)
    if computed == new.root:
        return Judged(Verdict.AGREED)
    if new.size < agreed:
        text = f"signed size {new.size}, which is not how the agreed {agreed} entries begin"
        return Judged(Verdict.REFUSED, Kind.ROLLBACK, text, proven=True)
    text = f"signed size {new.size} with root {new.root.hex()[:16]}; the entries received have "
    return Judged(Verdict.REFUSED, Kind.FORK, text + computed.hex()[:16])


def ranges_in_words(missing: list[Range]) -> str:
    """`3 missing: 5, 9-10`."""
    count = sum(last - first + 1 for first, last in missing)
    named = ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in missing[:LONGEST_LIST]
    )
    more = f" and {len(missing) - LONGEST_LIST} more ranges" if len(missing) > LONGEST_LIST else ""
    return f"{count} missing: {named}{more}"
