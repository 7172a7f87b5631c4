"""What the config may say about people, and what it may not loosen."""

import pytest

from agent.config import Config, parse
from agent.freshness import Ladder
from agent.lockout import DECIDED, Limits
from agent.mistakes import BadConfig
from agent.policy import ACTIONS, Policy, level

LEAST = '[device]\nid = "abc"\ntenant = "abc"\n[broker]\nhost = "localhost"\n'
BADGE_AND_PIN = frozenset({"badge", "pin"})


def config(more: str = "") -> Config:
    return parse(LEAST + more)


def mistakes(more: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        config(more)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_silent_config_means_what_was_decided() -> None:
    file = config().file
    assert (file.identity.ladder(), file.identity.limits()) == (Ladder(), DECIDED)


def test_every_action_has_a_policy_and_the_usual_one_leaves_nobody_without_a_finger_out() -> None:
    policies = config().policies()
    assert tuple(policies) == ACTIONS
    for action in ("session", "handover", "deposit"):
        assert BADGE_AND_PIN in policies[action].sets
        assert frozenset({"fido2"}) in policies[action].sets


@pytest.mark.parametrize("action", ["retrieve", "technician"])
@pytest.mark.parametrize("table", ["", "second_person = true\n"])
def test_a_door_with_somebodys_parcel_behind_it_asks_for_a_card_unless_told_otherwise(
    action: str, table: str
) -> None:
    policy = config(f"[policy.{action}]\n{table}").policies()[action]
    assert {level(factors) for factors in policy.sets} == {3}
    told = config(f'[policy.{action}]\nsets = [["badge", "pin"]]\n').policies()[action]
    assert told.sets == (BADGE_AND_PIN,)


def test_a_table_of_its_own_says_more_than_the_short_way() -> None:
    told = config('[policy.handover]\nsets = [["badge", "pin"]]\nsecond_person = true\n')
    assert told.policies()["handover"] == Policy((BADGE_AND_PIN,), second_person=True)
    assert told.rules().handover == told.policies()["handover"]


@pytest.mark.parametrize("action", ["session", "handover"])
def test_the_short_way_still_works_and_the_rest_can_be_added(action: str) -> None:
    told = config(f'[custody]\n{action} = [["badge", "pin"]]\n[policy.{action}]\nsecond_person = true\n')
    assert told.policies()[action] == Policy((BADGE_AND_PIN,), second_person=True)


def test_a_level_takes_the_sets_below_it_away() -> None:
    policy = config("[policy.deposit]\nlevel = 3\n").policies()["deposit"]
    assert policy.at(None).sets == (frozenset({"fido2"}),)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kinds", [("badge",), ("slot",), ("static",), ("pin",), ("badge", "badge")])
def test_for_no_action_is_a_badge_or_a_lone_biometric_below_level_three_enough(
    action: str, kinds: tuple[str, ...]
) -> None:
    (mistake,) = mistakes(f"[policy.{action}]\nsets = [{list(kinds)}]\n")
    assert mistake.startswith(
        f"policy.{action}.sets[0]: expected two different factors, one of them more than a badge, "
        "or a fingerprint card, got ["
    )


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        (
            '[custody]\nsession = [["badge", "pin"]]\n[policy.session]\nsets = [["fido2"]]\n',
            "policy.session.sets: expected the sets of an action in one place, got custody.session as well",
        ),
        (
            "[policy.retrieve]\nsets = []\n",
            "policy.retrieve.sets: expected at least one set of factors, got none: nobody could ever do it",
        ),
        (
            '[policy.handover]\nsets = [["badge", "pin"]]\nlevel = 3\n',
            "policy.handover.sets: expected a set of level 3, got none above level 1",
        ),
        (
            "[policy.open]\n",
            "policy.open: expected one of the settings deposit, handover, retrieve, session, technician, "
            "got an unknown one",
        ),
        (
            "[identity]\nfresh_hours = 80.0\n",
            "identity: expected fresh_hours, grace_hours and stale_hours that rise, got 80, 72, 168",
        ),
        (
            "[identity]\ntries = 3\nlast_try = 2\n",
            "identity.last_try: expected at least tries (3), got 2",
        ),
    ],
)
def test_a_mistake_is_named(more: str, mistake: str) -> None:
    assert mistake in mistakes(more)


@pytest.mark.parametrize(
    ("setting", "least_strict", "looser"),
    [
        ("tries", "5", "6"),
        ("last_try", "50", "51"),
        ("wait", "30.0", "29.9"),
        ("pause", "300.0", "299.0"),
        ("burst", "50", "51"),
        ("stale_hours", "336.0", "336.1"),
    ],
)
def test_nothing_can_be_looser_than_was_decided(setting: str, least_strict: str, looser: str) -> None:
    config(f"[identity]\n{setting} = {least_strict}\n")
    (mistake,) = mistakes(f"[identity]\n{setting} = {looser}\n")
    assert mistake.startswith(f"identity.{setting}: expected ")


def test_what_is_stricter_reaches_the_roster() -> None:
    identity = config("[identity]\ntries = 3\nwait = 60.0\nlast_try = 10\ngrace_hours = 48.0\n").file.identity
    assert identity.limits() == Limits(tries=3, wait=60.0, last_try=10)
    assert identity.ladder().grace == 48 * 3600
