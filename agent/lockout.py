"""How many tries a credential and a reader have left. Pure: a record and a moment in, a record out.

Five consecutive failures, then 30 s before each further try; fifty disable until the fleet says otherwise.
A reader that saw twenty failures within ten minutes rests for five. Durations are measured on the monotonic
clock; after a reboot, when nobody knows how long the power was off, a wait begins again at boot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.clock import NS, Moment

FREE_TRIES = 5
WAIT_S = 30.0
LAST_TRY = 50

BURST = 20
BURST_WINDOW_S = 600.0
BURST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Tries:
    """Consecutive failures of one subject."""

    failures: int = 0
    boot: str = ""
    mono_ns: int = 0
    """Of the last failure."""

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def dump(self) -> dict[str, Any]:
        return {"failures": self.failures, "boot": self.boot, "mono_ns": self.mono_ns}


@dataclass(frozen=True, slots=True)
class Burst:
    """Failures at one reader within the window, whoever failed."""

    boot: str = ""
    failed_ns: tuple[int, ...] = ()
    """When, oldest first; of a pause only the failure that began it."""
    paused: bool = False

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(record["boot"], tuple(record["failed_ns"]), record["paused"]) if record else cls()

    def dump(self) -> dict[str, Any]:
        return {"boot": self.boot, "failed_ns": list(self.failed_ns), "paused": self.paused}


def subject_may_try(tries: Tries, now: Moment) -> bool:
    """Whether a known subject's factor may be compared at all."""
    if tries.failures >= LAST_TRY:
        return False
    return tries.failures < FREE_TRIES or _elapsed(tries.boot, tries.mono_ns, now) >= WAIT_S


def subject_failed(tries: Tries, now: Moment) -> Tries:
    return Tries(tries.failures + 1, now.boot, now.mono_ns)


def reader_may_try(burst: Burst, now: Moment) -> bool:
    """Whether a reader is listened to."""
    return not burst.paused or _elapsed(burst.boot, burst.failed_ns[-1], now) >= BURST_PAUSE_S


def reader_failed(burst: Burst, now: Moment) -> Burst:
    """Count a failure; the one that fills the window starts the pause."""
    before = () if burst.paused else burst.failed_ns
    recent = [
        failed_ns if burst.boot == now.boot else 0
        for failed_ns in before
        if _elapsed(burst.boot, failed_ns, now) < BURST_WINDOW_S
    ]
    if len(recent) + 1 >= BURST:
        return Burst(now.boot, (now.mono_ns,), paused=True)
    return Burst(now.boot, (*recent, now.mono_ns))


def _elapsed(boot: str, mono_ns: int, now: Moment) -> float:
    """Seconds that have passed for sure."""
    return (now.mono_ns - (mono_ns if boot == now.boot else 0)) / NS
