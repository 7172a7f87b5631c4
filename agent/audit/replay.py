"""Publishes a journal's entries to a broker, in the form in which a device sends them.

    sent = Sent(to=0)
    await replay(archive, server, topic, sent)

Batches are in flight together. Every entry up to `sent.to` was taken: whoever was interrupted goes on from
there. Receivers know an entry by its id: what arrives twice does no harm.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.audit.archive import Archive, lines
from agent.batch import BATCH_BYTES, LINES, LONGEST_PROPERTIES, pack
from agent.mqtt import REFUSED, Connection, ConnectionLost, Server, publish_overhead
from agent.refusals import ENTRIES
from agent.store import Stored

Watcher = Callable[[int, int], None]


@dataclass(slots=True)
class Sent:
    """How far a replay has come, and why no further."""

    to: int
    entries: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Flying:
    """A batch that the broker has not answered for."""

    last: int
    entries: int
    acked: asyncio.Future[int]


async def replay(
    archive: Archive, server: Server, topic: str, sent: Sent, watch: Watcher = lambda _done, _of: None
) -> None:
    """Everything after `sent.to`. Ends at the first refusal, and when the connection is lost."""
    connection = Connection(server)
    flying: deque[_Flying] = deque()
    try:
        await connection.connect()
        room = connection.packet_limit - publish_overhead(topic, LINES, LONGEST_PROPERTIES)
        for batch in _batches(archive, sent.to):
            for part, payload, properties in _packed(batch, room):
                if len(flying) >= connection.window:
                    await _land(flying, sent)
                acked = connection.publish(topic, payload, content_type=LINES, properties=properties)
                flying.append(_Flying(part[-1].sequence, len(part), acked))
            watch(sent.to, archive.size)
            # Reading and packing must not keep what was sent from leaving.
            await asyncio.sleep(0)
        while flying:
            await _land(flying, sent)
    except ConnectionLost as lost:
        sent.problem = str(lost)
    finally:
        await connection.close()
        # What was still in flight has failed with the connection.
        await asyncio.gather(*(each.acked for each in flying), return_exceptions=True)


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


def _packed(batch: list[Stored], room: int) -> Iterator[tuple[list[Stored], bytes, list[tuple[str, str]]]]:
    """The batch as payload and properties, in as many parts as the broker's packet limit asks for.

    Raises ConnectionLost for an entry that is too large by itself.
    """
    payload, properties = pack(batch, room)
    if len(payload) <= room:
        yield batch, payload, properties
    elif len(batch) == 1:
        problem = f"entry {batch[0].sequence}: expected at most {room} bytes, got {len(payload)}"
        raise ConnectionLost(problem)
    else:
        half = len(batch) // 2
        yield from _packed(batch[:half], room)
        yield from _packed(batch[half:], room)


async def _land(flying: deque[_Flying], sent: Sent) -> None:
    """Wait for the oldest. Raises ConnectionLost when it is refused."""
    oldest = flying[0]
    code = await oldest.acked
    flying.popleft()
    if code >= REFUSED:
        raise ConnectionLost(f"refused after entry {sent.to}: {code:#04x}", code)
    sent.to = oldest.last
    sent.entries += oldest.entries
