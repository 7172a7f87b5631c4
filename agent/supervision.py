"""What a supervisor may do on the spot: end the wait of somebody who is locked out. Pure.

In a supervisor's session the control code `POSTERN:UNLOCK` waits for one badge, for the time of a login.
The badge of somebody who waits ends the wait; at a reader that rests it ends the rest first. What fifty
failures have disabled, the fleet alone lifts.
"""

from dataclasses import replace
from typing import TypeVar

from agent.clock import Moment
from agent.session import Duty, Session, Unlocking, told
from agent.workflow import Decision, Draft, FactorShown, Lane, Outcome, Pardon, sound
from drivers.readings import Tone

SUPERVISOR = "supervisor"

S = TypeVar("S", bound=Duty)


def begin(state: S, session: Session, unit: str, at: Moment) -> Decision[S]:
    """Wait for the badge."""
    opened = Draft("identity.unlock_opened", session.driver, {"unit": unit}, Lane.STATE)
    waiting = Unlocking(boot=at.boot, mono_ns=at.mono_ns)
    return Decision(
        state=replace(state, unlocking=waiting), entries=(opened,), orders=(sound(unit, Tone.ASK),)
    )


def cancel(state: S) -> tuple[S, tuple[Draft, ...]]:
    """Wait no longer."""
    if state.unlocking is None or state.session is None:
        return state, ()
    cancelled = Draft("identity.unlock_cancelled", state.session.driver, {}, Lane.STATE)
    return replace(state, unlocking=None), (cancelled,)


def unlock(state: S, session: Session, event: FactorShown) -> Decision[S]:
    """What the badge comes to that a supervisor waited for."""
    unit, verdict = event.unit, event.verdict
    data = {"unit": unit, "by": session.driver}
    if verdict.outcome is Outcome.PAUSED:
        # Whose badge it is was not looked up: it has to be shown once more.
        woken = Draft("identity.reader_unlocked", unit, data)
        return _answer(state, event, woken, Tone.ASK, Pardon(reader=unit))
    if verdict.subject == session.driver or verdict.outcome in (Outcome.GRANTED, Outcome.DISABLED):
        reason = {Outcome.GRANTED: "not_locked", Outcome.DISABLED: "disabled"}.get(verdict.outcome, "own")
        refused = Draft("identity.unlock_refused", verdict.subject or unit, {**data, "reason": reason})
        return _answer(replace(state, unlocking=None), event, refused, Tone.BAD)
    if verdict.outcome is Outcome.LOCKED and verdict.subject:
        unlocked = Draft("identity.subject_unlocked", verdict.subject, data)
        pardon = Pardon(subject=verdict.subject, reader=unit if verdict.reader_paused else None)
        return _answer(replace(state, unlocking=None), event, unlocked, Tone.GOOD, pardon)
    return _answer(state, event, told("identity.refused", unit, verdict, Lane.CUSTODY), Tone.BAD)


def _answer(
    state: S, event: FactorShown, entry: Draft, tone: Tone, pardon: Pardon | None = None
) -> Decision[S]:
    return Decision(state=state, entries=(entry,), orders=(sound(event.unit, tone),), pardon=pardon)
