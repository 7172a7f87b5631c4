"""Our Modbus, both ends of it, against pymodbus: neither may agree only with itself."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.constants import ExcCodes
from pymodbus.pdu.bit_message import WriteSingleCoilRequest
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.modbus import READ_INPUTS
from drivers.modbus_relay import ModbusRelayDriver, ModbusRelayOptions
from drivers.port import Address, open_port
from drivers.readings import InputChanged, OpenDoor, Reading, SolenoidChanged
from simulators.base import VirtualDevice
from simulators.modbus_relay import RelayBus
from tests.bus_bench import contact

LOCKS, CONTACTS, INPUTS = 4, 4, 2


class End(VirtualDevice):
    """One end of a cable between two programs that each want a tty."""

    other: "End"

    def received(self, data: bytes) -> None:
        self.other.send(data)


class FlashRequest(WriteSingleCoilRequest):
    """Waveshare's timed pulse: a write of a coil with a value that is neither on nor off."""

    tenths = 0

    def encode(self) -> bytes:
        return struct.pack(">HH", self.address, self.tenths)


# -- their client, our virtual board ----------------------------------------------------------------


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RelayBus]:
    bus = RelayBus(tmp_path / "bus", {1: LOCKS}, contacts=CONTACTS, inputs=INPUTS)
    with bus:
        yield bus


@pytest.fixture
async def client(bus: RelayBus) -> AsyncIterator[AsyncModbusSerialClient]:
    made = AsyncModbusSerialClient(str(bus.name), framer=FramerType.RTU, baudrate=9600, timeout=5, retries=0)
    assert await made.connect()
    yield made
    made.close()


async def test_pymodbus_switches_the_relays_of_our_virtual_board(
    bus: RelayBus, client: AsyncModbusSerialClient
) -> None:
    assert (await client.read_coils(0, count=LOCKS, device_id=1)).bits[:LOCKS] == [False] * LOCKS
    assert not (await client.write_coil(2, True, device_id=1)).isError()
    assert not (await client.write_coils(0, [True, False], device_id=1)).isError()
    assert (await client.read_coils(0, count=LOCKS, device_id=1)).bits[:LOCKS] == [True, False, True, False]
    assert not (await client.write_coils(0, [False] * LOCKS, device_id=1)).isError()
    assert not any(door.energised for door in bus.boards[1].doors)
    assert [door.pulses for door in bus.boards[1].doors] == [1, 0, 1, 0]


async def test_pymodbus_reads_the_inputs_of_our_virtual_board(
    bus: RelayBus, client: AsyncModbusSerialClient
) -> None:
    bus.door(1, 2).force()
    bus.boards[1].inputs[1] = True
    answer = await client.read_discrete_inputs(0, count=CONTACTS + INPUTS, device_id=1)
    assert answer.bits[: CONTACTS + INPUTS] == [True, False, True, True, False, True]


async def test_pymodbus_reads_and_writes_the_registers_of_our_virtual_board(
    bus: RelayBus, client: AsyncModbusSerialClient
) -> None:
    assert (await client.read_holding_registers(0x8000, device_id=1)).registers == [200]
    assert (await client.read_holding_registers(0x4000, device_id=1)).registers == [1]
    assert not (await client.write_register(0x4000, 7, device_id=1)).isError()
    assert list(bus.boards) == [7]


async def test_pymodbus_has_our_virtual_board_time_a_pulse(
    bus: RelayBus, client: AsyncModbusSerialClient
) -> None:
    request = FlashRequest(address=0x0201, bits=[True], dev_id=1)
    request.tenths = 2
    assert not (await client.execute(False, request)).isError()
    assert bus.door(1, 2).energised
    async with asyncio.timeout(20):
        while (await client.read_coils(0, count=LOCKS, device_id=1)).bits[1]:
            pass
    assert bus.door(1, 2).pulses == 1


@pytest.mark.parametrize(("first", "count"), [(0, LOCKS + 1), (LOCKS, 1)])
async def test_pymodbus_understands_the_exceptions_of_our_virtual_board(
    client: AsyncModbusSerialClient, first: int, count: int
) -> None:
    answer = await client.read_coils(first, count=count, device_id=1)
    assert answer.isError()
    assert answer.exception_code == ExcCodes.ILLEGAL_ADDRESS


# -- our driver, their server -----------------------------------------------------------------------


class Panel:
    """Doors behind a server of pymodbus: a coil that is written on springs its door open."""

    def __init__(self) -> None:
        self.written: list[tuple[int, list[bool]]] = []
        self.shut = [True] * CONTACTS
        self.switches = [False] * INPUTS

    async def __call__(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        current_registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> None:
        if set_values is not None:
            self.written.append((address, [bool(value) for value in set_values]))
            for coil, value in enumerate(set_values, start=address):
                self.shut[coil] = self.shut[coil] and not value
        elif function_code == READ_INPUTS:
            current_registers[0] = sum(bit << at for at, bit in enumerate(self.shut + self.switches))


class Pulled:
    """Our driver at the far end of the cable."""

    def __init__(self, driver: ModbusRelayDriver, readings: asyncio.Queue[Reading]) -> None:
        self.driver = driver
        self.readings = readings

    async def next(self) -> Reading:
        async with asyncio.timeout(20):
            return await self.readings.get()


@pytest.fixture
async def panel(tmp_path: Path) -> AsyncIterator[Panel]:
    panel = Panel()
    bits = [SimData(0, values=[True] + [False] * (LOCKS - 1), datatype=DataType.BITS)]
    inputs = [SimData(0, values=[True] * (CONTACTS + INPUTS), datatype=DataType.BITS)]
    none = [SimData(0, values=[0], datatype=DataType.REGISTERS)]
    device = SimDevice(1, simdata=(bits, inputs, none, none), action=panel.__call__)
    ours, theirs = End(tmp_path / "ours"), End(tmp_path / "theirs")
    ours.other, theirs.other = theirs, ours
    with ours, theirs:
        server = ModbusSerialServer(device, port=str(theirs.name), baudrate=9600)
        await server.serve_forever(background=True)
        yield panel
        server.close()


@pytest.fixture
async def pulled(panel: Panel, tmp_path: Path) -> AsyncIterator[Pulled]:
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    port = await open_port(Address.parse(str(tmp_path / "ours")), baud=9600)
    board = {"address": 1, "locks": LOCKS, "contacts": CONTACTS, "inputs": INPUTS}
    options = ModbusRelayOptions.model_validate(
        {"boards": (board,), "pulse_ms": 100, "poll_ms": 50, "answer_ms": 1000}
    )
    made = Pulled(ModbusRelayDriver(port, readings.put, options), readings)
    assert (await made.driver.identify())["doors"] == str(LOCKS)
    running = asyncio.create_task(made.driver.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    port.close()


async def test_our_driver_opens_the_relays_of_their_server_and_reads_its_inputs(
    panel: Panel, pulled: Pulled
) -> None:
    firsts = [await pulled.next() for _ in range(LOCKS + CONTACTS + INPUTS)]
    # Coil 1 was on: it is off before anything is told of it.
    assert panel.written[0] == (0, [False] * LOCKS)
    assert firsts[:LOCKS] == [
        SolenoidChanged(door=door, energised=False, first=True) for door in range(1, LOCKS + 1)
    ]
    assert firsts[LOCKS : LOCKS + CONTACTS] == [
        contact(door, "closed", first=True) for door in range(1, CONTACTS + 1)
    ]
    panel.switches[1] = True
    assert await pulled.next() == InputChanged(input=2, closed=True)
    panel.shut[3] = False
    assert await pulled.next() == contact(4, "open")


async def test_their_refusal_of_the_timed_pulse_is_followed_by_one_on_and_one_off(
    panel: Panel, pulled: Pulled
) -> None:
    """Their server has no coil 0200, as a board with firmware V1 has none."""
    for _ in range(LOCKS + CONTACTS + INPUTS):
        await pulled.next()
    panel.written.clear()
    await pulled.driver.perform(OpenDoor(door=3))
    assert panel.written == [(2, [True]), (2, [False])]
    heard = [await pulled.next() for _ in range(3)]
    assert contact(3, "open") in heard
