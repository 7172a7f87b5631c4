"""What the config may say of a locker, and how every mistake in it is named."""

import pytest

from agent.config import Config, parse
from agent.locker.compartments import Size
from agent.locker.config import VISIT_S
from agent.mistakes import BadConfig
from tests.locker_hall import Hall

LEAST = """
[device]
id = "locker-12"
tenant = "lab"
[broker]
host = "localhost"
[unit.bus]
kind = "cu16"
port = "/dev/ttyUSB0"
boards = [{ address = 0, locks = 4 }, { address = 1, locks = 2 }]
[unit.gun]
kind = "line"
port = "/dev/ttyUSB1"
"""
A1 = '[locker.compartment.a1]\nunit = "bus"\ndoor = 1\n'


def config(more: str = A1) -> Config:
    return parse(LEAST + more)


def mistakes(more: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        config(more)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_locker_is_its_compartments() -> None:
    rules = config(
        A1 + '[locker.compartment.b1]\nunit = "bus"\ndoor = 6\nsize = "XL"\nsupply = "right"'
    ).locker_rules()
    assert rules is not None
    built = rules.wall.compartments["b1"]
    assert (built.unit, built.door, built.size, built.supply) == ("bus", 6, Size.XL, "right")
    assert rules.wall.compartments["a1"].size is Size.M
    assert rules.hold == 7 * 86_400


def test_without_compartments_it_is_no_locker() -> None:
    assert config("").locker_rules() is None


def test_nobody_stays_at_a_locker_for_longer_than_a_visit() -> None:
    rules = config("[custody]\nlongest = 3600\n" + A1).locker_rules()
    short = config("[custody]\nlongest = 60\n" + A1).locker_rules()
    assert rules is not None
    assert short is not None
    assert (rules.longest, short.longest) == (VISIT_S, 60)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[locker]", "locker.compartment: expected a value, got nothing"),
        ("[locker]\ncompartment = {}", "locker.compartment: expected at least one compartment, got none"),
        (
            '[locker.compartment.a1]\nunit = "wall"\ndoor = 1',
            "locker.compartment.a1.unit: expected one of the lock boards bus, got 'wall'",
        ),
        (
            '[locker.compartment.a1]\nunit = "gun"\ndoor = 1',
            "locker.compartment.a1.unit: expected one of the lock boards bus, got 'gun'",
        ),
        (
            '[locker.compartment.a1]\nunit = "bus"\ndoor = 7',
            "locker.compartment.a1.door: expected a door from 1 to 6, got 7",
        ),
        (
            A1 + '[locker.compartment.a2]\nunit = "bus"\ndoor = 1',
            "locker.compartment.a2.door: expected a door of its own, got the door of a1",
        ),
        (
            A1 + 'neighbours = ["z9"]',
            "locker.compartment.a1.neighbours: expected names of other compartments, got 'z9'",
        ),
        (
            A1 + 'neighbours = ["a1"]',
            "locker.compartment.a1.neighbours: expected names of other compartments, got 'a1'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(more: str, said: str) -> None:
    assert mistakes(more) == [said]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        (A1 + "colour = 1", "locker.compartment.a1.colour"),
        ('[locker.compartment.a1]\nunit = "bus"\ndoor = 0', "locker.compartment.a1.door"),
        ('[locker.compartment.a1]\nunit = "bus"\ndoor = "1"', "locker.compartment.a1.door"),
        ('[locker.compartment.a1]\nunit = "bus"', "locker.compartment.a1.door"),
        (A1 + 'size = "XXL"', "locker.compartment.a1.size"),
        (A1 + 'supply = "Main Street"', "locker.compartment.a1.supply"),
        ('[locker.compartment.A1]\nunit = "bus"\ndoor = 1', "locker.compartment: expected names that match"),
        ("[locker]\nhold_days = 0\n" + A1, "locker.hold_days"),
        ("[locker]\nhold_days = 61\n" + A1, "locker.hold_days"),
        ("[locker]\npulse = 1.1\n" + A1, "locker.pulse"),
        ("[locker]\ngap = 0\n" + A1, "locker.gap"),
        ("[locker]\nheld = 5\n" + A1, "locker.held"),
        ("[locker]\najar = 0.1\n" + A1, "locker.ajar"),
        ('[fleet]\nseal_key = "short"\n' + A1, "fleet.seal_key"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_what_was_found(more: str, path: str) -> None:
    (said,) = mistakes(more)
    assert said.startswith(path)
    assert "expected" in said
    assert "got" in said


def test_a_supply_of_its_own_opens_at_the_same_time() -> None:
    two = A1 + '[locker.compartment.b1]\nunit = "bus"\ndoor = 2\nsupply = "right"\n'
    for more, pulses in ((two, [1, 2]), (two.replace("right", "main"), [1])):
        rules = config(more).locker_rules()
        assert rules is not None
        hall = Hall(rules)
        for label in ("p1", "p2"):
            hall.deposit(label, "M")
            hall.wait(60)
        hall.pulses.clear()
        hall.show("g1", parcel="p1")
        hall.show("g2", parcel="p2")
        assert [door for door, _ in hall.pulses] == pulses
        hall.wait(2)
        assert [door for door, _ in hall.pulses] == [1, 2]
