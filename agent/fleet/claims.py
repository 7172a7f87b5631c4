"""What an entry says of others that will not come, so that the tree can be followed without them. No I/O.

A device that had to drop entries unsent declares them lost, and one that the broker would never take it
passes over. Both give the leaf hashes. They are a claim like any line that arrives: only the root that the
device has signed says whether they are right.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.fleet.device_log import BadEntry, Entry
from agent.ledger import HASH


class Declares(StrEnum):
    """Types of the entries that declare something."""

    LOSS = "postern.journal.declared_loss"
    PASSED_OVER = "postern.uplink.entry_passed_over"


class Why(StrEnum):
    """Why a line does not come."""

    LOST = "declared"
    """It was dropped for want of room."""
    PASSED_OVER = "passed_over"
    """The broker would never take it; the device still has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Leaf hashes by sequence, all of one lane."""

    why: Why
    lane: str
    leaves: Mapping[int, bytes]
    unwritten: int = 0
    """What was dropped before it had a sequence."""


def declaration(entry: Entry, sequence: int) -> Declaration | None:
    """What this entry declares; None where it declares nothing. Raises BadEntry for what does not add up."""
    data = entry["data"]
    match entry["type"]:
        case Declares.LOSS:
            return _loss(data, sequence)
        case Declares.PASSED_OVER if "leaf" in data:
            return _passed_over(data, sequence)
    return None


def _loss(data: Mapping[str, Any], sequence: int) -> Declaration:
    spans, count = _spans(data.get("ranges"), sequence), _count(data.get("count"), "count")
    unwritten = _count(data.get("unwritten", 0), "unwritten")
    hashes = _hashes(data.get("leaves", ""))
    told = sum(last - first + 1 for first, last in spans)
    if not told == len(hashes) == count - unwritten:
        raise BadEntry(
            f"expected {count - unwritten} entries declared lost, got {told}, {len(hashes)} hashes"
        )
    sequences = (each for first, last in spans for each in range(first, last + 1))
    leaves = dict(zip(sequences, hashes, strict=True))
    return Declaration(why=Why.LOST, lane=_lane(data), leaves=leaves, unwritten=unwritten)


def _passed_over(data: Mapping[str, Any], sequence: int) -> Declaration:
    text, (leaf, *more) = data.get("sequence"), _hashes(data.get("leaf")) or (b"",)
    if not isinstance(text, str) or not text.isdecimal() or not leaf or more:
        raise BadEntry(f"expected the sequence and the hash of one entry, got {text!r}")
    ((at, _),) = _spans([[int(text[:19]), int(text[:19])]], sequence)
    return Declaration(why=Why.PASSED_OVER, lane=_lane(data), leaves={at: leaf})


def _spans(ranges: object, sequence: int) -> list[tuple[int, int]]:
    """Ranges that rise, all of them before the entry that names them."""
    spans, before = list[tuple[int, int]](), 0
    for span in ranges if isinstance(ranges, list) else (None,):
        match span:
            case [int(first), int(last)] if before < first <= last < sequence:
                spans.append((first, last))
                before = last
            case _:
                raise BadEntry(f"expected rising ranges of sequences below {sequence}, got {span!r}")
    return spans


def _hashes(text: object) -> list[bytes]:
    try:
        joined = b64decode(text, validate=True) if isinstance(text, str) else b"\0"
    except ValueError:
        joined = b"\0"
    if len(joined) % HASH:
        raise BadEntry("expected leaf hashes in base64")
    return [joined[at : at + HASH] for at in range(0, len(joined), HASH)]


def _count(value: object, name: str) -> int:
    if type(value) is not int or value < 0:
        raise BadEntry(f"{name}: expected a number from 0, got {value!r}")
    return value


def _lane(data: Mapping[str, Any]) -> str:
    lane = data.get("lane")
    return lane if isinstance(lane, str) else ""
