"""How fast the fleet takes what devices send: stored, and held to what they have signed.

A broker holds the same messages for two subscribers, each of which is then let at them: the collector with
its file, and a subscription that only acknowledges. Both are in this process, which does nothing else.
"""

import asyncio
import gzip
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.batch import LINES
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.ledger import Frontier, leaf_hash
from agent.mqtt import REFUSED, Connection, Server
from agent.note import Checkpoint, SignerKey, sign
from tests.bench import rig
from tests.bench.figures import Broken, Figure, Missing
from tests.bench.sizes import Sizes
from tests.bench.subscriber import Subscriber
from tests.brokers import running

BATCH = 64
"""Entries of one message, and of one checkpoint."""
DEVICES = 50
PATIENCE_S = 300.0
SESSION_S = 3600
UP = "postern/v1/+/up/#"


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of a device."""

    topic: str
    payload: bytes
    entries: int = 0


def collect(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """Entries per second, of many devices, in messages and with checkpoints as they send them."""
    each = max(BATCH, sizes.collected // DEVICES)
    journals = [journal_of(f"bench-{number:04}", each) for number in range(DEVICES)]
    # As they arrive from many devices: none sends all of its own at once.
    messages = [message for together in zip(*journals, strict=True) for message in together]
    entries = sum(message.entries for message in messages)
    ours = asyncio.run(_timed(folder, messages, lambda port: _collected(folder, port, entries)))
    raw = asyncio.run(_timed(folder, messages, lambda port: Subscriber(port, "raw").hear(len(messages))))
    yield Figure(
        name="entries collected, stored and checked",
        value=entries / ours,
        unit="/s",
        beside="raw subscription",
        limit=entries / raw,
    )


def journal_of(device: str, count: int) -> list[Sent]:
    """All that a device has to say of so many entries: its birth, batches, a checkpoint after each."""
    signer = SignerKey(f"bench/{device}/e1", Ed25519PrivateKey.generate())
    up = f"postern/v1/{device}/up"
    birth = {"online": True, "device": device, "epoch": "e1", "key": signer.verifier.text}
    made, tree = [Sent(f"{up}/state", json.dumps(birth).encode())], Frontier()
    for first in range(1, count + 1, BATCH):
        lines = [line_of(device, sequence) for sequence in range(first, min(first + BATCH, count + 1))]
        tree = tree.append(*map(leaf_hash, lines))
        checkpoint = Checkpoint(signer.name, first + len(lines) - 1, tree.root())
        made.append(Sent(f"{up}/entries", gzip.compress(b"\n".join(lines), 1), len(lines)))
        made.append(Sent(f"{up}/checkpoint", sign(checkpoint.text, signer)))
    return made


def line_of(device: str, sequence: int) -> bytes:
    """As long as that of a scan, and as like the next."""
    boot = "5d0b8f4e-1c0c-4d7c-9f43-2a6f7c4f7a11"
    clock = {"boot": boot, "mono_ns": sequence * 10**9, "trust": "ntp", "error_s": 0.1}
    fix = {"lat": 52.520008, "lon": 13.404954, "hdop": 0.9, "source": "gnss", "age_s": 0.4}
    scan = {"raw": "MDAzNDAxMjM0NTAwMDAwMDAwMTg=", "symbology": "]C1", "driver": "line", "scheme": "sscc"}
    entry = {
        "specversion": "1.0",
        "id": f"e1-{sequence}",
        "source": f"/postern/bench/{device}",
        "type": "postern.custody.accepted",
        "subject": f"sscc:{sequence:018}",
        "time": "2026-11-27T08:15:30.123456Z",
        "sequence": str(sequence),
        "lane": "custody",
        "data": {"unit": "gun", "driver": "drv-7f3a91", "scan": scan, "clock": clock, "position": fix},
    }
    return json.dumps(entry, separators=(",", ":")).encode()


async def _timed(folder: Path, messages: list[Sent], taken: Callable[[int], Awaitable[float]]) -> float:
    """Seconds that `taken` needs for messages that the broker has kept for it."""
    with rig.broker(folder) as broker:
        port = broker.port
        for name in ("collector", "raw"):
            async with _connected(port, name) as connection:
                await connection.subscribe(UP)
        async with _connected(port, "the-devices", keep=0) as connection:
            await publish(connection, messages)
        return await taken(port)


async def _collected(folder: Path, port: int, entries: int) -> float:
    """Until the last of them is stored and checked, and every device has its receipt for it."""
    done, left = asyncio.Event(), entries

    def took(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    signer = SignerKey("fleet-bench", Ed25519PrivateKey.generate())
    server = Server(host="127.0.0.1", port=port, client_id="collector", session_expiry=SESSION_S)
    async with Clerk(folder / "fleet.db", signer) as clerk, _connected(port, "witness", keep=0) as witness:
        await witness.subscribe("postern/v1/+/down/receipt")
        began = time.perf_counter()
        async with running(Collector(server, took, clerk=clerk).run()), asyncio.timeout(PATIENCE_S):
            await done.wait()
            await _all_receipts(witness, entries // DEVICES)
            return time.perf_counter() - began


async def _all_receipts(witness: Connection, size: int) -> None:
    """Until each device has been given one for all of its entries."""
    missing = DEVICES
    while missing:
        message = await witness.receive()
        witness.acknowledge(message)
        missing -= int(message.payload.split(b"\n")[1]) == size


async def publish(connection: Connection, messages: Iterable[Sent]) -> None:
    """All of them, acknowledged at its end."""
    flying: deque[asyncio.Future[int]] = deque()
    for message in messages:
        while flying and not connection.room:
            await flying.popleft()
        content = LINES if message.entries else None
        pairs = [("content-encoding", "gzip")] if message.entries else []
        flying.append(
            connection.publish(message.topic, message.payload, content_type=content, properties=pairs)
        )
    if any([await acked >= REFUSED for acked in flying]):
        raise Broken("the broker refuses what devices send")


@asynccontextmanager
async def _connected(port: int, name: str, keep: int = SESSION_S) -> AsyncIterator[Connection]:
    connection = Connection(Server(host="127.0.0.1", port=port, client_id=name, session_expiry=keep))
    try:
        await connection.connect()
        yield connection
    finally:
        await connection.close()
