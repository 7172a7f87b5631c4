"""All entries arrive, in order, and twice only under the same id, whatever the broker or the way does."""

import asyncio
import contextlib
import json
import random
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import refusals
from agent.batch import pack
from agent.clock import Moment
from agent.fleet.collect import unpack
from agent.journal import Journal
from agent.ledger import leaf_hash
from agent.mqtt import ConnectionLost
from agent.note import VerifierKey
from agent.refusals import Again, Caution, Leave, PassOver
from agent.store import Stored
from agent.uplink import Uplink
from agent.workflow import Draft
from simulators.broker import Broker
from simulators.mqtt5 import Publish
from simulators.relay import Relay
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, running, server
from tests.mosquitto import Mosquitto

AT = Moment(boot="boot", mono_ns=1, utc_ns=1_800_000_000_000_000_000)
TOPIC = "postern/v1/van-0042"
BIRTH = {"online": True, "device": "van-0042", "units": {"gun": {"kind": "ssi", "state": "ready"}}}


class Hurry(random.Random):
    """Waits are drawn as ever, and always the shortest comes."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


class Van:
    """A journal and its uplink."""

    def __init__(
        self,
        journal: Journal,
        port: int,
        device: str,
        client_id: str,
        keepalive: int,
        fleet: Collection[VerifierKey] = (),
    ) -> None:
        self.journal = journal
        self.device = device
        self.birth: Mapping[str, Any] = BIRTH
        self.reported: list[Draft] = []
        self.uplink = Uplink(
            journal,
            server(port, client_id, keepalive=keepalive),
            f"postern/v1/{device}",
            birth=lambda: self.birth,
            report=self._reported,
            fleet=fleet,
            rng=Hurry(),
        )
        self.news = News()
        self.uplink.watch(self.news.look)

    def _reported(self, draft: Draft) -> None:
        self.reported.append(draft)
        self.news.look()

    async def scan(self, count: int, *, size: int = 200) -> None:
        """Durable entries, of so many bytes that do not compress."""
        rng = random.Random(self.journal.last)
        drafts = [
            Draft("custody.seen", f"P{n}", {"raw": rng.randbytes(size // 2).hex()}) for n in range(count)
        ]
        await self.journal.append(drafts, AT, {"position": None})

    async def sent(self, sequence: int) -> None:
        """Wait until the cursor is there."""
        await self.news.until(lambda: self.uplink.cursor >= sequence)
        assert self.uplink.backlog == self.journal.last - sequence

    def types(self, name: str) -> list[Draft]:
        return [draft for draft in self.reported if draft.type == name]

    def passed_over(self) -> list[str]:
        return [draft.data["sequence"] for draft in self.types("uplink.entry_passed_over")]


@contextlib.asynccontextmanager
async def van(
    folder: Path,
    port: int,
    device: str = "van-0042",
    client_id: str = "",
    keepalive: int = 25,
    fleet: Collection[VerifierKey] = (),
) -> AsyncIterator[Van]:
    journal = Journal(folder / f"{device}.db", source=f"/postern/test/{device}")
    await journal.open()
    made = Van(journal, port, device, client_id or device, keepalive, fleet)
    try:
        yield made
    finally:
        await journal.close()


class Fleet:
    """What arrived under one device's topics, as it came: sequences, duplicates included."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.lines: list[bytes] = []
        self.ids: set[str] = set()
        self.states: list[dict[str, Any]] = []
        self.news = News()
        self.online = asyncio.Event()

    @property
    def first_deliveries(self) -> list[int]:
        return list(dict.fromkeys(self.sequences))

    async def has(self, count: int) -> None:
        """Wait until the entries up to this sequence are here, in order, and each under one id."""
        await self.news.until(lambda: len(set(self.sequences)) >= count)
        assert self.first_deliveries == list(range(1, count + 1))
        assert len(self.ids) == count

    async def receive(self, port: int, device: str) -> None:
        while True:
            with contextlib.suppress(ConnectionLost):
                async with connected(port, f"fleet-of-{device}", session_expiry=300) as connection:
                    await connection.subscribe(f"postern/v1/{device}/up/#")
                    self.online.set()
                    while True:
                        message = await connection.receive()
                        self.take(message.topic, message.payload, message.properties.get("content-encoding"))
                        connection.acknowledge(message)
            await asyncio.sleep(0.01)  # A broker that is away is asked again, not besieged.

    def take(self, topic: str, payload: bytes, encoding: str | None) -> None:
        if topic.endswith("/state"):
            self.states.append(json.loads(payload))
        else:
            lines = unpack(payload, encoding)
            entries = [json.loads(line) for line in lines]
            self.lines += lines
            self.sequences += [int(entry["sequence"]) for entry in entries]
            self.ids |= {entry["id"] for entry in entries}
        self.news.look()


@contextlib.asynccontextmanager
async def fleet_at(port: int, device: str = "van-0042") -> AsyncIterator[Fleet]:
    """Connected directly, and again as often as it takes, in a session that the broker keeps."""
    fleet = Fleet()
    async with running(fleet.receive(port, device)):
        await fleet.online.wait()
        yield fleet


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def ours() -> AsyncIterator[Broker]:
    async with Broker() as made:
        yield made


# -- when all is well -----------------------------------------------------------------------------


async def test_every_entry_arrives_once_and_in_order(broker: AnyBroker, tmp_path: Path) -> None:
    async with fleet_at(broker.port) as fleet, van(tmp_path, broker.port) as here:
        await here.scan(300)
        async with running(here.uplink.run()):
            await fleet.has(300)
            await here.scan(1)
            await fleet.has(301)
            await here.sent(301)
        assert len(fleet.sequences) == 301


async def test_the_published_bytes_are_the_stored_bytes(broker: AnyBroker, tmp_path: Path) -> None:
    async with fleet_at(broker.port) as fleet, van(tmp_path, broker.port) as here, running(here.uplink.run()):
        await here.scan(3)
        await fleet.has(3)
        stored = await here.journal.read(0, entries=9, size=10_000)
        assert fleet.lines == [each.line for each in stored]


async def test_it_waits_for_a_broker_that_is_absent_at_boot(broker: AnyBroker, tmp_path: Path) -> None:
    async with fleet_at(broker.port) as fleet:
        await broker.stop()
        async with van(tmp_path, broker.port) as here, running(here.uplink.run()):
            await here.scan(5)
            await here.news.until(lambda: here.types("uplink.lost"))
            await broker.start()
            await here.sent(5)
            assert here.types("uplink.connected")
        await fleet.has(5)


async def test_it_says_that_it_is_there_and_the_broker_that_it_has_gone(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with fleet_at(broker.port) as fleet, Relay(broker.host, broker.port) as relay:
        async with van(tmp_path, relay.port) as here, running(here.uplink.run()):
            await fleet.news.until(lambda: fleet.states == [BIRTH])
            relay.cut()
            await fleet.news.until(lambda: fleet.states[1:] == [{"online": False}])
            relay.restore()
            await fleet.news.until(lambda: fleet.states[2:] == [BIRTH])
            here.birth = {**BIRTH, "units": {}}
            here.uplink.announce()
            await fleet.news.until(lambda: fleet.states[3:] == [here.birth])
        await fleet.news.until(lambda: fleet.states[4:] == [{"online": False}])
    async with fleet_at(broker.port) as later:
        await later.news.until(lambda: later.states == [{"online": False}])


async def test_the_cursor_outlives_the_process(broker: AnyBroker, tmp_path: Path) -> None:
    async with fleet_at(broker.port) as fleet:
        for turn in (1, 2, 3):
            async with van(tmp_path, broker.port) as here, running(here.uplink.run()):
                await here.scan(10)
                await here.sent(10 * turn)
            await fleet.has(10 * turn)
        # What a process had just sent when it ended is sent once more by the next, and no more.
        assert max(Counter(fleet.sequences).values()) == 2
        assert len(fleet.sequences) == 50


async def test_the_cursor_waits_for_the_oldest(ours: Broker, tmp_path: Path) -> None:
    async with van(tmp_path, ours.port) as here, running(here.uplink.run()):
        await ours.until(lambda: ours.received[f"{TOPIC}/up/state"] == 1)
        ours.withhold_puback = 1
        await here.scan(1)
        await ours.until(lambda: ours.received[f"{TOPIC}/up/entries"] == 1)
        await here.scan(1)
        await ours.until(lambda: ours.received[f"{TOPIC}/up/entries"] == 2)
        # A second birth is answered behind the second batch.
        here.uplink.announce()
        await ours.until(lambda: ours.received[f"{TOPIC}/up/state"] == 2)
        assert here.uplink.cursor == 0
        ours.release_pubacks()
        await here.sent(2)


# -- what a broker can bear -----------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKERS)
async def test_a_broker_that_takes_one_at_a_time_gets_one_at_a_time(name: str, tmp_path: Path) -> None:
    async with (
        broker_of(name, tmp_path, receive_maximum=1) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
    ):
        await here.scan(1000)
        async with running(here.uplink.run()):
            await fleet.has(1000)
            here.uplink.announce()
            await here.scan(1)
            await here.sent(1001)
        assert len(fleet.sequences) == 1001
        assert len(here.types("uplink.connected")) == 1


@pytest.mark.parametrize("name", BROKERS)
async def test_a_broker_that_takes_small_packets_gets_small_packets(name: str, tmp_path: Path) -> None:
    async with (
        broker_of(name, tmp_path, maximum_packet_size=1024) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
    ):
        here.birth = {**BIRTH, "units": {f"unit{n}": {"state": "ready"} for n in range(100)}}
        await here.scan(50)
        await here.scan(50, size=1000)
        async with running(here.uplink.run()):
            await fleet.has(100)
            await here.sent(100)
        assert fleet.states[0] == {"online": True, "device": "van-0042"}
        assert len(here.types("uplink.connected")) == 1
        assert not here.passed_over()


async def test_an_entry_that_no_packet_can_hold_is_passed_over(tmp_path: Path) -> None:
    async with (
        Broker(maximum_packet_size=1024) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
    ):
        await here.scan(5)
        await here.scan(1, size=4000)
        await here.scan(5)
        async with running(here.uplink.run()):
            await here.sent(11)
        await fleet.news.until(lambda: len(set(fleet.sequences)) == 10)
        assert fleet.first_deliveries == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
        assert here.passed_over() == ["6"]


# -- a bad way ------------------------------------------------------------------------------------


async def test_a_way_that_is_cut_in_the_middle_of_a_packet_costs_nothing(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with (
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port) as here,
    ):
        await here.scan(1000)
        relay.cut_after = 30_000
        async with running(here.uplink.run()):
            await here.news.until(lambda: here.types("uplink.lost"))
            relay.restore()
            await here.sent(1000)
        await fleet.has(1000)


async def test_entries_whose_acknowledgement_was_lost_come_again_under_their_ids(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with (
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port) as here,
        running(here.uplink.run()),
    ):
        await fleet.news.until(lambda: fleet.states)
        relay.hush()
        await here.scan(10)
        await fleet.has(10)
        assert here.uplink.cursor == 0
        relay.cut()
        relay.restore()
        await here.sent(10)
        await fleet.news.until(lambda: len(fleet.sequences) == 20)
        await fleet.has(10)


async def test_a_broker_that_dies_before_it_acknowledges_gets_everything_again(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with (
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port) as here,
        running(here.uplink.run()),
    ):
        await fleet.news.until(lambda: fleet.states)
        relay.hush()
        await here.scan(10)
        await fleet.has(10)
        await broker.stop(kill=True)
        fleet.online.clear()
        relay.cut()
        await broker.start()
        await fleet.online.wait()
        relay.restore()
        await here.sent(10)
        await fleet.has(10)


async def test_a_broker_that_breaks_the_connection_instead_of_acknowledging(
    ours: Broker, tmp_path: Path
) -> None:
    async with fleet_at(ours.port) as fleet, van(tmp_path, ours.port) as here:
        await here.scan(600)
        ours.forget_between_publish_and_puback = 3
        async with running(here.uplink.run()):
            await here.sent(600)
        await fleet.has(600)
        assert not here.passed_over()


@pytest.mark.parametrize("name", BROKERS)
async def test_a_broker_that_restarts_with_its_memory_loses_nothing(name: str, tmp_path: Path) -> None:
    async with (
        broker_of(name, tmp_path, persistence=True) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
        running(here.uplink.run()),
    ):
        for turn in range(1, 4):
            await here.scan(100)
            await broker.stop()
            await here.scan(100)
            await broker.start()
            await here.sent(200 * turn)
        await fleet.has(600)


async def test_a_way_that_goes_silent_is_left_and_nothing_is_lost(broker: AnyBroker, tmp_path: Path) -> None:
    async with (
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port, keepalive=1) as here,
        running(here.uplink.run()),
    ):
        await fleet.news.until(lambda: fleet.states)
        relay.hang()
        await here.scan(10)
        await here.news.until(lambda: here.types("uplink.lost"))
        relay.reset()
        relay.resume()
        await here.sent(10)
        await fleet.has(10)


async def test_a_broker_that_swallows_an_acknowledgement_is_left(ours: Broker, tmp_path: Path) -> None:
    async with (
        fleet_at(ours.port) as fleet,
        van(tmp_path, ours.port, keepalive=1) as here,
        running(here.uplink.run()),
    ):
        await fleet.news.until(lambda: fleet.states)
        ours.withhold_puback = 1
        await here.scan(10)
        await here.sent(10)
        await fleet.has(10)
        assert here.types("uplink.lost")


async def test_two_agents_with_one_name_both_deliver(broker: AnyBroker, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        names = ("van-0001", "van-0002")
        fleets = [await enter(fleet_at(broker.port, name)) for name in names]
        vans = [await enter(van(tmp_path, broker.port, name, "the-same")) for name in names]
        for each in vans:
            await each.scan(2000)
            await enter(running(each.uplink.run()))
        for each, fleet in zip(vans, fleets, strict=True):
            await each.sent(2000)
            await fleet.has(2000)


# -- refusals -------------------------------------------------------------------------------------


def entries_only(message: Publish) -> bool:
    return message.topic.endswith("/entries")


def holds(sequence: int) -> Callable[[Publish], bool]:
    def claim(message: Publish) -> bool:
        pairs = dict(value for _, value in message.properties if isinstance(value, tuple))
        return entries_only(message) and int(pairs["from"]) <= sequence <= int(pairs["to"])

    return claim


async def test_a_full_quota_is_waited_out(ours: Broker, tmp_path: Path) -> None:
    ours.puback_reason, ours.puback_reason_for = 0x97, entries_only
    async with fleet_at(ours.port) as fleet, van(tmp_path, ours.port) as here:
        await here.scan(1000)
        async with running(here.uplink.run()):
            await ours.until(lambda: ours.refused[f"{TOPIC}/up/entries"] > 50)
            assert (here.uplink.cursor, here.passed_over()) == (0, [])
            ours.puback_reason = 0
            await here.sent(1000)
        await fleet.has(1000)
        assert len(here.types("uplink.connected")) == 1


async def test_not_being_authorised_is_no_fault_of_an_entry(ours: Broker, tmp_path: Path) -> None:
    ours.puback_reason, ours.puback_reason_for = 0x87, entries_only
    async with fleet_at(ours.port) as fleet, van(tmp_path, ours.port) as here, running(here.uplink.run()):
        await here.scan(3)
        await ours.until(lambda: ours.refused[f"{TOPIC}/up/entries"] >= 3)
        assert here.types("uplink.lost")[0].data["code"] == 0x87
        ours.puback_reason = 0
        await here.sent(3)
        await fleet.has(3)
        assert not here.passed_over()


@pytest.mark.parametrize("code", [0x80, 0x83, 0x95, 0x99])
async def test_a_poison_entry_is_passed_over_and_holds_up_nobody(
    ours: Broker, tmp_path: Path, code: int
) -> None:
    ours.puback_reason, ours.puback_reason_for = code, holds(700)
    async with fleet_at(ours.port) as fleet, van(tmp_path, ours.port) as here:
        await here.scan(1000)
        async with running(here.uplink.run()):
            await here.sent(1000)
        await fleet.news.until(lambda: len(set(fleet.sequences)) == 999)
        assert set(range(1, 1001)) - set(fleet.sequences) == {700}
        assert here.passed_over() == ["700"]
        (told,) = here.types("uplink.entry_passed_over")
        (left,) = await here.journal.read(699, entries=1, size=1)
        assert told.data["leaf"] == b64encode(leaf_hash(left.line)).decode()
        assert told.data["lane"] == "custody"
        assert len(here.types("uplink.connected")) == 1


@pytest.mark.broker
async def test_entries_that_a_real_broker_finds_too_large_are_passed_over(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, config_lines=["message_size_limit 2000"]) as broker:
        async with fleet_at(broker.port) as fleet, van(tmp_path, broker.port) as here:
            await here.scan(50)
            await here.scan(2, size=10_000)
            await here.scan(50)
            async with running(here.uplink.run()):
                await here.sent(102)
            await fleet.news.until(lambda: len(set(fleet.sequences)) == 100)
            assert here.passed_over() == ["51", "52"]


async def test_a_refused_window_is_never_exceeded_by_what_is_sent_again(tmp_path: Path) -> None:
    async with Broker(receive_maximum=5, delay=0.002) as broker, van(tmp_path, broker.port) as here:
        await here.scan(3000)
        odd = iter(range(100))
        broker.puback_reason = 0x97
        broker.puback_reason_for = lambda message: entries_only(message) and next(odd, 0) % 2 == 1
        async with running(here.uplink.run()):
            await here.sent(3000)
        assert not broker.broken


# -- pure -----------------------------------------------------------------------------------------


def stored(count: int, size: int) -> list[Stored]:
    rng = random.Random(count)
    return [Stored(number, rng.randbytes(size // 2).hex().encode()) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("count", "size", "room", "compressed"),
    [(1, 200, 100_000, False), (1, 2000, 100_000, True), (9, 200, 100_000, True), (1, 800, 500, True)],
)
def test_a_batch_is_compressed_where_it_pays_or_has_to(
    count: int, size: int, room: int, compressed: bool
) -> None:
    entries = stored(count, size)
    payload, properties = pack(entries, room)
    assert dict(properties).get("content-encoding") == ("gzip" if compressed else None)
    assert unpack(payload, dict(properties).get("content-encoding")) == [each.line for each in entries]
    assert (dict(properties)["from"], dict(properties)["to"]) == ("1", str(count))


@pytest.mark.parametrize("code", [0x93, 0x96, 0x97])
def test_load_is_never_held_against_an_entry(code: int) -> None:
    caution = Caution()
    verdicts = [caution.refused(code, 1) for _ in range(100)]
    assert all(isinstance(verdict, Again) for verdict in verdicts)
    assert verdicts[-1] == Again(refusals.WAIT_MOST_S)
    assert caution.alone


@pytest.mark.parametrize("code", [0x87, 0x8E, 0x90, 0x91])
def test_what_is_about_us_is_left_with_the_connection(code: int) -> None:
    assert Caution().refused(code, 1) == Leave()


def test_a_broker_that_refuses_everything_for_an_hour_costs_few_entries_their_turn() -> None:
    caution, seconds, passed_over = Caution(), 0.0, 0
    while seconds < 3600:
        match caution.refused(0x80, 1):
            case Again(within):
                seconds += within / 2
            case PassOver():
                passed_over += 1
    assert passed_over < 25


def test_a_batch_that_is_refused_for_its_content_is_halved() -> None:
    caution = Caution()
    assert caution.refused(0x99, 100) == Again()
    assert (caution.limit, caution.pace) == (50, 1)


def test_caution_is_forgotten_as_entries_are_accepted() -> None:
    caution = Caution()
    caution.refused(0x99, 2)
    for _ in range(10):
        caution.accepted()
    assert (caution.limit, caution.pace) == (refusals.ENTRIES, refusals.PACE)


@pytest.mark.parametrize("after", [9.0, 30.0])
def test_a_network_that_times_out_proves_nothing(after: float) -> None:
    caution = Caution()
    assert {caution.died(1, 1, 1, None, after) for _ in range(1000)} == {Again()}


def test_a_death_with_others_in_flight_proves_nothing() -> None:
    caution = Caution()
    assert {caution.died(1, 1, 2, None, 0.1) for _ in range(1000)} == {Again()}
    assert caution.alone


def test_a_connection_that_dies_at_once_on_one_lone_entry_gives_it_up_in_the_end() -> None:
    caution = Caution()
    verdicts = [caution.died(1, 1, 1, None, 0.1) for _ in range(refusals.DEATHS)]
    assert verdicts == [Again()] * (refusals.DEATHS - 1) + [PassOver()]


def test_a_packet_that_the_broker_blames_is_halved_until_it_is_alone() -> None:
    caution, entries, sizes = Caution(), 256, []
    while caution.died(1, entries, 1, 0x81, 0.1) != PassOver():
        sizes.append(entries)
        entries = min(entries, caution.limit)
    assert sizes == [256, 128, 64, 32, 16, 8, 4, 2]
