"""The wipe: everything that opens a row is taken away, and the record of it stays.

Remember, erase, remember: the intent is committed first, so that a wipe that the power interrupts is finished
at the next start; the entry that tells of it is committed before anybody is told. The journal is evidence
and is not touched. What a wipe cannot do is said in its entry: a systemd credential is not ours to unlink,
and what flash once held may be in it for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

import structlog

from agent.clock import Moment
from agent.journal import Journal
from agent.keystore import OPENING, Keystore, Level
from agent.roster import Roster
from agent.workflow import Draft

RECORD = "wiped"
"""Who had it wiped, which pepper went, and whether it is done. Never rolls back."""

log = structlog.get_logger("wiping")


class Wiping:
    """Wipes one device, and knows whether it was."""

    def __init__(
        self,
        keystore: Keystore,
        roster: Roster,
        journal: Journal,
        *,
        device: str,
        stamp: Callable[[], tuple[Moment, Mapping[str, Any]]],
        dismiss: Callable[[str], None],
    ) -> None:
        """`dismiss` ends every session and login, for the reason given."""
        self._keystore, self._roster, self._journal = keystore, roster, journal
        self._device, self._stamp, self._dismiss = device, stamp, dismiss
        self._under_way = asyncio.Lock()

    @property
    def wiped_by(self) -> str | None:
        """Who had this device wiped, while that is in force."""
        record = self._journal.records.get(RECORD)
        return None if record is None else str(record["by"])

    async def wipe(self, by: str) -> Mapping[str, Any]:
        """Take everything away; returns what the entry says of it. Again, it only looks that all is gone."""
        async with self._under_way:
            before = self._journal.records.get(RECORD)
            if before is None:
                intent = Draft("identity.wipe_begun", self._device, {"by": by})
                await self._remember(intent, {"by": by, "pepper": self._pepper(), "done": False})
            elif before["done"]:
                by = before["by"]
            return await self._finish(by)

    async def resume(self) -> None:
        """At the start: finish what was interrupted, and notice keys that came back or are new."""
        record, marked = self._journal.records.get(RECORD), self._keystore.wiped_by()
        if record is None:
            if marked is not None:
                # Wiped while the journal could not be written: the mark is all that tells of it.
                await self.wipe(marked)
        elif not record["done"] or self._came_back(record["pepper"]):
            await self._finish(record["by"])
        elif not marked and self._keystore.find("pepper") is not None:
            await self._remember(Draft("identity.renewed", self._device, {"wiped_by": record["by"]}), None)

    async def _finish(self, by: str) -> Mapping[str, Any]:
        self._dismiss("wiped")
        held = self._keystore.levels()
        left = self._keystore.erase(by)
        rows = await asyncio.get_running_loop().run_in_executor(None, self._roster.wipe)
        told = {
            "by": by,
            "rows": rows,
            "keys": {name: level for name, level in held.items() if name in OPENING},
            "not_erased": list(left),
        }
        before = self._journal.records[RECORD]
        await self._remember(Draft("identity.wiped", self._device, told), {**before, "done": True})
        log.critical("wiped", by=by, rows=rows, not_erased=list(left))
        return told

    def _came_back(self, pepper: str | None) -> bool:
        """Whether what was erased is there again, from a copy of the files or because the mark is gone."""
        if self._keystore.wiped:
            return any(self._keystore.level(name) is Level.FILE for name in OPENING)
        return pepper is not None and self._pepper() == pepper

    def _pepper(self) -> str | None:
        """Enough to know this pepper again, and of no use to find it."""
        pepper = self._keystore.find("pepper")
        if pepper is None:
            return None
        return sha256(b"postern wiped\0" + pepper.reveal()).hexdigest()[:16]

    def _remember(self, draft: Draft, record: Mapping[str, Any] | None) -> Awaitable[None]:
        now, position = self._stamp()
        return self._journal.append([draft], now, position, {RECORD: record})
