"""Who may do what at a locker: as the fleet's word ages, with a card, with somebody else, and in charge."""

from dataclasses import replace

import pytest

from agent.freshness import Freshness
from agent.locker.config import VISIT_S
from agent.locker.grants import Purpose
from agent.locker.turn import Known, NoOffice, Office
from agent.policy import Policy
from agent.standing import Standing
from agent.workflow import Dismissed, Outcome, Woken
from drivers.readings import CompareFinger, Tone
from tests.locker_hall import Hall

SETS = (frozenset({"fido2"}), frozenset({"badge", "pin"}), frozenset({"badge", "slot"}))
CARD = (frozenset({"fido2"}),)
FRESH, GRACE, STALE, CLOSED = (Standing(age_s=60.0, freshness=step) for step in Freshness)


def hall(standing: Standing = FRESH) -> Hall:
    made = Hall()
    policy = Policy(SETS)
    made = Hall(replace(made.rules, deposit=policy, retrieve=policy, technician=policy))
    made.standing = standing
    return made


def on_duty(at: Hall) -> tuple[str, ...]:
    return () if at.state.session is None else at.state.session.people


def refusal(at: Hall) -> str:
    reason: str = at.last("locker.refused").data["reason"]
    return reason


# -- the ladder -------------------------------------------------------------------------------------


def test_in_grace_a_courier_with_a_finger_deposits_one_parcel_at_a_time() -> None:
    at = hall(GRACE)
    at.prove("drv-1", "badge", "pin")
    assert not on_duty(at), "a PIN is for when the fleet's word is fresh"
    at.prove("drv-1", "badge", "slot")
    at.control("size", "S")
    at.scan("p1")
    at.scan("p2")
    assert refusal(at) == "one_at_a_time"
    at.wait(0.5)
    at.opens("a1")
    at.scan("p2")
    at.wait(1)
    assert [door for door, _ in at.pulses] == [1, 2]


def test_in_grace_no_second_door_opens_by_any_other_way_either() -> None:
    at = hall()
    for label in ("p1", "p2"):
        at.deposit(label)
    at.wait(7 * 86_400)
    at.standing = GRACE
    at.prove("drv-1", "badge", "slot")
    at.scan("p3")
    before = len(at.pulses)
    at.control("retrieve")
    for words in (("retrieve",), ("size", "S")):
        at.control(*words)
        assert refusal(at) == "one_at_a_time"
    at.wait(0.5)
    at.opens("a1")
    at.control("size", "S")
    at.wait(1)
    assert [door for door, _ in at.pulses[before:]] == [1, 1], "p3 was not forgotten meanwhile"


def test_everything_done_in_grace_says_so() -> None:
    at = hall(GRACE)
    at.prove("drv-1", "badge", "slot")
    assert at.last("locker.session_opened").data["freshness"] == "grace"
    fresh = hall()
    fresh.prove("drv-1", "badge", "slot")
    assert "freshness" not in fresh.last("locker.session_opened").data


def test_on_a_stale_word_two_cards_are_asked_for_and_only_what_was_announced_is_taken() -> None:
    at = hall(replace(STALE, announced=lambda label: label == "p1"))
    at.prove("drv-1", "badge", "slot")
    assert not on_duty(at)
    for subject in ("drv-1", "drv-2"):
        at.hold_card()
        at.prove(subject, "fido2")
    assert on_duty(at) == ("drv-1", "drv-2")
    at.control("size", "S")
    at.scan("p9")
    assert refusal(at) == "not_in_manifest"
    at.scan("p1")
    at.wait(1)
    assert [door for door, _ in at.pulses] == [1]


def test_when_nothing_is_known_any_more_nobody_deposits_and_recipients_still_collect() -> None:
    at = hall()
    name = at.deposit("p1")
    at.wait(61)
    at.standing = CLOSED
    at.scan("p2")
    assert at.last("locker.session_closed").data["reason"] == "outdated"
    for kinds in (("fido2",), ("badge", "slot"), ("badge", "pin")):
        at.prove("drv-1", *kinds)
    assert not on_duty(at)
    at.show("g1", parcel="p1")
    at.opens(name)
    assert at.last("locker.collected").subject == "p1"


def test_a_courier_who_is_revoked_goes_off_duty_before_anything_else() -> None:
    at = hall()
    at.prove("drv-1", "badge", "slot")
    at.control("size", "S")
    at.standing = replace(FRESH, is_revoked=lambda subject, _: subject == "drv-1")
    at.scan("p1")
    assert at.last("locker.session_closed").data["reason"] == "revoked"
    assert refusal(at) == "no_session"
    assert not at.pulses


def test_a_deposit_that_is_under_way_when_its_courier_is_revoked_is_still_recorded() -> None:
    at = hall()
    at.prove("drv-1", "badge", "slot")
    at.control("size", "S")
    at.scan("p1")
    at.wait(0.5)
    at.standing = replace(FRESH, is_revoked=lambda subject, _: subject == "drv-1")
    at.take(Woken(at=at.now))
    at.opens("a1")
    assert at.last("locker.deposited").data["by"] == "drv-1"


# -- cards, second persons, supervisors -------------------------------------------------------------


def test_a_card_signs_for_this_locker_and_opens_a_session() -> None:
    at = hall()
    decision_before = len(at.entries)
    at.hold_card()
    assert at.state.asked is not None
    assert [entry.type for entry in at.entries[decision_before:]] == ["identity.card_asked"]
    at.prove("drv-1", "fido2")
    assert at.last("locker.session_opened").data["level"] == 3


def test_a_card_that_was_asked_nothing_opens_nothing() -> None:
    at = hall()
    at.prove("drv-1", "fido2")
    assert not on_duty(at)


def test_another_courier_takes_over_the_desk() -> None:
    at = hall()
    at.prove("drv-1", "badge", "pin")
    at.scan("p1")
    at.prove("drv-2", "badge", "pin")
    assert at.last("locker.session_closed").data["reason"] == "superseded"
    assert at.state.pending is None, "what the first one has scanned is not the second one's"


def test_a_supervisor_lifts_the_wait_of_a_courier_who_is_locked_out() -> None:
    at = hall()
    at.prove("sup-1", "badge", "pin", role="supervisor")
    at.control("unlock")
    assert at.tones[-1] is Tone.ASK
    at.prove("drv-1", "badge", outcome=Outcome.LOCKED)
    assert at.last("identity.subject_unlocked").subject == "drv-1"


def test_a_courier_lifts_nobodys_wait() -> None:
    at = hall()
    at.prove("drv-1", "badge", "pin")
    at.control("unlock")
    assert refusal(at) == "not_now"


def test_a_login_begun_before_a_crash_is_asked_for_its_finger_again() -> None:
    at = hall()
    at.prove("drv-1", "badge")
    orders = at.take(Woken(at=at.now, started=True)).orders
    assert CompareFinger in [type(order.action) for order in orders]


def test_a_visit_is_over_after_ten_minutes_however_busy() -> None:
    at = hall()
    at = Hall(replace(at.rules, longest=VISIT_S))
    at.courier()
    for _ in range(6):
        at.wait(101)
        at.control("size", "S")
    assert at.last("locker.session_closed").data["reason"] == "too_long"


def test_retrieving_may_ask_for_more_than_a_deposit() -> None:
    at = hall()
    at = Hall(replace(at.rules, retrieve=Policy((frozenset({"fido2"}),))))
    at.courier()
    at.control("retrieve")
    assert refusal(at) == "not_enough_factors"


def test_retrieving_may_ask_for_a_second_person() -> None:
    at = hall()
    at = Hall(replace(at.rules, retrieve=Policy(SETS, second_person=True)))
    at.deposit("p1")
    at.wait(7 * 86_400)
    at.prove("drv-1", "badge", "pin")
    before = len(at.pulses)
    at.control("retrieve")
    assert refusal(at) == "not_enough_factors"
    assert len(at.pulses) == before


def test_a_visit_ends_when_whoever_stood_by_is_dismissed() -> None:
    at = hall()
    at = Hall(replace(at.rules, deposit=Policy(SETS, second_person=True)))
    for subject in ("drv-1", "drv-2"):
        at.prove(subject, "badge", "pin")
    assert on_duty(at) == ("drv-1", "drv-2")
    at.take(Dismissed(at=at.now, subject="drv-2", reason="erased"))
    assert at.last("locker.session_closed").data["reason"] == "erased"
    assert "drv-2" not in str(at.records)


# -- those in charge --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["away", "busy", "locked"])
def test_a_technician_opens_no_door_that_cannot_be(how: str) -> None:
    at = hall()
    at.prove("tech-1", "badge", "pin", role="technician")
    if how == "away":
        at.board_lost()
    if how == "busy":
        at.show("r1", parcel="p1", purpose=Purpose.RETURN, compartment="c1")
    at.locked_down = how == "locked"
    before = len(at.pulses)
    at.control("open", "c1")
    assert refusal(at) == "out_of_service"
    at.wait(0.1)
    assert len(at.pulses) == before or how == "busy"


@pytest.mark.parametrize("words", [("open", "c1"), ("retrieve", "a1"), ("pins", "on")])
@pytest.mark.parametrize("own", [Policy(CARD), Policy(SETS, level=3)])
def test_what_a_technician_does_asks_for_what_their_own_policy_says(
    words: tuple[str, ...], own: Policy
) -> None:
    """Couriers come on duty with a badge and a PIN here, and so does whoever else has them."""
    at = hall()
    at = Hall(replace(at.rules, technician=own))
    at.deposit("p1")
    at.state = replace(at.state, guard=replace(at.state.guard, pin_off=True))
    at.prove("tech-1", "badge", "pin", role="technician")
    before = len(at.pulses)
    at.control(*words)
    assert refusal(at) == "not_enough_factors"
    assert len(at.pulses) == before
    assert at.state.guard.pin_off
    at.hold_card()
    at.prove("tech-1", "fido2", role="technician")
    at.control(*words)
    at.wait(0.5)
    assert len(at.pulses) > before or not at.state.guard.pin_off


def test_a_technician_whom_only_their_own_policy_lets_in_stays_on_duty_in_grace() -> None:
    at = hall()
    at = Hall(replace(at.rules, deposit=Policy((frozenset({"badge", "pin"}),)), technician=Policy(CARD)))
    at.standing = GRACE
    at.hold_card()
    at.prove("tech-1", "fido2", role="technician")
    at.control("open", "c1")
    at.wait(0.5)
    assert on_duty(at) == ("tech-1",)
    assert [door for door, _ in at.pulses] == [5]


def test_a_return_to_a_compartment_that_is_taken_opens_nothing() -> None:
    at = hall()
    assert at.deposit("p1") == "a1"
    before = len(at.pulses)
    at.show("r1", parcel="back-1", purpose=Purpose.RETURN, compartment="a1")
    at.wait(1)
    assert at.last("locker.code_refused").data["reason"] == "nothing_here"
    assert len(at.pulses) == before


def test_a_locker_without_keys_takes_deposits_and_the_fleet_makes_the_codes() -> None:
    office: Office = NoOffice()
    assert isinstance(Known().office, NoOffice)
    assert office.mint("p1", "a1", 0) is None
    assert office.receipt("p1", "a1", "drv-1", Hall().now) is None
