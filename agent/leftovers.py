"""Sends what a damaged journal still held: a few at a time beside the rest.

They have no sequence here and no receipt will ever cover them. So they are dropped once the acknowledgement
is believed, as `agent.trail` believes it; until then the next connection brings them again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from agent.batch import LINES, LONGEST_PROPERTIES, pack
from agent.journal import SALVAGE, Journal
from agent.mqtt import REFUSED, Connection, publish_overhead
from agent.trail import DOUBT_S

ENTRIES = 32
"""So many are compressed at once, on the event loop."""


class Leftovers:
    """One device's, connection after connection."""

    def __init__(self, journal: Journal, topic: str, wake: Callable[[], None]) -> None:
        """`topic` is where entries go; `wake` is called when there may be more to send."""
        self._journal = journal
        self._topic = topic
        self._wake = wake
        self._taken = 0
        """Up to which number this connection's broker has acknowledged them."""
        self._known = 0
        """Up to which an earlier one had."""
        self._doubted: deque[tuple[float, int]] = deque()
        """When it was acknowledged up to which number, where that is not believed yet."""
        self._flying = False
        """Some are on their way, or were refused by this broker."""
        self._none = False

    def begin(self) -> None:
        """A new connection."""
        self._flying = self._none = False
        self._known, self._taken = max(self._known, self._taken), 0
        self._doubted.clear()

    async def send(self, connection: Connection) -> None:
        """The next few, where there are any, and more room than for a single message."""
        self._drop(connection.heard - DOUBT_S)
        if self._flying or self._none or connection.room < 2:
            return
        room = connection.packet_limit - publish_overhead(self._topic, LINES, LONGEST_PROPERTIES)
        entries = await self._journal.salvaged(self._taken, entries=ENTRIES, size=room)
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
            self._taken, self._flying = number, False
            self._doubted.append((asyncio.get_running_loop().time(), number))
            self._wake()

    def _drop(self, since: float) -> None:
        """Those acknowledged up to then, or twice."""
        believed = 0
        while self._doubted and (self._doubted[0][0] <= since or self._doubted[0][1] <= self._known):
            _, believed = self._doubted.popleft()
        if believed:
            self._journal.drop_salvaged(believed)
