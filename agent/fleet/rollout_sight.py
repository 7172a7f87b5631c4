"""What devices show of a document that was rolled out to them, read from what they say anyway. Pure.

Of a bundle the birth message names the version that is in force; of a config the device's own report says
what became of it. A refusal in its entries counts as a failure, whoever caused it: stopping is safe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.envelope import Reason
from agent.fleet.device_log import Entry
from agent.fleet.rollout import Kinds, Member, Seen
from agent.fleet.sight import Sight, seconds

CONFIG = "config"
SKEW_S = 300.0
"""An entry this much older than what it is about may still be about it: it may come before we have noted what
we gave, by a clock that is behind ours. What is older is of another day."""
WENT_WELL = ("confirmed",)
WENT_WRONG = ("refused", "reverted")
"""States of a device's report on a config; in any other it is still trying."""


def kinds_of(sight: Sight) -> Kinds | None:
    """The hardware of a device, as its last birth message has it."""
    units = sight.birth.get("units")
    if not isinstance(units, dict):
        return None
    found = {str(unit.get("kind")) for unit in units.values() if isinstance(unit, dict)}
    return tuple(sorted(found))


@dataclass(slots=True)
class Heard:
    """What a device's entries have told of documents since somebody listened, by their names."""

    completed: dict[str, int] = field(default_factory=dict)
    """Newest version of a bundle that is all there."""
    refused: dict[str, Entry] = field(default_factory=dict)
    """The last entry about one that was refused; under `bundle` where it does not say which."""

    def take(self, entry: Entry) -> None:
        data = entry["data"]
        if data.get("reason") == Reason.NOT_IN_HEAD:
            # A connection that was lost between a list and its head. It comes again with the next one.
            return
        name = f"bundle/{data['kind']}" if isinstance(data.get("kind"), str) else "bundle"
        match entry["type"]:
            case "postern.fleet.bundle_completed" if isinstance(data.get("ver"), int):
                self.completed[name] = max(data["ver"], self.completed.get(name, 0))
            case "postern.fleet.bundle_refused" | "postern.fleet.page_refused":
                self.refused[name] = entry
            case "postern.fleet.config_refused":
                self.refused[CONFIG] = entry


def seen(what: str, member: Member, sight: Sight, heard: Heard) -> Seen:
    """How it stands with the document that a member was given."""
    online = sight.state == "online"
    if member.ver is None or member.given is None:
        return Seen(online)
    if what == CONFIG:
        found = _config(online, member.ver, sight.config)
    else:
        found = Seen(online, went_well=True if _has_bundle(what, member.ver, sight, heard) else None)
    refusal = heard.refused.get(what) or heard.refused.get(what.partition("/")[0])
    if found.went_well is None and refusal and (seconds(refusal["time"]) or 0.0) >= member.given - SKEW_S:
        return Seen(online, went_well=False, reason=_reason(refusal["data"]))
    return found


def _has_bundle(what: str, ver: int, sight: Sight, heard: Heard) -> bool:
    facts = sight.facts()
    held = facts["documents"].get(what)
    in_force = isinstance(held, int) and held >= ver and facts["complete"] is True
    return in_force or heard.completed.get(what, 0) >= ver


def _config(online: bool, ver: int, report: Mapping[str, Any]) -> Seen:
    if report.get("version") != ver:
        return Seen(online)
    state, reasons = report.get("state"), report.get("reasons")
    told = "; ".join(_mistake(each) for each in reasons) if isinstance(reasons, list) else ""
    if state in WENT_WELL:
        return Seen(online, went_well=True)
    return Seen(online, went_well=False, reason=f"{state}: {told}") if state in WENT_WRONG else Seen(online)


def _mistake(told: object) -> str:
    """As a mistake in a config is told."""
    match told:
        case {"path": path, "expected": expected, "found": found}:
            return f"{path}: expected {expected}, got {found}"
    return str(told)


def _reason(data: Mapping[str, Any]) -> str:
    return ": ".join(str(data[name]) for name in ("reason", "detail") if data.get(name))
