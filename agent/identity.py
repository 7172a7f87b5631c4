"""What this device holds about a person, by the random reference that is all it knows of them.

`export` shows it: the entries that name them, what the workflows and counters keep, how many rows are theirs.
`erase` takes away what can be: sessions, parcels on their name, counters and rows. Entries stay, or the
journal would no longer prove anything; what they hold is the reference alone, and whose it was is forgotten
at the fleet. What remains of the reference otherwise is a keyed digest, so that a page that still has their
rows does not bring them back.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agent.clock import NS, Moment
from agent.entry import compact
from agent.journal import Journal
from agent.roster import Roster, subject_key
from agent.row_file import TROUBLE, is_damage
from agent.workflow import Draft

ERASED = "erased/"
"""The journal's records of those who were erased here."""
STRIDE = 8192
"""Entries that are looked through for one answer."""
LONGEST = 128
"""Characters of a reference."""


class Identity:
    """Looks somebody up, and forgets them."""

    def __init__(
        self,
        roster: Roster,
        journal: Journal,
        *,
        device: str,
        stamp: Callable[[], tuple[Moment, Mapping[str, Any]]],
        forget: Callable[[str], None],
    ) -> None:
        """`forget` ends a driver's session and stops keeping track of their parcels."""
        self._roster, self._journal = roster, journal
        self._device, self._stamp, self._forget = device, stamp, forget

    def restore(self) -> None:
        """Have the roster know who was erased before."""
        digests = (key.removeprefix(ERASED) for key in self._journal.records if key.startswith(ERASED))
        self._roster.rows.erased = frozenset(digests)

    async def export(self, subject: str, after: int = 0) -> Mapping[str, Any]:
        """What there is, a stretch of the journal at a time: `next` is where to go on, None at the end.

        Raises ValueError for what is no reference.
        """
        _check(subject)
        upto = min(after + STRIDE, self._journal.last)
        entries = await self._journal.naming(subject, after, upto)
        told = {
            "entries": [stored.line.decode() for stored in entries],
            "next": upto if upto < self._journal.last else None,
        }
        return told if after else {**await self._state(subject), **told}

    async def erase(self, subject: str) -> Mapping[str, Any]:
        """Take away what can be; returns what the entry says of it. Raises ValueError for no reference."""
        _check(subject)
        self._forget(subject)
        rows = await self._in_thread(self._roster.rows.disown, subject)
        copies = await asyncio.get_running_loop().run_in_executor(None, self._roster.rows.drop_copies)
        counters = {key: None for key in (subject_key(subject),) if key in self._journal.records}
        digest = self._roster.rows.erasure(subject)
        self._roster.rows.erased |= {digest}
        now, position = self._stamp()
        told = {"rows": rows, "counters": len(counters), "copies": copies}
        records = {**counters, ERASED + digest: {"at": now.utc_ns // NS}}
        await self._journal.append([Draft("identity.erased", self._device, told)], now, position, records)
        return {**told, "remaining": sorted(self._records(subject))}

    async def _state(self, subject: str) -> dict[str, Any]:
        return {
            "subject": subject,
            "rows": await self._in_thread(self._roster.rows.owned, subject),
            "records": self._records(subject),
            "salvaged": await self._journal.salvaged_naming(subject),
            "erased": self._roster.rows.erasure(subject) in self._roster.rows.erased,
        }

    def _records(self, subject: str) -> dict[str, Any]:
        """What the workflows and counters keep that names them."""
        wanted = compact(subject)
        return {
            key: value
            for key, value in self._journal.records.items()
            if key == subject_key(subject) or wanted in compact(value)
        }

    async def _in_thread(self, work: Callable[[str], int], subject: str) -> int:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, work, subject)
        except TROUBLE as error:
            if not is_damage(error):
                raise
            raise ValueError("roster.db: expected a sound file, got a damaged one; ask again") from error


def _check(subject: object) -> None:
    if not (isinstance(subject, str) and 0 < len(subject) <= LONGEST and subject.isprintable()):
        raise ValueError(f"subject: expected a driver's reference, got {subject!r:.60}")
