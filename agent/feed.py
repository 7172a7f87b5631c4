"""Chooses what leaves next: everything in its order while it is little, lane by lane where much has piled up.

    feed = Feed(journal, cursors)
    load = await feed.next(entries=1024, size=384 * 1024, room=120_000)
    feed.place       # where the lanes are once this has arrived

What fits into one batch goes as it was made. Of a longer backlog custody and doors leave first, then state,
then telemetry; in each lane the order is kept. No index helps here, for that would cost flash with every
scan: a lane is looked for in the log itself, a stretch at a time.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from agent import store
from agent.batch import BATCH_BYTES, Load, packed, packed_run
from agent.cursors import Cursors
from agent.journal import Journal
from agent.refusals import ENTRIES
from agent.store import Stored
from agent.workflow import Lane

USUAL = 512
"""Bytes of an entry before any was read."""
PACK_INLINE = 32
"""Compressing fewer entries costs less than handing them to another thread."""


class Feed:
    """Reads on from where it is, or from where it is put."""

    def __init__(self, journal: Journal, cursors: Cursors) -> None:
        self.place = cursors
        """What was given out, or is not there."""
        self._known = cursors
        """What the broker has had before."""
        self._journal = journal
        self._length = USUAL
        """Bytes of an entry, as the last ones were."""
        self._ahead: tuple[_Ask, asyncio.Future[_Answer]] | None = None
        """What comes next in all likelihood, and is being read."""

    def rewind(self, cursors: Cursors, known: Cursors) -> None:
        """Go back: what was given out since then is to be given out again, with what of it is `known`."""
        self.place, self._known = cursors, known

    @property
    def urgent(self) -> Lane | None:
        """The most urgent lane of which there may be something left."""
        newest = self._journal.newest
        return next((lane for lane, place in self.place.each() if place < newest[lane]), None)

    async def next(self, *, entries: int, size: int, room: int) -> Load | None:
        """At most so many entries, of so many bytes, packed into so much room; None when all is given out."""
        load = await self._in_order(entries, size, room)
        while load is None and (lane := self.urgent) is not None:
            load = await self._of(lane, entries, size, room)
        return load

    async def _in_order(self, entries: int, size: int, room: int) -> Load | None:
        """Everything there is, if it is no more than a batch."""
        journal, last = self._journal, self._journal.last
        start = self.place.settled(journal.newest, last).floor
        if start >= last or last - start > entries:
            return None
        found = await journal.read(start, entries=entries, size=size)
        if not found or found[-1].sequence < last:
            return None
        unsent = [stored for stored in found if stored.sequence > self.place.of(stored.lane)]
        if not unsent:
            self.place = self.place.all_moved(found[-1].sequence)
            return None
        load = await _packed(unsent, room, self._known)
        self.place = self.place.all_moved(load.last)
        return load

    async def _of(self, lane: Lane, entries: int, size: int, room: int) -> Load | None:
        """The next of one lane; None where there are none for a stretch."""
        journal, place = self._journal, self.place.of(lane)
        recent = journal.recent(place)
        if recent is None:
            ask = _Ask(lane, place, self._guess(entries, size), size, room, self._known)
            looked, _, load = await self._asked(ask)
            if load is not None:
                self._length = load.size // load.entries + 1
            if load is not None and entries == ENTRIES and size == BATCH_BYTES:
                # Much is left and the way bears it: the next is read while this one is published.
                following = replace(ask, after=load.last, entries=self._guess(entries, size))
                self._ahead = following, self._read(following)
        else:
            looked, load = journal.last, None
            own = (stored for stored in recent if stored.lane == lane)
            if found := store.within(islice(own, entries), size):
                journal.hand_out(lane, found[-1].sequence)
                load = await _packed(found, room, self._known, lane)
        self.place = self.place.moved(lane, looked if load is None else load.last)
        return load

    def _guess(self, entries: int, size: int) -> int:
        """How many entries make so many bytes, to judge by the last."""
        return max(1, min(entries, size // self._length))

    async def _asked(self, ask: "_Ask") -> "_Answer":
        """From what was read ahead, if that is it."""
        ahead, self._ahead = self._ahead, None
        return await (ahead[1] if ahead is not None and ahead[0] == ask else self._read(ask))

    def _read(self, ask: "_Ask") -> "asyncio.Future[_Answer]":
        make = partial(packed_run, size=ask.size, room=ask.room, known=ask.known, lane=ask.lane)
        return self._journal.read_lane(ask.lane, ask.after, entries=ask.entries, make=make)


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is read of a lane from the file."""

    lane: Lane
    after: int
    entries: int
    size: int
    room: int
    known: Cursors


_Answer = tuple[int, int, Load | None]


async def _packed(entries: list[Stored], room: int, known: Cursors, lane: Lane | None = None) -> Load:
    if len(entries) < PACK_INLINE:
        return packed(entries, room, known, lane)
    return await asyncio.get_running_loop().run_in_executor(None, packed, entries, room, known, lane)
