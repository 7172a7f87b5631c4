"""Where a door is, what its bits mean, and when it has changed."""

import pytest

from drivers.base import ActionRefused
from drivers.cu16 import Cu16Board
from drivers.doors import Edges, Fact, Levels, Wall, bits_of, listed
from drivers.modbus_relay import RelayBoard
from drivers.readings import ContentChanged, InputChanged, SolenoidChanged
from tests.bus_bench import contact, hook

FIRST = Cu16Board(address=4, locks=3)
SECOND = Cu16Board(address=0, locks=2, polarity="0_locked", inverted=(2,), content="0_occupied")
WALL = Wall((FIRST, SECOND))


@pytest.mark.parametrize(
    ("door", "place"), [(1, (FIRST, 1)), (3, (FIRST, 3)), (4, (SECOND, 1)), (5, (SECOND, 2))]
)
def test_doors_count_through_the_boards_in_the_order_of_the_config(
    door: int, place: tuple[Cu16Board, int]
) -> None:
    assert WALL.place(door) == place
    assert WALL.number(place[0], Fact.HOOK, place[1]) == door


@pytest.mark.parametrize("door", [-1, 0, 6])
def test_there_is_no_door_beyond_the_wall(door: int) -> None:
    with pytest.raises(ActionRefused, match=f"expected a door from 1 to 5, got {door}"):
        WALL.place(door)


def test_what_is_not_at_rest_is_found_at_first() -> None:
    found: dict[int, Levels] = {
        4: {Fact.HOOK: (True, False, True, False, False)},
        0: {Fact.HOOK: (True, True), Fact.CONTENT: (False, True)},
    }
    assert WALL.exceptions(found) == {"open": "2,4", "ajar": "", "occupied": "4"}
    assert WALL.exceptions({}) == {"open": "", "ajar": "", "occupied": ""}


def test_a_level_is_told_when_it_is_found_and_when_it_changes() -> None:
    edges = Edges(WALL)
    assert list(edges.of(SECOND, {Fact.HOOK: (False, False)})) == [
        hook(4, "closed", first=True),
        hook(5, "open", first=True),
    ]
    assert not list(edges.of(SECOND, {Fact.HOOK: (False, False)}))
    assert list(edges.of(SECOND, {Fact.HOOK: (True, False)})) == [hook(4, "open")]
    assert list(edges.of(SECOND, {Fact.CONTENT: (False,)})) == [
        ContentChanged(door=4, occupied=True, first=True)
    ]


def test_the_hook_speaks_after_what_is_behind_the_door() -> None:
    edges = Edges(WALL)
    found = list(edges.of(SECOND, {Fact.HOOK: (True, False), Fact.CONTENT: (True, True)}))
    assert [type(each).__name__ for each in found] == ["ContentChanged"] * 2 + ["DoorChanged"] * 2
    slammed = list(edges.of(SECOND, {Fact.HOOK: (False, False), Fact.CONTENT: (False, True)}))
    assert slammed == [ContentChanged(door=4, occupied=True), hook(4, "closed")]


def test_bits_beyond_the_locks_and_bits_that_are_not_known_tell_nothing() -> None:
    edges = Edges(WALL)
    assert list(edges.of(FIRST, {Fact.HOOK: (None, True, True, True, False)})) == [
        hook(2, "closed", first=True),
        hook(3, "closed", first=True),
    ]
    assert not list(edges.of(FIRST, {Fact.HOOK: (None, None, True)}))


def test_a_board_that_was_forgotten_is_found_anew_and_no_other() -> None:
    edges = Edges(WALL)
    for board in WALL.boards:
        list(edges.of(board, {Fact.HOOK: (True,)}))
    edges.forget(FIRST)
    assert list(edges.of(FIRST, {Fact.HOOK: (True,)})) == [hook(1, "closed", first=True)]
    assert not list(edges.of(SECOND, {Fact.HOOK: (True,)}))


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ("1", ""),
        ("11", "1"),
        ("1101", "1"),
        ("11010", "1"),  # each time alone: two looks in a row must agree
        ("1100", "10"),
        ("110100", "10"),
        ("01", ""),
        ("0100", "0"),
    ],
)
def test_where_no_checksum_guards_it_a_level_must_be_seen_twice_in_a_row(seen: str, told: str) -> None:
    edges = Edges(WALL, confirm=2)
    heard = [change for bit in seen for change in edges.of(FIRST, {Fact.HOOK: (bit == "1",)})]
    assert heard == [
        hook(1, "closed" if bit == "1" else "open", first=at == 0) for at, bit in enumerate(told)
    ]


def test_solenoids_contacts_and_inputs_are_facts_of_their_own() -> None:
    boards = RelayBoard(address=1, locks=2, contacts=2, inputs=1), RelayBoard(address=2, locks=1, inputs=2)
    edges = Edges(Wall(boards))
    assert list(edges.of(boards[0], {Fact.CONTACT: (True, False)})) == [
        contact(1, "closed", first=True),
        contact(2, "open", first=True),
    ]
    levels = {Fact.SOLENOID: (True, True), Fact.INPUT: (False, True, True)}
    assert list(edges.of(boards[1], levels)) == [
        SolenoidChanged(door=3, energised=True, first=True),
        InputChanged(input=2, closed=False, first=True),
        InputChanged(input=3, closed=True, first=True),
    ]


def test_bits_are_read_from_the_lowest() -> None:
    assert bits_of(b"\x05\x80", 16) == (True, False, True, *(False,) * 12, True)
    assert bits_of(b"\x05", 2) == (True, False)
    assert len(bits_of(b"\x05", 50)) == 8
    assert listed([3, 1, 2]) == "1,2,3"
