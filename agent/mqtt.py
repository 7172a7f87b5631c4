"""One MQTT 5 connection: paho-mqtt driven by the running event loop, no thread of its own.

A connection lives once: a fresh paho client each, so that nothing an old one held is sent again behind our
back. paho's own queue is never used; `publish` is for callers that respect `window`. A refused publish is
told apart by the reason code of its PUBACK, which is the only place where it shows.
"""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

WINDOW = 100
"""Most unacknowledged publishes; above this paho slows down and the broker's queue pays."""
CONNECT_S = 10.0
USER_TIMEOUT_MS = 8000
"""Unacknowledged TCP data older than this means that the way is dead."""
DEFAULT_RECEIVE_MAXIMUM = 65_535
RECEIVE_MAXIMUM = 32
MAXIMUM_PACKET = 128 * 1024


class ConnectionLost(Exception):
    """The connection is over. `code` is the broker's reason code, where it gave one."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class ConnectRefused(ConnectionLost):
    """The broker answered, and would not have us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the broker is and how to be let in."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive: int = 25
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for us when the connection dies."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """Something the broker brought. Acknowledged by `Connection.acknowledge` once it is dealt with."""

    topic: str
    payload: bytes
    properties: dict[str, str]
    retained: bool
    mid: int
    qos: int


class Connection:
    """Open with `connect`; use until `lost` is done; `close` in any case."""

    def __init__(self, server: Server, will: Will | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._granted: dict[int, asyncio.Future[list[int]]] = {}
        self._fd = -1
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[ConnectionLost] = self._loop.create_future()
        """Gets the reason when the connection is over."""
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.window = WINDOW
        self.packet_limit = MAXIMUM_PACKET
        """Bytes of the largest packet the broker takes."""
        self._client = self._make(server, will)

    def _make(self, server: Server, will: Will | None) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=server.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(0)
        client.connect_timeout = CONNECT_S / 2
        if server.username is not None:
            client.username_pw_set(server.username, server.password)
        if server.tls is not None:
            client.tls_set_context(server.tls)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = _tune
        client.on_socket_close = self._on_socket_close
        return client

    async def connect(self) -> None:
        """Raises ConnectRefused with the broker's reason, or ConnectionLost."""
        properties = _properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAXIMUM_PACKET
        server = self._server
        try:
            async with asyncio.timeout(CONNECT_S):
                # paho resolves, connects and shakes hands in one blocking call.
                await self._loop.run_in_executor(
                    None,
                    lambda: self._client.connect(
                        server.host,
                        server.port,
                        server.keepalive,
                        clean_start=True,
                        properties=properties,
                    ),
                )
                self._attach()
                await self._connected
        except TimeoutError as error:
            raise ConnectionLost(
                f"{server.host}:{server.port} did not answer within {CONNECT_S:g} s"
            ) from error
        except (OSError, ValueError, ssl.CertificateError) as error:
            raise ConnectionLost(f"{server.host}:{server.port}: {error}") from error

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
        if self.lost.done():
            acked.set_exception(self.lost.result())
            return acked
        packed = _properties(PacketTypes.PUBLISH)
        if content_type:
            packed.ContentType = content_type
        if properties:
            packed.UserProperty = properties
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=packed)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            acked.set_exception(ConnectionLost(paho.error_string(info.rc)))
            self._lose(ConnectionLost(paho.error_string(info.rc)))
            return acked
        self._acks[info.mid] = acked
        self._flush()
        return acked

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1. Raises ConnectionLost when the broker refuses a filter."""
        granted: asyncio.Future[list[int]] = self._loop.create_future()
        rc, mid = self._client.subscribe([(each, SubscribeOptions(qos=1)) for each in filters])
        if rc != paho.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionLost(paho.error_string(rc))
        self._granted[mid] = granted
        self._flush()
        for wanted, code in zip(filters, await granted, strict=True):
            if code >= 128:
                raise ConnectionLost(f"subscription to {wanted} refused", code)

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is dealt with and need not come again."""
        if not self.lost.done():
            self._client.ack(message.mid, message.qos)
            self._flush()

    async def close(self) -> None:
        """Say goodbye, where that is still possible, so that the will stays unsaid."""
        if not self.lost.done():
            with contextlib.suppress(OSError, ValueError):
                self._client.disconnect()
                self._flush()
        self._lose(ConnectionLost("closed by us"))

    # -- paho on the loop -------------------------------------------------------------------------

    def _attach(self) -> None:
        held = self._client.socket()
        if held is None:
            raise ConnectionLost("closed while connecting")
        self._fd = held.fileno()
        held.setblocking(False)
        self._loop.add_reader(self._fd, self._on_readable)
        self._timer = self._loop.call_later(1, self._on_second)
        self._flush()
        self._on_readable()

    def _on_readable(self) -> None:
        self._run(self._client.loop_read)
        held = self._client.socket()
        # TLS may hold decrypted bytes that no select will ever report.
        while isinstance(held, ssl.SSLSocket) and not self.lost.done() and held.pending():
            self._run(self._client.loop_read)
        self._flush()

    def _on_writable(self) -> None:
        self._run(self._client.loop_write)
        self._flush()

    def _on_second(self) -> None:
        self._run(self._client.loop_misc)
        if not self.lost.done():
            self._timer = self._loop.call_later(1, self._on_second)

    def _flush(self) -> None:
        """Write what is waiting now; leave to the loop what the kernel will not take."""
        if self.lost.done():
            return
        if self._client.want_write() and not self._writing:
            self._run(self._client.loop_write)
        wanted = not self.lost.done() and self._client.want_write()
        if wanted and not self._writing:
            self._loop.add_writer(self._fd, self._on_writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._fd)
        self._writing = wanted

    def _run(self, step: Any) -> None:
        if self.lost.done():
            return
        try:
            rc = step()
        except (OSError, ValueError) as error:
            # paho lets the socket's and the parser's errors through: for us both end the connection.
            self._lose(ConnectionLost(str(error)))
            return
        if rc != paho.MQTT_ERR_SUCCESS:
            self._lose(ConnectionLost(paho.error_string(rc)))

    def _lose(self, reason: ConnectionLost) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        if not self._connected.done():
            self._connected.set_exception(reason)
            self._connected.exception()
        self._unwatch()
        held = self._client.socket()
        if held is not None:
            held.close()
        waiters: list[asyncio.Future[Any]] = [*self._acks.values(), *self._granted.values()]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(reason)
                waiting.exception()
        self._acks.clear()
        self._granted.clear()

    def _unwatch(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1

    # -- what paho tells --------------------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, properties: Properties | None) -> None:
        if code.is_failure:
            self._lose(ConnectRefused(f"refused: {code.getName()}", code.value))
            return
        if properties is not None:
            self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM))
            self.packet_limit = min(MAXIMUM_PACKET, getattr(properties, "MaximumPacketSize", MAXIMUM_PACKET))
        if not self._connected.done():
            self._connected.set_result(None)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, code: ReasonCode, _p: Any) -> None:
        said = code.value if flags.is_disconnect_packet_from_server else None
        self._lose(ConnectionLost(f"lost: {code.getName()}", said))

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: ReasonCode, _p: Any) -> None:
        acked = self._acks.pop(mid, None)
        if acked is not None and not acked.done():
            acked.set_result(code.value)

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, codes: list[ReasonCode], _p: Any) -> None:
        granted = self._granted.pop(mid, None)
        if granted is not None and not granted.done():
            granted.set_result([code.value for code in codes])

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        pairs = dict(getattr(message.properties, "UserProperty", []))
        self.messages.put_nowait(
            Message(message.topic, bytes(message.payload), pairs, message.retain, message.mid, message.qos)
        )

    def _on_socket_close(self, _c: Any, _u: Any, _socket: Any) -> None:
        self._unwatch()


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


def _tune(_client: Any, _userdata: Any, held: Any) -> None:
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
