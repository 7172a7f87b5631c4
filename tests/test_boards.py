"""What every kind of lock board has in common, each at its own virtual bus."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.base import ActionRefused, NoReply, Unconfirmed
from drivers.boards import BoardsDriver
from drivers.port import PortGone
from drivers.readings import BoardChanged
from simulators.base import Faults
from simulators.bcc import BccBus
from simulators.boards import LockBus
from simulators.cu12 import Cu12Bus
from simulators.cu16 import Cu16Bus
from simulators.cu48 import Cu48Bus
from simulators.winnsen import WinnsenBus
from simulators.wkly import WklyBus
from tests.bus_bench import at_work, bus_bench, hook

LOCKS = 4


@dataclass(frozen=True)
class Kind:
    """One kind of board, and how a virtual bus of two of them is made."""

    name: str
    make: Callable[..., LockBus]
    unlock: Callable[[int, int], bytes]
    """How an unlock begins on the wire."""
    answers_unlock: bool = True


KINDS = [
    Kind("cu16", Cu16Bus, lambda board, lock: bytes([0x02, board << 4 | lock - 1, 0x31]), False),
    Kind("cu48", Cu48Bus, lambda board, lock: bytes([0x02, board, lock - 1, 0x61])),
    Kind("cu12", Cu12Bus, lambda board, lock: bytes([0x02, board, lock - 1, 0x81])),
    Kind("bcc", BccBus, lambda board, lock: bytes([0x8A, board, lock, 0x11])),
    Kind("wkly", WklyBus, lambda board, lock: bytes([*b"WKLY", 9, board, 0x82, lock])),
    Kind("winnsen", WinnsenBus, lambda board, lock: bytes([0x90, 0x06, 0x05, board, lock])),
]

every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
BOARDS = tuple({"address": address, "locks": LOCKS} for address in (1, 2))


def make(kind: Kind, folder: Path, faults: Faults | None = None) -> LockBus:
    return kind.make(folder / "bus", {1: LOCKS, 2: LOCKS}, faults)


def options(**more: Any) -> dict[str, Any]:
    return {"boards": BOARDS, **more}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for long."""
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.3)
    monkeypatch.setattr(BoardsDriver, "SILENT_S", 0.2)
    monkeypatch.setattr(BoardsDriver, "SILENT_EVERY_S", 0.1)


@every
async def test_doors_count_through_the_boards_and_every_change_is_told_once(
    kind: Kind, tmp_path: Path
) -> None:
    bus = make(kind, tmp_path)
    bus.door(2, 3).force()
    async with bus_bench(bus, kind.name, **options()) as made:
        assert await made.driver.identify() == {"boards": "1,2", "doors": "8", "open": "7"}
        made.run()
        assert await made.found(8) == [
            hook(door, "open" if door == 7 else "closed", first=True) for door in range(1, 9)
        ]
        bus.door(1, 4).force()
        assert await made.next() == hook(4, "open")
        bus.door(2, 3).slam()
        assert await made.next() == hook(7, "closed")
        assert made.readings.empty()


@every
async def test_a_door_is_opened_with_one_command(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    async with at_work(bus, kind.name, **options()) as made:
        await made.open(6)
        assert await made.next() == hook(6, "open")
        assert bus.count(kind.unlock(2, 2)) == 1
        pulses = [door.pulses for board in bus.boards.values() for door in board.doors]
        assert pulses == [0, 0, 0, 0, 0, 1, 0, 0]


@every
@pytest.mark.usefixtures("hasty")
async def test_an_answer_that_is_lost_is_made_up_for_by_the_hook_that_drops(
    kind: Kind, tmp_path: Path
) -> None:
    bus = make(kind, tmp_path)
    async with at_work(bus, kind.name, **options(answer_ms=300)) as made:
        bus.boards[2].mute = True
        vars(made.driver)["UNLOCK_WITHIN"] = 0.2
        opening = made.open(6)
        await bus.asked_for(kind.unlock(2, 2))
        bus.boards[2].mute = False
        await opening
        assert bus.count(kind.unlock(2, 2)) == 1
        assert await made.next() == hook(6, "open")


@every
@pytest.mark.usefixtures("hasty")
async def test_without_any_evidence_the_pulse_is_in_doubt_and_never_repeated(
    kind: Kind, tmp_path: Path
) -> None:
    bus = make(kind, tmp_path)
    bus.door(2, 2).jam()
    async with at_work(bus, kind.name, **options(answer_ms=300)) as made:
        vars(made.driver)["UNLOCK_WITHIN"] = 0.2
        bus.boards[2].mute = True
        opening = made.open(6)
        await bus.asked_for(kind.unlock(2, 2))
        bus.boards[2].mute = False
        with pytest.raises(Unconfirmed):
            await opening
        assert bus.count(kind.unlock(2, 2)) == bus.door(2, 2).pulses == 1


@every
@pytest.mark.usefixtures("hasty")
async def test_an_answer_that_names_another_board_is_no_evidence(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    bus.door(2, 2).force()  # so that no hook can drop
    async with at_work(bus, kind.name, **options(answer_ms=200)) as made:
        vars(made.driver)["UNLOCK_WITHIN"] = 0.2
        bus.boards[2].answers_as = 1
        opening = made.open(6)
        await bus.asked_for(kind.unlock(2, 2))
        bus.boards[2].answers_as = None
        with pytest.raises(Unconfirmed):
            await opening
        assert bus.count(kind.unlock(2, 2)) == 1


@every
@pytest.mark.usefixtures("hasty")
async def test_on_a_line_that_echoes_no_echo_passes_for_an_answer(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path, Faults(echo=True))
    async with at_work(bus, kind.name, **options(answer_ms=300)) as made:
        assert made.driver.line.echoes is True
        await made.open(1)
        assert await made.next() == hook(1, "open")
        # Now a board that hears nothing: all that comes back is our own voice.
        vars(made.driver)["UNLOCK_WITHIN"] = 0.2
        bus.boards[2].dead = True
        with pytest.raises((Unconfirmed, ActionRefused)):
            await made.open(5)
        await made.until(BoardChanged(board=2, first_door=5, last_door=8, answers=False))


@every
@pytest.mark.usefixtures("hasty")
async def test_a_board_that_falls_silent_does_not_take_the_bus_with_it(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    async with at_work(bus, kind.name, **options(answer_ms=100)) as made:
        bus.boards[1].dead = True
        await made.until(BoardChanged(board=1, first_door=1, last_door=4, answers=False))
        bus.door(2, 1).force()
        assert await made.next() == hook(5, "open")
        bus.boards[1].dead = False
        assert await made.found(5) == [
            BoardChanged(board=1, first_door=1, last_door=4, answers=True),
            *(hook(door, "closed", first=True) for door in range(1, 5)),
        ]
        bus.faults.mute = True
        with pytest.raises(NoReply, match="no answer from the boards 1,2"):
            await made.tasks[0]


@every
async def test_two_boards_of_one_address_are_refused(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    bus.boards[2].twin = True
    async with bus_bench(bus, kind.name, **options()) as made:
        with pytest.raises(ActionRefused, match="two boards answer to address 2"):
            await made.driver.identify()


LINES: dict[str, Callable[[], Faults]] = {
    "byte by byte": lambda: Faults(byte_gap=-1),
    "noise at the turn": lambda: Faults(garbage=b"\x00"),
    "echo byte by byte, and noise": lambda: Faults(echo=True, byte_gap=-1, garbage=b"\xff\x00"),
    "slow": lambda: Faults(delay=0.02),
}


@every
@pytest.mark.parametrize("line", LINES)
async def test_a_bad_line_changes_nothing(kind: Kind, line: str, tmp_path: Path) -> None:
    bus = make(kind, tmp_path, LINES[line]())
    async with at_work(bus, kind.name, **options()) as made:
        await made.open(2)
        assert await made.next() == hook(2, "open")
        assert bus.door(1, 2).pulses == 1
        assert made.driver.line.echoes is bus.faults.echo


@every
@pytest.mark.parametrize("fault", ["flip_next", "halve_next", "drop_next", "twice_next"])
async def test_one_spoilt_answer_changes_nothing(kind: Kind, fault: str, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    async with at_work(bus, kind.name, **options(answer_ms=200)) as made:
        setattr(bus.faults, fault, 1)
        bus.door(1, 1).force()
        assert await made.next() == hook(1, "open")
        bus.door(1, 1).slam()
        assert await made.next() == hook(1, "closed")


@every
async def test_unplugging_in_the_middle_of_a_pulse_is_noticed_at_once(kind: Kind, tmp_path: Path) -> None:
    bus = make(kind, tmp_path)
    bus.door(1, 1).jam()
    async with at_work(bus, kind.name, **options()) as made:
        bus.boards[1].mute = True
        made.open(1)
        await bus.asked_for(kind.unlock(1, 1))
        bus.unplug()
        with pytest.raises(PortGone):
            await asyncio.gather(*made.tasks)
        assert bus.door(1, 1).pulses == 1
