"""One task owns the workflow's state and takes one event at a time.

Readings come into a bounded inbox; a full inbox makes the units wait, so that their ports are not read and
the kernel's flow control sees it. Each one is interpreted, decided on, and its entries, state and records
handed to the journal without waiting; the performer gets the orders, and has them done after the commit.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent.clock import NS, Clock, Moment
from agent.commands import OpenManyDoors
from agent.desk import Desk
from agent.intake import WHO, Intake, Interpreted, Role, role_of
from agent.journal import Journal
from agent.locker.events import GrantShown
from agent.performer import Performer
from agent.position import Position
from agent.units import Unit, told_by
from agent.upkeep import Upkeep
from agent.workflow import Draft, FactorShown, LabelRead, Lane, Order, Woken
from drivers.readings import (
    ActionDone,
    CardAsserted,
    CardFailed,
    DeleteFinger,
    DeviceLost,
    DeviceReady,
    FingerCompared,
    FingerEnrolled,
    FixLost,
    Reading,
    Scanned,
    StoreTemplate,
    TagArrived,
)

INBOX = 256
"""Readings that wait for the decider; over it the ports are not read."""


class House(Protocol):
    """What the decider needs of the app around it."""

    def report(self, draft: Draft) -> object:
        """Remember an entry that no workflow decides about."""
        ...

    def units_changed(self) -> None:
        """A unit has come or gone."""
        ...

    def dropped(self, order: Order) -> None:
        """An order that somebody waits for will not be given."""
        ...

    def fingers(self, unit: str, reading: Reading) -> None:
        """A fingerprint module has told something of itself."""
        ...

    def fault(self, part: str, error: Exception) -> None:
        """Record what went wrong inside of us."""
        ...


@dataclass(frozen=True, slots=True)
class _Arrival:
    unit: Unit
    reading: Reading
    at: Moment


class Decider:
    """Takes readings in turn, and knows what has come of them so far."""

    def __init__(
        self,
        desk: Desk,
        intake: Intake,
        journal: Journal,
        performer: Performer,
        *,
        clock: Clock,
        position: Position,
        upkeep: Upkeep,
        house: House,
    ) -> None:
        self.desk = desk
        self._intake = intake
        self._journal, self._performer = journal, performer
        self._clock, self._position, self._upkeep, self._house = clock, position, upkeep, house
        self._inbox: asyncio.Queue[_Arrival | Woken | asyncio.Future[None]] = asyncio.Queue(INBOX)
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0
        """When the timer goes off."""

    # -- life -------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up the state where the last run left it."""
        self.desk.restore(self._journal.records, self._clock.now())

    def start(self) -> None:
        """Let the workflow see that time has passed."""
        self.decide_on(Woken(at=self._clock.now(), started=True))

    def heed(self) -> None:
        """What is known has changed. Whom the fleet revokes is off duty before anything else is decided, and
        what waits for a time of day is looked at by the clock that is right.
        """
        self.decide_on(Woken(at=self._clock.now()))

    async def run(self) -> None:
        """For ever."""
        while True:
            self._take(await self._inbox.get())
            await self._performer.room()

    def finish(self) -> None:
        """What was read is decided before the end."""
        if self._timer is not None:
            self._timer.cancel()
        while not self._inbox.empty():
            self._take(self._inbox.get_nowait())

    async def deliver(self, unit: Unit, reading: Reading, at: Moment) -> None:
        """Waits while the inbox is full."""
        await self._inbox.put(_Arrival(unit, reading, at))

    async def alive(self) -> None:
        """Done once everything that was in the inbox has been taken."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._inbox.put(passed)
        await passed

    # -- from readings to events ------------------------------------------------------------------

    def _take(self, item: _Arrival | Woken | asyncio.Future[None]) -> None:
        if isinstance(item, asyncio.Future):
            if not item.done():
                item.set_result(None)
            return
        try:
            if isinstance(item, Woken):
                self.decide_on(item)
            else:
                self._interpret(item)
        except Exception as error:
            # One event that we cannot digest must not stop the ones behind it.
            self._house.fault("decider", error)

    def _interpret(self, arrival: _Arrival) -> None:
        unit, reading = arrival.unit, arrival.reading
        events = self.desk.notice(unit, reading, arrival.at)
        for event in events or ():
            self.decide_on(event)
        if events is not None and not isinstance(reading, DeviceReady | DeviceLost):
            return
        match reading:
            case Scanned() | TagArrived() | FingerCompared() | CardAsserted() | CardFailed():
                self._understand(unit, reading, arrival.at)
            case FixLost():
                self._position.lost(reading)
                reason = {"reason": reading.reason}
                self._house.report(Draft("position.lost", unit.name, reason, Lane.TELEMETRY))
            case DeviceReady() | DeviceLost():
                self._tell(unit, reading)
                if isinstance(reading, DeviceReady) and unit.spec.role in WHO:
                    self._sighted(unit.name, reading, arrival.at)
                self._house.units_changed()
            case FingerEnrolled(ok=True) | ActionDone(action=DeleteFinger() | StoreTemplate(), ok=True):
                self._tell(unit, reading)
                self._journal.ride(self._intake.inventory.taught(unit.name, self._journal.records))
            case _:
                self._tell(unit, reading)
        if unit.spec.role is Role.FINGER:
            self._house.fingers(unit.name, reading)

    def _understand(self, unit: Unit, reading: Interpreted, at: Moment) -> None:
        spec, duty, records = unit.spec, self.desk.duty, self._journal.records
        taken = self._intake.take(
            spec.name,
            spec.kind,
            role_of(spec.kind, spec.role, reading),
            reading,
            at,
            duty.login,
            records,
            duty.asked,
        )
        if taken is None:
            said = {"reading": type(reading).__name__}
            self._house.report(Draft("identity.ignored", unit.name, said, Lane.STATE))
            return
        event = taken.event
        if isinstance(event, LabelRead):
            event = replace(event, full=self._upkeep.full)
        self.decide_on(event, taken.records)

    def undone(self, unit: str, done: ActionDone) -> bool:
        """An order that its unit did not even take; whether the workflow has dealt with it."""
        events = self.desk.undone(unit, done, self._clock.now())
        for event in events:
            self.decide_on(event)
        return bool(events)

    def _sighted(self, unit: str, ready: DeviceReady, at: Moment) -> None:
        """Compare the unit with the one that was here before, in whose name it speaks."""
        sighting = self._intake.inventory.sighted(unit, ready.about, self._journal.records)
        entries = [sighting.entry] if sighting.entry else []
        if entries or sighting.records:
            self._journal.append(entries, at, self._position.stamp(at), sighting.records)

    def _tell(self, unit: Unit, reading: Reading) -> None:
        if (draft := told_by(unit, reading)) is not None:
            self._house.report(draft)

    # -- decisions --------------------------------------------------------------------------------

    def decide_on(self, event: Any, counters: Mapping[str, Any] | None = None) -> asyncio.Future[None] | None:
        """Decide, remember, and leave the orders to the performer; `counters` are committed with it.

        Done once that is on stable storage; None where there is nothing to remember.
        """
        roster = self._intake.roster
        standing = roster.standing(event.at)
        decision = self.desk.decide(event, standing)
        entries = self._upkeep.sift(decision.entries)
        made = list(zip(self._journal.ids(len(entries)), entries, strict=True))
        records = {**(counters or {}), **self.desk.changes(decision, made, event.at)}
        if decision.pardon is not None:
            records |= roster.pardon(decision.pardon, {**self._journal.records, **records})
        done: asyncio.Future[None] | None = None
        if entries or records:
            stamp = self._position.stamp(event.at)
            done = self._journal.append(entries, event.at, stamp, records)
        self.desk.become(decision)
        if decision.orders or self._performer.shows is not None:
            answers_from = event.at if isinstance(event, FactorShown | GrantShown) else None
            self._performer.later(done, decision.orders, answers_from, decision)
        for order in decision.dropped:
            self._house.dropped(order)
        self._wake_later()
        return done

    def lease(self, unit: str, door: int, told: Mapping[str, Any]) -> str | None:
        """Have a door opened at the fleet's word: why it will not be, or nothing.

        None where no workflow minds this door. `told` is what the command says about itself.
        """
        leased = self.desk.lease(unit, door, told, self._clock.now())
        if leased is None:
            return None
        event, refusal = leased
        self.decide_on(event)
        return refusal

    def lease_many(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        """Have many doors opened at the fleet's word: why they will not be, or nothing."""
        leased = self.desk.lease_many(wanted, told, until_ns, self._clock.now())
        if isinstance(leased, str):
            return leased
        self.decide_on(leased)
        return ""

    # -- time -------------------------------------------------------------------------------------

    def _wake_later(self) -> None:
        """Have the workflow woken when the next thing expires. A timer that is early only asks again."""
        wake_ns = self.desk.wake_at()
        if wake_ns is None or (self._timer is not None and self._due_ns <= wake_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, (wake_ns - self._clock.now().mono_ns) / NS)
        self._timer = asyncio.get_running_loop().call_later(left, self._wake)
        self._due_ns = wake_ns

    def _wake(self) -> None:
        self._timer = None
        try:
            self._inbox.put_nowait(Woken(at=self._clock.now()))
        except asyncio.QueueFull:
            # Whatever fills the inbox will have time looked at as well.
            self._wake_later()
