"""A mistaken scan or handover, taken back. Pure.

What was written stays as it is: a correction is one more entry, which names the one that is wrong, why, and
who has the parcel now. A driver takes back their own last entry about a parcel for a quarter of an hour; a
supervisor anybody's, for as long as this device remembers it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from agent import past
from agent.clock import NS, Moment
from agent.workflow import Draft, Parcel

REASONS = ("did_not_occur", "wrong_parcel", "wrong_receiver")
"""Why an entry is wrong; the first where nothing is said."""
CORRECTABLE = frozenset(
    {"custody.accepted", "custody.offered", "custody.handed_over", "custody.exception_noted"}
)
OWN_S = 900.0
"""So long a driver may take back what they did."""
SHIFT_S = 12 * 3600.0
"""So long it is remembered, for a supervisor."""
MOST = 1000
"""Parcels whose last entry is remembered."""
LATELY = "lately/"
"""The journal's records of those, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """The last entry about one parcel that can be taken back."""

    entry: str
    """Its id."""
    type: str
    by: str
    """The driver whose entry it is."""
    at: Mapping[str, Any]
    """When it was made, as `agent.past` remembers it."""
    before: Parcel | None
    """Who had the parcel before; None for nobody here."""

    @classmethod
    def of(cls, entry: str, draft: Draft, parcel: Parcel | None, at: Moment) -> Self | None:
        """What is to be remembered of an entry that is just made; None for one that is no driver's."""
        by = draft.data.get("from" if draft.type == "custody.handed_over" else "by")
        if draft.type not in CORRECTABLE or by is None:
            return None
        before = None if parcel is None else Parcel(holder=parcel.holder, since=parcel.since)
        return cls(entry=entry, type=draft.type, by=by, at=past.record(at), before=before)

    @property
    def people(self) -> tuple[str, ...]:
        """Whom it names."""
        return (self.by, self.before.holder) if self.before else (self.by,)

    @property
    def sequence(self) -> int:
        return int(self.entry.rpartition("-")[2])

    def why_not(self, driver: str, at: Moment, *, supervisor: bool) -> str | None:
        """Why this driver cannot take it back now, or None."""
        if not supervisor and self.by != driver:
            return "not_yours"
        return None if past.ago_s(self.at, at) < (SHIFT_S if supervisor else OWN_S) else "too_late"

    def after(self, now: Parcel | None) -> Parcel | None:
        """Who has the parcel once this entry is taken back. What was noted about it moves it nowhere."""
        return now if self.type == "custody.exception_noted" else self.before

    def dump(self) -> dict[str, Any]:
        return {
            "entry": self.entry,
            "type": self.type,
            "by": self.by,
            "at": dict(self.at),
            "before": self.before and asdict(self.before),
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        before = record["before"] and Parcel(**record["before"])
        return cls(**{**record, "before": before})


@dataclass(frozen=True, slots=True, kw_only=True)
class Correcting:
    """The next parcel scanned is one about which the last entry is wrong."""

    reason: str
    boot: str
    mono_ns: int

    @classmethod
    def begun(cls, reason: str, at: Moment) -> Self:
        return cls(reason=reason, boot=at.boot, mono_ns=at.mono_ns)

    def over(self, at: Moment, within: float) -> bool:
        """Whether it has waited for longer (seconds), or since another boot."""
        return self.boot != at.boot or at.since(self.mono_ns) >= within

    def due_ns(self, within: float) -> int:
        """When it is over, on the monotonic clock."""
        return self.mono_ns + int(within * NS)

    def dump(self) -> dict[str, Any]:
        return asdict(self)
