"""The devices at the ports of a simulated agent: they say what a driver would, and there is no wire.

Each stands in for a driver and its device at once, below the agent's own supervision of units: a port is
opened, the device is asked who it is, and what it reads goes the usual way. At a port where another kind of
device is plugged in than the config names, nobody answers.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from agent.units import Wiring
from drivers.base import Driver, Emit, NoReply, Unsupported
from drivers.port import Address, PortGone
from drivers.readings import (
    Action,
    DoorChanged,
    DoorSource,
    DoorState,
    Fix,
    OpenDoor,
    Scanned,
    Signal,
    TagArrived,
    TagLeft,
)
from simulators.fleet.hardware import DOORS

FIX_EVERY_S = 5.0
OPEN_S = 3.0
"""How long a door stands open that was pulsed."""
STEP_DEG = 0.0003
"""From one fix to the next: some thirty metres."""
DEPOT = (52.5, 13.4)


class Socket:
    """A port at which a device is plugged in. Nothing goes through it."""

    def __init__(self, path: str, plugged: str, hands: "Hands") -> None:
        self.path, self.plugged, self.hands = path, plugged, hands

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        """It goes nowhere."""

    def pending(self) -> bytes:
        return b""

    def set_baud(self, baud: int) -> None:
        """There is no line."""

    def close(self) -> None:
        """Nor anything to close."""


class Hands:
    """Whoever holds the devices of one agent: scans at a rate, and drives about."""

    def __init__(self, device: str, hardware: Mapping[str, str], rate: float, seed: int) -> None:
        """`rate` in scans a minute."""
        self.scans = 0
        self.chance = random.Random(f"{seed}/{device}")
        self._device, self._hardware, self._rate = device, hardware, rate
        self.place = (DEPOT[0] + self.chance.uniform(-0.2, 0.2), DEPOT[1] + self.chance.uniform(-0.2, 0.2))

    @property
    def wiring(self) -> Wiring:
        return Wiring(open=self._open, driver=_driver_for)

    async def _open(self, address: Address, _baud: int) -> Socket:
        plugged = self._hardware.get(address.text)
        if plugged is None:
            raise PortGone("absent", address.text)
        return Socket(address.text, plugged, self)

    async def label(self) -> str:
        """The next parcel, when its time comes: about so often, never in step with other devices."""
        if not self._rate:
            await asyncio.Event().wait()
        await asyncio.sleep(self.chance.expovariate(self._rate / 60))
        self.scans += 1
        return f"{self._device}-{self.scans:06}".upper()

    def move(self) -> tuple[float, float]:
        lat, lon = self.place
        self.place = (lat + self.chance.gauss(0, STEP_DEG), lon + self.chance.gauss(0, STEP_DEG))
        return self.place


class Synthetic(Driver):
    """A device that is there, and says nothing of its own accord."""

    kind: ClassVar[str] = "synthetic"

    def __init__(self, link: Any, emit: Emit, options: Any, kind: str) -> None:
        super().__init__(link, emit, options)
        self.expected = kind
        self.plugged: str = link.plugged
        self.hands: Hands = link.hands

    @property
    def noise(self) -> Counter[str]:
        return Counter()

    async def identify(self) -> Mapping[str, str]:
        if self.plugged != self.expected:
            raise NoReply(f"expected a device of kind {self.expected}, got silence")
        return {"model": f"synthetic {self.expected}"}

    async def run(self) -> None:
        await asyncio.Event().wait()


class Scanner(Synthetic):
    """Scans parcels, and sounds whatever it is told to."""

    performs = frozenset({Signal})

    async def run(self) -> None:
        while True:
            label = await self.hands.label()
            await self.emit(Scanned(data=label.encode(), symbology="]C0"))

    async def perform(self, action: Action) -> None:
        if not isinstance(action, Signal):
            raise Unsupported(f"{self.expected} cannot {type(action).__name__}")


class Gate(Synthetic):
    """UHF tags that come and go."""

    async def run(self) -> None:
        while True:
            await self.hands.label()
            uid = bytes.fromhex("3000") + self.hands.chance.randbytes(10)
            await self.emit(TagArrived(uid=uid, technology="epc-gen2", rssi_dbm=-52, pc=0x3000))
            await self.emit(TagLeft(uid=uid, technology="epc-gen2"))


class Receiver(Synthetic):
    """A position, without a time of its own: what time it is, the devices learn from the fleet."""

    async def run(self) -> None:
        while True:
            lat, lon = self.hands.move()
            await self.emit(Fix(lat=round(lat, 6), lon=round(lon, 6), utc=None, hdop=0.9, satellites=9))
            await asyncio.sleep(FIX_EVERY_S)


class Wall(Synthetic):
    """Doors that open when they are pulsed, and are shut again after a while."""

    performs = frozenset({OpenDoor})

    def __init__(self, link: Any, emit: Emit, options: Any, kind: str) -> None:
        super().__init__(link, emit, options, kind)
        self._pulsed: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> None:
        for door in range(1, DOORS + 1):
            await self._found(door, DoorState.CLOSED, first=True)
        while True:
            door = await self._pulsed.get()
            await self._found(door, DoorState.OPEN)
            await asyncio.sleep(OPEN_S)
            await self._found(door, DoorState.CLOSED)

    async def _found(self, door: int, state: DoorState, *, first: bool = False) -> None:
        await self.emit(DoorChanged(door=door, state=state, source=DoorSource.HOOK, first=first))

    async def perform(self, action: Action) -> None:
        if not isinstance(action, OpenDoor):
            raise Unsupported(f"{self.expected} cannot {type(action).__name__}")
        self._pulsed.put_nowait(action.door)


_DRIVERS: Mapping[str, type[Synthetic]] = {
    "line": Scanner,
    "ssi": Scanner,
    "m100": Gate,
    "nmea": Receiver,
    "cu16": Wall,
}


def _driver_for(kind: str) -> Any:
    """Any other kind is there and silent."""
    made = _DRIVERS.get(kind, Synthetic)
    return lambda link, emit, options: made(link, emit, options, kind)
