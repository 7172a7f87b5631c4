"""What comes down a real connection: retained documents, pages while they are lacked, and nothing twice."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import downlink
from agent.uplink import Uplink
from simulators.broker import Broker
from simulators.mqtt5_fields import Reason
from tests.authority import Authority
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, running, server
from tests.test_postbox import Device, roster

TOPIC = "postern/v1/locker-17"


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


class Online(Device):
    """A device with an uplink, from one connection to the next."""

    news: News

    def heed(self) -> None:
        super().heed()
        self.news.look()

    @contextlib.asynccontextmanager
    async def online(self, port: int) -> AsyncIterator[Uplink]:
        self.news = News()
        await self.start()
        self.journal.watch(self.news.look)
        self.uplink = Uplink(
            self.journal,
            server(port, "locker-17"),
            TOPIC,
            birth=lambda: {"online": True, "time_nonce": self.post.ask()},
            report=self.report,
            post=self.post,
        )
        try:
            async with running(self.uplink.run()):
                yield self.uplink
        finally:
            await self.stop()


@pytest.fixture
def device(tmp_path: Path) -> Online:
    fleet = Authority()
    return Online(tmp_path, fleet, fleet.root(), X25519PrivateKey.generate())


class Shelf:
    """Where the fleet puts what is retained."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def put(self, *told: tuple[str, bytes]) -> None:
        for name, raw in told:
            assert await self._connection.publish(f"{TOPIC}/down/{name}", raw, retain=True) < 128


@contextlib.asynccontextmanager
async def shelf_at(port: int) -> AsyncIterator[Shelf]:
    async with connected(port, "the-fleet") as connection:
        yield Shelf(connection)


def paged(pages: dict[str, bytes]) -> Sequence[tuple[str, bytes]]:
    return [(f"page/{digest}", raw) for digest, raw in pages.items()]


async def test_a_device_finds_everything_on_the_shelf_and_its_pages_a_few_at_a_time(
    broker: AnyBroker, device: Online, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downlink, "PAGES", 3)
    badges = [b"badge-%03d" % number for number in range(700)]
    printed = roster(device, 1, *badges)
    assert len(printed.pages) > 10
    root = device.fleet.root(2)
    lists = device.fleet.revocations(1, of={"subjects": ["drv-7"]})
    head = device.fleet.head(1, {"root": root, "bundle/roster": printed.raw, "revocations": lists})
    async with shelf_at(broker.port) as shelf:
        await shelf.put(*paged(printed.pages), ("bundle/roster", printed.raw))
        await shelf.put(("head", head), ("revocations", lists), ("root", root))
        async with device.online(broker.port):
            await device.news.until(lambda: device.bundles.versions() == {"roster": 1})
            assert all(device.knows(badge) for badge in badges)
            assert device.post.is_revoked("drv-7", None)
            assert device.post.knowledge_at() > 0


async def test_a_change_reaches_a_device_that_is_online(broker: AnyBroker, device: Online) -> None:
    one = roster(device, 1, b"a")
    async with shelf_at(broker.port) as shelf, device.online(broker.port):
        await shelf.put(*paged(one.pages), ("bundle/roster", one.raw))
        await shelf.put(("head", device.fleet.head(1, {"bundle/roster": one.raw})))
        await device.news.until(lambda: device.bundles.versions() == {"roster": 1})
        two = roster(device, 2, b"b")
        await shelf.put(("head", device.fleet.head(2, {"bundle/roster": two.raw})))
        await shelf.put(("bundle/roster", two.raw), *paged(two.pages))
        await device.news.until(lambda: device.bundles.versions() == {"roster": 2})
        assert (device.knows(b"a"), device.knows(b"b")) == (False, True)


async def test_what_is_retained_comes_at_every_connection_and_is_told_once(
    broker: AnyBroker, device: Online
) -> None:
    lists = device.fleet.revocations(1, of={"subjects": ["drv-7"]})
    async with shelf_at(broker.port) as shelf:
        await shelf.put(("revocations", lists))
        for _ in range(3):
            async with device.online(broker.port):
                await device.news.until(
                    lambda: device.uplink.online and device.post.is_revoked("drv-7", None)
                )
                await shelf.put(("head", b"the end"))
                await device.news.until(lambda: device.post.refused)
                told = await device.entries("fleet.revocations_accepted")
            assert len(told) == 1


async def test_a_message_that_cannot_be_digested_stops_nothing(broker: AnyBroker, device: Online) -> None:
    class Poisoned(Exception):
        pass

    async with shelf_at(broker.port) as shelf, device.online(broker.port):
        await device.news.until(lambda: device.uplink.online)

        async def choke(raw: bytes) -> bool:
            raise Poisoned

        device.bundles.page = choke  # type: ignore[method-assign]
        printed = roster(device, 1, b"a")
        await shelf.put(*paged(printed.pages), ("bundle/roster", printed.raw))
        await shelf.put(("head", device.fleet.head(1, {"bundle/roster": printed.raw})))
        await shelf.put(("revocations", device.fleet.revocations(1, of={"subjects": ["drv-7"]})))
        await device.news.until(lambda: device.post.is_revoked("drv-7", None))
        faults = await device.entries("agent.fault")
        assert {each["error"] for each in faults} <= {"Poisoned"}


async def test_while_sending_has_to_wait_what_comes_down_is_heard(tmp_path: Path, device: Online) -> None:
    """The broker's quota is full: entries wait it out, a revocation does not."""
    async with Broker(puback_reason=Reason.QUOTA_EXCEEDED) as full:
        full.puback_reason_for = lambda message: message.topic.endswith("/up/entries")
        async with shelf_at(full.port) as shelf, device.online(full.port):
            await full.until(lambda: full.refused[f"{TOPIC}/up/entries"] > 0)
            await shelf.put(("revocations", device.fleet.revocations(1, of={"subjects": ["drv-7"]})))
            await device.news.until(lambda: device.post.is_revoked("drv-7", None))
            assert device.uplink.cursor == 0


async def test_a_page_that_is_here_is_asked_for_no_more(tmp_path: Path, device: Online) -> None:
    async with Broker() as ours, shelf_at(ours.port) as shelf, device.online(ours.port):
        printed = roster(device, 1, b"a")
        await shelf.put(*paged(printed.pages), ("bundle/roster", printed.raw))
        await shelf.put(("head", device.fleet.head(1, {"bundle/roster": printed.raw})))
        await device.news.until(lambda: device.bundles.versions() == {"roster": 1})
        one = next(iter(printed.pages))
        # Nobody is subscribed to it: the broker says so.
        async with connected(ours.port, "somebody") as somebody:
            while await somebody.publish(f"{TOPIC}/down/page/{one}", b"x") != Reason.NO_MATCHING_SUBSCRIBERS:
                pass
