"""Door faults as they happen, and what a clerk who stood there would say of each."""

import pytest

from agent.clock import NS, Trust
from agent.locker.events import PulseEnded, ServiceAsked
from agent.locker.grants import Purpose, Way
from agent.workflow import LabelRead, Woken
from drivers.readings import Tone
from tests.locker_hall import START_S, Hall

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


# -- pulses that wait ---------------------------------------------------------------------------------


def two_waiting() -> Hall:
    """Two recipients show their codes in the same moment: the second pulse waits for the first."""
    hall = Hall()
    hall.deposit("p1")
    hall.deposit("p2")
    hall.control("end")
    hall.wait(61)
    hall.entries.clear()
    hall.pulses.clear()
    hall.show("g1", parcel="p1")
    hall.show("g2", parcel="p2")
    assert [door for door, _ in hall.pulses] == [1]
    return hall


def assert_not_pulsed(hall: Hall) -> None:
    assert [door for door, _ in hall.pulses] == [1]
    (ended,) = [entry for entry in hall.entries if entry.data.get("why") == "not_pulsed"]
    assert (ended.type, ended.data["grant"]) == ("locker.not_opened", "g2")
    assert hall.last("locker.grant_restored").data == {"grant": "g2"}
    assert hall.records.get("grant/g2") is None
    assert hall.state.status("a2").parcel == "p2"


@pytest.mark.parametrize("reboot", [False, True])
def test_a_pulse_that_waits_when_the_agent_dies_was_never_given_and_costs_nothing(reboot: bool) -> None:
    hall = two_waiting()
    hall.crash(reboot=reboot)
    hall.found()
    hall.wait(60)
    assert_not_pulsed(hall)
    assert hall.state.status("a2").quarantine is None
    assert hall.state.status("a1").quarantine == "outcome_unknown"
    hall.show("g2", parcel="p2")
    hall.wait(1)
    hall.opens("a2")
    assert hall.last("locker.collected").subject == "p2"


def test_a_pulse_that_waits_when_the_board_goes_is_not_given_when_it_is_back() -> None:
    hall = two_waiting()
    hall.board_lost()
    hall.found()
    hall.wait(60)
    assert_not_pulsed(hall)


def test_a_pulse_that_waits_when_openings_are_disabled_is_not_given() -> None:
    hall = two_waiting()
    hall.locked_down = True
    hall.wait(60)
    assert_not_pulsed(hall)


def test_a_pulse_that_waits_too_long_is_given_up() -> None:
    hall = Hall()
    hall.deposit("p1")
    for number in range(4):
        hall.show(f"g{number}", parcel="p1")
        hall.wait(2.5)
        hall.take(ServiceAsked(at=hall.now, verb="release", compartment="a1", reason="looked"))
    pulses = len(hall.pulses)
    hall.show("again", parcel="p1")
    hall.wait(20)
    assert len(hall.pulses) == pulses, "its coil is hot"
    assert hall.last("locker.not_opened").data["why"] == "not_pulsed"
    assert hall.records.get("grant/again") is None


def test_a_second_try_that_was_never_pulsed_leaves_the_first_as_it_was() -> None:
    hall, name = stocked()
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.crash()
    hall.found()
    hall.wait(2)
    hall.show("g1", parcel=LABEL)
    refused = PulseEnded(at=hall.now, compartment=name, ok=False, unknown=False, reason="busy")
    hall.take(refused)
    assert hall.records["grant/g1"]["pulses"] == 1
    hall.answering = True
    hall.show("other", parcel=LABEL)
    assert hall.last("locker.code_refused").data["reason"] == "out_of_service"
    hall.show("g1", parcel=LABEL)
    hall.wait(1)
    hall.opens(name)
    assert hall.last("locker.collected").subject == LABEL


# -- restarts ------------------------------------------------------------------------------------------


def test_a_parcel_expires_while_nobody_is_running() -> None:
    hall, name = stocked()
    hall.crash(reboot=True, off_s=hall.rules.hold)
    assert hall.types().count("locker.expired") == 1
    hall.found()
    hall.crash()
    hall.found()
    assert hall.types().count("locker.expired") == 1
    hall.courier()
    hall.control("retrieve")
    hall.wait(1)
    hall.opens(name)
    assert hall.last("locker.retrieved").subject == LABEL


def test_a_clock_that_nobody_answers_for_expires_no_parcel() -> None:
    hall, name = stocked()
    hall.trust = Trust.NONE
    hall.crash(reboot=True, off_s=10 * 365 * 86_400)
    hall.found()
    hall.wait(60)
    assert "locker.expired" not in hall.types()
    hall.trust = Trust.NTP
    hall.booted_utc_ns -= 10 * 365 * 86_400 * NS
    hall.take(Woken(at=hall.now))
    assert not hall.state.status(name).expired
    hall.wait(hall.rules.hold)
    assert hall.types().count("locker.expired") == 1


def test_a_parcel_that_is_being_collected_when_its_time_is_over_is_collected() -> None:
    hall, name = stocked()
    until = hall.state.status(name).until
    assert until is not None
    hall.wait(until - hall.now.utc_ns / NS - 1)
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    assert hall.last("locker.collected").subject == LABEL
    hall.wait(3600)
    assert "locker.expired" not in hall.types()


def test_one_that_is_not_collected_after_all_expires_then() -> None:
    hall, name = stocked()
    until = hall.state.status(name).until
    assert until is not None
    hall.wait(until - hall.now.utc_ns / NS - 1)
    hall.show("g1", parcel=LABEL)
    hall.opens(name, for_s=0.6)
    hall.wait(10)
    assert hall.types().count("locker.expired") == 1


def test_what_is_spent_is_not_forgotten_by_a_clock_that_runs_ahead() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL, exp=START_S + 86_400)
    hall.opens(name)
    assert hall.deposit(LABEL) == name
    hall.trust = Trust.NONE
    hall.crash(reboot=True, off_s=10 * 365 * 86_400)
    hall.booted_utc_ns = START_S * NS
    hall.trust = Trust.NTP
    hall.found()
    hall.show("g1", parcel=LABEL, exp=START_S + 86_400)
    assert hall.last("locker.code_refused").data["reason"] == "spent"


@pytest.mark.parametrize("restarted", [True, False])
def test_what_is_of_no_more_use_is_forgotten_a_week_later(restarted: bool) -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL, exp=START_S + 86_400)
    hall.opens(name)
    hall.records["minted/00ff"] = {"row": "...", "exp": START_S + 86_400}
    hall.wrong()
    kept = {"grant/g1", "minted/00ff", "wrong/s1"}
    hall.wait(8 * 86_400 - 3600)
    somebody_comes(hall, restarted)
    assert kept <= set(hall.records)
    hall.wait(2 * 86_400)
    somebody_comes(hall, restarted)
    assert kept & set(hall.records) == {"wrong/s1"}, "the parcel may still wait, and so may who guesses"
    hall.wait(hall.rules.hold)
    somebody_comes(hall, restarted)
    assert not kept & set(hall.records)


def somebody_comes(hall: Hall, restarted: bool) -> None:
    if restarted:
        hall.crash()
    hall.scan("p9")


# -- couriers ------------------------------------------------------------------------------------------


def test_a_parcel_scanned_again_while_its_door_is_open_opens_no_second_one() -> None:
    hall = Hall()
    hall.courier()
    hall.control("size", "S")
    hall.scan(LABEL)
    hall.scan(LABEL)
    hall.wait(0.5)
    hall.door("a1", latched=False)
    hall.scan(LABEL)
    hall.wait(5)
    assert [door for door, _ in hall.pulses] == [1]
    assert hall.last("locker.refused").data == {
        "unit": "gun",
        "reason": "already_here",
        "compartment": "a1",
    }


def test_a_label_that_no_grant_could_name_is_not_taken() -> None:
    hall = Hall()
    hall.courier()
    hall.control("size", "S")
    hall.scan("x" * 81)
    assert hall.last("locker.refused").data == {"unit": "gun", "reason": "label_too_long", "length": 81}
    assert hall.last("locker.refused").subject == "x" * 80
    hall.wait(5)
    assert not hall.pulses
    assert hall.deposit("y" * 80) == "a1"


def test_a_courier_who_walks_away_leaves_an_alarm_and_whoever_shuts_the_door_ends_it() -> None:
    hall = Hall()
    hall.courier()
    hall.control("size", "S")
    hall.scan(LABEL)
    hall.wait(0.5)
    hall.door("a1", latched=False)
    hall.wait(3600)
    assert hall.last("locker.session_closed").data["reason"] == "idle"
    assert hall.types().count("door.held") == 1
    assert "locker.deposited" not in hall.types()
    hall.door("a1", latched=True)
    assert hall.last("locker.deposited").data["by"] == "drv-1"


def test_nothing_is_deposited_while_the_journal_is_full_and_everything_is_collected() -> None:
    hall, name = stocked()
    hall.courier()
    hall.control("size", "S")
    read = LabelRead(
        unit="gun", at=hall.now, label="p2", evidence={"raw": "x"}, repeated_after=None, full=True
    )
    hall.take(read)
    assert hall.last("locker.refused").data["reason"] == "journal_full"
    assert not hall.pulses
    hall.show("g1", parcel=LABEL)
    hall.opens(name)
    assert hall.last("locker.collected").subject == LABEL


def test_a_door_that_will_not_open_for_a_deposit_is_out_of_use_and_the_parcel_goes_elsewhere() -> None:
    hall = Hall()
    hall.courier()
    hall.control("size", "S")
    hall.scan(LABEL)
    hall.wait(5)
    assert hall.last("locker.not_opened").data["why"] == "did_not_open"
    assert hall.state.status("a1").quarantine == "jammed"
    assert hall.tones[-1] is Tone.BAD
    assert hall.deposit(LABEL) == "a2"


def test_a_deposit_nobody_saw_the_end_of_keeps_its_compartment_shut() -> None:
    hall = Hall()
    hall.courier()
    hall.control("size", "S")
    hall.scan(LABEL)
    hall.wait(0.5)
    hall.crash()
    hall.found()
    assert hall.last("locker.outcome_unknown").subject == LABEL
    status = hall.state.status("a1")
    assert (status.parcel, status.quarantine, status.doubt) == (None, "outcome_unknown", None)
    assert hall.deposit("p2") == "a2"


# -- technicians ---------------------------------------------------------------------------------------


def test_a_technician_takes_a_parcel_out_of_a_compartment_that_is_out_of_use() -> None:
    hall, name = stocked()
    hall.show("g1", parcel=LABEL)
    hall.opens(name, for_s=0.6)
    hall.courier()
    hall.control("retrieve", name)
    assert hall.last("locker.refused").data["reason"] == "not_now", "a courier is no technician"
    hall.control("end")
    hall.courier("tech-1", role="technician")
    hall.control("retrieve", name)
    hall.wait(1)
    hall.opens(name)
    assert hall.last("locker.retrieved").subject == LABEL
    status = hall.state.status(name)
    assert (status.parcel, status.quarantine) == (None, "pushed_shut"), "the hinge is as it was"
    hall.control("retrieve", name)
    assert hall.last("locker.refused").data["reason"] == "not_now"


def test_a_technician_retrieves_nothing_through_a_board_that_is_away() -> None:
    hall, name = stocked()
    hall.courier("tech-1", role="technician")
    hall.board_lost()
    hall.control("retrieve", name)
    assert hall.last("locker.refused").data["reason"] == "nothing_to_retrieve"
    assert not hall.pulses


@pytest.mark.parametrize("occupied", [None, True, False])
def test_a_technician_who_empties_a_compartment_is_believed_where_a_sensor_sees_it(
    occupied: bool | None,
) -> None:
    hall, name = stocked()
    hall.courier("tech-1", role="technician")
    hall.control("open", name)
    hall.wait(0.5)
    hall.door(name, latched=False)
    hall.wait(4)
    if occupied is not None:
        hall.door(name, occupied=occupied)
    hall.door(name, latched=True)
    assert "locker.opening_used" in hall.types()
    gone = occupied is False
    assert ("locker.taken_out" in hall.types()) is gone
    assert hall.state.status(name).parcel == (None if gone else LABEL)


# -- sensors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "kind", "quarantine"),
    [(False, "locker.collected", None), (True, "locker.outcome_unknown", "outcome_unknown")],
)
def test_an_outcome_nobody_saw_is_known_where_a_sensor_sees_inside(
    after: bool, kind: str, quarantine: str | None
) -> None:
    hall, name = stocked()
    hall.door(name, occupied=True)
    hall.answering = False
    hall.show("g1", parcel=LABEL)
    hall.crash()
    hall.door(name, occupied=after, first=True)
    hall.door(name, latched=True, first=True)
    assert hall.last(kind).subject == LABEL
    assert hall.state.status(name).quarantine == quarantine


def test_a_return_that_was_not_put_in_frees_its_compartment_and_its_code_is_spent() -> None:
    hall = Hall()
    hall.door("a1", occupied=False)
    hall.show("r1", parcel="back-1", purpose=Purpose.RETURN)
    hall.wait(0.5)
    hall.opens("a1")
    assert hall.last("locker.deposit_abandoned").data["parcel"] == "back-1"
    assert hall.state.status("a1").free
    hall.show("r1", parcel="back-1", purpose=Purpose.RETURN)
    assert hall.last("locker.code_refused").data["reason"] == "spent"


def test_a_return_finds_no_room_in_a_full_locker_and_is_not_spent() -> None:
    hall = Hall()
    for number in range(6):
        hall.deposit(f"p{number}")
        hall.wait(30)
    hall.show("r1", parcel="back-1", purpose=Purpose.RETURN)
    assert hall.last("locker.code_refused").data["reason"] == "nothing_here"
    assert hall.records.get("grant/r1") is None
