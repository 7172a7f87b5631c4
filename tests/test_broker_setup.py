"""The broker as we ship it, a real mosquitto: who gets through to it, and who reads and writes what there."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent import enrolment
from agent.cli import main
from agent.config import load
from agent.fleet import certificates, ejabberd
from agent.fleet.ejabberd import yml
from agent.fleet.enrolment import enrol, read_request
from agent.fleet.keyring import PEM, PKCS8, Keyring, KeyringError
from agent.fleet.mosquitto import Where, Who, acl, conf
from agent.keystore import Keystore
from agent.mqtt import MAXIMUM_PACKET, Connection, ConnectionLost, ConnectRefused, Message, Will
from simulators.stage import postern
from tests.brokers import PATIENCE, Authority, Pair, connected, server
from tests.fleets import TENANT, ceremony, csr, enrolled, request
from tests.mosquitto import Mosquitto, free_port
from tests.schemas import unlike
from tests.site import DIES_WITH_US

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

SHIPPED = Path(__file__).parent.parent / "systemd" / "mosquitto"
ONE, OTHER = "van-0001", "locker-2"
COLLECTOR, PUBLISHER = "fleet.collector", "fleet.publisher"
NOT_AUTHORIZED = 0x87


@dataclass
class Fleet:
    """Keys, an authority for devices, another for the broker, and the broker itself."""

    folder: Path
    keyring: Keyring
    vouching: Authority
    broker: Mosquitto
    pairs: dict[str, Pair] = field(default_factory=dict)

    def member(self, name: str) -> Pair:
        """Key and certificate of a device, from its enrolment, or of a tool."""
        if name not in self.pairs:
            self.pairs[name] = self._tool(name) if name.startswith("fleet.") else self._device(name)
        return self.pairs[name]

    def _tool(self, name: str) -> Pair:
        return Pair(*certificates.issue_tool(self.keyring.folder, name, self.folder / "tools"))

    def _device(self, name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        welcome = enrolled(self.keyring, name, csr=asked.public_bytes(PEM).decode())
        return self.pair(name, key, welcome["certificate"])

    def pair(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: str) -> Pair:
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.certificate.write_text(certificate)
        pair.key.write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
        return pair

    @asynccontextmanager
    async def online(self, name: str, **values: Any) -> AsyncIterator[Connection]:
        """Somebody with the certificate of this name. What else they say of themselves is up to them."""
        tls = values.pop("tls", None) or self.vouching.context(self.member(name))
        async with connected(
            self.broker.port, values.pop("client_id", name), tls=tls, **values
        ) as connection:
            yield connection

    def options(self, name: str) -> list[str]:
        """How a command of the fleet reaches the broker."""
        pair = self.member(name)
        at = ["--host", self.broker.host, "--port", str(self.broker.port), "--ca", str(self.vouching.file)]
        return [*at, "--certificate", str(pair.certificate), "--key", str(pair.key)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with shipped(tmp_path) as made:
        yield made


@contextmanager
def shipped(tmp_path: Path) -> Iterator[Fleet]:
    """The broker runs on what `postern fleet broker-conf` has written, and on nothing else."""
    keyring, port, etc = ceremony(tmp_path / "keys"), free_port(), tmp_path / "etc"
    where = ("--folder", str(etc), "--data", str(tmp_path / "data"), "--port", str(port))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "agent",
            "fleet",
            "broker-conf",
            "--keys",
            keyring.folder,
            "--out",
            etc,
            *where,
        ],
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )
    (tmp_path / "data").mkdir()
    vouching = Authority(tmp_path, "vouching")
    own = vouching.issue("broker")
    shutil.copy(own.certificate, etc / "broker.pem")
    shutil.copy(own.key, etc / "broker.key")
    with Mosquitto(tmp_path, config=(etc / "postern.conf").read_text(), port=port) as broker:
        yield Fleet(tmp_path, keyring, vouching, broker)


async def received(connection: Connection) -> Message:
    async with asyncio.timeout(PATIENCE):
        message = await connection.receive()
    connection.acknowledge(message)
    return message


async def published(
    connection: Connection, topic: str, payload: bytes = b"x", *, retain: bool = False
) -> int:
    """The broker's reason code."""
    async with asyncio.timeout(PATIENCE):
        return await connection.publish(topic, payload, retain=retain)


def below(device: str, path: str) -> str:
    return f"postern/v1/{device}/{path}"


# -- what is shipped ------------------------------------------------------------------------------


def test_what_lies_in_systemd_is_what_the_command_writes() -> None:
    assert (SHIPPED / "postern.conf").read_text() == conf(Where())
    assert (SHIPPED / "acl").read_text() == acl(Who())
    assert (SHIPPED.parent / "ejabberd" / "ejabberd.yml").read_text() == yml(ejabberd.Where(), Who())


def test_the_command_writes_an_ejabberd_its_config_with_the_names_that_were_revoked(tmp_path: Path) -> None:
    keyring = ceremony(tmp_path / "keys")
    for name in (ONE, OTHER):
        enrolled(keyring, name, csr=csr(name))
    certificates.revoke(keyring.folder, ONE)
    conf = ["fleet", "broker-conf", "--broker", "ejabberd", "--keys", str(keyring.folder)]
    assert main([*conf, "--out", str(tmp_path / "out"), "--address", "127.0.0.1"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ejabberd.yml", "ca.pem"}
    where = ejabberd.Where(address="127.0.0.1")
    assert (tmp_path / "out" / "ejabberd.yml").read_text() == yml(where, Who(), [ONE])
    assert main([*conf, "--out", str(tmp_path / "out"), "--address", "everywhere"]) == 2


def test_a_tool_s_name_can_be_no_device_s_and_a_device_s_no_pattern(tmp_path: Path) -> None:
    keyring = ceremony(tmp_path)
    for name in ("+", "#", "van/1", "van+1", "van#1", "$SYS", "fleet.publisher", "Van-1", "a", "van 1"):
        with pytest.raises(enrolment.EnrolmentError):
            read_request(request(name), TENANT)
    with pytest.raises(enrolment.EnrolmentError, match=f"expected one for {ONE}"):
        read_request(request(ONE, csr=csr("fleet.publisher")), TENANT)
    for name in ("publisher", ONE, "fleet.+", "fleet./", "fleet.a#"):
        with pytest.raises(KeyringError, match=r"expected fleet\."):
            certificates.issue_tool(keyring.folder, name, tmp_path)


# -- who writes what ------------------------------------------------------------------------------

TOPICS = [
    *(below(device, path) for device in (ONE, OTHER) for path in ("up/entries", "up/state", "down/command")),
    below(ONE, "down/receipt"),
    below(ONE, "down/time"),
    below(ONE, "down/root"),
    below(ONE, "down/bundle/roster"),
    below(ONE, "upper/entries"),
    "postern/v1/up/entries",
    "postern/v2/van-0001/up/entries",
    "anything",
]

WRITES = {
    ONE: {below(ONE, "up/entries"), below(ONE, "up/state")},
    OTHER: {below(OTHER, "up/entries"), below(OTHER, "up/state")},
    COLLECTOR: {
        *(below(ONE, path) for path in ("down/receipt", "down/time", "down/root", "down/command")),
        below(OTHER, "down/command"),
    },
    PUBLISHER: {topic for topic in TOPICS if "/down/" in topic},
}


@pytest.mark.parametrize("name", WRITES)
async def test_everybody_writes_their_own_topics_and_no_others(fleet: Fleet, name: str) -> None:
    async with fleet.online(name) as connection:
        codes = {topic: await published(connection, topic) for topic in TOPICS}
    assert {topic for topic, code in codes.items() if code < NOT_AUTHORIZED} == WRITES[name]
    assert set(codes.values()) <= {0x00, 0x10, NOT_AUTHORIZED}


async def test_nobody_leaves_a_will_where_they_may_not_write(fleet: Fleet) -> None:
    tls = fleet.vouching.context(fleet.member(ONE))
    async with fleet.online(COLLECTOR) as collector:
        await collector.subscribe("postern/v1/+/up/state")
        for device in (OTHER, ONE):
            will = Will(topic=below(device, "up/state"), payload=b'{"online":false}')
            connection = Connection(server(fleet.broker.port, ONE, tls=tls), will)
            # Which broker refuses the connection and which the will is all the same.
            with suppress(ConnectRefused):
                await connection.connect()
            await connection.close()
        assert (await received(collector)).topic == below(ONE, "up/state")


# -- who reads what -------------------------------------------------------------------------------

GREEDY = (
    "#",
    "+/#",
    "postern/#",
    "postern/v1/+/up/#",
    "postern/v1/+/down/#",
    f"postern/v1/{OTHER}/#",
    f"postern/v1/{OTHER}/down/command",
    f"postern/v1/{OTHER}/up/state",
    "$share/thieves/postern/v1/+/down/#",
    "$SYS/#",
)


async def test_a_device_hears_what_is_for_it_whatever_it_asks_for(fleet: Fleet) -> None:
    async with AsyncExitStack() as stack:
        one, other, publisher = [
            await stack.enter_async_context(fleet.online(name)) for name in (ONE, OTHER, PUBLISHER)
        ]
        # Retained before and sent after the subscription, both ways.
        assert await published(other, below(OTHER, "up/state"), retain=True) < NOT_AUTHORIZED
        assert await published(publisher, below(OTHER, "down/head"), retain=True) < NOT_AUTHORIZED
        for greedy in GREEDY:
            await one.subscribe(greedy)
        await other.subscribe(below(OTHER, "down/#"))
        await published(other, below(OTHER, "up/entries"))
        await published(publisher, below(OTHER, "down/command"), b"for the other")
        assert {(await received(other)).topic for _ in range(2)} == {
            below(OTHER, "down/head"),
            below(OTHER, "down/command"),
        }
        # The broker keeps an order: had anything else been for it, it would be here before this.
        await published(publisher, below(ONE, "down/command"), b"for the one")
        heard = await received(one)
        assert (heard.topic, heard.payload) == (below(ONE, "down/command"), b"for the one")
        assert {message.topic for message in one.waiting()} <= {below(ONE, "down/command")}


async def test_the_collector_hears_all_devices_and_not_what_they_are_told(fleet: Fleet) -> None:
    async with AsyncExitStack() as stack:
        one, other, collector, publisher = [
            await stack.enter_async_context(fleet.online(name)) for name in (ONE, OTHER, COLLECTOR, PUBLISHER)
        ]
        await collector.subscribe("postern/v1/+/up/#", "postern/v1/+/down/#")
        await published(publisher, below(ONE, "down/command"))
        await published(one, below(ONE, "up/entries"))
        await published(other, below(OTHER, "up/entries"))
        heard = {(await received(collector)).topic for _ in range(2)}
        assert heard == {below(ONE, "up/entries"), below(OTHER, "up/entries")}


async def test_a_name_that_is_a_pattern_reaches_nobody(fleet: Fleet) -> None:
    """Enrolment gives no such name; were the authority tricked into it, the broker would not serve it."""
    for name in ("+", "#", f"{OTHER}/up", "van/+"):
        key = ec.generate_private_key(ec.SECP256R1())
        pair = fleet.pair("rogue", key, certificates.issue(fleet.keyring.folder, key.public_key(), name))
        async with fleet.online(OTHER) as other, fleet.online(PUBLISHER) as publisher:
            await other.subscribe(below(OTHER, "down/#"))
            try:
                async with fleet.online("rogue", tls=fleet.vouching.context(pair)) as rogue:
                    await rogue.subscribe("#")
                    await published(publisher, below(OTHER, "down/command"))
                    await published(other, below(OTHER, "up/entries"))
                    assert await published(rogue, below(OTHER, "up/entries")) == NOT_AUTHORIZED
                    assert await published(rogue, below(OTHER, "down/command")) == NOT_AUTHORIZED
                    assert not rogue.waiting()
            except ConnectionLost:
                # Not let in at all, or sent away for it.
                continue


# -- who is let in --------------------------------------------------------------------------------


async def test_nobody_takes_over_another_s_session_by_its_client_id(fleet: Fleet) -> None:
    async with fleet.online(OTHER) as other:
        async with fleet.online(ONE, client_id=OTHER) as one:
            assert await published(one, below(OTHER, "up/entries")) == NOT_AUTHORIZED
            assert await published(one, below(ONE, "up/entries")) < NOT_AUTHORIZED
        assert await published(other, below(OTHER, "up/entries")) < NOT_AUTHORIZED
        assert not other.lost.done()


async def test_a_user_name_that_is_typed_counts_for_nothing(fleet: Fleet) -> None:
    async with fleet.online(ONE, username=PUBLISHER, password="secret") as one:
        assert await published(one, below(OTHER, "down/command")) == NOT_AUTHORIZED


async def test_without_a_certificate_of_the_fleet_s_nobody_is_let_in(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority(tmp_path / "elsewhere", "stranger").issue(ONE)
    # The broker's own authority vouches for brokers, not for devices.
    for pair in (None, stranger, fleet.vouching.issue(ONE)):
        with pytest.raises(ConnectionLost):
            async with fleet.online(ONE, tls=fleet.vouching.context(pair)):
                pass


async def test_nothing_older_than_tls_1_3_is_spoken(fleet: Fleet) -> None:
    old = fleet.vouching.context(fleet.member(ONE))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConnectionLost):
        async with fleet.online(ONE, tls=old):
            pass


async def test_a_revoked_certificate_is_let_in_no_more_and_a_new_one_is(fleet: Fleet) -> None:
    async with fleet.online(ONE), fleet.online(OTHER):
        pass
    keys = ("--keys", str(fleet.keyring.folder), "--json")
    told = await postern(
        "fleet", "certificates", "revoke", ONE, "--out", str(fleet.folder / "etc/crl.pem"), *keys
    )
    assert json.loads(told)["revoked"] == 1
    fleet.broker.restart()
    with pytest.raises(ConnectionLost):
        async with fleet.online(ONE):
            pass
    async with fleet.online(OTHER):
        pass
    shown = [
        json.loads(line) for line in (await postern("fleet", "certificates", "show", *keys)).splitlines()
    ]
    assert {each["name"] for each in shown if each["revoked"]} == {ONE}
    key = ec.generate_private_key(ec.SECP256R1())
    fresh = fleet.pair("fresh", key, certificates.issue(fleet.keyring.folder, key.public_key(), ONE))
    async with fleet.online(ONE, tls=fleet.vouching.context(fresh)) as again:
        assert await published(again, below(ONE, "up/entries")) < NOT_AUTHORIZED


async def test_a_device_s_certificate_passes_for_no_broker_s(fleet: Fleet, tmp_path: Path) -> None:
    """Even where one authority vouches for both: what it gives to devices is for clients alone."""
    pair = fleet.member(ONE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    client = ssl.create_default_context(cafile=fleet.keyring.folder / "ca.pem")
    client.check_hostname = False
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
            await asyncio.open_connection("127.0.0.1", port, ssl=client)


# -- limits, and what is kept ---------------------------------------------------------------------


async def test_the_broker_takes_packets_as_large_as_ours_and_no_larger(fleet: Fleet) -> None:
    async with fleet.online(ONE) as one:
        assert one.packet_limit == MAXIMUM_PACKET
        assert await published(one, below(ONE, "up/entries"), bytes(MAXIMUM_PACKET - 100)) < NOT_AUTHORIZED
        late = one.publish(below(ONE, "up/entries"), bytes(MAXIMUM_PACKET))
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(PATIENCE):
                await late


async def test_what_is_retained_outlives_the_broker(fleet: Fleet) -> None:
    async with fleet.online(PUBLISHER) as publisher:
        await published(publisher, below(ONE, "down/head"), b"a head", retain=True)
    fleet.broker.restart()
    async with fleet.online(ONE) as one:
        await one.subscribe(below(ONE, "down/head"))
        assert (await received(one)).payload == b"a head"


# -- the real agent -------------------------------------------------------------------------------

CONFIG = """
[device]
id = "{device}"
tenant = "{tenant}"
state = "{state}"

[broker]
host = "127.0.0.1"
port = {port}
"""


def brought_in(fleet: Fleet) -> Path:
    """A device that has asked, was answered, and has put the answer in place; its config file."""
    state, path = fleet.folder / "state", fleet.folder / "postern.toml"
    path.write_text(CONFIG.format(device=ONE, tenant=TENANT, state=state, port=fleet.broker.port))
    audience = load(path).audience
    asked = enrolment.request(state, Keystore.of(state), audience, now=1, claim=None)
    welcome = enrol(fleet.keyring, read_request(asked.raw, TENANT), (), fleet.vouching.file.read_text())
    read = enrolment.read_welcome(json.dumps(welcome).encode())
    enrolment.accept(state, read, audience, read.fingerprint)
    return path


async def test_an_enrolled_agent_is_heard_and_told_through_it(fleet: Fleet) -> None:
    config = brought_in(fleet)
    words = ["fleet", "collect", "--json", "--keys", str(fleet.keyring.folder), *fleet.options(COLLECTOR)]
    async with running(*words) as collecting, running("run", "--config", str(config)):
        entries = [await entry_of(collecting, "postern.clock.corrected")]
        keys = ("--keys", str(fleet.keyring.folder))
        await postern("fleet", "head", "--device", ONE, *keys, *fleet.options(PUBLISHER))
        entries.append(await entry_of(collecting, "postern.fleet.head_accepted"))
    assert {entry["source"] for entry in entries} == {f"/postern/{TENANT}/{ONE}"}
    assert not unlike(entries)


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[asyncio.StreamReader]:
    """A command of ours, what it prints, and its end. Who collects is waited for."""
    process = await asyncio.create_subprocess_exec(
        *(DIES_WITH_US if os.name == "posix" else ()),
        sys.executable, "-m", "agent", "--log-level", "info", *words,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if "collect" in words else None,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        if process.stderr is not None:
            async with asyncio.timeout(3 * PATIENCE):
                while b"subscribed" not in (line := await process.stderr.readline()):
                    assert line, "the command has ended"
        yield process.stdout
    finally:
        process.terminate()
        await process.communicate()


async def entry_of(printed: asyncio.StreamReader, type_: str) -> dict[str, Any]:
    async with asyncio.timeout(3 * PATIENCE):
        while True:
            line = await printed.readline()
            assert line, "the command has ended"
            entry: dict[str, Any] = json.loads(line)
            if entry.get("type") == type_:
                return entry
