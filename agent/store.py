"""The journal's tables, and what is done to them. Blocking; only the writer's thread calls this.

entry       the lines, by sequence
record      the state they imply
tile        the root of every complete run of 256 leaves, to rebuild a large tree at once, and the hashes
            themselves where lines are gone
checkpoint  what was signed
salvaged    entries of a damaged file that the fleet may not have
"""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.ledger import HASH, TILE, Frontier, leaf_hash, subtree_root
from agent.note import BadNote, Checkpoint, Note
from agent.soundness import SCHEMA, TABLES
from agent.writer import NotAsWritten

Row = tuple[int, int, bytes]
"""Sequence, lane and line."""
Change = tuple[str, bytes | None]
"""A record's key and its new value, None to drop it."""


class Stored(NamedTuple):
    """An entry as it is kept: its place in the order, its bytes and its lane. Read by the thousand."""

    sequence: int
    line: bytes
    lane: int = 0


class Run(NamedTuple):
    """Entries of one lane that follow each other: their sequences, and their lines joined by line feeds."""

    sequences: list[int]
    lines: bytes

    def stored(self, lane: int) -> list[Stored]:
        """One by one. No line feed is in a line: JSON writes it otherwise."""
        lines = zip(self.sequences, self.lines.split(b"\n"), strict=True)
        return [Stored(sequence, line, lane) for sequence, line in lines]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a journal file holds at opening."""

    epoch: str
    last: int
    records: dict[str, Any]
    frontier: Frontier
    checkpoint: Checkpoint | None
    """The last one signed."""
    note: bytes | None
    """Its note."""
    used: int
    """Bytes in use."""


def load(connection: sqlite3.Connection, carried: Iterable[Change] = ()) -> Loaded:
    """Read the state; make the tables in a new file, with the records that are `carried` into it.

    Raises sqlite3.DatabaseError for what is not ours.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version != SCHEMA and (version or tables):
        raise sqlite3.DatabaseError(f"not a journal of this version: expected schema {SCHEMA}, got {version}")
    if version == 0:
        _create(connection)
        write(connection, (), carried)
    try:
        return _loaded(connection)
    except (ValueError, KeyError, TypeError, BadNote) as error:
        raise NotAsWritten(f"holds what nobody wrote: {type(error).__name__}: {error}") from error


def _create(connection: sqlite3.Connection) -> None:
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {name} {columns}")
    connection.execute(f"PRAGMA user_version={SCHEMA}")
    epoch = json.dumps(secrets.token_hex(6)).encode()
    connection.execute("INSERT INTO record VALUES ('epoch', ?)", (epoch,))


def _loaded(connection: sqlite3.Connection) -> Loaded:
    records = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM record")}
    epoch = str(records["epoch"])
    last, line = connection.execute(
        "SELECT sequence, line FROM entry ORDER BY sequence DESC LIMIT 1"
    ).fetchone() or (0, None)
    if line is not None and (found := json.loads(line)["id"]) != f"{epoch}-{last}":
        raise ValueError(f"expected the newest entry to be {epoch}-{last}, got {found}")
    newest = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    checkpoint = Checkpoint.parse(Note.parse(newest[0]).text) if newest else None
    if checkpoint is not None:
        _check_root(connection, checkpoint)
    note = newest[0] if newest else None
    return Loaded(epoch, last, records, _frontier(connection, last), checkpoint, note, usage(connection))


def _check_root(connection: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    """The entries must still be those that were signed; `postern journal verify` says which are not."""
    if _frontier(connection, checkpoint.size).root() != checkpoint.root:
        raise ValueError(f"the first {checkpoint.size} entries are not those of the signed checkpoint")


def root_at(connection: sqlite3.Connection, size: int) -> bytes:
    """The root of the first `size` entries. Raises NotAsWritten where their hashes are not all there."""
    try:
        return _frontier(connection, size).root()
    except ValueError as error:
        raise NotAsWritten(f"the first {size} entries: {error}") from error


def _frontier(connection: sqlite3.Connection, size: int) -> Frontier:
    def tiles(start: int, end: int) -> Sequence[bytes]:
        found = connection.execute(
            "SELECT root FROM tile WHERE number >= ? AND number < ? ORDER BY number", (start, end)
        )
        return [root for (root,) in found]

    return Frontier.read(size, lambda start, end: leaves(connection, start, end), tiles)


def leaves(connection: sqlite3.Connection, start: int, end: int) -> list[bytes]:
    """Leaf hashes of the entries from index `start` to `end`; of pruned ones as they were kept."""
    hashes: dict[int, bytes] = {}
    kept = connection.execute(
        "SELECT number, leaves FROM tile WHERE number BETWEEN ? AND ? AND leaves IS NOT NULL",
        (start // TILE, (end - 1) // TILE),
    )
    for number, blob in kept:
        hashes.update((number * TILE + n, blob[n * HASH : (n + 1) * HASH]) for n in range(TILE))
    lines = connection.execute(
        "SELECT sequence, line FROM entry WHERE sequence > ? AND sequence <= ?", (start, end)
    )
    hashes.update((sequence - 1, leaf_hash(line)) for sequence, line in lines)
    return [hashes[index] for index in range(start, end) if index in hashes]


def write(connection: sqlite3.Connection, rows: Sequence[Row], changes: Iterable[Change]) -> bool:
    """Add entries and change records; a tile that is complete with them gets its root, which is told."""
    completed = _completed(rows[0][0], rows[-1][0]) if rows else range(0)
    if rows:
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
    for number in completed:
        root = subtree_root(
            number * TILE, (number + 1) * TILE, lambda start, end: leaves(connection, start, end)
        )
        connection.execute("INSERT INTO tile VALUES (?, ?, NULL)", (number, root))
    for key, value in changes:
        if value is None:
            connection.execute("DELETE FROM record WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (key, value))
    return bool(completed)


def sign(connection: sqlite3.Connection, size: int, note: bytes) -> None:
    """Keep a signed checkpoint."""
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (size, note))


def note_at(connection: sqlite3.Connection, size: int) -> bytes | None:
    """The note of the checkpoint of this size, if there is one."""
    found = connection.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
    return bytes(found[0]) if found else None


def _completed(first: int, last: int) -> range:
    """Numbers of the tiles whose last entry is among the sequences `first` to `last`."""
    return range((first - 1) // TILE, last // TILE)


def read(connection: sqlite3.Connection, after: int, entries: int, size: int) -> list[Stored]:
    """Entries in order after a sequence: so many and so many bytes at most, at least one."""
    found = connection.execute(
        "SELECT sequence, line, lane FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (after, entries),
    )
    return within(map(Stored._make, found), size)


def read_run(connection: sqlite3.Connection, lane: int, span: tuple[int, int], entries: int) -> Run | None:
    """The first so many of one lane after the first of two sequences and up to the second, if there are any.

    In one step of SQLite's, which lets the event loop go on meanwhile: row by row both would wait in turn.
    """
    sequences, lines = connection.execute(
        "SELECT group_concat(sequence), CAST(group_concat(line, char(10)) AS BLOB) FROM"
        " (SELECT sequence, line FROM entry WHERE sequence > ? AND sequence <= ? AND lane = ?"
        " ORDER BY sequence LIMIT ?)",
        (*span, lane, entries),
    ).fetchone()
    if sequences is None:
        return None
    run = Run([*map(int, sequences.split(","))], lines)
    if run.sequences != sorted(run.sequences):
        # It always comes in order, and SQLite does not promise that.
        ordered = sorted(zip(run.sequences, lines.split(b"\n"), strict=True))
        return Run([sequence for sequence, _ in ordered], b"\n".join([line for _, line in ordered]))
    return run


def count(connection: sqlite3.Connection, span: tuple[int, int], beyond: Sequence[int]) -> list[int]:
    """How many entries each lane has after the first of two sequences and up to the second.

    Of each lane only those beyond a sequence of its own.
    """
    sums = ", ".join("sum(lane = ? AND sequence > ?)" for _ in beyond)
    statement = f"SELECT {sums} FROM entry WHERE sequence > ? AND sequence <= ?"  # noqa: S608
    lanes = [number for pair in enumerate(beyond) for number in pair]
    return [number or 0 for number in connection.execute(statement, (*lanes, *span)).fetchone()]


def naming(connection: sqlite3.Connection, text: bytes, after: int, upto: int) -> list[Stored]:
    """Entries between two sequences that have this text in them."""
    found = connection.execute(
        "SELECT sequence, line FROM entry WHERE sequence > ? AND sequence <= ? AND instr(line, ?)"
        " ORDER BY sequence",
        (after, upto, text),
    )
    return [Stored(sequence, line) for sequence, line in found]


def salvaged_naming(connection: sqlite3.Connection, text: bytes) -> int:
    """How many salvaged entries, on their way to the fleet, have this text in them."""
    (count,) = connection.execute("SELECT count(*) FROM salvaged WHERE instr(line, ?)", (text,)).fetchone()
    return int(count)


def within(found: Iterable[Stored], size: int) -> list[Stored]:
    """The first of them that fit in `size` bytes; at least one."""
    taken: list[Stored] = []
    left = size
    for stored in found:
        left -= len(stored.line) + 1
        if taken and left < 0:
            break
        taken.append(stored)
    return taken


# -- bounds ---------------------------------------------------------------------------------------


def usage(connection: sqlite3.Connection) -> int:
    """Bytes in use; pages that were freed are not, and are used again before the file grows."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def sequences(connection: sqlite3.Connection, number: int, lane: int) -> list[int]:
    """What there is of a lane in a tile; nothing of a tile whose hashes cannot be kept, being damaged."""
    span = (number * TILE, (number + 1) * TILE)
    found = connection.execute(
        "SELECT sequence, lane FROM entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence", span
    ).fetchall()
    whole = (
        len(found) == TILE
        or connection.execute(
            "SELECT 1 FROM tile WHERE number = ? AND leaves IS NOT NULL", (number,)
        ).fetchone()
    )
    return [sequence for sequence, own in found if own == lane] if whole else []


def newest_in(connection: sqlite3.Connection, number: int) -> bytes | None:
    """The last line that a tile still has."""
    found = connection.execute(
        "SELECT line FROM entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence DESC LIMIT 1",
        (number * TILE, (number + 1) * TILE),
    ).fetchone()
    return bytes(found[0]) if found else None


def drop(connection: sqlite3.Connection, number: int, doomed: Sequence[int]) -> None:
    """Delete lines of a complete tile. Their hashes are kept, so that the others can still be proved."""
    hashes = leaves(connection, number * TILE, (number + 1) * TILE)
    if len(hashes) != TILE:
        raise sqlite3.DatabaseError(f"expected {TILE} leaves in tile {number}, got {len(hashes)}")
    kept = (b"".join(hashes), number)
    connection.execute("UPDATE tile SET leaves = ? WHERE number = ? AND leaves IS NULL", kept)
    connection.executemany("DELETE FROM entry WHERE sequence = ?", ((sequence,) for sequence in doomed))


def prune(connection: sqlite3.Connection, number: int, doomed: Sequence[int]) -> None:
    """Drop what the fleet has. A tile that is empty then needs no checkpoints of its own but the last."""
    drop(connection, number, doomed)
    if newest_in(connection, number) is None:
        connection.execute(
            "DELETE FROM checkpoint WHERE size > ? AND size < ?", (number * TILE, (number + 1) * TILE)
        )


def keep_salvaged(connection: sqlite3.Connection, lines: Iterable[tuple[int, bytes]]) -> None:
    """Entries of a damaged file; what is kept twice is kept once."""
    connection.executemany("INSERT OR IGNORE INTO salvaged VALUES (?, ?)", lines)


def salvaged(connection: sqlite3.Connection, after: int, entries: int, size: int) -> list[Stored]:
    """The oldest of them after a number, under theirs."""
    found = connection.execute(
        "SELECT number, line FROM salvaged WHERE number > ? ORDER BY number LIMIT ?", (after, entries)
    )
    return within((Stored(number, line) for number, line in found), size)


def drop_salvaged(connection: sqlite3.Connection, number: int) -> None:
    """They are with the fleet up to this number, as far as is known."""
    connection.execute("DELETE FROM salvaged WHERE number <= ?", (number,))
