"""Receives the entries of many devices, each once, and acknowledges what it has taken.

    collector = Collector(server, print)
    await collector.run()

A message is acknowledged when `on_entry` has returned for each of its new entries; what was not is brought
again by a broker that keeps the session (`Server.session_expiry`), and told apart by its id.

With a clerk it keeps books as well: what arrived together is stored and checked together, and acknowledged
when it is on stable storage; then the devices get their receipts.
"""

import asyncio
import json
import re
import time
import zlib
from collections.abc import Callable, Sequence

import structlog

from agent.fleet.audit import Birth, Entries, Noted, Outcome, Work
from agent.fleet.clerk import Clerk
from agent.fleet.device_log import DeviceLog, Duplicate, Entry, New, Rejected
from agent.fleet.findings import Finding
from agent.fleet.gaps import Gap, Patience
from agent.fleet.outbox import Letter, Outbox
from agent.mqtt import Connection, ConnectionLost, Message, Server
from agent.reconnect import Backoff, forever

UNPACKED_MOST = 4 * 1024 * 1024
"""Bytes of a batch after decompression; a few kilobytes can claim to be gigabytes."""
LOOK_EVERY_S = 10.0
"""Between two looks for what is overdue."""
NOTE = "text/plain; charset=utf-8"

_TOPIC = re.compile(r"postern/v1/([a-z0-9][a-z0-9-]{2,39})/up/([a-z]+)")
_GZIP = 16 + zlib.MAX_WBITS

log = structlog.get_logger("collector")


class BadBatch(ValueError):
    """A payload that is none of ours."""


def unpack(payload: bytes, encoding: str | None) -> list[bytes]:
    """The lines of a batch. Raises BadBatch."""
    if encoding not in (None, "gzip"):
        raise BadBatch(f"content-encoding: expected gzip or none, got {encoding!r}")
    if encoding == "gzip":
        payload = _decompressed(payload)
    return [line for line in payload.split(b"\n") if line]


def _decompressed(payload: bytes) -> bytes:
    stream = zlib.decompressobj(_GZIP)
    try:
        unpacked = stream.decompress(payload, UNPACKED_MOST + 1)
    except zlib.error as error:
        raise BadBatch(f"not gzip: {error}") from None
    if len(unpacked) > UNPACKED_MOST:
        raise BadBatch(f"expected at most {UNPACKED_MOST} bytes, got more")
    if not stream.eof or stream.unused_data:
        raise BadBatch("expected one whole gzip member, got less or more")
    return unpacked


class Collector:
    """Owns a broker connection, for ever."""

    def __init__(
        self,
        server: Server,
        on_entry: Callable[[Entry], object] = lambda _: None,
        *,
        device: str = "+",
        share: str | None = None,
        on_state: Callable[[DeviceLog], object] = lambda _: None,
        clerk: Clerk | None = None,
        on_finding: Callable[[Finding], object] = lambda _: None,
        answer: Callable[[str, Entry], Sequence[tuple[str, bytes]]] = lambda _device, _birth: (),
        ask: Callable[[Gap, Entry], bytes | None] = lambda _gap, _birth: None,
        renew: Callable[[str, Entry, bytes], Sequence[tuple[str, bytes]]] = lambda _device, _birth, _raw: (),
    ) -> None:
        """One device or all of them. Collectors of one `share` divide the messages between them: if they
        have clerks, these must keep one file, since none of them sees all entries of a device.

        With a clerk an entry is new that was not in its file; without, one that this object has not seen.
        `answer` gives what a device is to be told at its birth: names below `down/`, and messages; `renew`
        what it is told when it asks for new keys. `ask` gives the command for what is missing of it; without
        one its last receipt is said again.
        """
        self.server = server
        self.devices: dict[str, DeviceLog] = {}
        """By device id."""
        self.rejected = 0
        """Messages that no device's agent can have sent."""
        self.online = asyncio.Event()
        """Set while subscribed."""
        topics = f"postern/v1/{device}/up/#"
        self._filter = f"$share/{share}/{topics}" if share else topics
        self._on_entry = on_entry
        self._on_state = on_state
        self._clerk = clerk
        self._on_finding = on_finding
        self._answer = answer
        self._ask = ask
        self._patience = Patience()
        self._renew = renew
        self._asked: dict[str, bytes] = {}
        """Requests for new keys that have not been answered, by device: the newest of each."""
        self._born: dict[str, Entry] = {}
        """Births that have not been answered, by device: the newest of each."""
        self._look_at = 0.0
        self._nodes = server.in_turn()

    async def run(self) -> None:
        """Connect, receive, and connect again, for ever. What `on_entry` raises ends it."""
        await forever(self._session, Backoff(self.server.client_id), _tell_of_wait)

    async def _session(self) -> None:
        """Raises ConnectionLost."""
        server = next(self._nodes)
        connection = Connection(server)
        try:
            await connection.connect()
            await connection.subscribe(self._filter)
            self.online.set()
            log.info("subscribed", broker=server.where, filter=self._filter)
            await self._receive_and_answer(connection)
        except ConnectionLost as lost:
            log.warning("connection lost", reason=str(lost))
            raise
        finally:
            self.online.clear()
            await connection.close()

    async def _receive_and_answer(self, connection: Connection) -> None:
        outbox = Outbox(connection)
        saying = asyncio.create_task(outbox.run(), name="collector: outbox")
        try:
            await self._receive(connection, outbox)
        finally:
            saying.cancel()
            await asyncio.wait([saying])
            if not saying.cancelled():
                saying.result()

    async def _receive(self, connection: Connection, outbox: Outbox) -> None:
        while self._clerk is None:
            message = await connection.receive()
            for each in self._take(message):
                for new in each.lines if isinstance(each, Entries) else ():
                    if isinstance(new, New):
                        self._on_entry(new.entry)
            connection.acknowledge(message)
            self._answer_births(outbox)
        while True:
            messages = await self._together(connection)
            work = [each for message in messages for each in self._take(message)]
            self._answer_births(outbox)
            await self._book(self._clerk, connection, outbox, messages, work)

    async def _together(self, connection: Connection) -> list[Message]:
        """All that have arrived, at least one; none when it is time to look for what is overdue."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            return []
        try:
            async with asyncio.timeout_at(self._look_at):
                return [await connection.receive(), *connection.waiting()]
        except TimeoutError:
            return []

    async def _book(
        self,
        clerk: Clerk,
        connection: Connection,
        outbox: Outbox,
        messages: Sequence[Message],
        work: Sequence[Work],
    ) -> None:
        """Durable first, then told, then acknowledged; a receipt last, since it can be given again."""
        outcome = await clerk.take(work, time.time())
        for entry in outcome.entries:
            self._on_entry(entry)
        for finding in outcome.findings:
            log.warning("finding", **finding.as_json())
            self._on_finding(finding)
        for message in messages:
            connection.acknowledge(message)
        # Not retained: a device that is away is answered when its birth arrives.
        outbox.say_newest(
            {
                device: Letter(f"postern/v1/{device}/down/receipt", note, NOTE)
                for device, note in outcome.receipts.items()
            }
        )
        self._ask_for_missing(outbox, outcome)

    def _ask_for_missing(self, outbox: Outbox, outcome: Outcome) -> None:
        births = {name: device.state for name, device in self.devices.items()}
        for gap in self._patience.due(outcome.gaps, births, time.time()):
            down = f"postern/v1/{gap.device}/down"
            command = self._ask(gap, births[gap.device] or {})
            log.info("asking again", device=gap.device, **gap.wanted)
            if command is not None:
                outbox.say([Letter(f"{down}/command", command)])
            elif gap.receipt is not None:
                outbox.say([Letter(f"{down}/receipt", gap.receipt, NOTE)])

    def _answer_births(self, outbox: Outbox) -> None:
        """At once, whatever else has to be stored first: it is the time of now that is told."""
        born, self._born = self._born, {}
        asked, self._asked = self._asked, {}
        answers = [(device, self._answer(device, state)) for device, state in born.items()]
        answers += [
            (device, self._renew(device, self.devices[device].state or {}, raw))
            for device, raw in asked.items()
        ]
        for device, told in answers:
            outbox.say(Letter(f"postern/v1/{device}/down/{name}", raw) for name, raw in told)

    # -- one message ------------------------------------------------------------------------------

    def _take(self, message: Message) -> list[Work]:
        """Whatever is wrong with a message is counted: refusing it would only bring it again."""
        match = _TOPIC.fullmatch(message.topic)
        if match is None:
            self.rejected += 1
            log.warning("message rejected", topic=message.topic)
            return []
        device = self.devices.setdefault(match[1], DeviceLog(match[1]))
        try:
            match match[2]:
                case "entries":
                    return [self._take_batch(device, message)]
                case "state":
                    return [self._take_state(device, message)]
                case "checkpoint" if self._clerk is not None:
                    return [Noted(device.device, message.payload)]
                case "renewal" if message.payload:
                    self._asked[device.device] = message.payload
                case _:
                    device.others += 1
        except BadBatch as bad:
            device.rejected += 1
            log.warning("message rejected", topic=message.topic, reason=str(bad))
        return []

    def _take_batch(self, device: DeviceLog, message: Message) -> Entries:
        lines: list[New | Duplicate] = []
        for line in unpack(message.payload, message.properties.get("content-encoding")):
            taken = device.take(line)
            if isinstance(taken, Rejected):
                log.warning("entry rejected", device=device.device, reason=taken.reason)
            else:
                lines.append(taken)
        return Entries(device.device, lines)

    def _take_state(self, device: DeviceLog, message: Message) -> Birth:
        try:
            state = json.loads(message.payload)
        except (ValueError, RecursionError) as error:
            raise BadBatch(f"state: {error}") from None
        if not isinstance(state, dict):
            raise BadBatch(f"state: expected a JSON object, got {type(state).__name__}")
        self._born[device.device] = state
        device.state = state
        self._on_state(device)
        return Birth(device.device, state)


def _tell_of_wait(failed: int, wait_s: float) -> None:
    log.warning("not subscribed", attempt=failed, wait_s=round(wait_s, 1))
