"""When the next solenoid may be pulsed. Pure.

A power supply carries one pulse at a time, with a gap after it. A coil that is pulsed again and again gets
hot: within any window each has a budget of on-time. What was pulsed is remembered with the order to pulse:
a restart buys nobody a pulse. Where nothing is remembered the first pulse waits as long as a full gap, and
coils begin with the window's budget half spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from agent.clock import NS, Moment

ON_TIME_MOST_S = 1.0
"""No pulse is longer: a coil made for pulses burns in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the wiring stands. Seconds."""

    gap: float = 0.3
    """Between the end of one pulse and the next on the same supply."""
    window: float = 60.0
    on_time: float = 2.4
    """Of one coil within the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pulse:
    began_ns: int
    on_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """What was pulsed lately. Times are of one boot's monotonic clock."""

    unknown_ns: int | None
    """What was pulsed before is not known; None where it is."""
    free_ns: Mapping[str, int] = field(default_factory=dict)
    """Supply to when it may be used again."""
    pulses: Mapping[str, tuple[_Pulse, ...]] = field(default_factory=dict)
    """Coil to its pulses within the window."""

    @classmethod
    def started(cls, at: Moment) -> Self:
        return cls(unknown_ns=at.mono_ns)

    @classmethod
    def load(cls, record: Mapping[str, Any] | None, at: Moment) -> Self:
        """After a reboot every pulse counts as one of the new boot's beginning: it was no later."""
        if record is None:
            return cls.started(at)
        same = record["boot"] == at.boot
        pulses = {
            coil: tuple(_Pulse(began_ns=began_ns if same else 0, on_ns=on_ns) for began_ns, on_ns in each)
            for coil, each in record["coils"].items()
        }
        return cls(unknown_ns=None, free_ns=record["free_ns"] if same else {}, pulses=pulses)

    def dump(self, at: Moment, bounds: Bounds) -> dict[str, Any]:
        """What still counts."""
        lately = {
            coil: [[each.began_ns, each.on_ns] for each in pulses if at.since(each.began_ns) < bounds.window]
            for coil, pulses in self.pulses.items()
        }
        coils = {coil: pulses for coil, pulses in lately.items() if pulses}
        return {"boot": at.boot, "free_ns": dict(self.free_ns), "coils": coils}

    def not_before_ns(self, supply: str, coil: str, on: float, bounds: Bounds) -> int:
        """The earliest moment for a pulse of `on` seconds on a coil."""
        unknown_ns = 0 if self.unknown_ns is None else self.unknown_ns + int(bounds.gap * NS)
        return max(self.free_ns.get(supply, unknown_ns), self._cool_ns(coil, int(on * NS), bounds))

    def pulsed(self, supply: str, coil: str, on: float, at: Moment, bounds: Bounds) -> Self:
        """After a pulse that begins now."""
        on_ns = int(on * NS)
        kept = [each for each in self.pulses.get(coil, ()) if at.since(each.began_ns) < bounds.window]
        mine = (*kept, _Pulse(began_ns=at.mono_ns, on_ns=on_ns))
        free_ns = at.mono_ns + on_ns + int(bounds.gap * NS)
        return replace(self, free_ns={**self.free_ns, supply: free_ns}, pulses={**self.pulses, coil: mine})

    def fed(self, supply: str, coil: str, on: float, at: Moment, bounds: Bounds) -> Self:
        """The board has told of the pulse that was ordered last: it began no later than now.

        An order may have waited for the line. Supply and coil rest from what is certain.
        """
        before = {**self.pulses, coil: self.pulses.get(coil, ())[:-1]}
        return replace(self, pulses=before).pulsed(supply, coil, on, at, bounds)

    def _cool_ns(self, coil: str, on_ns: int, bounds: Bounds) -> int:
        """When enough of the coil's earlier pulses have left the window."""
        pulses = self.pulses.get(coil, ())
        if self.unknown_ns is not None:
            pulses = (_Pulse(began_ns=self.unknown_ns, on_ns=int(bounds.on_time * NS) // 2), *pulses)
        budget_ns = int(bounds.on_time * NS) - on_ns
        spent_ns = sum(each.on_ns for each in pulses)
        cool_ns = 0
        for each in pulses:
            if spent_ns <= budget_ns:
                break
            spent_ns -= each.on_ns
            cool_ns = each.began_ns + int(bounds.window * NS)
        return cool_ns
