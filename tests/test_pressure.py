"""A journal under pressure: what is thinned and declared, what is refused, and how it recovers."""

import asyncio
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from agent.clock import NS, Moment, Trust
from agent.custody import Rules
from agent.journal import Journal
from agent.ledger import TILE, leaf_hash
from agent.retention import DAY_S, MIB, Level
from agent.workflow import Draft, LabelRead, Lane, Order
from drivers.readings import Signal, Tone
from tests.bounded import FILLING, NOWHERE, declared, device, fill, mixed, said
from tests.counter import ANNA, RULES, Counter
from tests.moments import NOON_NS
from tests.rig import BELT, Rig, labels

# -- pressure -------------------------------------------------------------------------------------


async def test_filling_is_said_once_and_again_only_after_it_was_much_less(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.82, Lane.CUSTODY, Lane.STATE)
        await at.tend()
        await at.restart()
        await at.append(Lane.CUSTODY)
        await at.tend()
        assert len(said(await at.lines(), "journal.filling")) == 1
        assert at.upkeep.level.name == "WARN"
        await at.deliver()
        await at.receive()
        at.seconds += 31 * DAY_S
        await at.tend()
        assert at.upkeep.level.name == "NORMAL"
        await fill(at, 0.82, Lane.CUSTODY)
        await at.deliver()
        assert len(said(at.fleet, "journal.filling")) == 2


async def test_thinning_drops_the_oldest_unsent_telemetry_and_declares_it(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await at.append(*[Lane.TELEMETRY] * 100)
        await at.deliver()
        await fill(at, 0.9, Lane.CUSTODY, Lane.TELEMETRY)
        before = at.journal.last
        await at.tend()
        assert at.journal.used < 0.85 * at.size
        there = await at.lines()
        lost = [sequence for sequence in range(1, before + 1) if sequence not in there]
        assert lost
        assert lost == declared(there.values())
        assert lost[0] > 100, "what was sent is not thinned"
        losses = said(there, "journal.declared_loss")
        assert sum(loss["count"] for loss in losses) == len(lost)
        assert {loss["lane"] for loss in losses} == {"telemetry"}


async def test_a_declaration_lets_others_follow_the_tree(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.9, Lane.CUSTODY, Lane.TELEMETRY)
        before = {sequence: leaf_hash(line) for sequence, line in (await at.lines()).items()}
        await at.tend()
        losses = said(await at.lines(), "journal.declared_loss")
        for loss in losses:
            told = b64decode(loss["leaves"])
            these = [n for first, last in loss["ranges"] for n in range(first, last + 1)]
            assert told == b"".join(before[n] for n in these)


async def test_what_was_handed_out_is_not_thinned_though_nobody_has_acknowledged_it(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.91, Lane.TELEMETRY)
        await at.journal.read(0, entries=400, size=MIB)
        await at.tend()
        assert min(declared((await at.lines()).values())) == 401


async def test_what_is_being_declared_lost_is_not_handed_out(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*[Lane.TELEMETRY] * 300)
        doomed = list(range(1, 200))
        declaring = at.journal.declare_lost(0, doomed, [Draft("a.b", "c")], at.now, NOWHERE)
        found = await at.journal.read(0, entries=150, size=MIB)
        await declaring
        assert [stored.sequence for stored in found] == list(range(200, 301)), "read on past the doomed"
        again = await at.journal.read(0, entries=150, size=MIB)
        assert [stored.sequence for stored in again] == list(range(200, 302)), "and the declaration"


async def test_nothing_is_thinned_while_the_uplink_is_being_given_entries(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.91, Lane.TELEMETRY)
        at.journal._reading = 1
        assert await at.upkeep.round()
        assert declared((await at.lines()).values()) == []
        at.journal._reading = 0
        await at.upkeep.round()
        assert declared((await at.lines()).values())[0] == 1


async def test_nobody_knows_how_far_was_handed_out_while_entries_are_being_read(tmp_path: Path) -> None:
    async with device(tmp_path) as at:
        await at.append(*mixed(20))
        await at.restart()
        reading = asyncio.ensure_future(at.journal.read(0, entries=10, size=MIB))
        await asyncio.sleep(0)
        during = at.journal.handed(Lane.TELEMETRY)
        await reading
        assert (during, at.journal.handed(Lane.TELEMETRY)) == (None, 10)


async def test_telemetry_that_the_fleet_has_goes_before_any_that_it_lacks(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await at.append(*[Lane.TELEMETRY] * 4 * TILE)
        await at.deliver()
        await at.receive()
        await fill(at, 0.9, Lane.CUSTODY, Lane.TELEMETRY)
        await at.tend()
        there = await at.lines()
        assert declared(there.values()) == []
        assert min(there) > TILE


async def test_custody_and_state_are_never_thinned(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 1.0, Lane.CUSTODY, Lane.STATE)
        last = at.journal.last
        await at.tend()
        assert at.upkeep.full
        assert set(range(1, last + 1)) <= set(await at.lines())


async def test_positions_are_counted_instead_of_written_while_thinning(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        assert at.upkeep.admits_position()
        await fill(at, 0.91, Lane.CUSTODY)
        assert [at.upkeep.admits_position() for _ in range(5)] == [False] * 5
        await at.append(Lane.CUSTODY)
        await at.kill()
        assert not at.upkeep.admits_position()
        await at.restart()
        (loss,) = said(await at.lines(), "journal.declared_loss")
        assert (loss["count"], loss["unwritten"], loss["ranges"]) == (6, 6, [])
        assert "unwritten" not in at.journal.records


async def test_unwritten_positions_are_declared_every_hour_and_when_there_is_room(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.91, Lane.STATE)
        await at.tend()
        at.upkeep.admits_position()
        await at.tend()
        assert said(await at.lines(), "journal.declared_loss") == []
        at.seconds += 3600
        await at.tend()
        await at.append(Lane.STATE)
        assert [loss["count"] for loss in said(await at.lines(), "journal.declared_loss")] == [1]
        at.upkeep.admits_position()
        await at.deliver()
        await at.receive()
        at.seconds += 8 * DAY_S
        await at.tend()
        assert at.upkeep.admits_position()
        assert [loss["count"] for loss in said(await at.lines(), "journal.declared_loss")] == [1, 1]


# -- full -----------------------------------------------------------------------------------------


def refused(label: str, reason: str = "journal_full") -> tuple[Draft, ...]:
    return (Draft("custody.refused", label, {"reason": reason}),)


async def test_a_full_journal_says_so_and_counts_its_refusals(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        assert at.upkeep.sift(refused("A")) == refused("A")
        await fill(at, 0.96, Lane.CUSTODY)
        await at.tend()
        assert at.upkeep.full
        assert len(said(await at.lines(), "journal.filled")) == 1
        closed = (Draft("custody.session_closed", "drv-anna"),)
        assert at.upkeep.sift(closed + refused("A")) == closed + refused("A"), "the first is told at once"
        assert at.upkeep.sift(closed + refused("B")) == closed
        assert at.upkeep.sift(refused("C", "no_session")) == refused("C", "no_session")
        for _ in range(500):
            assert at.upkeep.sift(refused("D")) == ()
        await at.tend()
        assert said(await at.lines(), "custody.refusals_counted") == []
        for _ in range(2):
            at.seconds += 60
            await at.tend()
        await at.append(Lane.CUSTODY)
        (counted,) = said(await at.lines(), "custody.refusals_counted")
        assert (counted["reason"], counted["count"]) == ("journal_full", 501)


async def test_room_is_found_again_once_the_fleet_has_it_and_time_has_passed(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        await fill(at, 0.96, Lane.CUSTODY)
        for _ in range(3):
            at.upkeep.sift(refused("A"))
        await at.restart()
        assert at.upkeep.full, "still, after a restart"
        await at.deliver()
        await at.receive()
        await at.tend()
        assert at.upkeep.full, "custody stays for its time"
        at.seconds += 31 * DAY_S
        await at.tend()
        assert at.upkeep.level is Level.NORMAL
        await at.append(Lane.CUSTODY)
        await at.deliver()
        assert len(said(at.fleet, "journal.recovered")) == 1
        assert [each["count"] for each in said(at.fleet, "custody.refusals_counted")] == [2]


async def test_freed_pages_are_used_again(tmp_path: Path) -> None:
    async with device(tmp_path, size=2 * MIB) as at:
        sizes = []
        for _ in range(6):
            await fill(at, 0.82, Lane.CUSTODY, Lane.STATE, Lane.TELEMETRY)
            await at.deliver()
            await at.receive()
            at.seconds += 31 * DAY_S
            await at.tend()
            await at.restart()
            sizes.append(at.path.stat().st_size)
        assert max(sizes) < 0.95 * at.size
        assert at.journal.last * 1024 > 4 * max(sizes)


@pytest.mark.parametrize("rules", [RULES, replace(RULES, attended=False)])
def test_a_full_journal_takes_no_parcel_and_says_why(rules: Rules) -> None:
    counter = Counter(rules=rules)
    counter.login(ANNA)
    counter.scan("P1")
    before, parcels = counter.state, dict(counter.parcels)
    for label, repeated_after in [("P2", None), ("P2", 1.0), ("P1", None)]:
        said = counter.do(
            LabelRead(
                unit="gun",
                at=counter.now,
                label=label,
                evidence={},
                repeated_after=repeated_after,
                full=True,
            )
        )
        assert [(entry.type, entry.data["reason"]) for entry in said.entries] == [
            ("custody.refused", "journal_full")
        ]
        assert said.orders == (Order("gun", Signal(tone=Tone.BAD)),)
    assert (counter.state, counter.parcels) == (before, parcels)


def test_sessions_end_and_handovers_close_in_a_full_journal() -> None:
    counter = Counter()
    counter.login(ANNA)
    counter.scan("P1")
    counter.control("handover:recipient")
    counter.scan("P1", again_after=60)
    counter.control("done")
    counter.control("end")
    types = [entry.type for entry in counter.said]
    assert types[-3:] == ["custody.handed_over", "custody.handover_closed", "custody.session_closed"]


@pytest.mark.broker
@pytest.mark.timeout(120)
async def test_a_scanner_hears_the_bad_tone_while_full_and_the_good_one_after(tmp_path: Path) -> None:
    async with Rig(tmp_path, config=BELT + "\n[journal]\nsize_mib = 64\n") as rig:
        path = tmp_path / "state" / "journal.db"
        path.parent.mkdir(mode=0o700)
        await crammed(path, 64 * MIB)
        await rig.start()
        await rig.scan_and_hear(*labels("full", 20))
        assert (len(rig.promised), len(rig.refused)) == (0, 20)
        await rig.until(lambda: rig.of("journal.filled"), "the fleet told")
        await rig.until(lambda: rig.of("custody.refused"), "the first refusal")
        assert len(rig.of("custody.refused")) == 1
        await rig.kill_agent()
        await receipted(path)
        await rig.start()
        await rig.until(lambda: rig.of("journal.recovered"), "room again")
        await rig.scan_and_hear("GOOD-1")
        assert rig.promised == ["GOOD-1"]
        await rig.until(lambda: rig.taken() == ["GOOD-1"], "it at the fleet")


async def crammed(path: Path, size: int) -> None:
    """A journal of this size full of telemetry that the broker has."""
    kept = Journal(path, source="/postern/lab/rig-0001")
    await kept.open()
    at = Moment("b", NS, NOON_NS, Trust.NTP)
    while kept.used < 0.96 * size:
        await kept.append([Draft("some.thing", "s", {"fill": FILLING}, Lane.TELEMETRY)] * 512, at, NOWHERE)
    kept.ride({"cursor": kept.last})
    await kept.close()


async def receipted(path: Path) -> None:
    """Have the fleet confirm all that it was sent."""
    kept = Journal(path, source="/postern/lab/rig-0001")
    await kept.open()
    kept.ride({"receipt": {"size": kept.records["cursor"], "root": ""}})
    await kept.close()
