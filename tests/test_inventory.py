"""Is it still the same unit? What is remembered, what is doubted, and how belief comes back."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse
from agent.intake import Intake, Role
from agent.inventory import Inventory
from agent.mistakes import BadConfig
from agent.roster import Roster, Row, pin_token
from agent.row_seal import Keys
from agent.session import Login
from agent.workflow import CodeEntered, FactorShown, LabelRead, Outcome
from drivers.readings import CompareResult, FingerCompared, Scanned
from tests.moments import moment

LEAST = '[device]\nid = "abc"\ntenant = "abc"\n[broker]\nhost = "localhost"\n'
ABOUT = {
    "capacity": "200",
    "security": "3",
    "address": "ffffffff",
    "packet_bytes": "128",
    "baud": "57600",
    "templates": "2",
    "index": "5f2e81",
    "serial": "1111-10080307",
    "firmware": "1.0.1",
}


class Shelf:
    """An inventory with the records that the journal would keep."""

    def __init__(self, expected: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.inventory = Inventory(expected)
        self.records: dict[str, Any] = {}

    def see(self, **other: str | None) -> tuple[str, Any] | None:
        """The module is opened, and differs in this from what it was."""
        about = {key: value for key, value in {**ABOUT, **other}.items() if value is not None}
        sighting = self.inventory.sighted("finger", about, self.records)
        self.records |= sighting.records
        return (sighting.entry.type, sighting.entry.data) if sighting.entry else None

    @property
    def doubted(self) -> bool:
        return self.inventory.doubts("finger")

    def restart(self, expected: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.inventory = Inventory(expected)


def seen(expected: Mapping[str, Mapping[str, str]] | None = None) -> Shelf:
    shelf = Shelf(expected)
    assert shelf.see() is None
    return shelf


def test_the_first_sight_is_remembered_and_believed() -> None:
    shelf = seen()
    assert not shelf.doubted
    assert shelf.records == {
        "unit/finger": {key: value for key, value in ABOUT.items() if key not in ("baud", "packet_bytes")}
    }
    shelf.restart()
    assert shelf.see() is None
    assert not shelf.doubted


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("capacity", "1000"),
        ("security", "1"),
        ("address", "00000001"),
        ("index", "77c0d4"),
        ("index", None),
        ("serial", "1111-10080308"),
        ("serial", None),
        ("firmware", "1.0.2"),
    ],
)
def test_a_unit_that_tells_something_else_is_doubted(key: str, found: str | None) -> None:
    shelf = seen()
    assert shelf.see(**{key: found}) == (
        "identity.peripheral_changed",
        {"changes": {key: {"expected": ABOUT[key], "found": found}}},
    )
    assert shelf.doubted
    assert shelf.records["unit/finger"][key] == ABOUT[key], "what was remembered stays"


def test_what_a_unit_has_not_told_before_is_remembered_and_believed_once() -> None:
    """As after an update of ours that asks for more."""
    shelf = Shelf()
    shelf.see(serial=None)
    for _ in range(2):
        shelf.restart()
        assert shelf.see() is None
    assert shelf.see(serial="1111-10080308") is not None


@pytest.mark.parametrize("key", ["baud", "packet_bytes"])
def test_how_the_line_was_found_says_nothing_about_the_unit(key: str) -> None:
    shelf = seen()
    assert shelf.see(**{key: "9600"}) is None
    assert not shelf.doubted


def test_it_is_told_once_and_again_after_a_restart() -> None:
    shelf = seen()
    assert shelf.see(capacity="1000")
    assert shelf.see(capacity="1000") is None
    assert shelf.doubted
    shelf.restart()
    assert shelf.see(capacity="1000")


def test_the_old_one_is_believed_again() -> None:
    shelf = seen()
    shelf.see(capacity="1000")
    told = shelf.see()
    assert told is not None
    assert told[0] == "identity.peripheral_believed"
    assert not shelf.doubted


def test_an_operator_who_names_the_new_one_is_believed() -> None:
    shelf = seen()
    shelf.see(capacity="1000")
    shelf.restart({"finger": {"capacity": "1000"}})
    assert shelf.see(capacity="1000") is None
    assert not shelf.doubted
    shelf.restart()
    assert shelf.see(capacity="1000") is None, "and remembered"


def test_what_the_config_names_counts_from_the_first_sight_on() -> None:
    shelf = Shelf({"finger": {"capacity": "200", "serial": "A1"}})
    assert shelf.see() == (
        "identity.peripheral_changed",
        {"changes": {"serial": {"expected": "A1", "found": ABOUT["serial"]}}},
    )
    assert shelf.doubted
    assert shelf.records == {}


def test_a_finger_taught_by_us_changes_the_index_and_nothing_else() -> None:
    shelf = seen()
    shelf.records |= shelf.inventory.taught("finger", shelf.records)
    assert shelf.see(index="77c0d4", templates="3") is None
    assert not shelf.doubted
    assert shelf.see(index="000000")
    shelf = seen()
    shelf.records |= shelf.inventory.taught("finger", shelf.records)
    assert shelf.see(index="77c0d4", capacity="1000")


def test_a_look_alike_cannot_be_taught_into_belief() -> None:
    shelf = seen()
    shelf.see(index="77c0d4")
    assert shelf.inventory.taught("finger", shelf.records) == {}


def test_the_config_says_which_unit_is_meant() -> None:
    text = (
        '[device]\nid = "abc"\ntenant = "abc"\n[broker]\nhost = "localhost"\n[unit.finger]\nkind = "r503"\n'
    )
    (unit,) = parse(f'{text}port = "/dev/f"\nexpect = {{ capacity = "200" }}\n').units
    assert unit.expect == {"capacity": "200"}
    with pytest.raises(BadConfig, match=r"unit\.finger\.expect: expected"):
        parse(f'{text}port = "/dev/f"\nexpect = {{}}\n')


# -- what is not believed -------------------------------------------------------------------------

ANNA = "drv-anna"
LOGIN = Login(
    subject=ANNA, kinds=("badge",), level=0, unit="badges", finger=("finger", 7), boot="boot-1", mono_ns=0
)
MATCH = FingerCompared(slot=7, result=CompareResult.MATCHED, score=200)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    roster = Roster(tmp_path / "roster.db", Keys(bytes(32), bytes(32)))
    roster.put(Row(subject=ANNA, kind="badge", finger=("finger", 7)), b"0100a3e9ae", as_of=0)
    roster.put(Row(subject=ANNA, kind="pin"), pin_token(ANNA, b"84612075"), as_of=0)
    shelf = Shelf({unit: {"serial": "A1"} for unit in ("finger", "badges", "pad", "gun")})
    for unit in ("finger", "badges", "pad", "gun"):
        shelf.inventory.sighted(unit, {"serial": "B2"}, {})
    yield Intake(roster, shelf.inventory)
    roster.close()


@pytest.mark.parametrize(
    ("unit", "role", "reading", "claim", "kind", "subject"),
    [
        ("finger", Role.FINGER, MATCH, LOGIN, "slot", ANNA),
        ("badges", Role.BADGE, Scanned(data=b"0100a3e9ae"), None, "badge", None),
        ("pad", Role.KEYPAD, Scanned(data=b"84612075"), LOGIN, "pin", ANNA),
    ],
)
def test_what_a_doubted_unit_says_about_a_person_is_refused_and_held_against_nobody(
    intake: Intake,
    unit: str,
    role: Role,
    reading: FingerCompared | Scanned,
    claim: Login | None,
    kind: str,
    subject: str | None,
) -> None:
    taken = intake.take(unit, "line", role, reading, moment(1000), claim, {})
    assert taken is not None
    assert isinstance(taken.event, FactorShown)
    verdict = taken.event.verdict
    assert (verdict.outcome, verdict.kind, verdict.subject) == (Outcome.DOUBTED, kind, subject)
    assert verdict.age_s is not None
    assert taken.records == {}


def test_what_it_says_about_anything_else_is_taken(intake: Intake) -> None:
    label = intake.take("gun", "line", Role.PARCEL, Scanned(data=b"P1"), moment(1000), None, {})
    code = intake.take("pad", "line", Role.KEYPAD, Scanned(data=b"4711"), moment(1000), None, {})
    assert label is not None
    assert isinstance(label.event, LabelRead)
    assert code is not None
    assert isinstance(code.event, CodeEntered)
