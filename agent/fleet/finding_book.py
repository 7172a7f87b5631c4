"""The findings as they are kept: once each, open until what they tell of is put right. Blocking.

A GAP is settled when what was missing has come, a CONTRADICTION when the signed root has decided, a FORK when
it turns out that entries were forged and the device had signed its own. What a device has signed against
itself stays open until a person settles it, and says why; it stays on record in any case.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.fleet.findings import GRAVE, Finding, Kind


@dataclass(frozen=True, slots=True)
class Kept:
    """A finding with its history; times in seconds of Unix time."""

    number: int
    finding: Finding
    at: float
    settled: float | None
    operator: str | None = None
    """Who has settled it, where a person has."""
    reason: str | None = None

    @property
    def grave(self) -> bool:
        return self.finding.kind in GRAVE

    def as_json(self) -> dict[str, Any]:
        told = {"number": self.number, "at": self.at, "settled": self.settled, "grave": self.grave}
        by_hand = {"operator": self.operator, "reason": self.reason} if self.operator is not None else {}
        return {**self.finding.as_json(), **told, **by_hand}


class FindingBook:
    """Over the store's connection, inside its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, finding: Finding, now: float, *, settled: bool = False) -> bool:
        """Whether it is news: never told before, or settled since. One that comes `settled` opens nothing."""
        row = (*_columns(finding), now, now if settled else None)
        return bool(self._connection.execute(_NOTED if settled else _OPENED, row).rowcount)

    def open_about(self, device: str, epoch: str, kind: Kind) -> list[str]:
        """What the open ones of a kind are about."""
        found = self._connection.execute(
            "SELECT about FROM finding WHERE device = ? AND epoch = ? AND kind = ? AND settled IS NULL",
            (device, epoch, kind),
        )
        return [about for (about,) in found.fetchall()]

    def settle(self, device: str, epoch: str, kind: Kind, about: str, now: float) -> None:
        """The one of a kind that is about this."""
        self._connection.execute(
            "UPDATE finding SET settled = ? WHERE device = ? AND epoch = ? AND kind = ? AND about = ?"
            " AND settled IS NULL",
            (now, device, epoch, kind, about),
        )

    def settle_by_hand(self, number: int, operator: str, reason: str, now: float) -> bool | None:
        """Whether it was open; None where there is none of this number."""
        row = self._connection.execute("SELECT settled FROM finding WHERE number = ?", (number,)).fetchone()
        if row is None or row[0] is not None:
            return None if row is None else False
        self._connection.execute("UPDATE finding SET settled = ? WHERE number = ?", (now, number))
        self._connection.execute(
            "INSERT INTO settlement VALUES (?, ?, ?, ?)", (number, now, operator, reason)
        )
        return True

    def all(self, device: str | None = None, *, settled: bool = False) -> Iterator[Kept]:
        """In the order of their making; the settled ones too if asked for."""
        found = self._connection.execute(
            "SELECT number, kind, device, epoch, about, text, finding.at, settled, operator, reason"
            " FROM finding LEFT JOIN settlement ON settlement.finding = number AND settlement.at = settled"
            " WHERE ifnull(device = ?, 1) AND (? OR settled IS NULL) ORDER BY number",
            (device, settled),
        )
        for number, kind, whose, epoch, about, text, at, when, operator, reason in found:
            told = Finding(kind=Kind(kind), device=whose, epoch=epoch, about=about, text=text)
            yield Kept(number, told, at, when, operator, reason)


def _columns(finding: Finding) -> tuple[str, ...]:
    return finding.kind, finding.device, finding.epoch, finding.about, finding.text


_NOTED = (
    "INSERT INTO finding (kind, device, epoch, about, text, at, settled) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_OPENED = _NOTED.removesuffix("NOTHING") + (
    "UPDATE SET text = excluded.text, at = excluded.at, settled = NULL WHERE settled IS NOT NULL"
)
