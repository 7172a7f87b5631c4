"""Custody leaves before state, state before telemetry, where much has piled up; nothing else changes."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.backlog import Backlog
from agent.batch import Load
from agent.cursors import Cursors
from agent.feed import Feed
from agent.fleet.collect import unpack
from agent.journal import STRIDE, Journal
from agent.workflow import Draft, Lane
from simulators.relay import Relay
from tests.brokers import BROKERS, broker_of, running
from tests.test_uplink import AT, Fleet, Van, fleet_at, van

ENTRIES = 5000
"""More than a batch, and more than memory holds."""


def mixed(count: int, seed: int = 1) -> list[Lane]:
    return random.Random(seed).choices(list(Lane), weights=(2, 1, 5), k=count)


async def append(journal: Journal, lanes: list[Lane], size: int = 40) -> None:
    rng = random.Random(journal.last)
    drafts = [Draft("a.thing", "s", {"fill": rng.randbytes(size // 2).hex()}, lane) for lane in lanes]
    await journal.append(drafts, AT, {"position": None})


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Journal]:
    journal = Journal(folder / "journal.db", source="/postern/test/van-0042")
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


async def all_of(feed: Feed, entries: int = 1024, size: int = 384 * 1024) -> list[Load]:
    loads = []
    while (load := await feed.next(entries=entries, size=size, room=100_000)) is not None:
        loads.append(load)
    return loads


def sequences(load: Load) -> list[int]:
    lines = unpack(load.payload, dict(load.properties).get("content-encoding"))
    return [int(line.split(b'"sequence":"')[1].split(b'"')[0]) for line in lines]


def by_lane(lanes: list[Lane]) -> list[int]:
    """Sequences as they should leave."""
    return sorted(range(1, len(lanes) + 1), key=lambda sequence: (lanes[sequence - 1], sequence))


# -- what leaves next -----------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["in memory", "from the file"])
def restarted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def given_out(folder: Path, lanes: list[Lane], restarted: bool) -> list[Load]:
    async with opened(folder) as journal:
        await append(journal, lanes)
        loads = [] if restarted else await all_of(Feed(journal, Cursors()))
    if restarted:
        async with opened(folder) as journal:
            loads = await all_of(Feed(journal, Cursors()))
    return loads


async def test_a_backlog_leaves_lane_by_lane_and_each_in_order(tmp_path: Path, restarted: bool) -> None:
    lanes = mixed(ENTRIES)
    loads = await given_out(tmp_path, lanes, restarted)
    assert [sequence for load in loads for sequence in sequences(load)] == by_lane(lanes)
    assert sum((Counter(dict(enumerate(load.counts))) for load in loads), Counter()) == Counter(lanes)
    named = [dict(load.properties).get("lane", "") for load in loads]
    assert named[0] == "custody"
    assert {"state", "telemetry"} < {*named}


async def test_what_fits_into_one_batch_goes_as_it_was_made(tmp_path: Path, restarted: bool) -> None:
    (load,) = await given_out(tmp_path, mixed(500), restarted)
    assert sequences(load) == list(range(1, 501))
    assert "lane" not in dict(load.properties)


async def test_the_end_of_a_backlog_does_not_bring_again_what_went_ahead(tmp_path: Path) -> None:
    lanes = mixed(ENTRIES)
    async with opened(tmp_path) as journal:
        await append(journal, lanes)
        feed = Feed(journal, Cursors())
        seen = [each for load in await all_of(feed) for each in sequences(load)]
        await append(journal, mixed(100, seed=2))
        (live,) = await all_of(feed)
    assert sequences(live) == list(range(ENTRIES + 1, ENTRIES + 101))
    assert len(seen) == len(set(seen)) == ENTRIES


async def test_a_scan_made_during_a_telemetry_backlog_is_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await append(journal, [Lane.TELEMETRY] * ENTRIES)
        feed = Feed(journal, Cursors())
        first = await feed.next(entries=1000, size=384 * 1024, room=100_000)
        await append(journal, [Lane.CUSTODY])
        assert feed.urgent is Lane.CUSTODY
        second = await feed.next(entries=1000, size=384 * 1024, room=100_000)
        third = await feed.next(entries=1000, size=384 * 1024, room=100_000)
        assert first is not None
        assert second is not None
        assert third is not None
        assert [load.urgency for load in (first, second, third)] == [
            Lane.TELEMETRY,
            Lane.CUSTODY,
            Lane.TELEMETRY,
        ]
        assert sequences(second) == [ENTRIES + 1]
        assert sequences(third)[0] == first.last + 1


@pytest.mark.parametrize("limit", [1, 7])
async def test_however_little_is_asked_for_nothing_is_left_out(tmp_path: Path, limit: int) -> None:
    lanes = mixed(60)
    async with opened(tmp_path) as journal:
        await append(journal, lanes)
        loads = await all_of(Feed(journal, Cursors()), entries=limit)
    assert sorted(sequence for load in loads for sequence in sequences(load)) == list(range(1, 61))


async def test_a_lane_is_found_however_far_away_its_next_entry_is(tmp_path: Path) -> None:
    lanes = [Lane.TELEMETRY] * (STRIDE + 100) + [Lane.CUSTODY]
    async with opened(tmp_path) as journal:
        await append(journal, lanes, size=2)
    async with opened(tmp_path) as journal:
        load = await Feed(journal, Cursors()).next(entries=1024, size=384 * 1024, room=100_000)
        assert load is not None
        assert sequences(load) == [len(lanes)]


async def test_what_was_handed_out_is_known_for_each_lane(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await append(journal, [Lane.CUSTODY, Lane.TELEMETRY] * (ENTRIES // 2))
        load = await Feed(journal, Cursors()).next(entries=1000, size=384 * 1024, room=100_000)
        assert load is not None
        assert journal.handed(Lane.CUSTODY) == load.last
        assert journal.handed(Lane.TELEMETRY) == 0


# -- how far they are -----------------------------------------------------------------------------


def test_a_journal_that_was_sent_in_one_lane_is_taken_up_where_it_was() -> None:
    assert Cursors.load({"cursor": 7}).places == (7, 7, 7)
    assert Cursors.load({}).places == (0, 0, 0)


def test_lanes_that_are_ahead_are_remembered_and_only_while_they_are() -> None:
    ahead = Cursors((90, 40, 10))
    records = ahead.records({})
    assert records == {"cursor": 10, "ahead": {"custody": 90, "state": 40}}
    assert Cursors.load(records) == ahead
    assert Cursors((90, 90, 90)).records(records) == {"cursor": 90, "ahead": None}
    assert Cursors((90, 90, 90)).records({}) == {"cursor": 90}


@pytest.mark.parametrize("ahead", [None, 5, [1], {"custody": "9"}, {"custody": -3}, {"custody": 4}])
def test_what_cannot_be_a_place_moves_no_lane(ahead: object) -> None:
    assert Cursors.load({"cursor": 5, "ahead": ahead}).places == (5, 5, 5)


def test_a_lane_of_which_nothing_waits_holds_nobody_back() -> None:
    newest = {Lane.CUSTODY: 90, Lane.STATE: 3, Lane.TELEMETRY: 99}
    assert Cursors((90, 3, 50)).settled(newest, 100).places == (100, 100, 50)


async def test_the_backlog_is_counted_by_lane_across_restarts(tmp_path: Path) -> None:
    lanes = mixed(3 * STRIDE)
    async with opened(tmp_path) as journal:
        await append(journal, lanes[: 2 * STRIDE], size=2)
        journal.ride({"cursor": 100, "ahead": {"custody": STRIDE + 50}})
        await journal.save()
    async with opened(tmp_path) as journal:
        cursors = Cursors.load(journal.records)
        backlog = Backlog(journal, cursors)
        assert backlog.by_lane() is None
        await append(journal, lanes[2 * STRIDE :], size=2)
        await backlog.count()
        waiting = Counter(lane for sequence, lane in enumerate(lanes, 1) if sequence > cursors.of(lane))
        assert backlog.by_lane() == {lane.name.lower(): waiting[lane] for lane in Lane}
        backlog.gone((5, 0, 0))
        assert backlog.by_lane() == {
            "custody": waiting[Lane.CUSTODY] - 5,
            "state": waiting[Lane.STATE],
            "telemetry": waiting[Lane.TELEMETRY],
        }


# -- through a broker -----------------------------------------------------------------------------


async def whole(fleet: Fleet, count: int) -> None:
    await fleet.news.until(lambda: len(set(fleet.sequences)) == count)


@pytest.mark.parametrize("name", BROKERS)
async def test_the_fleet_gets_custody_first_and_everything_once(name: str, tmp_path: Path) -> None:
    lanes = mixed(ENTRIES)
    async with broker_of(name, tmp_path) as broker, fleet_at(broker.port) as fleet:
        async with van(tmp_path, broker.port) as here:
            await append(here.journal, lanes)
            async with running(here.uplink.run()):
                await here.sent(ENTRIES)
                await whole(fleet, ENTRIES)
                assert here.uplink.lanes == {"custody": 0, "state": 0, "telemetry": 0}
                assert here.journal.records["cursor"] == ENTRIES
                assert "ahead" not in here.journal.records
        assert fleet.sequences == by_lane(lanes)


async def cut_short(here: Van, relay: Relay, bytes_carried: int) -> None:
    """Send until so much has gone, and something was acknowledged; then the way is cut."""
    async with running(here.uplink.run()):
        await here.news.until(lambda: max(here.uplink.cursors.places))
        relay.cut_after = bytes_carried
        await here.news.until(lambda: here.types("uplink.lost"))
    relay.restore()


@pytest.mark.parametrize("carried", [30_000, 70_000, 120_000, 170_000])
async def test_a_backlog_cut_short_goes_on_where_each_lane_was(tmp_path: Path, carried: int) -> None:
    lanes = mixed(ENTRIES)
    async with broker_of("ours", tmp_path) as broker, fleet_at(broker.port) as fleet:
        async with Relay(broker.host, broker.port) as relay:
            async with van(tmp_path, relay.port) as here:
                await append(here.journal, lanes, size=100)
                await cut_short(here, relay, carried)
                before = here.uplink.cursors.places
                assert max(before) > min(before)
            async with van(tmp_path, relay.port) as here:
                assert all(now >= then for now, then in zip(here.uplink.cursors.places, before, strict=True))
                async with running(here.uplink.run()):
                    await here.sent(ENTRIES)
                    await whole(fleet, ENTRIES)
        firsts = fleet.first_deliveries
        for lane in Lane:
            own = [sequence for sequence in firsts if lanes[sequence - 1] is lane]
            assert own == sorted(own)
        assert len(fleet.ids) == ENTRIES


async def test_an_entry_of_any_lane_that_is_never_taken_holds_up_no_lane(tmp_path: Path) -> None:
    lanes = mixed(ENTRIES)
    async with (
        broker_of("ours", tmp_path, maximum_packet_size=2048) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
    ):
        await append(here.journal, lanes[:2000])
        for lane in Lane:
            await append(here.journal, [lane], size=6000)
        await append(here.journal, lanes[2000:])
        async with running(here.uplink.run()):
            await here.sent(ENTRIES + 3)
            await whole(fleet, ENTRIES)
        assert sorted(here.passed_over()) == ["2001", "2002", "2003"]
        assert here.uplink.lanes == {"custody": 0, "state": 0, "telemetry": 0}


async def test_a_live_scan_passes_a_telemetry_backlog_on_a_thin_way(tmp_path: Path) -> None:
    """256 kbit/s: the backlog alone would take it half a minute, and a full window of batches six seconds."""
    async with broker_of("ours", tmp_path) as broker, Relay(broker.host, broker.port) as relay:
        relay.rate, relay.rtt = 32_000.0, 0.1
        async with fleet_at(broker.port) as fleet, van(tmp_path, relay.port) as here:
            await append(here.journal, [Lane.TELEMETRY] * ENTRIES, size=400)
            async with running(here.uplink.run()):
                # Long enough for the pace to be learned.
                await fleet.news.until(lambda: len(fleet.sequences) > 500)
                for scan in range(ENTRIES + 1, ENTRIES + 4):
                    there = len(fleet.lines)
                    await append(here.journal, [Lane.CUSTODY])
                    await fleet.news.until(lambda scan=scan: scan in fleet.sequences)  # type: ignore[misc]
                    between = sum(map(len, fleet.lines[there:])) / 2  # of hex digits half are left
                    assert between < 2 * 32_000, "more than two seconds of the way went before it"
