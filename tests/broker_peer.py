"""Who the broker tests talk through: paho-mqtt on the test's own event loop."""

import asyncio
import socket
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 5.0
"""Seconds for any one answer, on the slowest machine."""


def properties(packet: int, **values: object) -> Properties:
    """paho's properties for one packet type."""
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def told(message: paho.MQTTMessage) -> Any:
    """The properties of a message; paho makes their attributes up as they come."""
    return message.properties


class Peer:
    """One paho client without a thread: its socket is watched by the loop, its callbacks fill queues."""

    def __init__(self, port: int, client_id: str = "", *, manual_ack: bool = False) -> None:
        self.port = port
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=manual_ack
        )
        # paho holds back more QoS 1 publishes than this on its own account; 0 leaves it to the test.
        self.paho.max_inflight_messages = 0
        self.messages: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
        self._connacks: asyncio.Queue[tuple[ReasonCode, bool, Properties]] = asyncio.Queue()
        self._ends: asyncio.Queue[ReasonCode] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._hook_up()

    def _hook_up(self) -> None:
        loop, client = asyncio.get_running_loop(), self.paho
        client.on_socket_open = lambda _c, _u, sock: loop.add_reader(sock, client.loop_read)
        client.on_socket_close = lambda _c, _u, sock: self._unwatch(sock)
        client.on_socket_register_write = lambda _c, _u, sock: loop.add_writer(sock, client.loop_write)
        client.on_socket_unregister_write = lambda _c, _u, sock: self._unwatch_write(sock)
        client.on_connect = lambda _c, _u, flags, reason, props: self._connacks.put_nowait(
            (reason, flags.session_present, props)
        )
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._ends.put_nowait(reason)
        client.on_message = lambda _c, _u, message: self.messages.put_nowait(message)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._answer(mid, [reason])
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._answer(mid, reasons)
        client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self._answer(mid, reasons)

    @staticmethod
    def _unwatch(sock: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)

    @staticmethod
    def _unwatch_write(sock: Any) -> None:
        asyncio.get_running_loop().remove_writer(sock)

    def _answer(self, mid: int, reasons: list[ReasonCode]) -> None:
        self._answers.setdefault(mid, asyncio.get_running_loop().create_future()).set_result(reasons)

    async def answer(self, mid: int | None) -> list[int]:
        """The reason codes that answer the packet with this identifier."""
        assert mid is not None
        future = self._answers.setdefault(mid, asyncio.get_running_loop().create_future())
        async with asyncio.timeout(PATIENCE):
            reasons = await future
        del self._answers[mid]
        return [reason.value for reason in reasons]

    async def connect(
        self,
        *,
        clean_start: bool = True,
        session_expiry: int = 0,
        keepalive: int = 60,
        **values: object,
    ) -> tuple[int, bool, Any]:
        """Reason code, session present and properties of the CONNACK."""
        wanted = properties(PacketTypes.CONNECT, SessionExpiryInterval=session_expiry, **values)
        self.paho.connect("127.0.0.1", self.port, keepalive, clean_start=clean_start, properties=wanted)
        async with asyncio.timeout(PATIENCE):
            reason, present, told = await self._connacks.get()
        return reason.value, present, told

    def will(self, topic: str, payload: bytes, *, retain: bool = False, **values: object) -> None:
        """Leave a will with the connections from now on."""
        self.paho.will_clear()
        told = properties(PacketTypes.WILLMESSAGE, **values)
        self.paho.will_set(topic, payload, 1, retain, told)

    async def subscribe(self, topic: str, *, identifier: int = 0, **options: Any) -> list[int]:
        """The reason codes of the SUBACK. What the broker had sent before has arrived by then."""
        options.setdefault("qos", 1)
        wanted = properties(PacketTypes.SUBSCRIBE)
        if identifier:
            wanted.SubscriptionIdentifier = identifier
        _, mid = self.paho.subscribe(topic, options=SubscribeOptions(**options), properties=wanted)
        return await self.answer(mid)

    async def unsubscribe(self, topic: str) -> list[int]:
        _, mid = self.paho.unsubscribe(topic)
        return await self.answer(mid)

    def send(
        self, topic: str, payload: bytes | str = b"", qos: int = 1, *, retain: bool = False, **values: Any
    ) -> int:
        """Publish without waiting; the packet identifier."""
        told = properties(PacketTypes.PUBLISH, **values)
        return self.paho.publish(topic, payload, qos, retain, told).mid

    async def publish(
        self, topic: str, payload: bytes | str = b"", *, retain: bool = False, **values: Any
    ) -> int:
        """Publish with QoS 1; the reason code of the PUBACK."""
        (reason,) = await self.answer(self.send(topic, payload, retain=retain, **values))
        return reason

    async def message(self) -> paho.MQTTMessage:
        async with asyncio.timeout(PATIENCE):
            return await self.messages.get()

    async def payloads(self) -> list[bytes]:
        """Every message that is on its way at this moment: a subscription is answered behind them."""
        await self.subscribe("nothing/is/ever/published/here")
        found = []
        while not self.messages.empty():
            found.append(bytes(self.messages.get_nowait().payload))
        return found

    def acknowledge(self, message: paho.MQTTMessage) -> None:
        assert self.paho.ack(message.mid, message.qos) == MQTTErrorCode.MQTT_ERR_SUCCESS

    async def ended(self) -> int:
        """The reason code with which the connection ended."""
        async with asyncio.timeout(PATIENCE):
            return (await self._ends.get()).value

    async def leave(self, reason: int = 0) -> None:
        """A normal DISCONNECT, unless another reason is given."""
        code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason) if reason else None
        self.paho.disconnect(reasoncode=code)
        await self.ended()

    async def vanish(self) -> None:
        """Lose the connection without a word, as a handheld does in a lift."""
        sock = self.paho.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        await self.ended()


class Peers:
    """Makes peers for one broker, and closes at the end whatever they left open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.all: list[Peer] = []

    def new(self, client_id: str = "", *, manual_ack: bool = False) -> Peer:
        """A peer that is not connected yet."""
        self.all.append(Peer(self.port, client_id, manual_ack=manual_ack))
        return self.all[-1]

    async def connected(self, client_id: str = "", *, manual_ack: bool = False, **options: Any) -> Peer:
        peer = self.new(client_id, manual_ack=manual_ack)
        assert (await peer.connect(**options))[0] == 0
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.all:
            if peer.paho.socket() is not None:
                await peer.leave()
