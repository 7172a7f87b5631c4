"""People at a locker in the dark: couriers, recipients, a technician, those who try again, and bad luck.

days = Days(site, random.Random(72), clock, wall, hours=24, deposits=30)
house = await days.play()
"""

import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.clock import NS
from agent.config import load
from agent.locker.events import ServiceAsked
from tests.locker_dark import House, PlayedClock, PowerCut, Wall
from tests.locker_site import BADGE, PIN, Codes, LockerSite

TECHNICIAN, TECH_BADGE, TECH_PIN = "tech-9f8e7d", "0100a3e9af", "80402010"
TRIES = 4
"""Longest that a recipient has patience."""
QUICK_NS = 3 * NS // 10
"""Whoever is there later cannot push a door shut any more as if it had never been open."""
PAUSES_S = (3.0, 5.0, 320.0)
"""Between two tries."""


@dataclass
class Days:
    """From power cut to power cut. Everything that is asked of the house is written into the wall's diary."""

    site: LockerSite
    chance: random.Random
    clock: PlayedClock
    wall: Wall
    hours: int
    deposits: int
    waiting: dict[str, Codes] = field(default_factory=dict)
    """Parcels that were deposited, and the codes that their recipients were told."""
    codes: dict[str, Codes] = field(default_factory=dict)
    """Of every parcel that was ever deposited."""
    places: dict[str, str] = field(default_factory=dict)
    """Parcel to the compartment that the house has told."""
    deposited: int = 0
    made: int = 0
    lives: int = 0
    again: list[str] = field(default_factory=list)
    """Parcels whose recipients were there when the power failed."""
    helpless: set[str] = field(default_factory=set)
    """Parcels whose recipients could not open the door."""
    forced: int = 0
    replayed: int = 0
    """Codes that were shown once more after their parcel was gone, or left lying."""
    done: int = 0
    """How many of those things have happened that every day holds, whatever the chance."""
    nobody: bool = False
    """In this darkness nobody takes or shuts anything."""

    async def play(self) -> House:
        """Until all the time is over and everybody has gone home."""
        config = load(self.site.config)
        end_ns = self.clock.utc_ns + self.hours * 3600 * NS
        while True:
            self.lives += 1
            house = House(config, self.clock, self.wall, self.chance)
            try:
                await house.live(lambda house: self._life(house, end_ns))
            except PowerCut:
                self._in_the_dark(house)
            else:
                return house

    def _in_the_dark(self, house: House) -> None:
        """Whoever stands before an open door takes what there is, or not, and shuts it, or not.

        Where no sensor would tell, nobody leaves a parcel behind an open door: the house cannot know.
        """
        shutil.rmtree(house.config.state)
        house.remains.rename(house.config.state)
        self.clock.reboot(self.chance.choice((20.0, 120.0, 1200.0)))
        nobody, self.nobody = self.nobody, False
        for name in self.wall.open:
            if (label := self.wall.content.get(name)) is not None:
                self.again.append(label)
            if nobody:
                continue
            taken = self.chance.random() < (0.3 if name in self.wall.sensors else 0.5)
            if taken:
                self._taken(name)
            if self.chance.random() < 0.4 or not (taken or name in self.wall.sensors):
                self.wall.doors[name].slam()

    def _taken(self, name: str) -> None:
        label = self.wall.take(name)
        if label is not None:
            self.waiting.pop(label, None)

    # -- a life -----------------------------------------------------------------------------------

    async def _life(self, house: House, end_ns: int) -> None:
        await house.wait(self.chance.choice((0, 3)))
        for name in self.wall.open:
            self.wall.doors[name].slam()
        await house.look()
        self._unjam()
        again, self.again = self.again, []
        for label in again:
            if label in self.codes:
                await self._once_more(house, label)
        pace = self.hours * 3600 / self.deposits / 4
        while self.clock.utc_ns < end_ns:
            await house.wait(self.chance.expovariate(1 / pace))
            await self._something(house)
            self._told_of(house)
        house.cut_at, house.refuses = None, ""
        acts = (
            self._impatient,
            self._too_quick,
            self._forgetful,
            self._forgetful_in_the_dark,
            self._left_there,
        )
        while self.done < len(acts):
            self.done += 1
            await acts[self.done - 1](house)
        while self.deposited < self.deposits:
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
        if chance.random() < 0.15:
            house.cut_at = chance.choice(("before", "after"))
        if chance.random() < 0.05:
            house.refuses = "busy"
        acts: list[tuple[int, Callable[[House], Awaitable[None]]]] = [
            (8, self._deposit),
            (8, self._pickup),
            (3, self._rush),
            (2, self._replay),
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

    # -- couriers ---------------------------------------------------------------------------------

    async def _deposit(self, house: House) -> None:
        """Until it is in, or the courier has lost patience: then the parcel comes with the next round."""
        if self.deposited < self.deposits:
            await self._bring(house, "SSSML", jammed=0.06)

    async def _bring(self, house: House, sizes: str, jammed: float = 0.0) -> None:
        self.made += 1
        label = f"parcel-{self.made:04}"
        await self._identify(house, BADGE, PIN)
        for _ in range(2):
            await house.scan("gun", f"POSTERN:SIZE:{self.chance.choice(sizes)}")
            self._jam(jammed)
            house.asked("deposit")
            await house.scan("gun", label)
            for name in await self._sprung(house):
                await self._at_the_door(house, name, partial(self.wall.put, name, label))
            await house.wait(3)
            self._unjam()
            if label in self._told_of(house):
                break
        await house.scan("gun", "POSTERN:END")

    def _told_of(self, house: House) -> dict[str, Codes]:
        """The parcels that the house says it has taken, whose recipients are told now."""
        entries = {label_of(entry): entry for entry in house.of("locker.deposited")}
        for label in entries.keys() - self.codes.keys():
            self.waiting[label] = self.codes[label] = self.site.codes(entries[label])
            self.places[label] = entries[label]["data"]["compartment"]
        self.deposited = len(self.codes)
        return self.codes

    # -- recipients -------------------------------------------------------------------------------

    async def _pickup(self, house: House, label: str | None = None) -> None:
        if not self.waiting:
            return
        label = label or self.chance.choice(sorted(self.waiting))
        self._jam(0.35)
        for _ in range(self.chance.randint(2, TRIES)):
            await self._show(house, label)
            for name in await self._sprung(house):
                await self._at_the_door(house, name, partial(self._collected, name, label))
            if label not in self.waiting:
                break
            if self.places[label] in self._out_of_use(house) and self.chance.random() < 0.5:
                await self._technician(house)
            await house.wait(self.chance.choice(PAUSES_S))
        else:
            self.helpless.add(label)
        self._unjam()
        if self.chance.random() < 0.3:
            await self._once_more(house, label)

    def _out_of_use(self, house: House) -> list[str]:
        told = house.app.decider.desk.told()["compartments"]
        return [name for name, each in told.items() if each["state"] == "quarantined"]

    def _collected(self, name: str, label: str) -> None:
        """They take it, unless they forget: where that would be seen. Somebody else may have been there in
        the dark: then there is nothing.
        """
        if name in self.wall.sensors and self.wall.content.get(name) == label and self.chance.random() < 0.2:
            return
        self._taken(name)
        self.waiting.pop(label, None)

    async def _show(self, house: House, label: str, typed: bool | None = None) -> None:
        """Show a recipient's code, whatever it is still worth."""
        codes = self.codes[label]
        house.asked("pickup", self.places[label], codes.jti)
        if self.chance.random() < 0.5 if typed is None else typed:
            await house.scan("keypad", codes.pin)
        else:
            await house.scan("gun", codes.long)

    async def _once_more(self, house: House, label: str) -> None:
        """A code that was used, or ought to have been. What lies behind a door that opens is left where that
        is seen.
        """
        self.replayed += 1
        await self._show(house, label, typed=self.chance.random() < 0.05)
        await house.wait(2)
        for name in self.wall.open:
            if name not in self.wall.sensors:
                self._taken(name)
            self.wall.doors[name].slam()
        await house.look()
        await house.wait(3)

    async def _replay(self, house: House) -> None:
        gone = sorted(self.codes.keys() - self.waiting.keys())
        if gone:
            await self._once_more(house, self.chance.choice(gone))

    async def _rush(self, house: House) -> None:
        """Two recipients at once, one with each reader."""
        if len(self.waiting) < 2:
            return
        one, other = self.chance.sample(sorted(self.waiting), 2)
        house.asked("pickup", self.places[one], self.codes[one].jti)
        house.asked("pickup", self.places[other], self.codes[other].jti)
        await house.at_once(("gun", self.codes[one].long), ("keypad", self.codes[other].pin))
        await house.wait(2)
        whose = {self.places[one]: one, self.places[other]: other}
        for name in self.wall.open:
            await self._at_the_door(house, name, partial(self._collected, name, whose[name]))
        await house.wait(3)

    async def _sprung(self, house: House) -> list[str]:
        """Doors that come open now, seen in time to push them shut."""
        if not self.wall.open:
            await house.wait(1)
        return self.wall.open

    # -- what every day holds ---------------------------------------------------------------------

    async def _seen(self, house: House) -> str:
        """A parcel that has just come, where a sensor sees it."""
        while True:
            before = len(self.codes)
            await self._bring(house, "ML")
            for label in list(self.codes)[before:]:
                if label in self.waiting and self.places[label] in self.wall.sensors:
                    return label
            await self._everybody_comes(house)

    async def _too_quick(self, house: House) -> None:
        """A recipient who pushes the door shut before it is open, and tries again."""
        await self._once_more(house, await self._shut_again(house, after_s=0.1))

    async def _shut_again(self, house: House, after_s: float) -> str:
        """The door is opened with a code, and shut with the parcel still inside."""
        label = await self._seen(house)
        await self._show(house, label, typed=False)
        for name in await self._sprung(house):
            await house.wait(after_s)
            self.wall.doors[name].slam()
        await house.look()
        await house.wait(3)
        return label

    async def _forgetful(self, house: House) -> None:
        """A recipient who leaves the parcel, comes back when somebody has looked, and whose code is spent."""
        label = await self._shut_again(house, after_s=3)
        await self._left(house, self.places[label], label)

    async def _forgetful_in_the_dark(self, house: House) -> None:
        """The power fails as the door springs open, and it stands open until there is power again."""
        label = await self._seen(house)
        house.cut_at, self.nobody = "after", True
        await self._show(house, label, typed=False)

    async def _left_there(self, house: House) -> None:
        """Somebody looks into what is out of use and leaves the parcels; their codes are shown again."""
        for name in self._out_of_use(house):
            label = self.wall.content.get(name)
            if label in self.waiting:
                await self._left(house, name, label)

    async def _left(self, house: House, name: str, label: str) -> None:
        await self._look_into(house, name, leaves=True)
        await self._once_more(house, label)
        self.helpless.add(label)

    async def _at_the_door(self, house: House, name: str, act: Callable[[], Any]) -> None:
        """Somebody uses an open door, or pushes it shut before it has opened."""
        door, chance = self.wall.doors[name], self.chance
        quick = self.clock.utc_ns - self.wall.pulses[-1].utc_ns < QUICK_NS
        pushed = chance.random() < 0.1 and quick
        await house.wait(0.1 if pushed else chance.uniform(2, 40))
        if not pushed:
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

    # -- those in charge --------------------------------------------------------------------------

    async def _technician(self, house: House) -> None:
        """Looks into what is out of use, takes out what lies there or leaves it for its recipient, and gives
        the compartment back; and helps those whose code has run out of tries.
        """
        helped = {self.places[label] for label in self.helpless if label in self.places}
        for name in dict.fromkeys((*self._out_of_use(house), *sorted(helped))):
            leaves = self.wall.content.get(name) in self.waiting and name not in helped
            await self._look_into(house, name, leaves=leaves and self.chance.random() < 0.5)
        self.helpless.clear()

    async def _look_into(self, house: House, name: str, *, leaves: bool) -> None:
        await self._identify(house, TECH_BADGE, TECH_PIN)
        for word in ("OPEN",) if leaves else ("RETRIEVE", "OPEN"):
            if name not in self.wall.open:
                house.asked("service", name)
                await house.scan("gun", f"POSTERN:{word}:{name}")
                await house.wait(0.5)
        if name in self.wall.open:
            await house.wait(3)
            if not leaves:
                self._taken(name)
            self.wall.doors[name].slam()
            await house.look()
            await self._release(house, name)
        await house.scan("gun", "POSTERN:END")
        await house.wait(60)

    async def _impatient(self, house: House) -> None:
        """A technician who opens one door again and again, faster than its coil stands."""
        name = self.chance.choice(self.wall.names)
        await self._identify(house, TECH_BADGE, TECH_PIN)
        for _ in range(7):
            house.asked("service", name)
            await house.scan("gun", f"POSTERN:OPEN:{name}")
            await house.wait(1.2)
            self.wall.doors[name].slam()
            await house.look()
            await house.wait(0.2)
        await house.wait(12)
        self.wall.doors[name].slam()
        await house.look()
        await house.scan("gun", "POSTERN:END")

    async def _release(self, house: House, name: str) -> None:
        house.released(name)
        at, why = self.clock.now(), "looked into"
        house.app.decider.decide_on(ServiceAsked(at=at, verb="release", compartment=name, reason=why))
        await house.settle()


def label_of(entry: dict[str, Any]) -> str:
    """Of the parcel that an entry is about."""
    label: str = entry["subject"].rpartition(":")[2]
    return label
