"""Custody as the fleet falls silent, and when it revokes: what goes on, what ends, what every entry tells."""

from dataclasses import replace

import pytest

from agent.custody import Rules
from agent.freshness import Freshness
from agent.policy import Policy
from agent.standing import Standing
from agent.workflow import Outcome
from drivers.readings import Tone
from tests.counter import (
    ANNA,
    BORIS,
    CLEO,
    RULES,
    SETS,
    Counter,
    fingers,
    on_duty,
    on_the_table,
    tones,
    types,
)

FRESH, GRACE, STALE, CLOSED = (Standing(age_s=60.0, freshness=step) for step in Freshness)
CARDS = replace(RULES, session=Policy((frozenset({"fido2"}), *SETS)))
PINS = replace(RULES, session=Policy((frozenset({"badge", "pin"}),)))


def at(standing: Standing) -> Counter:
    counter = Counter(CARDS)
    counter.standing = standing
    return counter


def with_cards() -> Counter:
    """Anna and, beside her, Boris, on knowledge that is stale."""
    counter = at(STALE)
    counter.show("fido2", ANNA)
    counter.show("fido2", BORIS)
    return counter


def test_on_grace_a_pin_is_not_enough_and_a_finger_is() -> None:
    counter = at(GRACE)
    counter.badge(CLEO)
    decision = counter.show("pin", CLEO)
    assert (types(decision), tones(decision)) == (["identity.factor_shown"], [("pad", Tone.ASK)])
    assert counter.state.session is None
    assert types(counter.login(ANNA)) == ["custody.session_opened"]


def test_on_grace_a_pin_beside_a_body_does_no_harm() -> None:
    counter = at(GRACE)
    counter.badge(ANNA)
    counter.show("pin", ANNA)
    assert types(counter.touch(ANNA)) == ["custody.session_opened"]


@pytest.mark.parametrize("standing", [GRACE, STALE])
def test_every_act_on_old_knowledge_is_flagged(standing: Standing) -> None:
    counter = with_cards()
    counter.standing = standing
    said = len(counter.said)
    counter.scan("P1")
    counter.scan("P1")
    counter.control("exception:damaged")
    counter.scan("P1")
    counter.control("handover:recipient")
    counter.scan("P1")
    counter.code()
    counter.show("badge", None, Outcome.UNKNOWN)
    counter.control("end")
    counter.scan("P2")
    entries = counter.said[said:]
    assert len(entries) >= 10
    assert {entry.data.get("freshness") for entry in entries} == {standing.freshness}


@pytest.mark.parametrize("standing", [FRESH, Standing()])
def test_on_fresh_knowledge_and_without_a_fleet_nothing_is_flagged(standing: Standing) -> None:
    counter = at(standing)
    counter.login(CLEO)
    counter.scan("P1")
    assert [entry for entry in counter.said if "freshness" in entry.data] == []


def test_a_session_that_could_not_be_opened_any_more_does_not_go_on() -> None:
    counter = at(FRESH)
    counter.login(CLEO)
    counter.scan("P1")
    counter.standing = GRACE
    decision = counter.scan("P2")
    assert types(decision) == ["custody.session_closed", "custody.refused"]
    assert [entry.data["reason"] for entry in decision.entries] == ["outdated", "no_session"]
    assert counter.parcels.keys() == {"P1"}


def test_a_session_that_could_still_be_opened_goes_on() -> None:
    counter = at(FRESH)
    counter.login(ANNA)
    counter.standing = GRACE
    assert types(counter.scan("P1")) == ["custody.accepted"]
    counter.standing = STALE
    assert types(counter.scan("P2")) == ["custody.session_closed", "custody.refused"]


def test_on_stale_knowledge_a_card_alone_is_half() -> None:
    counter = at(STALE)
    assert types(counter.show("fido2", ANNA)) == ["identity.second_person_awaited"]
    assert counter.state.session is None
    assert types(counter.show("fido2", BORIS)) == ["custody.session_opened"]


def test_on_stale_knowledge_no_finger_is_asked_for_that_would_not_do() -> None:
    assert fingers(at(STALE).badge(ANNA)) == []


def test_on_stale_knowledge_only_what_was_announced_is_taken() -> None:
    counter = with_cards()
    counter.standing = replace(STALE, announced=lambda label: label == "P1")
    assert types(counter.scan("P1")) == ["custody.accepted"]
    decision = counter.scan("P2")
    assert (types(decision), tones(decision)) == (["custody.refused"], [("gun", Tone.BAD)])
    assert decision.entries[0].data["reason"] == "not_in_manifest"
    counter.control("handover:recipient")
    assert types(counter.scan("P1")) == ["custody.offered"], "what is on board may leave"


def test_without_a_manifest_nobody_can_say_what_was_announced() -> None:
    assert types(with_cards().scan("P9")) == ["custody.accepted"]


@pytest.mark.parametrize("standing", [FRESH, GRACE, Standing()])
def test_before_that_a_parcel_nobody_announced_is_taken(standing: Standing) -> None:
    counter = at(replace(standing, announced=lambda _: False))
    counter.login(ANNA)
    assert types(counter.scan("P9")) == ["custody.accepted"]


@pytest.mark.parametrize(
    ("standing", "rules"),
    [(CLOSED, CARDS), (STALE, RULES), (GRACE, replace(RULES, session=Policy((SETS[1],))))],
)
def test_where_nobody_can_come_on_duty_the_right_factors_are_refused_like_wrong_ones(
    standing: Standing, rules: Rules
) -> None:
    counter = Counter(rules)
    counter.standing = standing
    right = counter.show("badge", ANNA)
    wrong = counter.show("badge", None, Outcome.UNKNOWN)
    assert right.orders == wrong.orders
    assert [entry.data["outcome"] for entry in (*right.entries, *wrong.entries)] == ["outdated", "unknown"]
    assert counter.state.login is None


def test_once_closed_every_scan_is_still_remembered() -> None:
    counter = with_cards()
    counter.scan("P1")
    counter.standing = CLOSED
    first, second = counter.scan("P2"), counter.control("handover:recipient")
    assert types(first) == ["custody.session_closed", "custody.refused"]
    assert first.entries[1].data["scan"]
    assert types(second) == ["custody.control_refused"]
    assert counter.parcels.keys() == {"P1"}, "what is on board stays on the record"


def test_a_handover_to_a_driver_asks_them_what_old_knowledge_asks() -> None:
    counter = on_the_table("driver", "P1")
    counter.rules = replace(CARDS, handover=Policy(SETS))
    counter.standing = GRACE
    counter.badge(CLEO)
    assert types(counter.show("pin", CLEO)) == ["identity.factor_shown"]
    assert types(counter.login(BORIS)) == ["custody.handed_over", "custody.handover_closed"]


# -- revocation -----------------------------------------------------------------------------------


def revoking(subject: str) -> Standing:
    return Standing(is_revoked=lambda who, _: who == subject)


def test_who_is_revoked_is_off_duty_at_once() -> None:
    counter = on_duty(ANNA, holding=("P1",))
    counter.standing = revoking(ANNA)
    decision = counter.wake()
    assert types(decision) == ["custody.session_closed"]
    assert decision.entries[0].data == {"reason": "revoked", "held": 1, "handover_open": False}
    assert decision.orders == ()


def test_who_is_revoked_takes_nothing_more_even_with_nobody_awake_to_tell() -> None:
    counter = on_duty(ANNA)
    counter.standing = revoking(ANNA)
    assert types(counter.scan("P1")) == ["custody.session_closed", "custody.refused"]


def test_another_driver_stays_on_duty() -> None:
    counter = on_duty(ANNA)
    counter.standing = revoking(BORIS)
    assert types(counter.wake()) == []
    assert types(counter.scan("P1")) == ["custody.accepted"]


def test_who_is_revoked_half_way_has_begun_nothing() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.standing = revoking(ANNA)
    decision = counter.wake()
    assert (types(decision), decision.entries[0].data["reason"]) == (["identity.login_lapsed"], "revoked")
