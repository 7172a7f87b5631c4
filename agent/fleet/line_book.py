"""The lines that the fleet has, as questions about them are answered. Blocking; nothing is changed."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Kept(NamedTuple):
    """A line in its place."""

    ledger: int
    sequence: int
    line: bytes


class Leaf(NamedTuple):
    """What is here of an entry: its hash, and its line where that has come."""

    sequence: int
    hash: bytes
    line: bytes | None


class LineBook:
    """Over the store's connection, inside its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def latest(self, ledger: int, count: int) -> list[bytes]:
        """The newest lines of a ledger, oldest of them first."""
        found = self._connection.execute(
            "SELECT line FROM entry WHERE ledger = ? ORDER BY sequence DESC LIMIT ?", (ledger, count)
        )
        return [line for (line,) in found][::-1]

    def before(self, ledger: int, sequence: int) -> bytes | None:
        """The last line before a sequence."""
        row = self._connection.execute(
            "SELECT line FROM entry WHERE ledger = ? AND sequence < ? ORDER BY sequence DESC LIMIT 1",
            (ledger, sequence),
        ).fetchone()
        return row[0] if row else None

    def with_any(self, texts: Sequence[str], device: str | None = None) -> Iterator[Kept]:
        """All lines in which one of these texts stands, by ledger and sequence."""
        found = self._connection.execute(
            "SELECT entry.ledger, sequence, line FROM entry JOIN ledger ON ledger.id = entry.ledger"
            " WHERE ifnull(device = ?, 1) AND EXISTS"
            " (SELECT 1 FROM json_each(?) WHERE instr(line, CAST(value AS BLOB)))"
            " ORDER BY entry.ledger, sequence",
            (device, json.dumps(texts)),
        )
        return (Kept(*row) for row in found)

    def highest(self, ledger: int) -> int:
        """The highest sequence of which anything is known."""
        (found,) = self._connection.execute(
            "SELECT ifnull(max(sequence), 0) FROM leaf WHERE ledger = ?", (ledger,)
        ).fetchone()
        return int(found)

    def leaves(self, ledger: int, after: int, upto: int) -> list[Leaf]:
        """What is here of the sequences after one up to another."""
        found = self._connection.execute(
            "SELECT sequence, hash, line FROM leaf LEFT JOIN entry USING (ledger, sequence)"
            " WHERE ledger = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (ledger, after, upto),
        )
        return [Leaf(*row) for row in found]
