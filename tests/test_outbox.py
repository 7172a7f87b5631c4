"""A collector that has much to hear and much to say: neither waits for the other."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.fleet.outbox import Letter, Outbox
from agent.mqtt import MESSAGES
from agent.note import SignerKey
from tests.bench.collecting import SESSION_S, UP, journal_of, publish
from tests.brokers import PATIENCE, News, broker_of, connected, running, server

DEVICES, ENTRIES = 40, 4 * 64


@pytest.mark.broker
async def test_a_long_queue_at_the_broker_does_not_keep_receipts_from_being_given(tmp_path: Path) -> None:
    """Mosquitto brings what it has kept for a session faster than it was asked to: more than we let wait."""
    journals = [journal_of(f"van-{number:04}", ENTRIES) for number in range(DEVICES)]
    queue = [message for together in zip(*journals, strict=True) for message in together]
    assert len(queue) > 2 * MESSAGES
    signer = SignerKey("fleet-main", Ed25519PrivateKey.generate())
    heard, receipts, news = 0, dict[str, int](), News()

    def hear(_: object) -> None:
        nonlocal heard
        heard += 1
        news.look()

    async with broker_of("mosquitto", tmp_path) as broker:
        async with connected(broker.port, "collector", session_expiry=SESSION_S) as collector:
            await collector.subscribe(UP)
        async with connected(broker.port, "the-devices") as devices:
            await publish(devices, queue)
        async with connected(broker.port, "witness") as witness, Clerk(tmp_path / "f.db", signer) as clerk:
            await witness.subscribe("postern/v1/+/down/receipt")

            async def listen() -> None:
                while True:
                    message = await witness.receive()
                    witness.acknowledge(message)
                    receipts[message.topic.split("/")[2]] = int(message.payload.split(b"\n")[1])
                    news.look()

            again = server(broker.port, "collector", session_expiry=SESSION_S)
            async with running(listen()), running(Collector(again, hear, clerk=clerk).run()):
                await news.until(lambda: heard == DEVICES * ENTRIES, 2 * PATIENCE)
                await news.until(lambda: list(receipts.values()) == [ENTRIES] * DEVICES, 2 * PATIENCE)


@pytest.mark.broker
async def test_of_receipts_only_the_newest_is_said_and_answers_come_first(tmp_path: Path) -> None:
    async with broker_of("mosquitto", tmp_path) as broker, connected(broker.port, "witness") as witness:
        await witness.subscribe("down/#")
        async with connected(broker.port, "collector") as connection:
            outbox = Outbox(connection)
            outbox.say_newest({"van": Letter("down/receipt", b"1")})
            outbox.say_newest({"van": Letter("down/receipt", b"2")})
            outbox.say([Letter("down/root", b"a"), Letter("down/root", b"b")])
            async with running(outbox.run()), asyncio.timeout(PATIENCE):
                said = [await witness.receive() for _ in range(3)]
    assert [message.payload for message in said] == [b"a", b"b", b"2"]
