"""What a look at the boards makes of a locker: what is wrong, where, and what is not worth a word."""

import pytest

from agent.clock import Moment, Trust
from agent.locker.compartments import For, Job, Status
from agent.locker.doors import Door, Opening
from agent.locker.inspection import BoardSeen, Books, judge
from drivers.doors import Fact
from tests.locker_hall import wall

AT = Moment(boot="b", mono_ns=0, utc_ns=0, trust=Trust.NTP)
OPENING = Job(what=For.PICKUP, opening=Opening.intended(Door(), AT))


def board(shut: str = "111111", **told: str) -> BoardSeen:
    """Six doors: `shut` by their hooks, `contact`, `content` and `solenoid` the same way; `?` for unknown."""
    facts = {"hook": shut, **told}
    return BoardSeen(
        unit="bus",
        address=0,
        doors=range(1, 7),
        told={
            Fact(fact): {door: bit == "1" for door, bit in enumerate(bits, 1) if bit != "?"}
            for fact, bits in facts.items()
        },
    )


def found(*boards: BoardSeen, **books: Status | str) -> list[str]:
    statuses = {name: status for name, status in books.items() if isinstance(status, Status)}
    out = {name: why for name, why in books.items() if isinstance(why, str)}
    return [
        f"{each.place}: {each.expected}, {each.found}"
        for each in judge(wall(), boards, Books(statuses=statuses, out=out))
    ]


def test_a_locker_at_rest_has_nothing_wrong() -> None:
    assert not found(board(contact="111111", content="100000", solenoid="000000"), a1=Status(parcel="p"))


def test_a_door_that_somebody_is_at_may_be_open() -> None:
    assert not found(board("011111", contact="011111"), a1=Status(job=OPENING))


def test_a_board_that_says_nothing_is_told_once_and_not_for_each_of_its_doors() -> None:
    silent = BoardSeen(unit="bus", address=3, doors=range(1, 7), problem="no answer")
    assert found(silent) == ["bus, board 3: an answer, no answer"]
    assert found(BoardSeen(unit="bus", address=None, doors=range(0), problem="gone")) == [
        "bus: an answer, gone"
    ]


def test_one_open_door_is_an_open_door_and_most_of_them_are_a_polarity() -> None:
    assert found(board("110111")) == ["b1: shut, open, says its hook"]
    (told,) = found(board("000010"))
    assert told.startswith("bus, board 0: most doors shut, by their hook bits, 5 of 6 open: its polarity")
    assert "`postern doors calibrate bus`" in told


def test_a_single_door_that_is_open_is_never_a_polarity() -> None:
    """Of two doors one is half of them."""
    two = BoardSeen(unit="bus", address=0, doors=range(1, 3), told={Fact.HOOK: {1: False, 2: True}})
    assert found(two) == ["a1: shut, open, says its hook"]
    one = BoardSeen(unit="bus", address=0, doors=range(1, 2), told={Fact.HOOK: {1: False}})
    assert found(one) == ["a1: shut, open, says its hook"]


def test_fewer_bits_than_doors_is_a_wrong_count() -> None:
    assert found(board("1111??")) == ["bus, board 0: a hook bit for each of 6 doors, none for c1, c2"]


@pytest.mark.parametrize(
    ("told", "books", "said"),
    [
        (board(contact="011111"), {}, "a1: hook and contact to agree, latched, and open"),
        (board("011111", contact="111111"), {}, "a1: hook and contact to agree, shut, and not latched"),
        (board(solenoid="010000"), {}, "a2: its solenoid at rest, fed"),
        (board(content="100000"), {}, "a1: nothing inside, a parcel inside, says its sensor"),
        (
            board(content="000000"),
            {"a1": Status(parcel="p")},
            "a1: a parcel inside, nothing inside, says its sensor",
        ),
        (board(), {"c1": "board_silent"}, "c1: in service, out of service: board_silent"),
        (board(), {"c1": Status(quarantine="jammed")}, "c1: in use, in quarantine: jammed"),
    ],
)
def test_whatever_contradicts_something_is_named(
    told: BoardSeen, books: dict[str, Status | str], said: str
) -> None:
    assert said in found(told, **books)


def test_without_an_agent_nobody_knows_what_should_be_inside() -> None:
    seen = [board(content="111111")]
    assert not judge(wall(), seen, Books(known=False))


def test_a_door_of_no_compartment_is_named_by_its_number() -> None:
    seven = BoardSeen(
        unit="bus", address=0, doors=range(7, 10), told={Fact.HOOK: {7: False, 8: True, 9: True}}
    )
    assert found(seven) == ["bus door 7: shut, open, says its hook"]
