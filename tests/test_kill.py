"""The agent dies at any moment, and nothing that sounded good is lost.

`kill -9` while scans run, with the broker there, away, or coming and going. In CI this is a short form;
`POSTERN_LONG=1 pytest tests/test_kill.py` kills more often and scans ten times as much.
"""

import asyncio
import contextlib
import itertools
import random
from pathlib import Path

import pytest

from tests.rig import WAYS, Rig, labels, scanning, way
from tests.site import LONG

pytestmark = pytest.mark.broker

KILLS = 100 if LONG else 67
"""For each of the three ways; 200 in all in the short form, 300 in the long one."""
BACKLOG = 50_000 if LONG else 5_000


@pytest.mark.timeout(900 if LONG else 300)
@pytest.mark.parametrize("how", WAYS)
async def test_what_sounded_good_survives_kill_9_at_any_moment(how: str, tmp_path: Path) -> None:
    chance = random.Random(f"kill {how}")
    async with Rig(tmp_path) as rig:
        for life in range(KILLS):
            async with way(rig, how, chance):
                await rig.start()
                await rig.scan_and_hear(f"first-{life:03}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0.02, 0.4)):
                        await scanning(rig, (f"{life:03}-{number:05}" for number in itertools.count()))
                await rig.kill_agent()
        rig.relay.restore()
        await rig.start()
        await rig.delivered(within=60)
        await rig.until(lambda: len(rig.of("agent.started")) == KILLS + 1, "every start at the fleet")
        assert not rig.refused


@pytest.mark.timeout(300)
async def test_what_sounded_good_survives_kill_9_amid_bursts(tmp_path: Path) -> None:
    chance = random.Random("bursts")
    async with Rig(tmp_path) as rig:
        for life in range(10):
            await rig.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0.02, 0.3)):
                    await rig.scan_all(f"burst-{life}-{number:05}" for number in itertools.count())
            await rig.kill_agent()
        await rig.start()
        await rig.delivered()


@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("killed", [False, True])
async def test_a_run_with_the_broker_stopped_arrives_whole_and_in_order(killed: bool, tmp_path: Path) -> None:
    scanned = labels("offline", BACKLOG)
    async with Rig(tmp_path) as rig:
        await rig.start()
        await rig.scan_and_hear("before")
        await rig.delivered()
        rig.broker.stop()
        await rig.scan_all(scanned)
        if killed:
            await rig.kill_agent()
            await rig.start()
        await rig.restart_broker()
        rig.relay.restore()
        await rig.delivered(within=120)
        assert rig.taken() == ["before", *scanned]


@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("round_trip", [0.0, 0.05])
async def test_a_backlog_drains_in_order_over_a_long_way(round_trip: float, tmp_path: Path) -> None:
    scanned = labels("backlog", BACKLOG)
    async with Rig(tmp_path) as rig:
        rig.relay.rtt = round_trip
        rig.relay.cut()
        await rig.start()
        await rig.scan_all(scanned)
        rig.relay.restore()
        await rig.delivered(within=120)
        assert rig.taken() == scanned


async def test_a_polite_stop_loses_nothing_that_was_read(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        for life in range(3):
            await rig.start()
            await rig.scan_all(labels(f"life-{life}", 50))
            await rig.stop_agent()
        await rig.start()
        await rig.delivered()
        await rig.until(lambda: len(rig.of("agent.stopped")) == 3, "every end at the fleet")
        assert len(rig.taken()) == 150


async def test_a_second_agent_on_the_same_journal_is_turned_away(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await rig.scan_and_hear("one")
        second = await asyncio.create_subprocess_exec(*rig.command(), stderr=asyncio.subprocess.PIPE)
        _, said = await second.communicate()
        assert second.returncode == 75
        assert b"another agent holds the journal" in said
        await rig.scan_and_hear("two")
        await rig.delivered()
        assert rig.taken() == ["one", "two"]
