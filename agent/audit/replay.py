"""Publishes a journal's entries to a broker, in the form in which a device sends them.

    sent = await replay(archive, server, topic, after=0)

Batches are in flight together; `sent.to` is the last sequence up to which every entry there is was taken, so
that whoever was interrupted goes on with `after=sent.to`. Receivers know an entry by its id: what arrives
twice does no harm.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.audit.archive import Archive, lines
from agent.journal import Stored
from agent.mqtt import Connection, ConnectionLost, Server, publish_overhead
from agent.refusals import ENTRIES
from agent.uplink import BATCH_BYTES, LINES, pack

Watcher = Callable[[int, int], None]

_PROPERTIES = (("from", "9" * 19), ("to", "9" * 19), ("content-encoding", "gzip"))
REFUSED = 128
"""Reason codes from here on say no."""


@dataclass(slots=True)
class Sent:
    """How far a replay came, and why no further."""

    to: int
    entries: int = 0
    problem: str | None = None


async def replay(
    archive: Archive,
    server: Server,
    topic: str,
    *,
    after: int = 0,
    watch: Watcher = lambda _done, _of: None,
) -> Sent:
    """Everything after a sequence. Ends at the first refusal, and when the connection is lost."""
    sent = Sent(after)
    connection = Connection(server)
    flying: deque[tuple[list[Stored], asyncio.Future[int]]] = deque()
    try:
        await connection.connect()
        room = connection.packet_limit - publish_overhead(topic, LINES, _PROPERTIES)
        for batch in _batches(archive, after):
            for part in _fitting(batch, room):
                if len(flying) == connection.window:
                    await _land(flying, sent)
                flying.append((part, _publish(connection, topic, part, room)))
            watch(sent.to, archive.size)
        while flying:
            await _land(flying, sent)
    except ConnectionLost as lost:
        sent.problem = str(lost)
    finally:
        await connection.close()
        await _forget(flying)
    return sent


def _batches(archive: Archive, after: int) -> Iterator[list[Stored]]:
    """Entries that follow each other, as many as the uplink sends together."""
    batch: list[Stored] = []
    size = 0
    for sequence, line in lines(archive, after):
        full = len(batch) == ENTRIES or size + len(line) >= BATCH_BYTES
        if batch and (full or sequence != batch[-1].sequence + 1):
            yield batch
            batch, size = [], 0
        batch.append(Stored(sequence, line))
        size += len(line) + 1
    if batch:
        yield batch


def _fitting(batch: list[Stored], room: int) -> Iterator[list[Stored]]:
    """The batch, in as many parts as the broker's packet limit asks for."""
    if len(batch) == 1 or len(pack(batch, room)[0]) <= room:
        yield batch
        return
    half = len(batch) // 2
    yield from _fitting(batch[:half], room)
    yield from _fitting(batch[half:], room)


def _publish(connection: Connection, topic: str, part: list[Stored], room: int) -> asyncio.Future[int]:
    payload, properties = pack(part, room)
    if len(payload) > room:
        raise ConnectionLost(f"entry {part[0].sequence}: {len(payload)} bytes are more than the broker takes")
    return connection.publish(topic, payload, content_type=LINES, properties=properties)


async def _land(flying: deque[tuple[list[Stored], asyncio.Future[int]]], sent: Sent) -> None:
    """Wait for the oldest. Raises ConnectionLost for one that is refused."""
    part, acked = flying.popleft()
    code = await acked
    if code >= REFUSED:
        raise ConnectionLost(f"refused from entry {part[0].sequence} on: {code:#04x}", code)
    sent.to = part[-1].sequence
    sent.entries += len(part)


async def _forget(flying: deque[tuple[list[Stored], asyncio.Future[int]]]) -> None:
    """What was still in flight has failed with the connection."""
    await asyncio.gather(*(acked for _, acked in flying), return_exceptions=True)
