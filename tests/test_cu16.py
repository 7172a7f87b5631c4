"""Kerong CU16 boards: the frames, and the driver at a virtual bus."""

import asyncio
from pathlib import Path

import pytest

from drivers.base import ActionRefused, NoReply, Unconfirmed
from drivers.boards import BoardsDriver
from drivers.cu16 import Cu16Codec, Frame
from drivers.port import PortGone
from drivers.readings import BoardChanged, ContentChanged
from simulators.base import Faults
from simulators.cu16 import Cu16Bus
from tests.bus_bench import at_work, bus_bench, hook
from tests.codec_law import obey

MANUAL = [
    ("02 00 30 03 35", Frame(0, 0x30)),
    ("02 00 35 FE FF 00 00 03 37", Frame(0, 0x35, data=b"\xfe\xff\x00\x00")),
    ("02 00 31 03 36", Frame(0, 0x31)),
    ("02 0F 31 03 45", Frame(0, 0x31, 15)),
    ("02 13 31 03 49", Frame(1, 0x31, 3)),
    ("02 F0 32 03 27", Frame(15, 0x32)),
    ("02 10 36 00 00 00 00 03 4B", Frame(1, 0x36, data=bytes(4))),
    ("02 00 33 03 38", Frame(0, 0x33)),
]
"""Published samples of the CU16 protocol, found alike in several public projects."""


@pytest.fixture
def bus(tmp_path: Path) -> Cu16Bus:
    return Cu16Bus(tmp_path / "bus", {0: 16, 1: 16})


BOTH = ({"address": 0}, {"address": 1})


def test_the_codec_obeys_the_law() -> None:
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in MANUAL]
    obey(Cu16Codec, vectors, checksummed=True, limit=9)


@pytest.mark.parametrize(("raw", "frame"), MANUAL)
def test_frames_are_written_as_in_the_samples(raw: str, frame: Frame) -> None:
    assert frame.encode() == bytes.fromhex(raw)


def test_the_wrong_sum_that_one_kiosk_sends_is_no_frame() -> None:
    assert Cu16Codec().feed(bytes.fromhex("02 10 30 03 3E")) == []


async def test_every_door_is_told_as_found_and_then_only_what_changes(bus: Cu16Bus) -> None:
    bus.door(1, 2).force()
    async with bus_bench(bus, "cu16", boards=BOTH) as made:
        about = await made.driver.identify()
        assert about == {"boards": "0,1", "doors": "32", "open": "18"}
        made.run()
        found = await made.found(32)
        assert found == [hook(n, "open" if n == 18 else "closed", first=True) for n in range(1, 33)]
        bus.door(0, 16).force()
        assert await made.next() == hook(16, "open")
        bus.door(0, 16).slam()
        bus.door(1, 2).slam()
        await made.until(hook(16, "closed"), hook(18, "closed"))
        assert made.readings.empty()


async def test_a_door_is_pulsed_once_in_silence_and_its_hook_is_the_evidence(bus: Cu16Bus) -> None:
    async with at_work(bus, "cu16", boards=BOTH) as made:
        await made.open(20)
        assert bus.door(1, 4).pulses == 1
        assert bus.count(bytes.fromhex("02 13 31")) == 1
        assert await made.next() == hook(20, "open")


async def test_a_jammed_door_leaves_the_pulse_in_doubt_and_is_not_pulsed_again(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.2)
    bus.door(0, 1).jam()
    bus.confused = 1  # whatever such a board says is no evidence
    async with at_work(bus, "cu16", boards=BOTH) as made:
        with pytest.raises(Unconfirmed, match="no hook seen to drop"):
            await made.open(1)
        assert bus.door(0, 1).pulses == 1


async def test_an_open_door_is_no_evidence_of_a_pulse(bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.2)
    bus.door(0, 1).force()
    async with at_work(bus, "cu16", boards=BOTH) as made:
        with pytest.raises(Unconfirmed):
            await made.open(1)


async def test_a_hook_that_had_dropped_before_the_pulse_is_no_evidence_of_it(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board was asked before, and its answer that the door is open arrives after."""
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.5)
    question = bytes.fromhex("02 00 30")
    async with at_work(bus, "cu16", boards=({"address": 0},)) as made:
        bus.faults.delay = 0.2
        await bus.asked_for(question)
        bus.door(0, 1).force()
        await bus.asked_for(question)
        with pytest.raises(Unconfirmed):
            await made.open(1)
        assert await made.next() == hook(1, "open")


async def test_a_door_found_open_when_its_board_comes_back_is_no_evidence(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 2.0)
    monkeypatch.setattr(BoardsDriver, "SILENT_S", 0.1)
    monkeypatch.setattr(BoardsDriver, "SILENT_EVERY_S", 0.1)
    bus.door(1, 1).jam()
    async with at_work(bus, "cu16", boards=BOTH, answer_ms=50) as made:
        opening = made.open(17)
        await bus.asked_for(bytes.fromhex("02 10 31"))
        bus.boards[1].dead = True
        await made.until(BoardChanged(board=1, first_door=17, last_door=32, answers=False))
        bus.door(1, 1).force()
        bus.boards[1].dead = False
        await made.until(hook(17, "open", first=True))
        with pytest.raises(Unconfirmed):
            await opening


async def test_a_mute_bus_leaves_a_pulse_in_doubt_and_is_deaf(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.3)
    monkeypatch.setattr(BoardsDriver, "SILENT_S", 0.3)
    async with bus_bench(bus, "cu16", boards=BOTH, answer_ms=50) as made:
        await made.driver.identify()
        running = made.run()
        await made.found(32)
        bus.faults.mute = True
        with pytest.raises(Unconfirmed):
            await made.open(3)
        assert bus.door(0, 3).pulses == 1
        with pytest.raises(NoReply, match="no answer from the boards 0,1"):
            await running


async def test_content_is_told_where_the_config_says_that_there_are_sensors(bus: Cu16Bus) -> None:
    bus.door(0, 2).put()
    board = {"address": 0, "locks": 2, "content": "1_occupied"}
    async with bus_bench(bus, "cu16", boards=(board,)) as made:
        assert (await made.driver.identify())["occupied"] == "2"
        made.run()
        assert await made.found(4) == [
            ContentChanged(door=1, occupied=False, first=True),
            ContentChanged(door=2, occupied=True, first=True),
            hook(1, "closed", first=True),
            hook(2, "closed", first=True),
        ]
        bus.door(0, 2).take()
        assert await made.next() == ContentChanged(door=2, occupied=False)


async def test_polarity_is_the_boards_and_may_be_one_locks_alone(bus: Cu16Bus) -> None:
    board = {"address": 0, "locks": 3, "polarity": "0_locked", "inverted": (2,)}
    async with bus_bench(bus, "cu16", boards=(board,)) as made:
        made.run()
        assert await made.found(3) == [
            hook(1, "open", first=True),
            hook(2, "closed", first=True),
            hook(3, "open", first=True),
        ]


async def test_the_bits_can_be_read_as_they_are(bus: Cu16Bus) -> None:
    bus.door(0, 1).force()
    async with at_work(bus, "cu16", boards=BOTH) as made:
        levels = await made.driver.bits(0)
        assert levels == {"hook": (False, *(True,) * 15)}
        with pytest.raises(ActionRefused, match="expected one of the boards 0,1, got 7"):
            await made.driver.bits(7)


async def test_the_line_speed_is_found(tmp_path: Path) -> None:
    bus = Cu16Bus(tmp_path / "bus", {0: 16}, baud=9600)
    async with bus_bench(bus, "cu16", answer_ms=100) as made:
        about = await made.driver.identify()
        assert (about["boards"], about["baud"]) == ("0", "9600")


async def test_a_bus_where_nothing_answers_is_told(bus: Cu16Bus) -> None:
    bus.faults.mute = True
    async with bus_bench(bus, "cu16", boards=BOTH, answer_ms=20) as made:
        with pytest.raises(NoReply, match="no answer from the boards 0,1"):
            await made.driver.identify()


async def test_a_board_that_is_not_listed_is_named(bus: Cu16Bus) -> None:
    async with bus_bench(bus, "cu16") as made:
        assert (await made.driver.identify())["unlisted"] == "1"


async def test_two_boards_of_one_address_are_refused(bus: Cu16Bus) -> None:
    bus.boards[1].twin = True
    async with bus_bench(bus, "cu16", boards=BOTH) as made:
        with pytest.raises(ActionRefused, match="two boards answer to address 1"):
            await made.driver.identify()


async def test_twins_that_are_not_listed_are_found_by_the_roll_call(bus: Cu16Bus) -> None:
    bus.boards[1].twin = True
    async with bus_bench(bus, "cu16") as made:
        with pytest.raises(ActionRefused, match="two boards answer to address 1"):
            await made.driver.identify()


async def test_a_silent_board_is_told_and_those_beside_it_go_on(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "SILENT_S", 0.1)
    monkeypatch.setattr(BoardsDriver, "SILENT_EVERY_S", 0.1)
    async with at_work(bus, "cu16", boards=BOTH, answer_ms=50) as made:
        bus.boards[1].dead = True
        await made.until(BoardChanged(board=1, first_door=17, last_door=32, answers=False))
        with pytest.raises(ActionRefused, match="board 1 is silent"):
            await made.open(17)
        assert bus.door(1, 1).pulses == 0
        bus.door(0, 1).force()
        assert await made.next() == hook(1, "open")
        bus.door(1, 1).force()
        bus.boards[1].dead = False
        back = [await made.next() for _ in range(17)]
        assert back[:3] == [
            BoardChanged(board=1, first_door=17, last_door=32, answers=True),
            hook(17, "open", first=True),
            hook(18, "closed", first=True),
        ]


async def test_a_board_that_is_missing_from_the_start_is_told_once(bus: Cu16Bus) -> None:
    bus.boards[1].dead = True
    async with bus_bench(bus, "cu16", boards=BOTH, answer_ms=100) as made:
        assert (await made.driver.identify())["silent"] == "1"
        made.run()
        found = await made.found(17)
        assert found[16] == BoardChanged(board=1, first_door=17, last_door=32, answers=False)


async def test_an_answer_under_another_boards_address_is_not_taken(bus: Cu16Bus) -> None:
    bus.boards[1].answers_as = 2
    async with bus_bench(bus, "cu16", boards=BOTH, answer_ms=100) as made:
        about = await made.driver.identify()
        assert (about["boards"], about["silent"], about["unlisted"]) == ("0", "1", "2")


LINES = {
    "byte by byte": Faults(byte_gap=-1),
    "noise at the turn": Faults(garbage=b"\x00"),
    "half a header": Faults(garbage=b"\x02\x00\x35"),
    "echo": Faults(echo=True),
    "echo byte by byte": Faults(echo=True, byte_gap=-1),
    "slow": Faults(delay=0.01),
}


@pytest.mark.parametrize("line", LINES)
async def test_a_bad_line_changes_nothing(tmp_path: Path, line: str) -> None:
    bus = Cu16Bus(tmp_path / "bus", {0: 2}, LINES[line])
    async with at_work(bus, "cu16", boards=({"address": 0, "locks": 2},)) as made:
        await made.open(2)
        assert await made.next() == hook(2, "open")
        assert bus.door(0, 2).pulses == 1
        assert made.driver.line.echoes is LINES[line].echo


@pytest.mark.parametrize("fault", ["flip_next", "halve_next", "drop_next", "twice_next"])
async def test_one_spoilt_answer_costs_one_question(bus: Cu16Bus, fault: str) -> None:
    async with at_work(bus, "cu16", boards=BOTH, answer_ms=200) as made:
        setattr(bus.faults, fault, 1)
        bus.door(0, 1).force()
        assert await made.next() == hook(1, "open")
        assert made.driver.noise.total() > 0


async def test_unplugging_in_the_middle_of_a_pulse_is_noticed_at_once(bus: Cu16Bus) -> None:
    bus.door(0, 1).jam()
    async with at_work(bus, "cu16", boards=BOTH) as made:
        opening = made.open(1)
        await bus.asked_for(bytes.fromhex("02 00 31"))
        bus.unplug()
        with pytest.raises(PortGone):
            await made.tasks[0]
        assert not opening.done()


async def test_pulses_follow_each_other_with_a_rest_for_the_power_supply(
    bus: Cu16Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "PULSE_MS", 200)
    monkeypatch.setattr(BoardsDriver, "REST_MS", 100)
    loop = asyncio.get_running_loop()
    async with at_work(bus, "cu16", boards=BOTH) as made:
        first = made.open(1)
        second = made.open(17)
        await bus.asked_for(bytes.fromhex("02 00 31"))
        began = loop.time()
        await bus.asked_for(bytes.fromhex("02 10 31"))
        assert loop.time() - began >= 0.25
        await asyncio.gather(first, second)


@pytest.mark.parametrize(
    ("door", "pulse_ms", "why"),
    [
        (0, None, "expected a door from 1 to 32, got 0"),
        (33, None, "expected a door from 1 to 32, got 33"),
        (1, 200, "cu16 boards time their pulses themselves"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_nothing_is_sent(
    bus: Cu16Bus, door: int, pulse_ms: int | None, why: str
) -> None:
    async with at_work(bus, "cu16", boards=BOTH) as made:
        with pytest.raises(ActionRefused, match=why):
            await made.open(door, pulse_ms)
        assert sum(each.pulses for board in bus.boards.values() for each in board.doors) == 0
