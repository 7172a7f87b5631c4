"""A journal within its bounds, on real files: what is pruned, thinned, declared and kept.

Whatever the order of things: every entry is there, or with the fleet and receipted, or declared lost.
"""

import asyncio
import random
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import store, upkeep
from agent.audit.verdict import Verdict
from agent.clock import Trust
from agent.ledger import TILE, leaf_hash
from agent.retention import DAY_S, MIB
from agent.store import Stored
from agent.workflow import Lane
from tests.audits import audit_file
from tests.bounded import SECRET, WHOSE, Device, declared, device, mixed
from tests.journals import Signer


async def lanes_left(at: Device, first: int, last: int) -> list[int]:
    """How many of each lane there are between two sequences of entries that came in turn."""
    there = [sequence for sequence in await at.lines() if first <= sequence <= last]
    return [sum((sequence - 1) % 3 == lane for sequence in there) for lane in Lane]


# -- what may be pruned, and when -----------------------------------------------------------------


async def test_each_lane_is_pruned_after_its_own_time(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(600))
        await at.deliver()
        await at.receive()
        left = []
        for days in (0, 1, 7, 30):
            at.seconds = 1001 + days * DAY_S
            await at.tend()
            left.append(await lanes_left(at, 1, 512))
        assert left == [[171, 171, 170], [171, 171, 0], [171, 0, 0], [0, 0, 0]]
        assert await lanes_left(at, 513, 600) == [29, 29, 30], "the tile that is not complete"


async def test_the_brokers_acknowledgement_prunes_nothing(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(600))
        await at.deliver()
        at.seconds += 365 * DAY_S
        await at.tend()
        assert len(await at.lines()) == 600


async def test_nothing_beyond_the_receipt_is_pruned(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(500))
        await at.deliver()
        await at.receive()
        await at.append(*mixed(500))
        await at.deliver()
        at.seconds += 365 * DAY_S
        await at.tend()
        assert sorted(await at.lines()) == list(range(257, 1001)), "tile two is only partly receipted"


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.RTC])
async def test_an_untrusted_clock_prunes_nothing(tmp_path: Path, trust: Trust) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(600))
        await at.deliver()
        await at.receive()
        at.seconds += 365 * DAY_S
        at.trust = trust
        await at.tend()
        assert len(await at.lines()) == 600


async def test_entries_of_a_boot_without_time_are_as_old_as_the_next_that_had_it(tmp_path: Path) -> None:
    async with device(tmp_path, trust=Trust.NONE) as at:
        await at.append(*mixed(20 * TILE))
        await at.restart()
        at.trust = Trust.NTP
        await at.append(*mixed(2 * TILE))
        await at.deliver()
        await at.receive()
        await at.restart()
        at.seconds += 2 * DAY_S
        for _ in range(3):
            await at.tend()
        assert await lanes_left(at, 1, 20 * TILE) == [1707, 1707, 0]


async def test_pruning_goes_on_where_the_last_run_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "STEPS", 1)
    async with device(tmp_path) as at:
        await at.append(*mixed(1000))
        await at.deliver()
        await at.receive()
        at.seconds += 2 * DAY_S
        for _ in range(3):
            await at.upkeep.round()
            await at.restart()
        assert at.journal.records["pruned"] == {"custody": 0, "state": 0, "telemetry": 3}
        assert await lanes_left(at, 1, 768) == [256, 256, 0]


async def test_a_record_of_another_files_pruning_is_not_believed(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        at.journal.ride({"pruned": {"custody": 9, "state": 9, "telemetry": 9}})
        await at.restart()
        assert at.journal.records["pruned"] == {"custody": 0, "state": 0, "telemetry": 0}


async def test_a_tile_that_has_lost_a_line_is_left_as_it_is(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(600))
        await at.deliver()
        await at.receive()
        await at.journal._writer.submit(lambda c: c.execute("DELETE FROM entry WHERE sequence = 7"))
        at.seconds += 365 * DAY_S
        await at.tend()
        assert sorted(await at.lines()) == [*range(1, 7), *range(8, 257), *range(513, 601)]


# -- what is left can be read and proved ----------------------------------------------------------


async def test_reading_skips_what_is_pruned(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(1000))
        await at.deliver()
        await at.receive()
        at.seconds += 8 * DAY_S
        await at.tend()
        await at.restart()
        found: list[Stored] = []
        while more := await at.journal.read(found[-1].sequence if found else 0, entries=50, size=MIB):
            found += more
        assert {stored.sequence: stored.line for stored in found} == await at.lines()
        assert [stored.sequence for stored in found if stored.sequence <= 768] == list(range(1, 769, 3))


async def test_what_is_left_is_proved_by_an_audit(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        for _ in range(5):
            await at.append(*mixed(300))
        await at.deliver()
        await at.receive()
        epoch, pruned = at.journal.epoch, {}
        for days in (2, 8, 31):
            at.seconds = 1001 + days * DAY_S
            await at.tend()
            await at.restart()
            assert at.journal.epoch == epoch
            before = at.journal.last
            await at.append(Lane.CUSTODY)
            assert at.journal.last == before + 1
            await at.journal.close()
            signer = Signer(f"{WHOSE}/{epoch}", Ed25519PrivateKey.from_private_bytes(SECRET))
            report = audit_file(at.path, signer.vkey)
            assert report.verdict is Verdict.PASS, report.as_text()
            pruned[days] = report.pruned
            await at.open()
        assert pruned == {2: 426, 8: 853, 31: 1280}


async def test_leaves_are_the_same_before_and_after(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(600))
        before = [leaf_hash(line) for _, line in sorted((await at.lines()).items())]
        await at.deliver()
        await at.receive()
        at.seconds += 8 * DAY_S
        await at.tend()

        def leaves(start: int, end: int) -> asyncio.Future[list[bytes]]:
            return at.journal._writer.submit(lambda c: store.leaves(c, start, end), reads=True)

        for start, end in [(0, 600), (0, 256), (100, 300), (255, 257), (511, 513), (590, 600)]:
            assert await leaves(start, end) == before[start:end]


async def test_a_tile_without_lines_keeps_only_its_last_checkpoint(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        for _ in range(10):
            await at.append(*mixed(64))
        await at.deliver()
        await at.receive()
        at.seconds += 31 * DAY_S
        await at.tend()
        kept = [size for size in range(1, 641) if await at.journal.checkpoint_at(size)]
        assert kept == [256, 512, 576, 640]


# -- whatever happens -----------------------------------------------------------------------------


async def act(at: Device, rng: random.Random) -> None:
    match rng.choice(["append"] * 5 + ["deliver", "receive", "time", "tend", "kill", "restart", "position"]):
        case "append":
            weights = rng.choice([(1, 1, 1), (1, 1, 8), (8, 1, 1), (0, 0, 1)])
            await at.append(*rng.choices(list(Lane), weights, k=rng.randint(1, 300)))
        case "deliver":
            await at.deliver(rng.randint(1, 1500))
        case "receive":
            await at.receive()
        case "time":
            at.seconds += rng.uniform(0, 12 * DAY_S)
        case "tend":
            for _ in range(rng.randint(1, 4)):
                await at.upkeep.round()
        case "kill":
            await at.kill()
        case "restart":
            await at.restart()
        case "position":
            at.upkeep.admits_position()


async def check(at: Device) -> None:
    there = await at.lines()
    lost = declared({**at.fleet, **there}.values())
    gone = set(range(1, at.journal.last + 1)) - there.keys()
    assert len(lost) == len(set(lost)), "declared twice"
    assert gone >= set(lost), "declared, and yet there"
    assert all(sequence <= at.receipt and sequence in at.fleet for sequence in gone - set(lost))
    for sequence in at.fleet.keys() & there.keys():
        assert at.fleet[sequence] == there[sequence]


@pytest.mark.parametrize("seed", range(8))
async def test_produced_is_delivered_and_declared(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with device(tmp_path, size=rng.choice([1, 2, 4]) * MIB) as at:
        for _ in range(60):
            await act(at, rng)
            await check(at)
        await at.deliver()
        await check(at)
        produced = set(range(1, at.journal.last + 1))
        assert at.fleet.keys() | set(declared(at.fleet.values())) == produced
        epoch = at.journal.epoch
        await at.journal.close()
        signer = Signer(f"{WHOSE}/{epoch}", Ed25519PrivateKey.from_private_bytes(SECRET))
        report = audit_file(at.path, signer.vkey)
        assert report.verdict is not Verdict.FAIL, report.as_text()
        await at.open()


# -- a million ------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_a_large_journal_is_opened_and_tended_without_holding_it(tmp_path: Path) -> None:
    """Forty thousand entries here; memory is what a million would take as well."""
    async with device(tmp_path) as at:
        for _ in range(80):
            await at.append(*mixed(500))
        await at.journal.close()
        at.boot += 1
        tracemalloc.start()
        try:
            await at.open()
            at.journal.ride({"receipt": {"size": 40_000, "root": ""}, "cursor": 40_000})
            at.seconds += 31 * DAY_S
            for _ in range(5):
                await at.upkeep.round()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2 * MIB
