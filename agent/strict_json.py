"""JSON that means one thing to everybody: what signed documents are made of.

No key twice, no floats, no lone surrogates, and limits on size, depth, keys and strings that hold before
anything is built. What passes here is plain data: dicts, lists, strings, integers, booleans and null.
"""

import json
import re
from typing import Any

DEPTH = 8
KEYS = 256
"""Of one object."""
TEXT = 4096
"""Bytes of one string."""
WIDEST = 2**64
"""Integers lie below this, either way."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""One that does not end takes all that is left, and nothing is tried twice: whoever sent it may have signed
nothing, and must not be able to keep us busy."""
_BRACKET = re.compile(r"[\[\]{}]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


class BadJson(Exception):
    """Not JSON, or not the one kind that is taken here."""


def loads(raw: bytes, *, text: int = TEXT, keys: int = KEYS) -> Any:
    """Raises BadJson. `text` bounds the bytes of a string, `keys` the members of an object."""
    try:
        decoded = raw.decode()
    except UnicodeDecodeError as error:
        raise BadJson(f"expected UTF-8, got {raw[error.start : error.start + 1].hex()}") from error
    _check_depth(decoded)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise BadJson("expected each key once, got one twice")
        if len(found) > keys:
            raise BadJson(f"expected at most {keys} keys in an object, got {len(found)}")
        return found

    try:
        value = json.loads(
            decoded,
            object_pairs_hook=members,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_int,
        )
    except ValueError as error:
        raise BadJson(f"expected JSON: {error}") from error
    _check_strings(value, text)
    return value


def dumps(value: Any) -> bytes:
    """The shortest JSON text of plain data, keys in the order they have."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check_depth(text: str) -> None:
    """Before the parser meets it, which calls itself for every level."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += _STEP[bracket]
        if depth > DEPTH:
            raise BadJson(f"expected at most {DEPTH} levels, got more")


def _check_strings(value: Any, limit: int) -> None:
    match value:
        case str():
            try:
                size = len(value.encode())
            except UnicodeEncodeError as error:
                raise BadJson("expected characters, got half of one") from error
            if size > limit:
                raise BadJson(f"expected strings of at most {limit} bytes, got {size}")
        case dict():
            for key, each in value.items():
                _check_strings(key, limit)
                _check_strings(each, limit)
        case list():
            for each in value:
                _check_strings(each, limit)


def _no_float(text: str) -> Any:
    raise BadJson(f"expected an integer, got {text[:20]}")


def _int(text: str) -> int:
    if len(text) > 21 or abs(int(text)) >= WIDEST:
        raise BadJson(f"expected an integer of at most 64 bits, got {text[:20]}")
    return int(text)
