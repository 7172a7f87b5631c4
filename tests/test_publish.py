"""What the fleet leaves at the broker for a device: all of it, once, and nothing that is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.fleet.publish import Published, birth, command, down, reconcile, send
from agent.mqtt import Connection
from tests.brokers import BROKERS, AnyBroker, broker_of, connected, running

DEVICE = "van-0042"
DONE = "postern.command.succeeded"
FIRST = {"page/aa": b"one", "page/bb": b"two", "bundle/roster": b"list", "head": b"head"}


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


async def retained(port: int, device: str = DEVICE) -> dict[str, bytes]:
    """Everything that a device which comes now is brought, in its order."""
    found: dict[str, bytes] = {}
    async with connected(port, "witness") as witness:
        await witness.subscribe(f"{down(device)}#")
        done = witness.publish(f"{down(device)}end", b"end")
        while (message := await witness.receive()).payload != b"end":
            found[message.topic.removeprefix(down(device))] = message.payload
            witness.acknowledge(message)
        witness.acknowledge(message)
        await done
    return found


async def published(port: int, outgoing: dict[str, bytes], device: str = DEVICE) -> Published:
    async with connected(port, "fleet") as fleet:
        return await reconcile(fleet, device, outgoing)


async def test_everything_is_left_for_a_device_that_is_away(broker: AnyBroker) -> None:
    assert await published(broker.port, FIRST) == Published(sent=4, kept=0, cleared=0)
    assert await retained(broker.port) == FIRST


async def test_what_is_there_is_not_sent_again_and_what_is_over_is_cleared(broker: AnyBroker) -> None:
    await published(broker.port, FIRST)
    second = {"page/bb": b"two", "page/cc": b"new", "bundle/roster": b"list 2", "head": b"head 2"}
    assert await published(broker.port, second) == Published(sent=3, kept=1, cleared=1)
    assert await retained(broker.port) == second
    assert await published(broker.port, second) == Published(sent=0, kept=4, cleared=0)


async def test_what_is_no_page_is_never_cleared(broker: AnyBroker) -> None:
    """Only hashes say that nothing can need it any more."""
    await published(broker.port, {**FIRST, "config": b"config"})
    assert (await published(broker.port, FIRST)).cleared == 0
    assert (await retained(broker.port))["config"] == b"config"


async def test_pages_are_cleared_when_what_names_others_is_there(broker: AnyBroker) -> None:
    await published(broker.port, FIRST)
    async with connected(broker.port, "watcher") as watcher:
        await watcher.subscribe(f"{down(DEVICE)}page/#", f"{down(DEVICE)}head")
        for _ in range(3):
            watcher.acknowledge(await watcher.receive())
        await published(broker.port, {"page/bb": b"two", "page/cc": b"new", "head": b"head 2"})
        came: list[tuple[str, bytes]] = []
        while len(came) < 3:
            watcher.acknowledge(message := await watcher.receive())
            came.append((message.topic.removeprefix(down(DEVICE)), message.payload))
    assert came == [("page/cc", b"new"), ("head", b"head 2"), ("page/aa", b"")]


async def test_what_a_broker_forgot_is_sent_again(broker: AnyBroker) -> None:
    await published(broker.port, FIRST)
    async with connected(broker.port, "somebody") as somebody:
        await somebody.publish(f"{down(DEVICE)}page/aa", b"", retain=True)
        await somebody.publish(f"{down(DEVICE)}page/bb", b"forged", retain=True)
    assert await published(broker.port, FIRST) == Published(sent=2, kept=2, cleared=0)
    assert await retained(broker.port) == FIRST


async def test_what_is_another_device_s_is_left_alone(broker: AnyBroker) -> None:
    await published(broker.port, FIRST, "van-0043")
    await published(broker.port, {"head": b"h"})
    assert await retained(broker.port, "van-0043") == FIRST


async def test_many_pages_go_out_and_are_seen_again(broker: AnyBroker) -> None:
    many = {f"page/{number:04d}": b"%d" % number * 4000 for number in range(300)}
    assert (await published(broker.port, many)).sent == 300
    assert (await published(broker.port, many)).kept == 300
    assert (await published(broker.port, {})).cleared == 300


async def test_a_command_waits_for_the_entry_that_tells_its_outcome(broker: AnyBroker) -> None:
    def entry(kind: str, name: str) -> bytes:
        return json.dumps({"type": kind, "data": {"command": name}}).encode()

    async def device(connection: Connection) -> None:
        await connection.subscribe(f"{down(DEVICE)}command")
        message = await connection.receive()
        connection.acknowledge(message)
        for payload in (
            b"noise",
            entry(DONE, "another"),
            entry("postern.command.accepted", "c-1"),
            entry("postern.custody.seen", "c-1") + b"\n" + entry(DONE, "c-1"),
        ):
            await connection.publish(f"postern/v1/{DEVICE}/up/entries", payload)

    async with (
        connected(broker.port, DEVICE) as van,
        running(device(van)),
        connected(broker.port, "fleet") as fleet,
    ):
        outcome = await command(fleet, DEVICE, b"order", "c-1", within=20)
    assert outcome is not None
    assert outcome["type"] == DONE


@pytest.mark.parametrize(
    ("said", "known"), [(b'{"online":true,"time_nonce":"n"}', True), (b"[]", False), (b"{", False)]
)
async def test_what_a_device_last_said_of_itself_is_found(
    broker: AnyBroker, said: bytes, known: bool
) -> None:
    async with connected(broker.port, "fleet") as fleet:
        await fleet.publish(f"postern/v1/{DEVICE}/up/state", said, retain=True)
        found = await birth(fleet, DEVICE, within=20)
    assert found == (json.loads(said) if known else {})


async def test_a_device_that_never_said_anything_is_not_waited_for_long(broker: AnyBroker) -> None:
    async with connected(broker.port, "fleet") as fleet:
        assert await birth(fleet, DEVICE, within=0.05) == {}


async def test_a_command_that_nobody_answers_has_no_outcome(broker: AnyBroker) -> None:
    async with connected(broker.port, "fleet") as fleet:
        assert await command(fleet, DEVICE, b"order", "c-1", within=0.05) is None


async def test_messages_are_sent_in_their_order(broker: AnyBroker) -> None:
    order = {f"page/{number:03d}": b"x" for number in range(250)} | {"bundle/roster": b"y", "head": b"z"}
    async with connected(broker.port, "witness") as witness, connected(broker.port, "fleet") as fleet:
        await witness.subscribe(f"{down(DEVICE)}#")
        sending = asyncio.create_task(send(fleet, DEVICE, order))
        came: list[str] = []
        while len(came) < len(order):
            message = await witness.receive()
            witness.acknowledge(message)
            came.append(message.topic.removeprefix(down(DEVICE)))
        await sending
    assert came == list(order)
