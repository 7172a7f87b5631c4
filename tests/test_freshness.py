"""The ladder that rights go down while the fleet is silent, and what is left of a policy on each step."""

import pytest

from agent.clock import NS, Moment, Trust
from agent.freshness import Freshness, Ladder
from agent.policy import ACTIONS, BODY, ENOUGH_ALONE, LEVELS, FactorSets, Policy, level, sound
from agent.standing import ALONE, NEVER, Authority
from tests.moments import NOON_NS, moment

H = 3600.0
FRESH, GRACE, STALE, CLOSED = Freshness

CARD, FINGER, PIN, TOKEN = (
    frozenset({"fido2"}),
    frozenset({"badge", "slot"}),
    frozenset({"badge", "pin"}),
    frozenset({"badge", "static"}),
)
ALL: FactorSets = (CARD, FINGER, PIN, TOKEN)


@pytest.mark.parametrize(
    ("hours", "step"),
    [
        (0, FRESH),
        (24, FRESH),
        (24.001, GRACE),
        (72, GRACE),
        (72.001, STALE),
        (168, STALE),
        (168.001, CLOSED),
        (1e6, CLOSED),
    ],
)
def test_rights_shrink_after_a_day_three_days_and_a_week(hours: float, step: Freshness) -> None:
    assert Ladder().judge(hours * H, assured=True) is step


def test_what_never_came_opens_nothing() -> None:
    assert Ladder().judge(None, assured=True) is CLOSED


@pytest.mark.parametrize(("hours", "step"), [(0, GRACE), (24, GRACE), (73, STALE), (169, CLOSED)])
def test_a_device_without_a_clock_is_on_grace_at_best_and_no_younger_than_it_knows(
    hours: float, step: Freshness
) -> None:
    assert Ladder().judge(hours * H, assured=False) is step


@pytest.mark.parametrize(
    ("trust", "step"),
    [
        (Trust.NTP, FRESH),
        (Trust.FLEET, FRESH),
        (Trust.RTC, FRESH),
        (Trust.GPS, GRACE),
        (Trust.NONE, GRACE),
    ],
)
def test_what_is_fresh_only_a_clock_can_tell_that_nobody_near_can_set(trust: Trust, step: Freshness) -> None:
    authority = Authority(knowledge_at=lambda: NOON_NS / NS)
    assert authority.standing(moment(60, trust=trust)).freshness is step


@pytest.mark.parametrize(
    ("step", "sets", "two"),
    [
        (None, ALL, False),
        (FRESH, ALL, False),
        (GRACE, (CARD, FINGER, TOKEN), False),
        (STALE, (CARD,), True),
        (CLOSED, (), False),
    ],
)
def test_each_step_takes_something_away(step: Freshness | None, sets: FactorSets, two: bool) -> None:
    left = Policy(ALL).at(step)
    assert (left.sets, left.second_person) == (sets, two)


def test_a_policy_for_two_asks_for_two_on_every_step() -> None:
    assert all(Policy(ALL, second_person=True).at(step).second_person for step in (None, FRESH, GRACE, STALE))


def test_sets_below_the_level_of_a_policy_do_not_count() -> None:
    assert Policy(ALL, level=3).at(None).sets == (CARD,)
    assert Policy(ALL, level=1).at(FRESH).sets == ALL


def test_a_set_is_worth_its_best_factor() -> None:
    assert [level(factors) for factors in ALL] == [3, 1, 1, 1]
    assert [level(factors) for factors in (frozenset({"badge"}), frozenset[str]())] == [0, 0]


@pytest.mark.parametrize("alone", LEVELS)
def test_alone_nothing_below_level_three_is_ever_enough(alone: str) -> None:
    assert sound({alone}) is (LEVELS[alone] >= ENOUGH_ALONE)


@pytest.mark.parametrize("other", sorted(BODY | {"pin"}))
def test_a_badge_with_anything_more_may_be_asked_for(other: str) -> None:
    assert sound({"badge", other})


def test_what_nobody_is_asked_for_cannot_be_met() -> None:
    assert not Policy(()).met_by(LEVELS)
    assert not Policy((FINGER,)).met_by(("badge", "pin"))
    assert Policy((FINGER,)).met_by(("pin", "slot", "badge"))


def test_every_action_has_a_name_of_its_own() -> None:
    assert len(set(ACTIONS)) == len(ACTIONS)


# -- where a standing comes from ------------------------------------------------------------------


def test_without_a_root_no_age_counts() -> None:
    standing = Authority().standing(moment(1000))
    assert (standing.age_s, standing.freshness) == (None, None)
    assert standing.expects("P1")
    assert not standing.revokes("drv-1", "drv-2")


def test_with_a_root_and_nothing_else_nobody_comes_on_duty() -> None:
    standing = Authority(knowledge_at=lambda: NEVER).standing(moment(1000))
    assert (standing.age_s, standing.freshness) == (None, CLOSED)


def test_age_is_what_has_passed_since_the_fleet_spoke() -> None:
    standing = Authority(knowledge_at=lambda: NOON_NS / NS - 25 * H).standing(moment(60))
    assert (standing.age_s, standing.freshness) == (25 * H + 60, GRACE)


def test_a_word_from_the_future_is_no_younger_than_new() -> None:
    """The fleet's clock is ahead of ours: what it said is new, and ages from when our clock gets there."""
    assert Authority(knowledge_at=lambda: NOON_NS / NS + 60).standing(moment(0)).age_s == 0.0


def test_without_a_clock_age_is_counted_from_the_floor() -> None:
    now = Moment("boot-2", 5 * NS, NOON_NS, Trust.NONE)
    standing = Authority(knowledge_at=lambda: NOON_NS / NS - 100 * H).standing(now)
    assert standing.freshness is STALE, "never younger than the floor says"


def test_nobody_is_revoked_where_nobody_can_revoke() -> None:
    assert not ALONE.revokes("drv-1")
