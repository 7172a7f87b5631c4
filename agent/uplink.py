"""Carries entries to the fleet. It knows MQTT and the journal, and nothing of parcels.

Durable entries go out in batches, several in flight, as many as the way bears. A lane's cursor moves when the
broker has acknowledged everything up to it; what was in flight when a connection died is sent again, as is
what was acknowledged just before (see `agent.trail`), and told apart by its id. A refusal is acted on by its
reason: too large is split, a full quota is waited out, and one entry that the broker will never take is
recorded and passed over, so that it cannot hold up the rest.
"""

import asyncio
import json
import random
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from agent.backlog import Backlog
from agent.batch import (
    BATCH_BYTES,
    FIRST_RATIO,
    LEAST_RATIO,
    LINES,
    LONGEST_PROPERTIES,
    MOST_RATIO,
    TELLING,
    Load,
)
from agent.clock import mono_ns
from agent.cursors import Cursors
from agent.dispatches import Dispatch, Dispatches
from agent.downlink import Downlink, Heard, Post
from agent.feed import Feed
from agent.herald import Herald
from agent.journal import Journal
from agent.ledger import leaf_hash
from agent.leftovers import Leftovers
from agent.mqtt import REFUSED, Connection, ConnectionLost, Server, publish_overhead
from agent.note import VerifierKey
from agent.pace import Pace
from agent.receipts import size_of
from agent.reconnect import Backoff, forever
from agent.refusals import TOO_LARGE, Again, Caution, Leave, PassOver
from agent.resend import Resend
from agent.trail import Trail
from agent.workflow import Draft, Lane

SAVE_EVERY, SAVE_AFTER_S = 512, 1.0
"""So many acknowledged entries are worth a commit for the cursors alone, once in so long, and at the end;
else they ride with the next. What is sent in that time may come twice after a power cut."""
LAST_PLACE = 4
"""Where a broker takes more than this at a time, the last place is kept for what is urgent."""

log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries on their way."""

    load: Load
    place: Cursors
    """Where the lanes are once this has arrived, and all before it."""
    sent: float
    acked: asyncio.Future[int]

    @property
    def size(self) -> int:
        """Bytes as sent."""
        return len(self.load.payload)


class Refusal(Exception):
    """The broker will not take the oldest batch."""

    def __init__(self, batch: Batch, code: int) -> None:
        super().__init__(f"reason {code:#04x}")
        self.batch = batch
        self.code = code


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
        config: Callable[[], Mapping[str, Any] | None] = lambda: None,
        request: Callable[[], bytes | None] = lambda: None,
        heard: Heard = lambda _name, _took: None,
        rng: random.Random | None = None,
    ) -> None:
        """`fleet` are the keys whose receipts are believed; without any, none are asked for. `post` opens
        what else is signed; `config` is what is reported of the fleet's config, `request` which keys are
        asked for; `heard` is told of what was taken, and how long that took."""
        self.journal = journal
        self.server = server
        self.topic = topic
        """`postern/v1/<device>`."""
        self.online = False
        self.reason = "not connected yet"
        self._reasons: set[str] = set()
        """Told since we were last online: nodes that are away in turn are not told of again and again."""
        self.pace = Pace()
        self._report = report
        self._rng = rng or random.Random()
        self._wake = asyncio.Event()
        self._downlink = Downlink(journal, topic, fleet, report, self._receipted, self._lacking, post, heard)
        self._herald = Herald(journal, topic, birth, self._answered, config, request)
        self._leftovers = Leftovers(journal, f"{topic}/up/entries", self._wake.set)
        self._resend = Resend(journal, f"{topic}/up/entries", self._wake.set)
        self._dispatches = Dispatches(topic, self._wake.set)
        self._trail = Trail(journal.records)
        self._feed = Feed(journal, self._trail.place)
        self._backlog = Backlog(journal, self.cursors)
        self._caution = Caution()
        self._ratio = FIRST_RATIO
        self._unsaved, self._saved_at = 0, 0.0
        self._nodes = server.in_turn(by_name=True)
        self._watchers: list[Callable[[], None]] = []
        self._offline_since = mono_ns()
        journal.watch(self._wake.set)

    @property
    def cursors(self) -> Cursors:
        """Up to where each lane is with the broker, or recorded as passed over."""
        return self._trail.cursors.settled(self.journal.newest, self.journal.last)

    @property
    def cursor(self) -> int:
        """Everything up to this sequence is with the broker, or recorded as passed over."""
        return self.cursors.floor

    @property
    def backlog(self) -> int:
        """Entries that the broker has not acknowledged."""
        lanes = self.lanes
        return self.journal.last - self.cursor if lanes is None else sum(lanes.values())

    @property
    def lanes(self) -> dict[str, int] | None:
        """The backlog by lane; None while it is being counted."""
        return self._backlog.by_lane()

    def ask_for_pages(self) -> None:
        """Pages are lacked that were not a moment ago."""
        self._downlink.ask_for_pages()

    def connect_with(self, server: Server) -> None:
        """Be let in like this from the next connection on."""
        self.server, self._nodes = server, server.in_turn(by_name=True)

    def ask_again(self) -> None:
        """Have the broker bring once more what it has retained for this device."""
        self._downlink.ask_again()

    def dispatch(self, dispatch: Dispatch) -> None:
        """Send a message beside the entries, as soon as there is room."""
        self._dispatches.post(dispatch)

    def announce(self) -> None:
        """The birth message has changed."""
        self._herald.announce()
        self._wake.set()

    def resend(self, first: int, last: int) -> str:
        """Send entries again that the broker has taken before; the reason why not, or nothing."""
        if first > self.journal.last:
            return "not_made_yet"
        return "" if self._resend.order((first, last), self.cursors) else "busy"

    def watch(self, call: Callable[[], None]) -> None:
        """Call whenever a cursor has moved, or a receipt was taken."""
        self._watchers.append(call)

    async def run(self) -> None:
        """Connect, send, and connect again, for ever."""
        backoff = Backoff(self.server.client_id, self._rng)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._backlog.count(), name="backlog")
            await forever(self._session, backoff, self._tell_of_wait)

    # -- one connection ---------------------------------------------------------------------------

    async def _session(self) -> None:
        """Raises ConnectionLost."""
        server = next(self._nodes)
        connection = Connection(server, self._herald.will)
        try:
            await connection.connect()
            self._came_online(server)
            connection.lost.add_done_callback(lambda _: self._wake.set())
            await self._downlink.subscribe(connection)
            await self._hear_and_send(connection)
        except ConnectionLost as lost:
            self._went_offline(lost)
            raise
        finally:
            self.online = False
            self._trail.lost(connection.heard)
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
        self._trail.begin(size_of(self.journal.records))
        self._herald.begin()
        self._leftovers.begin()
        self._resend.begin()
        self._dispatches.begin()
        self.pace.begin()
        self._saved_at = asyncio.get_running_loop().time()
        while True:
            flying: deque[Batch] = deque()
            try:
                await self._stream(connection, flying)
            except Refusal as refusal:
                # Whatever is still in flight takes up the broker's window and is judged by nobody: let it
                # land, so that the next stream starts from the cursors with nothing behind its back.
                await asyncio.wait([batch.acked for batch in flying])
                if not connection.lost.done():
                    await self._settle(refusal)

    async def _stream(self, connection: Connection, flying: deque[Batch]) -> None:
        """Keep the way busy until the connection is lost or the oldest batch is refused."""
        self._feed.rewind(self._trail.place, self._trail.cursors)
        while True:
            self._wake.clear()
            self._land(flying)
            if connection.lost.done():
                self._died_on(flying, connection.lost.result())
                raise connection.lost.result().again()
            self._herald.speak(connection)
            self._dispatches.speak(connection)
            await self._leftovers.send(connection)
            if not self._caution.alone:
                await self._resend.send(connection)
            if not await self._launch(connection, flying):
                await self._wake.wait()

    def _may_send(self, connection: Connection, flying: deque[Batch], lane: Lane) -> bool:
        """Whether a batch may go that holds entries of this lane and less urgent ones."""
        if self._caution.alone:
            return connection.room == connection.window
        if not connection.room or len(flying) >= self._caution.pace:
            return False
        if all(batch.load.urgency > lane for batch in flying):
            # One of a more urgent lane always goes beside the others: a scan does not wait for telemetry.
            return True
        kept = lane > min(Lane) and connection.window > LAST_PLACE
        return connection.room > kept and _in_flight(flying) < self.pace.window

    async def _launch(self, connection: Connection, flying: deque[Batch]) -> bool:
        """Send the next batch, where there is one and it may go. False when there is nothing to do now."""
        lane = self._feed.urgent
        if lane is None and not flying:
            # The last looks may have found nothing: so far is everything dealt with.
            self._move(self._feed.place)
            self._save(all_sent=True)
        if lane is None or not self._may_send(connection, flying, lane):
            return False
        before, topic = self._feed.place, f"{self.topic}/up/entries"
        room = connection.packet_limit - publish_overhead(topic, LINES, LONGEST_PROPERTIES)
        size = min(BATCH_BYTES, round(self._ratio * min(room, self.pace.batch_bytes)))
        load = await self._feed.next(entries=self._caution.limit, size=size, room=room)
        if load is None:
            return not flying
        if len(load.payload) > room and not flying:
            self._pass_over(load, self._feed.place, TOO_LARGE)
            return True
        if len(load.payload) > room or not connection.room:
            # Too large, and the cursors must not overtake what flies; or lost meanwhile: nothing was sent.
            self._feed.rewind(before, self._trail.cursors)
            return False
        flying.append(self._publish(connection, topic, load, flying))
        return True

    def _publish(self, connection: Connection, topic: str, load: Load, flying: Sequence[Batch]) -> Batch:
        if load.entries >= TELLING:
            self._ratio = min(MOST_RATIO, max(LEAST_RATIO, load.ratio))
        busy = _in_flight(flying) + len(load.payload) >= self.pace.window / 2
        acked = connection.publish(topic, load.payload, content_type=LINES, properties=load.properties)
        batch = Batch(load, self._feed.place, asyncio.get_running_loop().time(), acked)
        acked.add_done_callback(partial(self._on_ack, batch, busy))
        return batch

    def _on_ack(self, batch: Batch, busy: bool, acked: asyncio.Future[int]) -> None:
        self._wake.set()
        if not acked.cancelled() and acked.exception() is None and acked.result() < REFUSED:
            now = asyncio.get_running_loop().time()
            self.pace.acknowledged(batch.size, now - batch.sent, now, busy=busy)

    def _answered(self, latency: float) -> None:
        self.pace.heard(latency, asyncio.get_running_loop().time())
        self._wake.set()

    def _land(self, flying: deque[Batch]) -> None:
        """Move the cursors over everything acknowledged in order. Raises Refusal."""
        while flying and flying[0].acked.done() and flying[0].acked.exception() is None:
            code = flying[0].acked.result()
            if code >= REFUSED:
                raise Refusal(flying[0], code)
            self._caution.accepted()
            landed = flying.popleft()
            self._backlog.gone(landed.load.counts)
            self._unsaved += landed.load.entries
            self._move(landed.place)

    def _move(self, to: Cursors, *, left_behind: bool = False) -> None:
        settled, trail = to.settled(self.journal.newest, self.journal.last), self._trail
        if settled == trail.place:
            return
        now = asyncio.get_running_loop().time()
        trail.moved(settled, now)
        if left_behind:
            trail.believe()
        self.journal.ride(trail.cursors.records(self.journal.records, again=trail.believed(now)))
        self._save(all_sent=False)
        self._tell()

    def _save(self, *, all_sent: bool) -> None:
        now = asyncio.get_running_loop().time()
        if self._unsaved >= SAVE_EVERY and (all_sent or now - self._saved_at >= SAVE_AFTER_S):
            self._unsaved, self._saved_at = 0, now
            self.journal.save()

    def _tell(self) -> None:
        for call in self._watchers:
            call()

    # -- refusals ---------------------------------------------------------------------------------

    async def _settle(self, refusal: Refusal) -> None:
        """Act on the reason, then let the stream start again from the cursors."""
        batch, code = refusal.batch, refusal.code
        load = batch.load
        log.warning("batch refused", code=f"{code:#04x}", first=load.first, entries=load.entries)
        match self._caution.refused(code, load.entries):
            case Again(within):
                await asyncio.sleep(self._rng.uniform(0, within))
            case PassOver():
                self._pass_over(load, batch.place, code)
            case Leave():
                raise ConnectionLost(f"the broker refuses this device's entries: {code:#04x}", code)

    def _died_on(self, flying: deque[Batch], lost: ConnectionLost) -> None:
        """Suspect the oldest batch when the broker blames what we sent, or dies on it again and again."""
        if not flying:
            return
        oldest, after = flying[0], asyncio.get_running_loop().time() - flying[0].sent
        load = oldest.load
        verdict = self._caution.died(load.first, load.entries, len(flying), lost.code, after)
        if verdict == PassOver():
            self._pass_over(load, oldest.place, lost.code)

    def _pass_over(self, load: Load, place: Cursors, code: int | None) -> None:
        """Leave a batch of one entry behind, for the record: it stays in the journal and is named in another.

        Its leaf hash goes with the name, so that the fleet can follow the tree over it.
        """
        left = load.oldest
        data = {
            "sequence": str(left.sequence),
            "bytes": len(left.line),
            "reason": "connection_lost" if code is None else f"{code:#04x}",
            "lane": json.loads(left.line).get("lane"),
            "leaf": b64encode(leaf_hash(left.line)).decode(),
        }
        log.error("entry passed over", **data)
        self._report(Draft("uplink.entry_passed_over", f"{self.journal.epoch}-{left.sequence}", data))
        self._backlog.gone(load.counts)
        self._move(place, left_behind=True)
        self._wake.set()

    # -- what the fleet says of it ----------------------------------------------------------------

    def _receipted(self) -> None:
        self._resend.covered(1, size_of(self.journal.records))
        self._tell()

    def _lacking(self, size: int) -> None:
        """The fleet has so much, and says so again."""
        self._resend.lacking(size, self.cursors)

    # -- what is told -----------------------------------------------------------------------------

    def _came_online(self, server: Server) -> None:
        offline_s = round((mono_ns() - self._offline_since) / 1e9, 1)
        self.online, self.reason = True, ""
        self._reasons.clear()
        log.info("connected", broker=server.where, backlog=self.backlog)
        data = {"offline_s": offline_s, "backlog": self.backlog, "lanes": self.lanes}
        self._report(Draft("uplink.connected", self.server.client_id, data, Lane.STATE))

    def _went_offline(self, lost: ConnectionLost) -> None:
        if self.online:
            self._offline_since = mono_ns()
            log.warning("connection lost", reason=str(lost))
        self.reason = str(lost)
        if self.reason not in self._reasons:
            self._reasons.add(self.reason)
            data = {"reason": self.reason, "code": lost.code}
            self._report(Draft("uplink.lost", self.server.client_id, data, Lane.STATE))

    def _tell_of_wait(self, failed: int, wait_s: float) -> None:
        log.warning("not connected", reason=self.reason, attempt=failed, wait_s=round(wait_s, 1))


def _heard(connection: Connection, hearing: asyncio.Task[None]) -> None:
    """Who can hear no more need not go on speaking."""
    if not hearing.cancelled() and hearing.exception() is not None:
        connection.give_up("hearing failed")


def _in_flight(flying: Sequence[Batch]) -> int:
    """Bytes that the broker has not acknowledged."""
    return sum(batch.size for batch in flying if not batch.acked.done())
