"""Carries entries to the fleet. It knows MQTT and the journal, and nothing of parcels.

Durable entries go out in batches, one entry a line, oldest first, several batches in flight. The cursor
moves when the broker has acknowledged everything up to it, in order; what was in flight when a connection
died is sent again, and told apart by its id. A refusal is acted on by its reason: too large is split, a
full quota is waited out, and one entry that the broker will never take is recorded and passed over, so
that it cannot hold up the rest.
"""

import asyncio
import contextlib
import gzip
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from agent.clock import mono_ns
from agent.journal import Journal, Stored, compact
from agent.mqtt import Connection, ConnectionLost, Server, Will
from agent.workflow import Draft, Lane

ENTRIES = 256
"""Entries in one batch at most."""
BATCH_BYTES = 96 * 1024
"""Bytes of one batch before compression."""
PACKET_OVERHEAD = 512
"""What topic, properties and header may add to a payload."""
GZIP_FROM = 1024
GZIP_LEVEL = 1
PACK_INLINE = 32
"""Compressing fewer entries costs less than handing them to another thread."""
HEALTHY_S = 5.0
"""A session that lasted this long starts the backoff anew."""
STRIKES = 3
"""Times that one entry alone is refused before it is passed over."""
DEATHS = 10
"""Connections that die on the same single entry before it is passed over."""

TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
NOT_AUTHORISED = 0x87
_BLAMES_PACKET = {0x81, 0x82, 0x90, TOO_LARGE, 0x99}
"""Reason codes of a DISCONNECT that are about what we sent, not about the network."""

log = structlog.get_logger("uplink")


@dataclass(slots=True)
class Batch:
    """Entries that travel together."""

    entries: Sequence[Stored]
    acked: asyncio.Future[int]

    @property
    def last(self) -> int:
        return self.entries[-1].sequence


class Refusal(Exception):
    """The broker will not take the oldest batch."""

    def __init__(self, batch: Batch, code: int) -> None:
        super().__init__(f"reason {code:#04x}")
        self.batch = batch
        self.code = code


def pack(entries: Sequence[Stored]) -> tuple[bytes, list[tuple[str, str]]]:
    """Payload and user properties of a batch."""
    payload = b"\n".join(stored.line for stored in entries)
    properties = [("from", str(entries[0].sequence)), ("to", str(entries[-1].sequence))]
    if len(payload) > GZIP_FROM:
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
        rng: random.Random | None = None,
    ) -> None:
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
        self._rng = rng or random.Random()
        self._wake = asyncio.Event()
        self._announce = True
        self._limit = ENTRIES
        self._strikes = 0
        self._deaths = (0, 0)
        self._noted: asyncio.Future[None] | None = None
        self._connection: Connection | None = None
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

    async def run(self) -> None:
        """Connect, send, and connect again with full jitter, for ever."""
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.5, max=60),
                retry=retry_if_exception_type(ConnectionLost),
                before_sleep=self._tell_of_wait,
            ):
                with attempt:
                    await self._session()

    async def close(self) -> None:
        """Say goodbye; whatever is unsent waits in the journal."""
        if self._connection is not None:
            if self.online:
                with contextlib.suppress(ConnectionLost, TimeoutError):
                    async with asyncio.timeout(2):
                        await self._publish_state(self._connection, {"online": False})
            await self._connection.close()
        self._save_cursor()

    # -- one connection ---------------------------------------------------------------------------

    async def _session(self) -> None:
        will = Will(topic=f"{self.topic}/up/state", payload=compact({"online": False}))
        connection = self._connection = Connection(self.server, will)
        started = mono_ns()
        try:
            await connection.connect()
            self._came_online()
            connection.lost.add_done_callback(lambda _: self._wake.set())
            await self._send(connection)
        except ConnectionLost as lost:
            self._went_offline(lost)
            if (mono_ns() - started) / 1e9 < HEALTHY_S:
                raise
            log.warning("connection lost", reason=self.reason)
        finally:
            self.online = False
            self._connection = None
            await connection.close()

    async def _send(self, connection: Connection) -> None:
        while True:
            try:
                await self._stream(connection)
            except Refusal as refusal:
                await self._settle(refusal)

    async def _stream(self, connection: Connection) -> None:
        """Keep the window full until the connection is lost or the oldest batch is refused."""
        flying: deque[Batch] = deque()
        sent = self.cursor
        self._announce = True
        while True:
            self._wake.clear()
            if connection.lost.done():
                self._died_on(flying, connection.lost.result())
                raise connection.lost.result()
            if self._announce:
                self._announce = False
                self._publish_state(connection, self._birth()).add_done_callback(_seen)
            self._land(flying)
            while len(flying) < connection.window:
                batch = await self._launch(connection, max(sent, self.cursor), alone=not flying)
                if batch is None:
                    break
                flying.append(batch)
                sent = batch.last
                self._land(flying)
            await self._wake.wait()

    async def _launch(self, connection: Connection, after: int, *, alone: bool) -> Batch | None:
        """Send the next batch; None when there is nothing to send now."""
        room = connection.packet_limit - PACKET_OVERHEAD
        entries = await self.journal.read(after, entries=self._limit, size=min(BATCH_BYTES, 4 * room))
        if not entries:
            return None
        payload, properties = await self._pack(entries)
        while len(payload) > room and len(entries) > 1:
            entries = entries[: len(entries) // 2]
            payload, properties = await self._pack(entries)
        if len(payload) > room:
            # Only when everything before it is acknowledged: the cursor must not overtake what flies.
            if alone:
                self._pass_over(entries[0], TOO_LARGE)
            return None
        acked = connection.publish(
            f"{self.topic}/up/entries", payload, content_type="application/x-ndjson", properties=properties
        )
        acked.add_done_callback(self._on_ack)
        return Batch(entries, acked)

    async def _pack(self, entries: Sequence[Stored]) -> tuple[bytes, list[tuple[str, str]]]:
        if len(entries) < PACK_INLINE:
            return pack(entries)
        return await asyncio.get_running_loop().run_in_executor(None, pack, entries)

    def _on_ack(self, acked: asyncio.Future[int]) -> None:
        _seen(acked)
        self._wake.set()

    def _land(self, flying: deque[Batch]) -> None:
        """Move the cursor over everything acknowledged in order. Raises Refusal."""
        while flying and flying[0].acked.done() and flying[0].acked.exception() is None:
            code = flying[0].acked.result()
            if code >= 128:
                raise Refusal(flying[0], code)
            self.cursor = max(self.cursor, flying.popleft().last)
            self._limit = min(ENTRIES, self._limit * 2)
            self._strikes, self._deaths = 0, (0, 0)
            self._save_cursor()

    def _save_cursor(self) -> None:
        if self._noted is None or self._noted.done():
            self._noted = self.journal.note({"cursor": self.cursor})
            self._noted.add_done_callback(_seen)

    # -- refusals ---------------------------------------------------------------------------------

    async def _settle(self, refusal: Refusal) -> None:
        """Act on the reason, then let the stream start again from the cursor."""
        entries, code = refusal.batch.entries, refusal.code
        log.warning("batch refused", code=f"{code:#04x}", first=entries[0].sequence, entries=len(entries))
        if code == NOT_AUTHORISED:
            raise ConnectionLost("the broker does not let this device publish its entries", code)
        if code == QUOTA_EXCEEDED:
            self._strikes += 1
            await asyncio.sleep(self._rng.uniform(0, min(30.0, 0.5 * 2**self._strikes)))
        elif len(entries) > 1:
            self._limit = len(entries) // 2
        else:
            self._strikes += 1
            if code == TOO_LARGE or self._strikes >= STRIKES:
                self._pass_over(entries[0], code)
            else:
                await asyncio.sleep(self._rng.uniform(0, 0.5 * 2**self._strikes))

    def _died_on(self, flying: deque[Batch], lost: ConnectionLost) -> None:
        """Suspect the oldest batch when the broker blames what we sent, or dies on it again and again."""
        if not flying:
            return
        entries = flying[0].entries
        blamed = lost.code in _BLAMES_PACKET
        if blamed and len(entries) > 1:
            self._limit = len(entries) // 2
            return
        sequence, times = self._deaths
        self._deaths = (entries[0].sequence, times + 1 if sequence == entries[0].sequence else 1)
        if self._deaths[1] >= DEATHS // 2:
            self._limit = 1
        if len(entries) == 1 and self._deaths[1] >= (STRIKES if blamed else DEATHS):
            self._pass_over(entries[0], lost.code)

    def _pass_over(self, stored: Stored, code: int | None) -> None:
        """Leave one entry behind, for the record: it stays in the journal and is named in another."""
        data = {
            "sequence": str(stored.sequence),
            "bytes": len(stored.line),
            "reason": "connection_lost" if code is None else f"{code:#04x}",
        }
        log.error("entry passed over", **data)
        self._report(Draft("uplink.entry_passed_over", f"{self.journal.epoch}-{stored.sequence}", data))
        self.cursor = max(self.cursor, stored.sequence)
        self._strikes, self._deaths = 0, (0, 0)
        self._save_cursor()
        self._wake.set()

    # -- state ------------------------------------------------------------------------------------

    def _publish_state(self, connection: Connection, state: Mapping[str, Any]) -> asyncio.Future[int]:
        return connection.publish(
            f"{self.topic}/up/state", compact(state), retain=True, content_type="application/json"
        )

    def _came_online(self) -> None:
        offline_s = round((mono_ns() - self._offline_since) / 1e9, 1)
        self.online, self.reason = True, ""
        log.info("connected", broker=f"{self.server.host}:{self.server.port}", backlog=self.backlog)
        data = {"offline_s": offline_s, "backlog": self.backlog}
        self._report(Draft("uplink.connected", self.server.client_id, data, Lane.STATE))

    def _went_offline(self, lost: ConnectionLost) -> None:
        if self.online:
            self._offline_since = mono_ns()
        if str(lost) != self.reason:
            self.reason = str(lost)
            data = {"reason": self.reason, "code": lost.code}
            self._report(Draft("uplink.lost", self.server.client_id, data, Lane.STATE))

    def _tell_of_wait(self, attempt: RetryCallState) -> None:
        wait = attempt.next_action.sleep if attempt.next_action else 0.0
        log.warning(
            "not connected", reason=self.reason, attempt=attempt.attempt_number, wait_s=round(wait, 1)
        )


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of a failure that is dealt with elsewhere."""
    if not future.cancelled():
        future.exception()
