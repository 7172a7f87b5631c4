"""Somebody on duty at a locker: what lets them in, what they may do there, and how their visit ends. Pure."""

from dataclasses import replace

from agent.freshness import Freshness
from agent.locker.many import TECHNICIAN
from agent.locker.turn import Rules, Turn
from agent.policy import Policy
from agent.session import Proven, Session, dismiss
from agent.standing import Standing
from agent.workflow import Dismissed, FactorShown
from drivers.readings import Tone


def session_policy(rules: Rules, standing: Standing, *roles: str | None) -> Policy:
    """What opens a session. Those in charge may also prove themselves by their own policy."""
    policy = rules.deposit.at(standing.freshness)
    if TECHNICIAN not in roles:
        return policy
    own = rules.technician.at(standing.freshness)
    both = policy.second_person or own.second_person
    return replace(policy, sets=policy.sets + own.sets, second_person=both)


def entitled(turn: Turn, session: Session) -> bool:
    """Whether a technician has shown what their own policy asks for: the couriers' may have let them in."""
    return session.meets(turn.rules.technician.at(turn.known.standing.freshness))


def has_to_wait(turn: Turn) -> bool:
    """Whether a door is open, and one at a time is all that the age of what is known allows."""
    return bool(turn.state.busy) and turn.known.standing.freshness not in (None, Freshness.FRESH)


def begin_visit(turn: Turn, event: FactorShown, proven: Proven) -> None:
    """Somebody has proved all that was asked for; who was on duty before no longer is."""
    turn.become(login=None)
    before = turn.state.session
    if before is not None and before.driver != proven.subject:
        end_visit(turn, before, "superseded")
    turn.become(session=Session.opened(proven, turn.at))
    turn.say(
        "locker.session_opened",
        proven.subject,
        unit=event.unit,
        factors=list(proven.kinds),
        level=proven.level,
        role=proven.role,
        knowledge_age_s=event.verdict.age_s,
        **proven.told(),
    )
    turn.tone(event.unit, Tone.GOOD)


def end_visit(turn: Turn, session: Session, reason: str) -> None:
    """Whatever they had begun and no door was opened for is forgotten."""
    turn.say("locker.session_closed", session.driver, reason=reason)
    turn.become(session=None, pending=None, size=None, unlocking=None)


def dismissed(turn: Turn, event: Dismissed) -> None:
    """Nobody, or one of them, may be on duty any longer."""
    state, lapsed = dismiss(turn.state, event)
    turn.state = state
    turn.entries += lapsed
    if state.session is not None and any(map(event.concerns, state.session.people)):
        end_visit(turn, state.session, event.reason)
