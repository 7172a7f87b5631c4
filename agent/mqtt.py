"""One MQTT 5 connection: paho-mqtt driven by the running event loop, no thread of its own.

A connection lives once: a fresh paho client each, so that nothing an old one held is sent again behind our
back. paho's own queue is never used: who publishes keeps to `room`. A refused publish is told apart by the
reason code of its PUBACK, which is the only place where it shows.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.arrivals import Arrivals
from agent.mqtt_words import ConnectionLost, ConnectRefused, Message, Server, Will
from agent.paho_client import UNREADABLE, Paho, properties_of
from agent.wire import Wire, open_wire

__all__ = ["ConnectRefused", "Connection", "ConnectionLost", "Message", "Server", "Will", "publish_overhead"]

WINDOW = 100
"""Most unacknowledged publishes; above this paho slows down and the broker's queue pays."""
CONNECT_S = 10.0
GOODBYE_S = 1.0
"""Longest that the broker may take to hear our last packet and close."""
PATIENCE = 1.5
"""Keepalives of silence before an acknowledgement that is owed counts as lost: as long as the broker gives
us before it takes us for dead [MQTT-3.1.2-22]."""
DEFAULT_RECEIVE_MAXIMUM = 65_535
RECEIVE_MAXIMUM = 32
MAXIMUM_PACKET = 128 * 1024
MESSAGES = 4 * RECEIVE_MAXIMUM
"""Messages that wait here. More of QoS 0 are dropped, as QoS 0 allows. More of QoS 1 make the broker wait:
mosquitto 2.0.11 forgets our Receive Maximum when it brings what a session has queued."""
PUBLISH_OVERHEAD = 16
"""Bytes of a PUBLISH beside topic, payload and properties: at most 5 of header, 2 of topic length, 2 of
packet identifier, 4 of property length."""

WITH_WILL = 0x04
"""Disconnect, and publish the will all the same."""
QOS_NOT_SUPPORTED = 0x9B
REFUSED = 0x80
"""Reason codes from here on say no."""


class Connection:
    """Open with `connect`; use until `lost` is done; `close` in any case."""

    def __init__(self, server: Server, will: Will | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._will = will
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._granted: dict[int, asyncio.Future[list[int]]] = {}
        self._progress = self._loop.time()
        self.heard = self._progress
        """When the broker was heard last."""
        self._timer: asyncio.TimerHandle | None = None
        self._wire: Wire | None = None
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._greeted = False
        self.lost: asyncio.Future[ConnectionLost] = self._loop.create_future()
        """Gets the reason when the connection is over."""
        self._arrivals: Arrivals[Message] = Arrivals(MESSAGES)
        self._held = False
        """Whether the broker has to wait until messages are taken."""
        self.window = WINDOW
        """Publishes that may be unacknowledged at one time."""
        self.packet_limit = MAXIMUM_PACKET
        """Bytes of the largest packet the broker takes."""
        self._client = self._make()

    def _make(self) -> Paho:
        server, will = self._server, self._will
        client = Paho(
            CallbackAPIVersion.VERSION2,
            client_id=server.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(0)
        if server.username is not None:
            client.username_pw_set(server.username, server.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    async def connect(self, within: float = CONNECT_S) -> None:
        """Raises ConnectRefused with the broker's reason, or ConnectionLost."""
        server = self._server
        where = server.where
        try:
            async with asyncio.timeout(within):
                self._wire = await open_wire(self, server.host, server.port, server.tls, MAXIMUM_PACKET)
                self._greet(self._wire)
                await self._connected
        except TimeoutError as error:
            raise ConnectionLost(f"{where}: no answer within {within:g} s") from error
        except (OSError, ValueError) as error:
            # The certificates' own errors are among these.
            raise ConnectionLost(f"{where}: {error}") from error

    @property
    def room(self) -> int:
        """How many publishes may be sent now."""
        return 0 if self.lost.done() else self.window - len(self._acks)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        content_type: str | None = None,
        properties: list[tuple[str, str]] | None = None,
    ) -> asyncio.Future[int]:
        """Publish at QoS 1. The future gets the PUBACK's reason code, below 128 for success.

        When the connection dies first, the future gets ConnectionLost.
        """
        acked: asyncio.Future[int] = self._loop.create_future()
        packed = properties_of(PacketTypes.PUBLISH)
        if content_type:
            packed.ContentType = content_type
        if properties:
            packed.UserProperty = properties
        if not self._acks:
            self._progress = self._loop.time()
        mid = self._sent(lambda: self._client.publish(topic, payload, 1, retain, packed))
        if mid is None:
            _fail(acked, self.lost.result())
        else:
            self._acks[mid] = acked
        return acked

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1. Raises ConnectionLost when the broker refuses a filter or does not answer."""
        granted: asyncio.Future[list[int]] = self._loop.create_future()
        wanted = [(each, SubscribeOptions(qos=1)) for each in filters]
        mid = self._sent(lambda: self._client.subscribe(wanted))
        if mid is None:
            raise self.lost.result().again()
        self._granted[mid] = granted
        try:
            async with asyncio.timeout(CONNECT_S):
                codes = await granted
        except TimeoutError as error:
            raise ConnectionLost(f"no answer to a subscription within {CONNECT_S:g} s") from error
        for name, code in zip(filters, codes, strict=True):
            if code >= REFUSED:
                raise ConnectionLost(f"subscription to {name} refused", code)

    def unsubscribe(self, *filters: str) -> None:
        """Want no more of these. What is on its way may still come."""
        self._sent(lambda: self._client.unsubscribe(list(filters)))

    async def receive(self) -> Message:
        """The next message. Raises ConnectionLost, also for what is left: it could not be acknowledged."""
        while not self.lost.done():
            message = self._arrivals.take()
            if message is not None:
                self._go_on()
                return message
            await self._arrivals.more()
        raise self.lost.result().again()

    def waiting(self) -> list[Message]:
        """Take what has arrived, without waiting for more. Nothing once the connection is over."""
        arrived = self._arrivals.take_all()
        self._go_on()
        return arrived

    @property
    def dropped(self) -> int:
        """Messages of QoS 0 that came faster than they were taken."""
        return self._arrivals.dropped

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is dealt with and need not come again."""
        if not self.lost.done():
            self._run(lambda: self._client.ack(message.mid, message.qos))

    def give_up(self, reason: str) -> None:
        """End it without goodbye: whoever uses it cannot go on."""
        self._lose(ConnectionLost(reason))

    async def close(self) -> None:
        """Say goodbye, where that is still possible. The will is published, here as after a loss."""
        wire, greeted = self._wire, self._greeted and not self.lost.done()
        self._end(ConnectionLost("closed by us"))
        if wire is None:
            return
        try:
            if greeted:
                await self._say_goodbye(wire)
        finally:
            wire.abort()
        await wire.gone

    async def _say_goodbye(self, wire: Wire) -> None:
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=WITH_WILL) if self._will else None
        with contextlib.suppress(*UNREADABLE):
            self._client.disconnect(reason)
        wire.close()
        await asyncio.wait([wire.gone], timeout=GOODBYE_S)

    # -- the wire ---------------------------------------------------------------------------------

    def _greet(self, wire: Wire) -> None:
        server = self._server
        properties = properties_of(PacketTypes.CONNECT)
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAXIMUM_PACKET
        properties.SessionExpiryInterval = server.session_expiry
        self._client.wire = wire
        clean = server.session_expiry == 0
        self._run(
            lambda: self._client.connect(
                server.host, server.port, server.keepalive, clean_start=clean, properties=properties
            )
        )
        self._look_later()

    def on_readable(self) -> None:
        while self._wire is not None and self._wire.readable and not self.lost.done():
            if self._arrivals.full:
                self._held = True
                self._wire.hold()
                break
            self._run(self._client.loop_read)
            if not self.lost.done():
                self.heard = self._loop.time()
        self._flush()

    def _go_on(self) -> None:
        """Let the broker bring more, if it had to wait and there is room again."""
        if self._held and self._wire is not None and not self._arrivals.full:
            self._held = False
            self._wire.go_on()
            self._loop.call_soon(self.on_readable)

    def on_writable(self) -> None:
        self._flush()

    def on_gone(self, error: Exception | None) -> None:
        self._lose(ConnectionLost(str(error) if error else "closed by the broker"))

    def _flush(self) -> None:
        """Write what was queued from within paho's callbacks, or while the wire was full."""
        if not self.lost.done() and self._client.want_write():
            self._run(self._client.loop_write)

    def _look_later(self) -> None:
        every = min(5.0, self._server.keepalive / 4 or 5.0)
        self._timer = self._loop.call_later(every, self._look)

    def _look(self) -> None:
        self._run(self._client.loop_misc)
        waited = self._loop.time() - self._progress
        if self._acks and self._server.keepalive and waited > PATIENCE * self._server.keepalive:
            self._lose(ConnectionLost(f"no acknowledgement for {waited:.0f} s"))
        if not self.lost.done():
            self._look_later()

    def _sent(self, send: Callable[[], Any]) -> int | None:
        """The packet identifier of what paho sent; None when the connection is over."""
        mids: list[int] = []

        def step() -> int:
            rc, mid = send()
            mids.append(mid)
            return int(rc)

        self._run(step)
        return None if self.lost.done() else mids[0]

    def _run(self, step: Callable[[], int]) -> None:
        if self.lost.done():
            return
        try:
            rc = step()
        except UNREADABLE as error:
            self._lose(ConnectionLost(f"{type(error).__name__}: {error}"))
            return
        if rc != paho.MQTT_ERR_SUCCESS:
            self._lose(ConnectionLost(paho.error_string(rc)))

    def _lose(self, reason: ConnectionLost) -> None:
        self._end(reason)
        if self._wire is not None:
            self._wire.abort()

    def _end(self, reason: ConnectionLost) -> None:
        if self.lost.done():
            return
        # Once: tell everyone who waits, and let go of paho.
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        client = self._client
        client.on_connect = client.on_disconnect = client.on_publish = None
        client.on_subscribe = client.on_message = None
        waiters: list[asyncio.Future[Any]] = [self._connected, *self._acks.values(), *self._granted.values()]
        for waiting in waiters:
            _fail(waiting, reason)
        self._acks.clear()
        self._granted.clear()
        self._arrivals.end()

    # -- what paho tells --------------------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, properties: Properties | None) -> None:
        if code.is_failure:
            self._lose(ConnectRefused(f"refused: {code.getName()}", code.value))
        elif getattr(properties, "MaximumQoS", 1) < 1:
            self._lose(
                ConnectRefused("expected a broker that takes QoS 1, got one without", QOS_NOT_SUPPORTED)
            )
        elif not self._connected.done():
            self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM))
            self.packet_limit = min(MAXIMUM_PACKET, getattr(properties, "MaximumPacketSize", MAXIMUM_PACKET))
            self._connected.set_result(None)
            self._greeted = True

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, code: ReasonCode, _p: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._lose(ConnectionLost(f"sent away: {code.getName()}", code.value))
        else:
            self._lose(ConnectionLost(f"lost: {code.getName()}"))

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: ReasonCode, _p: Any) -> None:
        self._progress = self._loop.time()
        acked = self._acks.pop(mid, None)
        if acked is not None and not acked.done():
            acked.set_result(code.value)

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, codes: list[ReasonCode], _p: Any) -> None:
        granted = self._granted.pop(mid, None)
        if granted is not None and not granted.done():
            granted.set_result([code.value for code in codes])

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        pairs = dict(getattr(message.properties, "UserProperty", []))
        payload, now = bytes(message.payload), self._loop.time()
        arrived = Message(message.topic, payload, pairs, message.retain, message.mid, message.qos, now)
        self._arrivals.put(arrived, droppable=not message.qos)


def publish_overhead(topic: str, content_type: str, properties: Iterable[tuple[str, str]]) -> int:
    """Bytes that a PUBLISH is longer than its payload, at most."""
    pairs = sum(5 + len(name.encode()) + len(value.encode()) for name, value in properties)
    return PUBLISH_OVERHEAD + len(topic.encode()) + 3 + len(content_type.encode()) + pairs


def _fail(waiting: asyncio.Future[Any], reason: ConnectionLost) -> None:
    if not waiting.done():
        waiting.set_exception(reason.again())
        # `lost` tells it too: nobody need ask this one.
        waiting.exception()
