"""A roster file that is damaged: set aside, told of, and filled again by the road that filled it.

Until its pages are back nobody is let in. What must never roll back (counters, revocations, versions, what
is spent) stands with the journal, and is not touched.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog

from agent.clock import Moment
from agent.journal import Journal
from agent.row_file import Foreign, Replaced
from agent.rows import Rows
from agent.workflow import Draft

LOOK_EVERY_S = 24 * 3600.0
"""Between two looks at all of the file: damage is found before somebody stands there whose row it was."""

HELD = "bundles"
"""The journal's record of the versions that were in force last, by bundle. An older file is none of now."""
AGAIN_S = 30.0
"""Until a file that could not be replaced is tried again."""

log = structlog.get_logger("mending")


class Mending:
    """Keeps one roster's file sound."""

    def __init__(
        self,
        rows: Rows,
        journal: Journal,
        *,
        device: str,
        stamp: Callable[[], tuple[Moment, Mapping[str, Any]]],
    ) -> None:
        self._rows, self._journal, self._device, self._stamp = rows, journal, device, stamp
        self._noticed = asyncio.Event()

    async def resume(self) -> None:
        """Mend what the start has found. The journal is open, and the fleet is not heard yet."""
        for kind, ver in self._journal.records.get(HELD, {}).items():
            held = self._rows.current(kind)
            if held is not None and (held.ver or ver) < ver:
                self._rows.doubt(Foreign(f"expected version {ver} of {kind}, got {held.ver}"))
        if self._rows.damage is not None:
            await self.mend()
        elif self._rows.begun and self._journal.last:
            await self._tell(Replaced(reason="expected a roster.db, got none"))

    async def mend(self) -> bool:
        """Begin a new file where this one is damaged, and say so; whether there is one now."""
        try:
            replaced = await asyncio.get_running_loop().run_in_executor(None, self._rows.mend)
        except (OSError, sqlite3.OperationalError) as error:
            # A full disk, most likely. Nobody is let in until there is room.
            log.error("roster cannot be replaced", reason=str(error))
            return False
        if replaced is not None:
            await self._tell(replaced)
        return replaced is not None

    async def run(self, refill: Callable[[], Awaitable[None]]) -> None:
        """For ever: look now and then, and act at once on what anybody notices.

        `refill` has the file mended between two messages of the fleet's, and all that it knows brought again.
        """
        loop = asyncio.get_running_loop()
        self._rows.on_damage = partial(loop.call_soon_threadsafe, self._noticed.set)
        while True:
            await self._look_over()
            if self._rows.damage is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._noticed.wait(), LOOK_EVERY_S)
            self._noticed.clear()
            if self._rows.damage is not None:
                await refill()
            if self._rows.damage is not None:
                await asyncio.sleep(AGAIN_S)

    async def _look_over(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._rows.look_over)
        except (OSError, sqlite3.OperationalError) as error:
            # A file that cannot be read at all is seen by whoever is looked up.
            log.error("roster cannot be looked over", reason=str(error))

    async def _tell(self, replaced: Replaced) -> None:
        told = asdict(replaced)
        log.error("roster was damaged", **told)
        now, position = self._stamp()
        await self._journal.append([Draft("identity.roster_damaged", self._device, told)], now, position)
