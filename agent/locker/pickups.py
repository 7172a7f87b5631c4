"""Codes at a locker: which one opens which door, and what a wrong one costs. Pure.

The order is fixed: is anything compared at all, is the grant good, is it spent, is its door there and fit.
Then the grant is spent and the opening intended, in one transaction, and only after that comes the pulse.
"""

from agent.locker import openings
from agent.locker.compartments import For, Job, Size, Status, choose
from agent.locker.events import GrantShown
from agent.locker.grants import Grant, Purpose, Refusal, Way, may_open, past, spend
from agent.locker.turn import CODES, GRANT, MINTED, WRONG, Turn
from drivers.readings import Tone


def show_code(turn: Turn, event: GrantShown, *, locked_down: bool) -> None:
    """Somebody shows a code: open its door, or refuse it for a reason that stays with us."""
    guard = turn.state.guard
    if (refusal := guard.refuses(event.way, turn.at)) is not None:
        # Nothing is compared, so that the answer to what is right is the answer to what is wrong.
        return _refuse_code(turn, event, refusal, counted=False)
    dead = event.selector is not None and turn.wrong(event.selector).dead
    if event.grant is None or dead:
        return _refuse_code(turn, event, event.refusal or Refusal.PIN_OFF)
    grant = event.grant
    if (refusal := may_open(grant, turn.known_use(grant.jti), turn.at)) is not None:
        return _refuse_code(turn, event, refusal)
    name, refusal = _where(turn, grant)
    if locked_down:
        refusal = Refusal.LOCKED_DOWN
    if name is None or refusal is not None:
        return _refuse_code(turn, event, refusal or Refusal.NOTHING_HERE, counted=False)
    if guard != (better := guard.succeeded()):
        turn.become(guard=better)
        turn.notes[CODES] = better.dump()
    return _use(turn, event, grant, name)


def _use(turn: Turn, event: GrantShown, grant: Grant, name: str) -> None:
    """Spend the grant and open its door, in one transaction before the pulse."""
    turn.notes[GRANT + grant.jti] = spend(grant, turn.known_use(grant.jti), turn.at, name).dump()
    returned = grant.purpose is Purpose.RETURN
    job = Job(
        what=For.RETURN if returned else For.PICKUP,
        opening=openings.intended(turn, name),
        unit=event.unit,
        grant=grant.jti,
        parcel=grant.parcel if returned else turn.state.status(name).parcel,
    )
    openings.begin(turn, name, job, way=event.way)


def _where(turn: Turn, grant: Grant) -> tuple[str | None, Refusal | None]:
    """The compartment that a grant is for, and why it cannot be opened now."""
    state, wall = turn.state, turn.rules.wall
    if grant.purpose is Purpose.RETURN and grant.compartment is None:
        chosen = choose(wall, state.statuses, state.unusable(), Size.S, state.busy)
        return (chosen.name, None) if chosen else (None, Refusal.NOTHING_HERE)
    name = grant.compartment or (state.holding(grant.parcel) if grant.parcel else None)
    if name is None or name not in wall.compartments:
        return None, Refusal.NOTHING_HERE
    status = state.status(name)
    if status.job is not None:
        return name, Refusal.BUSY
    if name in state.out or (status.quarantine and status.doubt != grant.jti):
        return name, Refusal.OUT_OF_SERVICE
    if grant.purpose is Purpose.RETURN:
        return name, None if status.free else Refusal.NOTHING_HERE
    if status.parcel is None or status.returned or grant.parcel not in (None, status.parcel):
        return name, Refusal.NOTHING_HERE
    return name, None


def _refuse_code(turn: Turn, event: GrantShown, refusal: Refusal, *, counted: bool = True) -> None:
    grant = event.grant.jti if event.grant else None
    data = {"reason": refusal, "way": event.way, "grant": grant, "selector": event.selector}
    turn.say("locker.code_refused", event.unit, **data)
    turn.tone(event.unit, Tone.BAD)
    if not counted or event.way is not Way.PIN:
        # A QR code or a long code cannot be guessed: one that expired shuts nobody else out.
        return
    before = turn.state.guard
    guard = before.failed(turn.at)
    turn.become(guard=guard)
    turn.notes[CODES] = guard.dump()
    if event.selector is not None:
        turn.notes[WRONG + event.selector] = turn.wrong(event.selector).more(turn.at).dump()
    if guard.pauses > before.pauses:
        turn.say("locker.codes_paused", event.unit, pause_s=guard.pause_s)
    if guard.pin_off and not before.pin_off:
        turn.say("locker.pins_disabled", event.unit, wrong=guard.wrong)


def restore_grants(turn: Turn, name: str, status: Status) -> None:
    """A person has looked: what was never open is as it was, and so is the grant to open it."""
    if status.parcel is None:
        return
    for key, record in turn.known.records.items():
        if key.startswith(GRANT) and record.get("compartment") == name and not record["opened"]:
            turn.notes[key] = None
            turn.say("locker.grant_restored", name, grant=key.removeprefix(GRANT))


def forget(turn: Turn) -> None:
    """What expired long ago: nothing can be shown for it any more."""
    hold = turn.rules.hold
    for key, record in turn.known.records.items():
        if key.startswith(WRONG):
            expired = past(record["last_s"] + hold, turn.at)
        else:
            expired = key.startswith((GRANT, MINTED)) and past(record["exp"], turn.at)
        if expired and key not in turn.notes:
            turn.notes[key] = None
