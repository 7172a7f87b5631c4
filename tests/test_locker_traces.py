"""Door faults as they happen, and what a clerk who stood there would say of each."""

import pytest

from agent.locker.events import PulseEnded, ServiceAsked
from agent.locker.grants import Way
from tests.locker_hall import Hall

LABEL = "sscc:106141411234567897"


def stocked() -> tuple[Hall, str]:
    """A locker with one parcel in it, the courier gone."""
    hall = Hall()
    name = hall.deposit(LABEL)
    hall.control("end")
    hall.wait(61)
    hall.entries.clear()
    hall.pulses.clear()
    hall.tones.clear()
    return hall, name


def test_a_clean_pickup_is_collected_and_the_compartment_is_free() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    assert hall.types() == [
        "locker.opening_intended",
        "door.pulsed",
        "door.unlatched",
        "door.opened",
        "locker.collected",
    ]
    assert hall.state.status(name).free
    assert len(hall.pulses) == 1


def test_a_door_pushed_shut_before_it_opened_is_not_collected() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name, for_s=0.6)
    assert hall.last("locker.not_opened").data["why"] == "pushed_shut"
    status = hall.state.status(name)
    assert (status.parcel, status.quarantine) == (LABEL, "pushed_shut")


def test_the_grant_of_a_door_pushed_shut_is_good_again_once_a_person_has_looked() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name, for_s=0.6)
    hall.show("g1", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "out_of_service"
    hall.wait(3600)
    release = ServiceAsked(at=hall.now, verb="release", compartment=name, reason="hinge freed")
    hall.take(release)
    assert hall.last("locker.grant_restored").data == {"grant": "g1"}
    hall.show("g1", parcel=LABEL)
    hall.wait(0.5)
    hall.opens(name)
    assert hall.last("locker.collected").subject == LABEL


def test_a_jammed_lock_gets_one_more_try_and_is_then_quarantined() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.wait(3)
    assert hall.last("locker.not_opened").data["why"] == "did_not_open"
    assert hall.state.status(name).quarantine is None
    hall.show("g1", parcel=LABEL)
    hall.wait(10)
    assert hall.state.status(name).quarantine == "jammed"
    hall.show("g1", parcel=LABEL)
    hall.wait(10)
    assert len(hall.pulses) == 2
    assert hall.state.status(name).parcel == LABEL


def test_a_door_held_open_is_an_alarm_once_and_still_collected_at_last() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name, for_s=400)
    assert hall.types().count("door.held") == 1
    assert hall.types()[-1] == "locker.collected"


def test_a_door_that_nobody_was_to_open_is_forced_at_once() -> None:
    hall, name = stocked()
    hall.door(name, latched=False)
    assert hall.types()[:2] == ["door.forced", "locker.compartment_quarantined"]
    assert hall.last("door.forced").data["parcel"] == LABEL
    hall.door(name, latched=True)
    assert hall.types()[-1] == "door.shut_again"
    assert hall.state.status(name).quarantine == "forced"


def test_something_left_behind_is_not_collected() -> None:
    hall, name = stocked()
    hall.door(name, occupied=True)
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    assert hall.last("locker.left_behind").subject == LABEL
    status = hall.state.status(name)
    assert (status.parcel, status.quarantine) == (LABEL, "left_behind")
    hall.show("g1", parcel=LABEL)
    assert len(hall.pulses) == 1


def test_a_parcel_that_was_not_put_in_was_not_deposited() -> None:
    hall = Hall()
    hall.courier()
    hall.door("a1", occupied=False)
    hall.control("size", "S")
    hall.scan(LABEL)
    hall.wait(1)
    hall.opens("a1")
    assert hall.last("locker.deposit_abandoned").data["evidence"] == "content"
    assert hall.state.status("a1").free


def test_a_slammed_door_that_springs_open_is_no_alarm_when_it_is_shut_again() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    hall.wait(0.3)
    hall.door(name, latched=False)
    hall.wait(0.5)
    hall.door(name, latched=True)
    assert "door.forced" not in hall.types()
    assert hall.types()[-1] == "door.bounced"


def test_a_slammed_door_that_stays_open_is_an_alarm() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    hall.wait(0.3)
    hall.door(name, latched=False)
    hall.wait(5)
    assert "door.forced" in hall.types()


def test_a_wrong_door_that_opens_with_a_pulse_is_named_beside_it() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.wait(0.1)
    hall.door("c2", latched=False)
    assert hall.last("door.forced").data["beside"] == name
    assert hall.state.status("c2").quarantine == "forced"


def test_a_contact_that_is_closed_without_the_hook_is_not_latched() -> None:
    hall, name = stocked()
    hall.door(name, closed=True)
    hall.show("g1", parcel=LABEL)
    hall.wait(0.2)
    hall.door(name, latched=False)
    hall.door(name, closed=False)
    hall.wait(4)
    hall.door(name, closed=True)
    hall.wait(20)
    assert hall.types().count("door.not_latched") == 1
    hall.door(name, latched=True)
    assert hall.types()[-1] == "locker.collected"


def test_a_contact_says_what_a_hook_alone_cannot_tell() -> None:
    hall, name = stocked()
    hall.door(name, closed=True)
    hall.show("g1", parcel=LABEL)
    hall.wait(0.2)
    hall.door(name, latched=False)
    hall.wait(60)
    hall.door(name, latched=True)
    assert hall.last("locker.not_opened").data["why"] == "pushed_shut", "the contact never saw it open"


def test_a_crash_after_the_intent_is_reported_as_unknown_and_never_repeated() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    assert len(hall.pulses) == 1
    hall.crash()
    hall.door(name, latched=True, first=True)
    assert hall.last("locker.outcome_unknown").data["grant"] == "g1"
    hall.wait(60)
    assert len(hall.pulses) == 1
    assert hall.state.status(name).parcel == LABEL


def test_the_same_code_may_try_again_within_five_minutes_of_a_crash() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.crash()
    hall.door(name, latched=True, first=True)
    hall.answering = True
    hall.show("other", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "out_of_service"
    hall.wait(2)
    hall.show("g1", parcel=LABEL)
    hall.wait(1)
    hall.opens(name)
    assert hall.last("locker.collected").subject == LABEL
    assert hall.state.status(name).free


def test_it_may_not_after_five_minutes_nor_a_third_time() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.crash()
    hall.door(name, latched=True, first=True)
    hall.wait(301)
    hall.show("g1", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "spent"


def test_a_door_found_open_after_a_crash_counts_as_opened_for_its_grant() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.crash()
    hall.door(name, latched=False, first=True)
    hall.wait(5)
    hall.door(name, latched=True)
    assert hall.last("locker.collected").subject == LABEL
    hall.show("g1", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "spent"


def test_a_board_that_goes_while_a_door_is_open_settles_when_it_is_back() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.wait(0.1)
    hall.door(name, latched=False)
    hall.wait(3)
    hall.board_lost()
    hall.wait(10)
    hall.door(name, latched=True, first=True)
    assert hall.last("locker.collected").subject == LABEL
    assert len(hall.pulses) == 1


def test_a_board_that_goes_before_the_door_opened_leaves_the_outcome_unknown() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.board_lost()
    hall.wait(30)
    hall.door(name, latched=True, first=True)
    assert hall.last("locker.outcome_unknown").data["why"] == "unknown"
    assert len(hall.pulses) == 1


def test_a_pulse_that_the_board_refused_is_no_opening() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.take(PulseEnded(at=hall.now, compartment=name, ok=False, unknown=False, reason="refused"))
    assert hall.last("locker.not_opened").data["why"] == "not_pulsed"
    assert hall.state.status(name).parcel == LABEL
    assert hall.state.status(name).quarantine is None


def test_a_board_that_never_answers_leaves_the_outcome_unknown() -> None:
    hall, _ = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.wait(10)
    assert hall.last("locker.outcome_unknown").data["grant"] == "g1"


def test_a_hook_that_holds_an_open_door_ends_no_opening() -> None:
    hall, name = stocked()
    hall.door(name, closed=True)
    hall.show("g1", parcel=LABEL)
    hall.wait(0.1)
    hall.door(name, latched=False)
    hall.door(name, closed=False)
    hall.wait(3)
    hall.door(name, latched=True)
    hall.wait(200)
    assert "locker.collected" not in hall.types()
    assert "door.held" in hall.types()


@pytest.mark.parametrize("reboot", [False, True])
def test_a_door_found_open_at_a_start_with_nothing_under_way_is_told(reboot: bool) -> None:
    hall, name = stocked()
    hall.crash(reboot=reboot)
    hall.door(name, latched=False, first=True)
    assert hall.last("door.found_open").subject == name
    assert hall.state.status(name).quarantine == "found_open"


def test_nothing_opens_while_its_board_is_away() -> None:
    hall, _ = stocked()
    hall.board_lost()
    hall.show("g1", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "out_of_service"
    assert not hall.pulses


def test_a_power_cut_of_unknown_length_ends_the_time_to_try_again() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL, way=Way.CODE)
    hall.crash(reboot=True, off_s=400)
    hall.door(name, latched=True, first=True)
    hall.show("g1", parcel=LABEL, way=Way.CODE)
    assert hall.last("locker.code_refused").data["reason"] == "spent"
