"""Sends what a damaged journal still held: a few at a time beside the rest, dropped when acknowledged."""

import asyncio
from collections.abc import Callable
from functools import partial

from agent.batch import LINES, LONGEST_PROPERTIES, pack
from agent.journal import SALVAGE, Journal
from agent.mqtt import REFUSED, Connection, publish_overhead

ENTRIES = 32
"""So many are compressed at once, on the event loop."""


class Leftovers:
    """One device's, connection after connection."""

    def __init__(self, journal: Journal, topic: str, dropped: Callable[[], None]) -> None:
        """`topic` is where entries go; `dropped` is called when there may be more to send."""
        self._journal = journal
        self._topic = topic
        self._dropped = dropped
        self._flying = False
        """Some are on their way, or were refused by this broker."""
        self._none = False

    def begin(self) -> None:
        """A new connection."""
        self._flying = self._none = False

    async def send(self, connection: Connection) -> None:
        """The next few, where there are any, and more room than for a single message."""
        if self._flying or self._none or connection.room < 2:
            return
        room = connection.packet_limit - publish_overhead(self._topic, LINES, LONGEST_PROPERTIES)
        entries = await self._journal.salvaged(entries=ENTRIES, size=room)
        self._none = not entries and SALVAGE not in self._journal.records
        payload, properties = pack(entries, room) if entries else (b"", [])
        if not payload or len(payload) > room or not connection.room:
            return
        self._flying = True
        # `from` and `to` would be sequences of this epoch, which these entries are not of.
        told = [pair for pair in properties if pair[0] == "content-encoding"]
        acked = connection.publish(self._topic, payload, content_type=LINES, properties=told)
        acked.add_done_callback(partial(self._on_ack, entries[-1].sequence))

    def _on_ack(self, number: int, acked: asyncio.Future[int]) -> None:
        if not acked.cancelled() and acked.exception() is None and acked.result() < REFUSED:
            self._journal.drop_salvaged(number).add_done_callback(self._on_dropped)

    def _on_dropped(self, dropped: asyncio.Future[None]) -> None:
        if not dropped.cancelled() and dropped.exception() is None:
            self._flying = False
            self._dropped()
