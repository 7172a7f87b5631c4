"""From the intent to open a door to what became of it, for every door of a locker. Pure.

The intent is remembered in the transaction that orders the pulse, or in one before. An order is given once:
whatever the sensors say, whatever comes back, no pulse follows of itself. What an opening has shown decides
what a person standing there would say: collected or not, deposited or not, look at this door.
"""

from dataclasses import replace
from typing import Any

from agent.clock import NS
from agent.locker.compartments import For, Job, Status
from agent.locker.doors import Door, End, Opening, Phase, Progress, due_ns, look, resume
from agent.locker.grants import Use
from agent.locker.turn import GRANT, PULSES, Locker, Loose, Rules, Turn
from agent.workflow import Order
from drivers.readings import OpenDoor, Tone

BOUNCE_S = 1.5
"""A door that was slammed may spring open again; for so long that is no alarm."""

STAYS = (For.PICKUP, For.RETRIEVE, For.LEASE, For.SERVICE, For.MANY)
"""Openings of a compartment that may hold something already."""


def begin(turn: Turn, name: str, job: Job, **data: Any) -> None:
    """Remember that this door is to be opened, and open it as soon as the wiring allows."""
    status = turn.state.status(name)
    turn.put(name, replace(status, job=job, doubt=None))
    turn.say(
        "locker.opening_intended",
        name,
        purpose=job.what,
        by=job.by,
        grant=job.grant,
        parcel=job.parcel,
        **data,
    )
    pulse_what_may(turn)


def pulse_what_may(turn: Turn) -> None:
    """Order the pulses that are due, those that wait longest first; give up on what waited too long."""
    waiting = [
        (job.opening.since_ns, name, job)
        for name, status in turn.state.statuses.items()
        if (job := status.job) and job.opening.phase is Phase.INTENDED and job.opening.boot == turn.at.boot
    ]
    for since_ns, name, job in sorted(waiting, key=lambda each: each[:2]):
        late = turn.since(since_ns) >= turn.rules.patience
        if late or turn.known.locked_down or name in turn.state.out:
            _end(turn, name, job, End.NOT_PULSED)
        elif not _occupied(turn.state, name, turn.rules) and (
            _pulse_ns(turn.state, name, turn.rules) <= turn.at.mono_ns
        ):
            _order(turn, name, job)


def _order(turn: Turn, name: str, job: Job) -> None:
    compartment, at = turn.compartment(name), turn.at
    governor = turn.state.governor.pulsed(compartment.supply, name, compartment.pulse, at, turn.rules.bounds)
    turn.become(governor=governor)
    turn.notes[PULSES] = governor.dump(at, turn.rules.bounds)
    ordered = replace(job, opening=job.opening.to(Phase.ORDERED, at))
    turn.put(name, replace(turn.state.status(name), job=ordered))
    turn.orders.append(Order(compartment.unit, OpenDoor(door=compartment.door)))


def _occupied(state: Locker, name: str, rules: Rules) -> bool:
    """Whether a pulse is on its way on the same line: a lock board's unit takes them one at a time."""
    unit, compartments = rules.wall.compartments[name].unit, rules.wall.compartments
    return any(
        job.opening.phase is Phase.ORDERED and not job.opening.doubted
        for other, status in state.statuses.items()
        if (job := status.job) is not None and compartments[other].unit == unit and other not in state.out
    )


def _pulse_ns(state: Locker, name: str, rules: Rules) -> int:
    compartment = rules.wall.compartments[name]
    return state.governor.not_before_ns(compartment.supply, name, compartment.pulse, rules.bounds)


# -- what is seen -----------------------------------------------------------------------------------


def pulsed(turn: Turn, name: str, *, ok: bool, unknown: bool, reason: str) -> None:
    """The board has said what became of a pulse."""
    job = turn.state.status(name).job
    word = "pulsed" if ok else "pulse_unknown" if unknown else "not_pulsed"
    turn.say(f"door.{word}", name, reason=reason)
    if ok or unknown:
        _fed(turn, name)
    if job is None or job.opening.phase is not Phase.ORDERED:
        return
    if not ok and not unknown:
        _end(turn, name, job, End.NOT_PULSED)
    elif ok:
        _put_job(turn, name, replace(job, opening=job.opening.to(Phase.PULSED, turn.at)))
    else:
        _put_job(turn, name, replace(job, opening=replace(job.opening, doubted=True)))


def _fed(turn: Turn, name: str) -> None:
    compartment = turn.compartment(name)
    governor = turn.state.governor.fed(
        compartment.supply, name, compartment.pulse, turn.at, turn.rules.bounds
    )
    turn.become(governor=governor)
    turn.notes[PULSES] = governor.dump(turn.at, turn.rules.bounds)


def seen(turn: Turn, name: str, door: Door, *, first: bool) -> None:
    """A sensor of one door says something new; `first` is how it was found, not a change."""
    turn.become(doors={**turn.state.doors, name: door})
    back = first and name in turn.state.out and door.latched is not None
    if back:
        _back(turn, name)
    job = turn.state.status(name).job
    if job is None:
        _unasked(turn, name, door, first=first)
    elif back:
        _take(turn, name, job, resume(job.opening, door, turn.at))
    elif name not in turn.state.out:
        _take(turn, name, job, look(job.opening, door, turn.at, turn.rules.timing))


def _back(turn: Turn, name: str) -> None:
    """A compartment is in service again; said once all of its unit are."""
    unit = turn.compartment(name).unit
    turn.become(out={key: why for key, why in turn.state.out.items() if key != name})
    mine = turn.rules.wall.behind(unit)
    if not any(each in turn.state.out for each in mine):
        turn.say("locker.in_service", unit, compartments=len(mine))


def blinded(turn: Turn, names: list[str], reason: str) -> None:
    """The board of these doors is away: nothing is known of them until it is back."""
    if any(name not in turn.state.out for name in names):
        turn.say("locker.out_of_service", turn.compartment(names[0]).unit, compartments=names, reason=reason)
    doors = {key: door for key, door in turn.state.doors.items() if key not in names}
    loose = {key: each for key, each in turn.state.loose.items() if key not in names}
    turn.become(doors=doors, loose=loose, out={**turn.state.out, **dict.fromkeys(names, reason)})


def look_all(turn: Turn) -> None:
    """What time alone has changed."""
    for name, status in list(turn.state.statuses.items()):
        if status.job and name not in turn.state.out:
            progress = look(status.job.opening, turn.state.door(name), turn.at, turn.rules.timing)
            _take(turn, name, status.job, progress)
    for name, loose in list(turn.state.loose.items()):
        if not loose.told and turn.at.mono_ns >= loose.due_ns:
            _alarm(turn, name, loose)


def wake_ns(state: Locker, rules: Rules) -> list[int]:
    """When the next of all this is due, on the monotonic clock."""
    due = [loose.due_ns for loose in state.loose.values() if not loose.told]
    for name, status in state.statuses.items():
        if status.job is None or name in state.out:
            continue
        opening = status.job.opening
        if opening.phase is Phase.INTENDED:
            due.append(opening.since_ns + int(rules.patience * NS))
            if not _occupied(state, name, rules):
                due.append(_pulse_ns(state, name, rules))
        elif (by_ns := due_ns(opening, state.door(name), rules.timing)) is not None:
            due.append(by_ns)
    return due


def _take(turn: Turn, name: str, job: Job, progress: Progress) -> None:
    """Remember the steps of an opening; where it has come to its end, what follows from that."""
    for step in progress.steps:
        turn.say(f"door.{step.phase}", name, evidence=step.evidence)
        if step.phase is Phase.OPENED:
            _spent(turn, job)
    if progress.alarm:
        turn.say(f"door.{progress.alarm}", name, purpose=job.what, grant=job.grant)
    if progress.opening is not None:
        return _put_job(turn, name, replace(job, opening=progress.opening))
    assert progress.end is not None
    return _end(turn, name, job, progress.end)


def _put_job(turn: Turn, name: str, job: Job) -> None:
    turn.put(name, replace(turn.state.status(name), job=job))


def _spent(turn: Turn, job: Job) -> None:
    """The door was open: whatever happens now, this grant opens nothing more."""
    if job.grant is None:
        return
    key = GRANT + job.grant
    if (use := turn.known_use(job.grant)) is not None and not use.opened:
        turn.notes[key] = replace(use, opened=True).dump()


def _give_back(turn: Turn, grant: str, name: str) -> None:
    """Nothing was pulsed, for certain: the grant is worth what it was worth before."""
    use = turn.known_use(grant)
    if use is None or use.opened:
        return
    turn.notes[GRANT + grant] = replace(use, pulses=use.pulses - 1).dump() if use.pulses > 1 else None
    turn.say("locker.grant_restored", name, grant=grant)


# -- doors that nobody was to open --------------------------------------------------------------------


def _unasked(turn: Turn, name: str, door: Door, *, first: bool) -> None:
    loose = turn.state.loose.get(name)
    if door.latched is False or door.stands_open:
        if loose is None:
            _loosened(turn, name, door, first=first)
    elif loose is not None and door.shut:
        turn.become(loose={key: each for key, each in turn.state.loose.items() if key != name})
        turn.say("door.shut_again" if loose.told else "door.bounced", name)


def _loosened(turn: Turn, name: str, door: Door, *, first: bool) -> None:
    if first:
        turn.say("door.found_open", name, evidence="contact" if door.stands_open else "hook")
        turn.become(loose={**turn.state.loose, name: Loose(due_ns=turn.at.mono_ns, told=True)})
        if turn.state.status(name).quarantine is None:
            turn.quarantine(name, "found_open")
        return
    settled_ns = turn.state.settled_ns.get(name)
    slammed = settled_ns is not None and turn.since(settled_ns) < BOUNCE_S
    due_ns = turn.at.mono_ns + (int(BOUNCE_S * NS) if slammed else 0)
    loose = Loose(due_ns=due_ns, beside=_beside(turn, name))
    turn.become(loose={**turn.state.loose, name: loose})
    if not slammed:
        _alarm(turn, name, loose)


def _beside(turn: Turn, name: str) -> str | None:
    """The door that is just being pulsed on the same supply: perhaps the wrong one has opened."""
    supply = turn.compartment(name).supply
    for other in turn.state.busy:
        job = turn.state.status(other).job
        fresh = job is not None and job.opening.phase in (Phase.ORDERED, Phase.PULSED)
        if fresh and turn.compartment(other).supply == supply:
            return other
    return None


def _alarm(turn: Turn, name: str, loose: Loose) -> None:
    turn.become(loose={**turn.state.loose, name: replace(loose, told=True)})
    turn.say("door.forced", name, beside=loose.beside, parcel=turn.state.status(name).parcel)
    turn.quarantine(name, "forced")


# -- what a person standing there would say --------------------------------------------------------------


def _end(turn: Turn, name: str, job: Job, end: End) -> None:
    """The opening is over: settle what the compartment holds, and tell who was waiting."""
    status = replace(turn.state.status(name), job=None)
    turn.put(name, status)
    turn.ends[name] = end
    turn.become(settled_ns={**turn.state.settled_ns, name: turn.at.mono_ns})
    door = turn.state.door(name)
    match end, job.what:
        case End.USED, For.DEPOSIT | For.RETURN:
            _put_in(turn, name, job, door)
        case End.USED, For.PICKUP | For.RETRIEVE:
            _taken_out(turn, name, job, status, door)
        case End.USED, _:
            turn.say("locker.opening_used", name, purpose=job.what, by=job.by, content=_content(door))
            _looked_into(turn, name, job, door)
        case _:
            _came_to_nothing(turn, name, job, end)
    pulse_what_may(turn)


def _put_in(turn: Turn, name: str, job: Job, door: Door) -> None:
    if door.occupied is False:
        turn.say("locker.deposit_abandoned", name, parcel=job.parcel, by=job.by, evidence="content")
        turn.tone(job.unit, Tone.BAD)
        return
    returned = job.what is For.RETURN
    turn.put(name, Status(parcel=job.parcel, until=job.until, returned=returned))
    data = {"compartment": name, "by": job.by, "until": job.until, "content": _content(door)}
    if returned:
        turn.say("locker.returned", job.parcel or name, **data)
    else:
        turn.say("locker.deposited", job.parcel or name, **data, **_papers(turn, name, job))
    turn.tone(job.unit, Tone.GOOD)


def _papers(turn: Turn, name: str, job: Job) -> dict[str, Any]:
    """The grant to collect what was deposited, and the courier's receipt."""
    office, label = turn.known.office, job.parcel or name
    minted = office.mint(label, name, job.until or 0)
    if minted is not None:
        turn.notes.update(minted.records)
    return {
        "grant": minted and minted.grant,
        "sealed": minted and minted.sealed,
        "receipt": office.receipt(label, name, job.by or "", turn.at),
    }


def _taken_out(turn: Turn, name: str, job: Job, status: Status, door: Door) -> None:
    if door.occupied:
        turn.say("locker.left_behind", job.parcel or name, compartment=name, by=job.by, grant=job.grant)
        turn.quarantine(name, "left_behind")
        return
    if job.what is For.PICKUP:
        kind, after = "locker.collected", status.emptied()
    else:
        # Who carries a parcel away has not said that the door is in order.
        kind, after = "locker.retrieved", Status(quarantine=status.quarantine)
    turn.put(name, after)
    turn.say(
        kind, status.parcel or name, compartment=name, by=job.by, grant=job.grant, content=_content(door)
    )


def _looked_into(turn: Turn, name: str, job: Job, door: Door) -> None:
    """Somebody in charge had the door open: a parcel that is seen to be gone is not held any longer."""
    status = turn.state.status(name)
    if status.parcel is None or door.occupied is not False:
        return
    turn.put(name, Status(quarantine=status.quarantine))
    turn.say("locker.taken_out", status.parcel, compartment=name, by=job.by, purpose=job.what)


def _came_to_nothing(turn: Turn, name: str, job: Job, end: End) -> None:
    """Nothing shows that the door was open: nothing was taken, and nothing was put in."""
    kind = "locker.outcome_unknown" if end is End.UNKNOWN else "locker.not_opened"
    turn.say(kind, job.parcel or name, compartment=name, purpose=job.what, why=end, grant=job.grant)
    turn.tone(job.unit, Tone.BAD)
    match end:
        case End.NOT_PULSED if job.what is For.LEASE:
            if job.opening.phase is Phase.INTENDED:
                compartment = turn.compartment(name)
                turn.dropped.append(Order(compartment.unit, OpenDoor(door=compartment.door)))
        case End.NOT_PULSED if job.grant is not None:
            _give_back(turn, job.grant, name)
            status = turn.state.status(name)
            if status.quarantine is not None:
                turn.put(name, replace(status, doubt=job.grant))
        case End.UNKNOWN:
            turn.quarantine(name, "outcome_unknown", doubt=job.grant)
        case End.PUSHED_SHUT if job.what in STAYS:
            turn.quarantine(name, "pushed_shut")
        case End.DID_NOT_OPEN:
            if job.grant is None or _tries(turn, job.grant) > 1 or job.what not in STAYS:
                turn.quarantine(name, "jammed")


def _tries(turn: Turn, grant: str) -> int:
    use: Use | None = turn.known_use(grant)
    return use.pulses if use else 0


def _content(door: Door) -> str | None:
    """What the content sensor says, if there is one."""
    return None if door.occupied is None else "occupied" if door.occupied else "empty"


def intended(turn: Turn, name: str) -> Opening:
    """A new opening of this door."""
    return Opening.intended(turn.state.door(name), turn.at)
