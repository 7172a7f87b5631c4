"""What becomes of a damaged journal: it is set aside as it is, and all that is good in it goes on.

At boot, in the thread that will own the file, before it is opened:

    reason = check(path)                          # milliseconds
    if reason: set_aside(path)                    # renames, nothing else
    # open; and where the file is new, so that its tables have to be made:
    if damaged := newest_set_aside(path):
        salvage = Salvage(damaged, reason)
        recovered = salvage.recover_records()     # into the transaction that makes the tables
    ...                                           # serve; scans are accepted from here on
    for lines in salvage.lines():                 # any thread, a few milliseconds a step
        await journal.keep_salvaged(lines)        # a writer's job; may be run twice
    salvaged = salvage.result()                   # what `postern.journal.damaged` says

Keep a record of the damaged file's name until the last line is kept: with it in `records` at boot, begin
again from `Salvage(...)`; what is kept twice is kept once. What was kept may be sent once all is kept,
in the order of its numbers.

Hashes tell when a bit flips within a text. There are none over records, over lines that no checkpoint covers
yet, and here over lines of older epochs.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.aside import newest_set_aside, set_aside
from agent.carving import Carved, carve, identity
from agent.ledger import TILE
from agent.proving import Proofs
from agent.recovery import Recovered, last_blob, reached, recover_records
from agent.soundness import NewerJournal, check, deep_check, schema, suspect
from agent.spans import Span, join, without
from agent.sqlite_file import File
from agent.sqlite_pages import LARGEST, SMALLEST, BadPage, Leaf, walk

__all__ = [
    "NewerJournal",
    "Recovered",
    "Salvage",
    "Salvaged",
    "check",
    "deep_check",
    "newest_set_aside",
    "set_aside",
    "suspect",
]

STEP = 64
"""Pages read between two batches of lines."""
_ERA = 1 << 40
"""More entries than a file ever holds: keeps the numbers of older lines below those of newer ones."""

Line = tuple[int, bytes]
"""Number in the table of salvaged lines, and the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What was saved and what was not. Ranges are of sequences, first and last."""

    file: str
    epoch: str
    reason: str
    kept: int
    """Entries of the damaged file that can be read."""
    first: int
    last: int
    """The highest sequence known to have been given."""
    lost: list[Span]
    lost_or_pruned: list[Span]
    """Gone, but from tiles of which lines had been pruned: perhaps they were gone before."""
    open_end: bool
    """The newest entries were on a damaged page: more may be lost above `last`."""
    doubtful: list[Span]
    """Kept, but one or more in each range may not be as they were written."""
    older: int
    """Lines of epochs before that one which it still held."""
    older_lost: bool
    """Some of those may be lost."""
    copied: int
    """Lines that the fleet may not have: they are in the fresh file."""
    records: dict[str, Any]
    lost_records: tuple[str, ...]
    doubtful_records: tuple[str, ...]
    records_complete: bool
    last_checkpoint: bytes | None


class Salvage:
    """Reads a journal that was set aside, never writing to it."""

    def __init__(self, damaged: Path, reason: str = "", *, public: bytes | None = None) -> None:
        """`public` is the device's key: with it only a checkpoint that it signed counts as the last."""
        self.damaged, self.reason = damaged, reason
        self.progress = 0.0
        """Part of the reading that is done; it may jump to the end."""
        self._public = public
        self._recovered: Recovered | None = None
        self._result: Salvaged | None = None

    def recover_records(self) -> Recovered:
        """What the first decision needs. Reads the whole file only if the records are damaged themselves."""
        with _open(self.damaged) as file:
            self._recovered = recover_records(file, self._public)
        return self._recovered

    def lines(self) -> Iterator[list[Line]]:
        """All lines that the fleet may not have, in bounded steps, some of them empty. Memory stays flat."""
        recovered = self._recovered or self.recover_records()
        with _open(self.damaged) as file:
            reading = _Reading(file, recovered)
            for lines in reading.lines():
                self.progress = min(1.0, reading.done / max(1, 2 * file.size))
                yield lines
            self._result = reading.result(self.damaged.name, self.reason)
        self.progress = 1.0

    def result(self) -> Salvaged:
        """Once `lines` has come to its end."""
        if self._result is None:
            raise ValueError("expected all lines to have been taken")
        return self._result


def _open(damaged: Path) -> File:
    """A directory in the journal's place holds nothing."""
    return File(damaged / "nothing" if damaged.is_dir() else damaged)


class _Kept:
    """Which entries were found: a bit for each."""

    def __init__(self, epoch: str) -> None:
        self.epoch, self.count = epoch, 0
        self._tiles: dict[int, int] = {}

    def add(self, sequence: int) -> None:
        tile, place = divmod(sequence, TILE)
        self._tiles[tile] = self._tiles.get(tile, 0) | 1 << place
        self.count += 1

    def has(self, epoch: str, sequence: int) -> bool:
        tile, place = divmod(sequence, TILE)
        return epoch == self.epoch and bool(self._tiles.get(tile, 0) >> place & 1)

    def spans(self) -> list[Span]:
        found: list[Span] = []
        for tile, bits in sorted(self._tiles.items()):
            for place in range(TILE) if bits + 1 != 1 << TILE else (0,):
                if bits >> place & 1:
                    first = tile * TILE + place
                    join(found, (first, first if bits + 1 != 1 << TILE else first + TILE - 1))
        return found


class _Reading:
    """One pass over the tables in order, then, if something is missing, one over every page there is."""

    def __init__(self, file: File, recovered: Recovered) -> None:
        self._file, self._recovered = file, recovered
        try:
            self._roots, _ = schema(file)
            self._readable = True
        except BadPage:
            self._roots, self._readable = {}, False
        self._kept = _Kept(recovered.epoch)
        self._proofs = Proofs(
            file, self._roots.get("tile", 0), self._roots.get("checkpoint", 0), recovered.epoch
        )
        self._reached = reached(recovered)
        unsure = file.log.bad or file.log.torn or not self._readable
        self._everything = [(SMALLEST, LARGEST)] if unsure else []
        self._holes: list[Span] = list(self._everything)
        self._older_holes: list[Span] = list(self._everything)
        self._older: set[int] = set()
        self._base = _ERA if self._everything else 0
        self._suspects: set[int] = set()
        """Entries read from images that do not fit their checksum."""
        self._copied = 0
        self.done = 0

    def lines(self) -> Iterator[list[Line]]:
        yield from self._table("salvaged", self._take_older, self._older_holes)
        self._base = self._above_older()
        yield from self._table("entry", self._take_entry, self._holes)
        if self._older_holes or self._open_end() or self._missing():
            yield from self._carve()

    def result(self, name: str, reason: str) -> Salvaged:
        kept = self._kept.spans()
        missing = self._missing()
        pruned = [span for gap in missing for span in self._proofs.pruned(*gap)]
        lost = without(missing, pruned)
        return Salvaged(
            file=name,
            epoch=self._recovered.epoch,
            reason=reason,
            kept=self._kept.count,
            first=kept[0][0] if kept else 0,
            last=self._last(kept),
            lost=lost,
            lost_or_pruned=without(missing, lost),
            open_end=self._open_end(),
            doubtful=self._doubtful(),
            older=len(self._older),
            older_lost=bool(self._older_holes),
            copied=self._copied,
            records=self._recovered.records,
            lost_records=self._recovered.lost,
            doubtful_records=self._recovered.doubtful,
            records_complete=self._recovered.complete,
            last_checkpoint=self._recovered.last_checkpoint,
        )

    # -- in order ---------------------------------------------------------------------------------

    def _table(
        self, name: str, take: Callable[[int, bytes], list[Line] | None], holes: list[Span]
    ) -> Generator[list[Line], None, None]:
        root = self._roots.get(name)
        if root is None:
            if name == "entry" and not self._everything:
                holes.append((SMALLEST, LARGEST))
            return
        batch: list[Line] = []
        for n, leaf in enumerate(walk(self._file, root)):
            if not self._leaf(leaf, take, batch):
                holes.append((leaf.after + 1, leaf.upto))
            self.done += self._file.page_size
            if n % STEP == STEP - 1:
                yield self._handed(batch)
                batch = []
        yield self._handed(batch)

    def _leaf(self, leaf: Leaf, take: Callable[[int, bytes], list[Line] | None], batch: list[Line]) -> bool:
        """Take every row; False when the page holds something that is no such row."""
        sound = leaf.sound
        for key, row in leaf.rows:
            line = last_blob(row)
            taken = take(key, line) if line is not None else None
            sound = sound and taken is not None
            batch += taken or ()
        return sound

    def _take_entry(self, sequence: int, line: bytes) -> list[Line] | None:
        if identity(line) != (self._recovered.epoch, sequence):
            return None
        return self._found(sequence, line)

    def _take_older(self, number: int, line: bytes) -> list[Line] | None:
        if identity(line) is None or number < 1:
            return None
        self._older.add(number)
        return [(number, line)]

    def _found(self, sequence: int, line: bytes) -> list[Line] | None:
        """An entry that says it is one: keep it, unless its stored hash says that it is not."""
        if self._kept.has(self._recovered.epoch, sequence):
            return []
        if not self._proofs.fits(sequence, line):
            return None
        self._kept.add(sequence)
        return [(self._base + sequence, line)] if sequence > self._reached else []

    def _handed(self, batch: list[Line]) -> list[Line]:
        self._copied += len(batch)
        return batch

    def _above_older(self) -> int:
        """What to add to a sequence so that it comes after all older lines; the same when done again."""
        newest = max(self._older, default=0)
        if not self._older_holes:
            return newest
        return (newest // _ERA + 1) * _ERA

    # -- page by page -----------------------------------------------------------------------------

    def _carve(self) -> Generator[list[Line], None, None]:
        for images in self._file.images():
            self.done += self._file.page_size * len(images)
            yield self._handed([line for image in images for line in self._lines_on(image)])
        for image in self._file.suspects():
            yield self._handed(self._lines_on(image, self._suspects))

    def _lines_on(self, image: bytes, found: set[int] | None = None) -> list[Line]:
        lines: list[Line] = []
        for carved in carve(self._file, image, self._kept.has):
            count = self._kept.count
            lines += self._carved(carved)
            if found is not None and self._kept.count > count:
                found.add(carved.sequence)
        return lines

    def _carved(self, carved: Carved) -> list[Line]:
        if carved.epoch != self._recovered.epoch:
            return self._carved_older(carved)
        missing = any(first <= carved.sequence <= last for first, last in self._holes)
        return (self._found(carved.sequence, carved.line) or []) if missing else []

    def _carved_older(self, carved: Carved) -> list[Line]:
        number = carved.number
        if carved.entry is not False or number is None or number in self._older:
            return []
        if not any(first <= number <= last for first, last in self._older_holes):
            return []
        self._older.add(number)
        return [(number, carved.line)]

    # -- accounts ---------------------------------------------------------------------------------

    def _last(self, kept: list[Span]) -> int:
        return max([self._recovered.newest, *(last for _, last in kept[-1:])])

    def _missing(self) -> list[Span]:
        """Entries of unreadable places that were not found."""
        kept = self._kept.spans()
        last = self._last(kept)
        holes = sorted((max(1, low), min(last, high)) for low, high in self._holes)
        joined: list[Span] = []
        for hole in holes:
            if hole[0] <= hole[1]:
                join(joined, hole)
        return without(joined, kept)

    def _doubtful(self) -> list[Span]:
        unproved = [(n, n) for n in self._suspects if not self._proofs.proved(n)]
        joined: list[Span] = []
        for span in sorted([*self._proofs.doubtful(), *unproved]):
            join(joined, span)
        return joined

    def _open_end(self) -> bool:
        return any(high == LARGEST for _, high in self._holes)
