"""A real agent killed at every step of a config's trial, and started again by somebody who knows of none.

What it has after that is the old config, or the new one where the fleet has confirmed it; the fleet is told
which; and the same trial does not begin again. The short form plays some of the steps;
`POSTERN_LONG=1 pytest tests/test_config_killed.py` plays all.
"""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.killed_agent import COMMITS, EXEC, OPENS, RENAMES, SENDS, UNLINKS, WRITES
from tests.killed_bench import KilledBench, Step
from tests.site import LONG
from tests.traced import require_strace

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3600 if LONG else 120)]

AT_ONCE = 4
OLD, NEW = 1, 2
"""Versions: the file's own text, which is taken without a trial, and one that has to be tried."""


async def dies(folder: Path, step: Step) -> bool:
    """Play a trial to its end. Whether there was such a step, at which the agent has died."""
    folder.mkdir()
    wanted, other = ("confirmed", "reverted") if step.confirmed else ("reverted", "confirmed")
    version = NEW if step.confirmed else OLD
    async with KilledBench(folder, step) as bench:
        assert (await bench.end(await bench.push(bench.old)))["state"] == "confirmed"
        timeout = 3600 if step.confirmed else 240
        end = await bench.end(await bench.push(bench.new, confirm_timeout=timeout))
        assert end["state"] == wanted, end
        assert (await bench.reachable("fleet"))["config"]["version"] == version
        begun, deaths = len(bench.told("config.trial_begun", NEW)), list(bench.deaths)
        assert deaths in ([], [-signal.SIGKILL])
        assert begun in (1, 2), "what was begun and not yet written down is begun again, once"
        assert 1 <= len(bench.told(f"config.{wanted}", NEW)) <= 2
        assert not bench.told(f"config.{other}", NEW)
        if LONG:
            # Once more: what has ended does not begin again.
            bench.kill()
            await bench.died(len(deaths))
            assert (await bench.reachable("fleet"))["config"]["version"] == version
            assert len(bench.told("config.trial_begun", NEW)) == begun
    return bool(deaths)


SOME = [Step(1, EXEC), Step(2, RENAMES, 1), Step(2, RENAMES, 2), Step(2, SENDS, 2)]
"""The new program is about to start; its start is about to be counted; confirmed, and about to be written
down; about to say that it is there."""
LEAST = {
    Step(1, OPENS): 9,
    Step(1, WRITES): 4,
    Step(1, RENAMES): 4,
    Step(1, COMMITS): 4,
    Step(1, SENDS): 6,
    Step(1, EXEC): 1,
    Step(2, OPENS): 9,
    Step(2, WRITES): 3,
    Step(2, RENAMES): 3,
    Step(2, UNLINKS): 1,
    Step(2, COMMITS): 4,
    Step(2, SENDS): 6,
    Step(2, OPENS, confirmed=False): 6,
    Step(2, WRITES, confirmed=False): 2,
    Step(2, RENAMES, confirmed=False): 2,
    Step(2, UNLINKS, confirmed=False): 1,
    Step(2, COMMITS, confirmed=False): 3,
    Step(2, EXEC, confirmed=False): 1,
    Step(3, OPENS, confirmed=False): 3,
    Step(3, RENAMES, confirmed=False): 1,
    Step(3, COMMITS, confirmed=False): 2,
    Step(3, SENDS, confirmed=False): 4,
}
"""Every kind of step in every life, and how many of them there are at least: a sweep that ends early has
proved nothing."""


async def test_it_may_be_killed_at_some_steps(tmp_path: Path) -> None:
    require_strace()
    found = await asyncio.gather(*(dies(tmp_path / str(n), step) for n, step in enumerate(SOME)))
    assert all(found), [step for step, died in zip(SOME, found, strict=True) if not died]


@pytest.mark.skipif(not LONG, reason="half an hour: POSTERN_LONG=1")
@pytest.mark.parametrize("first", LEAST, ids=str)
async def test_it_may_be_killed_at_every_step(tmp_path: Path, first: Step) -> None:
    require_strace()
    steps, n = 0, 0
    while steps == n:
        found = [dies(tmp_path / str(n + i), replace(first, n=n + i)) for i in range(1, 1 + AT_ONCE)]
        steps += sum(await asyncio.gather(*found))
        n += AT_ONCE
    assert steps >= LEAST[first]
