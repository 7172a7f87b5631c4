"""The locker's desk: readings of lock boards become what happens at compartments, scans become codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.clock import NS, Moment
from agent.commands import OpenManyDoors
from agent.desk import people_at_work
from agent.intake import Role, role_of
from agent.locker.codes import Codes
from agent.locker.compartments import Wall
from agent.locker.events import (
    BoardLost,
    DoorSeen,
    GrantShown,
    LeaseGiven,
    LockerEvent,
    PulseEnded,
    RoundOrdered,
)
from agent.locker.grants import Refusal
from agent.locker.rounds import ordered
from agent.locker.service import why_not
from agent.locker.turn import Known, Locker, Office
from agent.locker.workflow import LockerWorkflow
from agent.standing import Standing
from agent.units import Unit
from agent.workflow import Decision, Draft, Event
from drivers.readings import (
    ActionDone,
    BoardChanged,
    ContentChanged,
    DeviceLost,
    DoorChanged,
    DoorSource,
    DoorState,
    OpenDoor,
    Reading,
    Scanned,
)


class LockerDesk:
    """A parcel locker: compartments, codes, deposits."""

    def __init__(
        self,
        workflow: LockerWorkflow,
        codes: Codes,
        office: Office,
        *,
        device: str,
        locked_down: Callable[[Moment], bool],
    ) -> None:
        """`locked_down` says whether all openings are disabled at a moment."""
        self.state = Locker()
        self._workflow, self._codes, self._office = workflow, codes, office
        self._device, self._locked_down = device, locked_down
        self._records: Mapping[str, Any] = {}
        self._out_since: dict[str, int] = {}
        """Since when each compartment is out of service, seconds since 1970 UTC."""

    @property
    def duty(self) -> Locker:
        return self.state

    @property
    def held(self) -> int:
        return sum(status.parcel is not None for status in self.state.statuses.values())

    def restore(self, records: Mapping[str, Any], at: Moment) -> None:
        self._records = records
        self.state = self._workflow.restore(records, at)
        self._note_out(at)

    # -- from readings to events ------------------------------------------------------------------

    def notice(self, unit: Unit, reading: Reading, at: Moment) -> Sequence[LockerEvent] | None:
        role = role_of(unit.spec.kind, unit.spec.role, reading)
        match reading:
            case Scanned(data=data) if role is Role.PARCEL:
                return self._shown(self._codes.scanned(unit.name, data, at))
            case Scanned(data=data) if role is Role.KEYPAD and self.state.login is None:
                return self._shown(self._codes.typed(unit.name, data, at))
            case DoorChanged() | ContentChanged():
                return self._seen(unit, reading, at)
            case BoardChanged(first_door=first, last_door=last, answers=False):
                return self._lost(unit, at, "board_silent", range(first, last + 1))
            case DeviceLost(reason=reason):
                return self._lost(unit, at, reason)
            case ActionDone(action=OpenDoor()):
                return self.undone(unit.name, reading, at)
        return None

    def undone(self, unit: str, done: ActionDone, at: Moment) -> Sequence[LockerEvent]:
        """What became of a pulse, whether its unit took it or not."""
        if not isinstance(done.action, OpenDoor):
            return ()
        compartment = self.wall.of(unit, done.action.door)
        if compartment is None:
            return ()
        ended = PulseEnded(
            at=at, compartment=compartment.name, ok=done.ok, unknown=done.unknown, reason=done.reason
        )
        return (ended,)

    def lease(
        self, unit: str, door: int, told: Mapping[str, Any], at: Moment
    ) -> tuple[LeaseGiven, str] | None:
        """None for a door that is no compartment's."""
        compartment = self.wall.of(unit, door)
        if compartment is None:
            return None
        event = LeaseGiven(
            at=at,
            compartment=compartment.name,
            command=told["command"],
            by=told["key"],
            operator=told["operator"],
            reason=told["reason"],
        )
        refusal = why_not(self.state, self.wall, compartment.name, locked_down=self._locked_down(at))
        return event, refusal or ""

    def lease_many(
        self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int, at: Moment
    ) -> RoundOrdered | str:
        """One round at a time, of doors that all are compartments' of one unit."""
        units = {each.unit for each in self.wall.compartments.values()}
        named = units if wanted.unit is None else {wanted.unit} & units
        if wanted.unit is not None and not named:
            return f"expected one of {', '.join(sorted(units))}, got {wanted.unit}"
        if wanted.doors == "all":
            names = [each for unit in sorted(named) for each in self.wall.behind(unit)]
        elif len(named) > 1:
            return f"expected one of {', '.join(sorted(units))} with numbers of doors, got none"
        else:
            (unit,) = named
            found = {door: self.wall.of(unit, door) for door in wanted.doors}
            if missing := [door for door, compartment in found.items() if compartment is None]:
                return f"expected doors of compartments, got {missing[0]}"
            names = [each.name for each in found.values() if each is not None]
        if self.state.round is not None:
            return Refusal.BUSY
        if self._locked_down(at):
            return Refusal.LOCKED_DOWN
        return RoundOrdered(at=at, round=ordered(told, self._device, tuple(names), until_ns, at))

    def keeps(self, command: str) -> bool:
        return self.state.round is not None and self.state.round.told["command"] == command

    def _shown(self, shown: GrantShown | None) -> Sequence[LockerEvent] | None:
        return None if shown is None else (shown,)

    def _seen(
        self, unit: Unit, reading: DoorChanged | ContentChanged, at: Moment
    ) -> Sequence[LockerEvent] | None:
        """None for a door that is no compartment's: that is told as any unit's news is."""
        compartment = self.wall.of(unit.name, reading.door)
        if compartment is None:
            return None
        seen: dict[str, bool]
        match reading:
            case ContentChanged(occupied=occupied):
                seen = {"occupied": occupied}
            case DoorChanged(state=state, source=source):
                fact = "latched" if source is DoorSource.HOOK else "closed"
                seen = {fact: state is DoorState.CLOSED}
        return (DoorSeen(at=at, compartment=compartment.name, first=reading.first, **seen),)

    def _lost(
        self, unit: Unit, at: Moment, reason: str, doors: range | None = None
    ) -> Sequence[LockerEvent] | None:
        """The unit's own news is told beside this."""
        names = self.wall.behind(unit.name, doors)
        return (BoardLost(at=at, compartments=tuple(names), reason=reason),) if names else None

    # -- those in charge --------------------------------------------------------------------------

    @property
    def wall(self) -> Wall:
        """As it is built."""
        return self._workflow.rules.wall

    # -- deciding ---------------------------------------------------------------------------------

    def decide(self, event: Event | LockerEvent, standing: Standing) -> Decision[Locker]:
        known = Known(
            standing=standing,
            records=self._records,
            locked_down=self._locked_down(event.at),
            office=self._office,
        )
        return self._workflow.decide(self.state, event, known)

    def changes(
        self, decision: Decision[Locker], made: Sequence[tuple[str, Draft]], at: Moment
    ) -> dict[str, Any]:
        return dict(decision.notes)

    def become(self, decision: Decision[Locker]) -> None:
        self.state = decision.state
        if self.state.looked is not None:
            self._note_out(self.state.looked)

    def _note_out(self, at: Moment) -> None:
        out = self.state.out
        if out.keys() != self._out_since.keys():
            self._out_since = {name: self._out_since.get(name, at.utc_ns // NS) for name in out}

    def wake_at(self) -> int | None:
        return self._workflow.wake_at(self.state)

    def told(self) -> Mapping[str, Any]:
        """Every compartment: what it is, how it is, never whose parcel it holds."""
        return {"compartments": {name: self._compartment(name) for name in self.wall.compartments}}

    def at_work(self) -> Sequence[str]:
        return [*people_at_work(self.state), *doors_at_work(self.state)]

    def _compartment(self, name: str) -> dict[str, Any]:
        built, status = self.wall.compartments[name], self.state.status(name)
        door = self.state.door(name)
        return {
            "unit": built.unit,
            "door": built.door,
            "size": built.size.name,
            "latched": door.latched,
            "closed": door.closed,
            "content": door.occupied,
            "state": "out_of_service" if name in self.state.out else status.word,
            "reason": self.state.out.get(name) or status.quarantine,
            "since": self._out_since.get(name, status.since),
            "until": status.until,
        }


def doors_at_work(state: Locker) -> list[str]:
    """Doors that are being opened or stand open, whoever stands before them."""
    standing = (name for name, door in state.doors.items() if door.stands_open)
    return [f"compartment {name}" for name in sorted({*state.busy, *state.loose, *standing})]
