"""The durable, ordered log of entries, with the state they imply, in one SQLite file.

An entry is one CloudEvents 1.0 JSON object on one line; the stored bytes are the published bytes. `append`
gives entries their sequence at once and makes them durable together with the records they change. Records
are small JSON values by key (a session, a parcel in custody, a lockout counter), mirrored in `records`.
Some are security state: nothing but an append ever changes one.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from agent import store
from agent.clock import Moment
from agent.entry import compact, line_of
from agent.ledger import TILE, Frontier, leaf_hash
from agent.notary import Notary
from agent.soundness import deep_check
from agent.store import Run, Stored
from agent.tail import Tail
from agent.workflow import Draft, Lane
from agent.writer import JournalFailed, Writer

SALVAGE = "salvage"
"""The record that says that a damaged file is still being copied from."""
STRIDE = 8192
"""Entries that are looked through at once for those of one lane: a commit may have to wait for that."""

T = TypeVar("T")


class Journal:
    """Append, read, remember."""

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        key: bytes | None = None,
        on_trouble: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """`key` is the device's secret, which signs checkpoints; without one nothing is signed."""
        self.source = source
        self.epoch = ""
        """Random name of this file's life; the first half of every entry's id."""
        self.last = 0
        """Sequence of the newest durable entry."""
        self.newest = dict.fromkeys(Lane, 0)
        """The same of each lane; of what was there at opening nobody knows, and each may go to its end."""
        self.opened_at = 0
        """Sequence of the newest entry at opening."""
        self.made = dict.fromkeys(Lane, 0)
        """Entries of each lane since then, without those that were declared lost."""
        self.used = 0
        """Bytes in use, as measured with every tile."""
        self.records: dict[str, Any] = {}
        self.notary: Notary | None = None
        """Signs what this journal has become; there once it is open, where there is a key."""
        self._key = key
        self._frontier = Frontier()
        """The tree of everything durable."""
        self._next = 1
        self._tail = Tail()
        self._handed = dict.fromkeys(Lane, 0)
        self._reading = 0
        """Reads of the file under way."""
        self._doomed: frozenset[int] = frozenset()
        """Entries that are being declared lost: not to be handed out any more."""
        self._signing = False
        self._riding: dict[str, bytes | None] = {}
        self._watchers: list[Callable[[], None]] = []
        self._writer = Writer(path, on_trouble)

    @property
    def failed(self) -> asyncio.Future[JournalFailed]:
        """Done when the store has failed for good."""
        return self._writer.failed

    async def open(self, carried: Mapping[str, Any] | None = None) -> None:
        """Raises JournalFailed when the file cannot be opened, or is of another schema.

        Records that are `carried` from a damaged file are there from the first transaction of a new one.
        """
        changes = _changes(carried or {})
        await self._writer.open()
        loaded = await self._writer.submit(lambda connection: store.load(connection, changes))
        self.epoch, self.last, self.records = loaded.epoch, loaded.last, loaded.records
        self._frontier, self.used = loaded.frontier, loaded.used
        self._next = self.last + 1
        self.opened_at = self.last
        self.newest = dict.fromkeys(Lane, self.last)
        if self._key is not None:
            origin = f"{self.source.removeprefix('/postern/')}/{self.epoch}"
            self.notary = Notary(self._key, origin, loaded.checkpoint, loaded.note)

    async def close(self) -> None:
        """Sign and commit what is left, and end."""
        self.checkpoint()
        if self._riding:
            self.save()
        await self._writer.close()

    def watch(self, call: Callable[[], None]) -> None:
        """Call whenever entries have become durable."""
        self._watchers.append(call)

    def append(
        self,
        drafts: Sequence[Draft],
        at: Moment,
        position: Mapping[str, Any],
        records: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[None]:
        """Entries and records, durable together when the future is done. None drops a record.

        `position` is merged into each entry's data: a fix, or null with a reason.
        """
        # Nothing is changed before all of it is known to be JSON: a sequence once given must be stored.
        rows = [self._row(self._next + n, draft, at, position) for n, draft in enumerate(drafts)]
        changes = _changes(records or {})
        self._next += len(rows)
        self._remember(records or {})
        # What rides is older: of two values of one record the one given here is the last.
        changes = [*self._riders(), *changes]
        return self._writer.submit(
            lambda connection: self._write(connection, rows, changes), then=lambda: self._durable(rows)
        )

    def ids(self, count: int) -> list[str]:
        """Of the entries that are appended next."""
        return [f"{self.epoch}-{self._next + number}" for number in range(count)]

    def ride(self, records: Mapping[str, Any]) -> None:
        """Records that go with the next append, or with `save`: losing one costs work, never truth."""
        self._riding.update(_changes(records))
        self._remember(records)

    def save(self) -> asyncio.Future[None]:
        """Commit what rides."""
        changes = self._riders()
        return self._writer.submit(lambda connection: self._write(connection, [], changes))

    async def read(self, after: int, *, entries: int, size: int) -> list[Stored]:
        """Durable entries in order after `after`: at most so many and so many bytes, but at least one."""
        if after >= self.last:
            return []
        recent = self.recent(after)
        if recent is not None:
            found = store.within(islice(recent, entries), size)
            kept = found
        else:
            self._reading += 1
            try:
                found = await self._writer.submit(
                    lambda connection: store.read(connection, after, entries, size), reads=True
                )
            finally:
                self._reading -= 1
            kept = self._allowed(found)
        if found and not kept:
            return await self.read(found[-1].sequence, entries=entries, size=size)
        for lane in Lane if kept else ():
            self.hand_out(lane, kept[-1].sequence)
        return kept

    async def naming(self, text: str, after: int, upto: int) -> list[Stored]:
        """Entries between two sequences in which this string stands as a value; none is handed out by it."""
        wanted = compact(text)
        return await self._writer.submit(
            lambda connection: store.naming(connection, wanted, after, upto), reads=True
        )

    async def salvaged_naming(self, text: str) -> int:
        """How many of the salvaged entries that still are here have this string as a value."""
        wanted = compact(text)
        return await self._writer.submit(
            lambda connection: store.salvaged_naming(connection, wanted), reads=True
        )

    def read_lane(
        self, lane: Lane, after: int, *, entries: int, make: Callable[[Run], T]
    ) -> asyncio.Future[tuple[int, int, T | None]]:
        """Of one lane: up to where there was a look for the next entries, the last found, and what `make`,
        called by the thread that reads, makes of them: None where that look found none.
        """
        until, doomed = min(after + STRIDE, self.last), self._doomed

        def job(connection: sqlite3.Connection) -> tuple[int, int, T | None]:
            found = store.read_run(connection, lane, (after, until), entries)
            if found is None:
                return until, 0, None
            last = found.sequences[-1]
            if doomed.intersection(found.sequences):
                kept = [stored for stored in found.stored(lane) if stored.sequence not in doomed]
                found = Run([each.sequence for each in kept], b"\n".join([each.line for each in kept]))
            return last, last, make(found) if found.sequences else None

        def done(read: asyncio.Future[tuple[int, int, T | None]]) -> None:
            self._reading -= 1
            if not read.cancelled() and read.exception() is None:
                self.hand_out(lane, read.result()[1])

        self._reading += 1
        reading = self._writer.submit(job, reads=True)
        reading.add_done_callback(done)
        return reading

    def recent(self, after: int) -> Iterator[Stored] | None:
        """Durable entries after `after` that are in memory; None where the file has to be asked for some."""
        recent = self._tail.after(after)
        if recent is None or not self._doomed:
            return recent
        doomed = self._doomed
        return (stored for stored in recent if stored.sequence not in doomed)

    def hand_out(self, lane: Lane, to: int) -> None:
        """Entries of this lane up to here may be on their way from now on."""
        self._handed[lane] = max(self._handed[lane], to)

    def handed(self, lane: Lane) -> int | None:
        """Up to where a lane was handed out. None while somebody is just being given some."""
        return None if self._reading else self._handed[lane]

    async def count(self, after: int, until: int, beyond: Sequence[int]) -> list[int]:
        """How many entries of each lane there are between two sequences, beyond one of the lane's own."""
        return await self._writer.submit(
            lambda connection: store.count(connection, (after, until), beyond), reads=True
        )

    async def root_at(self, size: int) -> bytes | None:
        """The root of the first `size` entries, pruned ones among them; None while there are fewer."""
        if size > self.last:
            return None
        return await self._writer.submit(lambda connection: store.root_at(connection, size), reads=True)

    async def checkpoint_at(self, size: int) -> bytes | None:
        """The note of the checkpoint that was signed at this size, if one is kept."""
        return await self._writer.submit(lambda connection: store.note_at(connection, size), reads=True)

    def checkpoint(self) -> None:
        """Sign what is durable now, if there is news. The note goes with the next commit."""
        notary = self.notary
        if notary is None or self._signing or not notary.news(self._frontier.size):
            return
        checkpoint, note = notary.sign(self._frontier)
        self._signing = True

        def signed() -> None:
            self._signing = False
            notary.signed(checkpoint, note)
            for call in self._watchers:
                call()

        self._writer.submit(
            lambda connection: store.sign(connection, checkpoint.size, note), wait=False, then=signed
        )

    async def look_over(self, number: int) -> None:
        """Check the `number`th 256 entries against their hashes; what is wrong ends this journal."""
        problem = await self._writer.submit(lambda connection: deep_check(connection, number), reads=True)
        if problem is not None:
            self._writer.condemn(problem)

    # -- what a damaged file still held -----------------------------------------------------------

    async def keep_salvaged(self, lines: Sequence[tuple[int, bytes]]) -> None:
        await self._writer.submit(lambda connection: store.keep_salvaged(connection, lines))

    async def salvaged(self, after: int, *, entries: int, size: int) -> list[Stored]:
        """The oldest salvaged entries after this number; none before all of them are here."""
        if SALVAGE in self.records:
            return []
        return await self._writer.submit(
            lambda connection: store.salvaged(connection, after, entries, size), reads=True
        )

    def drop_salvaged(self, number: int) -> asyncio.Future[None]:
        """They are with the fleet up to this number, as far as is known."""
        return self._writer.submit(lambda connection: store.drop_salvaged(connection, number))

    # -- bounds -----------------------------------------------------------------------------------

    async def measure(self) -> None:
        """Bring `used` up to date."""
        self.used = await self._writer.submit(store.usage, reads=True)

    async def sequences(self, number: int, lane: Lane) -> list[int]:
        """What there is of a lane in a tile, the `number`th 256 entries."""
        return await self._writer.submit(
            lambda connection: store.sequences(connection, number, lane), reads=True
        )

    async def newest_in(self, number: int) -> bytes | None:
        """The last line that a tile still has."""
        return await self._writer.submit(lambda connection: store.newest_in(connection, number), reads=True)

    async def leaves(self, number: int) -> list[bytes]:
        """The leaf hashes of a complete tile."""
        start = number * TILE
        return await self._writer.submit(
            lambda connection: store.leaves(connection, start, start + TILE), reads=True
        )

    async def prune(self, number: int, doomed: Sequence[int]) -> None:
        """Delete lines of a complete tile that the fleet has. Their hashes are kept."""

        def job(connection: sqlite3.Connection) -> None:
            store.prune(connection, number, doomed)
            self.used = store.usage(connection)

        await self._writer.submit(job)

    def declare_lost(
        self,
        number: int,
        doomed: Sequence[int],
        drafts: Sequence[Draft],
        at: Moment,
        position: Mapping[str, Any],
        lane: Lane = Lane.TELEMETRY,
    ) -> asyncio.Future[None]:
        """Delete lines of one lane in a complete tile, in one transaction with the entries that say so.

        None of those up to `handed`: they may arrive. Not before the future of the last call is done.
        """
        rows = [self._row(self._next + n, draft, at, position) for n, draft in enumerate(drafts)]
        self._next += len(rows)
        self._doomed = frozenset(doomed)
        changes = self._riders()

        def job(connection: sqlite3.Connection) -> None:
            store.drop(connection, number, doomed)
            self._write(connection, rows, changes)
            self.used = store.usage(connection)

        def declared() -> None:
            self._tail.forget(doomed[-1])
            self.made[lane] -= len(doomed)
            self._doomed = frozenset()
            self._durable(rows)

        return self._writer.submit(job, then=declared)

    async def alive(self) -> None:
        """Done once the writer has dealt with everything queued so far. Raises JournalFailed.

        A writer that waits for room on the disk is alive: restarting the process would make none.
        """
        await self._writer.submit(lambda _: None, reads=True)

    def _allowed(self, found: list[Stored]) -> list[Stored]:
        doomed = self._doomed
        return [stored for stored in found if stored.sequence not in doomed] if doomed else found

    def _write(
        self, connection: sqlite3.Connection, rows: Sequence[store.Row], changes: Sequence[store.Change]
    ) -> None:
        """In the writer's thread, which leaves nothing here but the figure it measured."""
        if store.write(connection, rows, changes):
            self.used = store.usage(connection)

    def _riders(self) -> list[store.Change]:
        changes = list(self._riding.items())
        self._riding.clear()
        return changes

    def _remember(self, records: Mapping[str, Any]) -> None:
        for key, value in records.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value

    def _row(
        self, sequence: int, draft: Draft, at: Moment, position: Mapping[str, Any]
    ) -> tuple[int, Lane, bytes]:
        return sequence, draft.lane, line_of(draft, self.source, self.epoch, sequence, at, position)

    def _durable(self, rows: list[tuple[int, Lane, bytes]]) -> None:
        if not rows:
            return
        self._tail.add(Stored(sequence, line, lane) for sequence, lane, line in rows)
        for sequence, lane, _ in rows:
            self.newest[lane] = sequence
            self.made[lane] += 1
        self.last = rows[-1][0]
        self._frontier = self._frontier.append(*(leaf_hash(line) for _, _, line in rows))
        if self.notary is not None and self.notary.due(self.last):
            self.checkpoint()
        for call in self._watchers:
            call()


def _changes(records: Mapping[str, Any]) -> list[store.Change]:
    return [(key, None if value is None else compact(value)) for key, value in records.items()]
