"""A parcel's entry in the words of a person: what happened, who did it, where, and who has it then. Pure.

Only what is named here is told: codes, receipts and raw scans stay in the record.
"""

from collections.abc import Mapping
from typing import Any

from agent.fleet.device_log import Entry

HANDOVERS = frozenset({"custody.handed_over", "locker.deposited", "locker.collected", "locker.retrieved"})
EXCEPTIONS = frozenset(
    {
        "custody.exception_noted",
        "custody.refused",
        "custody.untracked",
        "custody.corrected",
        "locker.deposit_abandoned",
        "locker.left_behind",
        "locker.not_opened",
        "locker.outcome_unknown",
        "locker.expired",
        "door.forced",
        "door.held",
        "door.not_latched",
        "door.not_pulsed",
        "door.pulse_unknown",
    }
)
"""What somebody will want to explain."""

_WORDS: Mapping[str, str] = {
    "custody.seen": "seen passing",
    "custody.accepted": "accepted by {by}",
    "custody.offered": "laid on the table by {by}",
    "custody.handed_over": "handed over by {from} to {to}",
    "custody.exception_noted": "{exception}, noted by {by}",
    "custody.refused": "scan refused: {reason}",
    "custody.untracked": "no longer kept track of: {reason}",
    "custody.corrected": "taken back by {by}: entry {corrects} is wrong, {reason}",
    "locker.parcel_scanned": "scanned at the locker",
    "locker.deposit_cancelled": "deposit cancelled by {by}",
    "locker.opening_intended": "opening of {subject} for {purpose} ordered by {by}",
    "locker.opening_used": "{subject} was opened and shut again",
    "locker.deposited": "put into {compartment} by {by}",
    "locker.deposit_abandoned": "not put into {subject} by {by}",
    "locker.returned": "put back into {compartment} by {by}",
    "locker.left_behind": "left behind in {compartment}",
    "locker.collected": "collected from {compartment}",
    "locker.retrieved": "taken out of {compartment} by {by}",
    "locker.not_opened": "{compartment} was not opened: {why}",
    "locker.outcome_unknown": "nobody knows whether {compartment} was opened",
    "locker.expired": "waited too long in {compartment}",
    "door.pulsed": "lock of {subject} released",
    "door.not_pulsed": "lock of {subject} not released: {reason}",
    "door.pulse_unknown": "nobody knows whether the lock of {subject} was released",
    "door.unlatched": "{subject} unlatched",
    "door.opened": "{subject} opened",
    "door.closed": "{subject} closed",
    "door.latched": "{subject} latched",
    "door.held": "{subject} held open",
    "door.not_latched": "{subject} does not latch",
    "door.forced": "{subject} forced open",
    "door.shut_again": "{subject} shut again",
    "door.bounced": "{subject} sprang open and shut",
    "door.found_open": "{subject} found open",
}
"""By type; names in braces are the entry's own."""


class _Facts(dict[str, str]):
    def __missing__(self, _name: str) -> str:
        return "nobody named"


def what_happened(entry: Entry) -> str:
    kind = _kind(entry)
    words = _WORDS.get(kind) or kind.partition(".")[2].replace("_", " ")
    told = words.format_map(_facts(entry))
    content = entry["data"].get("content")
    return f"{told}, sensor says {content}" if isinstance(content, str) else told


def where(entry: Entry) -> str:
    """The unit or compartment, on the device that says it."""
    data = entry["data"]
    parts = [data.get("unit"), data.get("compartment"), _of(data.get("to"), "door")]
    if _kind(entry).startswith("door."):
        parts.append(entry.get("subject"))
    return " ".join(part for part in parts if isinstance(part, str))


def custody_after(entry: Entry, parcel: str) -> str | None:
    """Who has the parcel after this; None where it says nothing of that."""
    if entry.get("subject") != parcel:
        return None
    facts = _facts(entry)
    match _kind(entry):
        case "custody.accepted" | "locker.retrieved":
            return f"in the custody of {facts['by']}"
        case "custody.handed_over":
            return f"with {facts['to']}"
        case "locker.deposited" | "locker.returned" | "locker.left_behind":
            return f"in compartment {facts['compartment']}"
        case "locker.collected":
            return "collected"
        case "custody.untracked":
            return "no longer kept track of"
        case "custody.corrected" if "holder" in entry["data"]:
            held = isinstance(entry["data"]["holder"], str)
            return f"in the custody of {entry['data']['holder']}" if held else "in nobody's custody there"
    return None


def _facts(entry: Entry) -> _Facts:
    data = entry["data"]
    names = ("by", "from", "reason", "exception", "compartment", "purpose", "why", "corrects")
    facts = _Facts({name: str(data[name]) for name in names if isinstance(data.get(name), str)})
    if "by" not in facts and isinstance(data.get("grant"), str):
        facts["by"] = "a grant"
    facts["subject"] = str(entry.get("subject", ""))
    if _kind(entry) == "custody.handed_over":
        facts["to"] = _party(data.get("to"))
    return facts


def _party(to: Any) -> str:
    """`driver drv-2 (badge + pin)`, `locker hall-3 door 7`, `recipient (code)`."""
    kind, ref, door, evidence = (_of(to, name) for name in ("kind", "ref", "door", "evidence"))
    told = " ".join(str(part) for part in (kind or "nobody named", ref, door and f"door {door}") if part)
    factors = _of(to, "factors")
    shown = " + ".join(map(str, factors)) if isinstance(factors, list) else evidence
    return f"{told} ({shown})" if shown else told


def _of(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, dict) else None


def _kind(entry: Entry) -> str:
    kind: str = entry["type"]
    return kind.removeprefix("postern.")
