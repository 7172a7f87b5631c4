"""Entries for people: which of them, and each as a row of when, what, who and where."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.audit.archive import Archive, lines

Entry = dict[str, Any]
Watcher = Callable[[int, int], None]

HEADINGS = ("SEQ", "TIME", "TYPE", "SUBJECT", "WHO", "WHERE", "DETAIL")
WIDTHS = (7, 20, 26, 26, 16, 24, 0)
"""Of plain columns; what is longer pushes the rest of its row."""
WATCH_EVERY = 1024

_DETAILS = ("reason", "exception", "outcome", "kind", "factors", "level", "count", "of", "bytes", "code")


def moment(text: str) -> str:
    """A time as entries have it, which sorts as text. UTC where nothing else is said. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are wanted. None wants all."""

    parcel: str | None = None
    """Subject of the entry."""
    driver: str | None = None
    """Reference of somebody who took part."""
    type: str | None = None
    """All of a type or its first words; `custody` for all of custody."""
    since: str | None = None
    until: str | None = None
    """As `moment` gives it; the moment itself is within."""

    @property
    def is_open(self) -> bool:
        return self == Filter()

    def wants(self, entry: Entry) -> bool:
        time, type_ = str(entry.get("time")), str(entry.get("type")).removeprefix("postern.")
        wanted = None if self.type is None else self.type.removeprefix("postern.")
        return (
            (self.parcel is None or entry.get("subject") == self.parcel)
            and (self.driver is None or self.driver in people(entry))
            and (wanted is None or f"{type_}.".startswith(f"{wanted}."))
            and (self.since is None or time >= self.since)
            and (self.until is None or time <= self.until)
        )

    def may_want(self, line: bytes) -> bool:
        """A quick look, before the line is parsed."""
        texts = (text for text in (self.parcel, self.driver) if text is not None)
        return all(json.dumps(text, ensure_ascii=False).encode() in line for text in texts)


def select(
    archive: Archive, chosen: Filter, last: int = 0, watch: Watcher = lambda _done, _of: None
) -> Iterator[tuple[int, Entry]]:
    """The entries wanted, oldest first; of more than `last` only the newest, unless it is 0."""
    found = _matching(archive, chosen, watch)
    return iter(deque(found, last)) if last else found


def parse(line: bytes) -> Entry:
    """The entry; one that says so of itself where the line cannot be read."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    return entry if isinstance(entry, dict) else {"type": "(unreadable)"}


def people(entry: Entry) -> set[str]:
    """References of everyone who took part, as far as an entry says."""
    data = _data(entry)
    found = {data.get(name) for name in ("by", "from", "holder", "subject_ref", "driver")}
    found |= {entry.get("subject"), _party(data.get("to"), "ref")}
    return {ref for ref in found if isinstance(ref, str)}


def row(sequence: int, entry: Entry) -> tuple[str, ...]:
    """A cell for each heading, safe to show on a terminal."""
    data = _data(entry)
    cells = (
        str(sequence),
        _seconds(str(entry.get("time", ""))),
        str(entry.get("type", "")).removeprefix("postern."),
        str(entry.get("subject", "")),
        _who(data),
        _where(data),
        _detail(data),
    )
    return tuple(_shown(cell) for cell in cells)


def plain(cells: Iterable[str]) -> str:
    """One line of columns."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _matching(archive: Archive, chosen: Filter, watch: Watcher) -> Iterator[tuple[int, Entry]]:
    for sequence, line in lines(archive):
        if sequence % WATCH_EVERY == 0:
            watch(sequence, archive.size)
        if chosen.may_want(line):
            entry = parse(line)
            if chosen.wants(entry):
                yield sequence, entry


def _data(entry: Entry) -> dict[str, Any]:
    data = entry.get("data")
    return data if isinstance(data, dict) else {}


def _party(to: Any, name: str) -> Any:
    return to.get(name) if isinstance(to, dict) else None


def _seconds(time: str) -> str:
    return time[:19] + "Z" if len(time) > 20 else time


def _who(data: dict[str, Any]) -> str:
    """Who did it; of a handover, from whom to whom."""
    giver = str(data.get("from", ""))
    if not giver:
        return str(data.get("by") or data.get("subject_ref") or "")
    to = data.get("to")
    receiver = _party(to, "ref") or _party(to, "kind") or to or "?"
    return f"{giver} > {receiver}"


def _where(data: dict[str, Any]) -> str:
    """The unit, the door behind which it is now, and the fix."""
    door = _party(data.get("to"), "door")
    position = data.get("position")
    parts = [str(data.get("unit", "")), f"door {door}" if door else ""]
    if isinstance(position, dict):
        parts.append(f"{position.get('lat')},{position.get('lon')}")
    return " ".join(part for part in parts if part)


def _detail(data: dict[str, Any]) -> str:
    return " ".join(f"{name}={_short(data[name])}" for name in _DETAILS if name in data)


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _shown(text: str) -> str:
    """What somebody put on a label does not get to steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
