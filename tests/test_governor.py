"""The governor: one pulse a supply, a gap after it, and no coil that gets hot."""

import itertools
import random
from dataclasses import replace

from agent.clock import NS
from agent.locker.compartments import Wall
from agent.locker.events import BoardLost, PulseEnded
from agent.locker.governor import Bounds, Governor
from tests.locker_hall import Hall, wall
from tests.moments import moment

BOUNDS = Bounds(gap=0.3, window=60.0, on_time=2.4)


def test_the_first_pulse_waits_a_gap_since_nobody_knows_what_was_pulsed_before() -> None:
    governor = Governor.started(moment(10))
    assert governor.not_before_ns("main", "a", 0.5, BOUNDS) == moment(10.3).mono_ns


def test_a_supply_carries_one_pulse_at_a_time() -> None:
    governor = Governor.started(moment(0)).pulsed("main", "a", 0.5, moment(100), BOUNDS)
    assert governor.not_before_ns("main", "b", 0.5, BOUNDS) == moment(100.8).mono_ns
    assert governor.not_before_ns("other", "b", 0.5, BOUNDS) < moment(100).mono_ns


def test_a_coil_has_a_budget_within_the_window() -> None:
    governor = Governor.started(moment(0))
    for second in (100, 110, 120, 130):
        governor = governor.pulsed("main", "a", 0.5, moment(second), BOUNDS)
    assert governor.not_before_ns("main", "a", 0.5, BOUNDS) == moment(160).mono_ns
    assert governor.not_before_ns("main", "b", 0.5, BOUNDS) == moment(130.8).mono_ns


def test_a_thousand_requests_at_once_never_exceed_what_the_wiring_stands() -> None:
    chance = random.Random(7)
    hall = Hall()
    names = list(hall.rules.wall.compartments)
    for number, name in enumerate(names):
        hall.deposit(f"parcel-{number}", hall.rules.wall.compartments[name].size.name)
        hall.wait(30)
    hall.wait(120)
    before = len(hall.pulses)
    for number in range(1000):
        hall.show(f"g{number}", parcel=f"parcel-{chance.randrange(len(names))}")
        if chance.random() < 0.1:
            hall.wait(chance.uniform(0, 2))
    hall.wait(120)
    asked = hall.pulses[before:]
    assert len(asked) >= len(names)
    assert_within_bounds(hall)


def assert_within_bounds(hall: Hall) -> None:
    """No two pulses overlap on the supply; no coil is on for longer than its budget in any window."""
    bounds, on_ns = hall.rules.bounds, NS // 2
    starts = [at_ns for _, at_ns in hall.pulses]
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert min(gaps) >= on_ns + int(bounds.gap * NS)
    for door in {door for door, _ in hall.pulses}:
        mine = [at_ns for each, at_ns in hall.pulses if each == door]
        for start_ns in mine:
            within = [at_ns for at_ns in mine if 0 <= at_ns - start_ns < bounds.window * NS]
            assert len(within) * on_ns <= bounds.on_time * NS


# -- what a restart knows --------------------------------------------------------------------------


def hot() -> Governor:
    """A coil with its budget spent, the last of it just now."""
    governor = Governor.started(moment(0))
    for second in (100, 102, 104, 106):
        governor = governor.pulsed("main", "a", 0.5, moment(second), BOUNDS)
    return governor


def test_a_restart_buys_no_pulse() -> None:
    before = hot()
    after = Governor.load(before.dump(moment(106), BOUNDS), moment(107))
    for coil in ("a", "b"):
        expected_ns = before.not_before_ns("main", coil, 0.5, BOUNDS)
        assert after.not_before_ns("main", coil, 0.5, BOUNDS) == expected_ns
    assert after.not_before_ns("main", "a", 0.5, BOUNDS) == moment(160).mono_ns


def test_after_a_reboot_what_was_pulsed_counts_as_if_it_had_just_been() -> None:
    after = Governor.load(hot().dump(moment(106), BOUNDS), moment(15, boot="boot-2"))
    assert after.not_before_ns("main", "a", 0.5, BOUNDS) == moment(60).mono_ns
    assert after.not_before_ns("main", "b", 0.5, BOUNDS) <= moment(15).mono_ns


def test_what_has_cooled_down_is_not_remembered() -> None:
    assert hot().dump(moment(164), BOUNDS)["coils"] == {"a": [[moment(106).mono_ns, NS // 2]]}
    assert hot().dump(moment(200), BOUNDS)["coils"] == {}


def test_an_order_that_waited_for_the_line_counts_from_when_the_board_told_of_it() -> None:
    ordered = Governor.started(moment(0)).pulsed("main", "a", 0.5, moment(100), BOUNDS)
    fed = ordered.fed("main", "a", 0.5, moment(104), BOUNDS)
    assert fed.not_before_ns("main", "b", 0.5, BOUNDS) == moment(104.8).mono_ns
    assert fed.dump(moment(104), BOUNDS)["coils"] == {"a": [[moment(104).mono_ns, NS // 2]]}


def test_a_line_carries_one_pulse_at_a_time_whatever_its_supplies() -> None:
    each = [replace(compartment, supply=name) for name, compartment in wall().compartments.items()]
    rules = replace(Hall().rules, wall=Wall(compartments={one.name: one for one in each}))
    hall = Hall(rules)
    for label in ("p1", "p2"):
        hall.deposit(label)
        hall.wait(60)
    hall.pulses.clear()
    hall.answering = False
    hall.show("g1", parcel="p1")
    hall.show("g2", parcel="p2")
    hall.wait(1)
    assert [door for door, _ in hall.pulses] == [1]
    hall.take(PulseEnded(at=hall.now, compartment="a1", ok=True, unknown=False, reason=""))
    assert [door for door, _ in hall.pulses] == [1, 2]


def test_a_pulse_nobody_knows_of_frees_its_line_at_once() -> None:
    hall = Hall()
    for label in ("p1", "p2"):
        hall.deposit(label)
        hall.wait(60)
    hall.pulses.clear()
    hall.answering = False
    hall.show("g1", parcel="p1")
    hall.show("g2", parcel="p2")
    hall.take(PulseEnded(at=hall.now, compartment="a1", ok=False, unknown=True, reason="no answer"))
    hall.wait(2)
    assert [door for door, _ in hall.pulses] == [1, 2]
    hall.wait(10)
    assert hall.state.status("a1").quarantine == "outcome_unknown"


def test_a_board_that_is_away_with_its_answer_keeps_no_other_board_waiting() -> None:
    hall = Hall()
    for label in ("p1", "p2"):
        hall.deposit(label)
        hall.wait(60)
    hall.answering = False
    hall.show("g1", parcel="p1")
    hall.take(BoardLost(at=hall.now, compartments=("a1",), reason="board_silent"))
    hall.pulses.clear()
    hall.show("g2", parcel="p2")
    hall.wait(2)
    assert [door for door, _ in hall.pulses] == [2]
