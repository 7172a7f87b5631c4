"""The locker's workflow: codes, couriers, those in charge, and laws that hold whatever happens."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from agent.locker.events import GrantShown, LeaseGiven, ServiceAsked
from agent.locker.grants import Grant, Purpose, Refusal, Way
from agent.workflow import Dismissed
from drivers.readings import Tone
from tests.locker_hall import START_S, Hall
from tests.test_governor import assert_within_bounds

# -- codes ----------------------------------------------------------------------------------------


def test_a_code_is_spent_before_its_door_is_pulsed() -> None:
    hall = Hall()
    hall.deposit("p1")
    hall.wait(61)
    hall.answering = False
    hall.show("g1", parcel="p1")
    assert hall.records["grant/g1"]["pulses"] == 1
    assert len(hall.pulses) == 2


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"parcel": "p9"}, "nothing_here"),
        ({"compartment": "z9"}, "nothing_here"),
        ({"compartment": "b2"}, "nothing_here"),
        ({"parcel": "p1", "exp": START_S}, "expired"),
        ({"parcel": "p1", "nbf": START_S + 10_000}, "not_yet"),
        ({"parcel": "p1", "revoked": True}, "revoked"),
    ],
)
def test_a_code_that_opens_nothing_is_refused_with_its_reason(about: dict[str, Any], reason: str) -> None:
    hall = Hall()
    hall.deposit("p1")
    pulses = len(hall.pulses)
    hall.show("g1", **about)
    assert hall.last("locker.code_refused").data["reason"] == reason
    assert hall.tones[-1] is Tone.BAD
    assert len(hall.pulses) == pulses


def test_every_wrong_code_sounds_the_same() -> None:
    hall = Hall()
    hall.deposit("p1")
    heard = set()
    ways: tuple[Callable[[], None], ...] = (
        lambda: hall.wrong(),
        lambda: hall.show("g1", parcel="p9"),
        lambda: hall.show("g2", parcel="p1", exp=START_S),
        lambda: hall.wrong(reason=Refusal.MALFORMED),
        lambda: hall.wrong(reason=Refusal.OTHER_LOCKER),
    )
    for shown in ways:
        before = len(hall.tones)
        shown()
        heard.add(tuple(hall.tones[before:]))
    assert heard == {(Tone.BAD,)}


def test_a_pin_is_dead_after_five_wrong_ones_for_its_selector_and_its_qr_code_is_not() -> None:
    hall = Hall()
    hall.deposit("p1")
    for _ in range(5):
        hall.wrong()
        hall.wait(3600)
    grant = Grant(jti="g1", way=Way.PIN, exp=START_S + 10**6, parcel="p1")
    hall.take(GrantShown(at=hall.now, unit="keypad", way=Way.PIN, grant=grant, selector="s1"))
    assert hall.last("locker.code_refused").data["reason"] == "pin_off"
    hall.show("g1", parcel="p1")
    assert hall.pulses[-1][0] == 1


def test_caps_and_cool_downs_hold_across_restarts() -> None:
    hall = Hall()
    hall.deposit("p1")
    for _ in range(3):
        hall.wrong()
    assert "locker.codes_paused" in hall.types()
    hall.crash()
    grant = Grant(jti="g1", way=Way.PIN, exp=START_S + 10**6, parcel="p1")
    shown = GrantShown(at=hall.now, unit="keypad", way=Way.PIN, grant=grant, selector="s2")
    hall.take(shown)
    assert hall.last("locker.code_refused").data["reason"] == "paused"


def test_a_code_that_nobody_can_guess_shuts_no_one_else_out() -> None:
    hall = Hall()
    hall.deposit("p1")
    for number in range(40):
        hall.show(f"old-{number}", parcel="p1", exp=START_S)
    assert hall.state.guard.wrong == 0
    hall.show("g1", way=Way.PIN, parcel="p1")
    hall.wait(0.5)
    assert hall.pulses[-1][0] == 1


def test_ten_thousand_wrong_codes_pulse_nothing() -> None:
    hall = Hall()
    hall.deposit("p1")
    pulses = len(hall.pulses)
    chance = random.Random(3)
    for number in range(10_000):
        way = chance.choice((Way.PIN, Way.QR, Way.CODE))
        refusal = chance.choice((Refusal.UNKNOWN, Refusal.OTHER_LOCKER, Refusal.MALFORMED))
        hall.take(GrantShown(at=hall.now, unit="gun", way=way, refusal=refusal, selector=f"s{number % 9}"))
        hall.ns += 10**8
    assert len(hall.pulses) == pulses


# -- couriers -------------------------------------------------------------------------------------


def test_a_deposit_gets_the_smallest_compartment_that_fits() -> None:
    hall = Hall()
    assert [hall.deposit(f"p{n}", "S") for n in range(3)] == ["a1", "a2", "b1"]
    deposited = hall.last("locker.deposited")
    assert (deposited.subject, deposited.data["compartment"]) == ("p2", "b1")
    assert deposited.data["grant"] == "minted-3"


def test_a_full_locker_refuses_with_the_reason_and_opens_nothing() -> None:
    hall = Hall()
    for number in range(2):
        hall.deposit(f"p{number}", "L")
        hall.wait(30)
    pulses = len(hall.pulses)
    hall.scan("p9")
    assert hall.last("locker.refused").data == {"unit": "gun", "reason": "no_compartment", "size": "L"}
    assert len(hall.pulses) == pulses


def test_a_size_may_be_chosen_after_the_scan() -> None:
    hall = Hall()
    hall.courier()
    hall.scan("p1")
    assert hall.tones[-1] is Tone.ASK
    hall.control("size", "l")
    hall.wait(0.5)
    assert hall.pulses[-1][0] == 5


def test_a_scan_may_be_cancelled() -> None:
    hall = Hall()
    hall.courier()
    hall.scan("p1")
    hall.control("cancel")
    hall.control("size", "s")
    hall.wait(1)
    assert not hall.pulses


@pytest.mark.parametrize("words", [("size", "s"), ("retrieve",), ("open", "a1"), ("nonsense",)])
def test_nothing_is_done_without_a_session(words: tuple[str, ...]) -> None:
    hall = Hall()
    hall.control(*words)
    hall.scan("p1")
    assert {entry.data["reason"] for entry in hall.entries if entry.type == "locker.refused"} == {
        "no_session"
    }
    assert not hall.pulses


def test_the_same_parcel_is_not_taken_twice() -> None:
    hall = Hall()
    hall.deposit("p1")
    hall.scan("p1")
    assert hall.last("locker.refused").data["compartment"] == "a1"


def test_a_parcel_nobody_collected_is_told_once_and_retrieved_by_a_courier() -> None:
    hall = Hall()
    hall.deposit("p1")
    hall.wait(hall.rules.hold + 60)
    assert hall.types().count("locker.expired") == 1
    hall.courier()
    hall.control("retrieve")
    hall.wait(0.5)
    hall.opens("a1")
    assert hall.last("locker.retrieved").subject == "p1"
    hall.control("retrieve")
    assert hall.last("locker.refused").data["reason"] == "nothing_to_retrieve"


def test_a_return_is_put_in_by_a_code_and_taken_out_by_a_courier() -> None:
    hall = Hall()
    hall.show("r1", parcel="back-1", purpose=Purpose.RETURN)
    hall.wait(0.5)
    hall.opens("a1")
    assert hall.last("locker.returned").data["compartment"] == "a1"
    hall.show("g1", parcel="back-1")
    assert hall.last("locker.code_refused").data["reason"] == "nothing_here"
    hall.courier()
    hall.control("retrieve")
    hall.wait(0.5)
    hall.opens("a1")
    assert hall.last("locker.retrieved").subject == "back-1"


def test_who_is_dismissed_opens_nothing_more() -> None:
    hall = Hall()
    hall.courier()
    hall.take(Dismissed(at=hall.now, reason="revoked", subject="drv-1"))
    hall.scan("p1")
    assert hall.last("locker.session_closed").data["reason"] == "revoked"
    assert hall.last("locker.refused").data["reason"] == "no_session"


# -- those in charge ------------------------------------------------------------------------------


def lease(hall: Hall, name: str, command: str = "c1") -> None:
    hall.take(
        LeaseGiven(at=hall.now, compartment=name, command=command, by="key", operator="op-7", reason="stuck")
    )


def test_a_lease_opens_its_door_and_names_who_wanted_it() -> None:
    hall = Hall()
    lease(hall, "b1")
    hall.wait(0.5)
    data = hall.last("locker.opening_intended").data
    assert (data["operator"], data["reason"], data["by"]) == ("op-7", "stuck", "key")
    assert [door for door, _ in hall.pulses] == [3]


@pytest.mark.parametrize("how", ["locked", "unknown", "away"])
def test_a_lease_that_cannot_be_is_refused_with_its_reason(how: str) -> None:
    hall = Hall()
    if how == "locked":
        hall.locked_down = True
    if how == "away":
        hall.board_lost()
    lease(hall, "z9" if how == "unknown" else "b1")
    reasons = {"locked": "locked_down", "unknown": "nothing_here", "away": "out_of_service"}
    assert hall.last("locker.lease_refused").data["reason"] == reasons[how]
    assert not hall.pulses


def test_nothing_opens_while_openings_are_disabled() -> None:
    hall = Hall()
    hall.deposit("p1")
    hall.locked_down = True
    pulses = len(hall.pulses)
    hall.show("g1", parcel="p1")
    hall.scan("p2")
    hall.control("retrieve")
    hall.wait(5)
    assert len(hall.pulses) == pulses
    assert hall.records.get("grant/g1") is None, "a grant is not spent on a locked locker"


def test_a_technician_opens_any_door_and_turns_pins_on_again() -> None:
    hall = Hall()
    for _ in range(30):
        hall.wrong(selector="s")
        hall.wait(1 if hall.state.guard.row % 3 else 3601)
    assert hall.last("locker.pins_disabled").data == {"wrong": 30}
    hall.courier("tech-1", role="technician")
    hall.control("pins", "on")
    assert hall.types()[-1] == "locker.pins_restored"
    hall.control("open", "c1")
    hall.wait(0.5)
    assert hall.pulses[-1][0] == 5


def test_a_courier_is_no_technician() -> None:
    hall = Hall()
    hall.courier()
    hall.control("open", "c1")
    assert hall.last("locker.refused").data["reason"] == "not_now"


def test_a_compartment_is_taken_out_of_use_and_given_back() -> None:
    hall = Hall()
    hall.take(ServiceAsked(at=hall.now, verb="quarantine", compartment="a1", reason="smells"))
    assert hall.deposit("p1") == "a2"
    hall.take(ServiceAsked(at=hall.now, verb="release", compartment="a1", reason="cleaned"))
    assert hall.last("locker.compartment_released").data == {"reason": "cleaned", "was": "smells"}
    assert hall.deposit("p2") == "a1"


# -- laws -----------------------------------------------------------------------------------------


class Chaos:
    """Recipients, couriers, faults and crashes in any order."""

    def __init__(self, seed: int) -> None:
        self.hall = Hall()
        self.chance = random.Random(seed)
        self.labels = [f"p{n}" for n in range(12)]
        self.opened: list[str] = []

    def step(self) -> None:
        hall, chance = self.hall, self.chance
        name = chance.choice(list(hall.rules.wall.compartments))
        label = chance.choice(self.labels)
        acts = (
            lambda: hall.courier(chance.choice(("drv-1", "drv-2"))),
            lambda: hall.scan(label),
            lambda: hall.control("size", chance.choice("sml")),
            lambda: hall.control(chance.choice(("retrieve", "end", "cancel"))),
            lambda: hall.show(f"g-{label}", parcel=label),
            lambda: hall.show(f"g-{label}", parcel=label),
            lambda: hall.door(name, latched=False),
            lambda: hall.door(name, latched=True),
            lambda: hall.door(name, latched=True),
            lambda: hall.opens(name, for_s=chance.choice((0.3, 4.0))),
            lambda: hall.wait(chance.choice((0.2, 1.0, 3.0, 20.0, 200.0))),
            lambda: self._crash(reboot=chance.random() < 0.3),
            self._board,
            lambda: setattr(hall, "answering", chance.random() < 0.7),
            lambda: self._release(name),
        )
        chance.choice(acts)()

    def _crash(self, *, reboot: bool) -> None:
        self.hall.crash(reboot=reboot)
        self._found()

    def _board(self) -> None:
        self.hall.board_lost()
        self._found()

    def _found(self) -> None:
        for name in self.hall.rules.wall.compartments:
            self.hall.door(name, latched=self.chance.random() < 0.9, first=True)

    def _release(self, name: str) -> None:
        asked = ServiceAsked(at=self.hall.now, verb="release", compartment=name, reason="looked")
        self.hall.take(asked)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_no_door_opens_twice_for_one_grant_and_none_without_an_intent(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(400):
        chaos.step()
    hall = chaos.hall
    entries = hall.entries
    intents = [entry for entry in entries if entry.type == "locker.opening_intended"]
    assert len(hall.pulses) <= len(intents)
    for label in chaos.labels:
        grant = f"g-{label}"
        opened = [
            at
            for at, entry in enumerate(entries)
            if entry.type in ("locker.collected", "locker.left_behind") and entry.data.get("grant") == grant
        ]
        assert len(opened) <= 1
    assert len({entry.data["compartment"] for entry in entries if entry.type == "locker.deposited"}) <= 6


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_wiring_is_spared(seed: int) -> None:
    chaos = Chaos(100 + seed)
    for _ in range(400):
        chaos.step()
        chaos.hall.ns += 1
    assert_within_bounds(chaos.hall)


@pytest.mark.parametrize("seed", range(5))
def test_the_records_alone_tell_the_whole_state(seed: int) -> None:
    chaos = Chaos(200 + seed)
    for _ in range(200):
        chaos.step()
    hall = chaos.hall
    again = hall.workflow.restore(hall.records, hall.now)
    assert (again.session, again.pending, again.size) == (
        hall.state.session,
        hall.state.pending,
        hall.state.size,
    )
    assert again.guard == hall.state.guard
    assert {name: status for name, status in again.statuses.items() if not status.free} == {
        name: status for name, status in hall.state.statuses.items() if not status.free
    }
