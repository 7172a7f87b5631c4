"""Those in charge of a locker: the fleet, a technician, and whoever is at its command line. Pure."""

from dataclasses import replace

from agent.clock import NS
from agent.locker import openings
from agent.locker.compartments import For, Job, Wall
from agent.locker.events import LeaseGiven, ServiceAsked
from agent.locker.grants import Grant, Refusal, Way, spend
from agent.locker.pickups import restore_grants
from agent.locker.turn import GRANT, Locker, Turn
from agent.session import Session


def why_not(state: Locker, wall: Wall, name: str, *, locked_down: bool) -> Refusal | None:
    """Why the fleet cannot have a door opened now, or None."""
    if name not in wall.compartments:
        return Refusal.NOTHING_HERE
    if locked_down:
        return Refusal.LOCKED_DOWN
    if name in state.out:
        return Refusal.OUT_OF_SERVICE
    return Refusal.BUSY if state.status(name).job is not None else None


def lease(turn: Turn, event: LeaseGiven, *, locked_down: bool) -> None:
    """Open a door because the fleet says so."""
    name = event.compartment
    refusal = why_not(turn.state, turn.rules.wall, name, locked_down=locked_down)
    if refusal is not None:
        turn.say("locker.lease_refused", name, reason=refusal, command=event.command)
        return
    grant = Grant(jti=event.command, way=Way.LEASE, exp=turn.at.utc_ns // NS + 120)
    turn.notes[GRANT + grant.jti] = spend(grant, None, turn.at, name).dump()
    job = Job(
        what=For.LEASE, opening=openings.intended(turn, name), by=event.by, grant=event.command,
        parcel=turn.state.status(name).parcel,
    )  # fmt: skip
    openings.begin(turn, name, job, way=Way.LEASE, operator=event.operator, reason=event.reason)


def open_for_service(turn: Turn, session: Session, unit: str, name: str, *, locked_down: bool) -> None:
    """Open a door for the technician who is there."""
    if locked_down or name in turn.state.out or turn.state.status(name).job is not None:
        return turn.refuse(unit, "", Refusal.OUT_OF_SERVICE, compartment=name)
    job = Job(
        what=For.SERVICE,
        opening=openings.intended(turn, name),
        by=session.driver,
        unit=unit,
        parcel=turn.state.status(name).parcel,
    )
    return openings.begin(turn, name, job)


def why_not_seen_to(state: Locker, verb: str, name: str) -> str | None:
    """Why a compartment cannot be taken out of use, or given back; None if it can."""
    status = state.status(name)
    match verb:
        case "quarantine" if status.job is not None:
            return f"its door is {status.word}"
        case "quarantine" if status.quarantine is not None:
            return f"it is in quarantine: {status.quarantine}"
        case "release" if status.quarantine is None:
            return "it is not in quarantine"
        case "release" if state.door(name).latched is False or state.door(name).stands_open:
            return "its door is not shut"
    return None


def see_to(turn: Turn, event: ServiceAsked) -> None:
    """Take a compartment out of use, or give it back."""
    name = event.compartment
    status = turn.state.status(name)
    why = why_not_seen_to(turn.state, event.verb, name)
    if why is not None:
        return turn.say("locker.service_refused", name, action=event.verb, reason=event.reason, why=why)
    if event.verb == "quarantine":
        return turn.quarantine(name, event.reason)
    turn.put(name, replace(status, quarantine=None, doubt=None))
    turn.say("locker.compartment_released", name, reason=event.reason, was=status.quarantine)
    turn.become(loose={key: each for key, each in turn.state.loose.items() if key != name})
    return restore_grants(turn, name, status)
