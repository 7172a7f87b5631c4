"""Many doors at the fleet's word: who must be there, what ends it, and what its outcome names."""

from dataclasses import replace
from typing import Any

import pytest

from agent.clock import NS, Trust
from agent.freshness import Freshness
from agent.locker.events import RoundOrdered, ServiceAsked
from agent.locker.rounds import Round, ordered
from agent.locker.workflow import LockerWorkflow
from agent.policy import Policy
from agent.standing import Standing
from agent.workflow import Dismissed, Draft
from tests.locker_hall import Hall

CARD, SETS = (frozenset({"fido2"}),), (frozenset({"badge", "pin"}), frozenset({"badge", "slot"}))
TOLD = {
    "command": "c1",
    "key": "k1",
    "sequence": "1",
    "class": "D",
    "name": "open_doors",
    "args": {"unit": None, "doors": "all"},
    "operator": "op-7",
    "reason": "flood",
}
LIFE_S = 600
SOON_S = 0.5
"""A pulse that may be given is given by then."""


def hall() -> Hall:
    """Couriers need no card, technicians do."""
    made = Hall()
    return Hall(replace(made.rules, deposit=Policy(SETS), technician=Policy(CARD)))


def order(at: Hall, *names: str) -> None:
    until_ns = at.now.mono_ns + LIFE_S * NS
    doors = names or tuple(at.rules.wall.compartments)
    at.take(RoundOrdered(at=at.now, round=ordered(TOLD, "locker-12", doors, until_ns, at.now)))
    at.wait(SOON_S)


def technician(at: Hall, *, card: bool = True, subject: str = "tech-1") -> None:
    at.prove(subject, "badge", role="technician")
    if card:
        at.hold_card()
        at.prove(subject, "fido2")
    else:
        at.prove(subject, "pin")
    at.wait(SOON_S)


def seen_open(at: Hall, name: str, ajar_s: float = 2.1) -> None:
    at.wait(0.1)
    at.door(name, latched=False)
    at.wait(ajar_s)


def outcome(at: Hall) -> Draft:
    (said,) = (entry for entry in at.entries if entry.type in OUTCOMES)
    return said


OUTCOMES = ("command.succeeded", "command.failed", "command.outcome_unknown")


def told(at: Hall) -> tuple[str, list[str], list[str], list[str]]:
    said = outcome(at)
    return said.data["detail"], said.data["opened"], said.data["unknown"], said.data["left"]


def intended(at: Hall) -> list[str]:
    return [entry.subject for entry in at.entries if entry.type == "locker.opening_intended"]


def test_it_waits_for_a_technician_and_then_opens_one_door_after_the_other() -> None:
    at = hall()
    order(at, "a1", "b2", "c1")
    at.wait(60)
    assert not at.pulses
    technician(at)
    assert at.last("locker.round_begun").data["level"] == 3
    for name in ("a1", "b2", "c1"):
        assert intended(at)[-1] == name
        assert at.state.round is not None
        seen_open(at, name)
    assert [door for door, _ in at.pulses] == [1, 4, 5]
    assert outcome(at).type == "command.succeeded"
    assert told(at) == ("done", ["a1", "b2", "c1"], [], [])
    assert outcome(at).data["present"] == "tech-1"
    assert at.state.round is None
    for name in ("a1", "b2", "c1"):
        at.door(name, latched=True)
    assert at.types().count("locker.opening_used") == 3
    assert all(status.free for status in at.state.statuses.values())


def test_each_door_has_an_intent_of_its_own_that_names_the_command() -> None:
    at = begun("a1", "a2")
    first = at.last("locker.opening_intended")
    assert (first.subject, first.data["purpose"], first.data["command"]) == ("a1", "many", "c1")
    assert (first.data["by"], first.data["operator"], first.data["reason"]) == ("k1", "op-7", "flood")
    assert intended(at) == ["a1"], "the second is not intended before the first was seen open"


@pytest.mark.parametrize(
    ("who", "role"),
    [(("badge", "pin"), "technician"), (("badge", "slot"), "technician"), (("badge", "pin"), None)],
)
def test_presence_at_level_1_is_no_presence(who: tuple[str, ...], role: str | None) -> None:
    at = hall()
    order(at)
    at.prove("tech-1", who[0], role=role)
    at.prove("tech-1", who[1])
    assert at.state.session is not None
    assert not at.pulses
    at.wait(LIFE_S + 1)
    assert not at.pulses


def test_a_couriers_card_is_no_presence() -> None:
    made = hall()
    at = Hall(replace(made.rules, deposit=Policy(CARD)))
    order(at)
    at.hold_card()
    at.prove("drv-1", "fido2", role="driver")
    assert at.state.session is not None
    assert not at.pulses


def test_when_the_fleets_word_is_stale_a_second_person_is_there_too() -> None:
    at = hall()
    at.standing = Standing(age_s=5 * 86_400.0, freshness=Freshness.STALE)
    order(at, "a1")
    technician(at)
    assert not at.pulses
    technician(at, subject="tech-2")
    assert len(at.pulses) == 1


def test_where_technicians_come_in_twos_one_alone_is_no_presence() -> None:
    one = hall()
    two = replace(one.rules, technician=Policy(CARD, second_person=True))
    at = Hall(two)
    order(at, "a1")
    technician(at)
    assert at.state.session is None
    technician(at, subject="tech-2")
    assert len(at.pulses) == 1
    technician(one)
    order(one, "a1", "a2")
    one.rules = two
    one.workflow = LockerWorkflow(two)
    one.crash()
    one.found()
    order(one, "b1")
    assert one.state.session is not None, "opened before the config said so"
    assert len(one.pulses) == 1


def test_it_lapses_counted_if_nobody_comes() -> None:
    at = hall()
    order(at, "a1", "a2")
    at.wait(LIFE_S - 1)
    assert at.state.round is not None
    at.wait(1)
    assert (outcome(at).type, *told(at)) == ("command.failed", "nobody_came", [], [], ["a1", "a2"])
    technician(at)
    assert not at.pulses


def begun(*names: str) -> Hall:
    """The first door is being opened."""
    at = hall()
    technician(at)
    order(at, *names)
    assert len(at.pulses) == 1
    return at


def left(at: Hall) -> None:
    at.control("end")


def relieved(at: Hall) -> None:
    technician(at, subject="tech-2")


def dismissed(at: Hall) -> None:
    at.take(Dismissed(at=at.now, reason="revoked", subject="tech-1"))


@pytest.mark.parametrize("withdraw", [left, relieved, dismissed])
def test_whatever_ends_the_presence_ends_the_round(withdraw: Any) -> None:
    at = begun("a1", "a2", "b1")
    withdraw(at)
    assert at.state.round is not None, "what came of the first door is still waited for"
    technician(at)
    seen_open(at, "a1")
    assert (outcome(at).type, *told(at)) == ("command.failed", "presence_withdrawn", ["a1"], [], ["a2", "b1"])
    at.wait(30)
    assert len(at.pulses) == 1


def test_the_emergency_lock_stops_it_between_two_doors() -> None:
    at = begun("a1", "a2")
    at.locked_down = True
    seen_open(at, "a1")
    assert told(at) == ("locked_down", ["a1"], [], ["a2"])
    assert len(at.pulses) == 1


def test_nothing_of_it_is_begun_after_its_time() -> None:
    at = hall()
    order(at, "a1", "a2")
    at.wait(LIFE_S - 2)
    technician(at)
    seen_open(at, "a1")
    assert told(at) == ("expired", ["a1"], [], ["a2"])


@pytest.mark.parametrize("reboot", [False, True])
def test_after_a_crash_between_doors_the_rest_is_not_continued(reboot: bool) -> None:
    at = begun("a1", "a2", "b1")
    seen_open(at, "a1")
    assert len(at.pulses) == 2
    at.crash(reboot=reboot)
    assert outcome(at).type == "command.outcome_unknown"
    assert told(at) == ("interrupted", ["a1"], ["a2"], ["b1"])
    at.found(a1=False)
    technician(at)
    at.wait(30)
    assert len(at.pulses) == 2
    assert at.last("locker.outcome_unknown").data["compartment"] == "a2"


def test_one_that_waits_goes_on_waiting_over_a_restart_and_looks_at_the_doors_first() -> None:
    at = hall()
    order(at, "a1")
    at.crash()
    technician(at)
    assert not at.pulses, "no board has spoken yet"
    at.found()
    at.wait(SOON_S)
    assert len(at.pulses) == 1


@pytest.mark.parametrize(("trust", "opens"), [(Trust.NTP, 1), (Trust.NONE, 0)])
def test_over_a_reboot_it_waits_on_only_by_a_clock_that_is_assured(trust: Trust, opens: int) -> None:
    at = hall()
    at.trust = trust
    order(at, "a1")
    at.crash(reboot=True, off_s=30)
    at.found()
    technician(at)
    assert len(at.pulses) == opens
    at = hall()
    order(at, "a1")
    at.crash(reboot=True, off_s=LIFE_S)
    at.found()
    technician(at)
    assert not at.pulses


def test_a_door_that_cannot_be_opened_is_named_and_the_next_one_follows() -> None:
    at = begun("a1", "a2", "b1")
    at.wait(3)
    assert at.state.status("a1").quarantine == "jammed"
    at.take(ServiceAsked(at=at.now, verb="quarantine", compartment="b1", reason="paint"))
    seen_open(at, "a2")
    seen_open(at, "b1")
    assert outcome(at).type == "command.failed"
    assert outcome(at).data["not_opened"] == {"a1": "did_not_open"}
    assert outcome(at).data["opened"] == ["a2", "b1"]


def test_doors_that_are_open_or_away_are_named() -> None:
    at = hall()
    technician(at)
    at.control("open", "a1")
    order(at, "a1", "a2")
    assert intended(at) == ["a1", "a2"]
    at.wait(1)
    assert len(at.pulses) == 2
    at.board_lost()
    assert outcome(at).type == "command.outcome_unknown"
    assert outcome(at).data["not_opened"] == {"a1": "busy"}
    assert told(at)[2] == ["a2"]


def test_a_round_survives_in_its_record() -> None:
    at = begun("a1", "a2")
    seen_open(at, "a1")
    at.control("end")
    assert at.state.round is not None
    assert Round.load(at.records["round"], at.now) == at.state.round
