"""Many doors at the fleet's word: which, until when, and what has come of each so far. Pure.

A round is one command. It waits, remembered, until somebody in charge is there; then its doors open one after
the other. It goes on with the same person, in the same life of the agent, or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from agent.clock import NS, Moment


class Came(StrEnum):
    """What came of one door of a round."""

    OPENED = "opened"
    UNKNOWN = "unknown"


class Stop(StrEnum):
    """Why a round opens nothing more."""

    DONE = "done"
    NOBODY_CAME = "nobody_came"
    """It lapsed: nobody in charge was there in time."""
    EXPIRED = "expired"
    """Its time was over before the last door."""
    PRESENCE_WITHDRAWN = "presence_withdrawn"
    LOCKED_DOWN = "locked_down"
    INTERRUPTED = "interrupted"
    """The agent stopped, or the power failed, between two doors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Doors that are to be opened. Times are nanoseconds of `boot`'s monotonic clock."""

    told: Mapping[str, Any]
    """What the command says about itself."""
    device: str
    doors: tuple[str, ...]
    boot: str
    until_ns: int
    """No door of it is begun later."""
    until_utc_ns: int | None
    """The same as civil time; None if no trusted clock told it."""
    by: str | None = None
    """Who is there for it; None while it waits."""
    came: Mapping[str, str] = field(default_factory=dict)
    """Door to what came of it: `Came`, or why it was not opened."""
    going: str | None = None
    """The door that is being opened now."""
    stopped: Stop | None = None
    """Nothing more is begun; what came of the door that was being opened is still waited for."""

    @property
    def left(self) -> list[str]:
        """Doors that were not begun."""
        return [name for name in self.doors if name not in self.came and name != self.going]

    def after(self, name: str, came: str) -> Self:
        """Once it is known what came of a door."""
        return replace(self, going=None, came={**self.came, name: came})

    def over(self, at: Moment) -> bool:
        return self.boot != at.boot or at.mono_ns > self.until_ns

    def report(self, stop: Stop) -> dict[str, Any]:
        """What its command's outcome says. Of the door that was just being opened nobody knows."""
        unknown = [name for name in self.doors if self.came.get(name) == Came.UNKNOWN or name == self.going]
        known = {name: came for name, came in self.came.items() if came not in (Came.OPENED, Came.UNKNOWN)}
        return {
            "detail": stop,
            "present": self.by,
            "opened": [name for name in self.doors if self.came.get(name) == Came.OPENED],
            "not_opened": known,
            "unknown": unknown,
            "left": self.left,
        }

    def dump(self) -> dict[str, Any]:
        return {
            "told": dict(self.told),
            "device": self.device,
            "doors": list(self.doors),
            "boot": self.boot,
            "until_ns": self.until_ns,
            "until_utc_ns": self.until_utc_ns,
            "by": self.by,
            "came": dict(self.came),
            "going": self.going,
            "stopped": self.stopped,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any], at: Moment) -> Self:
        """As it was. After a reboot one that waited goes on only by a clock that is assured."""
        stopped = record["stopped"] and Stop(record["stopped"])
        round_ = cls(**{**record, "doors": tuple(record["doors"]), "stopped": stopped})
        if round_.boot == at.boot or round_.until_utc_ns is None or not at.assured:
            return round_
        return replace(round_, boot=at.boot, until_ns=at.mono_ns + round_.until_utc_ns - at.utc_ns)


def ordered(told: Mapping[str, Any], device: str, doors: tuple[str, ...], until_ns: int, at: Moment) -> Round:
    """A round that waits for somebody, until then by the monotonic clock."""
    until_utc_ns = at.utc_ns + until_ns - at.mono_ns if at.assured else None
    return Round(
        told=told, device=device, doors=doors, boot=at.boot, until_ns=until_ns, until_utc_ns=until_utc_ns
    )


WAKES_AFTER_NS = NS // 1000
"""A round is over once its time is passed, not while it lasts."""
