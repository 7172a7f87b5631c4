"""A fingerprint driver and a virtual module on a real pseudo-terminal, for tests."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivers.port import Address, Port, open_port
from drivers.r503 import R503Driver, R503Options
from drivers.readings import (
    CompareFinger,
    DeleteFinger,
    EnrolFinger,
    FingerCompared,
    FingerEnrolled,
    Reading,
    SlotsListed,
    StoreTemplate,
)
from simulators.r503 import FingerprintModule

BREATHING_BLUE = (1, 0x64, 2, 0)
FLASHING_BLUE = (2, 0x32, 2, 2)
FLASHING_RED = (2, 0x19, 1, 3)
FLASHING_PURPLE = (2, 0x32, 3, 2)
LIFT = (2, 0x32, 3, 0)
DARK = (4, 0x64, 2, 0)


def module_of_two(folder: Path) -> FingerprintModule:
    """Knows alice in slot 5 and bob in slot 6."""
    made = FingerprintModule(folder / "finger")
    made.teach(5, "alice")
    made.teach(6, "bob")
    return made


@dataclass
class Bench:
    module: FingerprintModule
    driver: R503Driver
    port: Port
    readings: asyncio.Queue[Reading]
    """What the driver tells, but for the taken slots."""
    listed: asyncio.Queue[SlotsListed]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def compare(self, slot: int = 5, within: float = 2.0) -> FingerCompared:
        await self.driver.perform(CompareFinger(slot=slot, within=within))
        reading = self.readings.get_nowait()
        assert isinstance(reading, FingerCompared)
        return reading

    async def enrolled(self) -> FingerEnrolled:
        reading = await self.readings.get()
        assert isinstance(reading, FingerEnrolled)
        return reading

    def start(self, action: CompareFinger | EnrolFinger | DeleteFinger | StoreTemplate) -> asyncio.Task[None]:
        task = asyncio.create_task(self.driver.perform(action))
        self.tasks.append(task)
        return task

    def run(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.driver.run())
        self.tasks.append(task)
        return task


@contextlib.asynccontextmanager
async def bench(module: FingerprintModule, **options: Any) -> AsyncIterator[Bench]:
    """A plugged module and a driver on its port. Checks that nothing stays behind."""
    before = len(os.listdir("/proc/self/fd"))
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    listed: asyncio.Queue[SlotsListed] = asyncio.Queue()

    async def emit(reading: Reading) -> None:
        if isinstance(reading, SlotsListed):
            await listed.put(reading)
        else:
            await readings.put(reading)

    with module:
        port = await open_port(Address.parse(str(module.name)), baud=R503Driver.BAUD)
        quick = {"answer_within": 0.15, **options}
        made = Bench(
            module, R503Driver(port, emit, R503Options.model_validate(quick)), port, readings, listed
        )
        try:
            yield made
        finally:
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            port.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.asynccontextmanager
async def at_work(module: FingerprintModule, **options: Any) -> AsyncIterator[Bench]:
    """As `bench`, identified and running."""
    async with bench(module, **options) as made:
        await made.driver.identify()
        made.run()
        yield made
