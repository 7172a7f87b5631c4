"""Modbus relay boards: the frames, and the driver at a virtual bus."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from drivers.base import ActionRefused, NoReply, Unconfirmed
from drivers.boards import BoardsDriver
from drivers.modbus import ModbusCodec, Pdu, read, write_coil, write_coils
from drivers.port import PortGone
from drivers.readings import BoardChanged, InputChanged, SolenoidChanged
from simulators.base import Faults
from simulators.modbus_relay import RelayBus
from tests.bus_bench import at_work, bus_bench, contact
from tests.codec_law import obey

# Waveshare's published samples; every CRC is right.
ANSWERS = [
    ("01 05 00 00 FF 00 8C 3A", Pdu(1, 0x05, b"\x00\x00\xff\x00")),
    ("01 05 02 00 00 07 8D B0", Pdu(1, 0x05, b"\x02\x00\x00\x07")),
    ("01 05 02 01 00 08 9C 74", Pdu(1, 0x05, b"\x02\x01\x00\x08")),
    ("01 01 01 01 90 48", Pdu(1, 0x01, b"\x01")),
    ("01 85 02 C3 51", Pdu(1, 0x85, b"\x02")),
]
QUESTIONS = [
    ("01 05 00 00 FF 00 8C 3A", write_coil(1, 0x0000, 0xFF00)),
    ("01 05 00 00 00 00 CD CA", write_coil(1, 0x0000, 0x0000)),
    ("01 05 02 00 00 07 8D B0", write_coil(1, 0x0200, 7)),
    ("01 05 02 01 00 08 9C 74", write_coil(1, 0x0201, 8)),
    ("01 01 00 00 00 08 3D CC", read(1, 0x01, 0, 8)),
    ("01 02 00 00 00 08 79 CC", read(1, 0x02, 0, 8)),
    ("01 03 80 00 00 01 AD CA", read(1, 0x03, 0x8000, 1)),
    ("01 0F 00 00 00 08 01 FF BE D5", write_coils(1, 0, [True] * 8)),
]

BOARD = {"address": 1, "locks": 4, "contacts": 4, "inputs": 1}
FIRSTS = 4 + 4 + 1
FLASH = bytes.fromhex("01 05 02")


def flash(relay: int, tenths: int) -> bytes:
    return bytes([0x01, 0x05, 0x02, relay - 1, 0x00, tenths])


@pytest.fixture
def bus(tmp_path: Path) -> RelayBus:
    return RelayBus(tmp_path / "bus", {1: 4}, contacts=4, inputs=1)


def wired(**more: Any) -> dict[str, Any]:
    return {"boards": (BOARD,), **more}


def energised(door: int, on: bool, *, first: bool = False) -> SolenoidChanged:
    return SolenoidChanged(door=door, energised=on, first=first)


# -- frames -----------------------------------------------------------------------------------------


def test_the_codec_obeys_the_law() -> None:
    """With garbage that is neither an address of the bus nor followed by one."""
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in ANSWERS]
    over_long = bytes([1, 1, 250, *bytes(252)])
    obey(lambda: ModbusCodec({1}), vectors, checksummed=True, limit=37, over_long=over_long)


@pytest.mark.parametrize(("raw", "question"), QUESTIONS)
def test_questions_are_written_as_in_the_samples(raw: str, question: Pdu) -> None:
    assert question.encode() == bytes.fromhex(raw)


def test_what_no_board_of_the_bus_says_is_counted_by_its_reason() -> None:
    codec = ModbusCodec({1})
    assert codec.feed(bytes.fromhex("02 05 00 00 FF 00 8C 09")) == []
    assert codec.noise["address"] == 8
    assert codec.feed(bytes.fromhex("01 2B")) == []
    assert codec.noise["function"] == 1


# -- looking ----------------------------------------------------------------------------------------


async def test_solenoid_contact_and_input_are_facts_of_their_own(bus: RelayBus) -> None:
    bus.door(1, 2).force()
    async with bus_bench(bus, "modbus_relay", **wired()) as made:
        assert await made.driver.identify() == {"boards": "1", "doors": "4", "ajar": "2"}
        made.run()
        assert await made.found(FIRSTS) == [
            *(energised(door, False, first=True) for door in range(1, 5)),
            *(contact(door, "open" if door == 2 else "closed", first=True) for door in range(1, 5)),
            InputChanged(input=1, closed=False, first=True),
        ]
        bus.boards[1].inputs[0] = True
        assert await made.next() == InputChanged(input=1, closed=True)
        bus.door(1, 2).slam()
        assert await made.next() == contact(2, "closed")


async def test_inputs_count_through_the_boards(tmp_path: Path) -> None:
    bus = RelayBus(tmp_path / "bus", {1: 2, 2: 2}, inputs=2)
    boards = ({"address": 1, "locks": 2, "inputs": 1}, {"address": 2, "locks": 2, "inputs": 2})
    async with at_work(bus, "modbus_relay", found=7, boards=boards) as made:
        bus.boards[2].inputs[1] = True
        assert await made.next() == InputChanged(input=3, closed=True)


async def test_a_board_that_has_no_such_inputs_is_not_the_one_that_was_configured(bus: RelayBus) -> None:
    board = {**BOARD, "inputs": 4}
    async with bus_bench(bus, "modbus_relay", boards=(board,)) as made:
        with pytest.raises(ActionRefused, match="board 1 answered with exception 02"):
            await made.driver.identify()


async def test_nothing_is_written_to_a_board_that_is_only_asked_who_it_is(
    bus: RelayBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a relay has been closed for longer than any pulse: it may be somebody else's lamp."""
    monkeypatch.setattr("drivers.modbus_relay.SLACK_S", -10.0)
    bus.door(1, 1).energise()
    async with bus_bench(bus, "modbus_relay", **wired()) as made:
        await made.driver.identify()
        assert bus.door(1, 1).energised
        assert {frame[1] for frame in bus.asked} <= {0x01, 0x02, 0x03}


# -- pulses -----------------------------------------------------------------------------------------


async def test_a_pulse_is_one_command_that_the_board_times_itself(bus: RelayBus) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(pulse_ms=300)) as made:
        await made.open(3)
        await made.until(energised(3, True), contact(3, "open"), energised(3, False))
        assert bus.count(FLASH) == bus.count(flash(3, 3)) == bus.door(1, 3).pulses == 1


@pytest.mark.parametrize(("asked_ms", "tenths"), [(100, 1), (101, 2), (1000, 10)])
async def test_the_length_of_a_pulse_is_what_is_asked_for_rounded_up(
    bus: RelayBus, asked_ms: int, tenths: int
) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()) as made:
        await made.open(1, asked_ms)
        assert bus.count(flash(1, tenths)) == 1


@pytest.mark.parametrize("asked_ms", [0, 99, 1001, 60_000])
async def test_no_pulse_is_longer_than_a_solenoid_can_bear(bus: RelayBus, asked_ms: int) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()) as made:
        with pytest.raises(ActionRefused, match="expected a pulse of 100 to 1000 ms"):
            await made.open(1, asked_ms)
        assert bus.count(FLASH) == 0


async def test_a_lost_answer_is_made_up_for_by_the_relay_that_is_seen_to_close(bus: RelayBus) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(pulse_ms=900, answer_ms=150)) as made:
        bus.boards[1].mute = True
        opening = made.open(1)
        await bus.asked_for(FLASH)
        bus.boards[1].mute = False
        await opening
        assert bus.count(FLASH) == bus.door(1, 1).pulses == 1


async def test_a_command_that_never_arrived_leaves_the_pulse_in_doubt(
    bus: RelayBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.3)
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(answer_ms=100)) as made:
        bus.boards[1].dead = True
        opening = made.open(1)
        await bus.asked_for(FLASH)
        bus.boards[1].dead = False
        with pytest.raises(Unconfirmed):
            await opening
        assert bus.count(FLASH) == 1
        assert bus.door(1, 1).pulses == 0


async def test_a_copy_that_names_another_relay_is_no_evidence(
    bus: RelayBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.3)
    bus.off_by = 1
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(answer_ms=200)) as made:
        with pytest.raises(Unconfirmed):
            await made.open(1)
        assert bus.count(FLASH) == 1


async def test_an_echo_does_not_pass_for_the_copy_that_answers_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.3)
    bus = RelayBus(tmp_path / "bus", {1: 4}, Faults(echo=True), contacts=4, inputs=1)
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(answer_ms=100)) as made:
        assert made.driver.line.echoes
        await made.open(1)
        await made.until(contact(1, "open"))
        bus.boards[1].dead = True
        with pytest.raises(Unconfirmed):
            await made.open(2)


LINES = {
    "byte by byte": Faults(byte_gap=-1),
    "noise at the turn": Faults(garbage=b"\x00"),
    "more noise at the turn": Faults(garbage=b"\xff\x00"),
    "echo byte by byte": Faults(echo=True, byte_gap=-1),
}


@pytest.mark.parametrize("line", LINES)
async def test_a_bad_line_changes_nothing(tmp_path: Path, line: str) -> None:
    bus = RelayBus(tmp_path / "bus", {1: 4}, LINES[line], contacts=4, inputs=1)
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()) as made:
        await made.open(4)
        await made.until(contact(4, "open"))
        assert bus.door(1, 4).pulses == 1


@pytest.mark.parametrize("fault", ["flip_next", "halve_next", "drop_next", "twice_next"])
async def test_one_spoilt_answer_changes_nothing(bus: RelayBus, fault: str) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(answer_ms=200)) as made:
        setattr(bus.faults, fault, 1)
        bus.door(1, 1).force()
        assert await made.next() == contact(1, "open")


async def test_two_boards_of_one_address_are_refused(bus: RelayBus) -> None:
    bus.boards[1].twin = True
    async with bus_bench(bus, "modbus_relay", **wired()) as made:
        with pytest.raises(ActionRefused, match="two boards answer to address 1"):
            await made.driver.identify()


# -- solenoids that must not burn -------------------------------------------------------------------


async def test_relays_are_opened_before_anything_else(bus: RelayBus) -> None:
    bus.door(1, 2).energise()
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()):
        assert not bus.door(1, 2).energised


async def test_a_board_that_opens_relays_one_by_one_only_has_them_opened_so(bus: RelayBus) -> None:
    bus.lacks = {0x0F}
    bus.door(1, 4).energise()
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()):
        assert not bus.door(1, 4).energised


async def test_a_board_whose_relay_does_not_open_opens_no_door(bus: RelayBus) -> None:
    bus.door(1, 2).energise()
    bus.welded = {(1, 2)}
    async with bus_bench(bus, "modbus_relay", **wired()) as made:
        vars(made.driver)["SILENT_S"] = 0.1
        running = made.run()
        with pytest.raises(NoReply, match="no answer from the boards 1"):
            await running


async def test_a_board_that_comes_back_has_its_relays_opened_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "SILENT_S", 0.1)
    monkeypatch.setattr(BoardsDriver, "SILENT_EVERY_S", 0.1)
    bus = RelayBus(tmp_path / "bus", {1: 1, 2: 1})
    boards = ({"address": 1, "locks": 1}, {"address": 2, "locks": 1})
    async with at_work(bus, "modbus_relay", found=2, boards=boards, answer_ms=100) as made:
        bus.boards[2].dead = True
        await made.until(BoardChanged(board=2, first_door=2, last_door=2, answers=False))
        bus.door(2, 1).energise()
        bus.boards[2].dead = False
        back = BoardChanged(board=2, first_door=2, last_door=2, answers=True)
        assert await made.until(back, energised(2, False, first=True)) == [
            back,
            energised(2, False, first=True),
        ]


async def test_a_relay_that_stays_closed_for_too_long_is_opened_and_counted(
    bus: RelayBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.modbus_relay.LONGEST_PULSE_MS", 100)
    monkeypatch.setattr("drivers.modbus_relay.SLACK_S", 0.1)
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired()) as made:
        bus.door(1, 1).energise()
        heard = await made.until(energised(1, True), energised(1, False))
        assert energised(1, False) in heard
        assert not bus.door(1, 1).energised
        assert made.driver.noise["relay_cut"] == 1


# -- firmware V1 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_version", [True, False])
async def test_a_board_that_cannot_time_a_pulse_has_its_relay_closed_and_opened(
    bus: RelayBus, tells_version: bool
) -> None:
    bus.version = 100
    bus.lacks = set() if tells_version else {0x03}
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(pulse_ms=100)) as made:
        await made.open(2)
        assert not bus.door(1, 2).energised
        assert bus.door(1, 2).pulses == 1
        bus.door(1, 2).slam()
        await made.open(2)
        assert bus.door(1, 2).pulses == 2
        # Refused once where the version is not told, and not tried again.
        assert bus.count(FLASH) == (0 if tells_version else 1)


@pytest.mark.parametrize("cut", ["cancelled", "mute"])
async def test_a_relay_closed_by_hand_is_opened_whatever_happens(
    bus: RelayBus, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus.version = 100
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(pulse_ms=1000, answer_ms=100)) as made:
        opening = made.open(2)
        bus.boards[1].mute = cut == "mute"
        await bus.asked_for(bytes.fromhex("01 0F 00 01 00 01 01 01"))
        assert bus.door(1, 2).energised
        if cut == "cancelled":
            opening.cancel()
        await asyncio.wait([opening])
        assert not bus.door(1, 2).energised


async def test_a_timed_pulse_ends_by_itself_when_the_port_goes(bus: RelayBus) -> None:
    async with at_work(bus, "modbus_relay", found=FIRSTS, **wired(pulse_ms=200)) as made:
        made.open(2)
        await bus.asked_for(FLASH)
        assert bus.door(1, 2).energised
        bus.unplug()
        with pytest.raises(PortGone):
            await made.tasks[0]
        async with asyncio.timeout(20):
            await bus.opened.wait()
        assert not bus.door(1, 2).energised
