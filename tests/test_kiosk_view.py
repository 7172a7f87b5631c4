"""What the kiosk's screen shows, as people at a locker go through it; and what it never shows."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.kiosk.view import LASTS_S, Face, Task, View, after, at_time, found
from agent.locker.events import GrantShown, LockerEvent
from agent.locker.grants import Refusal, Way
from agent.locker.turn import Rules
from agent.policy import Policy
from agent.workflow import Decision, Event, FactorShown, Outcome, Verdict
from tests.locker_hall import SETS, Hall, wall

SUBJECT, LABEL, GRANT = "drv-marker-1", "s10:MARKER29DE", "jti-marker"


class Lit(Hall):
    """The hall, and the screen in it."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.view = View()
        self.shown: list[dict[str, Any]] = []
        super().__init__(rules)
        self.answering = False

    def take(self, event: Event | LockerEvent) -> Decision[Any]:
        decision = super().take(event)
        self.view = after(self.view, decision, self.now, self.rules.wall)
        self.shown.append(dict(self.view.told()))
        return decision

    def sees(self) -> Face:
        """What somebody who looks at the screen now sees."""
        return at_time(self.view, self.now).face

    def refuse(self, refusal: Refusal, way: Way = Way.PIN) -> None:
        self.take(GrantShown(at=self.now, unit="kiosk", way=way, refusal=refusal))

    def factor(self, kind: str, outcome: Outcome = Outcome.GRANTED, subject: str = SUBJECT) -> None:
        verdict = Verdict(outcome=outcome, kind=kind, subject=subject, level=1, age_s=5.0)
        self.take(FactorShown(unit="kiosk", at=self.now, verdict=verdict))

    def pass_by(self, face: Face) -> None:
        """Until what passes is over."""
        assert self.sees() is face
        self.wait(LASTS_S[face])


def stocked() -> Lit:
    """A locker in which one parcel waits in a1, and nobody is there."""
    lit = Lit()
    lit.courier(SUBJECT)
    assert lit.deposit(LABEL) == "a1"
    lit.control("end")
    lit.pass_by(Face.THANKS)
    assert lit.sees() is Face.IDLE
    return lit


def test_a_pickup_goes_from_the_code_to_thanks_and_back_to_rest() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    assert (lit.sees(), lit.view.lasting.door, lit.view.lasting.task) == (Face.OPENING, "a1", Task.TAKE)
    lit.door("a1", latched=False)
    assert lit.sees() is Face.OPEN
    lit.wait(5)
    lit.door("a1", latched=True)
    assert (lit.sees(), lit.view.lasting.door) == (Face.THANKS, None)
    lit.pass_by(Face.THANKS)
    assert lit.sees() is Face.IDLE


def test_a_door_with_a_contact_is_asked_to_be_pushed_until_it_latches() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.door("a1", latched=False)
    lit.door("a1", closed=False)
    assert lit.sees() is Face.OPEN
    lit.door("a1", closed=True)
    assert lit.sees() is Face.CLOSING
    lit.door("a1", latched=True)
    assert lit.sees() is Face.THANKS


def test_a_deposit_goes_through_identity_parcel_size_and_door_to_a_receipt() -> None:
    lit = Lit()
    lit.factor("badge")
    assert (lit.sees(), lit.view.lasting.staff) == (Face.IDENTIFY, False)
    lit.factor("pin")
    assert (lit.sees(), lit.view.lasting.staff) == (Face.COURIER, True)
    lit.scan(LABEL)
    assert lit.sees() is Face.SIZE
    lit.control("cancel")
    assert lit.sees() is Face.COURIER
    lit.scan(LABEL)
    lit.control("size", "m")
    assert (lit.sees(), lit.view.lasting.door, lit.view.lasting.task) == (Face.OPENING, "b1", Task.PUT)
    lit.wait(1)
    lit.opens("b1")
    assert (lit.sees(), lit.view.receipt) == (Face.RECEIPT, f"{LABEL} in b1")
    assert lit.view.lasting.size == "M"
    lit.scan("s10:ANOTHER")
    assert (lit.sees(), lit.view.lasting.door, lit.view.receipt) == (Face.OPENING, "b2", None)
    lit.wait(1)
    lit.opens("b2")
    lit.pass_by(Face.RECEIPT)
    assert lit.view.lasting.face is Face.COURIER
    lit.control("end")
    lit.pass_by(Face.THANKS)
    assert (lit.sees(), lit.view.lasting.staff) == (Face.IDLE, False)


@pytest.mark.parametrize("refusal", list(Refusal))
@pytest.mark.parametrize("way", [Way.QR, Way.CODE, Way.PIN])
def test_every_refused_code_looks_the_same(refusal: Refusal, way: Way) -> None:
    expected, lit = Lit(), Lit()
    expected.refuse(Refusal.UNKNOWN)
    lit.refuse(refusal, way)
    assert lit.view == expected.view
    lit.pass_by(Face.REFUSED)
    assert lit.sees() is Face.IDLE


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.GRANTED])
def test_every_refused_factor_looks_the_same(outcome: Outcome) -> None:
    lit = Lit()
    lit.factor("badge", outcome)
    expected = Lit()
    expected.factor("badge", Outcome.UNKNOWN)
    assert lit.view == expected.view
    assert lit.sees() is Face.REFUSED


def test_a_code_that_was_good_once_is_refused_like_one_that_never_was() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.opens("a1")
    lit.pass_by(Face.THANKS)
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    spent = replace(lit.view, until_ns=None)
    lit.pass_by(Face.REFUSED)
    lit.refuse(Refusal.UNKNOWN)
    assert replace(lit.view, until_ns=None, times=spent.times) == spent


def test_nothing_of_codes_labels_names_and_reasons_comes_through() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.opens("a1")
    lit.refuse(Refusal.SPENT)
    lit.factor("badge", Outcome.REVOKED)
    lit.courier(SUBJECT)
    lit.scan("s10:MARKER-2")
    lit.control("size", "s")
    lit.wait(20)
    lit.board_lost()
    assert len(lit.shown) > 20
    told = json.dumps(lit.shown).lower()
    assert not [word for word in ("marker", "drv-", "jti", "s10", "spent", "revoked", "gone") if word in told]
    assert {key for each in lit.shown for key in each} == {
        "face", "beneath", "door", "task", "staff", "second", "size", "ajar", "times",
    }  # fmt: skip


def test_a_second_refusal_is_news_even_while_the_first_is_shown() -> None:
    lit = Lit()
    lit.refuse(Refusal.UNKNOWN)
    first = lit.view
    lit.wait(LASTS_S[Face.REFUSED] / 2)
    lit.refuse(Refusal.UNKNOWN)
    assert lit.view.told() != first.told()
    lit.wait(LASTS_S[Face.REFUSED] / 2)
    assert lit.sees() is Face.REFUSED


def test_a_refusal_beside_an_open_door_passes_and_the_door_is_shown_again() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.door("a1", latched=False)
    lit.refuse(Refusal.UNKNOWN)
    lit.pass_by(Face.REFUSED)
    assert (lit.sees(), lit.view.lasting.door) == (Face.OPEN, "a1")


def test_a_door_that_does_not_open_is_said_and_may_be_tried_again() -> None:
    lit = stocked()
    lit.answering = True
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.wait(3)
    lit.pass_by(Face.FAILED)
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    assert lit.sees() is Face.OPENING


def test_what_stays_inside_and_what_was_not_put_in_are_told() -> None:
    lit = stocked()
    lit.door("a1", occupied=True)
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.opens("a1")
    lit.pass_by(Face.LEFT)
    lit.courier(SUBJECT)
    lit.scan("s10:ANOTHER")
    lit.control("size", "l")
    lit.door("c1", occupied=False)
    lit.opens("c1")
    lit.pass_by(Face.EMPTY)
    assert lit.sees() is Face.COURIER


def test_a_door_left_open_gives_the_screen_back_and_is_pointed_at() -> None:
    lit = stocked()
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.door("a1", latched=False)
    lit.wait(130)
    assert (lit.sees(), lit.view.lasting.ajar) == (Face.IDLE, ("a1",))
    lit.door("a1", latched=True)
    assert lit.view.lasting.ajar == ()


def test_a_forced_door_is_pointed_at_until_it_is_shut() -> None:
    lit = Lit()
    lit.door("c2", latched=False)
    assert (lit.sees(), lit.view.lasting.ajar) == (Face.IDLE, ("c2",))
    lit.door("c2", latched=True)
    assert lit.view.lasting.ajar == ()


def test_of_two_doors_the_one_opened_last_is_shown_first() -> None:
    lit = Lit()
    lit.courier(SUBJECT)
    lit.control("size", "s")
    for label in ("s10:ONE", "s10:TWO"):
        lit.scan(label)
        lit.wait(1)
        lit.door("a1", latched=False)
    assert lit.view.lasting.door == "a2"
    lit.opens("a2")
    assert (lit.view.lasting.face, lit.view.lasting.door) == (Face.OPEN, "a1")


def test_the_screen_is_out_of_service_only_while_no_door_can_be_opened() -> None:
    lit = Lit()
    lit.board_lost()
    assert lit.sees() is Face.OUT
    lit.refuse(Refusal.OUT_OF_SERVICE)
    assert lit.sees() is Face.OUT
    lit.door("a1", latched=True, first=True)
    assert lit.view.lasting.face is Face.IDLE


def test_a_restart_beside_an_open_door_finds_the_screen_as_it_was() -> None:
    lit = stocked()
    lit.courier(SUBJECT)
    lit.show(GRANT, compartment="a1", parcel=LABEL)
    lit.door("a1", latched=False)
    lit.wait(3)
    lit.crash()
    view = found(lit.state, lit.rules.wall)
    assert view.face is Face.OUT, "no board has spoken yet"
    for name in lit.rules.wall.compartments:
        lit.door(name, latched=name != "a1", first=True)
    view = found(lit.state, lit.rules.wall)
    assert (view.face, view.lasting.door, view.lasting.staff) == (Face.OPEN, "a1", True)


def test_a_second_person_is_asked_for_without_a_name() -> None:
    two = Policy(SETS, second_person=True)
    lit = Lit(Rules(wall=wall(), deposit=two, retrieve=two, technician=two))
    lit.factor("badge")
    assert not lit.view.lasting.second
    lit.factor("pin")
    assert (lit.sees(), lit.view.lasting.second) == (Face.IDENTIFY, True)
    lit.factor("badge", subject="drv-2")
    lit.factor("pin", subject="drv-2")
    assert lit.sees() is Face.COURIER


def test_a_lease_shows_a_door_to_mind_and_nobody_s_name() -> None:
    lit = stocked()
    lit.courier(SUBJECT, role="technician")
    lit.control("open", "c1")
    assert (lit.sees(), lit.view.lasting.task) == (Face.OPENING, Task.MIND)
    lit.opens("c1")
    assert lit.sees() is Face.THANKS
