"""The state that a damaged journal implied: its records, epoch and last checkpoint.

What cannot be read where it belongs is looked for in older images of its page, then anywhere. Such a value
is doubtful, and is named. Of two versions the stricter one is taken: a lockout counter never goes back, and
the uplink's cursor rather does. Fast where the records can be read; else the whole file is gone through.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from agent.carving import epochs_in, identity
from agent.cursors import AGAIN, CURSOR, Cursors
from agent.note import BadNote, Checkpoint, Note, VerifierKey, open_checkpoint
from agent.soundness import parsed, schema
from agent.sqlite_file import File
from agent.sqlite_pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    LARGEST,
    SMALLEST,
    BadPage,
    fields,
    index_rows,
    parse_page,
    walk,
    walk_index,
)

REACHED = ("cursor", "receipt")
"""Records of what the fleet has. Too little means sent twice, too much means never sent."""

_ASKED = 256
"""How many entries are asked for their epoch where the records cannot be believed."""
_EPOCH = re.compile("[0-9a-f]{12}")
_CHECKPOINT = re.compile(
    rb"([!-~]{1,200}/[0-9a-f]{12})\n[0-9]{1,19}\n[0-9A-Za-z+/=]{44}\n\n\xe2\x80\x94 \1 [0-9A-Za-z+/=]+\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the device must know before its first decision."""

    epoch: str
    """Of the damaged file; empty when nothing in it says so."""
    records: dict[str, Any]
    doubtful: tuple[str, ...]
    """Keys of records that were read from older or damaged images."""
    lost: tuple[str, ...]
    """Keys whose value nobody can read."""
    complete: bool
    """Every page of the records was read as it was last committed. If not, others may be missing, unnamed."""
    last_checkpoint: bytes | None
    newest: int
    """At least so many entries were written."""


@dataclass(slots=True)
class _Records:
    found: dict[str, Any] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    complete: bool = True

    def add(self, rows: Iterable[tuple[str, bytes]], *, doubtful: bool) -> None:
        """Newest first: what is known already is replaced by something stricter only."""
        for key, value in rows:
            try:
                read = parsed(value, key)
            except BadPage:
                self.lost.add(key)
                continue
            if key in self.found and not _stricter(key, read, self.found[key]):
                continue
            self.found[key] = read
            if doubtful:
                self.doubtful.add(key)

    def distrust(self, newest: int) -> None:
        """Nobody has entries that were never written."""
        for key in REACHED:
            if size_of(self.found.get(key)) > newest:
                del self.found[key]
                self.lost.add(key)


def recover_records(file: File, public: bytes | None = None) -> Recovered:
    """`public` is the device's key: with it only a checkpoint that it signed is taken."""
    try:
        roots, _ = schema(file)
    except BadPage:
        roots = {}
    records = _recover(file, roots.get("record", 0))
    epoch = _epoch(file, roots, records)
    note = _last_checkpoint(file, roots.get("checkpoint", 0), epoch, public)
    newest = max([0, *(row[0] for row in _edge_lines(file, roots, LARGEST) if row[1] == epoch)])
    signed = Checkpoint.parse(Note.parse(note).text).size if note else 0
    newest = max(newest, signed)
    if _end_is_sound(file, roots):
        records.distrust(newest)
    return Recovered(
        epoch=epoch,
        records=records.found,
        doubtful=tuple(sorted(records.doubtful)),
        lost=tuple(sorted(records.lost - records.found.keys())),
        complete=records.complete and not records.lost,
        last_checkpoint=note,
        newest=max(newest, *(size_of(records.found.get(key)) for key in REACHED)),
    )


def size_of(record: Any) -> int:
    """How many entries a cursor or a receipt says the fleet has."""
    size = record.get("size") if isinstance(record, dict) else record
    return size if isinstance(size, int) and 0 <= size < 1 << 48 else 0


def reached(recovered: Recovered) -> int:
    """Up to where the fleet has the lines: as its receipt says, without one as the broker is believed."""
    records = recovered.records
    if "receipt" in records:
        return size_of(records["receipt"])
    return min(size_of(records.get(CURSOR)), Cursors.load(records).capped(records.get(AGAIN)).floor)


# -- records --------------------------------------------------------------------------------------


def _recover(file: File, root: int) -> _Records:
    records = _Records()
    unsound = []
    orphans, stale = not root, file.stale()
    for page in walk_index(file, root) if root else ():
        doubtful = not page.sound or page.page in stale
        records.add(_pairs(row for _, row in page.rows), doubtful=doubtful)
        if not page.sound:
            unsound.append(page.page)
    for image in file.suspects():
        records.add(_pairs_on(file, image), doubtful=True)
    for number in unsound:
        older = [*_older_pairs(file, number)]
        records.add(older, doubtful=True)
        orphans = orphans or not older
    if orphans:
        for images in file.images():
            for image in images:
                records.add(_unknown(records, _pairs_on(file, image)), doubtful=True)
    records.complete = not (unsound or orphans or file.log.bad)
    return records


def _older_pairs(file: File, number: int) -> list[tuple[str, bytes]]:
    """What was on a page before, from the newest image that can be read."""
    return next((found for image in file.older(number) if (found := [*_pairs_on(file, image)])), [])


def _unknown(records: _Records, pairs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Without those that were read where they belong."""
    for key, value in pairs:
        if key not in records.found or key in records.doubtful:
            yield key, value


def _pairs_on(file: File, image: bytes) -> Iterator[tuple[str, bytes]]:
    if image[0] in (INDEX_LEAF, INDEX_INTERIOR):
        try:
            page = parse_page(image, file.usable)
        except BadPage:
            return
        yield from _pairs(row for row in index_rows(file, page) if row is not None)


def _pairs(rows: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        try:
            columns = fields(row)
        except BadPage:
            continue
        match columns:
            case [str(key), bytes(value)]:
                yield key, value


def _stricter(key: str, one: Any, other: Any) -> bool:
    if key in REACHED:
        return size_of(one) < size_of(other)
    return _weight(one) > _weight(other)


def _weight(value: Any) -> float:
    """Of two versions of a counter, which one has counted further."""
    if isinstance(value, dict):
        failed = value.get("failed_ns")
        paused = 1000 if value.get("paused") is True else 0
        return paused + _weight(value.get("failures")) + (len(failed) if isinstance(failed, list) else 0)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


# -- epoch and checkpoint -------------------------------------------------------------------------


def _epoch(file: File, roots: dict[str, int], records: _Records) -> str:
    """As the records say, if an entry at an end of the file agrees; else as most entries say."""
    told = str(records.found.get("epoch", ""))
    edges = [*_edge_lines(file, roots, LARGEST), *_edge_lines(file, roots, SMALLEST)]
    if _EPOCH.fullmatch(told) and any(epoch == told for _, epoch in edges):
        return told
    found = (epoch for images in file.images() for image in images for epoch in epochs_in(image))
    if counted := Counter(islice(found, _ASKED)):
        return counted.most_common(1)[0][0]
    return told if _EPOCH.fullmatch(told) else ""


def _edge_lines(file: File, roots: dict[str, int], edge: int) -> list[tuple[int, str]]:
    """Sequence and epoch of the entries at one end."""
    found = []
    for leaf in walk(file, roots["entry"], edge, edge) if "entry" in roots else ():
        for key, row in leaf.rows:
            line = last_blob(row)
            known = identity(line) if line else None
            if known and known[1] == key:
                found.append((key, known[0]))
    return found


def _end_is_sound(file: File, roots: dict[str, int]) -> bool:
    """The newest entry can be read, and is the newest."""
    if "entry" not in roots or file.log.bad:
        return False
    return all(leaf.sound for leaf in walk(file, roots["entry"], LARGEST, LARGEST))


def last_blob(row: bytes) -> bytes | None:
    """The last column of a row, if it is a blob."""
    try:
        value = fields(row)[-1]
    except (BadPage, IndexError):
        return None
    return value if isinstance(value, bytes) else None


def _last_checkpoint(file: File, root: int, epoch: str, public: bytes | None) -> bytes | None:
    """Of the largest size. The whole file is gone through only if the table's end cannot be read."""
    leaves = [*walk(file, root, LARGEST, LARGEST)] if root else []
    notes = [note for leaf in leaves for _, row in leaf.rows if (note := last_blob(row))]
    if not leaves or not all(leaf.sound for leaf in leaves) or not _largest(notes, epoch, public):
        notes += (match[0] for images in file.images() for image in images for match in _notes(image))
    notes += (match[0] for image in file.suspects() for match in _notes(image))
    return _largest(notes, epoch, public)


def _notes(image: bytes) -> Iterator[re.Match[bytes]]:
    return _CHECKPOINT.finditer(image) if b"\n\n\xe2\x80\x94 " in image else iter(())


def _largest(notes: Iterable[bytes], epoch: str, public: bytes | None) -> bytes | None:
    sizes = {size: note for note in notes if (size := _signed_size(note, epoch, public)) is not None}
    return sizes[max(sizes)] if sizes else None


def _signed_size(note: bytes, epoch: str, public: bytes | None) -> int | None:
    try:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        if public is not None:
            open_checkpoint(note, VerifierKey(checkpoint.origin, public))
    except BadNote:
        return None
    return checkpoint.size if checkpoint.origin.endswith(f"/{epoch}") else None
