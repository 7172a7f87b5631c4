"""The file that sealed rows lie in: its tables, whether it is sound, and what becomes of one that is not.

All that bundles brought can be had again, so a damaged file is replaced by an empty one, with the rows that
were added here as far as they can be read. What was damaged is kept beside it under another name, as it is.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent import aside, slots
from agent.keyfile import FRESH, sync_folder
from agent.keystore import overwrite
from agent.row_seal import CHECK, NONCE

OWN = 0
"""The number of the only generation of the rows that were added here."""
BUSY_S = 5.0
KEPT = 3
"""Damaged files that are kept; on a card that wears out they would fill it."""

_SCHEMA = (
    "CREATE TABLE generation (number INTEGER PRIMARY KEY, bundle TEXT NOT NULL, buckets INTEGER NOT NULL,"
    " epoch BLOB, current INTEGER NOT NULL, ver INTEGER, as_of INTEGER)",
    "CREATE TABLE page (generation INTEGER, bucket INTEGER, ver INTEGER NOT NULL, sha256 BLOB NOT NULL,"
    " rows INTEGER NOT NULL, seal TEXT, PRIMARY KEY (generation, bucket)) WITHOUT ROWID",
    "CREATE TABLE sealed (generation INTEGER, bucket INTEGER, id BLOB, owner BLOB, sealed BLOB NOT NULL,"
    " PRIMARY KEY (generation, bucket, id)) WITHOUT ROWID",
    "INSERT INTO generation VALUES (0, 'local', 1, NULL, 1, NULL, NULL)",
)
_FROM_FIRST = (
    "INSERT INTO sealed SELECT 0, 0, id, NULL, sealed FROM row",
    "UPDATE generation SET as_of = (SELECT value FROM about WHERE key = 'as_of') WHERE number = 0",
    "DROP TABLE row",
    "DROP TABLE about",
)
"""From the first layout, which knew only rows that were added here."""
_COLUMNS = {
    "generation": "number bundle buckets epoch current ver as_of",
    "page": "generation bucket ver sha256 rows seal",
    "sealed": "generation bucket id owner sealed",
    "slot": "generation bucket value unit slot owner digest until",
}
_FIRST = {"about", "row"}
_ID = 16
_SHORTEST = CHECK + NONCE + 16
_READ_OWN = "SELECT bucket, id, owner, sealed FROM sealed WHERE generation = 0 ORDER BY bucket {0}, id {0}"


class Foreign(sqlite3.DatabaseError):
    """A database, but not of rows: expected and found, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A damaged file that another has taken the place of."""

    reason: str
    file: str | None = None
    """The name that it is kept under; None where there was nothing to keep."""
    kept: int = 0
    """Rows added here that the new file has."""
    more_may_be_lost: bool = True
    """Whether there may have been others."""
    given_up: int = 0
    """Damaged files of before that were deleted for it."""


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    # Text that a worn card has altered is text that nobody looks for, and no reason to stop.
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # A deleted row is not to be found in the file.
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables that an empty or older file lacks. Raises sqlite3.DatabaseError, Foreign for others."""
    execute, tables = connection.execute, _tables(connection)
    if not tables or tables == _FIRST:
        # Given back to the file system when a generation is gone. Only an empty file can be told so.
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        with whole(connection):
            for statement in (*_SCHEMA, slots.SCHEMA, *(_FROM_FIRST if tables else ())):
                execute(statement)
        return
    if "sealed" in tables:
        execute(slots.SCHEMA)
    if "page" in tables and "seal" not in _columns(connection, "page"):
        execute("ALTER TABLE page ADD COLUMN seal TEXT")
    _check(connection)


def _check(connection: sqlite3.Connection) -> None:
    """Raises Foreign unless the tables are those of a roster."""
    found = {table: " ".join(_columns(connection, table)) for table in {*_tables(connection), *_COLUMNS}}
    if found != _COLUMNS:
        wrong = sorted(table for table in found if found[table] != _COLUMNS.get(table))
        raise Foreign(f"expected the tables of a roster, got others: {', '.join(wrong)[:80]}")


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {str(name) for (name,) in found}


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    found = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return [str(name) for (name,) in found]


@contextlib.contextmanager
def whole(connection: sqlite3.Connection) -> Iterator[Any]:
    """Everything in it is in the file at its end, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.execute
        connection.execute("COMMIT")
    except BaseException:
        # Some failures have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# -- damage ---------------------------------------------------------------------------------------


TROUBLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading may raise. SQLite quotes names from a broken schema in its messages, as they lie there."""


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is broken: not a full disk, a lock, or a file that may not be read."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    foreign = isinstance(error, Foreign | UnicodeDecodeError)
    return foreign or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def flaw(path: Path) -> str | None:
    """What is wrong with the structure of the file, or None. Goes through all of it: for a thread."""
    try:
        with contextlib.closing(connect(path)) as connection:
            found = _structure(connection)
            _check(connection)
            if found is None and not _in_order(connection):
                found = "rows out of order"
    except TROUBLE as error:
        if not is_damage(error):
            raise
        return str(error)
    return found


def _structure(connection: sqlite3.Connection) -> str | None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if found == "ok" else str(found)


def _in_order(connection: sqlite3.Connection) -> bool:
    """Whether each row is where a search for it goes, which SQLite does not check of such tables."""
    try:
        rows = connection.execute("SELECT generation, bucket, id FROM sealed")
        return all(before < after for before, after in pairwise(rows))
    except TypeError:
        return False


def replace(path: Path, reason: str, *, keep: bool, spoilt: Collection[bytes] = ()) -> Replaced:
    """Put a new file in place of a damaged or missing one, whole or not at all. For a thread.

    What is not to be kept is overwritten, and no row of it is taken over. `spoilt` are lookup ids of rows
    that do not open any more.
    """
    fresh = path.with_name(path.name + FRESH)
    for each in (fresh, _rollback(fresh)):
        each.unlink(missing_ok=True)
    with contextlib.closing(connect(fresh)) as connection:
        own(fresh)
        prepare(connection)
        kept, complete = _take_over(path, connection, spoilt) if keep else (0, False)
    file: Path | None = None
    if not keep:
        for each in (_rollback(path), path):
            overwrite(each)
    elif path.exists():
        file = aside.keep_beside(path, _rollback(path))
    fresh.replace(path)
    sync_folder(path.parent)
    given_up = aside.all_set_aside(path)[:-KEPT]
    for each in given_up:
        aside.delete(each)
    return Replaced(
        reason=reason,
        file=file.name if file else None,
        kept=kept,
        more_may_be_lost=not complete,
        given_up=len(given_up),
    )


def own(path: Path) -> None:
    """For its owner alone; made by root, it is whose folder it is."""
    path.chmod(0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def _take_over(path: Path, fresh: sqlite3.Connection, spoilt: Collection[bytes]) -> tuple[int, bool]:
    """Copy the rows that were added here; how many, and whether that was surely all of them."""
    if not path.exists():
        return 0, False
    found: dict[bytes, tuple[Any, ...]] = {}
    complete = False
    with contextlib.suppress(*TROUBLE), contextlib.closing(connect(path)) as damaged:
        complete = _structure(damaged) is None and not spoilt
        for order in ("ASC", "DESC"):
            # From the other end as well, where something in between cannot be read.
            complete = _read_own(damaged, order, found) and complete
        with contextlib.suppress(*TROUBLE):
            as_of = damaged.execute("SELECT as_of FROM generation WHERE number = 0").fetchone()
            if as_of and isinstance(as_of[0], int):
                fresh.execute("UPDATE generation SET as_of = ? WHERE number = 0", as_of)
    kept = [row for id_, row in found.items() if id_ not in spoilt]
    with whole(fresh):
        fresh.executemany("INSERT INTO sealed VALUES (0, 0, ?, ?, ?)", kept)
    return len(kept), complete


def _read_own(damaged: sqlite3.Connection, order: str, found: dict[bytes, tuple[Any, ...]]) -> bool:
    """Whether all was read, and had the shape of a row."""
    sound = True
    try:
        for _, id_, owner, sealed in damaged.execute(_READ_OWN.format(order)):
            shaped = isinstance(id_, bytes) and isinstance(sealed, bytes) and isinstance(owner, bytes | None)
            if shaped and len(id_) == _ID and len(sealed) > _SHORTEST:
                found[id_] = (id_, owner, sealed)
            else:
                sound = False
    except TROUBLE:
        return False
    return sound


def _rollback(path: Path) -> Path:
    """What a change that broke off leaves. Beside a new file it would be taken for one of the new."""
    return path.with_name(path.name + "-journal")
