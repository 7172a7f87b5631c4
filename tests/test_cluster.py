"""A broker of two nodes, a real ejabberd: what it carries and keeps, what a node killed in the middle costs.

Starting Erlang twice takes longer than a test may, so these run in the long form alone:
`POSTERN_LONG=1 pytest tests/test_cluster.py`. The package is unpacked into `.tools` at the first run.
"""

import asyncio
import contextlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.config import load
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.fleet.device_log import Entry
from agent.fleet.ejabberd import Where, yml
from agent.fleet.mosquitto import Who
from agent.mqtt import REFUSED, Connection, ConnectionLost, Server
from simulators.line import LineScanner
from tests.bench import backlog
from tests.brokers import Authority, News, running
from tests.desk import FLEET
from tests.ejabberd import Cluster, Node
from tests.fleets import DEVICE, ceremony, enrolled
from tests.site import DIES_WITH_US, LONG

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not LONG, reason="starts Erlang twice: POSTERN_LONG=1"),
]

COLLECTOR, PUBLISHER = "fleet.collector", "fleet.publisher"
QUEUED = 50_000
PATIENCE = 240.0
QUIET = 1.0
"""No broker says when it has brought all that it retained."""

CONFIG = """\
[device]
id = "{device}"
tenant = "acme"
state = "{folder}/state"

[broker]
host = "127.0.0.1"
port = {a}
others = ["127.0.0.1:{b}"]
tls = {{ ca = "{ca}", certificate = "{certificate}", key = "{key}" }}
keepalive = 5

[custody]
attended = false

[fleet]
keys = ["{receipts}"]

[unit.gun]
kind = "line"
port = "{folder}/gun"
"""


class Ground:
    """The cluster, and certificates for whoever comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "ca")
        self.cluster = Cluster(folder, self._write)
        self.news = News()

    def _write(self, folder: Path, port: int) -> None:
        where = Where(folder=str(folder), address="127.0.0.1", port=port)
        (folder / "ejabberd.yml").write_text(yml(where, Who(), revoked=["van-0009"]))
        own = self.authority.issue("broker")
        shutil.copy(own.certificate, folder / "broker.pem")
        shutil.copy(own.key, folder / "broker.key")
        shutil.copy(self.authority.file, folder / "ca.pem")

    def server(self, name: str, node: Node, client_id: str = "", **values: Any) -> Server:
        tls = self.authority.context(self.authority.issue(name))
        return Server(
            host=node.host, port=node.port, client_id=client_id or name, username=name, tls=tls, **values
        )

    @contextlib.asynccontextmanager
    async def online(self, name: str, node: Node, client_id: str = "") -> AsyncIterator[Connection]:
        connection = Connection(self.server(name, node, client_id))
        try:
            await connection.connect(PATIENCE)
            yield connection
        finally:
            await connection.close()

    def options(self, name: str) -> list[str]:
        """How a command of the fleet reaches both nodes."""
        pair = self.authority.issue(name)
        at = [word for node in self.cluster.nodes for word in ("--host", f"{node.host}:{node.port}")]
        keys = ["--certificate", str(pair.certificate), "--key", str(pair.key), "--username", name]
        return [*at, "--ca", str(self.authority.file), *keys]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("cluster"))
    with ground.cluster:
        yield ground


async def next_of(connection: Connection) -> bytes:
    async with asyncio.timeout(PATIENCE):
        message = await connection.receive()
    connection.acknowledge(message)
    return message.payload


async def all_retained(connection: Connection, topic: str) -> list[bytes]:
    found = []
    await connection.subscribe(topic)
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(QUIET):
                message = await connection.receive()
            connection.acknowledge(message)
            found.append(message.payload)
    return found


# -- what it carries ------------------------------------------------------------------------------


async def test_a_device_is_shut_in_with_its_own_topics_on_either_node(ground: Ground) -> None:
    for node in ground.cluster.nodes:
        async with ground.online("van-0001", node) as van:
            assert await van.publish("postern/v1/van-0001/up/entries", b"x") < REFUSED
            for topic in ("van-0002/up/entries", "van-0001/down/command", "+/up/entries"):
                with contextlib.suppress(ConnectionLost):
                    assert await van.publish(f"postern/v1/{topic}", b"x") >= REFUSED
        for topic in ("postern/v1/van-0002/down/#", "postern/v1/+/up/#", "postern/v1/+/down/#", "#"):
            async with ground.online("van-0001", node) as van:
                with pytest.raises(ConnectionLost, match="refused"):
                    await van.subscribe(topic)


async def test_without_the_certificate_of_that_name_nobody_comes_in(ground: Ground) -> None:
    node = ground.cluster.a
    own = ground.authority.context(ground.authority.issue("van-0001"))
    for name, tls in (("van-0002", own), ("van-0001", ground.authority.context())):
        with pytest.raises(ConnectionLost):
            await Connection(
                Server(host=node.host, port=node.port, client_id=name, username=name, tls=tls)
            ).connect(PATIENCE)
    async with ground.online("van-0009", node) as revoked:
        with contextlib.suppress(ConnectionLost):
            assert await revoked.publish("postern/v1/van-0009/up/entries", b"x") >= REFUSED


async def test_what_is_said_at_one_node_is_heard_at_the_other(ground: Ground) -> None:
    a, b = ground.cluster.nodes
    async with ground.online(COLLECTOR, b) as collector, ground.online("van-0001", a) as van:
        await collector.subscribe("postern/v1/+/up/#")
        await van.subscribe("postern/v1/van-0001/down/#")
        for n in range(200):
            assert await van.publish("postern/v1/van-0001/up/entries", b"%d" % n) == 0
        assert [await next_of(collector) for _ in range(200)] == [b"%d" % n for n in range(200)]
        assert await collector.publish("postern/v1/van-0001/down/receipt", b"r") == 0
        assert await next_of(van) == b"r"


async def test_what_one_node_retains_the_other_brings_nobody_until_it_was_told_as_well(
    ground: Ground,
) -> None:
    """If this fails, the broker has learned something: `push` need not go to each node any more."""
    a, b = ground.cluster.nodes
    topic = "postern/v1/van-0003/down/head"
    async with ground.online(PUBLISHER, a) as publisher:
        await publisher.publish(topic, b"1", retain=True)
    async with ground.online("van-0003", a) as van:
        assert await all_retained(van, topic) == [b"1"]
    async with ground.online("van-0003", b) as van:
        assert await all_retained(van, topic) == []
    async with ground.online(PUBLISHER, b) as publisher:
        await publisher.publish(topic, b"1", retain=True)
    async with ground.online("van-0003", b) as van:
        assert await all_retained(van, topic) == [b"1"]


async def test_shared_subscriptions_are_refused_in_so_many_words(ground: Ground) -> None:
    async with ground.online(COLLECTOR, ground.cluster.a) as collector:
        with pytest.raises(ConnectionLost, match="Shared subscription not supported"):
            await collector.subscribe("$share/fleet/postern/v1/+/up/#")


# -- one killed in the middle ---------------------------------------------------------------------


class Van:
    """A real agent with a backlog, that knows both nodes."""

    def __init__(self, ground: Ground, device: str) -> None:
        self.ground, self.device, self.folder = ground, device, ground.folder / device
        self.folder.mkdir()
        (self.folder / "state").mkdir(mode=0o700)
        pair, (a, b) = ground.authority.issue(device), ground.cluster.nodes
        self.config = self.folder / "postern.toml"
        self.config.write_text(
            CONFIG.format(
                device=device,
                folder=self.folder,
                a=a.port,
                b=b.port,
                ca=ground.authority.file,
                certificate=pair.certificate,
                key=pair.key,
                receipts=FLEET.verifier.text,
            )
        )

    @property
    def first(self) -> int:
        """Port of the node that it tries first."""
        return next(load(self.config).server().in_turn(by_name=True)).port

    def reconnected_with(self) -> int:
        """The backlog that it brought to the other node."""
        told = map(json.loads, (self.folder / "agent.log").read_text().splitlines())
        return int([each["backlog"] for each in told if each["event"] == "connected"][-1])

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        await asyncio.to_thread(
            backlog.fill, self.folder / "state", QUEUED, source=f"/postern/acme/{self.device}"
        )
        agent = [sys.executable, "-m", "agent", "--log-format", "json", "run", "--config", str(self.config)]
        with LineScanner(self.folder / "gun"), (self.folder / "agent.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*DIES_WITH_US, *agent, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.kill()
                await process.wait()


def vans(ground: Ground) -> tuple[Van, Van]:
    """One that tries the first node first, and one that tries the other."""
    made: dict[int, Van] = {}
    for n in range(10, 60):
        name = f"van-{n:04d}"
        firsts = [node.port for node in ground.cluster.nodes]
        server = Server(host="x", port=firsts[0], client_id=name, others=(("x", firsts[1]),))
        port = next(server.in_turn(by_name=True)).port
        if port not in made:
            made[port] = Van(ground, name)
    return made[ground.cluster.a.port], made[ground.cluster.b.port]


class Books:
    """One store, and what has come into it, each entry once."""

    def __init__(self, ground: Ground, *devices: str) -> None:
        self.arrived: dict[str, list[int]] = {device: [] for device in devices}
        self._ground = ground

    @contextlib.asynccontextmanager
    async def collector(self, node: Node, *others: Node) -> AsyncIterator[None]:
        """One that keeps to this node as long as it is there. Without --share each hears everything."""
        name = f"collector-{node.name}"
        server = self._ground.server(COLLECTOR, node, name, others=tuple((o.host, o.port) for o in others))
        async with Clerk(self._ground.folder / "fleet.db", FLEET) as clerk:
            collector = Collector(server, self._take, clerk=clerk)
            async with running(collector.run()):
                async with asyncio.timeout(PATIENCE):
                    await collector.online.wait()
                yield

    def _take(self, entry: Entry) -> None:
        self.arrived[entry["source"].rpartition("/")[2]].append(int(entry["sequence"]))
        self._ground.news.look()

    async def begun(self, device: str) -> None:
        """Until the first of a device's backlog is here, and not all of it: the broker has taken more."""
        arrived = self.arrived[device]
        await self._ground.news.until(lambda: arrived, PATIENCE)
        assert len(arrived) < QUEUED

    async def whole(self, device: str) -> None:
        """Until every entry of a device is here: once, by its id."""
        arrived = self.arrived[device]
        await self._ground.news.until(lambda: len(arrived) >= QUEUED, PATIENCE)
        wanted = range(1, QUEUED + 1)
        await self._ground.news.until(lambda: set(arrived).issuperset(wanted), PATIENCE)
        assert max(Counter(arrived).values()) == 1


async def test_a_node_killed_in_mid_drain_costs_no_entry(ground: Ground) -> None:
    a, b = ground.cluster.nodes
    here, there = vans(ground)
    assert (here.first, there.first) == (a.port, b.port)
    books = Books(ground, here.device, there.device)
    async with (
        books.collector(a),
        books.collector(b),
        ground.online(PUBLISHER, b) as looker,
        there.at_work(),
    ):
        await looker.subscribe("postern/v1/+/down/receipt")
        await books.whole(there.device)
        async with here.at_work():
            # Its first batches are at the books, and most of its backlog is not even at the broker.
            await books.begun(here.device)
            a.kill()
            await books.whole(here.device)
            await receipts(looker, here.device, there.device)
            assert here.reconnected_with() > 1, "the node was to die in mid-drain"


async def receipts(looker: Connection, *devices: str) -> None:
    """Until each has been given one that covers its backlog."""
    missing = set(devices)
    async with asyncio.timeout(PATIENCE):
        while missing:
            message = await looker.receive()
            looker.acknowledge(message)
            if int(message.payload.split(b"\n")[1]) >= QUEUED:
                missing.discard(message.topic.split("/")[2])


async def test_what_a_node_missed_while_it_was_dead_is_left_there_when_it_is_back(ground: Ground) -> None:
    """Also where it comes to life again: what it retained is still there, and is replaced."""
    a, b = ground.cluster.nodes
    keyring = ceremony(ground.folder / "keys")
    enrolled(keyring)
    head = ["fleet", "head", "--device", DEVICE, "--keys", str(keyring.folder), *ground.options(PUBLISHER)]
    topic = f"postern/v1/{DEVICE}/down/head"
    await alive(a)
    a.kill()
    assert await asyncio.to_thread(main, head) == 1
    async with ground.online(DEVICE, b) as van:
        (missed,) = await all_retained(van, topic)
    await alive(a)
    assert await asyncio.to_thread(main, head) == 0
    for node in (a, b):
        async with ground.online(DEVICE, node) as van:
            (newest,) = await all_retained(van, topic)
            assert newest != missed


async def alive(node: Node) -> None:
    if not node.alive:
        await asyncio.to_thread(node.start)
