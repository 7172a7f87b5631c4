"""Custody as an EPCIS document, from the entries of a journal."""

from datetime import UTC, datetime
from typing import Any

from agent import epcis
from agent.audit.archive import Archive, lines
from agent.audit.inspect import Filter, Watcher, parse, select

CLOCK = b'"postern.clock.corrected"'


def as_epcis(
    archive: Archive, chosen: Filter, created: str, watch: Watcher = lambda _done, _of: None
) -> dict[str, Any]:
    """The EPCISDocument of the entries wanted, their times as later corrected.

    Raises LookupError when one corrects an entry that the archive no longer holds.
    """
    wanted = dict(select(archive, chosen, watch=watch))
    clocks = {n: parse(line) for n, line in lines(archive) if CLOCK in line}
    entries = [entry for _, entry in sorted({**clocks, **wanted}.items())]

    def lookup(_source: str, name: str) -> dict[str, Any] | None:
        return _find(archive, name)

    return epcis.document([entry for entry in entries if _is_whole(entry)], created, lookup)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _find(archive: Archive, name: str) -> dict[str, Any] | None:
    """The entry with this id."""
    sequence = name.rpartition("-")[2]
    if not sequence.isdecimal() or not 1 <= int(sequence) <= archive.size:
        return None
    _, line = next(lines(archive, int(sequence) - 1), (0, b""))
    entry = parse(line)
    return entry if entry.get("id") == name else None


def _is_whole(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("data"), dict) and "clock" in entry["data"]
