"""The power goes at any moment, and nothing that sounded good is lost.

The short form for CI; `POSTERN_LONG=1 pytest tests/test_powercut.py` cuts more often, and
`python -m tests.powercut --cuts 1000` as often as wanted.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.powercut.cut import Cut, Kept, images
from tests.powercut.disk import BLOCK, Flush, Log, Write, missing
from tests.powercut.trial import proves, trial
from tests.site import LONG

SCANS = 2000
"""Enough for SQLite to copy its log back into the file more than once."""
CUTS = 500 if LONG else 60
RESTARTS = 50 if LONG else 6

EACH_KEPT = pytest.mark.parametrize("kept", Kept)


@pytest.fixture
def _power_to_cut(short_path: Path) -> None:
    if why := missing(short_path):
        if os.environ.get("CI") and os.geteuid() == 0 and Path("/dev/fuse").exists():
            pytest.fail(why)
        pytest.skip(why)


@pytest.mark.broker
@pytest.mark.root
@pytest.mark.usefixtures("_power_to_cut")
@pytest.mark.timeout(900 if LONG else 180)
async def test_what_sounded_good_survives_a_power_cut_at_any_moment(short_path: Path) -> None:
    running = trial(short_path, scans=SCANS, cuts=CUTS, restarts=RESTARTS, seed=1)
    verdicts = [verdict async for verdict in running]
    assert not [str(verdict) for verdict in verdicts if not verdict.good]
    assert len(verdicts) == CUTS + RESTARTS
    assert sum(verdict.at_risk > 0 for verdict in verdicts) > CUTS // 4
    assert sum(verdict.promised > 0 for verdict in verdicts) > CUTS // 2


@pytest.mark.broker
@pytest.mark.root
@pytest.mark.usefixtures("_power_to_cut")
@pytest.mark.timeout(180)
async def test_without_syncs_a_power_cut_loses_what_sounded_good(short_path: Path) -> None:
    running = trial(short_path, scans=SCANS // 4, cuts=10, restarts=0, seed=2, control=True)
    assert proves([verdict async for verdict in running])


def image(log: Sequence[Write | Flush], kept: Kept, *, at: int = 100, seed: int = 1) -> bytes:
    (only,) = images(log, [Cut(at=at, kept=kept, seed=seed)], 2 * BLOCK)
    return only.content


@EACH_KEPT
def test_what_was_flushed_is_in_every_image(kept: Kept) -> None:
    log: Log = [Write(1, 0, b"old"), Write(2, 0, b"new"), Flush(3), Write(4, 9, b"later")]
    assert image(log, kept).startswith(b"new")


@EACH_KEPT
def test_what_comes_after_the_cut_is_in_no_image(kept: Kept) -> None:
    log: Log = [Write(1, 0, b"before"), Write(3, 0, b"after!"), Flush(4)]
    assert not image(log, kept, at=2).startswith(b"after!")


def test_of_what_was_not_flushed_anything_may_be_left() -> None:
    log = [Write(1, 0, b"A"), Write(2, 1, b"B"), Write(3, 2, b"C")]
    assert image(log, Kept.NONE)[:3] == bytes(3)
    assert image(log, Kept.ALL)[:3] == b"ABC"
    assert {image(log, Kept.FIRST, seed=seed)[:3] for seed in range(100)} == {
        b"\0\0\0",
        b"A\0\0",
        b"AB\0",
        b"ABC",
    }
    assert len({image(log, Kept.SOME, seed=seed)[:3] for seed in range(100)}) == 8


def test_a_write_is_torn_at_the_blocks_of_the_medium() -> None:
    log = [Write(1, BLOCK - 1, b"x" * BLOCK)]
    left = {image(log, Kept.TORN, seed=seed) for seed in range(100)}
    first, second = b"x".rjust(BLOCK, b"\0"), (b"x" * (BLOCK - 1)).ljust(BLOCK, b"\0")
    nothing = bytes(BLOCK)
    assert left == {nothing + nothing, first + nothing, nothing + second, first + second}
