"""A fleet that lost its broker comes back spread over time, each device in a place of its own."""

import asyncio
import random

import pytest

from agent.mqtt import ConnectionLost
from agent.reconnect import LONGEST_WAIT_S, SPREAD_S, Backoff, forever


class Hurry(random.Random):
    """Waits are drawn as ever, and always the shortest comes."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def fleet(count: int = 2000) -> list[Backoff]:
    return [Backoff(f"van-{number:04}", Hurry()) for number in range(count)]


@pytest.mark.parametrize("failed", [0, 1, 4, 12])
def test_devices_share_a_wait_evenly_without_any_chance(failed: int) -> None:
    waits = sorted(each.after(failed) if failed else each.anew() for each in fleet())
    window = min(LONGEST_WAIT_S, 0.5 * 2 ** (failed - 1)) if failed else SPREAD_S
    tenths = [sum(window * n / 20 <= wait < window * (n + 1) / 20 for wait in waits) for n in range(10)]
    assert all(140 <= tenth <= 260 for tenth in tenths)


def test_a_device_has_the_same_place_every_time_and_chance_besides() -> None:
    here, again = Backoff("van-0042", Hurry()), Backoff("van-0042", Hurry())
    assert [here.after(n) for n in range(1, 9)] == [again.after(n) for n in range(1, 9)]
    drawn = Backoff("van-0042", random.Random(1))
    assert len({drawn.after(5) for _ in range(50)}) == 50
    assert all(here.after(5) <= drawn.after(5) <= here.after(5) + 4 for _ in range(50))


def test_nobody_is_always_the_last() -> None:
    for each in fleet(50):
        shares = [each.after(failed) / LONGEST_WAIT_S for failed in range(10, 30)]
        assert min(shares) < 0.1
        assert max(shares) > 0.4


async def test_it_waits_longer_and_tells_until_something_else_goes_wrong() -> None:
    told: list[int] = []
    tries = iter(range(5))

    async def session() -> None:
        if next(tries) < 3:
            raise ConnectionLost("gone")
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        await forever(session, Backoff("van-0042", Hurry()), lambda failed, _: told.append(failed))
    assert told == [1, 2, 3]


async def test_it_ends_when_it_is_cancelled() -> None:
    begun = asyncio.Event()

    async def session() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(forever(session, Backoff("van-0042"), lambda *_: None))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
