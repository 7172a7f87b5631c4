"""Whatever the link does, everything arrives, once by id, and custody in the order of its making.

The way is cut in the middle of every kind of packet, in both directions; brokers are small, forgetful, or
give one name to two. `POSTERN_LONG=1 pytest tests/test_faults_link.py` cuts after every single byte.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.workflow import Lane
from simulators.broker import Broker
from simulators.relay import Relay
from tests.brokers import BROKERS, AnyBroker, broker_of, running
from tests.site import LONG
from tests.test_lanes import append, mixed
from tests.test_receipts import FLEET
from tests.test_uplink import Fleet, Van, fleet_at, van

ENTRIES = 1500
"""More than a batch: it leaves lane by lane."""
FEW = 40
UP = {1: "CONNECT", 3: "PUBLISH", 8: "SUBSCRIBE", 12: "PINGREQ", 14: "DISCONNECT"}
DOWN = {2: "CONNACK", 4: "PUBACK", 9: "SUBACK", 13: "PINGRESP"}
"""Packet types of MQTT 5 (2.1.2) that one agent and one broker exchange here, by direction."""
GOODBYE, PINGRESP = 14, b"\xd0\x00"
TURNS = 20 if LONG else 3


class Tape:
    """What a connection carried, in each direction."""

    def __init__(self, relay: Relay) -> None:
        self.data = (bytearray(), bytearray())
        relay.tap = lambda back, data: self.data[back].extend(data)

    def packets(self, back: bool) -> Iterator[tuple[int, int, int]]:
        """Type, and where it begins and ends."""
        data, at = self.data[back], 0
        while at < len(data):
            size = shift = 0
            head = at + 1
            while True:
                byte = data[head]
                size |= (byte & 0x7F) << shift
                head, shift = head + 1, shift + 7
                if byte < 0x80:
                    break
            yield data[at] >> 4, at, head + size
            at = head + size


async def arrived(fleet: Fleet, lanes: list[Lane]) -> None:
    """Everything is there, under one id each, and the custody among it in order."""
    await fleet.news.until(lambda: len(set(fleet.sequences)) == len(lanes))
    assert len(fleet.ids) == len(lanes)
    custody = [sequence for sequence in fleet.first_deliveries if lanes[sequence - 1] is Lane.CUSTODY]
    assert custody == sorted(custody)


@contextlib.asynccontextmanager
async def through_a_relay(broker: AnyBroker, folder: Path) -> AsyncIterator[tuple[Relay, Fleet, Van]]:
    """A keepalive of a second: the way is quiet for long enough to be asked about."""
    async with (
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(folder, relay.port, keepalive=1, fleet=[FLEET.verifier]) as here,
    ):
        yield relay, fleet, here


async def a_session(folder: Path) -> Tape:
    """All that one connection says: hello, subscription, birth, a few entries, a ping and a goodbye."""
    folder.mkdir()
    async with broker_of("ours", folder) as broker, through_a_relay(broker, folder) as (relay, _, here):
        tape = Tape(relay)
        await append(here.journal, mixed(FEW))
        pinged = asyncio.Event()
        keep = relay.tap

        def listen(back: bool, data: bytes) -> None:
            assert keep is not None
            keep(back, data)
            if back and data.endswith(PINGRESP):
                pinged.set()

        relay.tap = listen
        async with running(here.uplink.run()):
            await pinged.wait()
    return tape


@pytest.mark.timeout(3600 if LONG else 60)
@pytest.mark.parametrize("back", [False, True], ids=["to the broker", "back"])
async def test_a_way_cut_in_the_middle_of_any_packet_costs_nothing(tmp_path: Path, back: bool) -> None:
    tape = await a_session(tmp_path / "whole")
    middles = {kind: (begin + end) // 2 for kind, begin, end in reversed([*tape.packets(back)])}
    assert middles.keys() == {*(DOWN if back else UP)}
    for at in range(1, len(tape.data[back])) if LONG else middles.values():
        folder = tmp_path / f"cut-{at}"
        folder.mkdir()
        async with (
            broker_of("ours", folder) as broker,
            through_a_relay(broker, folder) as (relay, fleet, here),
        ):
            lanes = mixed(FEW)
            await append(here.journal, lanes)
            relay.cut_after, relay.cut_back_after = (None, at) if back else (at, None)
            async with running(here.uplink.run()):
                # Before the goodbye the cut is noticed; with a ping more than on the tape it comes earlier.
                early = at < middles.get(GOODBYE, at + 1)
                await here.news.until(
                    lambda here=here, early=early: (  # type: ignore[misc]
                        here.types("uplink.lost") or (not early and here.uplink.cursor >= FEW)
                    )
                )
            relay.cut_after = relay.cut_back_after = None
            relay.restore()
            async with running(here.uplink.run()):
                lanes += mixed(FEW, seed=at)
                await append(here.journal, lanes[FEW:])
                await here.sent(2 * FEW)
                await arrived(fleet, lanes)


@pytest.mark.timeout(600 if LONG else 60)
@pytest.mark.parametrize("name", BROKERS)
async def test_a_backlog_gets_through_a_way_that_is_cut_again_and_again(name: str, tmp_path: Path) -> None:
    lanes, rng = mixed(ENTRIES), random.Random(1)
    async with broker_of(name, tmp_path) as broker, through_a_relay(broker, tmp_path) as (relay, fleet, here):
        await append(here.journal, lanes)
        async with running(here.uplink.run()):
            for _ in range(TURNS):
                carried = rng.randint(100, 30_000)
                relay.cut_after, relay.cut_back_after = rng.choice([(carried, None), (None, carried // 100)])
                await here.news.until(lambda: here.types("uplink.lost") or not here.uplink.backlog)
                here.reported.clear()
                relay.restore()
            relay.cut_after = relay.cut_back_after = None
            await here.sent(ENTRIES)
            await arrived(fleet, lanes)


@pytest.mark.parametrize("name", BROKERS)
@pytest.mark.parametrize("keeps", [True, False], ids=["remembers", "forgets"])
async def test_a_broker_that_restarts_amid_a_backlog_gets_the_rest(
    name: str, keeps: bool, tmp_path: Path
) -> None:
    lanes: list[Lane] = []
    async with (
        broker_of(name, tmp_path, persistence=keeps) as broker,
        fleet_at(broker.port) as fleet,
        Relay(broker.host, broker.port) as relay,
        van(tmp_path, relay.port) as here,
        running(here.uplink.run()),
    ):
        for turn in range(TURNS):
            relay.cut()
            await broker.stop(kill=not keeps)
            fleet.online.clear()
            more = mixed(ENTRIES, seed=turn)
            lanes += more
            await append(here.journal, more)
            await broker.start()
            # What a forgetful broker takes while the fleet is away, nobody will ever hear of.
            await fleet.online.wait()
            relay.restore()
            await here.sent(len(lanes))
        await arrived(fleet, lanes)


@pytest.mark.parametrize("name", BROKERS)
@pytest.mark.parametrize(("window", "packet"), [(1, 1 << 20), (20, 1024)], ids=["one message", "1 KiB"])
async def test_a_broker_that_bears_little_gets_a_backlog_lane_by_lane(
    name: str, window: int, packet: int, tmp_path: Path
) -> None:
    lanes = mixed(ENTRIES)
    async with (
        broker_of(name, tmp_path, receive_maximum=window, maximum_packet_size=packet) as broker,
        fleet_at(broker.port) as fleet,
        van(tmp_path, broker.port) as here,
    ):
        await append(here.journal, lanes)
        async with running(here.uplink.run()):
            await here.sent(ENTRIES)
            await arrived(fleet, lanes)
        assert len(fleet.sequences) == ENTRIES
        assert len(here.types("uplink.connected")) == 1


@pytest.mark.parametrize("name", BROKERS)
async def test_two_that_share_one_name_both_bring_their_backlog(name: str, tmp_path: Path) -> None:
    lanes = mixed(ENTRIES)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        broker = await enter(broker_of(name, tmp_path))
        names = ("van-0001", "van-0002")
        fleets = [await enter(fleet_at(broker.port, each)) for each in names]
        vans = [await enter(van(tmp_path, broker.port, each, "the-same")) for each in names]
        for each in vans:
            await append(each.journal, lanes)
            await enter(running(each.uplink.run()))
        for each, fleet in zip(vans, fleets, strict=True):
            await each.sent(ENTRIES)
            await arrived(fleet, lanes)


async def test_acknowledgements_lost_in_the_middle_of_a_backlog_bring_it_again(tmp_path: Path) -> None:
    lanes = mixed(ENTRIES)
    async with Broker() as ours, fleet_at(ours.port) as fleet, van(tmp_path, ours.port) as here:
        await append(here.journal, lanes)
        ours.forget_between_publish_and_puback = TURNS
        async with running(here.uplink.run()):
            await here.sent(ENTRIES)
            await arrived(fleet, lanes)
        assert not ours.forget_between_publish_and_puback
        assert not here.passed_over()
