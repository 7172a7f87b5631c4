"""The tables of the fleet's file, and how an older one is brought up to date.

device       the key each device is known by, how it came to be trusted, and when it was last heard
ledger       one journal of one device, and how far it is whole, agreed and accounted for
leaf         hash of each entry, by ledger and sequence, with its lane; without one only the hash is known
entry        the lines, the same way
contested    other lines under an id that was taken: the signed root decides
declaration  entries that say what will not come
claim        the hashes they give for it
absent       a view: what is claimed by declarations that the device has signed
tile         roots of 256 agreed leaves, so that an old size is checked in milliseconds
checkpoint   what the device has signed
receipt      what the fleet has cosigned
finding      what was reported, once each, and when it was settled
settlement   which of these somebody has settled: when, who and why
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

SCHEMA = 3

_DECLARATIONS = (
    'CREATE TABLE declaration (ledger INTEGER, "by" INTEGER, "of" BLOB, kind TEXT NOT NULL,'
    " lane TEXT NOT NULL, unwritten INTEGER NOT NULL, vouched INTEGER NOT NULL DEFAULT 0,"
    ' PRIMARY KEY (ledger, "by", "of")) WITHOUT ROWID',
    'CREATE TABLE claim (ledger INTEGER, sequence INTEGER, "by" INTEGER, "of" BLOB, hash BLOB NOT NULL,'
    ' PRIMARY KEY (ledger, sequence, "by", "of")) WITHOUT ROWID',
    "CREATE VIEW absent AS SELECT ledger, sequence, hash, kind, lane"
    ' FROM claim JOIN declaration USING (ledger, "by", "of") WHERE vouched',
)
_CONTESTED = (
    "CREATE TABLE contested (ledger INTEGER, sequence INTEGER, hash BLOB, line BLOB NOT NULL,"
    " PRIMARY KEY (ledger, sequence, hash)) WITHOUT ROWID"
)
_SETTLEMENT = (
    "CREATE TABLE settlement (finding INTEGER, at REAL, operator TEXT NOT NULL, reason TEXT NOT NULL,"
    " PRIMARY KEY (finding, at)) WITHOUT ROWID"
)
TABLES = (
    "CREATE TABLE device (name TEXT PRIMARY KEY, tenant TEXT, key BLOB, trust TEXT, unread BLOB, heard REAL)"
    " WITHOUT ROWID",
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL,"
    " whole INTEGER NOT NULL DEFAULT 0, agreed BLOB NOT NULL, signed INTEGER NOT NULL DEFAULT 0,"
    " barred INTEGER NOT NULL DEFAULT 0, stirred REAL NOT NULL, accounted INTEGER NOT NULL DEFAULT 0,"
    " UNIQUE (device, epoch))",
    "CREATE TABLE leaf (ledger INTEGER, sequence INTEGER, hash BLOB NOT NULL, lane TEXT,"
    " PRIMARY KEY (ledger, sequence)) WITHOUT ROWID",
    "CREATE TABLE entry (ledger INTEGER, sequence INTEGER, line BLOB NOT NULL,"
    " PRIMARY KEY (ledger, sequence)) WITHOUT ROWID",
    _CONTESTED,
    *_DECLARATIONS,
    "CREATE TABLE tile (ledger INTEGER, number INTEGER, root BLOB NOT NULL,"
    " PRIMARY KEY (ledger, number)) WITHOUT ROWID",
    "CREATE TABLE checkpoint (ledger INTEGER, size INTEGER, root BLOB, note BLOB NOT NULL,"
    " verdict TEXT NOT NULL, PRIMARY KEY (ledger, size, root)) WITHOUT ROWID",
    "CREATE TABLE receipt (ledger INTEGER, size INTEGER, note BLOB NOT NULL,"
    " PRIMARY KEY (ledger, size)) WITHOUT ROWID",
    "CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, device TEXT NOT NULL,"
    " epoch TEXT NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL, settled REAL,"
    " UNIQUE (device, epoch, kind, about))",
    _SETTLEMENT,
)

_FROM_1 = (
    "ALTER TABLE device ADD COLUMN heard REAL",
    "ALTER TABLE ledger ADD COLUMN accounted INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE leaf ADD COLUMN lane TEXT",
    # Every leaf had its line then, and no line said its lane.
    "UPDATE leaf SET lane = ''",
    "ALTER TABLE contested RENAME TO contested_1",
    _CONTESTED,
    "INSERT INTO contested SELECT ledger, sequence, hash, line FROM contested_1",
    "DROP TABLE contested_1",
    *_DECLARATIONS,
    "ALTER TABLE finding ADD COLUMN settled REAL",
)
_UPGRADES = {0: TABLES, 1: (*_FROM_1, _SETTLEMENT), 2: (_SETTLEMENT,)}


class StoreFailed(Exception):
    """The fleet's file cannot be read or written: nothing more may be acknowledged."""


def prepare(connection: sqlite3.Connection) -> bool:
    """Make the tables, or bring older ones up to date: in a transaction.

    Whether what their entries declare was never read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == SCHEMA:
        return False
    if version not in _UPGRADES or (version == 0 and tables):
        raise sqlite3.DatabaseError(f"expected a fleet's store of schema {SCHEMA}, got {version}")
    for statement in _UPGRADES[version]:
        connection.execute(statement)
    if version == 1:
        _account(connection)
    connection.execute(f"PRAGMA user_version={SCHEMA}")
    return bool(version == 1)


def _account(connection: sqlite3.Connection) -> None:
    """What was agreed then had all come. A frontier begins with its size."""
    for ledger, agreed in connection.execute("SELECT id, agreed FROM ledger").fetchall():
        size = int.from_bytes(agreed[:8], "big")
        connection.execute("UPDATE ledger SET accounted = ? WHERE id = ?", (size, ledger))


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """SQLite's errors, and the disk's, as StoreFailed."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"{path}: {error}") from error
