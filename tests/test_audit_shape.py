"""A line that is checked at one look is one that would have passed when checked in full."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.line import check_line
from agent.audit.shape import MOST, Shapes
from tests.journals import EPOCH, WHOSE, entry, line, written

SOURCE = f"/postern/{WHOSE}"


def learned(*entries: dict[str, Any]) -> Shapes:
    shapes = Shapes(EPOCH, SOURCE)
    for each in entries:
        shapes.learn(each)
    return shapes


def passes(raw: bytes, sequence: int) -> bool:
    """As the full check has it."""
    try:
        check_line(raw, sequence, EPOCH, SOURCE)
    except Exception:
        return False
    return True


# What a device may write, and what somebody else might.
texts = st.text(st.sampled_from('ab0 "\\/\n\x7fé\u2028{}[]:,'), max_size=8)
numbers = st.one_of(
    st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False), st.just(-0.0)
)
values = st.recursive(
    st.one_of(texts, numbers, st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


def like(value: Any, chance: random.Random) -> Any:
    """Of the same make, with other text and numbers in it."""
    match value:
        case str():
            return "".join(chance.choices('ab0 "\\\x7fé{}', k=chance.randrange(4)))
        case bool() | None:
            return value
        case int() | float():
            return chance.choice(
                (chance.randrange(-9, 10**18), round(chance.uniform(-9, 9), 4), 1e-7, 1e22, -0.0)
            )
        case list():
            return [like(each, chance) for each in value]
    return {key: like(each, chance) for key, each in value.items()}


@given(values, st.integers(0, 2**32))
def test_what_fits_a_shape_would_have_passed_the_full_check(value: Any, seed: int) -> None:
    shapes = learned(entry(1, data={"value": value}))
    raw = line(2, data={"value": like(value, random.Random(seed))})
    assert not shapes.fit(raw, 2) or passes(raw, 2)


@given(st.integers(0, 2**32))
def test_no_changed_bytes_fit_that_the_full_check_refuses(seed: int) -> None:
    chance = random.Random(seed)
    shapes, raw = learned(entry(1)), bytearray(line(7))
    for _ in range(chance.randint(1, 3)):
        at, bit = chance.randrange(len(raw)), chance.choice(b' "\\0-.e1{}[],:\x7f\xc3z')
        match chance.randrange(3):
            case 0:
                raw[at] = bit
            case 1:
                raw.insert(at, bit)
            case _:
                del raw[at]
    assert not shapes.fit(bytes(raw), 7) or passes(bytes(raw), 7)


NUMBERS = (
    "-0 1.0 0.0 -0.0 1.50 0.00001 1e5 1E5 1e-7 1e+22 01 0.1 -7.25 123456789012345 1234567890123456789"
    " 0.12345678 1.12345678 12345678.5 -0.0001 0.0000 0.00010 +1 .5 5. --1 0x1 1_0"
)


@pytest.mark.parametrize("number", NUMBERS.split())
def test_a_number_that_could_be_written_otherwise_fits_no_shape(number: str) -> None:
    shapes = learned(entry(1, data={"n": 1}))
    raw = line(2, data={"n": 7}).replace(b'"n":7', f'"n":{number}'.encode())
    assert not shapes.fit(raw, 2) or passes(raw, 2)


def test_a_line_like_the_last_fits_and_another_one_does_not() -> None:
    shapes = learned(entry(1))
    assert shapes.fit(line(2), 2)
    assert not shapes.fit(line(2), 3)
    assert not shapes.fit(line(2, id=f"{EPOCH}-3"), 2)
    assert not shapes.fit(line(2, sequence="3"), 2)
    assert not shapes.fit(line(2, id="000000000000-2"), 2)
    assert not shapes.fit(line(2, source="/postern/acme/van-0043"), 2)
    assert not shapes.fit(line(2, type="postern.custody.other"), 2)
    assert not shapes.fit(line(2, time="yesterday"), 2)
    assert not shapes.fit(line(2)[:-1] + b',"type":"postern.custody.accepted"}', 2)


def test_an_entry_in_another_order_or_of_odd_keys_is_no_shape_and_no_harm() -> None:
    whole = entry(1)
    shapes = learned(dict(reversed(whole.items())), {**whole, "data": {'a"b': 1}})
    assert not shapes.fit(written(dict(reversed(whole.items()))), 1)
    assert not shapes.fit(line(1, data={'a"b': 1}), 1)


def test_a_flood_of_shapes_takes_no_more_room() -> None:
    shapes = learned(*(entry(1, data={"value": [0] * n}) for n in range(3 * MOST)))
    assert not shapes.fit(line(2, data={"value": []}), 2)
    assert shapes.fit(line(2, data={"value": [0] * (3 * MOST - 1)}), 2)
