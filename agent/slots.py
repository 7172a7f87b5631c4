"""What the fleet's pages say about the slots of fingerprint modules, beside the sealed rows.

A template is no presented secret: it has to be in its module before anybody shows anything. So its row is not
sealed here and opens to nobody: of each template stand only its place, keyed digests of it and of its
subject, and the first half of its `v`. The template itself is in its page alone, which can be fetched again.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from agent.templates import Finger, Template, Wanted

HALF = 16
"""Bytes of a row's `v` that a revocation names it by."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS slot (generation INTEGER, bucket INTEGER, value BLOB, unit TEXT NOT NULL,"
    " slot INTEGER NOT NULL, owner TEXT NOT NULL, digest TEXT NOT NULL, until INTEGER,"
    " PRIMARY KEY (generation, bucket, value)) WITHOUT ROWID"
)
EMPTY = "DELETE FROM slot WHERE generation = ? AND bucket = ?"
WIPE = "DELETE FROM slot"
PLAN = "SELECT unit, slot, value, owner, digest, until FROM slot WHERE generation = ?"

Execute = Callable[..., Any]


class Digests(Protocol):
    """The keys of the device, as far as they are needed here."""

    def digest(self, purpose: str, value: bytes) -> str:
        """Equal for equal values, on this device alone."""
        ...


def owner(keys: Digests, subject: str) -> str:
    """Whose a slot is. Two fingers of one person can be seen to be one person's, and no more."""
    return keys.digest("template owner", subject.encode())


def digest(keys: Digests, content: bytes) -> str:
    """To tell a template from another one."""
    return keys.digest("template", content)


def put(execute: Execute, keys: Digests, generation: int, bucket: int, templates: Iterable[Template]) -> None:
    for each in templates:
        place = (each.unit, each.slot)
        of = (owner(keys, each.subject), digest(keys, each.content))
        row = (generation, bucket, each.value[:HALF], *place, *of, each.until)
        execute("INSERT OR REPLACE INTO slot VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def planned(rows: Iterable[tuple[Any, ...]]) -> dict[Finger, Wanted]:
    """What each slot is to hold, by what `PLAN` finds. One that is said to hold two is to hold nothing."""
    found: dict[Finger, Wanted] = {}
    twice: set[Finger] = set()
    for unit, slot, value, whose, content, until in rows:
        if (unit, slot) in found:
            twice.add((unit, slot))
        found[unit, slot] = Wanted(value=value, owner=whose, digest=content, until=until)
    return {finger: wanted for finger, wanted in found.items() if finger not in twice}


def owned(connection: sqlite3.Connection, whose: str) -> int:
    return int(connection.execute("SELECT count(*) FROM slot WHERE owner = ?", (whose,)).fetchone()[0])


def disown(connection: sqlite3.Connection, whose: str) -> int:
    return connection.execute("DELETE FROM slot WHERE owner = ?", (whose,)).rowcount
