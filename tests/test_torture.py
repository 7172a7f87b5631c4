"""Every fault there is, in any order, on one state: what sounded good arrives, and every journal verifies.

The short form for CI; `POSTERN_LONG=1 pytest tests/test_torture.py` ends a thousand lives, and so does
`python -m tests.torture --cuts 1000 --seed 1`, which tells what it does.
"""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.powercut.trial import without_sync
from tests.site import LONG
from tests.torture.lives import WEIGHTS, End, Lives, Means, drawn
from tests.torture.means import found
from tests.torture.run import told, torture

CUTS = 1000 if LONG else 36


def means(folder: Path) -> Means:
    """All of them where we are root; the rest is left out, and said."""
    able, lacking = found(folder)
    if lacking and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail("; ".join(lacking))
    return able


@pytest.mark.broker
@pytest.mark.root
@pytest.mark.timeout(5400 if LONG else 400)
async def test_what_sounded_good_survives_every_fault_in_any_order(short_path: Path) -> None:
    able = means(short_path)
    lives = [life async for life in torture(short_path, cuts=CUTS, seed=1, means=able)]
    assert len(lives) == CUTS
    assert {life.end for life in lives} == set(able.ends), told(lives)
    for end in able.ends:
        heard = sum(life.promised for life in lives if life.end is end)
        assert heard or end is End.EARLY, f"nothing at risk: {end}"
    if len(able.ends) < len(End):
        pytest.skip(f"passed without {', '.join(end for end in End if end not in able.ends)}")


@pytest.mark.broker
@pytest.mark.root
@pytest.mark.timeout(120)
async def test_an_agent_whose_syncs_do_nothing_does_not_survive_power_cuts(short_path: Path) -> None:
    able = means(short_path)
    if End.POWER not in able.ends or End.SLOW not in able.ends:
        pytest.skip("no power to cut, or no syncs to turn off")
    lives = Lives(short_path, random.Random(2), able)
    async with lives.rig:
        await lives.live(1, End.STOPPED)
        lives.prefix = without_sync()
        with pytest.raises(AssertionError, match="at the fleet"):
            await power_cut_again_and_again(lives)


async def power_cut_again_and_again(lives: Lives) -> None:
    for number in range(2, 8):
        await lives.live(number, End.POWER)
    lives.prefix = ()
    await lives.settle(within=10)


@pytest.mark.parametrize("count", [1, len(End), 200])
def test_every_fault_is_drawn_at_least_once_where_there_is_room(count: int) -> None:
    chosen = drawn(random.Random(1), [*End], count)
    assert len(chosen) == count
    assert len(set(chosen)) == min(count, len(End))
    assert chosen == drawn(random.Random(1), [*End], count)


def test_faults_are_drawn_by_their_weight() -> None:
    chosen = Counter(drawn(random.Random(1), [*End], 5000))
    total = sum(WEIGHTS.values())
    for end, weight in WEIGHTS.items():
        assert abs(chosen[end] / 5000 - weight / total) < 0.03
