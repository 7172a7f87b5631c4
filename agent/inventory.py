"""Is the unit that answers still the one that was here before? Pure.

A look-alike module says "match, slot 7" whatever it is asked, and its wire proves nothing. So what a unit
tells of itself is remembered when it is first seen. One that tells something else later is doubted: nothing
it says about a person is believed, until the operator names it in its table of the config,

    [unit.finger]
    expect = { capacity = "200", address = "ffffffff" }

or the old one is back. What is named there counts alone; without it, what was remembered. A card that signs
needs no belief in its reader.

Where the fleet says what a fingerprint module holds, its list of taken slots is judged slot by slot instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.templates import Plan
from agent.workflow import Draft

PREFIX = "unit/"
"""Of the journal's records of what each unit told."""
SLOTS = "slots/"
"""Of the journal's records of the slots that were taught on the device itself, and of who minds the rest."""
LINE = frozenset({"baud", "packet_bytes"})
"""How the line was found, which says nothing about who is on it."""
TAUGHT = frozenset({"templates", "index"})
"""What changes when a finger is taught or forgotten, by our own order."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What became of a look at a unit: an entry where belief in it has changed, and what to remember."""

    entry: Draft | None
    records: Mapping[str, Any]


class Inventory:
    """Which units are doubted, and in what they differ."""

    def __init__(self, expected: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """`expected` is what the config says of a unit, by its name."""
        self._expected = expected or {}
        self._doubts: dict[str, dict[str, Any]] = {}
        self._mismatches: dict[str, Plan] = {}
        """Modules whose list of taken slots cannot be right."""

    def doubts(self, unit: str) -> bool:
        return unit in self._doubts or unit in self._mismatches

    def listed(self, unit: str, plan: Plan | None) -> Draft | None:
        """What its list of slots came to, None for nothing yet; the entry where belief in it has changed."""
        before = self._mismatches.pop(unit, None)
        if plan is None or plan.is_believed:
            fits = plan is not None and before is not None
            return Draft("identity.inventory_matched", unit, {}) if fits else None
        self._mismatches[unit] = plan
        if before is not None and (before.foreign, before.missing) == (plan.foreign, plan.missing):
            return None
        data = {"foreign": list(plan.foreign), "missing": list(plan.missing)}
        return Draft("identity.inventory_mismatch", unit, data)

    def sighted(self, unit: str, about: Mapping[str, str], records: Mapping[str, Any]) -> Sighting:
        """A unit has been opened and has told what it is."""
        told = {key: value for key, value in about.items() if key not in LINE}
        known: Mapping[str, str] = records.get(PREFIX + unit, {})
        if records.get(SLOTS + unit, {}).get("fleet"):
            told, known = _untaught(told), _untaught(known)
        expected = self._expected.get(unit, known)
        changes = {
            key: {"expected": value, "found": told.get(key)}
            for key, value in sorted(expected.items())
            if about.get(key) != value
        }
        before = self._doubts.pop(unit, None)
        if changes:
            self._doubts[unit] = changes
            changed = Draft("identity.peripheral_changed", unit, {"changes": changes})
            return Sighting(None if changes == before else changed, {})
        entry = None if before is None else Draft("identity.peripheral_believed", unit, {"about": told})
        new = told if unit in self._expected else {**told, **known}
        return Sighting(entry, {PREFIX + unit: new} if new != known else {})

    def taught(self, unit: str, records: Mapping[str, Any]) -> Mapping[str, Any]:
        """A template was added or deleted as ordered: what the unit tells of them next is right."""
        known: Mapping[str, str] = records.get(PREFIX + unit, {})
        if self.doubts(unit) or not TAUGHT & known.keys():
            return {}
        return {PREFIX + unit: _untaught(known)}


def taught_here(unit: str, slot: int, records: Mapping[str, Any], *, taught: bool) -> dict[str, Any]:
    """The record of the slots that were taught on the device itself; nothing for a module not seen yet,
    of which all slots that are taken at first sight were."""
    told = records.get(SLOTS + unit)
    if told is None:
        return {}
    local = {*told["local"], slot} if taught else {*told["local"]} - {slot}
    return {SLOTS + unit: {**told, "local": sorted(local)}}


def _untaught(said: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in said.items() if key not in TAUGHT}
