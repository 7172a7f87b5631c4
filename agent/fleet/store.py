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
from typing import Any

from agent.fleet.findings import Finding, Range, Verdict
from agent.ledger import TILE, Frontier
from agent.note import Checkpoint

SCHEMA = 1
BUSY_S = 30.0
"""Longest wait for another process that writes the same file."""

_TABLES = (
    "CREATE TABLE device (name TEXT PRIMARY KEY, tenant TEXT, key BLOB, trust TEXT, unread BLOB)"
    " WITHOUT ROWID",
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
        self.path = path
        with _mapped(path):
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
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
        with _mapped(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # -- devices ----------------------------------------------------------------------------------

    def pinned(self, device: str) -> Pinned | None:
        row = self._one("SELECT tenant, key, trust FROM device WHERE name = ? AND key IS NOT NULL", device)
        return Pinned(row[0], row[1], Trust(row[2])) if row else None

    def pin(self, device: str, pinned: Pinned) -> None:
        """From now on the device is known by this key."""
        self._connection.execute(
            "INSERT INTO device VALUES (?, ?, ?, ?, NULL) ON CONFLICT (name)"
            " DO UPDATE SET tenant = excluded.tenant, key = excluded.key, trust = excluded.trust",
            (device, pinned.tenant, pinned.public, pinned.trust.value),
        )

    def put_aside(self, device: str, note: bytes | None) -> None:
        """The newest checkpoint of a device whose key is not known yet; None once it is dealt with."""
        self._connection.execute(
            "INSERT INTO device VALUES (?, NULL, NULL, NULL, ?) ON CONFLICT (name)"
            " DO UPDATE SET unread = excluded.unread",
            (device, note),
        )

    def aside(self, device: str) -> bytes | None:
        row = self._one("SELECT unread FROM device WHERE name = ?", device)
        return row[0] if row else None

    # -- ledgers ----------------------------------------------------------------------------------

    def ledger(self, device: str, epoch: str, now: float) -> Ledger:
        """The journal of this name, made where there is none yet."""
        self._connection.execute(
            "INSERT INTO ledger (device, epoch, agreed, stirred) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (device, epoch, Frontier().dump(), now),
        )
        found = self.known_ledger(device, epoch)
        assert found is not None
        return found

    def known_ledger(self, device: str, epoch: str) -> Ledger | None:
        row = self._one(f"{_LEDGERS} WHERE device = ? AND epoch = ?", device, epoch)
        return _ledger(row) if row else None

    def ledgers(self, device: str) -> list[Ledger]:
        """All journals of a device, in the order in which they were first heard of."""
        found = self._connection.execute(f"{_LEDGERS} WHERE device = ? ORDER BY id", (device,))
        return [_ledger(row) for row in found]

    def overdue(self, before: float) -> list[Ledger]:
        """Ledgers that miss entries below a signed size, and have not stirred since."""
        found = self._connection.execute(f"{_LEDGERS} WHERE signed > whole AND stirred < ?", (before,))
        return [_ledger(row) for row in found]

    def stir(self, ledger: int, now: float) -> None:
        """Something new has come."""
        self._connection.execute("UPDATE ledger SET stirred = ? WHERE id = ?", (now, ledger))

    def bar(self, ledger: int) -> None:
        self._connection.execute("UPDATE ledger SET barred = 1 WHERE id = ?", (ledger,))

    # -- entries ----------------------------------------------------------------------------------

    def keep(self, ledger: int, sequence: int, leaf: bytes, line: bytes) -> Kept:
        """Store a line. Another one under an id that is taken is kept beside the first."""
        execute = self._connection.execute
        if execute(
            "INSERT INTO leaf VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (ledger, sequence, leaf)
        ).rowcount:
            execute("INSERT INTO entry VALUES (?, ?, ?)", (ledger, sequence, line))
            return Kept.NEW
        if self.leaf(ledger, sequence) == leaf:
            return Kept.SAME
        execute(
            "INSERT INTO contested VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (ledger, sequence, leaf, line)
        )
        return Kept.OTHER

    def leaf(self, ledger: int, sequence: int) -> bytes | None:
        row = self._one("SELECT hash FROM leaf WHERE ledger = ? AND sequence = ?", ledger, sequence)
        return row[0] if row else None

    def line(self, ledger: int, sequence: int) -> bytes | None:
        row = self._one("SELECT line FROM entry WHERE ledger = ? AND sequence = ?", ledger, sequence)
        return row[0] if row else None

    def leaves(self, ledger: int, start: int, end: int) -> list[bytes]:
        """Leaf hashes from index `start` to `end`, as far as they are here."""
        found = self._connection.execute(
            "SELECT hash FROM leaf WHERE ledger = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (ledger, start, end),
        )
        return [leaf for (leaf,) in found]

    def contested(self, ledger: int, start: int, end: int) -> dict[int, bytes]:
        """Second leaf hashes by index, from index `start` to `end`."""
        found = self._connection.execute(
            "SELECT sequence - 1, hash FROM contested WHERE ledger = ? AND sequence > ? AND sequence <= ?",
            (ledger, start, end),
        )
        return dict(found.fetchall())

    def swap(self, ledger: int, index: int) -> None:
        """The contested line was the device's: it and the stored one change places."""
        place = (ledger, index + 1)
        first = self._one(
            "SELECT hash, line FROM leaf JOIN entry USING (ledger, sequence)"
            " WHERE ledger = ? AND sequence = ?",
            *place,
        )
        leaf, line = self._one("SELECT hash, line FROM contested WHERE ledger = ? AND sequence = ?", *place)
        execute = self._connection.execute
        execute("UPDATE leaf SET hash = ? WHERE ledger = ? AND sequence = ?", (leaf, *place))
        execute("UPDATE entry SET line = ? WHERE ledger = ? AND sequence = ?", (line, *place))
        execute("UPDATE contested SET hash = ?, line = ? WHERE ledger = ? AND sequence = ?", (*first, *place))

    def extend(self, ledger: Ledger) -> int:
        """Note how far the ledger is whole now."""
        whole = ledger.whole
        for (sequence,) in self._connection.execute(
            "SELECT sequence FROM leaf WHERE ledger = ? AND sequence > ? ORDER BY sequence",
            (ledger.id, whole),
        ):
            if sequence != whole + 1:
                break
            whole = sequence
        self._connection.execute("UPDATE ledger SET whole = ? WHERE id = ?", (whole, ledger.id))
        return whole

    def beyond(self, ledger: int, sequence: int) -> bool:
        """Whether anything after this sequence has come."""
        return (
            self._one("SELECT 1 FROM leaf WHERE ledger = ? AND sequence > ? LIMIT 1", ledger, sequence)
            is not None
        )

    def missing(self, ledger: Ledger, size: int) -> list[Range]:
        """Runs of sequences up to `size` that are not here."""
        runs, next_one = [], ledger.whole + 1
        for (sequence,) in self._connection.execute(
            "SELECT sequence FROM leaf WHERE ledger = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (ledger.id, ledger.whole, size),
        ):
            if sequence > next_one:
                runs.append((next_one, sequence - 1))
            next_one = sequence + 1
        return [*runs, (next_one, size)] if next_one <= size else runs

    # -- what was signed --------------------------------------------------------------------------

    def signed(self, ledger: int, new: Checkpoint, note: bytes, verdict: Verdict) -> None:
        """Keep a checkpoint of the device, and remember the largest size."""
        self._connection.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET verdict = excluded.verdict",
            (ledger, new.size, new.root, note, verdict),
        )
        self._connection.execute("UPDATE ledger SET signed = max(signed, ?) WHERE id = ?", (new.size, ledger))

    def verdict(self, ledger: int, new: Checkpoint) -> Verdict | None:
        """What was thought of this very checkpoint; None if it is new."""
        row = self._one(
            "SELECT verdict FROM checkpoint WHERE ledger = ? AND size = ? AND root = ?",
            ledger,
            new.size,
            new.root,
        )
        return Verdict(row[0]) if row else None

    def rival(self, ledger: int, new: Checkpoint) -> bytes | None:
        """Another root that was signed for this size."""
        row = self._one(
            "SELECT root FROM checkpoint WHERE ledger = ? AND size = ? AND root != ?",
            ledger,
            new.size,
            new.root,
        )
        return row[0] if row else None

    def pending(self, ledger: int, size: int) -> list[tuple[int, bytes, bytes]]:
        """Size, root and note of the checkpoints up to `size` that wait for their entries."""
        return self._connection.execute(
            "SELECT size, root, note FROM checkpoint WHERE ledger = ? AND size <= ? AND verdict = ?"
            " ORDER BY size",
            (ledger, size, Verdict.PENDING),
        ).fetchall()

    def root(self, ledger: int, size: int) -> bytes:
        """Root over the first `size` leaves, all of them agreed."""
        return Frontier.read(
            size,
            lambda start, end: self.leaves(ledger, start, end),
            lambda start, end: self._tiles(ledger, start, end),
        ).root()

    def _tiles(self, ledger: int, start: int, end: int) -> Sequence[bytes]:
        found = self._connection.execute(
            "SELECT root FROM tile WHERE ledger = ? AND number >= ? AND number < ? ORDER BY number",
            (ledger, start, end),
        )
        return [root for (root,) in found]

    def agree(self, ledger: Ledger, frontier: Frontier, leaves: Sequence[bytes]) -> None:
        """The entries up to the frontier are vouched for; `leaves` are those since the last one."""
        first = ledger.agreed.size
        for number in range(first // TILE, frontier.size // TILE):
            start, end = number * TILE, (number + 1) * TILE
            inside = (
                leaves[start - first : end - first] if start >= first else self.leaves(ledger.id, start, end)
            )
            root = Frontier().append(*inside).root()
            self._connection.execute("INSERT INTO tile VALUES (?, ?, ?)", (ledger.id, number, root))
        self._connection.execute("UPDATE ledger SET agreed = ? WHERE id = ?", (frontier.dump(), ledger.id))

    def cosigned(self, ledger: int, size: int, note: bytes) -> None:
        self._connection.execute(
            "INSERT INTO receipt VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET note = excluded.note",
            (ledger, size, note),
        )

    def receipt(self, ledger: int) -> tuple[int, bytes] | None:
        """Size and note of the largest receipt."""
        row = self._one("SELECT size, note FROM receipt WHERE ledger = ? ORDER BY size DESC LIMIT 1", ledger)
        return (row[0], row[1]) if row else None

    # -- findings ---------------------------------------------------------------------------------

    def found(self, finding: Finding, now: float) -> bool:
        """Whether it is new."""
        return bool(
            self._connection.execute(
                "INSERT INTO finding (kind, device, epoch, about, text, at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (finding.kind, finding.device, finding.epoch, finding.about, finding.text, now),
            ).rowcount
        )

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()


_LEDGERS = "SELECT id, device, epoch, whole, agreed, signed, barred FROM ledger"


def _ledger(row: tuple[Any, ...]) -> Ledger:
    number, device, epoch, whole, agreed, signed, barred = row
    return Ledger(number, device, epoch, whole, Frontier.load(agreed), signed, bool(barred))


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"{path}: {error}") from error
