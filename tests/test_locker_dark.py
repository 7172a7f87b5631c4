"""Days of deposits and pickups with no network, doors that jam, boards that go and power that fails.

`POSTERN_LONG=1 pytest tests/test_locker_dark.py` plays 72 hours with 200 deposits; otherwise it is a day
with thirty.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import performer
from agent.clock import NS
from agent.config import load
from agent.locker.events import ServiceAsked
from simulators.stage import postern
from tests.locker_dark import House, PlayedClock, PowerCut, Wall
from tests.locker_site import BADGE, PIN, SIZES, Codes, LockerSite
from tests.site import LONG

HOURS, DEPOSITS = (72, 200) if LONG else (24, 30)
TECHNICIAN, TECH_BADGE, TECH_PIN = "tech-9f8e7d", "0100a3e9af", "80402010"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3600 if LONG else 180)]


@dataclass
class Days:
    """Couriers, recipients, a technician, and bad luck."""

    site: LockerSite
    chance: random.Random
    clock: PlayedClock
    wall: Wall
    waiting: dict[str, Codes] = field(default_factory=dict)
    """Parcels that were deposited, and the codes that their recipients were told."""
    codes: dict[str, Codes] = field(default_factory=dict)
    """Of every parcel that was ever deposited."""
    deposited: int = 0
    made: int = 0
    lives: int = 0
    helpless: set[str] = field(default_factory=set)
    """Parcels whose recipients could not open the door."""
    forced: int = 0
    collected: set[str] = field(default_factory=set)

    async def play(self) -> House:
        """From power cut to power cut, until all the time is over and everybody has gone home."""
        config = load(self.site.config)
        end_ns = self.clock.utc_ns + HOURS * 3600 * NS
        while True:
            self.lives += 1
            house = House(config, self.clock, self.wall, self.chance)
            try:
                await house.live(lambda house: self._life(house, end_ns))
            except PowerCut:
                await self._in_the_dark(house)
            else:
                return house

    async def _in_the_dark(self, house: House) -> None:
        """Whoever stands before an open door takes what there is, or not, and shuts it, or not."""
        shutil.rmtree(house.config.state)
        house.remains.rename(house.config.state)
        self.clock.reboot(self.chance.choice((20.0, 120.0, 1200.0)))
        for name in self.wall.open:
            if self.chance.random() < 0.5:
                self._taken(name)
            if self.chance.random() < 0.8:
                self.wall.doors[name].slam()

    def _taken(self, name: str) -> None:
        label = self.wall.take(name)
        if label is not None:
            self.collected.add(label)
            self.waiting.pop(label, None)

    # -- a life -----------------------------------------------------------------------------------

    async def _life(self, house: House, end_ns: int) -> None:
        for name in self.wall.open:
            self.wall.doors[name].slam()
        await house.look()
        pace = HOURS * 3600 / DEPOSITS / 4
        while self.clock.utc_ns < end_ns:
            await house.wait(self.chance.expovariate(1 / pace))
            await self._something(house)
            self._told_of(house)
        while self.deposited < DEPOSITS:
            await self._deposit(house)
            await self._everybody_comes(house)
        await self._everybody_comes(house)
        await house.wait(600)

    async def _everybody_comes(self, house: House) -> None:
        await self._technician(house)
        for label in list(self.waiting):
            await self._pickup(house, label)
        await self._technician(house)

    async def _something(self, house: House) -> None:
        chance = self.chance
        if chance.random() < 0.12:
            house.cut_at = chance.choice(("before", "after"))
        if chance.random() < 0.05:
            house.refuses = "busy"
        acts: list[tuple[int, Callable[[House], Awaitable[None]]]] = [
            (8, self._deposit),
            (8, self._pickup),
            (2, self._technician),
            (1, self._wrong),
            (1, self._force),
            (1, self._board),
            (1, self._power),
        ]
        (act,) = chance.choices([act for _, act in acts], [weight for weight, _ in acts])
        await act(house)

    async def _identify(self, house: House, badge: str, pin: str) -> None:
        await house.scan("badge", badge)
        await house.scan("keypad", pin)

    async def _deposit(self, house: House) -> None:
        """Until it is in, or the courier has lost patience: then the parcel comes with the next round."""
        if self.deposited >= DEPOSITS:
            return
        self.made += 1
        label = f"parcel-{self.made:04}"
        await self._identify(house, BADGE, PIN)
        for _ in range(2):
            await house.scan("gun", f"POSTERN:SIZE:{self.chance.choice('SSSML')}")
            self._jam(0.06)
            await house.scan("gun", label)
            await house.wait(1)
            for name in self.wall.open:
                await self._at_the_door(house, name, partial(self.wall.put, name, label))
            await house.wait(3)
            self._unjam()
            if label in self._told_of(house):
                break
        await house.scan("gun", "POSTERN:END")

    def _told_of(self, house: House) -> dict[str, Codes]:
        """The parcels that the house says it has taken, whose recipients are told now."""
        entries = {_label(entry): entry for entry in house.of("locker.deposited")}
        for label in entries.keys() - self.codes.keys():
            self.waiting[label] = self.codes[label] = self.site.codes(entries[label])
        self.deposited = len(self.codes)
        return self.codes

    async def _pickup(self, house: House, label: str | None = None) -> None:
        if not self.waiting:
            return
        label = label or self.chance.choice(sorted(self.waiting))
        codes = self.waiting[label]
        self._jam(0.1)
        for _ in range(2):
            if self.chance.random() < 0.5:
                await house.scan("gun", codes.long)
            else:
                await house.scan("keypad", codes.pin)
            await house.wait(0.5)
            for name in self.wall.open:
                await self._at_the_door(house, name, partial(self._collected, name, label))
            await house.wait(3)
            if label not in self.waiting:
                break
        else:
            self.helpless.add(label)
        self._unjam()

    def _collected(self, name: str, label: str) -> None:
        """Somebody else may have been there in the dark: then there is nothing."""
        self._taken(name)
        self.waiting.pop(label, None)

    async def _at_the_door(self, house: House, name: str, act: Callable[[], Any]) -> None:
        """Somebody uses an open door, or pushes it shut before it has opened."""
        door, chance = self.wall.doors[name], self.chance
        pushed = chance.random() < 0.1
        await house.wait(0.1 if pushed else chance.uniform(2, 40))
        if not pushed:
            self.wall.used |= {each.grant for each in self.wall.pulses[-1:] if each.grant}
            act()
            if chance.random() < 0.05:
                house.cut()
            await house.wait(chance.choice((1, 1, 1, 200)))
        door.slam()
        await house.look()

    def _jam(self, share: float) -> None:
        for door in self.wall.doors.values():
            door.stuck = self.chance.random() < share

    def _unjam(self) -> None:
        for door in self.wall.doors.values():
            door.stuck = False

    # -- bad luck ---------------------------------------------------------------------------------

    async def _wrong(self, house: House) -> None:
        await house.scan("keypad", f"{self.chance.randrange(10**10):010}")
        await house.scan("gun", "PICKUP:" + "A" * 22)

    async def _force(self, house: House) -> None:
        name = self.chance.choice(self.wall.names)
        before = len(house.of("door.forced"))
        self.wall.doors[name].force()
        await house.look()
        self.forced += 1
        assert len(house.of("door.forced")) == before + 1
        await house.wait(30)
        self.wall.doors[name].slam()
        await house.look()

    async def _board(self, house: House) -> None:
        await house.lose_board()
        await house.wait(self.chance.choice((2, 60)))
        await house.power_board()

    async def _power(self, house: House) -> None:
        house.cut()
        await house.settle()

    async def _technician(self, house: House) -> None:
        """Looks into what is out of use, takes out what lies there, and gives it back; and helps those whose
        code has run out of tries.
        """
        told = house.app.decider.desk.told()["compartments"]
        helped = {
            entry["data"]["compartment"]
            for entry in house.of("locker.deposited")
            if _label(entry) in self.helpless
        }
        wanted = [name for name, each in told.items() if each["state"] == "quarantined" or name in helped]
        for name in wanted:
            await self._identify(house, TECH_BADGE, TECH_PIN)
            await house.scan("gun", f"POSTERN:RETRIEVE:{name}")
            await house.wait(0.5)
            if name not in self.wall.open:
                await house.scan("gun", f"POSTERN:OPEN:{name}")
                await house.wait(0.5)
            if name in self.wall.open:
                await house.wait(3)
                self._taken(name)
                self.wall.doors[name].slam()
                await house.look()
                at, why = self.clock.now(), "looked into"
                house.app.decider.decide_on(ServiceAsked(at=at, verb="release", compartment=name, reason=why))
                await house.settle()
            await house.scan("gun", "POSTERN:END")
            await house.wait(60)
        self.helpless.clear()


async def test_whatever_happens_in_the_dark_no_door_opens_twice_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(performer, "GRID_NS", 1)
    async with LockerSite(tmp_path) as site:
        site.add(TECHNICIAN, "badge", TECH_BADGE, role="technician")
        site.add(TECHNICIAN, "pin", TECH_PIN, role="technician")
        wall = Wall(list(SIZES), sensors=frozenset({"a2", "b2", "c1", "c2"}))
        days = Days(site, random.Random(72), PlayedClock(time.time_ns()), wall)
        house = await days.play()
        assert not wall.wrongs
        assert_true(house, wall, days)
        await delivered(site, house)


def _label(entry: dict[str, Any]) -> str:
    label: str = entry["subject"].rpartition(":")[2]
    return label


def assert_true(house: House, wall: Wall, days: Days) -> None:
    """What the journal says is what has happened at the wall."""
    kinds = Counter(entry["type"].removeprefix("postern.") for entry in house.entries)
    assert days.lives > 3
    assert kinds["locker.deposited"] == DEPOSITS
    assert kinds["locker.collected"] + kinds["locker.retrieved"] + kinds["locker.taken_out"] > DEPOSITS / 2
    assert not kinds["agent.fault"]
    intents: Counter[str] = Counter()
    pulses = list(wall.pulses)
    given: Counter[str] = Counter()
    for entry in house.entries:
        while pulses and pulses[0].after < int(entry["sequence"]):
            pulse = pulses.pop(0)
            intents[pulse.name] -= 1
            assert intents[pulse.name] >= 0, f"{pulse} has no intent before it"
            if pulse.grant:
                given[pulse.grant] += 1
                assert given[pulse.grant] <= 2
        intents[entry["subject"]] += entry["type"] == "postern.locker.opening_intended"
        if entry["type"] == "postern.locker.compartment_released":
            given.clear()  # a person has looked
    for entry in house.of("locker.collected"):
        assert entry["subject"].rpartition(":")[2] not in wall.content.values()
    for name, each in house.app.decider.desk.told()["compartments"].items():
        if each["state"] == "free":
            assert name not in wall.content, f"{name} is said to be free"


async def delivered(site: LockerSite, house: House) -> None:
    """The network is back: everything that was made arrives, in order, and the journal verifies."""
    await site.start_agent()
    made = {int(entry["sequence"]): entry for entry in house.entries}
    await site.until(lambda: len(site.entries) > len(made), f"{len(made)} entries", 60)
    await site.stop_agent()
    arrived = {int(entry["sequence"]): entry for entry in site.entries}
    assert len(arrived) == len(site.entries)
    assert {number: arrived.get(number) for number in made} == made
    assert house.app.journal.notary is not None
    key = house.app.journal.notary.verifier.text
    await postern("journal", "verify", str(site.folder / "state" / "journal.db"), "--key", key)
