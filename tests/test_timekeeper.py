"""The floor of time on its way to the disk: with what is written anyway, and each hour though nothing is."""

import asyncio
from pathlib import Path

from agent.clock import NS
from agent.journal import Journal
from agent.timekeeper import FLOOR, Timekeeper
from tests.moments import NOON_NS
from tests.test_clock import Board

HOUR = 3600


class Saved(Journal):
    """Knows what it was asked to write for its own sake."""

    saves = 0

    def save(self) -> asyncio.Future[None]:
        self.saves += 1
        return super().save()


async def test_the_floor_rides_every_ten_minutes_and_is_written_every_hour(tmp_path: Path) -> None:
    journal = Saved(tmp_path / "journal.db", source="/postern/acme/van-0042")
    await journal.open()
    board = Board(wall_ns=0)
    keeper = Timekeeper(
        board.clock(floor_ns=NOON_NS), journal, "van-0042", report=lambda _: None, heed=lambda: None
    )
    keeper.restore()
    floors = []
    for _ in range(25):
        keeper.look()
        floors.append(journal.records[FLOOR])
        board.pass_time(HOUR / 6 + 1)
    await journal.close()
    assert floors[0] == NOON_NS
    assert floors == sorted(set(floors)), "it rises each time"
    assert 4 * HOUR < (floors[-1] - NOON_NS) / NS < 24 * (HOUR / 6 + 1)
    assert journal.saves == 4


async def test_a_later_run_takes_it_up(tmp_path: Path) -> None:
    for run in range(3):
        journal = Saved(tmp_path / "journal.db", source="/postern/acme/van-0042")
        await journal.open()
        board = Board(wall_ns=0)
        clock = board.clock(floor_ns=NOON_NS)
        keeper = Timekeeper(clock, journal, "van-0042", report=lambda _: None, heed=lambda: None)
        keeper.restore()
        assert run * HOUR - 60 < (clock.now().utc_ns - NOON_NS) / NS <= run * HOUR
        board.pass_time(HOUR)
        keeper.ride()
        await journal.close()
