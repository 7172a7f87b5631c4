"""What only our broker does: faults on demand, and points where mosquitto 2.0.11 is laxer than the standard.

Mosquitto ends a taken-over connection without a reason, lets a window slide past its end, and sends retained
messages to share groups.
"""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simulators.broker import Broker
from simulators.mqtt5 import Connect, Publish
from tests.broker_peer import Peers

ROOT = Path(__file__).parent.parent
SESSION: dict[str, Any] = {"session_expiry": 300, "clean_start": False}


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
async def peers(broker: Broker) -> AsyncIterator[Peers]:
    async with Peers(broker.port) as peers:
        yield peers


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and that of a client that trusts it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=127.0.0.1")
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "broker.pem"
    file.write_bytes(secret + certificate.public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


# -- stricter than the other ----------------------------------------------------------------------


async def test_a_connection_that_is_taken_over_is_told_so(peers: Peers) -> None:
    old = await peers.connected("van", **SESSION)
    await peers.connected("van", **SESSION)
    assert await old.ended() == 0x8E


async def test_one_acknowledgement_lets_one_more_message_out(peers: Peers) -> None:
    peer, publisher = await peers.connected(manual_ack=True, ReceiveMaximum=2), await peers.connected()
    await peer.subscribe("a")
    for payload in (b"1", b"2", b"3", b"4"):
        await publisher.publish("a", payload)
    first, _ = await peer.message(), await peer.message()
    peer.acknowledge(first)
    assert await peer.payloads() == [b"3"]


async def test_qos_0_overtakes_a_full_window(peers: Peers) -> None:
    peer = await peers.connected(manual_ack=True, ReceiveMaximum=1)
    await peer.subscribe("a")
    await peer.publish("a", b"1")
    await peer.publish("a", b"2")
    peer.send("a", b"now", 0)
    assert await peer.payloads() == [b"1", b"now"]


async def test_retained_messages_do_not_greet_a_share_group(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.publish("a", b"x", retain=True)
    await peer.subscribe("$share/fleet/a")
    assert await peer.payloads() == []


async def test_a_share_group_serves_its_members_who_are_there(broker: Broker, peers: Peers) -> None:
    away, here = await peers.connected("away", **SESSION), await peers.connected("here", **SESSION)
    await away.subscribe("$share/fleet/a")
    await here.subscribe("$share/fleet/a")
    await away.leave()
    await here.publish("a", b"1")
    await here.publish("a", b"2")
    assert await here.payloads() == [b"1", b"2"]


async def test_overlapping_subscriptions_bring_a_message_once(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.subscribe("a/#", qos=0, identifier=1)
    await peer.subscribe("a/b", qos=1, identifier=2)
    await peer.publish("a/b", b"x")
    message = await peer.message()
    properties: Any = message.properties
    assert (message.qos, sorted(properties.SubscriptionIdentifier)) == (1, [1, 2])
    assert await peer.payloads() == []


async def test_its_limits_are_announced(peers: Peers) -> None:
    _, _, told = await peers.new().connect()
    assert told.ReceiveMaximum == 100
    assert told.MaximumPacketSize == 1024 * 1024
    assert told.MaximumQoS == 1
    assert told.TopicAliasMaximum == 0


async def test_qos_2_is_refused(broker: Broker, peers: Peers) -> None:
    peer = await peers.connected()
    peer.send("a", b"x", 2)
    assert await peer.ended() == 0x9B
    assert not broker.received


async def test_one_publish_over_the_receive_maximum_ends_the_connection(broker: Broker, peers: Peers) -> None:
    broker.receive_maximum, broker.withhold_puback = 2, True
    peer = await peers.connected()
    for _ in range(3):
        peer.send("a", b"x")
    assert await peer.ended() == 0x93
    assert broker.received["a"] == 2


async def test_a_silent_client_is_sent_away_after_one_and_a_half_keepalives(peers: Peers) -> None:
    peer = await peers.connected(keepalive=1)
    started = asyncio.get_running_loop().time()
    await peer.publish("a", b"last word")
    assert await peer.ended() == 0x8D
    assert asyncio.get_running_loop().time() - started >= 1.5


async def test_a_session_ends_when_its_time_is_over(broker: Broker, peers: Peers) -> None:
    peer = await peers.connected("van", session_expiry=1)
    await peer.leave()
    assert "van" in broker.sessions
    await broker.until(lambda: "van" not in broker.sessions)


async def test_a_delayed_will_is_not_sent_when_the_client_is_back_in_time(
    broker: Broker, peers: Peers
) -> None:
    sent: list[Publish] = []
    broker.tap = sent.append
    peer = peers.new("van")
    for payload in (b"came back", b"stayed away"):
        peer.will("van/state", payload, WillDelayInterval=1)
        await peer.connect(**SESSION)
        await peer.vanish()
        await broker.until(lambda: "van" not in broker.connections)
    await broker.until(lambda: len(sent) > 0)
    assert sent[0].payload == b"stayed away"


async def test_a_full_queue_loses_its_oldest_and_counts(broker: Broker, peers: Peers) -> None:
    broker.queue_limit = 2
    peer, publisher = await peers.connected("van", **SESSION), await peers.connected()
    await peer.subscribe("a")
    await peer.leave()
    for payload in (b"1", b"2", b"3"):
        await publisher.publish("a", payload)
    assert broker.sessions["van"].waiting == 2
    await peer.connect(**SESSION)
    assert await peer.payloads() == [b"2", b"3"]
    assert broker.dropped == {"queue_full": 1}


async def test_who_may_come_in_is_asked(broker: Broker, peers: Peers) -> None:
    def knows(connect: Connect) -> bool:
        return (connect.username, connect.password) == ("van", b"secret")

    broker.authenticate = knows
    peer = peers.new()
    peer.paho.username_pw_set("van", "guess")
    assert (await peer.connect())[0] == 0x86
    await peer.ended()
    peer.paho.username_pw_set("van", "secret")
    assert (await peer.connect())[0] == 0


# -- faults ---------------------------------------------------------------------------------------


async def test_a_withheld_puback_is_for_a_message_that_was_accepted(broker: Broker, peers: Peers) -> None:
    accepted: list[Publish] = []
    broker.tap, broker.withhold_puback = accepted.append, 2
    peer = await peers.connected()
    mids = [peer.send("a", payload) for payload in (b"1", b"2", b"3")]
    assert await peer.answer(mids[2]) == [0x10]
    assert [message.payload for message in accepted] == [b"1", b"2", b"3"]
    assert broker.withhold_puback == 0
    broker.release_pubacks()
    assert await peer.answer(mids[0]) == [0x10]
    assert await peer.answer(mids[1]) == [0x10]


async def test_all_pubacks_are_withheld_until_further_notice(broker: Broker, peers: Peers) -> None:
    broker.withhold_puback = True
    peer = await peers.connected()
    peer.send("a", b"1")
    peer.send("a", b"2")
    await broker.until(lambda: broker.received["a"] == 2)
    broker.withhold_puback = False
    assert await peer.publish("a", b"3") == 0x10


@pytest.mark.parametrize("reason", [0x87, 0x97])
async def test_the_publishes_that_are_picked_are_refused(broker: Broker, peers: Peers, reason: int) -> None:
    broker.puback_reason, broker.puback_reason_for = reason, lambda message: message.payload == b"bad"
    peer = await peers.connected()
    await peer.subscribe("a")
    assert await peer.publish("a", b"bad", retain=True) == reason
    assert await peer.publish("a", b"good") == 0
    assert await peer.payloads() == [b"good"]
    assert (broker.refused["a"], broker.received["a"], broker.retained) == (1, 1, {})


async def test_where_none_is_picked_every_publish_is_refused(broker: Broker, peers: Peers) -> None:
    broker.puback_reason = 0x97
    peer = await peers.connected()
    peer.send("a", b"x", 0)
    assert await peer.publish("a", b"x") == 0x97
    assert (broker.refused["a"], broker.received["a"]) == (2, 0)


async def test_a_refused_client_is_told_why(broker: Broker, peers: Peers) -> None:
    broker.refuse_connect = 0x88
    peer = peers.new()
    assert (await peer.connect())[0] == 0x88
    await peer.ended()
    broker.refuse_connect = None
    assert (await peer.connect())[0] == 0


async def test_the_connection_breaks_between_publish_and_puback(broker: Broker, peers: Peers) -> None:
    broker.forget_between_publish_and_puback = 1
    peer = await peers.connected("van", **SESSION)
    mid = peer.send("a", b"x")
    await peer.ended()
    assert broker.received["a"] == 1
    await peer.connect(**SESSION)  # paho sends it again
    assert await peer.answer(mid) == [0x10]
    assert broker.received["a"] == 2


async def test_all_connections_are_reset_and_wills_are_published(broker: Broker, peers: Peers) -> None:
    peer = peers.new("van")
    peer.will("van/state", b"offline")
    await peer.connect()
    broker.drop_all()
    assert await peer.ended() == 0x80
    await broker.until(lambda: broker.received["van/state"] == 1)
    assert not broker.connections


async def test_amnesia_takes_sessions_and_leaves_retained_messages(broker: Broker, peers: Peers) -> None:
    away, here = await peers.connected("away", **SESSION), await peers.connected("here", **SESSION)
    await away.subscribe("a")
    await away.leave()
    await here.publish("a", b"x", retain=True)
    broker.forget_sessions()
    assert await here.ended() == 0x80
    assert not broker.sessions
    assert list(broker.retained) == ["a"]
    for peer in (away, here):
        assert (await peer.connect(**SESSION))[1] is False
    assert await away.payloads() == []


async def test_a_restarted_broker_has_its_port_and_its_sessions(broker: Broker, peers: Peers) -> None:
    peer, port = await peers.connected("van", **SESSION), broker.port
    await peer.subscribe("a")
    await broker.stop()
    assert await peer.ended() == 0x8B
    broker.publish(Publish(topic="a", payload=b"x", qos=1, retain=True))
    await broker.start()
    assert broker.port == port
    assert (await peer.connect(**SESSION))[1] is True
    assert await peer.payloads() == [b"x"]
    assert "a" in broker.retained


async def test_a_stopping_broker_leaves_no_connection_open(broker: Broker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    await broker.stop()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("rounds", range(5))
async def test_a_connection_accepted_in_the_very_moment_of_stopping_is_closed(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], rounds: int, encrypted: bool
) -> None:
    broker = Broker(tls=tls[0] if encrypted else None)
    await broker.start()
    with socket.create_connection(("127.0.0.1", broker.port)) as caller:
        for _ in range(rounds):  # of the event loop: each brings the connection one step further
            await asyncio.sleep(0)
        await broker.stop()
        caller.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert caller.recv(1) == b""
    assert not broker.clients


async def test_a_delayed_broker_keeps_its_order_and_its_window(broker: Broker, peers: Peers) -> None:
    broker.delay, broker.receive_maximum = 0.05, 3
    peer = await peers.connected()
    await peer.subscribe("a")
    started = asyncio.get_running_loop().time()
    for payload in (b"1", b"2", b"3"):
        peer.send("a", payload)
    assert await peer.payloads() == [b"1", b"2", b"3"]
    assert asyncio.get_running_loop().time() - started >= 0.05
    broker.delay = 3600
    for _ in range(4):
        peer.send("a", b"too fast")
    assert await peer.ended() == 0x93


async def test_a_subscriber_that_does_not_read_holds_up_nobody(broker: Broker, peers: Peers) -> None:
    reader, publisher = await peers.connected("slow"), await peers.connected()
    await reader.subscribe("a")
    sock = reader.paho.socket()
    asyncio.get_running_loop().remove_reader(sock)  # type: ignore[arg-type]
    for _ in range(100):
        assert await publisher.publish("a", b"x" * 100_000) == 0
    assert broker.sessions["slow"].waiting == 100
    asyncio.get_running_loop().add_reader(sock, reader.paho.loop_read)  # type: ignore[arg-type]
    for _ in range(100):
        assert len((await reader.message()).payload) == 100_000
    await broker.until(lambda: broker.sessions["slow"].waiting == 0)


# -- around it ------------------------------------------------------------------------------------


async def test_small_packets_are_not_held_back(broker: Broker, peers: Peers) -> None:
    await peers.connected("van")
    tcp = broker.connections["van"].link.tcp
    assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_it_speaks_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls
    async with Broker(tls=server) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port, ssl=client)
        writer.write(bytes.fromhex("10 10 0004 4d515454 05 02 0000 00 0003 76616e"))
        assert (await reader.readexactly(4))[:1] == b"\x20"
        await broker.stop()
        assert b"\xe0\x02\x8b\x00" in await reader.read()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_it_runs_by_hand_and_ends_cleanly(ending: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.broker", "--port", "0", stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    async with Peers(int(line.decode().rpartition(":")[2])) as peers:
        peer = await peers.connected()
        process.send_signal(ending)
        assert await peer.ended() == 0x8B
    assert (await process.communicate()) == (b"", b"")
    assert process.returncode == 0
