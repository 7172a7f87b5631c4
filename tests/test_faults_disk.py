"""A slow card: every sync takes a hundred times as long, and neither the scans nor their tones are lost.

`POSTERN_LONG=1 pytest tests/test_faults_disk.py` scans ten times as much.
"""

from pathlib import Path

import pytest

from tests.rig import Rig, labels
from tests.site import LONG
from tests.traced import slow_syncs

pytestmark = [pytest.mark.broker, pytest.mark.root]

SCANS = 300 if LONG else 30


@pytest.mark.timeout(300)
@pytest.mark.parametrize("microseconds", [10_000, 200_000])
async def test_on_a_slow_card_every_scan_still_gets_its_tone_and_arrives(
    microseconds: int, tmp_path: Path
) -> None:
    scanned = labels("slow", SCANS)
    async with Rig(tmp_path) as rig:
        await rig.start(*slow_syncs(microseconds))
        for at in range(0, SCANS, 10):
            await rig.scan_and_hear(*scanned[at : at + 10])
        assert rig.alive
        await rig.delivered()
        assert rig.promised == scanned
        assert not rig.of("agent.fault", "device.action_failed")


@pytest.mark.timeout(120)
async def test_what_sounded_good_on_a_slow_card_survives_kill_9(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        for life in range(3):
            await rig.start(*slow_syncs(50_000))
            await rig.scan_and_hear(*labels(f"life-{life}", 10))
            rig.scan(*labels(f"unanswered-{life}", 5))
            await rig.kill_agent()
        await rig.start()
        await rig.delivered()
        assert len(rig.promised) >= 30
