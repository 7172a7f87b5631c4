"""What the fleet keeps, in one SQLite file: every line received, what was signed, and what was found.

device      the key each device is known by, and how it came to be trusted
ledger      one journal of one device, and how far it is whole and agreed
leaf        hash of each line, by ledger and sequence
entry       the lines, the same way
contested   a second line under an id that was taken: the signed root decides
tile        roots of 256 agreed leaves, so that an old size is checked in milliseconds
checkpoint  what the device has signed
receipt     what the fleet has cosigned
finding     what was reported, once each

Blocking. Several processes may have the same file open: nothing is remembered between two transactions.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from agent.fleet.findings import Finding, Range, Verdict
from agent.ledger import TILE, Frontier, subtree_root
from agent.note import Checkpoint

SCHEMA = 1
BUSY_S = 30.0
"""Longest wait for another process that writes the same file."""

_TABLES = (
    "CREATE TABLE device (name TEXT PRIMARY KEY, tenant TEXT, key BLOB, trust TEXT, unread BLOB) WITHOUT ROWID",
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL,"
    " whole INTEGER NOT NULL DEFAULT 0, agreed BLOB NOT NULL, signed INTEGER NOT NULL DEFAULT 0,"
    " barred INTEGER NOT NULL DEFAULT 0, stirred REAL NOT NULL, UNIQUE (device, epoch))",
    "CREATE TABLE leaf (ledger INTEGER, sequence INTEGER, hash BLOB NOT NULL,"
    " PRIMARY KEY (ledger, sequence)) WITHOUT ROWID",
    "CREATE TABLE entry (ledger INTEGER, sequence INTEGER, line BLOB NOT NULL,"
    " PRIMARY KEY (ledger, sequence)) WITHOUT ROWID",
    "CREATE TABLE contested (ledger INTEGER, sequence INTEGER, hash BLOB NOT NULL, line BLOB NOT NULL,"
    " PRIMARY KEY (ledger, sequence)) WITHOUT ROWID",
    "CREATE TABLE tile (ledger INTEGER, number INTEGER, root BLOB NOT NULL,"
    " PRIMARY KEY (ledger, number)) WITHOUT ROWID",
    "CREATE TABLE checkpoint (ledger INTEGER, size INTEGER, root BLOB, note BLOB NOT NULL,"
    " verdict TEXT NOT NULL, PRIMARY KEY (ledger, size, root)) WITHOUT ROWID",
    "CREATE TABLE receipt (ledger INTEGER, size INTEGER, note BLOB NOT NULL,"
    " PRIMARY KEY (ledger, size)) WITHOUT ROWID",
    "CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, device TEXT NOT NULL,"
    " epoch TEXT NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL,"
    " UNIQUE (device, epoch, kind, about))",
)


class StoreFailed(Exception):
    """The fleet's file cannot be read or written: nothing more may be acknowledged."""


class Trust(Enum):
    """How a device's key came to be trusted."""

    GIVEN = "given"
    FIRST_SIGHT = "first sight"


@dataclass(frozen=True, slots=True)
class Pinned:
    """The key that a device is known by."""

    tenant: str
    public: bytes
    trust: Trust


@dataclass(frozen=True, slots=True)
class Ledger:
    """One journal of one device, as it was when it was read."""

    id: int
    device: str
    epoch: str
    whole: int
    """Entries 1 to this one are all here."""
    agreed: Frontier
    """The tree up to which the device's signature and the entries agree."""
    signed: int
    """The largest size that the device has signed."""
    barred: bool
    """It has signed two histories: nothing of it is cosigned any more."""


class Kept(Enum):
    NEW = auto()
    SAME = auto()
    OTHER = auto()


class Store:
    """Open it in the thread that uses it; `close` it there."""

    def __init__(self, path: Path) -> None:
        """Raises StoreFailed."""
        with _mapped(path):
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            try:
                self._prepare(path)
            except BaseException:
                self._connection.close()
                raise
        self.path = path

    def _prepare(self, path: Path) -> None:
        path.chmod(0o600)
        execute = self._connection.execute
        execute("PRAGMA journal_mode=WAL").fetchone()
        execute("PRAGMA synchronous=FULL")
        with self.transaction():
            (version,) = execute("PRAGMA user_version").fetchone()
            (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version != SCHEMA and (version or tables):
                raise sqlite3.DatabaseError(f"expected a fleet's store of schema {SCHEMA}, got {version}")
            if version == 0:
                for statement in _TABLES:
                    execute(statement)
                execute(f"PRAGMA user_version={SCHEMA}")

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in it is on stable storage at its end, or nothing. Raises StoreFailed."""
        with _mapped(self.path if hasattr(self, "path") else Path()):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
