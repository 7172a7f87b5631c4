"""CBOR as CTAP2 has it (RFC 8949, canonical by CTAP 2.1 section 8): shortest numbers, sorted keys, no tags.

>>> encode({"uv": True, 1: b"x"}).hex()
'a2014178627576f5'
>>> decode(bytes.fromhex("a2014178627576f5"))
{1: b'x', 'uv': True}
"""

from typing import Any

Value = Any
"""int, bytes, str, bool, list, or dict of these."""

NUMBER, NEGATIVE, BYTES, TEXT, LIST, MAP, SIMPLE = 0, 1, 2, 3, 4, 5, 7
FALSE, TRUE = 20, 21
DEEPEST = 4
"""Levels of nesting that a CTAP2 message may have."""


class BadCbor(Exception):
    """These bytes are not one canonical CBOR value."""


def encode(value: Value) -> bytes:
    match value:
        case bool():
            return bytes([SIMPLE << 5 | (TRUE if value else FALSE)])
        case int():
            return _head(NUMBER, value) if value >= 0 else _head(NEGATIVE, -1 - value)
        case bytes():
            return _head(BYTES, len(value)) + value
        case str():
            text = value.encode()
            return _head(TEXT, len(text)) + text
        case list():
            return _head(LIST, len(value)) + b"".join(encode(each) for each in value)
        case dict():
            pairs = sorted(((encode(key), encode(each)) for key, each in value.items()), key=_order)
            return _head(MAP, len(pairs)) + b"".join(key + each for key, each in pairs)
    raise TypeError(f"expected what CTAP2 can say, got {type(value).__name__}")


def decode(data: bytes) -> Value:
    """Raises BadCbor for anything but one whole value, written the one way it may be."""
    value, rest = _value(data, 0)
    if rest:
        raise BadCbor(f"{len(rest)} bytes after the value")
    if encode(value) != data:
        raise BadCbor("not canonical")
    return value


def _order(pair: tuple[bytes, bytes]) -> tuple[int, int, bytes]:
    """Major type first, then shorter before longer, then by bytes."""
    key = pair[0]
    return key[0] >> 5, len(key), key


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise ValueError(f"expected a number of at most 64 bits, got {number}")


def _number(data: bytes) -> tuple[int, bytes]:
    short = data[0] & 0x1F
    if short < 24:
        return short, data[1:]
    if short > 27:
        raise BadCbor(f"additional information {short}")
    size = 1 << short - 24
    return int.from_bytes(_take(data[1:], size), "big"), data[1 + size :]


def _take(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise BadCbor(f"expected {size} bytes, got {len(data)}")
    return data[:size]


def _value(data: bytes, depth: int) -> tuple[Value, bytes]:
    if not data or depth > DEEPEST:
        raise BadCbor("too short" if not data else "too deep")
    major = data[0] >> 5
    number, rest = _number(data)
    match major:
        case 0:
            return number, rest
        case 1:
            return -1 - number, rest
        case 2:
            return _take(rest, number), rest[number:]
        case 3:
            try:
                return _take(rest, number).decode(), rest[number:]
            except UnicodeDecodeError:
                raise BadCbor("text that is no UTF-8") from None
        case 4:
            return _list(rest, number, depth)
        case 5:
            flat, rest = _list(rest, 2 * number, depth)
            return _map(flat), rest
        case 7 if number in (FALSE, TRUE):
            return number == TRUE, rest
    raise BadCbor(f"major type {major} with {number}")


def _list(data: bytes, count: int, depth: int) -> tuple[list[Value], bytes]:
    values = []
    for _ in range(count):
        value, data = _value(data, depth + 1)
        values.append(value)
    return values, data


def _map(flat: list[Value]) -> dict[Any, Value]:
    keys = flat[::2]
    if not all(isinstance(key, int | str) for key in keys):
        raise BadCbor("a key that is neither number nor text")
    return dict(zip(keys, flat[1::2], strict=True))
