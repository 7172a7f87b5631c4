"""What devices have signed and what the fleet has cosigned, as it is kept. Blocking."""

import sqlite3
from typing import Any

from agent.fleet.findings import Verdict
from agent.note import Checkpoint


class NoteBook:
    """Over the store's connection, inside its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def keep(self, ledger: int, new: Checkpoint, note: bytes, verdict: Verdict) -> None:
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

    def refused(self, ledger: int, size: int) -> list[tuple[int, bytes, bytes]]:
        """The same of those that were found wrong."""
        return self._checkpoints(ledger, size, Verdict.REFUSED)

    def pending(self, ledger: int, size: int) -> list[tuple[int, bytes, bytes]]:
        """Size, root and note of the checkpoints up to `size` that wait for their entries."""
        return self._checkpoints(ledger, size, Verdict.PENDING)

    def _checkpoints(self, ledger: int, size: int, verdict: Verdict) -> list[tuple[int, bytes, bytes]]:
        return self._connection.execute(
            "SELECT size, root, note FROM checkpoint WHERE ledger = ? AND size <= ? AND verdict = ?"
            " ORDER BY size",
            (ledger, size, verdict),
        ).fetchall()

    def largest_agreed(self, ledger: int, upto: int) -> tuple[int, bytes] | None:
        """Size and note of the largest checkpoint up to there with which the entries agree."""
        row = self._one(
            "SELECT size, note FROM checkpoint WHERE ledger = ? AND size <= ? AND verdict = ?"
            " ORDER BY size DESC LIMIT 1",
            ledger,
            upto,
            Verdict.AGREED,
        )
        return (row[0], row[1]) if row else None

    def cosigned(self, ledger: int, size: int, note: bytes) -> None:
        self._connection.execute(
            "INSERT INTO receipt VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET note = excluded.note",
            (ledger, size, note),
        )

    def receipt(self, ledger: int) -> tuple[int, bytes] | None:
        """Size and note of the largest receipt."""
        row = self._one("SELECT size, note FROM receipt WHERE ledger = ? ORDER BY size DESC LIMIT 1", ledger)
        return (row[0], row[1]) if row else None

    def covering(self, ledger: int, sequence: int) -> tuple[int, bytes] | None:
        """Size and note of the first checkpoint that the entries agree with and that covers this one."""
        row = self._one(
            "SELECT size, note FROM checkpoint WHERE ledger = ? AND size >= ? AND verdict = ?"
            " ORDER BY size LIMIT 1",
            ledger,
            sequence,
            Verdict.AGREED,
        )
        return (row[0], row[1]) if row else None

    def receipt_covering(self, ledger: int, sequence: int) -> tuple[int, bytes] | None:
        """Size and note of the first receipt that covers this entry."""
        row = self._one(
            "SELECT size, note FROM receipt WHERE ledger = ? AND size >= ? ORDER BY size LIMIT 1",
            ledger,
            sequence,
        )
        return (row[0], row[1]) if row else None

    def all(self, ledger: int) -> list[tuple[int, bytes, bytes, Verdict]]:
        """Size, root, note and verdict of every checkpoint."""
        found = self._connection.execute(
            "SELECT size, root, note, verdict FROM checkpoint WHERE ledger = ? ORDER BY size, root", (ledger,)
        )
        return [(size, root, note, Verdict(verdict)) for size, root, note, verdict in found]

    def receipts(self, ledger: int) -> list[tuple[int, bytes]]:
        """Size and note of every receipt."""
        return self._connection.execute(
            "SELECT size, note FROM receipt WHERE ledger = ? ORDER BY size", (ledger,)
        ).fetchall()

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()
