"""The broker's wire, byte by byte: what is read, what is refused and with which words."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulators import mqtt5
from simulators.broker import Broker
from simulators.mqtt5 import Connect, Disconnect, Pingreq, Puback, Publish, Stream, Subscribe, Subscription
from simulators.mqtt5_fields import BadPacket, Property, Reason, read_varint, varint
from simulators.mqtt5_session import Session
from simulators.mqtt5_topics import Tree

CONNECT = bytes.fromhex("10 10 0004 4d515454 05 02 0000 00 0003 76616e")
CONNACK = bytes.fromhex("20 10 00 00 0d 210064 2401 2700100000 220000")
PUBLISH = bytes.fromhex("32 07 0001 61 0001 00 78")
LIMIT = 65536

PACKETS: list[tuple[bytes, mqtt5.Packet]] = [
    (CONNECT, Connect(client_id="van", clean_start=True, keepalive=0)),
    (
        bytes.fromhex("10 2a 0004 4d515454 05 ee 003c 05 11 0000012c 0003 76616e")
        + bytes.fromhex("05 18 00000007 0001 77 0002 6f6b 0001 75 0003 707764"),
        Connect(
            client_id="van",
            clean_start=True,
            keepalive=60,
            properties=((Property.SESSION_EXPIRY_INTERVAL, 300),),
            will=Publish(topic="w", payload=b"ok", qos=1, retain=True),
            will_delay=7,
            username="u",
            password=b"pwd",
        ),
    ),
    (PUBLISH, Publish(topic="a", payload=b"x", qos=1, packet_id=1)),
    (bytes.fromhex("31 04 0001 61 00"), Publish(topic="a", payload=b"", retain=True)),
    (
        bytes.fromhex("3a 18 0001 61 0102 12 26 0001 6b 0001 76 03 0001 63 09 0002 00ff 0101"),
        Publish(
            topic="a",
            payload=b"",
            qos=1,
            dup=True,
            packet_id=258,
            properties=(
                (Property.USER_PROPERTY, ("k", "v")),
                (Property.CONTENT_TYPE, "c"),
                (Property.CORRELATION_DATA, b"\x00\xff"),
                (Property.PAYLOAD_FORMAT_INDICATOR, 1),
            ),
        ),
    ),
    (bytes.fromhex("40 02 0007"), Puback(packet_id=7, reason=0)),
    (bytes.fromhex("40 04 0007 87 00"), Puback(packet_id=7, reason=0x87)),
    (
        bytes.fromhex("82 0c 0009 03 0bac02 0003 612f23 2d"),
        Subscribe(
            packet_id=9,
            subscriptions=(
                Subscription(
                    filter="a/#",
                    qos=1,
                    no_local=True,
                    retain_as_published=True,
                    retain_handling=2,
                    identifier=300,
                ),
            ),
        ),
    ),
    (bytes.fromhex("c0 00"), Pingreq()),
    (bytes.fromhex("e0 00"), Disconnect(reason=0)),
    (bytes.fromhex("e0 02 04 00"), Disconnect(reason=4)),
]


def packets(*cuts: bytes) -> list[mqtt5.Packet]:
    stream, found = Stream(LIMIT), []
    for cut in cuts:
        stream.receive(cut)
        while (packet := stream.next_packet()) is not None:
            found.append(packet)
    return found


def test_a_stream_gives_the_same_packets_however_it_is_cut() -> None:
    whole, expected = b"".join(raw for raw, _ in PACKETS), [packet for _, packet in PACKETS]
    assert packets(whole) == expected
    assert packets(*(bytes([byte]) for byte in whole)) == expected
    chance = random.Random(5)
    for _ in range(50):
        edges = sorted(chance.sample(range(len(whole)), 12))
        assert (
            packets(*(whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True))) == expected
        )


def test_what_is_written_can_be_read() -> None:
    messages = [packet for _, packet in PACKETS if isinstance(packet, Publish)]
    assert packets(CONNECT, *(mqtt5.encode_publish(message) for message in messages))[1:] == messages


@pytest.mark.parametrize("value", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_a_variable_byte_integer_survives_the_wire(value: int) -> None:
    assert read_varint(varint(value), 0) == (value, len(varint(value)))


def test_random_noise_behind_a_connect_raises_nothing_but_bad_packet() -> None:
    chance = random.Random(11)
    for _ in range(2000):
        stream = Stream(LIMIT)
        stream.receive(CONNECT + chance.randbytes(chance.randrange(1, 64)))
        try:
            while stream.next_packet() is not None:
                pass
        except BadPacket:
            pass


def test_subscriptions_that_end_leave_no_branch_behind() -> None:
    tree: Tree[str, int] = Tree()
    assert tree.add("a/+/c", "van", 1)
    assert not tree.add("a/+/c", "van", 2)
    assert tree.add("$share/g/a/#", "van", 3)
    assert list(tree.matching("a/b/c")) == [{"g": {"van": 3}}, {"": {"van": 2}}]
    assert not tree.remove("a/+", "van")
    assert not tree.remove("a/+/c", "locker")
    assert tree.remove("$share/g/a/#", "van")
    assert tree.remove("a/+/c", "van")
    assert not tree._root.children


def session_with(count: int, *, window: int) -> Session:
    """A session that was offered so many messages while its client was there."""
    session = Session("van", 100, Counter())
    session.connected(lambda: None, window)
    for number in range(count):
        session.offer(Publish(topic="a", payload=str(number).encode(), qos=1))
    return session


def taken(session: Session) -> list[tuple[int, bytes, bool]]:
    found = []
    while (message := session.next()) is not None:
        found.append((message.packet_id, message.payload, message.dup))
    return found


def test_a_packet_identifier_in_use_is_not_given_again() -> None:
    session = session_with(1, window=2)
    assert taken(session) == [(1, b"0", False)]
    for expected in [*range(2, 0x10000), 2]:
        session.offer(Publish(topic="a", payload=b"", qos=1))
        assert taken(session) == [(expected, b"", False)]
        assert session.acknowledged(expected)


def test_a_smaller_window_holds_for_what_is_sent_again() -> None:
    session = session_with(4, window=3)
    assert [packet_id for packet_id, _, _ in taken(session)] == [1, 2, 3]
    session.disconnected()
    session.connected(lambda: None, 1)
    assert taken(session) == [(1, b"0", True)]
    assert session.acknowledged(2), "a late acknowledgement of what went out before counts"
    assert not session.acknowledged(2)
    assert taken(session) == []
    assert session.acknowledged(1)
    assert taken(session) == [(3, b"2", True)]


# -- with a broker behind it ----------------------------------------------------------------------

Say = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
def say(broker: Broker) -> Say:
    async def say(*data: bytes) -> bytes:
        """Everything the broker answers until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(b"".join(data))
        try:
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    return say


MALFORMED = [
    ("flags of SUBSCRIBE", "80 07 0001 00 0001 61 00"),
    ("QoS 3", "36 07 0001 61 0001 00 78"),
    ("DUP on QoS 0", "38 05 0001 61 00 78"),
    ("five bytes of length", "30 80 80 80 80 01"),
    ("length longer than necessary", "c0 80 00"),
    ("string past the end", "30 03 0009 61"),
    ("properties past the end", "30 05 0001 61 09 78"),
    ("unknown property", "30 06 0001 61 02 7f 00"),
    ("property of another packet", "30 09 0001 61 05 11 00000001"),
    ("topic with a wildcard", "30 05 0001 23 00 78"),
    ("empty topic", "30 04 0000 00 78"),
    ("U+0000", "30 05 0001 00 00 78"),
    ("a surrogate", "30 07 0003 eda080 00 78"),
    ("filter with # in its middle", "82 0b 0001 00 0005 612f232f62 00"),
    ("filter with half a +", "82 08 0001 00 0002 612b 00"),
    ("empty filter", "82 06 0001 00 0000 00"),
    ("share without a filter", "82 0e 0001 00 0008 2473686172652f67 00"),
    ("reserved subscription options", "82 07 0001 00 0001 61 41"),
    ("bytes behind the end", "c0 01 00"),
]

FORBIDDEN = [
    ("second CONNECT", CONNECT.hex()),
    ("CONNACK from a client", "20 03 00 00 00"),
    ("packet type 0", "00 00"),
    ("AUTH", "f0 00"),
    ("PUBREL", "62 02 0001"),
    ("packet identifier 0", "32 07 0001 61 0000 00 78"),
    ("property twice", "30 0b 0001 61 06 03 0000 03 0000 78"),
    ("payload format 2", "30 07 0001 61 02 01 02 78"),
    ("SUBSCRIBE without a filter", "82 03 0001 00"),
    ("UNSUBSCRIBE without a filter", "a2 03 0001 00"),
    ("subscription identifier 0", "82 09 0001 02 0b 00 0001 61 00"),
    ("Retain Handling 3", "82 07 0001 00 0001 61 30"),
    ("No Local on a share", "82 10 0001 00 000a 2473686172652f672f61 04"),
    ("session expiry from nothing", "e0 07 00 05 11 0000003c"),
]

OTHERS = [
    ("topic alias", "30 08 0001 61 03 23 0001 78", Reason.TOPIC_ALIAS_INVALID),
    ("QoS 2", "34 07 0001 61 0001 00 78", Reason.QOS_NOT_SUPPORTED),
    ("a length of 256 MiB", "30 ff ff ff 7f", Reason.PACKET_TOO_LARGE),
]


@pytest.mark.parametrize(
    ("data", "reason"),
    [pytest.param(data, Reason.MALFORMED_PACKET, id=name) for name, data in MALFORMED]
    + [pytest.param(data, Reason.PROTOCOL_ERROR, id=name) for name, data in FORBIDDEN]
    + [pytest.param(data, reason, id=name) for name, data, reason in OTHERS],
)
async def test_a_client_that_breaks_the_protocol_is_told_how(
    broker: Broker, say: Say, data: str, reason: Reason
) -> None:
    answer = await say(CONNECT, bytes.fromhex(data))
    assert answer.startswith(CONNACK)
    goodbye = answer.removeprefix(CONNACK)
    assert (goodbye[0], goodbye[2]) == (0xE0, reason)
    assert broker.broken == {reason: 1}
    assert not broker.received


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        pytest.param("10 0f 0004 4d515454 04 02 0000 0003 76616e", "20 02 00 01", id="MQTT 3.1.1"),
        pytest.param("10 11 0006 4d5149736470 03 02 0000 0003 76616e", "20 02 00 01", id="MQTT 3.1"),
        pytest.param("10 0f 0004 4d515454 06 02 0000 0003 76616e", "20 03 00 84 00", id="MQTT 6"),
        pytest.param("10 0f 0004 4d515458 05 02 0000 0003 76616e", "20 03 00 84 00", id="MQTX"),
        pytest.param("10 10 0004 4d515454 05 03 0000 00 0003 76616e", "20 03 00 81 00", id="reserved flag"),
        pytest.param(
            "10 10 0004 4d515454 05 22 0000 00 0003 76616e", "20 03 00 81 00", id="no will retained"
        ),
        pytest.param("10 10 0004 4d515454 05 1e 0000 00 0003 76616e", "20 03 00 81 00", id="will QoS 3"),
        pytest.param(
            "10 17 0004 4d515454 05 16 0000 00 0003 76616e 00 0001 77 0001 78",
            "20 03 00 9b 00",
            id="will QoS 2",
        ),
        pytest.param(
            "10 13 0004 4d515454 05 02 0000 03 210000 0003 76616e", "20 03 00 82 00", id="Receive Maximum 0"
        ),
        pytest.param(
            "10 14 0004 4d515454 05 02 0000 04 150001 78 0003 76616e",
            "20 03 00 8c 00",
            id="own authentication",
        ),
        pytest.param("10 ff ff ff 7f", "20 03 00 95 00", id="endless CONNECT"),
        pytest.param(PUBLISH.hex(), "", id="PUBLISH first"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n".hex(), "", id="not MQTT at all"),
    ],
)
async def test_a_client_that_cannot_come_in_is_refused(
    broker: Broker, say: Say, data: str, answer: str
) -> None:
    assert await say(bytes.fromhex(data)) == bytes.fromhex(answer)
    assert not broker.connections
    assert not broker.sessions


async def test_a_ping_is_answered(say: Say) -> None:
    assert await say(CONNECT, b"\xc0\x00", b"\xe0\x00") == CONNACK + b"\xd0\x00"


async def test_what_came_before_the_broken_packet_counts(broker: Broker, say: Say) -> None:
    assert await say(CONNECT, PUBLISH, b"\xff\xff") == (
        CONNACK
        + bytes.fromhex("40 03 0001 10")
        + mqtt5.encode_disconnect(
            Reason.PROTOCOL_ERROR, "packet type 15 is not for a server without QoS 2 and AUTH"
        )
    )
    assert broker.received == {"a": 1}


async def test_what_comes_behind_a_goodbye_is_not_read(broker: Broker, say: Say) -> None:
    assert await say(CONNECT, b"\xe0\x00", PUBLISH) == CONNACK
    assert not broker.received


async def test_the_last_words_fit_what_the_client_takes(say: Say) -> None:
    small = bytes.fromhex("10 15 0004 4d515454 05 02 0000 05 2700000014 0003 76616e")
    assert await say(small, b"\x00\x00") == CONNACK + bytes.fromhex("e0 02 82 00")


async def test_last_words_arrive_although_more_was_on_its_way(say: Say) -> None:
    """A server that closes with unread input resets, and the reset can eat what it said."""
    answer = await say(CONNECT, bytes.fromhex("30 ff ff ff 7f"), b"x" * 3_000_000)
    assert answer.removeprefix(CONNACK)[:3:2] == bytes([0xE0, Reason.PACKET_TOO_LARGE])
