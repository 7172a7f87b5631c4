"""An acknowledgement is believed when the broker has lived on, when it was given twice, or by receipt."""

import random
from typing import Any

import pytest

from agent.cursors import Cursors
from agent.recovery import Recovered, reached
from agent.trail import DOUBT_S, GRAIN_S, Trail


def at(place: int) -> Cursors:
    return Cursors((place, place, place))


def sent(trail: Trail, *moves: tuple[int, float]) -> None:
    """Acknowledged up to so much, each at a time."""
    for place, now in moves:
        trail.moved(at(place), now)


def test_what_was_acknowledged_just_before_the_end_is_brought_again() -> None:
    trail = Trail({"cursor": 100})
    assert trail.begin(0) == at(100)
    sent(trail, (200, 50.0), (300, 60.0), (400, 69.0))
    trail.lost(60.0 + DOUBT_S)
    assert trail.begin(0) == at(300)
    assert trail.cursors == at(400)


def test_a_broker_that_has_lived_on_is_believed() -> None:
    trail = Trail({})
    trail.begin(0)
    sent(trail, (100, 1.0), (101, 1.0 + GRAIN_S / 2), (102, 2.0))
    trail.lost(2.0 + DOUBT_S)
    assert trail.begin(0) == at(102)


def test_silence_before_the_end_proves_nothing() -> None:
    """It was heard last with its last acknowledgement, however long it took to be noticed."""
    trail = Trail({})
    trail.begin(0)
    sent(trail, (100, 1.0))
    trail.lost(1.0)
    assert trail.begin(0) == at(0)


def test_what_was_acknowledged_twice_is_not_brought_a_third_time() -> None:
    trail = Trail({})
    trail.begin(0)
    sent(trail, (100, 1.0))
    trail.lost(1.0)
    trail.begin(0)
    sent(trail, (60, 2.0), (100, 2.1), (150, 2.2))
    trail.lost(2.2)
    assert trail.begin(0) == at(100)


def test_what_the_fleet_has_is_not_brought_again() -> None:
    trail = Trail({})
    trail.begin(0)
    sent(trail, (100, 1.0))
    trail.lost(1.0)
    assert trail.begin(70) == at(70)
    assert trail.begin(5000) == at(100), "what the broker never had is sent in any case"


def test_what_was_left_behind_is_not_tried_again() -> None:
    trail = Trail({})
    trail.begin(0)
    sent(trail, (100, 1.0))
    trail.believe()
    trail.lost(1.0)
    assert trail.begin(0) == at(100)


def test_a_restart_brings_again_what_an_ended_connection_would_and_only_once() -> None:
    trail, records = Trail({}), dict[str, Any]()
    trail.begin(0)
    for turn in (1, 2, 3):
        sent(trail, (100 * turn, float(turn)))
        records = trail.cursors.records(records, again=trail.believed(float(turn)))
        trail = Trail(records)
        assert trail.cursors == at(100 * turn)
        assert trail.begin(0) == at(100 * (turn - 1))


def test_lanes_are_doubted_each_for_itself() -> None:
    trail = Trail({"cursor": 10, "ahead": {"custody": 500}})
    trail.begin(0)
    trail.moved(Cursors((500, 10, 10)), 1.0)
    trail.moved(Cursors((500, 200, 10)), 2.0)
    trail.lost(2.0)
    assert trail.begin(0) == Cursors((500, 10, 10))


@pytest.mark.parametrize("again", ["x", 7, [1, 2], [1, 2, 3, 4], ["1", None, -5], {}])
def test_a_record_that_cannot_be_read_brings_everything_again(again: object) -> None:
    assert Trail({"cursor": 9, "again": again}).begin(0) == at(0)


@pytest.mark.parametrize(
    ("records", "known"),
    [
        ({"cursor": 9}, 9),
        ({"cursor": 9, "again": [9, 4, 9]}, 4),
        ({"cursor": 9, "again": [9, 4, 9], "receipt": {"size": 6}}, 6),
        ({"again": [9, 4, 9]}, 0),
    ],
)
def test_of_a_damaged_file_is_saved_what_would_have_been_brought_again(
    records: dict[str, Any], known: int
) -> None:
    found = Recovered(
        epoch="e1", records=records, doubtful=(), lost=(), complete=True, last_checkpoint=None, newest=9
    )
    assert reached(found) == known


@pytest.mark.parametrize("seed", range(5))
def test_a_way_that_is_never_there_for_long_carries_everything_in_the_end(seed: int) -> None:
    chance, now, wanted = random.Random(seed), 0.0, 1000
    trail = Trail({})
    sendings = [0] * (wanted + 1)
    while trail.cursors != at(wanted):
        place = trail.begin(0).floor
        carried = min(wanted, place + chance.randrange(1, 9))
        for each in range(place + 1, carried + 1):
            sendings[each] += 1
        now += 0.1
        sent(trail, (carried, now))
        trail.lost(now)
    assert max(sendings) <= 2


def test_a_day_of_acknowledgements_takes_no_room() -> None:
    trail = Trail({})
    trail.begin(0)
    for place in range(1, 20_000):
        trail.moved(at(place), place * 0.01)
    assert len(trail._steps) < 3 * DOUBT_S / GRAIN_S
    trail.lost(200.0)
    behind = 20_000 - trail.begin(0).floor
    assert DOUBT_S <= behind * 0.01 <= DOUBT_S + 2 * GRAIN_S
