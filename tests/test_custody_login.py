"""Who may begin: factors, sessions, and how both end. What sounds is the same whatever the reason."""

from dataclasses import replace

import pytest

from agent.custody import Workflow
from agent.duty import Custody
from agent.policy import Policy
from agent.workflow import Outcome, Verdict
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
    on_duty,
    on_the_table,
    tones,
    types,
)

GOOD, BAD, ASK = Tone.GOOD, Tone.BAD, Tone.ASK


# -- logging in -----------------------------------------------------------------------------------


def test_a_badge_asks_for_the_finger_of_its_own_slot() -> None:
    decision = Counter().badge(ANNA)
    assert types(decision) == ["identity.factor_shown"]
    assert tones(decision) == [("badges", ASK)]
    ((module, action),) = fingers(decision)
    assert (module, action.slot) == FINGERS[ANNA]
    assert 0 < action.within < RULES.login, "its absence is told before the login lapses"


def test_a_badge_without_a_template_asks_by_tone_alone() -> None:
    decision = Counter().badge(CLEO)
    assert (tones(decision), fingers(decision)) == ([("badges", ASK)], [])


def test_a_finger_is_not_asked_where_no_policy_wants_one() -> None:
    rules = replace(RULES, session=Policy((frozenset({"badge", "pin"}),)))
    assert fingers(Counter(rules).badge(ANNA)) == []


@pytest.mark.parametrize(
    ("order", "unit"),
    [
        (("badge", "slot"), "finger"),
        (("badge", "pin"), "pad"),
        (("badge", "static"), "terminal"),
        (("static", "badge"), "badges"),
    ],
)
def test_a_session_opens_when_a_set_of_the_policy_is_complete(order: tuple[str, str], unit: str) -> None:
    counter = Counter()
    _, decision = [
        counter.show(kind, ANNA, finger=FINGERS[ANNA] if kind in ("badge", "slot") else None)
        for kind in order
    ]
    assert types(decision) == ["custody.session_opened"]
    assert tones(decision) == [(unit, GOOD)]
    assert counter.state.login is None
    assert counter.state.session is not None
    assert counter.state.session.driver == ANNA
    data = decision.entries[0].data
    assert (data["factors"], data["level"], data["knowledge_age_s"]) == (list(order), 1, 60.0)


def test_a_badge_shown_twice_is_one_factor_and_asks_again() -> None:
    counter = Counter()
    counter.badge(ANNA)
    decision = counter.badge(ANNA)
    assert counter.state.login is not None
    assert counter.state.login.kinds == ("badge",)
    assert len(fingers(decision)) == 1


def test_factors_of_two_people_are_never_added_up() -> None:
    counter = Counter()
    counter.badge(ANNA)
    assert types(counter.show("static", BORIS)) == ["identity.factor_shown"]
    assert counter.state.login is not None
    assert (counter.state.login.subject, counter.state.login.kinds) == (BORIS, ("static",))
    assert counter.state.session is None


def test_a_finger_asked_for_another_badge_opens_nothing() -> None:
    """Anna shows her badge, then a copy of Boris's, and lays the finger that the module still waits for."""
    counter = Counter()
    counter.badge(ANNA)
    counter.badge(BORIS)
    decision = counter.show("slot", BORIS, finger=FINGERS[ANNA])
    assert types(decision) == ["identity.refused"]
    assert decision.entries[0].data["outcome"] is Outcome.UNASKED
    assert tones(decision) == [("finger", BAD)]
    assert counter.state.session is None


def test_a_finger_without_a_badge_opens_nothing_and_begins_nothing() -> None:
    counter = Counter()
    assert types(counter.touch(ANNA)) == ["identity.refused"]
    assert counter.state == Custody()


REFUSALS = [
    (Outcome.UNKNOWN, None),
    (Outcome.REVOKED, ANNA),
    (Outcome.EXPIRED, ANNA),
    (Outcome.LOCKED, ANNA),
    (Outcome.PAUSED, None),
    (Outcome.MISMATCH, ANNA),
]


def test_every_refusal_answers_alike_at_the_reader_and_tells_the_journal_the_difference() -> None:
    decisions = [Counter().show("badge", subject, outcome) for outcome, subject in REFUSALS]
    assert {decision.orders for decision in decisions} == {decisions[0].orders}
    assert tones(decisions[0]) == [("badges", BAD)]
    assert [types(decision) for decision in decisions] == [["identity.refused"]] * len(REFUSALS)
    assert [decision.entries[0].data["outcome"] for decision in decisions] == [it for it, _ in REFUSALS]
    assert [decision.entries[0].subject for decision in decisions] == [it or "badges" for _, it in REFUSALS]


@pytest.mark.parametrize("outcome", [Outcome.MISMATCH, Outcome.NO_TRY, Outcome.LOCKED])
def test_a_wrong_or_missing_finger_is_refused_and_the_login_waits_for_another_factor(
    outcome: Outcome,
) -> None:
    counter = Counter()
    counter.badge(ANNA)
    decision = counter.show("slot", ANNA, outcome, FINGERS[ANNA])
    assert (types(decision), tones(decision)) == (["identity.refused"], [("finger", BAD)])
    assert types(counter.show("pin", ANNA)) == ["custody.session_opened"]


def test_after_a_wrong_finger_the_module_is_asked_once_more_for_what_is_left_of_the_login() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.later(10.0)
    ((module, action),) = fingers(counter.show("slot", ANNA, Outcome.MISMATCH, FINGERS[ANNA]))
    assert (module, action.slot) == FINGERS[ANNA]
    assert 0 < action.within < RULES.login - 10.0


def test_a_finger_that_did_not_come_is_not_asked_again() -> None:
    counter = Counter()
    counter.badge(ANNA)
    assert fingers(counter.show("slot", ANNA, Outcome.NO_TRY, FINGERS[ANNA])) == []


@pytest.mark.parametrize(
    ("outcome", "subject"),
    [
        (Outcome.LOCKED, ANNA),
        (Outcome.DISABLED, ANNA),
        (Outcome.REVOKED, ANNA),
        (Outcome.DOUBTED, ANNA),
        (Outcome.PAUSED, None),
    ],
)
def test_a_finger_that_may_not_try_is_answered_like_a_wrong_one(
    outcome: Outcome, subject: str | None
) -> None:
    wrong, barred = Counter(), Counter()
    for counter in (wrong, barred):
        counter.badge(ANNA)
    shown = barred.show("slot", subject, outcome, FINGERS[ANNA])
    assert shown.orders == wrong.show("slot", ANNA, Outcome.MISMATCH, FINGERS[ANNA]).orders
    assert len(fingers(shown)) == 1


def test_a_wrong_finger_of_a_login_that_is_over_is_not_asked_again() -> None:
    assert fingers(Counter().show("slot", ANNA, Outcome.MISMATCH, FINGERS[ANNA])) == []
    boris = Counter()
    boris.badge(BORIS)
    assert fingers(boris.show("slot", ANNA, Outcome.MISMATCH, FINGERS[ANNA])) == []


def test_a_verdict_that_names_nobody_grants_nothing() -> None:
    assert types(Counter().show("badge", None)) == ["identity.refused"]


def test_the_failure_that_silences_a_reader_says_so() -> None:
    decision = Counter().show("badge", None, Outcome.UNKNOWN, reader_paused=True)
    assert decision.entries[0].data["reader_paused"] is True
    assert "reader_paused" not in Counter().show("badge", None, Outcome.UNKNOWN).entries[0].data


def test_a_login_that_nobody_completes_lapses_and_is_told() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.later(29.9)
    assert types(counter.wake()) == []
    counter.later(0.1)
    decision = counter.wake()
    assert types(decision) == ["identity.login_lapsed"]
    assert decision.entries[0].subject == ANNA
    assert counter.state.login is None


def test_a_finger_that_comes_when_its_login_has_lapsed_is_refused() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.later(30)
    assert types(counter.touch(ANNA)) == ["identity.login_lapsed", "identity.refused"]


def test_a_new_factor_gives_the_login_its_time_again() -> None:
    counter = Counter(replace(RULES, session=Policy((frozenset({"badge", "static", "pin"}),))))
    counter.badge(ANNA)
    counter.later(20)
    counter.show("static", ANNA)
    counter.later(20)
    assert types(counter.show("pin", ANNA)) == ["custody.session_opened"]


def test_a_login_cut_short_by_a_restart_asks_again_for_the_time_that_is_left() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.later(10)
    counter.restart()
    decision = counter.wake(started=True)
    ((module, action),) = fingers(decision)
    assert (module, action.slot) == FINGERS[ANNA]
    assert action.within == pytest.approx(18)
    assert types(decision) == []
    assert types(counter.touch(ANNA)) == ["custody.session_opened"]


def test_a_login_does_not_outlive_its_boot() -> None:
    counter = Counter()
    counter.badge(ANNA)
    counter.reboot()
    assert types(counter.wake(started=True)) == ["identity.login_lapsed"]


def test_a_start_with_nothing_half_done_does_nothing() -> None:
    decision = Counter().wake(started=True)
    assert (decision.entries, decision.orders, decision.state) == ((), (), Custody())


# -- sessions -------------------------------------------------------------------------------------


def test_a_session_ends_after_idle_time() -> None:
    counter = on_duty()
    counter.later(299.9)
    assert types(counter.wake()) == []
    counter.later(0.1)
    decision = counter.wake()
    assert types(decision) == ["custody.session_closed"]
    assert decision.entries[0].data == {"reason": "idle", "held": 0, "handover_open": False}


def test_work_puts_the_end_off_but_never_beyond_the_longest() -> None:
    counter = on_duty()
    scans = 0
    while counter.state.session is not None:
        counter.later(10)
        scans += 1
        counter.scan(f"P{scans}")
    assert scans * 10 == RULES.longest
    assert [(entry.type, entry.data["reason"]) for entry in counter.said[-2:]] == [
        ("custody.session_closed", "too_long"),
        ("custody.refused", "no_session"),
    ]


@pytest.mark.parametrize("gap_s", [1.0, 15.0, 29.0, 31.0, 100.0])
def test_after_the_last_work_a_session_ends_at_idle_time_or_a_tenth_sooner(gap_s: float) -> None:
    counter = on_duty()
    for label in ("P1", "P2", "P3", "P4"):
        counter.later(gap_s)
        counter.scan(label)
    worked_until = counter.now.mono_ns
    wake_ns = Workflow(RULES).wake_at(counter.state)
    assert wake_ns is not None
    assert RULES.idle * 0.9e9 < wake_ns - worked_until <= RULES.idle * 1e9


@pytest.mark.parametrize("seconds", [29.0, 31.0])
def test_few_scans_change_the_state_that_is_written_down(seconds: float) -> None:
    counter = on_duty()
    before = counter.state.dump()
    counter.later(seconds)
    counter.scan("P1")
    assert (counter.state.dump() == before) is (seconds < RULES.idle / 10)


def test_a_refused_badge_keeps_no_session_alive() -> None:
    counter = on_duty()
    counter.later(200)
    counter.show("badge", None, Outcome.UNKNOWN)
    counter.later(100)
    assert types(counter.wake()) == ["custody.session_closed"]


def test_a_session_ends_with_a_reboot_and_the_handover_waits_for_its_driver() -> None:
    counter = on_the_table("recipient", "P1")
    counter.reboot()
    decision = counter.wake(started=True)
    assert types(decision) == ["custody.session_closed"]
    assert decision.entries[0].data == {"reason": "reboot", "held": 3, "handover_open": True}
    opened = counter.login(ANNA)
    assert opened.entries[0].data["resumed"] is True
    assert types(counter.control("done")) == ["custody.handed_over", "custody.handover_closed"]


def test_another_driver_supersedes_the_one_on_duty() -> None:
    counter = on_duty(ANNA, holding=("P1",))
    decision = counter.login(BORIS)
    assert types(decision) == ["custody.session_closed", "custody.session_opened"]
    assert decision.entries[0].data["reason"] == "superseded"
    assert counter.parcels["P1"].holder == ANNA


def test_another_driver_who_takes_over_clears_the_table() -> None:
    counter = on_the_table("recipient", "P1", "P2")
    decision = counter.login(BORIS)
    assert types(decision) == [
        "custody.session_closed",
        "custody.handover_abandoned",
        "custody.session_opened",
    ]
    assert decision.entries[1].data == {"to": "recipient", "reason": "superseded", "count": 2}
    assert counter.state.handover is None
    assert [(parcel.holder, parcel.offered) for parcel in counter.parcels.values()] == [(ANNA, False)] * 3


def test_the_same_driver_renews_the_session() -> None:
    counter = on_duty(ANNA, holding=("P1",))
    counter.later(250)
    decision = counter.login(ANNA)
    assert types(decision) == ["custody.session_opened"]
    assert decision.entries[0].data["renewed"] is True
    assert decision.entries[0].data["held"] == 1
    assert Workflow(RULES).wake_at(counter.state) == counter.now.mono_ns + 300 * 10**9


def test_the_session_that_ends_under_a_login_leaves_the_login_alone() -> None:
    counter = on_duty(ANNA)
    counter.later(299)
    counter.badge(BORIS)
    counter.later(2)
    assert types(counter.touch(BORIS)) == ["custody.session_closed", "custody.session_opened"]


def test_the_end_of_the_sheet_ends_the_session() -> None:
    counter = on_duty(ANNA, holding=("P1",))
    decision = counter.control("end")
    assert (types(decision), tones(decision)) == (["custody.session_closed"], [("gun", GOOD)])
    assert decision.entries[0].data == {"reason": "ended", "held": 1, "handover_open": False}


def test_the_workflow_wakes_for_whatever_expires_first() -> None:
    workflow = Workflow(RULES)
    assert workflow.wake_at(Custody()) is None
    counter = Counter()
    counter.badge(ANNA)
    assert workflow.wake_at(counter.state) == 130 * 10**9
    counter.touch(ANNA)
    assert workflow.wake_at(counter.state) == 400 * 10**9
    counter.badge(BORIS)
    assert workflow.wake_at(counter.state) == 130 * 10**9


def test_a_login_awaits_no_finger_where_none_is_known() -> None:
    counter = Counter()
    counter.badge(CLEO)
    assert counter.state.login is not None
    assert not counter.state.login.awaits(Verdict(outcome=Outcome.GRANTED, kind="slot", subject=CLEO))


def test_the_policy_of_a_session_is_the_only_way_in() -> None:
    for sets in SETS:
        counter = Counter(replace(RULES, session=Policy((sets,))))
        opened = types(counter.login(CLEO)) == ["custody.session_opened"]
        assert opened is (sets == {"badge", "pin"})
