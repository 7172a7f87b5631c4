"""A small machine with a long backlog: little memory, a quarter of a processor, and nothing is lost.

`POSTERN_LONG=1 pytest tests/test_faults_small.py` queues a million entries instead of a hundred thousand.
"""

import asyncio
import signal
from pathlib import Path
from typing import Self

import pytest

from tests.bench import backlog
from tests.confined import confined
from tests.powercut.disk import MIB
from tests.rig import BELT, DEVICE, Rig, labels
from tests.site import LONG, PATIENCE, Entry

pytestmark = [pytest.mark.broker, pytest.mark.timeout(1200 if LONG else 240)]

FEW, MANY = 1_000, 1_000_000 if LONG else 100_000
MEMORY = 96 * MIB
"""Page cache included. The agent with its libraries takes nearly 60 of them."""
GROWTH = 1.2
"""How much more memory a long backlog may take than a short one, at most."""
DRAINED = 600.0 if LONG else 120.0
ROOMY = f"{BELT}\n[journal]\nsize_mib = 2048\n"


class Queue(Rig):
    """A belt with a backlog. What arrives is ticked off, not kept: it is too much."""

    def __init__(self, folder: Path, queued: int) -> None:
        super().__init__(folder, config=ROOMY)
        self.arrived = bytearray(queued + 1)
        self.newest: dict[str, int] = {}
        """Sequence, by lane: each lane is sent in order."""
        self.disordered = 0

    async def __aenter__(self) -> Self:
        state, queued = self.folder / "state", len(self.arrived) - 1
        state.mkdir(mode=0o700)
        await asyncio.to_thread(backlog.fill, state, queued, source=f"/postern/lab/{DEVICE}")
        return await super().__aenter__()

    def _arrived(self, entry: Entry) -> None:
        sequence, lane = int(entry["sequence"]), entry["lane"]
        self.disordered += sequence <= self.newest.get(lane, 0)
        self.newest[lane] = sequence
        if sequence < len(self.arrived):
            self.arrived[sequence] += 1
            self.look()
        else:
            super()._arrived(entry)

    async def drained(self) -> None:
        """Until the fleet has the whole backlog, each entry once and in order."""
        last = len(self.arrived) - 1
        await self.until(lambda: self.arrived[last], "the end of the backlog", DRAINED)
        assert self.arrived.count(1) == last
        assert not self.disordered

    async def all_taken(self) -> None:
        missing = set(self.promised)
        await self.until(lambda: missing <= set(self.taken()), "everything promised at the fleet", DRAINED)
        assert self.taken() == self.promised

    def peak(self) -> int:
        """Most bytes that the agent has had resident."""
        assert self.agent is not None
        said = Path(f"/proc/{self.agent.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in said.splitlines() if line.startswith("VmHWM:"))


async def test_memory_does_not_grow_with_what_waits(tmp_path: Path) -> None:
    few, many = [await peak_of(tmp_path / str(queued), queued) for queued in (FEW, MANY)]
    assert many <= GROWTH * few, f"{many / 1e6:.1f} MB with {MANY:,} queued, {few / 1e6:.1f} with {FEW:,}"


async def peak_of(folder: Path, queued: int) -> int:
    """Most memory of an agent that starts with so many entries queued, takes a scan, and sends them."""
    folder.mkdir()
    async with Queue(folder, queued) as rig:
        rig.relay.cut()
        await rig.start()
        await rig.scan_and_hear("while it waits")
        rig.relay.restore()
        await rig.drained()
        await rig.all_taken()
        return rig.peak()


@pytest.mark.root
async def test_a_long_backlog_drains_in_little_memory(tmp_path: Path) -> None:
    with confined(memory=MEMORY) as group:
        async with Queue(tmp_path, MANY) as rig:
            rig.relay.cut()
            await rig.start(*group.command())
            await rig.scan_all(labels("meanwhile", 500))
            rig.relay.restore()
            await rig.drained()
            await rig.scan_and_hear("after")
            await rig.all_taken()
            assert rig.alive
            assert len(rig.promised) == 501
            assert group.killed == 0


@pytest.mark.root
async def test_memory_that_does_not_suffice_is_noticed_by_this_test(tmp_path: Path) -> None:
    with confined(memory=24 * MIB) as group:
        async with Rig(tmp_path) as rig:
            await rig.start_agent(*group.command())
            assert rig.agent is not None
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.to_thread(rig.agent.wait) == -signal.SIGKILL
            assert group.killed == 1


@pytest.mark.root
async def test_on_a_quarter_of_a_processor_nothing_that_sounded_good_is_lost(tmp_path: Path) -> None:
    with confined(cores=0.25) as group:
        async with Rig(tmp_path) as rig:
            for life in range(3):
                rig.relay.cut()
                await rig.start(*group.command())
                await rig.scan_all(labels(f"life-{life}", 150), within=60)
                rig.relay.restore()
                await rig.scan_and_hear(*labels(f"online-{life}", 20))
                rig.scan(*labels(f"unanswered-{life}", 10))
                await rig.kill_agent()
            await rig.start(*group.command())
            await rig.delivered(within=60)
            assert len(rig.promised) >= 3 * 170
