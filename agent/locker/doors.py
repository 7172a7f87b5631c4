"""The truth about one door: what its sensors say, and how far an opening has come. Pure.

Three facts are kept apart, each from its own source: the lock's hook (latched or released), the door's own
contact (closed or not), and what is inside (occupied or empty). A lock board always tells the hook; the
others only where they are wired. What an opening has shown decides what became of it, as a person standing
there would say it: a door that was pushed shut before it ever opened has given nothing away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from agent.clock import NS, Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the steps of an opening may take. Seconds."""

    answer: float = 6.0
    """From the order until the board has said what became of it."""
    release: float = 2.0
    """From the pulse until the hook lets go."""
    ajar: float = 2.0
    """A hook alone that stays released for so long is a door that was opened: pushing it shut takes less."""
    held: float = 120.0
    """A door open for longer is an alarm."""
    latch: float = 10.0
    """From closing until the hook holds again."""


class Phase(StrEnum):
    """How far an opening has come, by evidence."""

    INTENDED = "intended"
    """It is on stable storage that this door is to be opened; nothing was pulsed yet."""
    ORDERED = "ordered"
    """The pulse is on its way to the lock board, or there."""
    PULSED = "pulsed"
    UNLATCHED = "unlatched"
    """The hook let go."""
    OPENED = "opened"
    CLOSED = "closed"
    """The contact says closed; the hook does not hold yet."""


class End(StrEnum):
    """What became of an opening."""

    USED = "used"
    """Opened, closed and latched."""
    NOT_PULSED = "not_pulsed"
    """No pulse was ever ordered."""
    DID_NOT_OPEN = "did_not_open"
    """The hook did not let go."""
    PUSHED_SHUT = "pushed_shut"
    """The hook let go and holds again, and nothing says that the door was open."""
    UNKNOWN = "unknown"
    """Nobody was watching: the agent or the board was away, or the board never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the sensors of one door say now; None for what is not known or not there."""

    latched: bool | None = None
    closed: bool | None = None
    occupied: bool | None = None

    @property
    def shut(self) -> bool:
        """Latched, and not contradicted by a contact."""
        return self.latched is True and self.closed is not False

    @property
    def stands_open(self) -> bool:
        """Whether the door is open for certain."""
        return self.closed is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One opening that is under way. Times are nanoseconds of `boot`'s monotonic clock."""

    phase: Phase
    boot: str
    since_ns: int
    """When this phase began."""
    occupied_before: bool | None = None
    held_told: bool = False
    """The alarm about a door held open, or not latched, has been given."""
    doubted: bool = False
    """The board has no more to say of the pulse than that nobody knows: its line is free again."""

    @classmethod
    def intended(cls, door: Door, at: Moment) -> Self:
        return cls(phase=Phase.INTENDED, boot=at.boot, since_ns=at.mono_ns, occupied_before=door.occupied)

    def to(self, phase: Phase, at: Moment) -> Self:
        """The next phase, from now."""
        return replace(self, phase=phase, boot=at.boot, since_ns=at.mono_ns)

    def dump(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "boot": self.boot,
            "since_ns": self.since_ns,
            "occupied_before": self.occupied_before,
            "held_told": self.held_told,
            "doubted": self.doubted,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, "phase": Phase(record["phase"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that an opening has shown."""

    phase: Phase
    evidence: str
    """`hook`, `contact`, `content` or `time`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How an opening stands after a look at its door: still under way, or with an end."""

    opening: Opening | None
    steps: tuple[Step, ...] = ()
    end: End | None = None
    alarm: str | None = None
    """`held` or `not_latched`, once."""


def look(opening: Opening, door: Door, at: Moment, timing: Timing) -> Progress:
    """Where an opening stands, from what its door shows now and how long it has been so."""
    steps: list[Step] = []
    while True:
        after = _next(opening, door, at, timing)
        if after is None:
            alarm = _alarm(opening, at, timing)
            opening = replace(opening, held_told=opening.held_told or alarm is not None)
            return Progress(opening=opening, steps=tuple(steps), alarm=alarm)
        if isinstance(after, End):
            return Progress(opening=None, steps=tuple(steps), end=after)
        steps.append(after)
        opening = opening.to(after.phase, at)


def due_ns(opening: Opening, door: Door, timing: Timing) -> int | None:
    """When time alone will change something, on the monotonic clock of the opening's boot."""
    held = None if opening.held_told else timing.held
    waits = {
        Phase.ORDERED: timing.answer,
        Phase.PULSED: timing.release,
        Phase.UNLATCHED: timing.ajar if door.closed is None else held,
        Phase.OPENED: held,
        Phase.CLOSED: None if opening.held_told else timing.latch,
    }
    wait = waits.get(opening.phase)
    return None if wait is None else opening.since_ns + int(wait * NS)


def _next(opening: Opening, door: Door, at: Moment, timing: Timing) -> Step | End | None:
    passed = at.since(opening.since_ns)
    match opening.phase:
        case Phase.ORDERED | Phase.PULSED:
            if door.latched is False or door.stands_open:
                return Step(phase=Phase.UNLATCHED, evidence="hook" if door.latched is False else "contact")
            if opening.phase is Phase.ORDERED:
                return End.UNKNOWN if passed >= timing.answer else None
            return End.DID_NOT_OPEN if passed >= timing.release else None
        case Phase.UNLATCHED:
            if (evidence := _opened(opening, door, passed, timing)) is not None:
                return Step(phase=Phase.OPENED, evidence=evidence)
            return End.PUSHED_SHUT if door.shut else None
        case Phase.OPENED:
            if door.shut:
                return End.USED
            return Step(phase=Phase.CLOSED, evidence="contact") if door.closed else None
        case Phase.CLOSED:
            if door.shut:
                return End.USED
            return Step(phase=Phase.OPENED, evidence="contact") if door.stands_open else None
    return None


def _opened(opening: Opening, door: Door, passed: float, timing: Timing) -> str | None:
    """What shows that the door was opened, if anything does."""
    if door.stands_open:
        return "contact"
    before = opening.occupied_before
    if before is not None and door.occupied is not None and door.occupied != before:
        return "content"
    if door.closed is None and passed >= timing.ajar:
        return "time"
    return None


def _alarm(opening: Opening, at: Moment, timing: Timing) -> str | None:
    if opening.held_told:
        return None
    passed = at.since(opening.since_ns)
    if opening.phase in (Phase.UNLATCHED, Phase.OPENED) and passed >= timing.held:
        return "held"
    if opening.phase is Phase.CLOSED and passed >= timing.latch:
        return "not_latched"
    return None


def resume(opening: Opening, door: Door, at: Moment) -> Progress:
    """Take an opening up again after nobody was watching: the agent or its board was away.

    Only what can be seen now counts. A pulse is never given again for it. One that was only intended was
    never given at all: that it is ordered is remembered before.
    """
    if opening.phase is Phase.INTENDED:
        return Progress(opening=None, end=End.NOT_PULSED)
    if door.latched is False or door.stands_open:
        seen = Step(phase=Phase.OPENED, evidence="contact" if door.stands_open else "hook")
        steps = () if opening.phase is Phase.OPENED else (seen,)
        return Progress(opening=opening.to(Phase.OPENED, at), steps=steps)
    if opening.phase in (Phase.OPENED, Phase.CLOSED):
        return Progress(opening=None, end=End.USED)
    emptied = _opened(opening, replace(door, closed=True), 0.0, Timing())
    return Progress(opening=None, end=End.USED if emptied else End.UNKNOWN)
