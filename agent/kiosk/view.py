"""What the kiosk's screen shows: a person's view of the locker, and nothing beyond it. Pure.

What lasts follows from the workflow's state: a door that is open, a courier on duty. What passes follows from
the entries of a decision, and is gone after some seconds: thank you, or the one answer that every refusal
gets. No code, no label, no name and no reason comes through here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.clock import NS, Moment
from agent.locker.compartments import For, Job, Wall
from agent.locker.doors import Phase
from agent.locker.turn import Locker
from agent.workflow import Decision, Draft


class Face(StrEnum):
    """What the screen is about."""

    OUT = "out"
    """No compartment can be opened."""
    IDLE = "idle"
    IDENTIFY = "identify"
    """A courier has shown one factor, and another is wanted."""
    COURIER = "courier"
    SIZE = "size"
    """A parcel was scanned: how large is it?"""
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    """In its frame, not latched yet."""
    THANKS = "thanks"
    RECEIPT = "receipt"
    REFUSED = "refused"
    FAILED = "failed"
    """The door did not open."""
    LEFT = "left"
    """The door is shut, and something is still inside."""
    EMPTY = "empty"
    """The door is shut, and nothing was put in."""


class Task(StrEnum):
    """What the person at an open door is there for."""

    TAKE = "take"
    PUT = "put"
    MIND = "mind"
    """Their own business: the door is to be shut afterwards."""


LASTS_S = {
    Face.THANKS: 6.0,
    Face.RECEIPT: 60.0,
    Face.REFUSED: 6.0,
    Face.FAILED: 10.0,
    Face.LEFT: 15.0,
    Face.EMPTY: 10.0,
}
"""What passes, and for how long it is shown."""

_PASSING = {
    "locker.collected": Face.THANKS,
    "locker.returned": Face.THANKS,
    "locker.retrieved": Face.THANKS,
    "locker.opening_used": Face.THANKS,
    "locker.deposited": Face.RECEIPT,
    "locker.deposit_abandoned": Face.EMPTY,
    "locker.left_behind": Face.LEFT,
    "locker.not_opened": Face.FAILED,
    "locker.outcome_unknown": Face.FAILED,
    "locker.code_refused": Face.REFUSED,
    "locker.refused": Face.REFUSED,
    "identity.refused": Face.REFUSED,
}
"""Entries that the person at the locker is shown something for."""

_FORWARD = {
    "locker.opening_intended",
    "locker.parcel_scanned",
    "locker.deposit_cancelled",
    "locker.session_opened",
    "locker.session_closed",
    "identity.factor_shown",
}
"""Entries with which something new has begun: what was shown in passing is over."""

_TASKS = {For.PICKUP: Task.TAKE, For.RETRIEVE: Task.TAKE, For.DEPOSIT: Task.PUT, For.RETURN: Task.PUT}
_FACES = {Phase.UNLATCHED: Face.OPEN, Phase.OPENED: Face.OPEN, Phase.CLOSED: Face.CLOSING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What the state of the locker shows, until it changes."""

    face: Face = Face.OUT
    door: str | None = None
    """The compartment that is open, or about to be, for the person who is there now."""
    task: Task = Task.MIND
    staff: bool = False
    """Somebody is on duty: their buttons work."""
    second: bool = False
    """It is another person who is to identify now."""
    size: str | None = None
    """What the courier has chosen for the parcels to come."""
    ajar: tuple[str, ...] = ()
    """Doors that stand open though nobody is busy with them any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The screen: what lasts, and what passes over it."""

    lasting: Lasting = field(default_factory=Lasting)
    focus: str | None = None
    """The compartment that was opened last."""
    passing: Face | None = None
    until_ns: int | None = None
    """When what passes is over, on the monotonic clock."""
    times: int = 0
    """How often something passed so far: a second refusal is news as well."""
    receipt: str | None = field(default=None, repr=False)
    """The courier's, while it is shown."""

    @property
    def face(self) -> Face:
        return self.lasting.face if self.passing is None or self.lasting.face is Face.OUT else self.passing

    def told(self) -> Mapping[str, Any]:
        """All that the page hears of it."""
        return {
            "face": self.face,
            "beneath": self.lasting.face,
            "door": self.lasting.door,
            "task": self.lasting.task,
            "staff": self.lasting.staff,
            "second": self.lasting.second,
            "size": self.lasting.size,
            "ajar": self.lasting.ajar,
            "times": self.times,
        }


def found(state: Locker, wall: Wall) -> View:
    """The screen as the agent finds the locker when it starts."""
    return View(lasting=_lasting(state, wall, None))


def after(view: View, decision: Decision[Locker], at: Moment, wall: Wall) -> View:
    """The screen once a decision is on stable storage."""
    view = at_time(view, at)
    for entry in decision.entries:
        view = _told(view, entry, at)
    return replace(view, lasting=_lasting(decision.state, wall, view.focus))


def at_time(view: View, at: Moment) -> View:
    """The screen without what is over by now."""
    if view.until_ns is None or at.mono_ns < view.until_ns:
        return view
    return replace(view, passing=None, until_ns=None, receipt=None)


def _told(view: View, entry: Draft, at: Moment) -> View:
    """One entry more."""
    if entry.type in _FORWARD:
        view = replace(view, passing=None, until_ns=None, receipt=None)
    if entry.type == "locker.opening_intended":
        return replace(view, focus=entry.subject)
    if entry.type == "locker.session_closed":
        return _pass(view, Face.THANKS, at) if entry.data.get("reason") == "ended" else view
    face = _PASSING.get(entry.type)
    if face is None:
        return view
    receipt = entry.data.get("receipt") if face is Face.RECEIPT else None
    if face is Face.RECEIPT and receipt is None:
        face = Face.THANKS
    return _pass(view, face, at, receipt)


def _pass(view: View, face: Face, at: Moment, receipt: str | None = None) -> View:
    until_ns = at.mono_ns + int(LASTS_S[face] * NS)
    return replace(view, passing=face, until_ns=until_ns, times=view.times + 1, receipt=receipt)


# -- what lasts -------------------------------------------------------------------------------------


def _lasting(state: Locker, wall: Wall, focus: str | None) -> Lasting:
    session = state.session
    shown = Lasting(
        face=_at_rest(state),
        staff=session is not None,
        second=state.login is not None and state.login.waits,
        size=state.size.name if state.size is not None and session is not None else None,
        ajar=tuple(sorted({*_forgotten(state), *state.loose})),
    )
    if set(wall.compartments) <= set(state.out):
        return Lasting()
    busy = _busy(state, focus)
    if busy is None:
        return shown
    name, job = busy
    face = _FACES.get(job.opening.phase, Face.OPENING)
    return replace(shown, face=face, door=name, task=_TASKS.get(job.what, Task.MIND))


def _at_rest(state: Locker) -> Face:
    """The face of a locker at which no door is open."""
    if state.login is not None:
        return Face.IDENTIFY
    if state.session is None:
        return Face.IDLE
    return Face.COURIER if state.pending is None else Face.SIZE


def _busy(state: Locker, focus: str | None) -> tuple[str, Job] | None:
    """The opening that somebody is busy with; the last one where there are several."""
    jobs = {
        name: status.job
        for name, status in state.statuses.items()
        if status.job is not None and name not in state.out and not status.job.opening.held_told
    }
    if not jobs:
        return None
    name = focus if focus in jobs else max(jobs, key=lambda each: jobs[each].opening.since_ns)
    return name, jobs[name]


def _forgotten(state: Locker) -> list[str]:
    """Doors that have been open for so long that it was an alarm."""
    return [
        name
        for name, status in state.statuses.items()
        if status.job is not None and status.job.opening.held_told and name not in state.out
    ]
