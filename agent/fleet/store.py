"""What the fleet keeps, in one SQLite file: every line received, what was signed, and what was found.

    store = Store(Path("fleet.db"))
    with store.transaction():
        store.keep(...)

The tables are in `agent.fleet.schema`. Blocking. Several processes may have the same file open: nothing is
remembered between two transactions.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

from agent.fleet.claim_book import ClaimBook
from agent.fleet.claims import declaration
from agent.fleet.device_log import BadEntry
from agent.fleet.finding_book import FindingBook
from agent.fleet.findings import Range
from agent.fleet.line_book import LineBook
from agent.fleet.note_book import NoteBook
from agent.fleet.schema import StoreFailed, mapped, prepare
from agent.ledger import TILE, Frontier

__all__ = ["Arrived", "Kept", "Ledger", "Pinned", "Store", "StoreFailed", "Trust", "opened"]

BUSY_S = 30.0
"""Longest wait for another process that writes the same file."""
RIVALS = 8
"""Lines kept under one id at most: whoever can publish could otherwise fill the file with them."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator["Store"]:
    """A file that is there already, closed in the end. Raises StoreFailed."""
    if not path.is_file():
        raise StoreFailed(f"{path}: expected a fleet's file, got none")
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


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
    accounted: int
    """Entries 1 to this one are agreed, and each is here or was declared by the device."""
    stirred: float
    """When something new came last."""

    @property
    def origin(self) -> str:
        """Without the tenant, for messages."""
        return f"{self.device}/{self.epoch}"


class Kept(Enum):
    NEW = auto()
    SAME = auto()
    OTHER = auto()
    """Not what is known under this id: kept beside it."""
    RIVAL = auto()
    """New, though another hash was declared for it."""


class Arrived(NamedTuple):
    """A line that has come."""

    sequence: int
    leaf: bytes
    line: bytes
    lane: str


class Store:
    """Open it in the thread that uses it; `close` it there."""

    def __init__(self, path: Path) -> None:
        """Raises StoreFailed."""
        self.path = path
        with mapped(path):
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            self.notes = NoteBook(self._connection)
            self.claims = ClaimBook(self._connection)
            self.findings = FindingBook(self._connection)
            self.lines = LineBook(self._connection)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
        self._connection.execute("PRAGMA synchronous=FULL")
        with self.transaction():
            if prepare(self._connection):
                self._read_again()

    def _read_again(self) -> None:
        """What entries that were kept before anybody asked say of others."""
        for ledger, sequence, line, leaf in self._connection.execute(
            "SELECT ledger, sequence, line, hash FROM entry JOIN leaf USING (ledger, sequence)"
            " WHERE instr(line, ?) OR instr(line, ?)",
            (b"postern.journal.declared_loss", b"postern.uplink.entry_passed_over"),
        ).fetchall():
            with contextlib.suppress(BadEntry):
                if (told := declaration(json.loads(line), sequence)) is not None:
                    self.claims.add(ledger, sequence, leaf, told)

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in it is on stable storage at its end, or nothing. Raises StoreFailed."""
        with self._between("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read in it is of one moment, and holds up nobody who writes. Raises StoreFailed."""
        with self._between("BEGIN"):
            yield

    @contextlib.contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        with mapped(self.path):
            self._connection.execute(begin)
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
            "INSERT INTO device (name, tenant, key, trust) VALUES (?, ?, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET tenant = excluded.tenant, key = excluded.key, trust = excluded.trust",
            (device, pinned.tenant, pinned.public, pinned.trust.value),
        )

    def put_aside(self, device: str, note: bytes | None) -> None:
        """The newest checkpoint of a device whose key is not known yet; None once it is dealt with."""
        self._connection.execute(
            "INSERT INTO device (name, unread) VALUES (?, ?) ON CONFLICT (name)"
            " DO UPDATE SET unread = excluded.unread",
            (device, note),
        )

    def aside(self, device: str) -> bytes | None:
        row = self._one("SELECT unread FROM device WHERE name = ?", device)
        return row[0] if row else None

    def hear(self, device: str, now: float) -> None:
        """It has sent something."""
        self._connection.execute(
            "INSERT INTO device (name, heard) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET heard = excluded.heard",
            (device, now),
        )

    def devices(self) -> list[tuple[str, float | None]]:
        """All that were ever heard of or are trusted, and when each was heard last."""
        return self._connection.execute("SELECT name, heard FROM device ORDER BY name").fetchall()

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
        """Ledgers that may miss entries below a signed size, and have not stirred since."""
        found = self._connection.execute(f"{_LEDGERS} WHERE signed > accounted AND stirred < ?", (before,))
        return [_ledger(row) for row in found]

    def stir(self, ledger: int, now: float) -> None:
        """Something new has come."""
        self._connection.execute("UPDATE ledger SET stirred = ? WHERE id = ?", (now, ledger))

    def bar(self, ledger: int) -> None:
        self._connection.execute("UPDATE ledger SET barred = 1 WHERE id = ?", (ledger,))

    # -- entries ----------------------------------------------------------------------------------

    def keep_all(self, ledger: int, arrived: Sequence[Arrived], agreed: int) -> list[Kept]:
        """As `keep`, for all that came together: most of the time nothing of it is known."""
        sequences = [each.sequence for each in arrived]
        known = self._one(
            "SELECT count(*) FROM leaf WHERE ledger = ? AND sequence BETWEEN ? AND ?",
            ledger,
            min(sequences),
            max(sequences),
        )[0]
        if known or len(set(sequences)) < len(sequences):
            return [self.keep(ledger, *each, agreed) for each in arrived]
        many = self._connection.executemany
        many(
            "INSERT INTO leaf VALUES (?, ?, ?, ?)",
            [(ledger, each.sequence, each.leaf, each.lane) for each in arrived],
        )
        many("INSERT INTO entry VALUES (?, ?, ?)", [(ledger, each.sequence, each.line) for each in arrived])
        return [Kept.NEW] * len(arrived)

    def keep(self, ledger: int, sequence: int, leaf: bytes, line: bytes, lane: str, agreed: int) -> Kept:
        """Store a line. It takes the place of a hash that was only claimed, unless that is agreed.

        Another line under an id that is taken is kept beside the first.
        """
        execute, place = self._connection.execute, (ledger, sequence)
        if execute(
            "INSERT INTO leaf VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (*place, leaf, lane)
        ).rowcount:
            execute("INSERT INTO entry VALUES (?, ?, ?)", (*place, line))
            return Kept.NEW
        known, its_lane = self._one("SELECT hash, lane FROM leaf WHERE ledger = ? AND sequence = ?", *place)
        if its_lane is None and (known == leaf or sequence > agreed):
            execute(
                "UPDATE leaf SET hash = ?, lane = ? WHERE ledger = ? AND sequence = ?", (leaf, lane, *place)
            )
            execute("INSERT INTO entry VALUES (?, ?, ?)", (*place, line))
            return Kept.NEW if known == leaf else Kept.RIVAL
        return Kept.SAME if known == leaf else self._contest(ledger, sequence, leaf, line)

    def _contest(self, ledger: int, sequence: int, leaf: bytes, line: bytes) -> Kept:
        stored = self._connection.execute(
            "INSERT INTO contested SELECT ?1, ?2, ?3, ?4 WHERE ?5 >"
            " (SELECT count(*) FROM contested WHERE ledger = ?1 AND sequence = ?2) ON CONFLICT DO NOTHING",
            (ledger, sequence, leaf, line, RIVALS),
        )
        return Kept.OTHER if stored.rowcount else Kept.SAME

    def leaf(self, ledger: int, sequence: int) -> bytes | None:
        row = self._one("SELECT hash FROM leaf WHERE ledger = ? AND sequence = ?", ledger, sequence)
        return row[0] if row else None

    def line(self, ledger: int, sequence: int) -> bytes | None:
        row = self._one("SELECT line FROM entry WHERE ledger = ? AND sequence = ?", ledger, sequence)
        return row[0] if row else None

    def lines_with(self, text: bytes, device: str | None) -> Iterator[bytes]:
        """All lines in which this stands, of one device or of all, in order."""
        found = self._connection.execute(
            "SELECT line FROM entry JOIN ledger ON ledger.id = entry.ledger"
            " WHERE instr(line, ?) AND coalesce(?, device) = device ORDER BY ledger.id, sequence",
            (text, device),
        )
        return (line for (line,) in found)

    def leaves(self, ledger: int, start: int, end: int) -> list[bytes]:
        """Leaf hashes from index `start` to `end`, as far as they are here."""
        found = self._connection.execute(
            "SELECT hash FROM leaf WHERE ledger = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (ledger, start, end),
        )
        return [leaf for (leaf,) in found]

    def rivals(self, ledger: int, start: int, end: int) -> dict[int, list[bytes]]:
        """Leaf hashes that are known beside those kept, by index, from index `start` to `end`: of other
        lines, and as they were declared.
        """
        found: dict[int, list[bytes]] = {}
        lines = self._connection.execute(
            "SELECT sequence - 1, hash FROM contested WHERE ledger = ? AND sequence > ? AND sequence <= ?",
            (ledger, start, end),
        )
        for index, leaf in (*lines, *self.claims.others(ledger, start, end)):
            found.setdefault(index, []).append(leaf)
        return found

    def contested(self, ledger: int) -> int:
        """How many lines were not the device's, or are waiting for the root that decides."""
        (count,) = self._one("SELECT count(*) FROM contested WHERE ledger = ?", ledger)
        return int(count)

    def swap(self, ledger: int, index: int, leaf: bytes) -> None:
        """The device has signed for this hash: its line, if there is one, takes the place of the other."""
        place, execute = (ledger, index + 1), self._connection.execute
        other = self._one("SELECT hash FROM leaf WHERE ledger = ? AND sequence = ?", *place)[0]
        if (line := self.line(ledger, index + 1)) is not None:
            self._contest(*place, other, line)
            execute("DELETE FROM entry WHERE ledger = ? AND sequence = ?", place)
        row = self._one(
            "SELECT line FROM contested WHERE ledger = ? AND sequence = ? AND hash = ?", *place, leaf
        )
        lane = None
        if row is not None:
            lane = lane_of(json.loads(row[0]))
            execute("INSERT INTO entry VALUES (?, ?, ?)", (*place, row[0]))
            execute("DELETE FROM contested WHERE ledger = ? AND sequence = ? AND hash = ?", (*place, leaf))
        execute("UPDATE leaf SET hash = ?, lane = ? WHERE ledger = ? AND sequence = ?", (leaf, lane, *place))

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

    def root(self, ledger: int, size: int) -> bytes:
        """Root over the first `size` leaves, all of them agreed."""
        return self.frontier(ledger, size).root()

    def frontier(self, ledger: int, size: int) -> Frontier:
        """The tree of the first `size` leaves, all of them agreed."""
        return Frontier.read(
            size,
            lambda start, end: self.leaves(ledger, start, end),
            lambda start, end: self.tiles(ledger, start, end),
        )

    def tiles(self, ledger: int, start: int, end: int) -> Sequence[bytes]:
        """Roots of 256 agreed leaves each, by number from `start` to `end`."""
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

    def account(self, ledger: Ledger, agreed: int) -> int:
        """Note up to where the fate of every entry is known now."""
        first = self.claims.unaccounted(ledger.id, ledger.accounted, agreed)
        accounted = agreed if first is None else first - 1
        self._connection.execute("UPDATE ledger SET accounted = ? WHERE id = ?", (accounted, ledger.id))
        return accounted

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()


_LEDGERS = "SELECT id, device, epoch, whole, agreed, signed, barred, accounted, stirred FROM ledger"


def lane_of(entry: dict[str, Any]) -> str:
    """As the entry says; empty where it is of an agent that did not say it."""
    lane = entry.get("lane")
    return lane if isinstance(lane, str) else ""


def _ledger(row: tuple[Any, ...]) -> Ledger:
    number, device, epoch, whole, agreed, signed, barred, accounted, stirred = row
    tree = Frontier.load(agreed)
    return Ledger(number, device, epoch, whole, tree, signed, bool(barred), accounted, stirred)
