"""What devices have declared of entries that will not come, and what became of every sequence. Blocking.

A declaration is *vouched* for once the entry that makes it is itself in the agreed tree. Before that it may
be anybody's: its hashes let the tree be followed, but no receipt rests on them.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from agent.fleet.claims import Declaration, Why


@dataclass(frozen=True, slots=True)
class Lie:
    """A declaration of the device that its own signed tree belies."""

    by: int
    """Sequence of the entry that declares."""
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the entries of a lane that the device has produced."""

    lane: str
    delivered: int = 0
    declared: int = 0
    passed_over: int = 0
    unwritten: int = 0
    """Declared lost before they had a sequence: not among those produced."""

    @property
    def produced(self) -> int:
        return self.delivered + self.declared + self.passed_over


class ClaimBook:
    """Over the store's connection, inside its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, ledger: int, by: int, of: bytes, told: Declaration) -> None:
        """Keep what the line of this sequence and leaf hash says. Where nothing is known yet it counts."""
        execute = self._connection.execute
        execute(
            "INSERT INTO declaration VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
            (ledger, by, of, told.why, told.lane, told.unwritten),
        )
        for sequence, leaf in told.leaves.items():
            execute(
                "INSERT INTO claim VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (ledger, sequence, by, of, leaf),
            )
            execute(
                "INSERT INTO leaf VALUES (?, ?, ?, NULL) ON CONFLICT DO NOTHING", (ledger, sequence, leaf)
            )

    def others(self, ledger: int, start: int, end: int) -> Iterable[tuple[int, bytes]]:
        """Claimed hashes that are not what is kept, from index `start` to `end`, by index."""
        return self._connection.execute(
            "SELECT DISTINCT sequence - 1, claim.hash FROM claim JOIN leaf USING (ledger, sequence)"
            " WHERE ledger = ? AND sequence > ? AND sequence <= ? AND claim.hash != leaf.hash",
            (ledger, start, end),
        ).fetchall()

    def vouch(self, ledger: int, agreed: int) -> list[Lie]:
        """Of the declarations that the agreed tree has come to: keep the device's own, drop the others."""
        execute = self._connection.execute
        due = execute(
            'SELECT "by", "of", leaf.hash FROM declaration JOIN leaf'
            ' ON leaf.ledger = declaration.ledger AND leaf.sequence = "by"'
            ' WHERE declaration.ledger = ? AND "by" <= ? AND vouched = 0 ORDER BY "by"',
            (ledger, agreed),
        ).fetchall()
        lies: list[Lie] = []
        for by, of, leaf in due:
            place = (ledger, by, of)
            if leaf == of:
                execute(
                    'UPDATE declaration SET vouched = 1 WHERE ledger = ? AND "by" = ? AND "of" = ?', place
                )
                lies += self._belied(*place)
            else:
                execute('DELETE FROM declaration WHERE ledger = ? AND "by" = ? AND "of" = ?', place)
                execute('DELETE FROM claim WHERE ledger = ? AND "by" = ? AND "of" = ?', place)
        return lies

    def _belied(self, ledger: int, by: int, of: bytes) -> list[Lie]:
        found = self._connection.execute(
            "SELECT sequence FROM claim JOIN leaf USING (ledger, sequence)"
            ' WHERE ledger = ? AND "by" = ? AND "of" = ? AND claim.hash != leaf.hash LIMIT 1',
            (ledger, by, of),
        )
        return [Lie(by, sequence) for (sequence,) in found]

    def unaccounted(self, ledger: int, after: int, upto: int) -> int | None:
        """The first sequence of which neither the line is here nor a vouched declaration speaks."""
        (found,) = self._connection.execute(_UNACCOUNTED, (ledger, after, upto)).fetchone()
        return None if found is None else int(found)

    def unspoken(self, ledger: int, after: int, upto: int) -> list[int]:
        """All such sequences of which a hash is known: somebody claimed it, and the device has not signed."""
        return [row[0] for row in self._connection.execute(_UNSPOKEN, (ledger, after, upto))]

    def is_spoken_for(self, ledger: int, sequence: int) -> bool:
        """Whether the line of this sequence is here, or the device has said that it will not come."""
        known = self._connection.execute(
            "SELECT 1 FROM leaf WHERE ledger = ? AND sequence = ?", (ledger, sequence)
        ).fetchone()
        return known is not None and not self.unspoken(ledger, sequence - 1, sequence)

    def accounts(self, ledger: int, upto: int) -> list[Account]:
        """By lane, of the sequences up to there; counted anew, entry by entry."""
        counted: dict[str, dict[str, int]] = {}
        for lane, why, count in self._connection.execute(_ACCOUNTS, (ledger, upto)):
            counted.setdefault(lane or "", {})[why or "delivered"] = count
        for lane, count in self._connection.execute(
            "SELECT lane, sum(unwritten) FROM declaration"
            " WHERE ledger = ? AND vouched AND unwritten > 0 GROUP BY lane",
            (ledger,),
        ):
            counted.setdefault(lane, {})["unwritten"] = count
        return [Account(lane=lane, **counts) for lane, counts in sorted(counted.items())]

    def count(self, ledger: int, why: Why) -> int:
        """How many entries the device has declared so, and nobody has seen."""
        (count,) = self._connection.execute(
            "SELECT count(DISTINCT sequence) FROM absent JOIN leaf USING (ledger, sequence, hash)"
            " WHERE ledger = ? AND kind = ? AND leaf.lane IS NULL",
            (ledger, why),
        ).fetchone()
        return int(count)


_UNACCOUNTED = """
SELECT min(sequence) FROM leaf WHERE ledger = ? AND sequence > ? AND sequence <= ? AND lane IS NULL
AND NOT EXISTS (SELECT 1 FROM absent WHERE absent.ledger = leaf.ledger AND absent.sequence = leaf.sequence
                AND absent.hash = leaf.hash)
"""
_UNSPOKEN = _UNACCOUNTED.replace("min(sequence)", "sequence") + "ORDER BY sequence"
_ACCOUNTS = """
SELECT ifnull(lane, (SELECT absent.lane FROM absent WHERE absent.ledger = leaf.ledger
                     AND absent.sequence = leaf.sequence AND absent.hash = leaf.hash LIMIT 1)) AS which,
       CASE WHEN lane IS NULL THEN (SELECT kind FROM absent WHERE absent.ledger = leaf.ledger
                     AND absent.sequence = leaf.sequence AND absent.hash = leaf.hash LIMIT 1) END AS why,
       count(*)
FROM leaf WHERE ledger = ? AND sequence <= ? GROUP BY which, why
"""
