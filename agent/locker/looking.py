"""Asks the lock boards of a unit for their bits, as they are at this moment. Pulses nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agent.locker.inspection import BoardSeen
from agent.units import UnitSpec
from drivers import driver_for
from drivers.base import ActionRefused, Driver, NoReply
from drivers.doors import Board, Fact, Levels
from drivers.port import PortGone, open_port
from drivers.readings import Reading

if TYPE_CHECKING:
    from drivers.boards import BoardsDriver

BOARD_S = 5.0
"""Longest for one board; some have to be asked for each lock."""
UNIT_S = 10.0
"""Longest that a unit is given to say who it is: a bus of many boards takes its time."""


async def look(unit: str, driver: Driver | None, lost: str = "") -> list[BoardSeen]:
    """Every board of a unit; one that is not there is told as one that says nothing."""
    # Only who has such boards has this module loaded.
    from drivers.boards import BoardsDriver

    if not isinstance(driver, BoardsDriver):
        return [BoardSeen(unit=unit, address=None, doors=range(0), problem=lost or "not there")]
    return [await _look(unit, driver, board) for board in driver.boards]


async def _look(unit: str, driver: "BoardsDriver[Any, Any]", board: Board) -> BoardSeen:
    first = driver.wall.number(board, Fact.HOOK, 1)
    doors = range(first, first + board.locks)
    try:
        async with asyncio.timeout(BOARD_S):
            levels = await driver.bits(board.address)
    except (NoReply, ActionRefused, PortGone, TimeoutError) as error:
        problem = str(error) or "no answer"
        return BoardSeen(unit=unit, address=board.address, doors=doors, problem=problem)
    return BoardSeen(unit=unit, address=board.address, doors=doors, told=_told(board, levels, first))


def _told(board: Board, levels: Levels, first: int) -> Mapping[Fact, Mapping[int, bool]]:
    return {
        fact: {first + at - 1: meaning for at, meaning in board.read(fact, levels)}
        for fact in levels
        if fact is not Fact.INPUT
    }


@asynccontextmanager
async def opened(spec: UnitSpec) -> "AsyncIterator[BoardsDriver[Any, Any]]":
    """The boards of a unit that no agent has open. Raises PortGone, NoReply, ActionRefused, TimeoutError."""
    port = await open_port(spec.address, baud=spec.baud)
    with contextlib.closing(port):
        driver: Any = driver_for(spec.kind)(port, _ignore, spec.options)
        async with asyncio.timeout(UNIT_S):
            await driver.identify()
        yield driver


async def _ignore(_: Reading) -> None:
    """Whoever looks takes no readings."""
