"""A locker for days in the dark: the real house of the agent on a played clock, before doors with hands.

    house = House(config, PlayedClock(utc_ns), Wall(names), random.Random(7))
    await house.live(script)

Nothing here waits for real time but the disk. A power cut takes the journal as it is on the disk in that
moment; what comes back is another house on the copy. The wall goes on without the house: doors stand as
they stood, and people do in the dark what people do.
"""

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from agent.app import App
from agent.clock import NS, Moment, Trust
from agent.config import Config
from agent.units import Unit
from agent.workflow import Order, Woken
from drivers.readings import (
    Action,
    ActionDone,
    ContentChanged,
    DeviceLost,
    DeviceReady,
    DoorChanged,
    DoorSource,
    DoorState,
    OpenDoor,
    Reading,
    Scanned,
    Signal,
    Tone,
)
from simulators.doors import Door
from tests.locker_judge import Asked, Happening, Lost, Pulsed, Released, Shown

READ = 500
"""Entries read at once."""
BELL = "bell"
"""A unit that no workflow knows of: it rings when all orders before have been given."""


class PowerCut(Exception):
    """The house is dark."""


@dataclass
class PlayedClock:
    """A real-time clock chip, and nobody to compare it with."""

    utc_ns: int
    boot: str = "boot-1"
    mono_ns: int = 15 * NS

    def now(self) -> Moment:
        return Moment(self.boot, self.mono_ns, self.utc_ns, Trust.RTC, 60.0)

    def to(self, mono_ns: int) -> None:
        self.utc_ns += mono_ns - self.mono_ns
        self.mono_ns = mono_ns

    def reboot(self, off_s: float) -> None:
        self.utc_ns += int(off_s * NS)
        self.boot, self.mono_ns = f"boot-{int(self.boot[5:]) + 1}", 15 * NS


@dataclass
class Wall:
    """Doors, what is behind them, and a diary of what pulses and hands have done."""

    names: list[str]
    doors: dict[str, Door] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    diary: list[Happening] = field(default_factory=list)
    sensors: frozenset[str] = frozenset()
    """Compartments that tell whether they hold something."""

    def __post_init__(self) -> None:
        self.doors = {name: Door() for name in self.names}

    @property
    def pulses(self) -> list[Pulsed]:
        return [each for each in self.diary if isinstance(each, Pulsed)]

    @property
    def open(self) -> list[str]:
        return [name for name, door in self.doors.items() if not door.shut]

    def put(self, name: str, label: str) -> None:
        self.doors[name].put()
        self.content[name] = label

    def take(self, name: str) -> str | None:
        self.doors[name].take()
        return self.content.pop(name, None)


class PlayedUnit(Unit):
    """A unit without a device: what it is asked to do goes to the house's hands."""

    def __init__(self, real: Unit, obey: Callable[[Unit, Action], str]) -> None:
        async def nowhere(_unit: Unit, _reading: Reading) -> None:
            raise AssertionError("a played unit says nothing by itself")

        super().__init__(real.spec, nowhere)
        self.lost = None
        self._obey = obey

    def order(self, action: Action) -> str:
        return self._obey(self, action)

    def can(self, action: Action) -> bool:
        return isinstance(action, OpenDoor | Signal)


class House:
    """One life of the agent, from power to power cut."""

    def __init__(self, config: Config, clock: PlayedClock, wall: Wall, chance: random.Random) -> None:
        self.clock, self.wall, self.chance = clock, wall, chance
        self.config = config
        self.app = App(config, clock)
        self.entries: list[dict[str, Any]] = []
        """All that is durable."""
        self.cut_at: str | None = None
        """`before` or `after` the next pulse the power fails."""
        self.refuses = ""
        """Why the lock board's unit will not take the next pulse."""
        self._dark = False
        self._told: dict[str, tuple[bool, bool]] = {}
        self._due: list[Reading] = []
        self._rung = asyncio.Event()
        for name, unit in list(self.app.units.items()):
            self.app.units[name] = PlayedUnit(unit, self._obey)
        self._bell = self.app.units[BELL] = PlayedUnit(self.app.units["keypad"], self._obey)

    # -- life -------------------------------------------------------------------------------------

    async def live(self, script: Callable[[Self], Any]) -> None:
        """Until the script is done. Raises PowerCut; then `self.remains` is what was on the disk."""
        await self.app.visit(lambda _: self._live(script))

    async def _live(self, script: Callable[[Self], Any]) -> None:
        tasks = [asyncio.ensure_future(part.run()) for part in (self.app.decider, self.app.performer)]
        try:
            self.app.decider.start()
            await self.power_board()
            await script(self)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    @property
    def remains(self) -> Path:
        return self.config.state.with_suffix(".next")

    def cut(self) -> None:
        """The power fails now: the disk is as it is."""
        if not self._dark:
            self._note(Lost)
            self._dark = True
            self._keep_what_is_there()

    def _keep_what_is_there(self) -> None:
        """The disk of one moment: taken anew if the journal was written meanwhile."""
        while True:
            before = _stamps(self.config.state)
            shutil.copytree(self.config.state, self.remains)
            if _stamps(self.config.state) == before:
                return
            shutil.rmtree(self.remains)

    async def settle(self) -> None:
        """Everything that was begun has come to rest, and is on the disk."""
        while True:
            await self.app.decider.alive()
            await self.app.journal.alive()
            self._rung.clear()
            self.app.performer.later(None, (Order(BELL, Signal(tone=Tone.ASK)),), None)
            await self._rung.wait()
            if self._dark:
                raise PowerCut
            if not self._due:
                break
            self.clock.to(self.clock.mono_ns + NS // 10)
            readings, self._due = self._due, []
            for reading in readings:
                await self._say("bus", reading)
        await self._read()

    async def wait(self, seconds: float) -> None:
        """Time passes, and the house wakes when it asked to be woken."""
        end_ns = self.clock.mono_ns + int(seconds * NS)
        while (due_ns := self.app.decider.desk.wake_at()) is not None and due_ns <= end_ns:
            self.clock.to(max(self.clock.mono_ns + 1, due_ns))
            self.app.decider.decide_on(Woken(at=self.clock.now()))
            await self.settle()
        self.clock.to(max(end_ns, self.clock.mono_ns))

    async def _read(self) -> None:
        last = len(self.entries)
        while some := await self.app.journal.read(last, entries=READ, size=1 << 20):
            self.entries += [json.loads(each.line) for each in some]
            last = some[-1].sequence

    # -- the diary --------------------------------------------------------------------------------

    def asked(self, purpose: str, name: str | None = None, grant: str | None = None) -> None:
        """A person is about to ask for a door: for any of those that hold nothing, without a name."""
        self._note(Asked, name=name, purpose=purpose, grant=grant)

    def released(self, name: str) -> None:
        """A person has looked, and is about to say so."""
        self._note(Released, name=name)

    def _note(self, kind: type[Happening], **what: Any) -> None:
        if self._dark:
            return
        now, durable = self.clock.now(), self.app.journal.last
        self.wall.diary.append(kind(boot=now.boot, utc_ns=now.utc_ns, durable=durable, **what))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["type"] == f"postern.{kind}"]

    # -- devices ----------------------------------------------------------------------------------

    async def scan(self, unit: str, text: str) -> None:
        await self._say(unit, Scanned(data=text.encode()))
        await self.settle()

    async def at_once(self, *scans: tuple[str, str]) -> None:
        """Several people, none of whom waits for another's answer."""
        for unit, text in scans:
            await self._say(unit, Scanned(data=text.encode()))
        await self.settle()

    async def _say(self, unit: str, reading: Reading) -> None:
        await self.app.decider.deliver(self.app.units[unit], reading, self.clock.now())

    async def power_board(self) -> None:
        """The lock board begins to answer: every door is told as it is found."""
        self._told.clear()
        self.app.units["bus"].lost = None
        await self._say("bus", DeviceReady(port="bus", about={}))
        await self.look(first=True)

    async def lose_board(self) -> None:
        lost = DeviceLost(reason="gone", detail="unplugged")
        self._note(Lost)
        self.app.units["bus"].lost = lost
        await self._say("bus", lost)
        await self.settle()

    async def look(self, *, first: bool = False) -> None:
        """The lock board has looked at every door."""
        self._due += self._news(first=first)
        await self.settle()

    def _news(self, *, first: bool) -> list[Reading]:
        news: list[Reading] = []
        for number, (name, door) in enumerate(self.wall.doors.items(), 1):
            hooked, held = self._told.get(name, (None, None))
            if name in self.wall.sensors and (first or held != door.occupied):
                news.append(ContentChanged(door=number, occupied=door.occupied, first=first))
            if first or hooked != door.hooked:
                state = DoorState.CLOSED if door.hooked else DoorState.OPEN
                news.append(DoorChanged(door=number, state=state, source=DoorSource.HOOK, first=first))
                self._note(Shown, name=name, open=not door.hooked, first=first)
            self._told[name] = (door.hooked, door.occupied)
        return news

    def _obey(self, unit: Unit, action: Action) -> str:
        if unit is self._bell:
            self._rung.set()
        if not isinstance(action, OpenDoor):
            return ""
        if unit.lost is not None:
            return "lost"
        if self.refuses:
            refused, self.refuses = self.refuses, ""
            return refused
        when, self.cut_at = self.cut_at, None
        if when == "before":
            self.cut()
        if not self._dark:
            self._pulse(action)
        if when == "after":
            self.cut()
        return ""

    def _pulse(self, action: OpenDoor) -> None:
        name = self.wall.names[action.door - 1]
        door = self.wall.doors[name]
        sprang = door.shut and not door.stuck
        self._note(Pulsed, name=name, sprang=sprang, holds=self.wall.content.get(name))
        door.pulse()
        self._due.append(ActionDone(action=action, ok=True))
        self._due += self._news(first=False)


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """What a write to a folder's files changes."""
    stats = [(path.name, path.lstat()) for path in sorted(folder.iterdir())]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
