"""What happens at a locker once in a year: each of its branches, by what somebody there does."""

from agent.locker.events import BoardLost, GrantShown, LeaseGiven, PulseEnded, ServiceAsked
from agent.locker.grants import Refusal, Way
from agent.workflow import Dismissed
from drivers.readings import OpenDoor
from tests.locker_hall import Hall


def test_a_board_that_is_lost_twice_is_said_to_be_lost_once() -> None:
    hall = Hall()
    hall.board_lost()
    hall.board_lost()
    assert hall.types().count("locker.out_of_service") == 1


def test_a_door_that_is_pulled_open_again_before_it_latches_is_opened_for_the_same_grant() -> None:
    hall = Hall()
    name = hall.deposit("p1")
    hall.door(name, closed=True)
    hall.show("g1", parcel="p1")
    hall.wait(0.5)
    hall.door(name, latched=False, closed=False)
    hall.door(name, closed=True)
    hall.door(name, closed=False)
    hall.door(name, closed=True, latched=True)
    assert hall.types().count("door.opened") == 3, "one for the deposit, two for the pickup"
    assert hall.records["grant/g1"]["opened"]
    assert len(hall.pulses) == 2


def test_without_a_key_of_the_fleet_a_deposit_makes_no_grant() -> None:
    hall = Hall()
    hall.mint = lambda *_: None  # type: ignore[assignment,method-assign]
    hall.deposit("p1")
    assert hall.last("locker.deposited").data["grant"] is None


def test_a_lease_whose_pulse_is_never_ordered_tells_whoever_waits() -> None:
    hall = Hall()
    told = {"command": "c1", "by": "k1", "operator": "op-7", "reason": "stuck"}
    hall.take(LeaseGiven(at=hall.now, compartment="a1", **told))
    names = tuple(hall.rules.wall.compartments)
    decision = hall.take(BoardLost(at=hall.now, compartments=names, reason="gone"))
    assert [order.action for order in decision.dropped] == [OpenDoor(door=1)]
    assert not hall.pulses


def test_a_pin_that_is_none_counts_against_no_parcel() -> None:
    hall = Hall()
    shown = GrantShown(at=hall.now, unit="keypad", way=Way.PIN, refusal=Refusal.MALFORMED)
    hall.take(shown)
    assert hall.state.guard.wrong == 1
    assert not [key for key in hall.records if key.startswith("wrong/")]


def test_a_compartment_is_taken_out_of_use_once_and_not_while_somebody_is_there() -> None:
    hall = Hall()

    def ask(name: str) -> None:
        hall.take(ServiceAsked(at=hall.now, verb="quarantine", compartment=name, reason="paint"))

    ask("a2")
    ask("a2")
    assert hall.last("locker.service_refused").data["why"] == "it is in quarantine: paint"
    hall.courier()
    hall.control("size", "S")
    hall.scan("p1")
    ask("a1")
    assert hall.last("locker.service_refused").data["why"].startswith("its door is")


def test_whoever_else_is_dismissed_the_courier_stays() -> None:
    hall = Hall()
    hall.courier()
    hall.take(Dismissed(at=hall.now, reason="revoked", subject="drv-2"))
    assert hall.state.session is not None


def test_a_lease_that_the_board_will_not_pulse_has_its_answer_from_the_board() -> None:
    hall = Hall()
    hall.answering = False
    told = {"command": "c1", "by": "k1", "operator": "op-7", "reason": "stuck"}
    hall.take(LeaseGiven(at=hall.now, compartment="a1", **told))
    hall.wait(0.5)
    assert len(hall.pulses) == 1
    ended = PulseEnded(at=hall.now, compartment="a1", ok=False, unknown=False, reason="busy")
    assert not hall.take(ended).dropped
    assert hall.last("locker.not_opened").data["why"] == "not_pulsed"
