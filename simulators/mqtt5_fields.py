"""MQTT 5.0 below its packets: reason codes, field types and properties, from the OASIS standard.

`Fields` reads one packet's body from front to back and raises `BadPacket` at the first thing the standard
forbids; the functions at the end write. Packets are in `mqtt5`.
"""

from collections.abc import Container
from enum import Enum, IntEnum, auto

VARINT_MOST = 268_435_455
NEVER = 0xFFFFFFFF
"""'If the Session Expiry Interval is 0xFFFFFFFF (UINT_MAX), the Session does not expire.'"""


class Reason(IntEnum):
    """Section 2.4. Below 0x80 the thing asked for was done."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_IN_USE = 0x91
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    QOS_NOT_SUPPORTED = 0x9B


class BadPacket(Exception):
    """The peer broke the protocol; `reason` is what it is told before the connection ends."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def malformed(text: str) -> BadPacket:
    """'a Control Packet that cannot be parsed according to this specification' (1.2)."""
    return BadPacket(Reason.MALFORMED_PACKET, text)


def protocol_error(text: str) -> BadPacket:
    """'an unexpected or out of order packet', or parsed data 'not allowed by the protocol' (1.2)."""
    return BadPacket(Reason.PROTOCOL_ERROR, text)


class Kind(Enum):
    """Section 1.5: how a property's value is laid out."""

    BYTE = auto()
    TWO = auto()
    FOUR = auto()
    VARINT = auto()
    TEXT = auto()
    BINARY = auto()
    PAIR = auto()


class Property(IntEnum):
    """Table 2-4."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27


KINDS = {
    Property.PAYLOAD_FORMAT_INDICATOR: Kind.BYTE,
    Property.MESSAGE_EXPIRY_INTERVAL: Kind.FOUR,
    Property.CONTENT_TYPE: Kind.TEXT,
    Property.RESPONSE_TOPIC: Kind.TEXT,
    Property.CORRELATION_DATA: Kind.BINARY,
    Property.SUBSCRIPTION_IDENTIFIER: Kind.VARINT,
    Property.SESSION_EXPIRY_INTERVAL: Kind.FOUR,
    Property.ASSIGNED_CLIENT_IDENTIFIER: Kind.TEXT,
    Property.AUTHENTICATION_METHOD: Kind.TEXT,
    Property.AUTHENTICATION_DATA: Kind.BINARY,
    Property.REQUEST_PROBLEM_INFORMATION: Kind.BYTE,
    Property.WILL_DELAY_INTERVAL: Kind.FOUR,
    Property.REQUEST_RESPONSE_INFORMATION: Kind.BYTE,
    Property.REASON_STRING: Kind.TEXT,
    Property.RECEIVE_MAXIMUM: Kind.TWO,
    Property.TOPIC_ALIAS_MAXIMUM: Kind.TWO,
    Property.TOPIC_ALIAS: Kind.TWO,
    Property.MAXIMUM_QOS: Kind.BYTE,
    Property.USER_PROPERTY: Kind.PAIR,
    Property.MAXIMUM_PACKET_SIZE: Kind.FOUR,
}

NEVER_ZERO = {
    Property.RECEIVE_MAXIMUM,
    Property.MAXIMUM_PACKET_SIZE,
    Property.SUBSCRIPTION_IDENTIFIER,
}
"""'It is a Protocol Error to include the [...] value 0' is said of each."""

Value = int | str | bytes | tuple[str, str]
Properties = tuple[tuple[Property, Value], ...]
"""In the order they came: 'The Server MUST maintain the order of User Properties' (3.3.2.3.7)."""


def number(properties: Properties, wanted: Property, default: int) -> int:
    """The value of a numeric property, or `default` where it is absent."""
    for name, value in properties:
        if name is wanted and isinstance(value, int):
            return value
    return default


def read_varint(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The Variable Byte Integer at `at` and the index behind it, or None while its end is missing."""
    value = 0
    for length in range(4):
        if at + length >= len(data):
            return None
        byte = data[at + length]
        value |= (byte & 0x7F) << 7 * length
        if byte < 0x80:
            # "The encoded value MUST use the minimum number of bytes necessary" [MQTT-1.5.5-1]
            if byte == 0 and length:
                raise malformed("Variable Byte Integer longer than necessary")
            return value, at + length + 1
    raise malformed("Variable Byte Integer of more than 4 bytes")


class Fields:
    """One packet's body, read from front to back."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        at, self._at = self._at, self._at + count
        if self._at > len(self._body):
            raise malformed(f"expected {count} bytes, got {len(self._body) - at}")
        return self._body[at : self._at]

    def left(self) -> int:
        return len(self._body) - self._at

    def rest(self) -> bytes:
        return self.take(self.left())

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def four(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        found = read_varint(self._body, self._at)
        if found is None:
            raise malformed("Variable Byte Integer without an end")
        value, self._at = found
        return value

    def binary(self) -> bytes:
        return self.take(self.two())

    def text(self) -> str:
        """'MUST NOT include an encoding of the null character U+0000' [MQTT-1.5.4-2], nor of a surrogate."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as error:
            raise malformed("string is not UTF-8") from error
        if "\0" in text:
            raise malformed("string holds U+0000")
        return text

    def packet_id(self) -> int:
        value = self.two()
        if not value:
            raise protocol_error("packet identifier is 0")
        return value

    def properties(self, allowed: Container[Property]) -> Properties:
        """The property list that starts here. Only User Property may come more than once."""
        length = self.varint()
        if not length:
            return ()
        inner = Fields(self.take(length))
        found: list[tuple[Property, Value]] = []
        seen: set[Property] = set()
        while inner.left():
            name, value = inner._property(allowed)
            if name in seen and name is not Property.USER_PROPERTY:
                raise protocol_error(f"{name.name} came twice")
            seen.add(name)
            found.append((name, value))
        return tuple(found)

    def _property(self, allowed: Container[Property]) -> tuple[Property, Value]:
        identifier = self.varint()
        try:
            name = Property(identifier)
        except ValueError as error:
            raise malformed(f"property 0x{identifier:02x} is unknown") from error
        if name not in allowed:
            raise malformed(f"{name.name} does not belong into this packet")
        value = self._value(KINDS[name])
        if name in NEVER_ZERO and not value:
            raise protocol_error(f"{name.name} is 0")
        if KINDS[name] is Kind.BYTE and value not in (0, 1):
            raise protocol_error(f"{name.name} is neither 0 nor 1")
        return name, value

    def _value(self, kind: Kind) -> Value:
        match kind:
            case Kind.BYTE:
                return self.byte()
            case Kind.TWO:
                return self.two()
            case Kind.FOUR:
                return self.four()
            case Kind.VARINT:
                return self.varint()
            case Kind.TEXT:
                return self.text()
            case Kind.BINARY:
                return self.binary()
            case Kind.PAIR:
                return self.text(), self.text()


def varint(value: int) -> bytes:
    """Least significant seven bits first; the top bit says that more follow."""
    if not 0 <= value <= VARINT_MOST:
        raise ValueError(f"expected 0 to {VARINT_MOST}, got {value}")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def binary(value: bytes) -> bytes:
    """Two bytes of length, then the bytes."""
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    return binary(value.encode())


def properties(values: Properties) -> bytes:
    """The property list, its length in front."""
    if not values:
        return b"\0"
    body = b"".join(varint(name) + _value(KINDS[name], value) for name, value in values)
    return varint(len(body)) + body


def _value(kind: Kind, value: Value) -> bytes:
    match kind, value:
        case Kind.BYTE, int(value):
            return value.to_bytes(1, "big")
        case Kind.TWO, int(value):
            return value.to_bytes(2, "big")
        case Kind.FOUR, int(value):
            return value.to_bytes(4, "big")
        case Kind.VARINT, int(value):
            return varint(value)
        case Kind.TEXT, str(value):
            return text(value)
        case Kind.BINARY, bytes(value):
            return binary(value)
        case Kind.PAIR, (str(name), str(value)):
            return text(name) + text(value)
    raise TypeError(f"expected {kind.name}, got {value!r}")
