"""Fingerprint cards at the counter: what they are asked, and which of their answers opens anything."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from agent.duty import Custody
from agent.policy import Policy
from agent.workflow import Decision, FactorShown, Outcome, Verdict
from drivers.readings import AssertCard, Tone
from tests.counter import ANNA, BORIS, CLEO, RULES, SETS, Counter, tones, types
from tests.moments import moment

CARD = Policy((frozenset({"fido2"}), *SETS))
SOURCE = "/postern/acme/van-7"
RULES_WITH_CARDS = replace(RULES, session=CARD, handover=CARD, source=SOURCE)
SIGNED = {"auth_data": "YXV0aA", "signature": "c2ln"}


def counter() -> Counter:
    return Counter(RULES_WITH_CARDS)


def on_duty(*holding: str) -> Counter:
    made = counter()
    made.show("fido2", ANNA)
    for label in holding:
        made.scan(label)
    return made


def table(*offered: str) -> Counter:
    """Anna lays these of her three parcels on the table, for another driver."""
    made = on_duty("P1", "P2", "P3")
    made.control("handover:driver")
    for label in offered:
        made.scan(label)
    return made


def asked(decision: Decision[Custody]) -> AssertCard:
    (action,) = (order.action for order in decision.orders if isinstance(order.action, AssertCard))
    return action


def stake(decision: Decision[Custody]) -> tuple[str, str]:
    (entry,) = decision.entries
    return entry.data["purpose"], entry.data["transaction"]


# -- asking ---------------------------------------------------------------------------------------


def test_a_card_that_comes_is_asked_to_sign_for_this_device_and_nothing_else() -> None:
    at = counter()
    decision = at.hold_card()
    assert types(decision) == ["identity.card_asked"]
    assert tones(decision) == [("card", Tone.ASK)]
    action = asked(decision)
    assert action.rp_id == "acme.postern.invalid"
    assert 0 < action.within < RULES.login, "the absence of a finger is told before the answer is too late"
    assert at.state.asked is not None
    text = at.state.asked.client_data
    assert action.client_data_hash == sha256(text.encode()).digest()
    assert json.loads(text) == {
        "type": "postern.assert",
        "device": SOURCE,
        "reader": "card",
        "purpose": "session",
        "transaction": "",
        "challenge": "A" * 42 + "E",
    }


def test_no_two_arrivals_and_no_two_readers_are_asked_the_same() -> None:
    at = counter()
    hashes = [asked(at.hold_card(unit=unit)).client_data_hash for unit in ("card", "card", "gate")]
    elsewhere = Counter(replace(RULES_WITH_CARDS, source="/postern/acme/van-8"))
    hashes.append(asked(elsewhere.hold_card()).client_data_hash)
    assert len(set(hashes)) == 4


def test_what_was_asked_does_not_survive_a_restart() -> None:
    at = counter()
    at.hold_card()
    at.restart()
    assert at.state.asked is None


# -- sessions -------------------------------------------------------------------------------------


def test_a_fingerprint_card_alone_opens_a_session_at_level_3() -> None:
    at = counter()
    decision = at.show("fido2", ANNA)
    assert types(decision) == ["custody.session_opened"]
    assert (decision.entries[0].data["factors"], decision.entries[0].data["level"]) == (["fido2"], 3)
    assert tones(decision) == [("card", Tone.GOOD)]
    assert at.state.asked is None


def test_what_was_signed_is_kept_for_whoever_wants_to_check_it_again() -> None:
    at = counter()
    at.hold_card()
    assert at.state.asked is not None
    text = at.state.asked.client_data
    decision = at.show("fido2", ANNA, assertion=SIGNED)
    assert types(decision) == ["identity.card_asserted", "custody.session_opened"]
    assert decision.entries[0].subject == ANNA
    assert decision.entries[0].data == {"unit": "card", "client_data": text, **SIGNED}


def test_an_answer_counts_once() -> None:
    at = on_duty()
    again = at.do(FactorShown(unit="card", at=at.now, verdict=granted(BORIS)))
    assert types(again) == ["identity.refused"]
    assert again.entries[0].data["outcome"] is Outcome.UNASKED
    assert at.state.session is not None
    assert at.state.session.driver == ANNA


def granted(subject: str) -> Verdict:
    return Verdict(outcome=Outcome.GRANTED, kind="fido2", subject=subject, level=3)


@pytest.mark.parametrize("late", [RULES.login, RULES.login + 60])
def test_an_answer_that_is_too_late_opens_nothing(late: float) -> None:
    at = counter()
    at.hold_card()
    at.later(late)
    decision = at.do(FactorShown(unit="card", at=at.now, verdict=granted(ANNA)))
    assert decision.entries[-1].data["outcome"] is Outcome.UNASKED
    assert at.state.session is None


def test_an_answer_from_another_reader_or_another_boot_opens_nothing() -> None:
    for unit, now in (("gate", moment(101)), ("card", moment(101, "boot-2"))):
        at = counter()
        at.hold_card()
        decision = at.do(FactorShown(unit=unit, at=now, verdict=granted(ANNA)))
        assert decision.entries[-1].data["outcome"] is Outcome.UNASKED
        assert at.state.session is None


def test_a_card_that_comes_later_takes_the_turn_of_the_one_before() -> None:
    at = counter()
    first = asked(at.hold_card(unit="gate"))
    second = asked(at.hold_card())
    assert first.client_data_hash != second.client_data_hash
    assert at.state.asked is not None
    assert at.state.asked.unit == "card"


def test_a_card_completes_a_login_that_asks_for_more() -> None:
    both = Policy((frozenset({"badge", "fido2"}),))
    at = Counter(replace(RULES_WITH_CARDS, session=both))
    assert types(at.badge(CLEO)) == ["identity.factor_shown"]
    assert types(at.show("fido2", CLEO)) == ["custody.session_opened"]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.GRANTED])
def test_a_refused_card_sounds_bad_whatever_it_was_and_the_journal_knows_what(outcome: Outcome) -> None:
    at = counter()
    decision = at.show("fido2", ANNA, outcome, detail="signature")
    assert types(decision) == ["identity.refused"]
    assert (decision.entries[0].data["outcome"], decision.entries[0].data["detail"]) == (outcome, "signature")
    assert tones(decision) == [("card", Tone.BAD)]
    assert (at.state.session, at.state.asked) == (None, None)


def test_a_suspected_clone_is_an_alarm_and_a_refusal() -> None:
    at = counter()
    decision = at.show("fido2", ANNA, Outcome.CLONED, counters=(7, 7))
    assert types(decision) == ["identity.clone_suspected", "identity.refused"]
    alarm = decision.entries[0]
    assert (alarm.subject, alarm.data) == (ANNA, {"unit": "card", "counter_above": 7, "counter": 7})
    assert at.state.session is None


# -- handovers ------------------------------------------------------------------------------------


def test_the_receiving_driver_signs_for_exactly_the_parcels_on_the_table() -> None:
    at = table("P1", "P2")
    purpose, transaction = stake(at.hold_card())
    assert purpose == "handover"
    assert transaction
    decision = at.show("fido2", BORIS)
    assert types(decision) == ["custody.handed_over", "custody.handed_over", "custody.handover_closed"]
    assert decision.entries[0].data["to"]["factors"] == ["fido2"]


def test_other_parcels_another_giver_and_a_session_are_other_stakes() -> None:
    stakes = {stake(at.hold_card()) for at in (on_duty(), table("P1"), table("P2"), table("P1", "P2"))}
    boris = counter()
    boris.show("fido2", BORIS)
    boris.scan("P1")
    boris.control("handover:driver")
    boris.scan("P1")
    stakes.add(stake(boris.hold_card()))
    assert len(stakes) == 5


def test_a_parcel_laid_down_while_the_card_signs_was_not_signed_for() -> None:
    at = table("P1")
    at.hold_card()
    at.scan("P2")
    decision = at.show("fido2", BORIS)
    assert decision.entries[0].data["outcome"] is Outcome.UNASKED
    assert at.parcels.keys() == {"P1", "P2", "P3"}
    assert types(at.show("fido2", BORIS))[-1] == "custody.handover_closed"


def test_a_signature_for_a_session_hands_nothing_over() -> None:
    at = on_duty("P1")
    at.hold_card()
    at.control("handover:driver")
    at.scan("P1")
    decision = at.show("fido2", BORIS)
    assert decision.entries[0].data["outcome"] is Outcome.UNASKED
    assert at.parcels["P1"].offered


def test_a_signature_for_a_handover_opens_no_session() -> None:
    """The courier's own card, while another driver's is waited for."""
    at = table("P1")
    decision = at.show("fido2", ANNA)
    assert types(decision) == ["identity.refused"]
    assert decision.entries[0].data["outcome"] is Outcome.UNASKED


def test_a_handover_to_a_recipient_is_none_of_the_cards_business() -> None:
    at = on_duty("P1")
    at.control("handover:recipient")
    at.scan("P1")
    assert stake(at.hold_card()) == ("session", "")


# -- what a static token is worth beside it -------------------------------------------------------


def test_a_recorded_token_alone_begins_a_login_and_opens_nothing() -> None:
    at = Counter(RULES_WITH_CARDS)
    at.badge(CLEO)
    assert types(at.show("static", CLEO)) == ["custody.session_opened"]
    at.control("end")
    assert types(at.show("static", CLEO)) == ["identity.factor_shown"]
    at.later(RULES.login)
    assert types(at.show("static", CLEO)) == ["identity.login_lapsed", "identity.factor_shown"]
    assert at.state.session is None


def test_a_recorded_token_alone_receives_no_parcel() -> None:
    at = table("P1")
    for _ in range(3):
        assert types(at.show("static", BORIS)) == ["identity.factor_shown"]
    assert at.parcels["P1"].offered
