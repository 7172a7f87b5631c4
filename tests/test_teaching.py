"""What is remembered of a module that an operator has taught: enough to know it again, and no more."""

from typing import Any

import pytest

from agent.inventory import PREFIX, SLOTS, Inventory
from agent.teaching import Change, origins, remembered

BEFORE = {"capacity": "200", "address": "ffffffff", "baud": "57600", "templates": "1", "index": "aaaa"}
AFTER = {**BEFORE, "templates": "2", "index": "bbbb"}
KNOWN = {key: value for key, value in BEFORE.items() if key != "baud"}
LOCAL = {"local": [5], "fleet": False}


def changed(before: dict[str, str] = BEFORE, *, taught: bool = True) -> Change:
    return Change(unit="finger", slot=7, taught=taught, before=before, after=AFTER)


def believed(records: dict[str, Any], about: dict[str, str] = AFTER) -> bool:
    """Whether a fresh agent believes the module as it is now."""
    inventory = Inventory()
    inventory.sighted("finger", about, records)
    return not inventory.doubts("finger")


def test_a_module_that_was_taught_is_known_again() -> None:
    records: dict[str, Any] = {PREFIX + "finger": KNOWN, SLOTS + "finger": LOCAL}
    assert not believed(records)
    records |= remembered(changed(), Inventory(), records)
    assert believed(records)
    assert records[SLOTS + "finger"] == {"local": [5, 7], "fleet": False}
    assert not believed(records, {**AFTER, "index": "cccc"}), "whatever else is taught is doubted as before"


def test_a_slot_that_was_forgotten_is_not_missed() -> None:
    records: dict[str, Any] = {SLOTS + "finger": {"local": [5, 7], "fleet": True}}
    assert remembered(changed(taught=False), Inventory(), records)[SLOTS + "finger"] == {
        **LOCAL,
        "fleet": True,
    }


@pytest.mark.parametrize("before", [{"index": "eeee"}, {"capacity": "100"}])
def test_a_module_that_was_doubted_before_is_doubted_still(before: dict[str, str]) -> None:
    """Two were put in by somebody else, and one of them is forgotten: the other is not forgiven."""
    records: dict[str, Any] = {PREFIX + "finger": KNOWN, SLOTS + "finger": LOCAL}
    assert PREFIX + "finger" not in remembered(changed({**BEFORE, **before}), Inventory(), records)


def test_one_that_was_never_seen_is_known_as_it_is_now() -> None:
    records: dict[str, Any] = remembered(changed(), Inventory(), {})
    assert believed(records)
    assert not believed(records, {**AFTER, "index": "aaaa"})
    assert SLOTS + "finger" not in records


def test_where_the_fleet_says_what_it_holds_its_index_is_not_kept() -> None:
    kept = {key: value for key, value in KNOWN.items() if key not in ("templates", "index")}
    records: dict[str, Any] = {PREFIX + "finger": kept, SLOTS + "finger": {"local": [], "fleet": True}}
    records |= remembered(changed(), Inventory(), records)
    assert records[PREFIX + "finger"] == kept
    assert records[SLOTS + "finger"] == {"local": [7], "fleet": True}


def test_every_taken_slot_has_somebody_who_put_it_there() -> None:
    records = {SLOTS + "finger": {"local": [5], "fleet": True}, "template/finger/7": {}}
    assert origins("finger", [9, 5, 7], records) == {5: "here", 7: "fleet", 9: "foreign"}
    assert origins("finger", [9], {}) == {9: "here"}, "at first sight all of them are"
