"""What is to be remembered of a fingerprint module whose templates an operator has changed by hand. Pure.

Only what was changed on purpose is believed afterwards: a module that was doubted before is doubted still.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agent.inventory import PREFIX, SLOTS, TAUGHT, Inventory, taught_here
from agent.provisioning import PREFIX as OURS

Records = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One slot was taught, or forgotten."""

    unit: str
    slot: int
    taught: bool
    before: Mapping[str, str]
    """What the module told of itself before."""
    after: Mapping[str, str]


def remembered(change: Change, inventory: Inventory, records: Records) -> dict[str, Any]:
    """The records that let the module be known again, and let its slot be known as taught here."""
    changes = taught_here(change.unit, change.slot, records, taught=change.taught)
    key = PREFIX + change.unit
    sighting = inventory.sighted(change.unit, change.before, records)
    if inventory.doubts(change.unit):
        return changes
    known = sighting.records.get(key, records.get(key, {}))
    now = {said: change.after[said] for said in TAUGHT & known.keys() & change.after.keys()}
    return {**changes, key: {**known, **now}}


def is_fleets(unit: str, slot: int, records: Records) -> bool:
    """Whether a template of the fleet's was put into the slot, here or in a module that was here before."""
    return f"{OURS}{unit}/{slot}" in records


def origins(unit: str, taken: Collection[int], records: Records) -> dict[int, str]:
    """Of each taken slot who put it there: `fleet`, `here` or `foreign`."""
    local = records.get(SLOTS + unit, {}).get("local", taken)
    return {
        slot: "fleet" if is_fleets(unit, slot, records) else "here" if slot in local else "foreign"
        for slot in sorted(taken)
    }
