"""Many doors, one after the other, while somebody in charge is there. Pure.

The command was signed twice and is remembered; nothing opens before a technician stands at the locker, in a
session that meets their own policy at the highest level. Each door has its own intent and its own outcome:
the next one is begun when the last was seen open, or has come to an end. Whatever ends the presence ends the
round: what is left stays shut, and the command's outcome names it.
"""

from dataclasses import replace

from agent.commands import Outcome, settled
from agent.locker import openings
from agent.locker.compartments import For, Job
from agent.locker.doors import End, Phase
from agent.locker.events import RoundOrdered
from agent.locker.rounds import WAKES_AFTER_NS, Came, Round, Stop
from agent.locker.service import why_not
from agent.locker.turn import NOT_SEEN, ROUND, Locker, Rules, Turn
from agent.policy import ENOUGH_ALONE, level
from agent.session import Session, at_work
from agent.standing import Standing

TECHNICIAN = "technician"


def order(turn: Turn, event: RoundOrdered) -> None:
    """Wait for somebody in charge; whoever is there already is asked no more."""
    _put(turn, event.round)


def go_on(turn: Turn) -> None:
    """What follows for the round, now that everything else in this turn is decided."""
    while (round_ := turn.state.round) is not None:
        if round_.going is not None:
            came = _came(turn, round_.going)
            if came is not None:
                round_ = round_.after(round_.going, came)
        present = _present(turn)
        stop = round_.stopped or _stop(turn, round_, present)
        if stop is not None and round_.going is None:
            return _end(turn, round_, stop)
        round_ = replace(round_, stopped=stop)
        if round_.going is not None or not _seen(turn.state, round_):
            return _put(turn, round_)
        if round_.by is None:
            if present is None:
                return _put(turn, round_)
            round_ = _begun(turn, round_, present)
        _next(turn, round_)
    return None


def interrupted(turn: Turn) -> None:
    """The agent has started: a round that was under way is not continued by itself."""
    round_ = turn.state.round
    if round_ is not None and round_.by is not None:
        _end(turn, round_, Stop.INTERRUPTED)


def wake_ns(state: Locker) -> list[int]:
    """When time alone will end it, on the monotonic clock."""
    if state.round is None or state.round.stopped is not None:
        return []
    return [state.round.until_ns + WAKES_AFTER_NS]


def attends(session: Session, rules: Rules, standing: Standing) -> bool:
    """Whether this session is somebody in charge who has proved it as well as can be."""
    best = level(session.kinds) >= ENOUGH_ALONE
    return session.role == TECHNICIAN and best and session.meets(rules.technician.at(standing.freshness))


# -- door by door -----------------------------------------------------------------------------------


def _begun(turn: Turn, round_: Round, session: Session) -> Round:
    turn.say(
        "locker.round_begun",
        session.driver,
        command=round_.told["command"],
        compartments=list(round_.doors),
        factors=list(session.kinds),
        level=level(session.kinds),
    )
    turn.become(session=at_work(session, turn.at, turn.rules))
    return replace(round_, by=session.driver)


def _next(turn: Turn, round_: Round) -> None:
    """Intend to open the next door, or note why it cannot be opened."""
    name, told = round_.left[0], round_.told
    refusal = why_not(turn.state, turn.rules.wall, name, locked_down=turn.known.locked_down)
    if refusal is not None:
        return _put(turn, round_.after(name, refusal))
    _put(turn, replace(round_, going=name))
    job = Job(
        what=For.MANY,
        opening=openings.intended(turn, name),
        by=told["key"],
        parcel=turn.state.status(name).parcel,
    )
    about = {"command": told["command"], "operator": told["operator"], "reason": told["reason"]}
    return openings.begin(turn, name, job, **about)


def _came(turn: Turn, name: str) -> str | None:
    """What came of the door that is being opened; None while that is not known."""
    if (end := turn.ends.get(name)) is not None:
        return {End.USED: Came.OPENED, End.UNKNOWN: Came.UNKNOWN}.get(end, end)
    job = turn.state.status(name).job
    if name in turn.state.out or job is None:
        return Came.UNKNOWN
    return Came.OPENED if job.opening.phase in (Phase.OPENED, Phase.CLOSED) else None


def _stop(turn: Turn, round_: Round, present: Session | None) -> Stop | None:
    """Why nothing more of it is begun, or None."""
    if not round_.left and round_.going is None:
        return Stop.DONE
    if turn.known.locked_down:
        return Stop.LOCKED_DOWN
    if round_.over(turn.at):
        return Stop.NOBODY_CAME if round_.by is None else Stop.EXPIRED
    if round_.by is not None and (present is None or present.driver != round_.by):
        return Stop.PRESENCE_WITHDRAWN
    return None


def _present(turn: Turn) -> Session | None:
    session = turn.state.session
    return session if session is not None and attends(session, turn.rules, turn.known.standing) else None


def _seen(state: Locker, round_: Round) -> bool:
    """Whether the boards have spoken since the start: before, nothing is known of any door."""
    return not any(state.out.get(name) == NOT_SEEN for name in round_.doors)


def _end(turn: Turn, round_: Round, stop: Stop) -> None:
    """The command has its outcome, remembered with whatever brought it about."""
    report = round_.report(stop)
    outcome = Outcome.SUCCEEDED if len(report["opened"]) == len(round_.doors) else Outcome.FAILED
    if report["unknown"]:
        outcome = Outcome.UNKNOWN
    turn.say(f"command.{outcome}", round_.device, **round_.told, **report)
    turn.notes.update(settled(round_.told, outcome, turn.known.records))
    turn.notes[ROUND] = None
    turn.become(round=None)


def _put(turn: Turn, round_: Round) -> None:
    if round_ != turn.state.round:
        turn.become(round=round_)
        turn.notes[ROUND] = round_.dump()
