"""One connection: what it promises to whoever uses it, on both brokers and over bad ways."""

import asyncio
import base64
import contextlib
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest

from agent.mqtt import MESSAGES, RECEIVE_MAXIMUM, Connection, ConnectionLost, ConnectRefused, Message, Will
from simulators.broker import Broker
from simulators.mqtt5 import Publish
from simulators.relay import Relay
from tests.brokers import (
    BROKERS,
    PATIENCE,
    AnyBroker,
    Authority,
    broker_of,
    connected,
    server,
)
from tests.mosquitto import Mosquitto, free_port

WILL = Will(topic="postern/v1/van-0042/up/state", payload=b'{"online":false}')
CONNACK = bytes.fromhex("2003000000")


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def ours() -> AsyncIterator[Broker]:
    async with Broker() as made:
        yield made


async def received(connection: Connection) -> Message:
    async with asyncio.timeout(PATIENCE):
        return await connection.receive()


async def loss(connection: Connection) -> ConnectionLost:
    async with asyncio.timeout(PATIENCE):
        return await connection.lost


class Speaking:
    """Something that answers what it hears, one thing after the other, and then listens in silence."""

    def __init__(self, *answers: bytes) -> None:
        self.called = asyncio.Event()
        self.port = 0
        self._answers = answers

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        for answer in self._answers:
            await reader.read(1000)
            writer.write(answer)
        await reader.read()
        writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()


# -- publishing -----------------------------------------------------------------------------------


async def test_a_publish_is_answered_with_its_reason_code(broker: AnyBroker) -> None:
    async with connected(broker.port) as connection, connected(broker.port, "fleet") as fleet:
        assert await connection.publish("a", b"nobody") == 0x10
        await fleet.subscribe("a")
        assert await connection.publish("a", b"somebody") == 0


async def test_what_is_published_arrives_with_its_properties(broker: AnyBroker) -> None:
    async with connected(broker.port) as connection, connected(broker.port, "fleet") as fleet:
        await fleet.subscribe("a/+")
        await connection.publish("a/b", b"x", content_type="text/plain", properties=[("from", "1")])
        message = await received(fleet)
        assert (message.topic, message.payload, message.properties) == ("a/b", b"x", {"from": "1"})


@pytest.mark.parametrize("name", BROKERS)
async def test_there_is_room_for_as_much_as_the_broker_takes(name: str, tmp_path: Path) -> None:
    async with broker_of(name, tmp_path, receive_maximum=1) as broker, connected(broker.port) as connection:
        assert connection.room == 1
        acked = connection.publish("a", b"x")
        assert connection.room == 0
        await acked
        assert connection.room == 1


@pytest.mark.parametrize("name", BROKERS)
async def test_the_largest_packet_is_the_brokers(name: str, tmp_path: Path) -> None:
    async with (
        broker_of(name, tmp_path, maximum_packet_size=1024) as broker,
        connected(broker.port) as connection,
    ):
        assert connection.packet_limit == 1024


async def test_a_refused_publish_is_told_from_an_accepted_one(ours: Broker) -> None:
    ours.puback_reason, ours.puback_reason_for = 0x97, lambda message: message.payload == b"bad"
    async with connected(ours.port) as connection:
        bad, good = connection.publish("a", b"bad"), connection.publish("a", b"good")
        assert (await bad, await good) == (0x97, 0x10)


# -- receiving ------------------------------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again(broker: AnyBroker) -> None:
    async with connected(broker.port, "fleet", session_expiry=60) as fleet:
        await fleet.subscribe("a")
        async with connected(broker.port) as connection:
            await connection.publish("a", b"1")
            await connection.publish("a", b"2")
        first, _ = await received(fleet), await received(fleet)
        fleet.acknowledge(first)
    async with connected(broker.port, "fleet", session_expiry=60) as fleet:
        again = await received(fleet)
        assert again.payload == b"2"
        fleet.acknowledge(again)


async def test_a_consumer_that_is_slow_has_a_bounded_number_of_messages_waiting(broker: AnyBroker) -> None:
    async with connected(broker.port, "fleet") as fleet, connected(broker.port) as connection:
        await fleet.subscribe("a")
        for number in range(RECEIVE_MAXIMUM + 1):
            await connection.publish("a", str(number).encode())
        taken = [await received(fleet) for _ in range(RECEIVE_MAXIMUM)]
        more = asyncio.ensure_future(received(fleet))
        # The answer to this is behind anything that the broker would have sent.
        await fleet.publish("elsewhere", b"")
        assert not more.done()
        for message in taken:
            fleet.acknowledge(message)
        assert (await more).payload == str(RECEIVE_MAXIMUM).encode()


async def test_a_flood_of_qos_0_is_dropped_over_the_bound(ours: Broker) -> None:
    async with connected(ours.port, "fleet") as fleet:
        await fleet.subscribe("a")
        for _ in range(MESSAGES + 10):
            ours.publish(Publish(topic="a", payload=b"x", qos=0))
        await fleet.publish("elsewhere", b"")
        assert fleet.dropped == 10


async def test_a_subscription_that_is_refused_ends_it() -> None:
    refusal = bytes.fromhex("9004 0001 00 87")
    async with Speaking(CONNACK, refusal) as broker, connected(broker.port) as connection:
        with pytest.raises(ConnectionLost, match="subscription to a refused") as refused:
            await connection.subscribe("a")
        assert refused.value.code == 0x87


# -- birth and death ------------------------------------------------------------------------------


async def watched_will(watcher: Connection) -> tuple[bytes, bool]:
    message = await received(watcher)
    watcher.acknowledge(message)
    return message.payload, message.retained


async def test_the_will_is_said_when_the_connection_dies(broker: AnyBroker) -> None:
    async with (
        Relay(broker.host, broker.port) as relay,
        connected(broker.port, "fleet") as fleet,
        connected(relay.port, will=WILL),
    ):
        await fleet.subscribe(WILL.topic)
        relay.cut()
        assert await watched_will(fleet) == (WILL.payload, False)


async def test_the_will_is_said_at_an_orderly_end_and_kept(broker: AnyBroker) -> None:
    async with connected(broker.port, will=WILL) as connection:
        await connection.publish(WILL.topic, b'{"online":true}', retain=True)
    async with connected(broker.port, "fleet") as fleet:
        await fleet.subscribe(WILL.topic)
        assert await watched_will(fleet) == (WILL.payload, True)


async def test_the_older_of_two_with_one_name_is_lost(broker: AnyBroker) -> None:
    async with connected(broker.port, "van") as older, connected(broker.port, "van") as newer:
        await loss(older)
        assert await newer.publish("a", b"x") < 128


async def test_the_reason_for_being_sent_away_is_known(ours: Broker) -> None:
    async with connected(ours.port) as connection:
        await ours.stop()
        assert (await loss(connection)).code == 0x8B


async def test_a_refused_client_knows_why(ours: Broker) -> None:
    ours.refuse_connect = 0x88
    with pytest.raises(ConnectRefused, match="Server unavailable") as refused:
        async with connected(ours.port):
            pass
    assert refused.value.code == 0x88


async def test_nobody_there_is_a_loss_that_names_the_place() -> None:
    port = free_port()
    with pytest.raises(ConnectionLost, match=rf"127\.0\.0\.1:{port}: .*Errno 111"):
        async with connected(port):
            pass


async def test_every_waiter_has_its_own_exception(ours: Broker) -> None:
    ours.withhold_puback = True
    async with connected(ours.port) as connection:
        waiters = [connection.publish("a", b"x") for _ in range(2)]
        ours.drop_all()
        await loss(connection)
        errors = [waiting.exception() for waiting in waiters]
        errors.append(connection.publish("a", b"late").exception())
        assert len({id(error) for error in errors}) == 3
        assert {type(error) for error in errors} == {ConnectionLost}
        with pytest.raises(ConnectionLost):
            await connection.subscribe("a")
        with pytest.raises(ConnectionLost):
            await connection.receive()


async def test_closing_twice_is_closing_once(broker: AnyBroker) -> None:
    async with connected(broker.port) as connection:
        await connection.close()
        assert str(connection.lost.result()) == "closed by us"


# -- silence --------------------------------------------------------------------------------------


async def test_a_broker_that_accepts_and_says_nothing_is_left(ours: Broker) -> None:
    async with Relay(ours.host, ours.port) as relay:
        relay.hang()
        connection = Connection(server(relay.port))
        with pytest.raises(ConnectionLost, match=r"no answer within 0\.05 s"):
            await connection.connect(within=0.05)
        await connection.close()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_connecting_can_be_given_up(encrypted: bool) -> None:
    tls = ssl.create_default_context() if encrypted else None
    async with Speaking() as broker:
        connection = Connection(server(broker.port, tls=tls))
        connecting = asyncio.create_task(connection.connect())
        await broker.called.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await connection.close()


async def test_a_way_that_goes_silent_is_noticed_by_the_keepalive(broker: AnyBroker) -> None:
    async with Relay(broker.host, broker.port) as relay, connected(relay.port, keepalive=1) as connection:
        relay.hang()
        assert "Keep alive" in str(await loss(connection))


async def test_a_broker_that_never_acknowledges_is_left(ours: Broker) -> None:
    ours.withhold_puback = True
    async with connected(ours.port, keepalive=1) as connection:
        connection.publish("a", b"x")
        assert "no acknowledgement" in str(await loss(connection))


async def test_a_slow_way_that_still_acknowledges_is_not_left(ours: Broker) -> None:
    async with Relay(ours.host, ours.port) as relay, connected(relay.port, keepalive=1) as connection:
        relay.rate = 20_000
        # Eight times half a second: each acknowledgement is a sign of life for those behind it.
        assert {await each for each in [connection.publish("a", bytes(10_000)) for _ in range(8)]} == {0x10}


# -- what a broker should never send --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_garbage_ends_the_connection_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    packets = ["40040001 8000", "90040001 0001", "3210000161000100260001610001627878", "30060001610003ff"]
    garbage = bytearray(bytes.fromhex(rng.choice(packets)))
    garbage[rng.randrange(len(garbage))] = rng.randrange(256)
    impossible = b"\xf5\x00"
    async with (
        Speaking(CONNACK + bytes(garbage) + impossible * 200) as broker,
        connected(broker.port) as connection,
    ):
        await loss(connection)


async def test_a_packet_over_our_limit_is_not_waited_for() -> None:
    huge = b"\x30\xff\xff\xff\x7f"
    async with Speaking(CONNACK + huge) as broker, connected(broker.port) as connection:
        await loss(connection)


async def test_a_broker_without_qos_1_is_refused() -> None:
    async with Speaking(bytes.fromhex("2005 00 00 02 2400")) as broker:
        with pytest.raises(ConnectRefused, match="QoS 1"):
            async with connected(broker.port):
                pass


# -- being let in ---------------------------------------------------------------------------------


def password_line(username: str, password: bytes) -> str:
    """As mosquitto keeps it: PBKDF2 with SHA-512."""
    salt, rounds = b"twelve bytes", 101
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, rounds)
    text = "$".join(base64.b64encode(part).decode() for part in (salt, digest))
    return f"{username}:$7${rounds}${text}\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def guarded(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    """A mosquitto that lets in whoever shows a certificate of the authority."""
    pair = authority.issue("127.0.0.1")
    lines = [
        f"cafile {authority.file}",
        f"certfile {pair.certificate}",
        f"keyfile {pair.key}",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    with Mosquitto(tmp_path, config_lines=lines) as broker:
        yield broker


@pytest.mark.broker
async def test_a_client_certificate_opens_the_door(guarded: Mosquitto, authority: Authority) -> None:
    tls = authority.context(authority.issue("van-0042"))
    async with connected(guarded.port, tls=tls) as connection:
        assert await connection.publish("a", b"x") < 128


@pytest.mark.broker
async def test_without_a_certificate_the_door_stays_shut(guarded: Mosquitto, authority: Authority) -> None:
    with pytest.raises(ConnectionLost):
        async with connected(guarded.port, tls=authority.context()):
            pass


@pytest.mark.broker
async def test_a_certificate_of_somebody_else_does_not_open_it(
    guarded: Mosquitto, authority: Authority, tmp_path: Path
) -> None:
    tls = authority.context(Authority(tmp_path, "stranger").issue("van-0666"))
    with pytest.raises(ConnectionLost):
        async with connected(guarded.port, tls=tls):
            pass


@pytest.mark.broker
async def test_a_broker_that_nobody_vouches_for_is_not_talked_to(guarded: Mosquitto, tmp_path: Path) -> None:
    tls = Authority(tmp_path, "stranger").context()
    with pytest.raises(ConnectionLost, match="certificate verify failed"):
        async with connected(guarded.port, tls=tls):
            pass


@pytest.mark.broker
async def test_large_messages_pass_through_tls_both_ways(guarded: Mosquitto, authority: Authority) -> None:
    tls = authority.context(authority.issue("van-0042"))
    payloads = [random.Random(seed).randbytes(100_000) for seed in range(30)]
    async with connected(guarded.port, tls=tls) as connection:
        await connection.subscribe("a")
        for payload in payloads:
            await connection.publish("a", payload)
        got = [await received(connection) for _ in payloads]
        assert [message.payload for message in got] == payloads
        for message in got:
            connection.acknowledge(message)


@pytest.mark.broker
@pytest.mark.parametrize(("password", "code"), [("good", None), ("bad", 0x87)])
async def test_a_password_opens_the_door_if_it_is_right(
    tmp_path: Path, authority: Authority, password: str, code: int | None
) -> None:
    pair = authority.issue("127.0.0.1")
    passwords = tmp_path / "passwords"
    passwords.write_text(password_line("van-0042", b"good"))
    lines = [f"certfile {pair.certificate}", f"keyfile {pair.key}", f"password_file {passwords}"]
    with Mosquitto(tmp_path, config_lines=lines, anonymous=False) as broker:
        tls = authority.context()
        connection = Connection(server(broker.port, tls=tls, username="van-0042", password=password))
        with contextlib.nullcontext() if code is None else pytest.raises(ConnectRefused) as refused:
            await connection.connect()
        await connection.close()
        assert (refused and refused.value.code) == code


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(server(1883, password="secret"))
