"""How many tries a credential and a reader have left. Pure: a record and a moment in, a record out.

Five consecutive failures, then 30 s before each further try; fifty disable until the fleet says otherwise.
A reader that saw twenty failures in ten minutes rests for five. Durations are measured on the monotonic
clock; after a reboot, when nobody knows how long the power was off, a wait begins again at boot.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from agent.clock import Moment

FREE_TRIES = 5
WAIT_S = 30.0
LAST_TRY = 50

BURST = 20
BURST_WINDOW_S = 600.0
BURST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Tries:
    """Failures of one subject (consecutive) or one reader (within the window)."""

    failures: int = 0
    boot: str = ""
    mono_ns: int = 0
    """Of the last failure for a subject, of the window's start for a reader."""
    paused: bool = False

    @classmethod
    def load(cls, record: dict[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    def elapsed(self, now: Moment) -> float:
        """Seconds that have passed for sure."""
        return now.since(self.mono_ns if self.boot == now.boot else 0)


def subject_may_try(tries: Tries, now: Moment) -> bool:
    """Whether a known subject's factor may be compared at all."""
    if tries.failures >= LAST_TRY:
        return False
    return tries.failures < FREE_TRIES or tries.elapsed(now) >= WAIT_S


def subject_failed(tries: Tries, now: Moment) -> Tries:
    return Tries(tries.failures + 1, now.boot, now.mono_ns)


def reader_may_try(tries: Tries, now: Moment) -> bool:
    """Whether a reader is listened to."""
    return not tries.paused or tries.elapsed(now) >= BURST_PAUSE_S


def reader_failed(tries: Tries, now: Moment) -> Tries:
    """Count a failure; the one that fills the window starts the pause."""
    if not tries.failures or tries.paused or tries.elapsed(now) > BURST_WINDOW_S:
        tries = Tries(0, now.boot, now.mono_ns)
    tries = replace(tries, failures=tries.failures + 1)
    if tries.failures < BURST:
        return tries
    return Tries(tries.failures, now.boot, now.mono_ns, paused=True)
