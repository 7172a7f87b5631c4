"""What the fleet knows of one device from the entries it has sent. No I/O.

    log = DeviceLog("van-0042")
    match log.take(line):
        case New(entry): keep(entry)

An entry's id is `<epoch>-<sequence>`, so that a few ranges of sequences remember every entry ever taken.
"""

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

EPOCH = re.compile("[A-Za-z0-9]{1,64}")
"""Name of a journal."""
LARGEST = 2**63 - 1

Entry = dict[str, Any]
"""A CloudEvents entry, as parsed."""


class BadEntry(ValueError):
    """A line that is no entry of this device."""


@dataclass(frozen=True, slots=True)
class New:
    """Never taken before by this log."""

    entry: Entry
    epoch: str
    sequence: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Taken before, under the same id, if not with the same content."""

    entry: Entry
    epoch: str
    sequence: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not an entry of this device, and why."""

    reason: str


Taken = New | Duplicate | Rejected


def parse_entry(line: bytes, device: str) -> tuple[Entry, str, int]:
    """The entry, its epoch and its sequence. Raises BadEntry."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadEntry(f"expected one JSON object on one line: {error}") from None
    if not isinstance(entry, dict):
        raise BadEntry(f"expected a JSON object, got {type(entry).__name__}")
    if entry.get("specversion") != "1.0":
        raise BadEntry(f"expected CloudEvents 1.0, got specversion {entry.get('specversion')!r}")
    for name in ("id", "source", "type", "time", "sequence"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise BadEntry(f"{name}: expected text, got {entry.get(name)!r}")
    if entry["source"].rpartition("/")[2] != device:
        raise BadEntry(f"source: expected one of {device}, got {entry['source']!r}")
    if not isinstance(entry.get("data"), dict):
        raise BadEntry(f"data: expected an object, got {type(entry.get('data')).__name__}")
    epoch, sequence = _identity(entry["id"], entry["sequence"])
    return entry, epoch, sequence


def _identity(name: str, sequence: str) -> tuple[str, int]:
    if not sequence.isascii() or not sequence.isdecimal() or len(sequence) > 19 or sequence.startswith("0"):
        raise BadEntry(f"sequence: expected a decimal number from 1, got {sequence!r}")
    epoch, _, ending = name.rpartition("-")
    if not EPOCH.fullmatch(epoch) or ending != sequence:
        raise BadEntry(f"id: expected one ending in -{sequence}, got {name[:80]!r}")
    if int(sequence) > LARGEST:
        raise BadEntry(f"sequence: expected at most {LARGEST}, got {sequence}")
    return epoch, int(sequence)


class Ranges:
    """A set of numbers kept as ranges: small as long as few are missing."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Self:
        """First and last of each; in any order, and they may overlap."""
        ranges = cls()
        for first, last in sorted(spans):
            if ranges._ends and first <= ranges._ends[-1] + 1:
                ranges._ends[-1] = max(last, ranges._ends[-1])
            else:
                ranges._starts.append(first)
                ranges._ends.append(last)
        return ranges

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last of each range."""
        return list(zip(self._starts, self._ends, strict=True))

    def add(self, number: int) -> bool:
        """Whether it was not there before."""
        at = bisect_right(self._starts, number)
        if at and number <= self._ends[at - 1]:
            return False
        after_previous = at > 0 and self._ends[at - 1] == number - 1
        before_next = at < len(self._starts) and self._starts[at] == number + 1
        if after_previous and before_next:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif after_previous:
            self._ends[at - 1] = number
        elif before_next:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number)
        return True

    @property
    def highest(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """First and last of each run that is missing between two that are there."""
        return [(end + 1, start - 1) for end, start in zip(self._ends[:-1], self._starts[1:], strict=True)]


@dataclass(slots=True)
class DeviceLog:
    """One device's entries, counted; and its last state."""

    device: str
    epochs: dict[str, Ranges] = field(default_factory=dict)
    """Sequences taken, by the journal they come from."""
    types: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    rejected: int = 0
    """Lines and messages that are none of this device's."""
    others: int = 0
    """Messages that this collector has no use for."""
    state: Entry | None = None
    """The last birth or will; None before the first."""

    def take(self, line: bytes) -> Taken:
        """One line of a batch."""
        try:
            entry, epoch, sequence = parse_entry(line, self.device)
        except BadEntry as bad:
            self.rejected += 1
            return Rejected(str(bad))
        if not self.epochs.setdefault(epoch, Ranges()).add(sequence):
            self.duplicates += 1
            return Duplicate(entry, epoch, sequence, line)
        self.types[entry["type"]] += 1
        return New(entry, epoch, sequence, line)

    @property
    def entries(self) -> int:
        return self.types.total()

    @property
    def highest(self) -> int:
        """The highest sequence of the journal heard of last."""
        return self.epochs[next(reversed(self.epochs))].highest if self.epochs else 0

    @property
    def gaps(self) -> list[tuple[str, int, int]]:
        """Epoch, first and last of each run of entries that is missing. What came before the first entry
        ever taken is none: perhaps nobody listened."""
        return [(epoch, *gap) for epoch, taken in self.epochs.items() for gap in taken.gaps]

    @property
    def online(self) -> bool:
        return self.state is not None and self.state.get("online") is True

    def summary(self) -> dict[str, Any]:
        """As JSON for people and programs."""
        return {
            "device": self.device,
            "online": self.online,
            "entries": self.entries,
            "highest": self.highest,
            "missing": sum(last - first + 1 for _, first, last in self.gaps),
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "types": dict(sorted(self.types.items())),
        }
