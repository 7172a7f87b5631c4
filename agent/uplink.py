"""Carries entries to the fleet. It knows MQTT and the journal, and nothing of parcels.

Durable entries go out in batches, one entry a line, oldest first, several batches in flight. The cursor
moves when the broker has acknowledged everything up to it, in order; what was in flight when a connection
died is sent again, and told apart by its id. A refusal is acted on by its reason: too large is split, a
full quota is waited out, and one entry that the broker will never take is recorded and passed over, so
that it cannot hold up the rest.
"""

import asyncio
import gzip
import json
import random
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from agent.clock import mono_ns
from agent.downlink import Downlink, Post
from agent.journal import SALVAGE, Journal, compact
from agent.ledger import leaf_hash
from agent.mqtt import Connection, ConnectionLost, Server, Will, publish_overhead
from agent.note import VerifierKey
from agent.refusals import TOO_LARGE, Again, Caution, Leave, PassOver
from agent.store import Stored
from agent.workflow import Draft, Lane

BATCH_BYTES = 384 * 1024
"""Bytes of one batch before compression. Where the way is long, fewer and larger batches are what helps."""
READ_RATIO = 4
"""Bytes read for each byte of a packet that a small packet limit leaves: entries compress about so well."""
GZIP_FROM = 1024
GZIP_LEVEL = 1
PACK_INLINE = 32
"""Compressing fewer entries costs less than handing them to another thread."""
HEALTHY_S = 5.0
"""A session that lasted this long starts the backoff anew."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

SAVE_EVERY = 512
"""Acknowledged entries after which the cursor is worth a commit of its own; else it rides with the next."""

LINES, JSON, NOTE = "application/x-ndjson", "application/json", "text/plain; charset=utf-8"

log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that travel together: their sequences have no gaps."""

    oldest: Stored
    last: int
    size: int
    """Bytes before compression."""
    sent: float
    acked: asyncio.Future[int]

    @property
    def first(self) -> int:
        return self.oldest.sequence

    @property
    def entries(self) -> int:
        return self.last - self.first + 1


class Refusal(Exception):
    """The broker will not take the oldest batch."""

    def __init__(self, batch: Batch, code: int) -> None:
        super().__init__(f"reason {code:#04x}")
        self.batch = batch
        self.code = code


Packed = tuple[bytes, list[tuple[str, str]]]


def pack(entries: Sequence[Stored], room: int = GZIP_FROM) -> Packed:
    """Payload and user properties of a batch; compressed where it is worth it, or has to be to fit."""
    payload = b"\n".join(stored.line for stored in entries)
    properties = [("from", str(entries[0].sequence)), ("to", str(entries[-1].sequence))]
    if len(payload) > min(GZIP_FROM, room):
        payload = gzip.compress(payload, GZIP_LEVEL, mtime=0)
        properties.append(("content-encoding", "gzip"))
    return payload, properties


class Uplink:
    """Owns the broker connection, for ever."""

    def __init__(
        self,
        journal: Journal,
        server: Server,
        topic: str,
        *,
        birth: Callable[[], Mapping[str, Any]],
        report: Callable[[Draft], object],
        fleet: Collection[VerifierKey] = (),
        post: Post | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`fleet` are the keys whose receipts are believed; without any, none are asked for. `post` opens
        what else is signed."""
        self.journal = journal
        self.server = server
        self.topic = topic
        """`postern/v1/<device>`."""
        self.cursor = int(journal.records.get("cursor", 0))
        """Everything up to this sequence is with the broker, or recorded as passed over."""
        self.online = False
        self.reason = "not connected yet"
        self._birth = birth
        self._report = report
        self._downlink = Downlink(journal, topic, fleet, report, self._tell, post)
        self._rng = rng or random.Random()
        self._wake = asyncio.Event()
        self._announce = True
        self._caution = Caution()
        self._saved = self.cursor
        self._salvaging = False
        """Salvaged entries are on their way, or were refused by this broker."""
        self._none_salvaged = False
        self._shown: bytes | None = None
        """The checkpoint that the broker has."""
        self._watchers: list[Callable[[], None]] = []
        self._offline_since = mono_ns()
        journal.watch(self._wake.set)

    @property
    def backlog(self) -> int:
        """Entries that the broker has not acknowledged."""
        return self.journal.last - self.cursor

    def announce(self) -> None:
        """The birth message has changed."""
        self._announce = True
        self._wake.set()

    def watch(self, call: Callable[[], None]) -> None:
        """Call whenever the cursor has moved, or a receipt was taken."""
        self._watchers.append(call)

    async def run(self) -> None:
        """Connect, send, and connect again with full jitter, for ever."""
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
                retry=retry_if_exception_type(ConnectionLost),
                before_sleep=self._tell_of_wait,
            ):
                with attempt:
                    await self._session()
            # A whole fleet has just lost the same broker: not all at once.
            await asyncio.sleep(self._rng.uniform(0, FIRST_WAIT_S))

    # -- one connection ---------------------------------------------------------------------------

    async def _session(self) -> None:
        """Raises ConnectionLost, except after a session that lasted."""
        will = Will(topic=f"{self.topic}/up/state", payload=compact({"online": False}))
        connection = Connection(self.server, will)
        started = mono_ns()
        try:
            await connection.connect()
            self._came_online()
            connection.lost.add_done_callback(lambda _: self._wake.set())
            await self._downlink.subscribe(connection)
            await self._hear_and_send(connection)
        except ConnectionLost as lost:
            self._went_offline(lost)
            if (mono_ns() - started) / 1e9 < HEALTHY_S:
                raise
        finally:
            self.online = False
            await connection.close()

    async def _hear_and_send(self, connection: Connection) -> None:
        """What comes down is heard at once, however long sending has to wait."""
        hearing = asyncio.create_task(self._downlink.hear(connection), name="downlink")
        hearing.add_done_callback(partial(_heard, connection))
        try:
            await self._send(connection)
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
            if not hearing.cancelled():
                hearing.result()

    async def _send(self, connection: Connection) -> None:
        self._announce, self._shown = True, None
        self._salvaging = self._none_salvaged = False
        while True:
            flying: deque[Batch] = deque()
            try:
                await self._stream(connection, flying)
            except Refusal as refusal:
                # Whatever is still in flight takes up the broker's window and is judged by nobody: let it
                # land, so that the next stream starts from the cursor with nothing behind its back.
                await asyncio.wait([batch.acked for batch in flying])
                if not connection.lost.done():
                    await self._settle(refusal)

    async def _stream(self, connection: Connection, flying: deque[Batch]) -> None:
        """Keep the window full until the connection is lost or the oldest batch is refused."""
        sent = self.cursor
        while True:
            self._wake.clear()
            self._land(flying)
            if connection.lost.done():
                self._died_on(flying, connection.lost.result())
                raise connection.lost.result().again()
            if self._announce and connection.room:
                self._announce = False
                self._publish_birth(connection)
            self._publish_checkpoint(connection)
            await self._send_salvaged(connection)
            while self._may_send(connection, flying):
                batch = await self._launch(connection, max(sent, self.cursor), alone=not flying)
                if batch is None:
                    break
                flying.append(batch)
                sent = batch.last
                self._land(flying)
            await self._wake.wait()

    def _may_send(self, connection: Connection, flying: deque[Batch]) -> bool:
        if self._caution.alone:
            return connection.room == connection.window
        return connection.room > 0 and len(flying) < self._caution.pace

    async def _launch(self, connection: Connection, after: int, *, alone: bool) -> Batch | None:
        """Send the next batch; None when there is nothing to send now."""
        topic = f"{self.topic}/up/entries"
        room = connection.packet_limit - publish_overhead(topic, LINES, _LONGEST_PROPERTIES)
        size = min(BATCH_BYTES, READ_RATIO * room)
        entries = await self.journal.read(after, entries=self._caution.limit, size=size)
        if not entries:
            return None
        payload, properties = await self._pack(entries, room)
        while len(payload) > room and len(entries) > 1:
            entries = entries[: len(entries) // 2]
            payload, properties = await self._pack(entries, room)
        if len(payload) > room:
            # Only when everything before it is acknowledged: the cursor must not overtake what flies.
            if alone:
                self._pass_over(entries[0], TOO_LARGE)
            return None
        if not connection.room:
            # Lost while reading or packing: nothing of this has been sent.
            return None
        acked = connection.publish(topic, payload, content_type=LINES, properties=properties)
        acked.add_done_callback(self._on_ack)
        total = sum(len(stored.line) for stored in entries)
        now = asyncio.get_running_loop().time()
        return Batch(entries[0], entries[-1].sequence, total, now, acked)

    async def _send_salvaged(self, connection: Connection) -> None:
        """What a damaged journal still held, a batch at a time beside the rest; dropped when acknowledged."""
        if self._salvaging or self._none_salvaged or connection.room < 2:
            return
        topic = f"{self.topic}/up/entries"
        room = connection.packet_limit - publish_overhead(topic, LINES, _LONGEST_PROPERTIES)
        entries = await self.journal.salvaged(entries=PACK_INLINE, size=room)
        self._none_salvaged = not entries and SALVAGE not in self.journal.records
        payload, properties = pack(entries, room) if entries else (b"", [])
        if not payload or len(payload) > room or not connection.room:
            return
        self._salvaging = True
        # `from` and `to` would be sequences of this epoch, which these entries are not of.
        told = [pair for pair in properties if pair[0] == "content-encoding"]
        acked = connection.publish(topic, payload, content_type=LINES, properties=told)
        acked.add_done_callback(partial(self._on_salvaged, entries[-1].sequence))

    def _on_salvaged(self, number: int, acked: asyncio.Future[int]) -> None:
        if not acked.cancelled() and acked.exception() is None and acked.result() < 128:
            self.journal.drop_salvaged(number).add_done_callback(self._on_dropped)

    def _on_dropped(self, dropped: asyncio.Future[None]) -> None:
        _seen(dropped)
        self._salvaging = False
        self._wake.set()

    async def _pack(self, entries: Sequence[Stored], room: int) -> Packed:
        if len(entries) < PACK_INLINE:
            return pack(entries, room)
        return await asyncio.get_running_loop().run_in_executor(None, pack, entries, room)

    def _on_ack(self, acked: asyncio.Future[int]) -> None:
        _seen(acked)
        self._wake.set()

    def _land(self, flying: deque[Batch]) -> None:
        """Move the cursor over everything acknowledged in order. Raises Refusal."""
        while flying and flying[0].acked.done() and flying[0].acked.exception() is None:
            code = flying[0].acked.result()
            if code >= 128:
                raise Refusal(flying[0], code)
            self._caution.accepted()
            self._move_cursor(flying.popleft().last)

    def _move_cursor(self, to: int) -> None:
        self.cursor = max(self.cursor, to)
        self.journal.ride({"cursor": self.cursor})
        if self.cursor - self._saved >= SAVE_EVERY:
            self._saved = self.cursor
            self.journal.save()
        self._tell()

    def _tell(self) -> None:
        for call in self._watchers:
            call()

    # -- refusals ---------------------------------------------------------------------------------

    async def _settle(self, refusal: Refusal) -> None:
        """Act on the reason, then let the stream start again from the cursor."""
        batch, code = refusal.batch, refusal.code
        log.warning("batch refused", code=f"{code:#04x}", first=batch.first, entries=batch.entries)
        match self._caution.refused(code, batch.entries):
            case Again(within):
                await asyncio.sleep(self._rng.uniform(0, within))
            case PassOver():
                self._pass_over(batch.oldest, code)
            case Leave():
                raise ConnectionLost(f"the broker refuses this device's entries: {code:#04x}", code)

    def _died_on(self, flying: deque[Batch], lost: ConnectionLost) -> None:
        """Suspect the oldest batch when the broker blames what we sent, or dies on it again and again."""
        if not flying:
            return
        oldest, after = flying[0], asyncio.get_running_loop().time() - flying[0].sent
        verdict = self._caution.died(oldest.first, oldest.entries, len(flying), lost.code, after)
        if verdict == PassOver():
            self._pass_over(oldest.oldest, lost.code)

    def _pass_over(self, left: Stored, code: int | None) -> None:
        """Leave one entry behind, for the record: it stays in the journal and is named in another.

        Its leaf hash goes with the name, so that the fleet can follow the tree over it.
        """
        data = {
            "sequence": str(left.sequence),
            "bytes": len(left.line),
            "reason": "connection_lost" if code is None else f"{code:#04x}",
            "lane": json.loads(left.line).get("lane"),
            "leaf": b64encode(leaf_hash(left.line)).decode(),
        }
        log.error("entry passed over", **data)
        self._report(Draft("uplink.entry_passed_over", f"{self.journal.epoch}-{left.sequence}", data))
        self._move_cursor(left.sequence)
        self._wake.set()

    # -- state ------------------------------------------------------------------------------------

    def _publish_birth(self, connection: Connection) -> None:
        topic = f"{self.topic}/up/state"
        birth = self._birth()
        room = connection.packet_limit - publish_overhead(topic, JSON, ())
        facts = {name: value for name, value in birth.items() if not isinstance(value, Mapping)}
        payload = next(
            (each for each in (compact(birth), compact(facts)) if len(each) <= room),
            compact({"online": True}),
        )
        acked = connection.publish(topic, payload, retain=True, content_type=JSON)
        acked.add_done_callback(self._on_birth)

    def _publish_checkpoint(self, connection: Connection) -> None:
        note = self.journal.notary.note if self.journal.notary else None
        if note is None or note == self._shown or not connection.room:
            return
        self._shown = note
        acked = connection.publish(f"{self.topic}/up/checkpoint", note, retain=True, content_type=NOTE)
        acked.add_done_callback(self._on_ack)

    def _on_birth(self, acked: asyncio.Future[int]) -> None:
        self._on_ack(acked)
        if not acked.cancelled() and acked.exception() is None and acked.result() >= 128:
            log.warning("birth refused", code=f"{acked.result():#04x}")

    def _came_online(self) -> None:
        offline_s = round((mono_ns() - self._offline_since) / 1e9, 1)
        self.online, self.reason = True, ""
        log.info("connected", broker=f"{self.server.host}:{self.server.port}", backlog=self.backlog)
        data = {"offline_s": offline_s, "backlog": self.backlog}
        self._report(Draft("uplink.connected", self.server.client_id, data, Lane.STATE))

    def _went_offline(self, lost: ConnectionLost) -> None:
        if self.online:
            self._offline_since = mono_ns()
            log.warning("connection lost", reason=str(lost))
        if str(lost) != self.reason:
            self.reason = str(lost)
            data = {"reason": self.reason, "code": lost.code}
            self._report(Draft("uplink.lost", self.server.client_id, data, Lane.STATE))

    def _tell_of_wait(self, attempt: RetryCallState) -> None:
        wait = attempt.next_action.sleep if attempt.next_action else 0.0
        log.warning(
            "not connected", reason=self.reason, attempt=attempt.attempt_number, wait_s=round(wait, 1)
        )


_LONGEST_PROPERTIES = (("from", "9" * 19), ("to", "9" * 19), ("content-encoding", "gzip"))


def _heard(connection: Connection, hearing: asyncio.Task[None]) -> None:
    """Who can hear no more need not go on speaking."""
    if not hearing.cancelled() and hearing.exception() is not None:
        connection.give_up("hearing failed")


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of a failure that is dealt with elsewhere."""
    if not future.cancelled():
        future.exception()
