"""A PN532 driver and a virtual reader on a real pseudo-terminal, for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from drivers.pn532 import Pn532Driver, Pn532Options
from drivers.port import Address, open_port
from drivers.readings import (
    AssertCard,
    CardAsserted,
    CardFailed,
    CredentialMade,
    MakeCredential,
    Reading,
    TagArrived,
    TagLeft,
)
from simulators.base import Faults
from simulators.fido_card import FidoCard
from simulators.pn532 import Pn532Reader

RP = "acme.postern.invalid"
HASH = bytes(range(32))
PERSON = b"\x07" * 32


@dataclass
class Bench:
    reader: Pn532Reader
    driver: Pn532Driver
    readings: asyncio.Queue[Reading]
    running: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(10):
            return await self.readings.get()

    async def arrived(self) -> TagArrived:
        reading = await self.next()
        assert isinstance(reading, TagArrived)
        return reading

    async def left(self) -> TagLeft:
        reading = await self.next()
        assert isinstance(reading, TagLeft)
        return reading

    async def asserted(
        self, hash_: bytes = HASH, *, rp_id: str = RP, within: float = 5.0
    ) -> CardAsserted | CardFailed:
        await self.driver.perform(AssertCard(rp_id=rp_id, client_data_hash=hash_, within=within))
        reading = await self.next()
        assert isinstance(reading, CardAsserted | CardFailed)
        return reading

    async def made(self, *, rp_id: str = RP, person: bytes = PERSON) -> CredentialMade | CardFailed:
        action = MakeCredential(rp_id=rp_id, client_data_hash=HASH, person=person, within=5.0)
        await self.driver.perform(action)
        reading = await self.next()
        assert isinstance(reading, CredentialMade | CardFailed)
        return reading

    async def with_credential(self, card: FidoCard, *, rp_id: str = RP) -> CredentialMade:
        """The card lies in the field and holds a credential; no finger is on it."""
        self.reader.present(card)
        await self.arrived()
        card.touch("thumb")
        made = await self.made(rp_id=rp_id)
        card.lift()
        assert isinstance(made, CredentialMade)
        return made


@contextlib.asynccontextmanager
async def bench(folder: Path, faults: Faults | None = None) -> AsyncIterator[Bench]:
    """A plugged reader, its driver identified and looking for cards."""
    with Pn532Reader(folder / "cards", faults) as reader:
        readings: asyncio.Queue[Reading] = asyncio.Queue()
        port = await open_port(Address.parse(str(reader.name)), baud=Pn532Driver.BAUD)
        with contextlib.closing(port):
            driver = Pn532Driver(port, readings.put, Pn532Options(poll_ms=20, presence_ms=150))
            await driver.identify()
            running = asyncio.create_task(driver.run())
            try:
                yield Bench(reader, driver, readings, running)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def obeyed(reader: Pn532Reader, code: int) -> None:
    """Until the reader has been given a command once more."""
    before = sum(asked[0] == code for asked in reader.asked)
    async with asyncio.timeout(10):
        while sum(asked[0] == code for asked in reader.asked) == before:
            reader.heard.clear()
            await reader.heard.wait()
