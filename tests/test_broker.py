"""What every MQTT 5 broker does, asked of ours and of mosquitto through paho: ours is not its own judge."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simulators.broker import Broker
from tests.broker_peer import Peers, told
from tests.mosquitto import Mosquitto

SERVER_MAXIMUM = 4096
SESSION: dict[str, Any] = {"session_expiry": 300, "clean_start": False}


@pytest.fixture(params=["ours", pytest.param("mosquitto", marks=pytest.mark.broker)])
async def peers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Peers]:
    if request.param == "mosquitto":
        limit = f"max_packet_size {SERVER_MAXIMUM}"
        with Mosquitto(tmp_path, config_lines=[limit]) as mosquitto:
            async with Peers(mosquitto.port) as made:
                yield made
    else:
        async with Broker(maximum_packet_size=SERVER_MAXIMUM) as broker, Peers(broker.port) as made:
            yield made


# -- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("published", "granted", "arrives"), [(0, 1, 0), (1, 1, 1), (1, 0, 0)])
async def test_a_message_arrives_with_the_lower_of_both_qos(
    peers: Peers, published: int, granted: int, arrives: int
) -> None:
    peer = await peers.connected()
    assert await peer.subscribe("a/b", qos=granted) == [granted]
    peer.send("a/b", b"hello", published)
    message = await peer.message()
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"hello", arrives, False)


async def test_the_properties_of_a_message_pass_through(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.subscribe("a")
    pairs = [("to", "8"), ("from", "1"), ("to", "9")]
    await peer.publish(
        "a",
        b"x",
        PayloadFormatIndicator=1,
        MessageExpiryInterval=3600,
        ContentType="application/json",
        ResponseTopic="b",
        CorrelationData=b"\x00\xff",
        UserProperty=pairs,
    )
    got = told(await peer.message())
    assert got.PayloadFormatIndicator == 1
    assert got.MessageExpiryInterval == 3600
    assert got.ContentType == "application/json"
    assert got.ResponseTopic == "b"
    assert got.CorrelationData == b"\x00\xff"
    assert got.UserProperty == pairs


async def test_a_publish_that_nobody_subscribes_to_is_acknowledged_as_such(peers: Peers) -> None:
    peer = await peers.connected()
    assert await peer.publish("a", b"x") == 0x10
    await peer.subscribe("a")
    assert await peer.publish("a", b"x") == 0


async def test_messages_keep_their_order(peers: Peers) -> None:
    publisher, subscriber = await peers.connected(), await peers.connected()
    await subscriber.subscribe("a")
    mids = [publisher.send("a", str(number)) for number in range(20)]
    for mid in mids:
        assert await publisher.answer(mid) == [0]
    assert [int(payload) for payload in await subscriber.payloads()] == list(range(20))


@pytest.mark.parametrize(
    ("filter_", "topic", "taken"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b", "a/b", True),
        ("+/+", "/b", True),
        ("+", "/b", False),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/b/#", "a/c", False),
        ("a/+/#", "a/b", True),
        ("#", "a/b", True),
        ("#", "$a/b", False),
        ("+/b", "$a/b", False),
        ("$a/#", "$a/b", True),
        ("$a/+", "$a/b", True),
    ],
)
async def test_a_filter_takes_in_the_topics_that_it_should(
    peers: Peers, filter_: str, topic: str, taken: bool
) -> None:
    peer = await peers.connected()
    await peer.subscribe(filter_)
    await peer.publish(topic, b"x")
    assert await peer.payloads() == ([b"x"] if taken else [])


async def test_an_ended_subscription_gets_nothing(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.subscribe("a")
    assert await peer.unsubscribe("a") == [0]
    assert await peer.unsubscribe("a") == [0x11]
    await peer.publish("a", b"x")
    assert await peer.payloads() == []


async def test_a_client_that_wants_no_echo_gets_none(peers: Peers) -> None:
    peer, other = await peers.connected(), await peers.connected()
    await peer.subscribe("a", noLocal=True)
    await peer.publish("a", b"mine")
    await other.publish("a", b"theirs")
    assert await peer.payloads() == [b"theirs"]


async def test_a_message_names_the_subscription_that_it_came_by(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.subscribe("a/+", identifier=300)
    await peer.publish("a/b", b"x")
    assert told(await peer.message()).SubscriptionIdentifier == [300]


# -- retained -------------------------------------------------------------------------------------


async def test_the_last_retained_message_greets_a_new_subscriber(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.publish("a/b", b"old", retain=True)
    await peer.publish("a/b", b"new", retain=True, ContentType="text/plain")
    await peer.subscribe("a/+")
    message = await peer.message()
    assert (message.payload, message.retain, message.qos) == (b"new", True, 1)
    assert told(message).ContentType == "text/plain"
    assert await peer.payloads() == []


async def test_an_empty_payload_clears_what_was_retained(peers: Peers) -> None:
    peer = await peers.connected()
    await peer.publish("a", b"x", retain=True)
    await peer.publish("a", b"", retain=True)
    await peer.subscribe("a")
    assert await peer.payloads() == []


@pytest.mark.parametrize(("handling", "first", "again"), [(0, [b"x"], [b"x"]), (1, [b"x"], []), (2, [], [])])
async def test_retain_handling_says_when_retained_messages_come(
    peers: Peers, handling: int, first: list[bytes], again: list[bytes]
) -> None:
    peer = await peers.connected()
    await peer.publish("a", b"x", retain=True)
    await peer.subscribe("a", retainHandling=handling)
    assert await peer.payloads() == first
    await peer.subscribe("a", retainHandling=handling)
    assert await peer.payloads() == again


@pytest.mark.parametrize("as_published", [True, False])
async def test_a_live_message_keeps_its_retain_flag_where_asked(peers: Peers, as_published: bool) -> None:
    peer = await peers.connected()
    await peer.subscribe("a", retainAsPublished=as_published)
    await peer.publish("a", b"x", retain=True)
    assert (await peer.message()).retain is as_published


# -- wills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["vanishes", "leaves with its will", "leaves"])
async def test_the_will_speaks_for_a_client_unless_it_says_goodbye(peers: Peers, how: str) -> None:
    watcher, peer = await peers.connected(), peers.new("van")
    await watcher.subscribe("van/state")
    peer.will("van/state", b"offline", UserProperty=[("why", "will")])
    await peer.connect()
    if how == "vanishes":
        await peer.vanish()
    else:
        await peer.leave(4 if how == "leaves with its will" else 0)
    # The same client's next connection cannot be answered before its last one was dealt with.
    peer.paho.will_clear()
    await peer.connect()
    await peer.publish("van/state", b"online")
    if how != "leaves":
        message = await watcher.message()
        assert message.payload == b"offline"
        assert told(message).UserProperty == [("why", "will")]
    assert (await watcher.message()).payload == b"online"


async def test_a_will_is_retained_if_it_asks_for_it(peers: Peers) -> None:
    watcher, peer = await peers.connected(), peers.new("van")
    await watcher.subscribe("van/state")
    peer.will("van/state", b"offline", retain=True)
    await peer.connect()
    await peer.vanish()
    await watcher.message()
    await watcher.subscribe("van/+")
    assert (await watcher.message()).retain


# -- sessions -------------------------------------------------------------------------------------


async def test_a_session_keeps_qos_1_messages_for_a_client_that_is_away(peers: Peers) -> None:
    peer, publisher = await peers.connected("van", **SESSION), await peers.connected()
    await peer.subscribe("a")
    await peer.leave()
    await publisher.publish("a", b"1")
    publisher.send("a", b"not for the absent", 0)
    await publisher.publish("a", b"2")
    reason, present, _ = await peer.connect(**SESSION)
    assert (reason, present) == (0, True)
    messages = [await peer.message(), await peer.message()]
    assert [(message.payload, message.dup) for message in messages if message.qos] == [
        (b"1", False),
        (b"2", False),
    ]


@pytest.mark.parametrize(
    ("before", "after"), [({"session_expiry": 0}, SESSION), (SESSION, {"clean_start": True})]
)
async def test_a_session_that_ended_is_not_there_again(
    peers: Peers, before: dict[str, Any], after: dict[str, Any]
) -> None:
    peer = await peers.connected("van", **before)
    await peer.subscribe("a")
    await peer.leave()
    assert (await peer.connect(**after))[1] is False
    await peer.publish("a", b"x")
    assert await peer.payloads() == []


async def test_what_was_not_acknowledged_comes_again_marked_as_duplicate(peers: Peers) -> None:
    peer, publisher = await peers.connected("van", manual_ack=True, **SESSION), await peers.connected()
    await peer.subscribe("a")
    for payload in (b"1", b"2", b"3"):
        await publisher.publish("a", payload)
    first = [await peer.message() for _ in range(3)]
    assert not any(message.dup for message in first)
    peer.acknowledge(first[1])
    assert await peer.payloads() == []
    await peer.vanish()
    assert (await peer.connect(**SESSION))[1] is True
    again = [await peer.message() for _ in range(2)]
    assert [(m.payload, m.dup, m.mid) for m in again] == [
        (b"1", True, first[0].mid),
        (b"3", True, first[2].mid),
    ]


async def test_a_second_connection_takes_the_session_over(peers: Peers) -> None:
    old = await peers.connected("van", **SESSION)
    await old.subscribe("a")
    new = peers.new("van")
    assert (await new.connect(**SESSION))[1] is True
    await old.ended()
    await new.publish("a", b"x")
    assert (await new.message()).payload == b"x"


async def test_a_client_without_a_name_is_given_one(peers: Peers) -> None:
    _, _, first = await peers.new().connect()
    _, _, second = await peers.new().connect()
    assert first.AssignedClientIdentifier
    assert first.AssignedClientIdentifier != second.AssignedClientIdentifier


# -- limits ---------------------------------------------------------------------------------------


async def test_no_more_messages_are_in_flight_than_the_client_allows(peers: Peers) -> None:
    peer, publisher = await peers.connected(manual_ack=True, ReceiveMaximum=2), await peers.connected()
    await peer.subscribe("a")
    for payload in (b"1", b"2", b"3", b"4"):
        await publisher.publish("a", payload)
    first, second = await peer.message(), await peer.message()
    assert (first.payload, second.payload) == (b"1", b"2")
    assert await peer.payloads() == []
    peer.acknowledge(first)
    peer.acknowledge(second)
    assert [(await peer.message()).payload, (await peer.message()).payload] == [b"3", b"4"]


async def test_a_message_larger_than_the_client_takes_is_left_out(peers: Peers) -> None:
    peer, publisher = await peers.connected(MaximumPacketSize=100), await peers.connected()
    await peer.subscribe("a")
    for size in (101, 50):
        await publisher.publish("a", b"x" * size)
    assert len((await peer.message()).payload) == 50
    assert await peer.payloads() == []


async def test_a_packet_larger_than_the_broker_takes_ends_the_connection(peers: Peers) -> None:
    peer = peers.new()
    _, _, limits = await peer.connect()
    assert limits.MaximumPacketSize == SERVER_MAXIMUM
    peer.send("a", b"x" * SERVER_MAXIMUM)
    assert await peer.ended() == 0x95


# -- shared subscriptions -------------------------------------------------------------------------


async def test_a_share_group_divides_the_messages_among_its_members(peers: Peers) -> None:
    members = [await peers.connected(), await peers.connected()]
    witness, publisher = await peers.connected(), await peers.connected()
    for member in members:
        await member.subscribe("$share/fleet/a/+")
    await witness.subscribe("a/+")
    sent = [str(number).encode() for number in range(6)]
    for payload in sent:
        assert await publisher.publish("a/b", payload) == 0
    shares = [await member.payloads() for member in members]
    assert sorted(map(len, shares)) == [3, 3]
    assert sorted(shares[0] + shares[1]) == sent
    assert await witness.payloads() == sent
