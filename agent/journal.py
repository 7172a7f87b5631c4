"""The durable, ordered log of entries, with the state they imply, in one SQLite file.

An entry is one CloudEvents 1.0 JSON object on one line; the stored bytes are the published bytes. `append`
gives entries their sequence at once and makes them durable together with the records they change. Records
are small JSON values by key (a session, a parcel in custody, a lockout counter), mirrored in `records`.
Some are security state: nothing but an append ever changes one.
"""

import asyncio
import json
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Moment, rfc3339
from agent.workflow import Draft, Lane
from agent.writer import JournalFailed, Writer

SCHEMA = 1
TAIL = 4096
"""Newest durable entries kept in memory, so that a live uplink never reads the file."""

_TABLES = """
CREATE TABLE IF NOT EXISTS entry (sequence INTEGER PRIMARY KEY, lane INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it is kept: its place in the order and its bytes."""

    sequence: int
    line: bytes


def compact(value: Any) -> bytes:
    """JSON as it is stored and sent: no spaces, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Journal:
    """Append, read, remember."""

    def __init__(
        self, path: Path, *, source: str, on_trouble: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self.source = source
        self.epoch = ""
        """Random name of this file's life; the first half of every entry's id."""
        self.last = 0
        """Sequence of the newest durable entry."""
        self.records: dict[str, Any] = {}
        self.newest: dict[str, Any] | None = None
        """The newest entry as it was found at opening."""
        self._next = 1
        self._tail: deque[Stored] = deque(maxlen=TAIL)
        self._watchers: list[Callable[[], None]] = []
        self._writer = Writer(path, on_trouble)

    @property
    def failed(self) -> asyncio.Future[JournalFailed]:
        """Done when the store has failed for good."""
        return self._writer.failed

    async def open(self) -> None:
        """Raises JournalFailed when the file cannot be opened, or is of another schema."""
        await self._writer.open()
        self.epoch, self.last, newest, records = await self._writer.submit(_load)
        self.records = {key: json.loads(value) for key, value in records}
        self.newest = json.loads(newest) if newest else None
        self._next = self.last + 1

    async def close(self) -> None:
        await self._writer.close()

    def watch(self, call: Callable[[], None]) -> None:
        """Call whenever entries have become durable."""
        self._watchers.append(call)

    def append(
        self,
        drafts: Sequence[Draft],
        at: Moment,
        position: Mapping[str, Any],
        records: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[None]:
        """Entries and records, durable together when the future is done. None drops a record.

        `position` is merged into each entry's data: a fix, or null with a reason.
        """
        rows = [self._row(draft, at, position) for draft in drafts]
        changes = self._remember(records or {})
        done = self._writer.submit(lambda connection: _write(connection, rows, changes))
        done.add_done_callback(lambda future: self._durable(future, rows))
        return done

    def note(self, records: Mapping[str, Any]) -> asyncio.Future[None]:
        """Records that may wait some seconds for a commit: losing one costs work, never truth."""
        changes = self._remember(records)
        return self._writer.submit(lambda connection: _write(connection, [], changes), wait=False)

    async def read(self, after: int, *, entries: int, size: int) -> list[Stored]:
        """Durable entries in order after `after`: at most so many and so many bytes, but at least one."""
        if after >= self.last:
            return []
        if self._tail and self._tail[0].sequence <= after + 1:
            start = after + 1 - self._tail[0].sequence
            found = [self._tail[i] for i in range(start, min(start + entries, len(self._tail)))]
        else:
            found = await self._writer.submit(lambda connection: _read(connection, after, entries))
        return _within(found, size)

    async def alive(self) -> None:
        """Done once the writer has committed everything queued so far. Raises JournalFailed."""
        await self._writer.submit(lambda _: None)

    def _remember(self, records: Mapping[str, Any]) -> list[tuple[str, bytes | None]]:
        for key, value in records.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        return [(key, None if value is None else compact(value)) for key, value in records.items()]

    def _row(self, draft: Draft, at: Moment, position: Mapping[str, Any]) -> tuple[int, Lane, bytes]:
        sequence = self._next
        self._next += 1
        clock = {"boot": at.boot, "mono_ns": at.mono_ns, "trust": at.trust, "error_s": at.error_s}
        entry = {
            "specversion": "1.0",
            "id": f"{self.epoch}-{sequence}",
            "source": self.source,
            "type": f"postern.{draft.type}",
            "subject": draft.subject,
            "time": rfc3339(at.utc_ns),
            "sequence": str(sequence),
            "data": {**draft.data, "clock": clock, **position},
        }
        return sequence, draft.lane, compact(entry)

    def _durable(self, done: asyncio.Future[None], rows: list[tuple[int, Lane, bytes]]) -> None:
        if done.cancelled() or done.exception() or not rows:
            return
        self._tail.extend(Stored(sequence, line) for sequence, _, line in rows)
        self.last = rows[-1][0]
        for call in self._watchers:
            call()


def _load(connection: sqlite3.Connection) -> tuple[str, int, bytes | None, list[tuple[str, bytes]]]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA):
        raise sqlite3.DatabaseError(f"written by another version: expected schema {SCHEMA}, got {version}")
    for statement in _TABLES.strip().split("\n"):
        connection.execute(statement)
    if version == 0:
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("INSERT INTO record VALUES ('epoch', ?)", (compact(secrets.token_hex(6)),))
    records = connection.execute("SELECT key, value FROM record").fetchall()
    newest = connection.execute("SELECT sequence, line FROM entry ORDER BY sequence DESC LIMIT 1").fetchone()
    last, line = newest or (0, None)
    return json.loads(dict(records)["epoch"]), last, line, records


def _write(
    connection: sqlite3.Connection,
    rows: list[tuple[int, Lane, bytes]],
    changes: list[tuple[str, bytes | None]],
) -> None:
    if rows:
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
    for key, value in changes:
        if value is None:
            connection.execute("DELETE FROM record WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (key, value))


def _read(connection: sqlite3.Connection, after: int, limit: int) -> list[Stored]:
    found = connection.execute(
        "SELECT sequence, line FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
    )
    return [Stored(sequence, line) for sequence, line in found]


def _within(found: list[Stored], size: int) -> list[Stored]:
    total = 0
    for count, stored in enumerate(found):
        total += len(stored.line) + 1
        if count and total > size:
            return found[:count]
    return found
