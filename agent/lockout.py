"""How many tries a credential and a reader have left. Pure: a record and a moment in, a record out.

Five consecutive failures, then 30 s before each further try; fifty disable until the fleet says otherwise.
A reader that saw twenty failures within ten minutes rests for five. Durations are measured on the monotonic
clock; after a reboot, when nobody knows how long the power was off, a wait begins again at boot.

A config may be stricter, never looser; and a record says itself that it is locked, so that a config which
becomes less strict again lifts no lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from agent.clock import NS, Moment

FREE_TRIES = 5
WAIT_S = 30.0
LAST_TRY = 50

BURST = 20
BURST_WINDOW_S = 600.0
BURST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is borne. Times in seconds."""

    tries: int = FREE_TRIES
    wait: float = WAIT_S
    last_try: int = LAST_TRY
    burst: int = BURST
    pause: float = BURST_PAUSE_S


DECIDED = Limits()


@dataclass(frozen=True, slots=True)
class Tries:
    """Consecutive failures of one subject."""

    failures: int = 0
    boot: str = ""
    mono_ns: int = 0
    """Of the last failure."""
    forgiven: int = 0
    """Failures after which a supervisor ended the wait. They count for the last try all the same."""
    waits: bool = False
    disabled: bool = False

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def dump(self) -> dict[str, Any]:
        return {
            "failures": self.failures,
            "boot": self.boot,
            "mono_ns": self.mono_ns,
            "forgiven": self.forgiven,
            "waits": self.waits,
            "disabled": self.disabled,
        }

    def waiting(self, limits: Limits) -> bool:
        """Whether each further try costs a wait."""
        return self.waits or self.failures - self.forgiven >= limits.tries

    def spent(self, limits: Limits) -> bool:
        """Whether the fleet alone can let this subject try again."""
        return self.disabled or self.failures >= limits.last_try


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


def subject_may_try(tries: Tries, now: Moment, limits: Limits = DECIDED) -> bool:
    """Whether a known subject's factor may be compared at all."""
    if tries.spent(limits):
        return False
    return not tries.waiting(limits) or _elapsed(tries.boot, tries.mono_ns, now) >= limits.wait


def subject_failed(tries: Tries, now: Moment, limits: Limits = DECIDED) -> Tries:
    failed = replace(tries, failures=tries.failures + 1, boot=now.boot, mono_ns=now.mono_ns)
    return replace(failed, waits=failed.waiting(limits), disabled=failed.spent(limits))


def subject_pardoned(tries: Tries) -> Tries:
    """The wait is over, by a supervisor's word. What is disabled stays so."""
    return replace(tries, forgiven=tries.failures, waits=False)


def reader_may_try(burst: Burst, now: Moment, limits: Limits = DECIDED) -> bool:
    """Whether a reader is listened to."""
    return not burst.paused or _elapsed(burst.boot, burst.failed_ns[-1], now) >= limits.pause


def reader_failed(burst: Burst, now: Moment, limits: Limits = DECIDED) -> Burst:
    """Count a failure; the one that fills the window starts the pause."""
    before = () if burst.paused else burst.failed_ns
    recent = [
        failed_ns if burst.boot == now.boot else 0
        for failed_ns in before
        if _elapsed(burst.boot, failed_ns, now) < BURST_WINDOW_S
    ]
    if len(recent) + 1 >= limits.burst:
        return Burst(now.boot, (now.mono_ns,), paused=True)
    return Burst(now.boot, (*recent, now.mono_ns))


def _elapsed(boot: str, mono_ns: int, now: Moment) -> float:
    """Seconds that have passed for sure."""
    return (now.mono_ns - (mono_ns if boot == now.boot else 0)) / NS
