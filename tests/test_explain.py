"""What a config would change, in words."""

import pytest

from agent.config import parse
from agent.explain import asks_for_bodies, explain

KEYS = '[unit.keys]\nkind = "line"\nrole = "keypad"\nport = "/dev/ttyUSB2"\n'
VAN = """
[device]
id = "van-0042"
tenant = "acme"

[broker]
host = "mqtt.example"

[journal]
size_mib = 512

[unit.gun]
kind = "line"
port = "/dev/ttyUSB0"

[unit.badge]
kind = "em4100"
port = "/dev/ttyUSB1"

[unit.keys]
kind = "line"
role = "keypad"
port = "/dev/ttyUSB2"
"""

BODIES = """
[unit.card]
kind = "pn532"
port = "/dev/ttyUSB3"

[unit.terminal]
kind = "line"
role = "token"
port = "/dev/ttyUSB4"
"""

LOCKER = """
[device]
id = "locker-17"
tenant = "acme"

[broker]
host = "mqtt.example"

[unit.bus]
kind = "cu16"
port = "/dev/ttyUSB0"

[locker.compartment.a1]
unit = "bus"
door = 1

[locker.compartment.a2]
unit = "bus"
door = 2
"""


def effects(old: str, new: str, **more: object) -> list[str]:
    found = explain(parse(old), parse(new), **more)  # type: ignore[arg-type]
    return [f"{effect.what} {effect.subject}" for effect in found.effects]


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def test_the_same_config_changes_nothing() -> None:
    explanation = explain(parse(VAN), parse(VAN))
    assert explanation.text == "nothing changes"
    assert explanation.as_json() == {"restart": False, "effects": [], "changes": []}


def test_every_setting_that_differs_is_named_with_both_values() -> None:
    explanation = explain(parse(VAN), parse(changed(VAN, "512", "1024")))
    assert [str(change) for change in explanation.changes] == ["journal.size_mib: 512 -> 1024"]
    assert explanation.restart
    assert not explanation.effects


def test_units_are_opened_closed_and_reopened() -> None:
    new = changed(VAN, "/dev/ttyUSB1", "/dev/ttyUSB7").replace("unit.gun", "unit.pistol")
    assert effects(VAN, new) == ["unit_closed gun", "unit_opened pistol", "unit_reopened badge"]


def test_swapped_ports_reopen_both_units() -> None:
    new = changed(VAN, "USB0", "USB9").replace("USB1", "USB0").replace("USB9", "USB1")
    assert effects(VAN, new) == ["unit_reopened gun", "unit_reopened badge"]


def test_a_door_that_is_wired_to_another_lock_is_grave() -> None:
    new = changed(LOCKER, "door = 1", "door = 3")
    (effect,) = explain(parse(LOCKER), parse(new)).effects
    assert (effect.what, effect.subject, effect.detail) == ("door_remapped", "a1", "bus door 1 -> bus door 3")
    assert effect.grave


def test_a_compartment_that_is_gone_is_named() -> None:
    new = changed(LOCKER, "a2", "b2")
    assert effects(LOCKER, new) == ["compartment_gone a2", "compartment_added b2"]


def test_a_broker_that_moves_is_grave() -> None:
    (effect,) = explain(parse(VAN), parse(changed(VAN, "mqtt.example", "other.example"))).effects
    assert (effect.what, effect.grave) == ("broker_moved", True)


def test_limits_that_drop_entries_are_told() -> None:
    new = changed(VAN, "size_mib = 512", "size_mib = 64\ncustody_days = 7")
    assert effects(VAN, new) == ["journal_smaller 64 MiB", "kept_shorter custody"]


def test_a_policy_that_changes_is_told_with_what_it_asks() -> None:
    new = VAN + '\n[policy.handover]\nsets = [["badge", "pin"]]\nsecond_person = true\n'
    (effect,) = explain(parse(VAN), parse(new)).effects
    assert str(effect) == "! policy changed: handover (badge+pin, and a second person)"


@pytest.mark.parametrize(
    "how",
    [
        '\n[policy.session]\nsets = [["fido2"]]\n',
        "\n[policy.session]\nlevel = 3\n",
        '\n[policy.session]\nsets = [["badge", "static"]]\n',
        "keypad",
    ],
)
def test_the_way_without_a_body_never_goes_silently(how: str) -> None:
    """By its sets, by a level, or with the unit that reads it."""
    old = VAN + BODIES
    new = changed(old, KEYS, "") if how == "keypad" else old + how
    assert asks_for_bodies(parse(old)) == ()
    assert "session" in asks_for_bodies(parse(new))
    assert "! body asked for: session (no badge and PIN instead)" in explain(parse(old), parse(new)).text
    assert "body asked for" not in explain(parse(new), parse(new + "# no more than before")).text
    assert "body asked for" not in explain(parse(new), parse(old)).text


def test_where_nobody_identifies_no_body_is_asked_for() -> None:
    assert asks_for_bodies(parse(changed(VAN, KEYS, ""))) == ()


def test_drivers_who_could_not_prove_themselves_any_more_are_named() -> None:
    people = {"drv-1": {"badge", "pin"}, "drv-2": {"fido2"}}
    new = changed(VAN, KEYS, "")
    found = effects(VAN, new, people=people)
    assert found == ["unit_closed keys", "locked_out drv-1", "locked_out drv-1"]


def test_no_password_is_shown() -> None:
    old = changed(VAN, "[journal]", 'password_file = "/etc/a"\n\n[journal]')
    explanation = explain(parse(old), parse(changed(old, "/etc/a", "/etc/b")))
    assert "/etc/b" in explanation.text
