"""Reads what is to be audited: a journal file that no agent holds, or an export. Never writes to it.

    with open_archive(Path("journal.db")) as archive:
        for tile in archive.tiles(): ...

The reader judges nothing: what it finds is handed on as it is. It only says when it cannot read.
"""

import contextlib
import json
import sqlite3
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from agent.audit.archive import Archive, Held, Seen, Tile, Unreadable
from agent.audit.ndjson import Export
from agent.ledger import HASH, TILE

SCHEMA = 1
PAGE = 512
"""Checkpoints read at one time."""
MAGIC = b"SQLite format 3\x00"

_NO_LEAVES: tuple[bytes | None, ...] = (None,) * TILE


def open_archive(path: Path) -> Archive:
    """Raises Unreadable, and Held while an agent has the journal."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    return JournalFile(path) if start == MAGIC else Export(path)


class JournalFile(Archive):
    """The SQLite file of an agent that is not running."""

    stores_tiles = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _connect(path)
        try:
            self._look()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def tiles(self, after: int = 0) -> Iterator[Tile]:
        for number in range(after // TILE, -(-self.size // TILE)):
            first = number * TILE + 1
            last = min(first + TILE - 1, self.size)
            found = dict(self._all(_LINES, first, last))
            rows = self._all(
                "SELECT CAST(root AS BLOB), CAST(leaves AS BLOB) FROM tile WHERE number=?", number
            )
            root, leaves = rows[0] if rows else (None, None)
            yield Tile(first, [found.get(n) for n in range(first, last + 1)], _split(leaves), root)

    def checkpoints(self) -> Iterator[tuple[int | None, bytes]]:
        size = -1
        while page := self._all(_NOTES, size, PAGE):
            yield from page
            size = page[-1][0]

    def _look(self) -> None:
        version = self._all("PRAGMA user_version")[0][0]
        if version != SCHEMA:
            raise Unreadable(f"{self.path}: expected a journal of schema {SCHEMA}, got {version}")
        ((lowest, highest),) = self._all("SELECT min(sequence), max(sequence) FROM entry")
        ((tiles, pruned),) = self._all("SELECT max(number), max(iif(leaves IS NULL, -1, number)) FROM tile")
        if lowest is not None and lowest < 1:
            raise Unreadable(f"{self.path}: expected sequences from 1, got {lowest}")
        self.size = max(highest or 0, 0 if pruned is None else (pruned + 1) * TILE)
        self.promised = 0 if tiles is None else (tiles + 1) * TILE
        self.seen = _seen(self._record("receipt"))
        self.origin = self._origin()

    def _origin(self) -> str | None:
        """What the newest checkpoint says; before the first one, what the newest line says."""
        newest = self._all("SELECT CAST(note AS BLOB) FROM checkpoint ORDER BY size DESC LIMIT 1")
        if newest:
            note: bytes = newest[0][0]
            return note.partition(b"\n")[0].decode(errors="replace")
        line = self._all("SELECT CAST(line AS BLOB) FROM entry ORDER BY sequence DESC LIMIT 1")
        epoch = self._record("epoch")
        try:
            source = json.loads(line[0][0])["source"] if line else None
        except (ValueError, KeyError, TypeError):
            return None
        return f"{source.removeprefix('/postern/')}/{epoch}" if isinstance(source, str) else None

    def _record(self, key: str) -> Any:
        found = self._all("SELECT CAST(value AS BLOB) FROM record WHERE key=?", key)
        try:
            return json.loads(found[0][0]) if found else None
        except ValueError:
            return None

    def _all(self, statement: str, *values: object) -> list[Any]:
        with _readable(self.path):
            return self._connection.execute(statement, values).fetchall()


_LINES = "SELECT sequence, CAST(line AS BLOB) FROM entry WHERE sequence BETWEEN ? AND ?"
_TILE = "SELECT CAST(root AS BLOB), CAST(leaves AS BLOB) FROM tile WHERE number=?"
_NOTES = "SELECT size, CAST(note AS BLOB) FROM checkpoint WHERE size > ? ORDER BY size LIMIT ?"


def _connect(path: Path) -> sqlite3.Connection:
    """Without a log beside it the file is all there is, and nothing need be made beside the evidence."""
    logged = path.with_name(path.name + "-wal").exists()
    mode = "mode=ro" if logged else "mode=ro&immutable=1"
    with _readable(path):
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=0, isolation_level=None
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Held(f"{path}: an agent holds it; stop the agent, or audit an export or a copy") from error
        if name == "SQLITE_CANTOPEN":
            advice = "copy it with the -wal file beside it to a folder where you may write"
            raise Unreadable(f"{path}: cannot be opened here; {advice}") from error
        raise Unreadable(f"{path}: {error}") from error


def _split(leaves: bytes | None) -> Sequence[bytes | None]:
    """What is not exactly one hash for each leaf is no leaf hash at all."""
    if leaves is None or len(leaves) != TILE * HASH:
        return _NO_LEAVES
    return [leaves[at : at + HASH] for at in range(0, len(leaves), HASH)]


def _seen(record: Any) -> Seen | None:
    try:
        return Seen(int(record["size"]), b64decode(record["root"], validate=True))
    except (KeyError, TypeError, ValueError):
        return None
