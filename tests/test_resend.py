"""What a broker acknowledged and never delivered comes to the fleet all the same, and nobody has to help."""

import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.commands import RESEND_MOST
from agent.cursors import Cursors
from agent.fleet.answers import Answers
from agent.fleet.audit import Work
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.fleet.findings import Finding, Kind
from agent.fleet.gaps import AT_ONCE, FIRST_S, LONGEST_S, Gap, Patience
from agent.fleet.store import Store
from agent.journal import Journal
from agent.mqtt import Connection, Message
from agent.resend import SPANS, Resend
from agent.workflow import Draft, Lane
from simulators.broker import Broker
from simulators.relay import Relay
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, running, server
from tests.fleets import DEVICE
from tests.schemas import unlike
from tests.test_collect import line
from tests.test_fleet_down import acme
from tests.test_receipts import AT, FLEET, SECRET, TOPIC, van_at
from tests.test_uplink import Fleet, Van, fleet_at, holds, van

SCANS = 60


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


# -- a broker that dies with what it has acknowledged -----------------------------------------------


@contextlib.asynccontextmanager
async def a_fleet_that_does_not_keep_up(port: int) -> AsyncIterator[None]:
    """It acknowledges nothing: the broker holds what it does not get rid of, and acknowledges that."""
    async with connected(port, f"fleet-of-{DEVICE}", session_expiry=300) as connection:
        await connection.subscribe(f"{TOPIC}/up/#")
        yield


async def scanned(here: Van, count: int) -> None:
    """One by one, each acknowledged before the next."""
    for _ in range(count):
        await here.scan(1)
        await here.sent(here.journal.last)


async def test_what_a_broker_took_with_it_is_sent_again_over_the_next_connection(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with (
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port) as here,
        running(here.uplink.run()),
    ):
        async with a_fleet_that_does_not_keep_up(broker.port):
            await scanned(here, SCANS)
            relay.cut()
            await broker.stop(kill=True)
        await here.scan(5)
        await broker.start()
        async with fleet_at(broker.port) as fleet:
            relay.restore()
            await here.sent(SCANS + 5)
            await fleet.has(SCANS + 5)
            assert here.uplink.lanes == {"custody": 0, "state": 0, "telemetry": 0}


async def test_what_a_broker_took_with_it_is_sent_again_by_the_next_process(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with a_fleet_that_does_not_keep_up(broker.port):
        async with van(tmp_path, broker.port) as here, running(here.uplink.run()):
            await scanned(here, SCANS)
        await broker.stop(kill=True)
    await broker.start()
    async with fleet_at(broker.port) as fleet, van(tmp_path, broker.port) as again:
        assert again.uplink.backlog == 0
        async with running(again.uplink.run()):
            await fleet.has(SCANS)


async def test_what_was_passed_over_is_not_tried_again_by_the_next_process(tmp_path: Path) -> None:
    async with Broker() as ours, fleet_at(ours.port):
        ours.puback_reason, ours.puback_reason_for = 0x99, holds(10)
        for turn in (1, 2):
            async with van(tmp_path, ours.port) as here, running(here.uplink.run()):
                await here.scan(10)
                await here.sent(10 * turn)
                assert here.passed_over() == ["10"][turn - 1 :]


LEFT = [(number, line(number, "e0")) for number in range(1, SCANS + 1)]
"""Entries of another journal, whose file was damaged."""


async def left(here: Van) -> int:
    return len(await here.journal.salvaged(0, entries=2 * SCANS, size=1_000_000))


async def test_what_a_damaged_file_held_is_sent_again_as_well(broker: AnyBroker, tmp_path: Path) -> None:
    async with Relay(broker.host, broker.port) as relay, van(tmp_path, relay.port) as here:
        await here.journal.keep_salvaged(LEFT)
        async with running(here.uplink.run()):
            async with a_fleet_that_does_not_keep_up(broker.port):
                while here.uplink._leftovers._taken < SCANS:
                    await scanned(here, 1)
                relay.cut()
                await broker.stop(kill=True)
            assert await left(here) == SCANS
            await broker.start()
            async with fleet_at(broker.port) as fleet:
                relay.restore()
                await fleet.news.until(lambda: {raw for _, raw in LEFT} <= {*fleet.lines})


async def test_what_a_damaged_file_held_is_dropped_when_the_broker_has_lived_on(
    broker: AnyBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.leftovers.DOUBT_S", 0.0)
    async with fleet_at(broker.port) as fleet, van(tmp_path, broker.port) as here:
        await here.journal.keep_salvaged(LEFT)
        async with running(here.uplink.run()):
            await fleet.news.until(lambda: {raw for _, raw in LEFT} <= {*fleet.lines})
            while await left(here):
                await scanned(here, 1)


# -- a receipt that is given again -------------------------------------------------------------------


class Books:
    """A collector that keeps books and no session: what comes while it is away never comes to it."""

    def __init__(self, port: int, clerk: Clerk, answers: Answers | None = None) -> None:
        self.findings: list[Finding] = []
        self.news = News()
        self.deaf = False
        """Entries that the broker delivers are lost on the way."""
        self.collector = Collector(
            server(port, "books"),
            self.news.look,
            clerk=clerk,
            on_finding=self._finding,
            ask=answers.missing if answers else lambda _gap, _birth: None,
        )
        self._take = self.collector._take
        self.collector._take = self._hear  # type: ignore[method-assign]

    def _hear(self, message: Message) -> list[Work]:
        return [] if self.deaf and message.topic.endswith("/entries") else self._take(message)

    @property
    def kinds(self) -> set[Kind]:
        return {each.kind for each in self.findings}

    def _finding(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.news.look()


@contextlib.asynccontextmanager
async def books_at(
    port: int, folder: Path, *, grace: float = 300.0, answers: Answers | None = None, signs: bool = True
) -> AsyncIterator[Books]:
    async with Clerk(folder / "fleet.db", FLEET if signs else None, grace=grace) as clerk:
        books = Books(port, clerk, answers)
        async with running(books.collector.run()):
            await books.collector.online.wait()
            yield books


@pytest.fixture
def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every acknowledgement is believed at once, as it would be after some seconds."""
    monkeypatch.setattr("agent.trail.DOUBT_S", 0.0)
    monkeypatch.setattr("agent.resend.DOUBT_S", 0.0)


@pytest.mark.usefixtures("believing")
async def test_what_a_fleet_missed_while_it_was_away_is_sent_again_when_it_is_back(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with van_at(broker.port, tmp_path) as van:
        async with books_at(broker.port, tmp_path):
            await van.scan(100)
            await van.news.until(lambda: van.size == 100)
        await van.scan(100)
        await van.news.until(lambda: van.uplink.backlog == 0)
        async with books_at(broker.port, tmp_path) as books:
            await van.news.until(lambda: van.size == 200)
            assert not books.findings


@pytest.mark.usefixtures("believing")
async def test_a_gap_has_the_last_receipt_given_again_where_there_are_no_keys(
    broker: AnyBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.fleet.collect.LOOK_EVERY_S", 0.1)
    async with books_at(broker.port, tmp_path, grace=0.0) as books, van_at(broker.port, tmp_path) as van:
        await van.scan(100)
        await van.news.until(lambda: van.size == 100)
        books.deaf = True
        await van.scan(100)
        await van.news.until(lambda: van.uplink.backlog == 0)
        await books.news.until(lambda: Kind.GAP in books.kinds)
        books.deaf = False
        await van.news.until(lambda: van.size == 200)
        assert len(van.connections) == 1
    with contextlib.closing(Store(tmp_path / "fleet.db")) as kept:
        assert not [*kept.findings.all()], "the gap is settled by what has come"


# -- what is sent again ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A journal of a hundred entries, all of which the broker has taken before."""

    ours: Broker
    fleet: Fleet
    journal: Journal
    resend: Resend
    connection: Connection

    async def all_sent(self, over: Connection | None = None) -> None:
        connection = over or self.connection
        while self.resend.waits:
            await self.resend.send(connection)
            await connection.subscribe("nothing")  # Its answer comes after the acknowledgement.

    async def arrived(self, *wanted: int) -> None:
        await self.fleet.news.until(lambda: len(self.fleet.sequences) >= len(wanted))
        assert self.fleet.sequences == [*wanted]


ALL = Cursors((100, 100, 100))


@pytest.fixture
def lanes() -> list[Lane]:
    return [Lane.CUSTODY] * 100


@pytest.fixture
async def bench(tmp_path: Path, lanes: list[Lane]) -> AsyncIterator[Bench]:
    journal = Journal(tmp_path / "journal.db", source=f"/postern/test/{DEVICE}", key=SECRET)
    await journal.open()
    try:
        await journal.append([Draft("a.thing", "s", {}, lane) for lane in lanes], AT, {"position": None})
        async with (
            Broker(maximum_packet_size=2048) as ours,
            fleet_at(ours.port) as fleet,
            connected(ours.port, "van") as connection,
        ):
            resend = Resend(journal, f"{TOPIC}/up/entries", lambda: None)
            yield Bench(ours, fleet, journal, resend, connection)
    finally:
        await journal.close()


async def test_ranges_are_sent_again_and_nothing_else(bench: Bench) -> None:
    assert bench.resend.order((90, 2000), ALL)
    assert bench.resend.order((3, 5), ALL)
    assert bench.resend.order((5, 40), ALL)
    bench.resend.covered(1, 9)
    await bench.all_sent()
    await bench.arrived(*range(10, 41), *range(90, 101))


async def test_a_range_that_is_ordered_while_another_flies_is_sent_as_well(bench: Bench) -> None:
    bench.resend.order((50, 60), ALL)
    await bench.resend.send(bench.connection)
    bench.resend.order((1, 9), ALL)
    await bench.all_sent()
    await bench.arrived(*range(50, 61), *range(1, 10))


@pytest.mark.parametrize("lanes", [[Lane.CUSTODY, Lane.TELEMETRY] * 50])
async def test_what_the_broker_never_had_is_not_sent_before_its_turn(bench: Bench) -> None:
    bench.resend.order((1, 100), Cursors((40, 0, 7)))
    await bench.all_sent()
    await bench.arrived(1, 2, 3, 4, 5, 6, *range(7, 41, 2))


async def test_what_is_in_flight_when_a_connection_ends_is_sent_over_the_next(bench: Bench) -> None:
    bench.ours.withhold_puback = True
    bench.resend.order((1, 10), ALL)
    await bench.resend.send(bench.connection)
    await bench.arrived(*range(1, 11))
    bench.connection.give_up("test")
    bench.ours.withhold_puback = False
    async with connected(bench.ours.port, "van") as again:
        bench.resend.begin()
        await bench.all_sent(again)
    await bench.arrived(*range(1, 11), *range(1, 11))


async def test_a_broker_that_refuses_is_not_besieged(bench: Bench) -> None:
    bench.ours.puback_reason = 0x97
    bench.ours.puback_reason_for = lambda message: message.topic == f"{TOPIC}/up/entries"
    bench.resend.order((1, 100), ALL)
    await bench.all_sent()
    assert bench.ours.refused[f"{TOPIC}/up/entries"] == 1


async def test_an_entry_that_no_packet_holds_keeps_no_other_back(bench: Bench) -> None:
    large = Draft("a.thing", "s", {"raw": random.Random(1).randbytes(4000).hex()})
    await bench.journal.append([large, Draft("a.thing", "s", {})], AT, {"position": None})
    bench.resend.order((99, 102), Cursors((102, 102, 102)))
    await bench.all_sent()
    await bench.arrived(99, 100, 102)


def receipted(bench: Bench, size: int) -> None:
    bench.journal.ride({"receipt": {"size": size, "root": ""}})


async def judged(bench: Bench, size: int, upto: Cursors = ALL) -> list[int]:
    """What is sent again for a receipt that is given again."""
    before = len(bench.fleet.sequences)
    bench.resend.lacking(size, upto)
    await bench.resend.send(bench.connection)
    await bench.all_sent()
    states = len(bench.fleet.states)
    await bench.connection.publish(f"{TOPIC}/up/state", b"{}")  # Nothing comes behind it.
    await bench.fleet.news.until(lambda: len(bench.fleet.states) > states)
    return bench.fleet.sequences[before:]


@pytest.mark.usefixtures("believing")
async def test_a_receipt_that_is_brought_again_and_again_is_heeded_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.journal.checkpoint()
    await bench.journal.save()
    receipted(bench, 90)
    assert await judged(bench, 90) == [*range(91, 101)]
    assert await judged(bench, 90) == []
    monkeypatch.setattr("agent.resend.REPEAT_S", 0.0)
    assert await judged(bench, 90, Cursors((95, 95, 95))) == [*range(91, 96)]
    receipted(bench, 100)
    assert await judged(bench, 90) == [], "what was missing has come meanwhile"
    assert await judged(bench, 100) == [], "the fleet has everything that was signed"


async def test_what_may_be_on_its_way_is_given_time(bench: Bench) -> None:
    bench.journal.checkpoint()
    await bench.journal.save()
    receipted(bench, 90)
    assert await judged(bench, 90) == []


async def test_more_ranges_than_are_remembered_are_asked_for_again_later(bench: Bench) -> None:
    ordered = [bench.resend.order((3 * n, 3 * n), ALL) for n in range(1, SPANS + 2)]
    assert ordered == [True] * SPANS + [False]
    await bench.all_sent()
    assert bench.resend.order((1, 100), ALL)


# -- when to ask -------------------------------------------------------------------------------------


def gap(device: str = DEVICE, first: int = 5, last: int = 9) -> Gap:
    return Gap(device, "e1", first, last, None)


def here(*devices: str) -> dict[str, dict[str, object] | None]:
    return {device: {"online": True, "epoch": "e1"} for device in devices}


def test_a_device_that_does_not_help_is_asked_less_and_less_often() -> None:
    patience, asked, now = Patience(), list[float](), 0.0
    while now < 3 * LONGEST_S:
        if patience.due([gap()], here(DEVICE), now):
            asked.append(now)
        now += 10.0
    waits = [round(later - sooner) for sooner, later in itertools.pairwise(asked)]
    assert waits == [int(min(LONGEST_S, FIRST_S * 2**n)) for n in range(len(waits))]


def test_a_device_that_brings_what_it_can_is_asked_for_the_rest() -> None:
    patience = Patience()
    for turn in range(4):
        missing = gap(first=5 + turn * RESEND_MOST, last=10**6)
        assert patience.due([missing], here(DEVICE), turn * FIRST_S) == [missing]
        assert missing.wanted == {
            "first": missing.first,
            "last": missing.first + RESEND_MOST - 1,
            "epoch": "e1",
        }
        assert not patience.due([missing], here(DEVICE), turn * FIRST_S + FIRST_S - 1)


@pytest.mark.parametrize(
    "birth", [None, {}, {"online": False, "epoch": "e1"}, {"online": True, "epoch": "e2"}, {"online": True}]
)
def test_who_is_away_or_has_another_journal_is_not_asked(birth: dict[str, object] | None) -> None:
    assert not Patience().due([gap()], {DEVICE: birth}, 0.0)
    assert not Patience().due([gap()], {}, 0.0)


def test_a_fleet_is_not_asked_at_once() -> None:
    names = [f"van-{number:04}" for number in range(100)]
    patience, gaps = Patience(), [gap(name) for name in names]
    rounds = [patience.due(gaps, here(*names), 10.0 * turn) for turn in range(5)]
    assert [len(each) for each in rounds] == [AT_ONCE, AT_ONCE, AT_ONCE, 100 - 3 * AT_ONCE, 0]


# -- the whole of it ---------------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.timeout(150)
async def test_a_fleet_with_keys_has_its_gap_filled_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.fleet.collect.LOOK_EVERY_S", 0.1)
    async with acme(tmp_path) as (fleet, van):
        order = ("--device", DEVICE, "--operator", "op-1", "--reason", "test")
        await fleet.online("command", "checkpoint", *order)
        answers = Answers(fleet.keys)
        # It has not heard of what came before it began, and the device has signed for it.
        async with books_at(van.site.broker.port, tmp_path, grace=0.0, answers=answers, signs=False) as books:
            await books.news.until(lambda: Kind.GAP in books.kinds)
            await van.heard("command.succeeded", 2)
            with contextlib.closing(Store(tmp_path / "fleet.db")) as kept:
                await books.news.until(lambda: not [*kept.findings.all()])
        told = van.site.of("command.succeeded")[1]["data"]
        assert (told["name"], told["operator"], told["args"]["first"]) == ("resend", "fleet", 1)
        by_hand = await fleet.online("command", "resend", *order, "--arg", "first=1", "--arg", "last=3")
        assert by_hand["type"] == "postern.command.succeeded"
        assert not unlike(van.site.entries)
        van.site.in_order()
