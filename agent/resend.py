"""Sends again what the fleet lacks: a few at a time beside the rest, from the journal as it is.

    resend = Resend(journal, "postern/v1/van-0042/up/entries", wake)
    resend.order((900, 1000), upto)      # by command
    resend.lacking(size, upto)       # by a receipt that is given again: the fleet has no more
    await resend.send(connection)

What it was asked for outlives the connection, but not the process: a fleet that still lacks it asks again.
Lanes, cursors and backlog are not touched: this is a second copy of what the broker has taken before.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from agent.batch import BATCH_BYTES, LINES, LONGEST_PROPERTIES, Load, packed
from agent.cursors import Cursors
from agent.journal import Journal
from agent.mqtt import REFUSED, Connection, publish_overhead
from agent.receipts import size_of
from agent.spans import Span, join, without
from agent.trail import DOUBT_S

SPANS = 64
"""Ranges that are remembered; who asks for more is to ask again."""
ENTRIES = 32
"""So many are compressed at once, on the event loop."""
LOOKS = 8
"""Looks into the journal one after the other: what is new must not wait for what is sent again."""
REPEAT_S = 300.0
"""The same receipt is heeded this often at most, however often the broker brings it."""

log = structlog.get_logger("uplink")


class Resend:
    """One device's, connection after connection."""

    def __init__(self, journal: Journal, topic: str, wake: Callable[[], None]) -> None:
        """`topic` is where entries go; `wake` is called when there may be more to send."""
        self._journal = journal
        self._topic = topic
        self._wake = wake
        self._spans: list[Span] = []
        self._upto = Cursors()
        self._flying = False
        self._heard = (-1, 0.0)
        """The last receipt that was given again, and when that was."""
        self._question: tuple[int, Cursors, float] | None = None
        """What it said, where the broker was then, and when that is judged."""

    @property
    def waits(self) -> bool:
        """Whether there is anything left to be sent again."""
        return bool(self._spans)

    def begin(self) -> None:
        """A new connection: what was in flight is sent once more."""
        self._flying = False

    def order(self, span: Span, upto: Cursors) -> bool:
        """Send this range again, of each lane only up to its place. False where too much is asked for."""
        spans: list[Span] = []
        for each in sorted([*self._spans, span]):
            join(spans, each)
        if len(spans) > SPANS:
            return False
        self._spans, self._upto = spans, self._upto.joined(upto)
        self._wake()
        return True

    def lacking(self, size: int, upto: Cursors) -> None:
        """The fleet says again that it has `size` entries, where the broker has had more.

        They may be on their way. What is signed for and the fleet still lacks in a while is lost.
        """
        (before, at), loop = self._heard, asyncio.get_running_loop()
        now = loop.time()
        if size == before and now - at < REPEAT_S:
            return
        self._heard = (size, now)
        self._question = (size, upto, now + DOUBT_S)
        loop.call_later(DOUBT_S, self._wake)

    def _judge(self) -> None:
        if self._question is None or asyncio.get_running_loop().time() < self._question[2]:
            return
        (size, upto, _), self._question = self._question, None
        notary = self._journal.notary
        signed = notary.last.size if notary is not None and notary.last is not None else 0
        last = min(signed, max(upto.places))
        if size < last and size == size_of(self._journal.records):
            log.info("sending again", first=size + 1, last=last)
            self.order((size + 1, last), upto)

    def covered(self, first: int, last: int) -> None:
        """These need not be sent again."""
        self._spans = without(self._spans, [(first, last)])

    async def send(self, connection: Connection) -> None:
        """The next few, where there are any, and more room than for a single message."""
        self._judge()
        if self._flying or not self.waits or connection.room < 2:
            return
        room = connection.packet_limit - publish_overhead(self._topic, LINES, LONGEST_PROPERTIES)
        load = await self._next(room)
        if load is None or not connection.room:
            return
        self._flying = True
        acked = connection.publish(self._topic, load.payload, content_type=LINES, properties=load.properties)
        acked.add_done_callback(partial(self._on_ack, load))

    async def _next(self, room: int) -> Load | None:
        """Those at the beginning of the first range. What is not there any more, or is too large, is left."""
        for _ in range(LOOKS):
            if not self._spans:
                return None
            first, last = self._spans[0]
            found = await self._journal.read(first - 1, entries=ENTRIES, size=BATCH_BYTES)
            end = min(found[-1].sequence if found else last, last)
            wanted = [each for each in found if each.sequence <= min(end, self._upto.of(each.lane))]
            load = packed(wanted, room, self._upto) if wanted else None
            if load is not None and len(load.payload) <= room:
                return load
            self.covered(first, load.last if load is not None else end)
        self._wake()
        return None

    def _on_ack(self, load: Load, acked: "asyncio.Future[int]") -> None:
        if acked.cancelled() or acked.exception() is not None:
            return
        self._flying = False
        if acked.result() >= REFUSED:
            log.warning("not taken again", code=f"{acked.result():#04x}", first=load.first, last=load.last)
            self._spans.clear()
        else:
            self.covered(load.first, load.last)
        self._wake()
