"""Receives the entries of many devices, each once, and acknowledges what it has taken.

    collector = Collector(server, print)
    await collector.run()

A message is acknowledged when `on_entry` has returned for each of its new entries; what was not is brought
again by a broker that keeps the session (`Server.session_expiry`), and told apart by its id.
"""

import asyncio
import json
import random
import re
import zlib
from collections.abc import Callable

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from agent.fleet.device_log import DeviceLog, Entry, New, Rejected
from agent.mqtt import Connection, ConnectionLost, Message, Server

UNPACKED_MOST = 4 * 1024 * 1024
"""Bytes of a batch after decompression; a few kilobytes can claim to be gigabytes."""
HEALTHY_S = 5.0
"""A session that lasted this long starts the backoff anew."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

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
    ) -> None:
        """One device or all of them. Collectors of one `share` divide the messages between them."""
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

    async def run(self) -> None:
        """Connect, receive, and connect again with full jitter, for ever. What `on_entry` raises ends it."""
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
                retry=retry_if_exception_type(ConnectionLost),
                before_sleep=_tell_of_wait,
            ):
                with attempt:
                    await self._session()
            await asyncio.sleep(random.uniform(0, FIRST_WAIT_S))

    async def _session(self) -> None:
        """Raises ConnectionLost, except after a session that lasted."""
        connection = Connection(self.server)
        started = asyncio.get_running_loop().time()
        try:
            await connection.connect()
            await connection.subscribe(self._filter)
            self.online.set()
            log.info("subscribed", broker=f"{self.server.host}:{self.server.port}", filter=self._filter)
            while True:
                message = await connection.receive()
                self._take(message)
                connection.acknowledge(message)
        except ConnectionLost as lost:
            log.warning("connection lost", reason=str(lost))
            if asyncio.get_running_loop().time() - started < HEALTHY_S:
                raise
        finally:
            self.online.clear()
            await connection.close()

    # -- one message ------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        """Whatever is wrong with a message is counted: refusing it would only bring it again."""
        match = _TOPIC.fullmatch(message.topic)
        if match is None:
            self.rejected += 1
            log.warning("message rejected", topic=message.topic)
            return
        device = self.devices.setdefault(match[1], DeviceLog(match[1]))
        try:
            match match[2]:
                case "entries":
                    self._take_batch(device, message)
                case "state":
                    self._take_state(device, message)
                case _:
                    device.others += 1
        except BadBatch as bad:
            device.rejected += 1
            log.warning("message rejected", topic=message.topic, reason=str(bad))

    def _take_batch(self, device: DeviceLog, message: Message) -> None:
        for line in unpack(message.payload, message.properties.get("content-encoding")):
            match device.take(line):
                case New(entry):
                    self._on_entry(entry)
                case Rejected(reason):
                    log.warning("entry rejected", device=device.device, reason=reason)

    def _take_state(self, device: DeviceLog, message: Message) -> None:
        try:
            state = json.loads(message.payload)
        except (ValueError, RecursionError) as error:
            raise BadBatch(f"state: {error}") from None
        if not isinstance(state, dict):
            raise BadBatch(f"state: expected a JSON object, got {type(state).__name__}")
        device.state = state
        self._on_state(device)


def _tell_of_wait(attempt: RetryCallState) -> None:
    wait = attempt.next_action.sleep if attempt.next_action else 0.0
    log.warning("not subscribed", attempt=attempt.attempt_number, wait_s=round(wait, 1))
