"""Lock boards as the agent has them: in its config, at its command line, in its journal."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse
from agent.devices import Found, survey
from agent.intake import Role
from agent.mistakes import BadConfig
from agent.units import Unit, UnitSpec
from drivers import KINDS, driver_for
from drivers.boards import BoardsDriver
from drivers.port import Address
from drivers.readings import ActionDone, DeviceLost, DeviceReady, OpenDoor, Reading
from simulators.cu16 import Cu16Bus
from simulators.modbus_relay import RelayBus
from tests.bus_bench import hook
from tests.site import Entry, Site

BOARDS = ("cu16", "cu48", "cu12", "bcc", "wkly", "winnsen", "modbus_relay")

CONFIG = """\
[device]
id = "locker-0001"
tenant = "lab"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[unit.wall]
kind = "cu16"
port = "{dev}/wall"
boards = [0, {{ address = 1, locks = 4, content = "1_occupied" }}]

[unit.relays]
kind = "modbus_relay"
port = "{dev}/relays"
boards = [{{ address = 1, locks = 2, contacts = 2, inputs = 1 }}]
"""


def parsed(kind: str, lines: str) -> Any:
    text = '[device]\nid = "locker-0001"\ntenant = "lab"\n[broker]\nhost = "x"\n'
    (unit,) = parse(f'{text}[unit.wall]\nkind = "{kind}"\nport = "/dev/x"\n{lines}').units
    assert unit.role is Role.DOORS
    return unit.options


def mistakes(kind: str, lines: str) -> list[str]:
    with pytest.raises(BadConfig) as bad:
        parsed(kind, lines)
    return [str(mistake) for mistake in bad.value.mistakes]


# -- config -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOARDS)
def test_a_kind_of_board_needs_no_settings_at_all(kind: str) -> None:
    assert len(parsed(kind, "").boards) == 1
    assert issubclass(driver_for(kind), BoardsDriver)


@pytest.mark.parametrize("kind", BOARDS)
def test_boards_are_addresses_or_tables(kind: str) -> None:
    options = parsed(kind, "boards = [3, { address = 2, locks = 4, inverted = [1, 4] }]")
    assert [(board.address, board.inverted) for board in options.boards] == [(3, ()), (2, (1, 4))]
    assert options.boards[1].locks == 4


@pytest.mark.parametrize(
    ("kind", "lines", "told"),
    [
        (
            "cu16",
            "boards = [16]",
            "unit.wall.boards[0].address: expected less than or equal to 15, got 16",
        ),
        ("cu16", "boards = []", "unit.wall.boards: expected 1 to 32 boards, got []"),
        ("cu16", "boards = [1, 1]", "unit.wall.boards: expected boards with addresses of their own, got "),
        ("cu16", 'boards = ["one"]', "unit.wall.boards[0]: expected a table, got 'one'"),
        (
            "bcc",
            "boards = [{ address = 1, locks = 8, inverted = [9] }]",
            "unit.wall.boards[0]: expected inverted locks from 1 to 8, got {",
        ),
        (
            "cu12",
            'boards = [{ address = 1, polarity = "up" }]',
            "unit.wall.boards[0].polarity: expected '1_locked' or '0_locked', got 'up'",
        ),
        (
            "modbus_relay",
            "boards = [{ address = 1, locks = 2, contacts = 3 }]",
            "unit.wall.boards[0]: expected at most one contact for each of 2 locks",
        ),
        (
            "modbus_relay",
            "pulse_ms = 1001",
            "unit.wall.pulse_ms: expected less than or equal to 1000, got 1001",
        ),
        ("wkly", "poll_ms = 1000", "unit.wall.poll_ms: expected less than or equal to 500, got 1000"),
        (
            "cu16",
            "boards = [{ address = 1, inputs = 2 }]",
            "unit.wall.boards[0].inputs: expected one of the settings",
        ),
        ("wkly", 'role = "badge"', "unit.wall.role: expected one of doors, got 'badge'"),
    ],
)
def test_every_mistake_about_boards_is_named(kind: str, lines: str, told: str) -> None:
    (mistake,) = mistakes(kind, lines)
    assert mistake.startswith(told)


# -- postern devices --------------------------------------------------------------------------------


async def test_devices_tells_the_boards_of_a_bus_and_moves_nothing(tmp_path: Path) -> None:
    bus = RelayBus(tmp_path / "bus", {1: 8})
    bus.door(1, 1).energise()
    spec = UnitSpec(
        name="wall",
        kind="modbus_relay",
        role=Role.DOORS,
        address=Address.parse(str(bus.name)),
        baud=9600,
        options=driver_for("modbus_relay").OptionsType(),
    )
    with bus:
        async for found in survey([spec]):
            assert isinstance(found, Found)
            assert found.about == {"boards": "1", "doors": "8"}
            break
    assert bus.door(1, 1).energised


# -- a unit -----------------------------------------------------------------------------------------


class Told:
    """A unit of two CU16 boards and what it says."""

    def __init__(self, bus: Cu16Bus, **options: Any) -> None:
        self.readings: asyncio.Queue[Reading] = asyncio.Queue()
        settings = driver_for("cu16").OptionsType.model_validate(
            {"boards": ({"address": 0, "locks": 2},), "poll_ms": 50, **options}
        )
        spec = UnitSpec(
            name="wall",
            kind="cu16",
            role=Role.DOORS,
            address=Address.parse(str(bus.name)),
            baud=19200,
            options=settings,
        )
        self.unit = Unit(spec, self._deliver)

    async def _deliver(self, _: Unit, reading: Reading) -> None:
        await self.readings.put(reading)

    async def until(self, kind: type[Reading]) -> Reading:
        async with asyncio.timeout(20):
            while True:
                reading = await self.readings.get()
                if isinstance(reading, kind):
                    return reading


async def test_an_unlock_is_never_carried_over_to_the_next_opening_of_the_port(tmp_path: Path) -> None:
    """The first pulse is in doubt, the one that waited was not given, and neither comes later."""
    bus = Cu16Bus(tmp_path / "wall", {0: 2})
    bus.door(0, 1).jam()
    made = Told(bus)
    running = asyncio.create_task(made.unit.run())
    with bus:
        await made.until(DeviceReady)
        assert made.unit.order(OpenDoor(door=1)) == ""
        await bus.asked_for(bytes.fromhex("02 00 31"))
        assert made.unit.order(OpenDoor(door=2)) == ""
        bus.unplug()
        first = await made.until(ActionDone)
        assert first == ActionDone(action=OpenDoor(door=1), ok=False, reason="outcome_unknown", unknown=True)
        assert await made.until(ActionDone) == ActionDone(action=OpenDoor(door=2), ok=False, reason="lost")
        await made.until(DeviceLost)
        bus.plug()
        await made.until(DeviceReady)
        await made.until(type(hook(1, "closed")))
        question = bytes.fromhex("02 00 30")
        for _ in range(3):
            await bus.asked_for(question)
        assert (bus.door(0, 1).pulses, bus.door(0, 2).pulses) == (1, 0)
    running.cancel()
    await asyncio.wait([running])


# -- the whole agent --------------------------------------------------------------------------------


@pytest.mark.broker
async def test_what_happens_at_a_door_is_in_the_record_and_so_is_a_door_that_nobody_opened(
    tmp_path: Path,
) -> None:
    """A raw unlock frame on the wire needs no authority: it cannot be prevented, and is told."""
    async with Site(tmp_path, config=CONFIG, device="locker-0001") as site:
        wall = site.plug(Cu16Bus(site.dev / "wall", {0: 16, 1: 4}))
        relays = site.plug(RelayBus(site.dev / "relays", {1: 2}, contacts=2, inputs=1))
        wall.door(0, 3).force()
        wall.door(1, 1).force()
        await site.start_agent()
        await site.ready("wall", "relays")

        def doors() -> list[Entry]:
            return [
                {"subject": entry["subject"], **entry["data"]}
                for entry in site.of("door.changed", "door.content_changed", "device.input_changed")
            ]

        def told(subject: str, **data: Any) -> bool:
            return any(each["subject"] == subject and data.items() <= each.items() for each in doors())

        await site.until(lambda: told("wall/17", state="open", first=True), "what was found")
        await site.until(lambda: told("relays", input=1, closed=False), "the tamper switch")
        wall.received(bytes.fromhex("02 13 31 03 49"))
        wall.door(1, 2).put()
        relays.door(1, 2).force()
        relays.boards[1].inputs[0] = True
        await site.until(lambda: told("wall/20", state="open", source="hook"), "a door of board 1")
        await site.until(lambda: told("wall/18", occupied=True), "what was put in")
        await site.until(lambda: told("relays/2", state="open", source="contact"), "a contact")
        await site.until(lambda: told("relays", input=1, closed=True), "the tamper switch again")
        (ready,) = [entry for entry in site.of("device.ready") if entry["subject"] == "wall"]
        assert ready["data"]["about"] == {"boards": "0,1", "doors": "20", "open": "3,17"}
        assert not site.of("door.pulsed", "agent.fault")
        site.in_order()


def test_every_board_is_a_kind() -> None:
    assert set(BOARDS) <= set(KINDS)
