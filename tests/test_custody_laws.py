"""What holds in custody whatever happens, in any order: found by random days at the counter."""

import copy
from dataclasses import asdict, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.custody import EXCEPTIONS, TO, Rules, Workflow
from agent.freshness import Freshness
from agent.policy import Policy
from agent.standing import ALONE, Standing
from agent.workflow import Decision, LabelRead, Outcome, Woken
from drivers.readings import Signal, Tone
from tests.counter import ANNA, BORIS, CLEO, FINGERS, RULES, SETS, Counter

ACCEPTING = {
    "custody.accepted",
    "custody.offered",
    "custody.exception_noted",
    "custody.session_opened",
    "custody.session_closed",
    "custody.handover_opened",
    "custody.handover_closed",
    "custody.handover_abandoned",
    "custody.exception_opened",
    "custody.exception_cancelled",
    "identity.subject_unlocked",
    "identity.unlock_cancelled",
}
"""What a good tone may stand for."""

STEPS_DOWN = [Standing(age_s=1.0, freshness=step) for step in Freshness]
REVOKED = Standing(is_revoked=lambda subject, _: subject == BORIS)
PEOPLE = st.sampled_from([ANNA, BORIS, CLEO])
STEPS = st.one_of(
    st.tuples(st.just("scan"), st.sampled_from(["P1", "P2", "P3"]), st.sampled_from([None, None, 1.0, 9.0])),
    st.tuples(st.just("login"), PEOPLE),
    st.tuples(st.just("badge"), PEOPLE),
    st.tuples(st.just("touch"), st.sampled_from([ANNA, BORIS])),
    st.tuples(st.just("pin"), PEOPLE),
    st.tuples(
        st.just("refused"), PEOPLE, st.sampled_from([it for it in Outcome if it is not Outcome.GRANTED])
    ),
    st.tuples(
        st.just("control"),
        st.sampled_from(
            [*(f"handover:{to}" for to in TO), "done", "cancel", "end", "locker:locker-9:a1", "?"]
        ),
    ),
    st.tuples(st.just("supervisor")),
    st.tuples(st.just("unlock")),
    st.tuples(st.just("unlock"), st.sampled_from([ANNA, BORIS])),
    st.tuples(st.just("standing"), st.sampled_from([ALONE, *STEPS_DOWN, REVOKED])),
    st.tuples(st.just("control"), st.sampled_from([f"exception:{reason}" for reason in EXCEPTIONS])),
    st.tuples(st.just("code")),
    st.tuples(st.just("wake")),
    st.tuples(st.just("later"), st.sampled_from([0.5, 20.0, 31.0, 280.0, 301.0])),
    st.tuples(st.just("reboot")),
)
BY_TWO = replace(RULES, session=Policy(SETS, second_person=True), handover=Policy(SETS, second_person=True))
HOUSES = st.sampled_from([RULES, BY_TWO])
DAYS = st.lists(STEPS, min_size=10, max_size=60)


def step(counter: Counter, action: tuple[Any, ...]) -> Decision[Any] | None:
    match action:
        case ("scan", label, again):
            return counter.scan(label, again_after=again)
        case ("login", subject):
            return counter.login(subject)
        case ("badge", subject):
            return counter.badge(subject)
        case ("touch", subject):
            return counter.touch(subject)
        case ("pin", subject):
            return counter.show("pin", subject)
        case ("refused", subject, outcome):
            return counter.show("slot", subject, outcome, FINGERS.get(subject))
        case ("control", words):
            return counter.control(words)
        case ("code",):
            return counter.code()
        case ("supervisor",):
            counter.show("badge", CLEO, role="supervisor")
            return counter.show("pin", CLEO)
        case ("unlock",):
            return counter.control("unlock")
        case ("unlock", subject):
            return counter.show("badge", subject, Outcome.LOCKED)
        case ("standing", standing):
            counter.standing = standing
        case ("wake",):
            return counter.wake()
        case ("later", seconds):
            counter.later(seconds)
        case ("reboot",):
            counter.reboot()
    return None


def holders(counter: Counter) -> dict[str, str]:
    return {label: parcel.holder for label, parcel in counter.parcels.items()}


@settings(max_examples=300, deadline=None)
@given(DAYS, HOUSES)
def test_no_parcel_comes_or_goes_or_changes_hands_without_its_entry(
    day: list[tuple[Any, ...]], rules: Rules
) -> None:
    counter = Counter(rules)
    for action in day:
        before, said = holders(counter), len(counter.said)
        step(counter, action)
        after, entries = holders(counter), counter.said[said:]
        accepted = {entry.subject for entry in entries if entry.type == "custody.accepted"}
        handed_over = {entry.subject for entry in entries if entry.type == "custody.handed_over"}
        assert after.keys() - before.keys() == accepted
        assert before.keys() - after.keys() == handed_over
        assert all(after[label] == before[label] for label in after.keys() & before.keys())
        for entry in entries:
            if entry.type == "custody.handed_over":
                assert entry.data["from"] == before[entry.subject], "only what is theirs"
        assert counter.state.held == len(counter.parcels)
        offered = any(parcel.offered for parcel in counter.parcels.values())
        assert not offered or counter.state.handover is not None


@settings(max_examples=300, deadline=None)
@given(DAYS, HOUSES)
def test_every_tone_has_its_entry_and_every_scan_one_of_both(
    day: list[tuple[Any, ...]], rules: Rules
) -> None:
    counter = Counter(rules)
    for action in day:
        decision = step(counter, action)
        if decision is None:
            continue
        tones = [order.action.tone for order in decision.orders if isinstance(order.action, Signal)]
        kinds = [entry.type for entry in decision.entries]
        assert len(tones) == (action[0] != "wake"), "one tone for whatever a person did"
        if Tone.GOOD in tones:
            assert ACCEPTING.intersection(kinds)
            assert not [kind for kind in kinds if kind.endswith("refused")]
        if Tone.BAD in tones:
            assert kinds[-1].endswith("refused")
        if action[0] == "scan":
            assert [entry.subject for entry in decision.entries if "scan" in entry.data] == [action[1]]
            assert kinds[-1] == "custody.refused" or tones == [Tone.GOOD]


@settings(max_examples=300, deadline=None)
@given(DAYS, HOUSES, st.randoms(use_true_random=False))
def test_a_restart_between_any_two_steps_changes_nothing(
    day: list[tuple[Any, ...]], rules: Rules, chance: Any
) -> None:
    steady, killed = Counter(rules), Counter(rules)
    for action in day:
        if chance.random() < 0.5:
            killed.restart()
        assert step(steady, action) == step(killed, action)
    assert (steady.state, steady.parcels) == (killed.state, killed.parcels)
    assert steady.said == killed.said


@settings(max_examples=300, deadline=None)
@given(DAYS)
def test_where_two_are_wanted_nothing_is_opened_or_received_by_one(day: list[tuple[Any, ...]]) -> None:
    counter = Counter(BY_TWO)
    for action in day:
        said = len(counter.said)
        step(counter, action)
        for entry in counter.said[said:]:
            if entry.type == "custody.session_opened":
                assert entry.data["second_person"]["ref"] != entry.subject
            if entry.type == "custody.handed_over" and entry.data["to"]["kind"] == "driver":
                assert entry.data["to"]["second_person"]["ref"] != entry.data["to"]["ref"]


@settings(max_examples=300, deadline=None)
@given(DAYS)
def test_with_whatever_happens_next_who_is_revoked_is_off_duty(day: list[tuple[Any, ...]]) -> None:
    """Nor does anybody stay who was let in with their help; half a login of theirs is gone as well."""
    counter = Counter(BY_TWO)
    for action in day:
        step(counter, action)
        if counter.standing is REVOKED:
            counter.wake()
            people = [each.people for each in (counter.state.session, counter.state.login) if each]
            assert BORIS not in {person for group in people for person in group}


@settings(max_examples=200, deadline=None)
@given(DAYS)
def test_deciding_changes_nothing_it_was_given_and_decides_the_same_again(day: list[tuple[Any, ...]]) -> None:
    counter = Counter()
    for action in day:
        state, parcels = counter.state, counter.parcels
        kept = asdict(state), copy.deepcopy(parcels)
        twin = Counter(state=state, parcels=dict(parcels), now=counter.now, standing=counter.standing)
        counter.parcels = dict(parcels)
        assert step(counter, action) == step(twin, action)
        assert (asdict(state), parcels) == kept


@settings(max_examples=200, deadline=None)
@given(DAYS)
def test_the_workflow_is_woken_no_later_than_something_expires(day: list[tuple[Any, ...]]) -> None:

    counter = Counter()
    for action in day:
        step(counter, action)
        wake_ns = Workflow(counter.rules).wake_at(counter.state)
        state = counter.state
        assert (wake_ns is None) is (state.login is None and state.session is None)
        assert state.unlocking is None or state.session is not None
    counter.later(4000)
    ends = counter.do(Woken(at=counter.now))
    assert (counter.state.login, counter.state.session, counter.state.unlocking) == (None, None, None)
    assert ends.orders == ()


def test_a_plain_accept_reads_nothing_but_its_own_parcel() -> None:
    """Five thousand parcels on board make a scan no dearer than the first."""

    class Asked(dict[str, Any]):
        def items(self) -> Any:
            raise AssertionError("looked through all parcels")

    counter = Counter()
    counter.login(ANNA)
    event = LabelRead(unit="gun", at=counter.now, label="P1", evidence={}, repeated_after=None)

    decision = Workflow(counter.rules).decide(counter.state, event, Asked())
    assert [entry.type for entry in decision.entries] == ["custody.accepted"]
