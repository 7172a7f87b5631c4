"""JSON that means one thing to everybody, within limits that hold before anything is built."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.strict_json import DEPTH, KEYS, TEXT, WIDEST, BadJson, dumps, loads

REFUSED = {
    "a key twice": b'{"a":1,"a":1}',
    "a key twice, spelled two ways": b'{"a":1,"\\u0061":2}',
    "a float": b'{"a":1.0}',
    "an exponent": b"1e3",
    "no number": b"NaN",
    "infinity": b"[-Infinity]",
    "too wide an integer": str(WIDEST).encode(),
    "an integer of thousands of digits": b"9" * 5000,
    "half a character": b'"\\ud800"',
    "half a character in a key": b'{"\\udfff":1}',
    "no UTF-8": b'"\xff"',
    "a byte order mark": b"\xef\xbb\xbf1",
    "something behind it": b"1 2",
    "nothing": b"",
    "too long a string": dumps("x" * (TEXT + 1)),
    "too long a string in bytes": dumps("é" * (TEXT // 2 + 1)),
    "too long a key": dumps({"x" * (TEXT + 1): 1}),
    "too many keys": dumps({str(n): n for n in range(KEYS + 1)}),
    "too deep": b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
    "very deep": b"[" * 90_000,
    "very deep objects": b'{"a":' * 15_000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_or_is_too_large_is_refused(raw: bytes) -> None:
    with pytest.raises(BadJson):
        loads(raw)


def test_what_lies_on_the_limits_is_taken() -> None:
    widest = {"n": WIDEST - 1, "least": 1 - WIDEST, "text": "x" * TEXT}
    assert loads(dumps(widest)) == widest
    assert loads(b"[" * DEPTH + b"]" * DEPTH) == json.loads("[" * DEPTH + "]" * DEPTH)
    full = {str(n): n for n in range(KEYS)}
    assert loads(dumps(full)) == full


def test_brackets_in_strings_are_no_depth() -> None:
    text = '["' + "[{" * 100 + '\\"' + "[" * 100 + '"]'
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize("raw", [b'{"', b'["', b'"\\'])
def test_a_string_that_does_not_end_costs_no_more_than_its_bytes(raw: bytes) -> None:
    """Ten times as long once took a hundred times as long, which here is an hour."""
    with pytest.raises(BadJson, match="expected JSON"):
        loads(raw + b'\\"' * 500_000)


def test_limits_of_strings_and_keys_can_be_set() -> None:
    assert loads(dumps("x" * 9000), text=9000) == "x" * 9000
    with pytest.raises(BadJson):
        loads(b'{"a":1,"b":2}', keys=1)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    raw = dumps(value)
    if raw.count(b"[") + raw.count(b"{") <= DEPTH:
        assert loads(raw) == value


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        value = loads(raw)
    except BadJson:
        return
    assert loads(dumps(value)) == value
