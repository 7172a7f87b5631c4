"""MQTT 5.0 packets as a server meets them, without I/O: `Stream` reads bytes, `encode_*` write them.

    stream = Stream(limit=65536)
    stream.receive(data)
    while (packet := stream.next_packet()) is not None: ...

Everything a client may send is here except QoS 2 and enhanced authentication, which this server announces
it does not have.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from simulators import mqtt5_fields as wire
from simulators.mqtt5_fields import BadPacket, Fields, Properties, Property, Reason, malformed, protocol_error
from simulators.mqtt5_topics import check_filter, check_topic


class PacketType(IntEnum):
    """Table 2-1."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """One message. `packet_id` is 0 where QoS is 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    client_id: str
    clean_start: bool
    keepalive: int
    properties: Properties = ()
    will: Publish | None = None
    will_delay: int = 0
    username: str | None = None
    password: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignConnect:
    """A CONNECT of another protocol version; what follows the version cannot be read."""

    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int = 0
    """0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    packet_id: int
    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Puback:
    packet_id: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    reason: int
    properties: Properties = ()


Packet = Connect | ForeignConnect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect

MESSAGE_PROPERTIES = {
    Property.PAYLOAD_FORMAT_INDICATOR,
    Property.MESSAGE_EXPIRY_INTERVAL,
    Property.CONTENT_TYPE,
    Property.RESPONSE_TOPIC,
    Property.CORRELATION_DATA,
    Property.USER_PROPERTY,
}
PUBLISH_PROPERTIES = MESSAGE_PROPERTIES | {Property.TOPIC_ALIAS}
WILL_PROPERTIES = MESSAGE_PROPERTIES | {Property.WILL_DELAY_INTERVAL}
CONNECT_PROPERTIES = {
    Property.SESSION_EXPIRY_INTERVAL,
    Property.AUTHENTICATION_METHOD,
    Property.AUTHENTICATION_DATA,
    Property.REQUEST_PROBLEM_INFORMATION,
    Property.REQUEST_RESPONSE_INFORMATION,
    Property.RECEIVE_MAXIMUM,
    Property.TOPIC_ALIAS_MAXIMUM,
    Property.USER_PROPERTY,
    Property.MAXIMUM_PACKET_SIZE,
}
PUBACK_PROPERTIES = {Property.REASON_STRING, Property.USER_PROPERTY}
SUBSCRIBE_PROPERTIES = {Property.SUBSCRIPTION_IDENTIFIER, Property.USER_PROPERTY}
UNSUBSCRIBE_PROPERTIES = {Property.USER_PROPERTY}
DISCONNECT_PROPERTIES = {Property.SESSION_EXPIRY_INTERVAL, Property.REASON_STRING, Property.USER_PROPERTY}


class Stream:
    """Bytes from one client to packets. Holds at most one packet's worth beyond what was last given."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """A packet longer than this, header included, is refused as soon as its length is known."""
        self.greeted = False
        """Whether the client began with CONNECT; before that, nothing else is read."""
        self._buffer = bytearray()

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next whole packet, or None for more please. After BadPacket the stream is of no more use."""
        if not self._buffer:
            return None
        if not self.greeted and self._buffer[0] != PacketType.CONNECT << 4:
            raise protocol_error("expected CONNECT first")
        self.greeted = True
        parse, flags = _reader_of(self._buffer[0])
        found = wire.read_varint(self._buffer, 1)
        if found is None:
            return None
        length, start = found
        end = start + length
        if end > self.limit:
            raise BadPacket(Reason.PACKET_TOO_LARGE, f"expected at most {self.limit} bytes, got {end}")
        if len(self._buffer) < end:
            return None
        fields = Fields(bytes(self._buffer[start:end]))
        del self._buffer[:end]
        packet = parse(flags, fields)
        if fields.left() and not isinstance(packet, ForeignConnect):
            raise malformed(f"{fields.left()} bytes behind the end of the packet")
        return packet


def _reader_of(first: int) -> tuple[Callable[[int, Fields], Packet], int]:
    """Who reads a packet that starts with this byte: noise is refused before its length is believed."""
    kind, flags = first >> 4, first & 0x0F
    if kind not in READERS:
        raise protocol_error(f"packet type {kind} is not for a server without QoS 2 and AUTH")
    wanted, parse = READERS[kind]
    if wanted is not None and flags != wanted:
        raise malformed(f"expected header flags {wanted:#x}, got {flags:#x}")
    return parse, flags


def _connect(_: int, fields: Fields) -> Connect | ForeignConnect:
    name, level = fields.binary(), fields.byte()
    if (name, level) == (b"MQIsdp", 3) or (name == b"MQTT" and level != 5):
        return ForeignConnect(level=level)
    if name != b"MQTT":
        raise BadPacket(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"expected MQTT 5, got {name!r} {level}")
    flags, keepalive = fields.byte(), fields.two()
    if flags & 0x01:
        raise malformed("reserved CONNECT flag is set")
    properties = fields.properties(CONNECT_PROPERTIES)
    client_id = fields.text()
    will, will_delay = _will(flags, fields)
    return Connect(
        client_id=client_id,
        clean_start=bool(flags & 0x02),
        keepalive=keepalive,
        properties=properties,
        will=will,
        will_delay=will_delay,
        username=fields.text() if flags & 0x80 else None,
        password=fields.binary() if flags & 0x40 else None,
    )


def _will(flags: int, fields: Fields) -> tuple[Publish | None, int]:
    qos, retain = flags >> 3 & 0x03, bool(flags & 0x20)
    if not flags & 0x04:
        if qos or retain:
            raise malformed("will QoS or retain without a will")
        return None, 0
    if qos == 3:
        raise malformed("will QoS is 3")
    properties = fields.properties(WILL_PROPERTIES)
    kept = tuple(pair for pair in properties if pair[0] is not Property.WILL_DELAY_INTERVAL)
    topic = check_topic(fields.text())
    will = Publish(topic=topic, payload=fields.binary(), qos=qos, retain=retain, properties=kept)
    return will, wire.number(properties, Property.WILL_DELAY_INTERVAL, 0)


def _publish(flags: int, fields: Fields) -> Publish:
    qos = flags >> 1 & 0x03
    if qos == 3:
        raise malformed("QoS is 3")
    if flags & 0x08 and not qos:
        raise malformed("DUP is set on QoS 0")
    topic = fields.text()
    packet_id = fields.packet_id() if qos else 0
    properties = fields.properties(PUBLISH_PROPERTIES)
    if wire.number(properties, Property.TOPIC_ALIAS, -1) >= 0:
        raise BadPacket(Reason.TOPIC_ALIAS_INVALID, "Topic Alias Maximum is 0")
    return Publish(
        topic=check_topic(topic),
        payload=fields.rest(),
        qos=qos,
        retain=bool(flags & 0x01),
        dup=bool(flags & 0x08),
        packet_id=packet_id,
        properties=properties,
    )


def _puback(_: int, fields: Fields) -> Puback:
    """'The Reason Code and Property Length can be omitted if the Reason Code is 0x00' (3.4.2.1)."""
    packet_id = fields.packet_id()
    reason = fields.byte() if fields.left() else 0
    if fields.left():
        fields.properties(PUBACK_PROPERTIES)
    return Puback(packet_id=packet_id, reason=reason)


def _subscribe(_: int, fields: Fields) -> Subscribe:
    packet_id = fields.packet_id()
    properties = fields.properties(SUBSCRIBE_PROPERTIES)
    identifier = wire.number(properties, Property.SUBSCRIPTION_IDENTIFIER, 0)
    subscriptions = []
    while fields.left():
        subscriptions.append(_subscription(fields, identifier))
    if not subscriptions:
        raise protocol_error("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id=packet_id, subscriptions=tuple(subscriptions))


def _subscription(fields: Fields, identifier: int) -> Subscription:
    name = check_filter(fields.text())
    options = fields.byte()
    qos, retain_handling = options & 0x03, options >> 4 & 0x03
    if options & 0xC0 or qos == 3:
        raise malformed(f"subscription options {options:#04x}")
    if retain_handling == 3:
        raise protocol_error("Retain Handling is 3")
    if options & 0x04 and name.startswith("$share/"):
        raise protocol_error("No Local on a shared subscription")
    return Subscription(
        filter=name,
        qos=qos,
        no_local=bool(options & 0x04),
        retain_as_published=bool(options & 0x08),
        retain_handling=retain_handling,
        identifier=identifier,
    )


def _unsubscribe(_: int, fields: Fields) -> Unsubscribe:
    packet_id = fields.packet_id()
    fields.properties(UNSUBSCRIBE_PROPERTIES)
    filters = []
    while fields.left():
        filters.append(check_filter(fields.text()))
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters))


def _pingreq(_: int, __: Fields) -> Pingreq:
    return Pingreq()


def _disconnect(_: int, fields: Fields) -> Disconnect:
    reason = fields.byte() if fields.left() else 0
    properties = fields.properties(DISCONNECT_PROPERTIES) if fields.left() else ()
    return Disconnect(reason=reason, properties=properties)


READERS: dict[int, tuple[int | None, Callable[[int, Fields], Packet]]] = {
    PacketType.CONNECT: (0, _connect),
    PacketType.PUBLISH: (None, _publish),
    PacketType.PUBACK: (0, _puback),
    PacketType.SUBSCRIBE: (2, _subscribe),
    PacketType.UNSUBSCRIBE: (2, _unsubscribe),
    PacketType.PINGREQ: (0, _pingreq),
    PacketType.DISCONNECT: (0, _disconnect),
}
"""By packet type: the flags its first byte must carry (table 2-2; None for PUBLISH's own), and its reader."""

LARGEST_PACKET = 5 + wire.VARINT_MOST
PINGRESP = b"\xd0\x00"
FOREIGN_REFUSAL = b"\x20\x02\x00\x01"
"""CONNACK of MQTT 3.1 and 3.1.1: 'unacceptable protocol version', in the caller's own dialect."""


def _packet(kind: PacketType, flags: int, body: bytes) -> bytes:
    return bytes((kind << 4 | flags,)) + wire.varint(len(body)) + body


def encode_connack(reason: int, *, session_present: bool = False, properties: Properties = ()) -> bytes:
    return _packet(PacketType.CONNACK, 0, bytes((session_present, reason)) + wire.properties(properties))


def encode_publish(message: Publish) -> bytes:
    flags = message.dup << 3 | message.qos << 1 | message.retain
    packet_id = message.packet_id.to_bytes(2, "big") if message.qos else b""
    head = wire.text(message.topic) + packet_id + wire.properties(message.properties)
    return _packet(PacketType.PUBLISH, flags, head + message.payload)


def encode_puback(packet_id: int, reason: int = Reason.SUCCESS) -> bytes:
    tail = bytes((reason,)) if reason else b""
    return _packet(PacketType.PUBACK, 0, packet_id.to_bytes(2, "big") + tail)


def encode_suback(packet_id: int, reasons: Iterable[int]) -> bytes:
    return _packet(PacketType.SUBACK, 0, packet_id.to_bytes(2, "big") + b"\0" + bytes(reasons))


def encode_unsuback(packet_id: int, reasons: Iterable[int]) -> bytes:
    return _packet(PacketType.UNSUBACK, 0, packet_id.to_bytes(2, "big") + b"\0" + bytes(reasons))


def encode_disconnect(reason: int, text: str = "") -> bytes:
    """`text` is for the human who reads the client's log."""
    properties: Properties = ((Property.REASON_STRING, text),) if text else ()
    return _packet(PacketType.DISCONNECT, 0, bytes((reason,)) + wire.properties(properties))
