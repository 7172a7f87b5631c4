"""Taking a mistaken scan or handover back: `POSTERN:CORRECT`, then the parcel within a login's time. Pure."""

from dataclasses import replace

from agent import supervision
from agent.clock import Moment
from agent.correction import REASONS, Correcting, Lately
from agent.duty import HELD_LIMIT, Custody
from agent.reply import accept, done, refuse, refuse_control
from agent.workflow import ControlScanned, Decision, Draft, LabelRead, Lane, Parcel, sound
from drivers.readings import Tone


def begin(state: Custody, event: ControlScanned, driver: str, *said: str) -> Decision[Custody]:
    """Wait for the parcel about which the last entry is wrong, and why."""
    reason = ":".join(said) if said else REASONS[0]
    if reason not in REASONS:
        return refuse_control(state, event, "malformed")
    opened = Draft("custody.correction_opened", driver, {"unit": event.unit, "reason": reason}, Lane.STATE)
    state = replace(state, correcting=Correcting.begun(reason, event.at))
    return replace(done(state, event, opened), orders=(sound(event.unit, Tone.ASK),))


def cancel(state: Custody, event: ControlScanned, driver: str) -> Decision[Custody]:
    """Wait no longer."""
    cancelled = Draft("custody.correction_cancelled", driver, {"unit": event.unit}, Lane.STATE)
    return done(replace(state, correcting=None), event, cancelled)


def lapse(state: Custody, at: Moment, within: float) -> tuple[Custody, tuple[Draft, ...]]:
    """Wait no longer than this (seconds)."""
    correcting, session = state.correcting, state.session
    if correcting is None or session is None or not correcting.over(at, within):
        return state, ()
    lapsed = Draft("custody.correction_lapsed", session.driver, {"reason": correcting.reason}, Lane.STATE)
    return replace(state, correcting=None), (lapsed,)


def correct(state: Custody, event: LabelRead, now: Parcel | None, wrong: Lately | None) -> Decision[Custody]:
    """Take the last entry about a parcel back: who has it then is who had it before."""
    correcting, session = state.correcting, state.session
    assert correcting is not None
    assert session is not None
    state = replace(state, correcting=None)
    if event.full:
        return refuse(state, event, "journal_full")
    if wrong is None:
        return refuse(state, event, "nothing_to_correct")
    supervisor = session.role == supervision.SUPERVISOR
    if (why_not := wrong.why_not(session.driver, event.at, supervisor=supervisor)) is not None:
        return refuse(state, event, why_not)
    after = wrong.after(now)
    held = state.held + (after is not None) - (now is not None)
    if held > max(HELD_LIMIT, state.held):
        return refuse(state, event, "too_many", limit=HELD_LIMIT)
    data = {
        "by": session.driver,
        "corrects": wrong.entry,
        "what": wrong.type,
        "reason": correcting.reason,
        "holder": after and after.holder,
    }
    records = {} if after == now else {event.label: after}
    return accept(replace(state, held=held), event, "custody.corrected", data, records)
