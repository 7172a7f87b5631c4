"""Every transition of the courier's workflow: what is remembered, what sounds, who holds what."""

from dataclasses import replace

import pytest

from agent.custody import EXCEPTIONS, Rules
from agent.duty import HELD_LIMIT, Custody
from agent.policy import Policy
from agent.workflow import Lane, Parcel
from drivers.readings import Tone
from tests.counter import (
    ANNA,
    BORIS,
    CLEO,
    RULES,
    Counter,
    on_duty,
    on_the_table,
    tones,
    types,
)

GOOD, BAD, ASK = Tone.GOOD, Tone.BAD, Tone.ASK


# -- scans ----------------------------------------------------------------------------------------


def test_a_scan_is_accepted_into_the_custody_of_who_is_on_duty() -> None:
    counter = on_duty()
    decision = counter.scan("P1")
    assert (types(decision), tones(decision)) == (["custody.accepted"], [("gun", GOOD)])
    entry = decision.entries[0]
    assert (entry.subject, entry.lane, entry.data["by"]) == ("P1", Lane.CUSTODY, ANNA)
    assert entry.data["scan"] == {"raw": "UjE=", "symbology": "]C0"}
    assert counter.parcels == {"P1": Parcel(holder=ANNA, since="2026-11-24T12:01:40.000000Z")}
    assert counter.state.held == 1


def refused(name: str) -> tuple[Counter, str]:
    """A counter where the next scan of this label is refused."""
    match name:
        case "no_session":
            return Counter(), "P1"
        case "already_held":
            return on_duty(holding=("P1",)), "P1"
        case "held_by_other":
            counter = on_duty(holding=("P1",))
            counter.login(BORIS)
            return counter, "P1"
        case "held_by_other, offered":
            counter = on_duty(holding=("P1",))
            counter.login(BORIS)
            counter.control("handover:recipient")
            return counter, "P1"
        case "not_held":
            return on_the_table("recipient"), "P9"
        case "already_offered":
            return on_the_table("recipient", "P1"), "P1"
        case _:
            counter = on_duty()
            counter.state = replace(counter.state, held=HELD_LIMIT)
            return counter, "P1"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("no_session", {}),
        ("already_held", {"holder": ANNA}),
        ("held_by_other", {"holder": ANNA}),
        ("held_by_other, offered", {"holder": ANNA}),
        ("not_held", {}),
        ("already_offered", {}),
        ("too_many", {"limit": HELD_LIMIT}),
    ],
)
def test_a_scan_that_cannot_be_is_refused_and_says_why(name: str, more: dict[str, object]) -> None:
    counter, label = refused(name)
    before = dict(counter.parcels), counter.state.held
    decision = counter.scan(label)
    assert (types(decision), tones(decision)) == (["custody.refused"], [("gun", BAD)])
    data = decision.entries[0].data
    assert data == {"unit": "gun", "reason": name.split(",")[0], **more, "scan": data["scan"]}
    assert (counter.parcels, counter.state.held) == before


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (None, "custody.accepted"),
        (0.0, "custody.refused"),
        (2.999, "custody.refused"),
        (3.0, "custody.accepted"),
    ],
)
def test_the_same_label_within_the_window_is_a_duplicate(after: float | None, kind: str) -> None:
    decision = on_duty().scan("P1", again_after=after)
    assert types(decision) == [kind]
    if kind == "custody.refused":
        assert tones(decision) == [("gun", BAD)]
        assert decision.entries[0].data["reason"] == "duplicate"
        assert decision.entries[0].data["after_s"] == after


def test_a_window_of_nothing_refuses_nothing() -> None:
    assert types(on_duty(rules=replace(RULES, window=0.0)).scan("P1", again_after=0.0)) == [
        "custody.accepted"
    ]


def test_an_unattended_gate_records_what_it_sees_and_takes_nothing() -> None:
    counter = Counter(Rules(session=Policy(()), handover=Policy(()), attended=False))
    decision = counter.scan("P1")
    assert (types(decision), tones(decision)) == (["custody.seen"], [("gun", GOOD)])
    assert counter.parcels == {}
    assert types(counter.scan("P1", again_after=1.0)) == ["custody.refused"]


# -- handing over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["driver", "recipient", "locker"])
def test_a_handover_opens_and_parcels_are_laid_on_the_table(to: str) -> None:
    counter = on_duty(ANNA, holding=("P1",))
    opened = counter.control(f"handover:{to}")
    assert (types(opened), tones(opened)) == (["custody.handover_opened"], [("gun", GOOD)])
    offered = counter.scan("P1")
    assert (types(offered), tones(offered)) == (["custody.offered"], [("gun", GOOD)])
    assert offered.entries[0].data["to"] == to
    assert counter.parcels["P1"].offered
    assert counter.state.held == 1, "it is still here"


def closed(to: str, *labels: str) -> tuple[Counter, str, dict[str, object]]:
    """A handover closed the way its kind is closed; where the tone sounds and what proves it."""
    counter = on_the_table(to.split(",")[0], *labels)
    match to:
        case "driver":
            counter.login(CLEO)
            return counter, "pad", {"kind": "driver", "ref": CLEO, "factors": ["badge", "pin"]}
        case "recipient":
            counter.code("digest")
            return counter, "pad", {"kind": "recipient", "evidence": "code", "code_digest": "digest"}
        case "recipient, by statement":
            counter.control("done")
            return counter, "gun", {"kind": "recipient", "evidence": "statement", "by": ANNA}
        case _:
            counter.control("locker:locker-9:a12")
            return counter, "gun", {"kind": "locker", "ref": "locker-9", "door": "a12"}


@pytest.mark.parametrize("to", ["driver", "recipient", "recipient, by statement", "locker"])
def test_a_handover_closes_with_an_entry_for_each_parcel_and_one_of_its_own(to: str) -> None:
    counter, unit, proof = closed(to, "P1", "P3")
    *handed_over, end = counter.said[-3:]
    assert [(entry.type, entry.subject) for entry in handed_over] == [
        ("custody.handed_over", "P1"),
        ("custody.handed_over", "P3"),
    ]
    assert [entry.data for entry in handed_over] == [{"unit": unit, "from": ANNA, "to": proof, "of": 2}] * 2
    assert (end.type, end.subject) == ("custody.handover_closed", ANNA)
    assert end.data == {"unit": unit, "to": proof, "count": 2}
    assert list(counter.parcels) == ["P2"]
    assert (counter.state.held, counter.state.handover) == (1, None)
    assert counter.asked[-1].unit == unit


@pytest.mark.parametrize("to", ["driver", "recipient", "recipient, by statement", "locker"])
def test_an_empty_table_cannot_be_handed_over(to: str) -> None:
    counter, unit, _ = closed(to)
    assert counter.said[-1].type == "custody.handover_refused"
    assert counter.said[-1].data == {"unit": unit, "reason": "nothing_offered"}
    assert counter.state.handover is not None
    assert counter.state.held == 3


def test_the_receiving_driver_needs_what_the_handover_policy_wants() -> None:
    counter = on_the_table("driver", "P1")
    counter.rules = replace(RULES, handover=Policy((frozenset({"badge", "static"}),)))
    counter.badge(CLEO)
    assert types(counter.show("pin", CLEO)) == ["identity.factor_shown"]
    assert types(counter.show("static", CLEO)) == ["custody.handed_over", "custody.handover_closed"]
    assert counter.state.session is not None
    assert counter.state.session.driver == ANNA, "receiving is no session"


def test_the_driver_on_duty_cannot_receive_from_themselves() -> None:
    counter = on_the_table("driver", "P1")
    assert types(counter.login(ANNA)) == ["custody.session_opened"]
    assert counter.state.handover is not None
    assert counter.state.held == 3


def test_once_the_session_is_over_a_receiver_takes_the_device_and_not_the_parcels() -> None:
    counter = on_the_table("driver", "P1")
    counter.later(400)
    assert types(counter.badge(BORIS)) == ["custody.session_closed", "identity.factor_shown"]
    assert types(counter.touch(BORIS)) == ["custody.handover_abandoned", "custody.session_opened"]
    assert {parcel.holder for parcel in counter.parcels.values()} == {ANNA}


@pytest.mark.parametrize("to", ["driver", "locker"])
def test_a_code_is_refused_where_no_recipient_is_expected(to: str) -> None:
    counter = on_the_table(to, "P1")
    decision = counter.code("digest")
    assert (types(decision), tones(decision)) == (["custody.code_refused"], [("pad", BAD)])
    assert "digest" not in str(decision.entries[0].data)
    assert counter.state.held == 3


@pytest.mark.parametrize("counter", [Counter(), on_duty()])
def test_a_code_out_of_the_blue_is_refused(counter: Counter) -> None:
    assert types(counter.code()) == ["custody.code_refused"]


def test_cancelling_takes_everything_off_the_table() -> None:
    counter = on_the_table("recipient", "P1", "P2")
    decision = counter.control("cancel")
    assert (types(decision), tones(decision)) == (["custody.handover_abandoned"], [("gun", GOOD)])
    assert decision.entries[0].data == {"to": "recipient", "reason": "cancelled", "count": 2}
    assert not any(parcel.offered for parcel in counter.parcels.values())
    assert counter.state.held == 3


# -- exceptions and the control sheet -------------------------------------------------------------


@pytest.mark.parametrize("reason", EXCEPTIONS)
def test_an_exception_is_noted_on_the_next_scan_and_on_that_alone(reason: str) -> None:
    counter = on_duty(ANNA, holding=("P1",))
    opened = counter.control(f"exception:{reason}")
    assert (types(opened), tones(opened)) == (["custody.exception_opened"], [("gun", GOOD)])
    noted = counter.scan("P1")
    assert (types(noted), tones(noted)) == (["custody.exception_noted"], [("gun", GOOD)])
    assert (noted.entries[0].data["by"], noted.entries[0].data["exception"]) == (ANNA, reason)
    assert types(counter.scan("P1")) == ["custody.refused"]
    assert counter.state.held == 1


def test_an_exception_in_a_handover_leaves_the_parcel_where_it_was() -> None:
    counter = on_the_table("recipient", "P1")
    counter.control("exception:refused")
    assert types(counter.scan("P1")) == ["custody.exception_noted"]
    assert counter.parcels["P1"].offered


def test_cancelling_an_exception_is_an_entry_too() -> None:
    counter = on_duty()
    counter.control("exception:damaged")
    decision = counter.control("cancel")
    assert (types(decision), tones(decision)) == (["custody.exception_cancelled"], [("gun", GOOD)])
    assert types(counter.scan("P1")) == ["custody.accepted"]


def test_cancelling_ends_exception_and_handover_together() -> None:
    counter = on_the_table("recipient", "P1")
    counter.control("exception:damaged")
    assert types(counter.control("cancel")) == ["custody.exception_cancelled", "custody.handover_abandoned"]


def test_an_exception_ends_with_its_session() -> None:
    counter = on_duty()
    counter.control("exception:damaged")
    counter.control("end")
    counter.login(ANNA)
    assert types(counter.scan("P1")) == ["custody.accepted"]


@pytest.mark.parametrize(
    ("to", "words", "reason"),
    [
        (None, "done", "not_now"),
        (None, "cancel", "not_now"),
        (None, "locker:locker-9:a12", "not_now"),
        (None, "handover:neighbour", "not_now"),
        (None, "handover", "not_now"),
        (None, "exception:bored", "not_now"),
        (None, "", "not_now"),
        (None, "open:sesame", "not_now"),
        ("recipient", "handover:recipient", "not_now"),
        ("recipient", "locker:locker-9:a12", "not_now"),
        ("driver", "done", "not_now"),
        ("locker", "done", "not_now"),
        ("locker", "locker:locker-9", "not_now"),
        ("locker", "locker::a12", "malformed"),
        ("locker", "locker:locker-9:", "malformed"),
        ("locker", f"locker:locker-9:{'a' * 41}", "malformed"),
        ("locker", "locker:lo\ufffdker:a12", "malformed"),
    ],
)
def test_a_control_code_out_of_place_is_refused(to: str | None, words: str, reason: str) -> None:
    counter = on_the_table(to, "P1") if to else on_duty()
    before = counter.state
    decision = counter.control(words)
    assert (types(decision), tones(decision)) == (["custody.control_refused"], [("gun", BAD)])
    assert decision.entries[0].data == {"unit": "gun", "control": words[:64], "reason": reason}
    assert counter.state == before


@pytest.mark.parametrize("words", ["handover:driver", "done", "cancel", "end", "exception:damaged"])
def test_nobody_on_duty_means_no_control(words: str) -> None:
    decision = Counter().control(words)
    assert decision.entries[0].data["reason"] == "no_session"
    assert tones(decision) == [("gun", BAD)]


def test_a_long_control_code_is_cut_short_in_its_entry() -> None:
    assert len(Counter().control("x" * 7000).entries[0].data["control"]) == 64


# -- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["driver", "recipient", "locker"])
def test_a_handover_half_done_goes_on_after_a_restart(to: str) -> None:
    counter = on_the_table(to, "P1")
    counter.restart()
    assert counter.wake(started=True).entries == ()
    assert types(counter.scan("P2")) == ["custody.offered"]
    if to == "recipient":
        assert types(counter.code()) == ["custody.handed_over"] * 2 + ["custody.handover_closed"]


def test_an_exception_half_done_goes_on_after_a_restart() -> None:
    counter = on_duty()
    counter.control("exception:damaged")
    counter.restart()
    assert types(counter.scan("P1")) == ["custody.exception_noted"]


def test_a_device_that_remembers_nothing_starts_empty() -> None:
    assert Custody.load(None, held=0) == Custody()
