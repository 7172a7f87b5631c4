"""A lock board driver and its virtual bus on a real pseudo-terminal, for tests."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from drivers import driver_for
from drivers.boards import BoardsDriver
from drivers.port import Address, Port, open_port
from drivers.readings import DoorChanged, DoorSource, DoorState, OpenDoor, Reading
from simulators.boards import LockBus

PATIENT = {"answer_ms": 1000, "poll_ms": 50, "watch_ms": 25, "gap_ms": 10}
"""A busy machine may be slow to answer, and a test need not wait between questions."""


@dataclass
class BusBench:
    bus: LockBus
    driver: BoardsDriver[Any, Any]
    port: Port
    readings: asyncio.Queue[Reading]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def run(self) -> asyncio.Task[None]:
        return self.start(self.driver.run())

    def open(self, door: int, pulse_ms: int | None = None) -> asyncio.Task[None]:
        return self.start(self.driver.perform(OpenDoor(door=door, pulse_ms=pulse_ms)))

    def start(self, doing: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(doing)
        self.tasks.append(task)
        return task

    async def next(self) -> Reading:
        async with asyncio.timeout(20):
            return await self.readings.get()

    async def until(self, *wanted: Reading) -> list[Reading]:
        """Everything up to and with the last of what is waited for."""
        heard: list[Reading] = []
        missing = list(wanted)
        while missing:
            heard.append(await self.next())
            if heard[-1] in missing:
                missing.remove(heard[-1])
        return heard

    async def found(self, count: int) -> list[Reading]:
        """The first state of everything."""
        return [await self.next() for _ in range(count)]


def hook(door: int, state: str, *, first: bool = False) -> DoorChanged:
    return DoorChanged(door=door, state=DoorState(state), source=DoorSource.HOOK, first=first)


def contact(door: int, state: str, *, first: bool = False) -> DoorChanged:
    return DoorChanged(door=door, state=DoorState(state), source=DoorSource.CONTACT, first=first)


@contextlib.asynccontextmanager
async def bus_bench(bus: LockBus, kind: str, **options: Any) -> AsyncIterator[BusBench]:
    """A plugged bus and a driver on its port. Checks that nothing stays behind."""
    before = len(os.listdir("/proc/self/fd"))
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    driver_class = driver_for(kind)
    with bus:
        port = await open_port(Address.parse(str(bus.name)), baud=driver_class.BAUD)
        settings = driver_class.OptionsType.model_validate({**PATIENT, **options})
        driver = driver_class(port, readings.put, settings)
        assert isinstance(driver, BoardsDriver)
        # A second answer is sent together with the first here, not by another board.
        vars(driver).update(TWIN_S=0.02, ROLL_S=0.05)
        made = BusBench(bus, driver, port, readings)
        try:
            yield made
        finally:
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            port.close()
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.asynccontextmanager
async def at_work(
    bus: LockBus, kind: str, *, found: int | None = None, **options: Any
) -> AsyncIterator[BusBench]:
    """The same, identified and polling, with what it found at first out of the way: a hook for each door."""
    async with bus_bench(bus, kind, **options) as made:
        await made.driver.identify()
        made.run()
        await made.found(made.driver.wall.doors if found is None else found)
        yield made
