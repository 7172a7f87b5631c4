"""Two people for one action: who counts, in what order, and what is remembered of both."""

from dataclasses import replace

import pytest

from agent.freshness import Freshness
from agent.policy import Policy
from agent.session import Session
from agent.standing import Standing
from agent.workflow import Dismissed, Outcome
from drivers.readings import Tone
from tests.counter import (
    ANNA,
    BORIS,
    CLEO,
    FINGERS,
    RULES,
    SETS,
    Counter,
    fingers,
    on_the_table,
    tones,
    types,
)

TWO = Policy(SETS, second_person=True)
PAIR = replace(RULES, session=TWO)
GOOD, BAD, ASK = Tone.GOOD, Tone.BAD, Tone.ASK


def first_done() -> Counter:
    """Anna has proved herself, and somebody else is to come."""
    counter = Counter(PAIR)
    counter.login(ANNA)
    return counter


def session(counter: Counter) -> Session:
    assert counter.state.session is not None
    return counter.state.session


def test_one_person_alone_opens_nothing() -> None:
    counter = Counter(PAIR)
    counter.badge(ANNA)
    decision = counter.touch(ANNA)
    assert (types(decision), tones(decision)) == (["identity.second_person_awaited"], [("finger", ASK)])
    assert decision.entries[0].subject == ANNA
    assert decision.entries[0].data == {
        "unit": "finger",
        "action": "session",
        "factors": ["badge", "slot"],
    }
    assert counter.state.session is None


def test_the_second_person_opens_the_session_of_the_first() -> None:
    counter = first_done()
    counter.badge(CLEO)
    decision = counter.show("pin", CLEO)
    assert (types(decision), tones(decision)) == (["custody.session_opened"], [("pad", GOOD)])
    assert decision.entries[0].subject == ANNA
    assert decision.entries[0].data["factors"] == ["badge", "slot"]
    assert decision.entries[0].data["second_person"] == {"ref": CLEO, "factors": ["badge", "pin"]}
    assert (session(counter).driver, counter.state.login) == (ANNA, None)


def test_nobody_is_their_own_second_person() -> None:
    counter = first_done()
    for kind in ("badge", "static", "pin"):
        decision = counter.show(kind, ANNA)
        assert (types(decision), [tone for _, tone in tones(decision)]) == (["identity.factor_shown"], [ASK])
        assert fingers(decision) == [], "she has done her part"
    assert counter.state.session is None
    assert types(counter.login(BORIS)) == ["custody.session_opened"]


def test_the_second_person_needs_a_set_of_their_own() -> None:
    counter = first_done()
    assert types(counter.badge(BORIS)) == ["identity.factor_shown"]
    assert counter.state.session is None
    counter.badge(CLEO)
    assert types(counter.show("static", BORIS)) == ["identity.factor_shown"], "two halves are no whole"
    assert counter.state.session is None


def test_the_finger_of_the_second_person_is_asked_for() -> None:
    ((module, action),) = fingers(first_done().badge(BORIS))
    assert (module, action.slot) == FINGERS[BORIS]


def test_a_wrong_second_finger_may_be_followed_by_the_right_one() -> None:
    counter = first_done()
    counter.badge(BORIS)
    counter.show("slot", BORIS, Outcome.MISMATCH, FINGERS[BORIS])
    assert types(counter.touch(BORIS)) == ["custody.session_opened"]


def test_the_second_person_has_the_time_of_a_login() -> None:
    counter = first_done()
    counter.later(29)
    counter.badge(BORIS)
    counter.later(29)
    assert types(counter.touch(BORIS)) == ["custody.session_opened"]
    late = first_done()
    late.later(30)
    assert types(late.badge(BORIS)) == ["identity.login_lapsed", "identity.factor_shown"]
    assert types(late.touch(BORIS)) == ["identity.second_person_awaited"], "now he is the first"


def test_a_restart_between_the_two_changes_nothing() -> None:
    counter = first_done()
    counter.restart()
    assert tones(counter.wake(started=True)) == [("finger", ASK)]
    assert types(counter.login(BORIS)) == ["custody.session_opened"]
    counter.restart()
    assert session(counter).second is not None
    assert session(counter).driver == ANNA


def test_a_parcel_handed_over_before_two_names_both() -> None:
    counter = on_the_table("driver", "P1")
    counter.rules = replace(RULES, handover=TWO)
    assert types(counter.login(BORIS)) == ["identity.second_person_awaited"]
    decision = counter.login(CLEO)
    assert types(decision) == ["custody.handed_over", "custody.handover_closed"]
    assert [entry.data["to"] for entry in decision.entries] == [
        {
            "kind": "driver",
            "ref": BORIS,
            "factors": ["badge", "slot"],
            "second_person": {"ref": CLEO, "factors": ["badge", "pin"]},
        }
    ] * 2


def test_who_gives_may_stand_by_who_receives() -> None:
    counter = on_the_table("driver", "P1")
    counter.rules = replace(RULES, handover=TWO)
    counter.login(BORIS)
    assert types(counter.login(ANNA)) == ["custody.handed_over", "custody.handover_closed"]
    assert session(counter).driver == ANNA


def test_who_proved_themselves_for_a_handover_is_no_first_person_of_a_session() -> None:
    counter = on_the_table("driver", "P1")
    counter.rules = replace(RULES, session=TWO, handover=TWO)
    counter.login(BORIS)
    counter.control("end")
    assert types(counter.badge(CLEO)) == ["identity.factor_shown"]
    assert types(counter.show("pin", CLEO)) == ["identity.second_person_awaited"]
    assert counter.state.session is None


@pytest.mark.parametrize("revoked", [ANNA, BORIS])
def test_a_session_ends_when_either_of_the_two_is_revoked(revoked: str) -> None:
    counter = first_done()
    counter.login(BORIS)
    counter.standing = Standing(is_revoked=lambda subject, _: subject == revoked)
    decision = counter.wake()
    assert types(decision) == ["custody.session_closed"]
    assert decision.entries[0].data["reason"] == "revoked"


def test_a_first_person_who_is_revoked_meanwhile_does_not_count() -> None:
    counter = first_done()
    counter.badge(BORIS)
    counter.standing = Standing(is_revoked=lambda subject, _: subject == ANNA)
    decision = counter.wake()
    assert (types(decision), decision.entries[0].data["reason"]) == (["identity.login_lapsed"], "revoked")
    assert types(counter.login(BORIS)) == ["identity.second_person_awaited"]


@pytest.mark.parametrize("subject", [ANNA, BORIS])
def test_whoever_of_the_two_is_dismissed_the_login_is_over(subject: str) -> None:
    counter = first_done()
    counter.badge(BORIS)
    counter.do(Dismissed(at=counter.now, subject=subject, reason="wiped"))
    assert counter.state.login is None


@pytest.mark.parametrize("subject", [ANNA, BORIS])
def test_whoever_of_the_two_is_dismissed_the_session_is_over(subject: str) -> None:
    counter = first_done()
    counter.login(BORIS)
    decision = counter.do(Dismissed(at=counter.now, subject=subject, reason="wiped"))
    assert (types(decision), counter.state.session) == (["custody.session_closed"], None)


def test_on_stale_knowledge_both_need_a_card() -> None:
    counter = Counter(replace(RULES, session=Policy((frozenset({"fido2"}), *SETS))))
    counter.standing = Standing(age_s=300_000.0, freshness=Freshness.STALE)
    assert types(counter.show("fido2", ANNA)) == ["identity.second_person_awaited"]
    counter.badge(BORIS)
    assert types(counter.touch(BORIS)) == ["identity.factor_shown"]
    decision = counter.show("fido2", BORIS)
    assert types(decision) == ["custody.session_opened"]
    assert decision.entries[0].data["freshness"] == "stale"
