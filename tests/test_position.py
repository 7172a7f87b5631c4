"""Where the device says it is, and when it says that it does not know."""

from dataclasses import replace

import pytest

from agent.clock import NS
from agent.position import Position, distance_m
from drivers.readings import Fix, FixLost
from tests.moments import NOON_NS, moment

MUNICH = Fix(lat=48.137154, lon=11.576124, utc=None, hdop=0.9)


def position(fresh: float = 10.0) -> Position:
    return Position(fresh=fresh, track_every=60.0, track_beyond=50.0)


def north(metres: float) -> Fix:
    return replace(MUNICH, lat=MUNICH.lat + metres / 111_194.9)


def fix_at(seconds: float, utc_s: float | None) -> Fix:
    return replace(MUNICH, utc=None if utc_s is None else NOON_NS / NS + utc_s)


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        ((0, 0), (0, 0), 0),
        ((0, 0), (0, 1), 111_195),
        ((0, 179.5), (0, -179.5), 111_195),
        ((90, 0), (90, 120), 0),
        ((52.5163, 13.3777), (48.8584, 2.2945), 878_000),
        ((0, 0), (0, 180), 20_015_087),
        ((-0.3, -0.1), (0.3, 179.9), 20_015_087),
        ((90, 0), (-90, 0), 20_015_087),
    ],
)
def test_distances_are_those_of_the_globe(
    a: tuple[float, float], b: tuple[float, float], metres: float
) -> None:
    one, other = (Fix(lat=lat, lon=lon, utc=None) for lat, lon in (a, b))
    assert distance_m(one, other) == pytest.approx(metres, rel=2e-3, abs=0.01)
    assert distance_m(one, other) == pytest.approx(distance_m(other, one))


def test_a_device_without_receiver_says_so() -> None:
    assert position().stamp(moment(5)) == {"position": None, "position_missing": "no_receiver"}


def test_a_fresh_fix_is_the_position() -> None:
    here = position()
    here.moved(MUNICH, moment(5))
    assert here.stamp(moment(7.5)) == {
        "position": {"lat": 48.137154, "lon": 11.576124, "age_s": 2.5, "hdop": 0.9, "source": "gnss"}
    }


@pytest.mark.parametrize(("age_s", "live"), [(0.0, True), (10.0, True), (10.01, False), (3600.0, False)])
def test_a_fix_that_grew_old_is_last_known_and_never_live(age_s: float, live: bool) -> None:
    here = position()
    here.moved(MUNICH, moment(5))
    told = here.stamp(moment(5 + age_s))
    assert (told["position"] is not None) is live
    if not live:
        assert told["position_missing"] == "stale"
        assert told["last_known"]["age_s"] == round(age_s, 1)


def test_a_lost_fix_is_not_live_even_while_it_is_young() -> None:
    here = position()
    here.moved(MUNICH, moment(5))
    here.lost(FixLost(reason="no_fix"))
    told = here.stamp(moment(5))
    assert (told["position"], told["position_missing"]) == (None, "no_fix")
    assert told["last_known"]["lat"] == MUNICH.lat


def test_a_receiver_that_never_had_a_fix_has_no_last_known_one() -> None:
    here = position()
    here.lost(FixLost(reason="no_fix"))
    assert here.stamp(moment(5)) == {"position": None, "position_missing": "no_fix"}


def test_the_next_fix_is_live_again() -> None:
    here = position()
    here.lost(FixLost(reason="no_fix"))
    here.moved(MUNICH, moment(5))
    assert here.stamp(moment(5))["position"] is not None


@pytest.mark.parametrize(
    ("seconds", "metres", "told"),
    [(59.9, 1000, False), (60, 49, False), (60, 51, True), (3600, 0, False), (3600, 51, True)],
)
def test_a_move_is_told_when_it_is_far_enough_and_not_too_soon(
    seconds: float, metres: float, told: bool
) -> None:
    here = position()
    assert here.moved(MUNICH, moment(5)), "the first fix is news"
    assert here.moved(north(metres), moment(5 + seconds)) is told


def test_slow_movement_adds_up() -> None:
    here = position()
    told = [at for at in range(0, 600, 10) if here.moved(north(at), moment(5 + at))]
    assert told == [0, 60, 120, 180, 240, 300, 360, 420, 480, 540]


def agreed(*fixes: tuple[float, float | None]) -> list[bool]:
    here = position()
    return [
        here.agreed_utc_ns(fix_at(seconds, utc_s), moment(seconds)) is not None for seconds, utc_s in fixes
    ]


@pytest.mark.parametrize(
    ("fixes", "believed"),
    [
        ([(1, 1), (2, 2), (3, 3)], [False, False, True]),
        ([(1, 1), (2, 2.4), (3, 3.1)], [False, False, True]),
        ([(1, 1), (2, 3.1), (3, 3)], [False, False, False]),
        ([(1, 1), (2, 2), (3, 3), (4, 40), (5, 5), (6, 6), (7, 7)], [False, False, True, *[False] * 3, True]),
        ([(1, 1), (2, 2), (3, None), (4, 4), (5, 5), (6, 6)], [*[False] * 5, True]),
        ([(1, 1), (2, 1), (3, 1)], [False, False, False]),
    ],
)
def test_a_receivers_time_is_believed_when_three_fixes_agree(
    fixes: list[tuple[float, float | None]], believed: list[bool]
) -> None:
    assert agreed(*fixes) == believed


def test_the_time_that_was_agreed_on_is_that_of_the_newest_fix() -> None:
    here = position()
    told = [here.agreed_utc_ns(fix_at(seconds, seconds), moment(seconds)) for seconds in (1, 2, 3)]
    assert told == [None, None, NOON_NS + 3 * NS]
