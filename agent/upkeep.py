"""Keeps the journal within its bounds: prunes what the fleet has and time has passed, thins under pressure.

    upkeep = Upkeep(journal, limits, device, lambda: (now, position))
    upkeep.open()                 # once the journal is open
    await upkeep.run()            # for ever

It goes a tile of 256 entries at a time, between the commits of others, so that no scan waits for long. A
line is pruned only past the fleet's receipt. Where it goes without one, it is declared lost in the same
transaction; its leaf hash is kept either way.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from agent.clock import Moment
from agent.cursors import Cursors
from agent.journal import Journal
from agent.ledger import TILE
from agent.retention import WORTH, Level, Limits, age_s, crossing, judge, losses, trusted, unwritten
from agent.workflow import Draft, Lane

EVERY_S = 60.0
"""Between two rounds when there is room, and between two counts of what was refused."""
PRESSED_S = 5.0
"""The same while there is not."""
PAUSE_S = 0.02
"""Between two rounds while there is not and something can be done about it."""
STEPS = 8
"""Tiles of a round."""
LOOK = 16
"""Tiles searched in one step for an entry whose age is known."""
DECLARE_S = 3600.0
"""Positions that were not written are declared at least this often."""

LEVEL, PRUNED, UNWRITTEN = "level", "pruned", "unwritten"
"""Records."""
REFUSED = "journal_full"
"""Why a label is refused while there is no room."""

Stamp = Callable[[], tuple[Moment, Mapping[str, Any]]]
"""Time and place of an entry that is made now."""


class Upkeep:
    """Knows how full the journal is, and does something about it."""

    def __init__(self, journal: Journal, limits: Limits, device: str, stamp: Stamp) -> None:
        self.level = Level.NORMAL
        self.limits = limits
        self._journal, self._device, self._stamp = journal, device, stamp
        self._pruned = dict.fromkeys(Lane, 0)
        """Tiles from which everything of the lane has gone."""
        self._dated = dict.fromkeys(Lane, 0)
        """Tile at which the search goes on for an entry that tells the age of those before."""
        self._thinned = 0
        """Tiles that were looked through since thinning began."""
        self._unwritten = 0
        self._refused: int | None = None
        """Refusals since the last that is an entry."""
        self._counted_ns = self._declared_ns = 0
        self._wake = asyncio.Event()

    def open(self) -> None:
        """Go on where the last run stopped."""
        records = self._journal.records
        self.level = Level(records.get(LEVEL, Level.NORMAL))
        self._unwritten = records.get(UNWRITTEN, 0)
        complete = self._journal.last // TILE
        for lane in Lane:
            # Records outlive a damaged file; what was pruned of that one says nothing about this one.
            self._pruned[lane] = min(complete, records.get(PRUNED, {}).get(lane.name.lower(), 0))
        self._note_pruned()
        self._journal.watch(self._look)
        self._look()

    async def run(self) -> None:
        """For ever."""
        while True:
            more = await self.round()
            pause = EVERY_S if self.level is Level.NORMAL else PAUSE_S if more else PRESSED_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def round(self) -> bool:
        """A few steps; True when there may be more to do."""
        await self._journal.measure()
        self._look()
        self._tell_what_is_due()
        for _ in range(STEPS):
            if not await self._step():
                return False
            self._look()
        return True

    def close(self) -> None:
        """Say what has been counted and not been told."""
        self._tell_refused()
        self._tell_unwritten()

    # -- what others ask --------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether nothing may be taken into custody any more."""
        return self.level is Level.FULL

    def admits_position(self) -> bool:
        """False while positions are thinned: this one is counted instead of written."""
        if self.level < Level.THIN:
            return True
        self._unwritten += 1
        self._journal.ride({UNWRITTEN: self._unwritten})
        return False

    def sift(self, drafts: tuple[Draft, ...]) -> tuple[Draft, ...]:
        """All but refusals for want of room: after the first they are counted, so as not to fill the rest."""
        if not self.full:
            return drafts
        return tuple(draft for draft in drafts if draft.data.get("reason") != REFUSED or self._is_first())

    def _is_first(self) -> bool:
        first = self._refused is None
        self._refused = 0 if self._refused is None else self._refused + 1
        return first

    # -- how full it is ---------------------------------------------------------------------------

    def _look(self) -> None:
        before, used = self.level, self._journal.used
        self.level = judge(used, self.limits, before)
        if self.level is before:
            return
        if self.level > before:
            self._thinned = 0
            self._wake.set()
        drafts = crossing(before, self.level, used, self.limits, self._device)
        self._append(*drafts, records={LEVEL: int(self.level) or None})
        if before is Level.FULL:
            self._tell_refused()
        if self.level < Level.THIN:
            self._tell_unwritten()

    def _tell_what_is_due(self) -> None:
        now, _ = self._stamp()
        if now.since(self._counted_ns) >= EVERY_S:
            self._counted_ns = now.mono_ns
            self._tell_refused()
        if now.since(self._declared_ns) >= DECLARE_S:
            self._declared_ns = now.mono_ns
            self._tell_unwritten()

    def _tell_refused(self) -> None:
        count, self._refused = self._refused, None
        if count:
            self._append(Draft("custody.refusals_counted", self._device, {"reason": REFUSED, "count": count}))

    def _tell_unwritten(self) -> None:
        count, self._unwritten = self._unwritten, 0
        if count:
            self._append(unwritten(count, self._device), records={UNWRITTEN: None})

    def _append(self, *drafts: Draft, records: Mapping[str, Any] | None = None) -> None:
        now, position = self._stamp()
        self._journal.append(drafts, now, position, records)

    # -- making room ------------------------------------------------------------------------------

    async def _step(self) -> bool:
        """Deal with one tile; False when there is nothing to be done now."""
        for lane in reversed(Lane):
            if await self._prune(lane):
                return True
        return self.level >= Level.THIN and await self._thin()

    async def _prune(self, lane: Lane) -> bool:
        number = self._pruned[lane]
        if not self._receipted(number) or not await self._is_over(lane, number):
            return False
        doomed = await self._journal.sequences(number, lane)
        if doomed:
            await self._journal.prune(number, doomed)
        self._pruned[lane] = number + 1
        self._note_pruned()
        return True

    def _note_pruned(self) -> None:
        done = {lane.name.lower(): tiles for lane, tiles in self._pruned.items()}
        if done != self._journal.records.get(PRUNED, dict.fromkeys(done, 0)):
            self._journal.ride({PRUNED: done})

    def _receipted(self, number: int) -> bool:
        """Whether the fleet has a whole tile, and it is not the newest."""
        receipt = self._journal.records.get("receipt") or {"size": 0}
        end = (number + 1) * TILE
        return end <= receipt["size"] and end < self._journal.last

    async def _is_over(self, lane: Lane, number: int) -> bool:
        """Whether the lane's time is over for a tile. Telemetry that the fleet has makes room at once."""
        if lane is Lane.TELEMETRY and self.level >= Level.THIN:
            return True
        age = await self._age_s(lane, number)
        return age is not None and age >= self.limits.keep_s(lane)

    async def _age_s(self, lane: Lane, number: int) -> float | None:
        """How old the entries of a tile are at least.

        Where the clock of the newest was not trusted, a later one tells: what is before it is older.
        """
        now, _ = self._stamp()
        if not trusted(now):
            return None
        first = max(number, self._dated[lane])
        for tile in range(first, min(first + LOOK, self._journal.last // TILE)):
            line = await self._journal.newest_in(tile)
            age = age_s(line, now) if line else None
            if age is not None:
                return age
            self._dated[lane] = tile + 1
        return None

    async def _thin(self) -> bool:
        """Drop the telemetry of one tile that nobody has been sent."""
        journal, lane = self._journal, Lane.TELEMETRY
        cursor = Cursors.load(journal.records).of(lane)
        number = max(self._thinned, cursor // TILE)
        if number >= journal.last // TILE:
            return False
        found = await journal.sequences(number, lane)
        leaves = await journal.leaves(number) if len(found) >= WORTH else []
        handed = journal.handed(lane)
        if handed is None:
            return True  # The uplink is just being given some of them, perhaps.
        sent = max(cursor, handed)
        lost = {n: leaves[(n - 1) % TILE] for n in found if leaves and n > sent}
        self._thinned = number + 1
        if len(lost) >= WORTH:
            now, position = self._stamp()
            await journal.declare_lost(number, [*lost], losses(lane, lost, self._device), now, position)
        return True
