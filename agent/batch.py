"""Entries that travel together, packed for the way. Pure.

    load = packed(entries, room, Cursors())
    load.payload, load.properties

One entry a line, oldest first. The user properties `from` and `to` are the first and last sequence. Where a
batch holds only one lane's entries, because there is a backlog, `lane` says so: what is missing between the
two is of other lanes. Without it nothing is missing that was not sent before.
"""

import gzip
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from agent.cursors import Cursors
from agent.store import Run, Stored, within
from agent.workflow import Lane

LINES = "application/x-ndjson"
BATCH_BYTES = 384 * 1024
"""Bytes of one batch before compression. Where the way is long, fewer and larger batches are what helps."""
FIRST_RATIO, LEAST_RATIO, MOST_RATIO = 8.0, 1.5, 64.0
"""Bytes read for each byte that a batch may take as sent: before one was sent, and the bounds afterwards."""
TELLING = 16
"""Entries of a batch whose own ratio tells that of the next."""
OVER = 1.25
"""Entries that are read together may be longer than was guessed, by this factor at most."""
GZIP_FROM = 1024
GZIP_LEVEL = 1
LONGEST_PROPERTIES = (
    ("from", "9" * 19),
    ("to", "9" * 19),
    ("lane", Lane.TELEMETRY.name.lower()),
    ("content-encoding", "gzip"),
)

Packed = tuple[bytes, list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Load:
    """A batch that is ready to be sent."""

    payload: bytes
    properties: list[tuple[str, str]]
    oldest: Stored
    last: int
    entries: int
    urgency: Lane
    """The most urgent lane of which there is an entry in it."""
    counts: tuple[int, ...]
    """Entries by lane, without those that the broker is known to have had before."""
    size: int
    """Bytes before compression."""

    @property
    def first(self) -> int:
        return self.oldest.sequence

    @property
    def ratio(self) -> float:
        """How many bytes became one."""
        return self.size / max(1, len(self.payload))


def pack(entries: Sequence[Stored], room: int = GZIP_FROM) -> Packed:
    """Payload and user properties of a batch; compressed where it is worth it, or has to be to fit."""
    lines = b"\n".join([stored.line for stored in entries])
    return _wrapped(lines, entries[0].sequence, entries[-1].sequence, room)


def packed(entries: Sequence[Stored], room: int, known: Cursors, lane: Lane | None = None) -> Load:
    """As many of the oldest of them as fit into so many bytes; the oldest alone may be too large for that.

    What is `known` the broker has had before.
    """
    payload, properties = pack(entries, room)
    while len(payload) > room and len(entries) > 1:
        entries = entries[: len(entries) // 2]
        payload, properties = pack(entries, room)
    if lane is not None:
        properties.append(_named(lane))
    counts = [0] * len(Lane)
    for stored in entries:
        counts[stored.lane] += stored.sequence > known.of(stored.lane)
    urgency = Lane(min(stored.lane for stored in entries))
    size = sum(len(stored.line) for stored in entries)
    last = entries[-1].sequence
    return Load(payload, properties, entries[0], last, len(entries), urgency, tuple(counts), size)


def packed_run(run: Run, size: int, room: int, known: Cursors, lane: Lane) -> Load:
    """The same of entries that were read together; of about so many bytes before compression, too."""
    first, last = run.sequences[0], run.sequences[-1]
    if len(run.lines) <= OVER * size:
        payload, properties = _wrapped(run.lines, first, last, room)
        if len(payload) <= room:
            oldest = Stored(first, run.lines.partition(b"\n")[0], lane)
            entries = len(run.sequences)
            fresh = entries - bisect_right(run.sequences, known.of(lane))
            counts = tuple(fresh if own is lane else 0 for own in Lane)
            named = [*properties, _named(lane)]
            return Load(payload, named, oldest, last, entries, lane, counts, len(run.lines))
    return packed(within(run.stored(lane), size), room, known, lane)


def _wrapped(lines: bytes, first: int, last: int, room: int) -> Packed:
    properties = [("from", str(first)), ("to", str(last))]
    if len(lines) <= min(GZIP_FROM, room):
        return lines, properties
    return gzip.compress(lines, GZIP_LEVEL, mtime=0), [*properties, ("content-encoding", "gzip")]


def _named(lane: Lane) -> tuple[str, str]:
    return ("lane", lane.name.lower())
