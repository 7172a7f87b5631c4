"""Entries found in the bytes of a page, whatever became of the page's own order.

A journal's line says who it is: `{"specversion":"1.0","id":"<epoch>-<n>", ... "sequence":"<n>"`.
So a line is looked for by its beginning, its cell is read backwards from there, and it counts only when all
of it is JSON that says its identity twice. Its page may be torn, freed or half overwritten.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.sqlite_pages import BadPage, Images, payload, serial_size, varint

EPOCH = 12
"""Hex digits that name a journal file's life."""

_START = re.compile(rb'\{"specversion":"1\.0","id":"([0-9a-f]{12})-([1-9][0-9]{0,18})"')
_LONGEST_HEAD = 30
"""Most bytes of a cell before its line: two numbers, then the row's header and lane."""
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Carved:
    """A line that proves itself, and the row it was in."""

    epoch: str
    sequence: int
    line: bytes
    number: int | None
    """Its key, where its cell could be read."""
    entry: bool | None
    """In a row of the entries, or of the lines that were salvaged before. None if its cell cannot be read."""


@dataclass(frozen=True, slots=True)
class _Cell:
    key: int
    begin: int
    size: int
    line: int
    """Offset of the line in the row."""
    entry: bool


def identity(line: bytes) -> tuple[str, int] | None:
    """Epoch and sequence of an entry's line, or None for what is none."""
    try:
        entry = json.loads(line)
        epoch, _, sequence = entry["id"].partition("-")
        if entry["sequence"] != sequence or len(epoch) != EPOCH or entry["specversion"] != "1.0":
            return None
        return epoch, int(sequence)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def epochs_in(image: bytes) -> Iterator[str]:
    """The epochs of the entries that seem to begin on a page, once for each entry."""
    for match in _START.finditer(image):
        if (cell := _cell(image, match.start())) is not None and cell.entry:
            yield match[1].decode()


def carve(images: Images, image: bytes, known: Callable[[str, int], bool]) -> Iterator[Carved]:
    """The lines that begin on this page, but for those whose epoch and sequence are known."""
    for match in _START.finditer(image):
        claimed = match[1].decode(), int(match[2])
        if known(*claimed):
            continue
        cell = _cell(image, match.start())
        line = _whole(images, image, cell) if cell else None
        if line is None or identity(line) != claimed:
            line = _alone(image[match.start() : images.usable])
        if line is not None and identity(line) == claimed:
            number, entry = (cell.key, cell.entry) if cell else (None, None)
            yield Carved(*claimed, line, number, entry)


def _whole(images: Images, image: bytes, cell: _Cell) -> bytes | None:
    try:
        return payload(images, image, cell.begin, cell.size)[cell.line :]
    except BadPage:
        return None


def _cell(image: bytes, line: int) -> _Cell | None:
    """The cell whose line begins there: the one place from where all of its numbers agree."""
    for at in range(max(0, line - _LONGEST_HEAD), line - 3):
        try:
            size, after_size = varint(image, at)
            key, begin = varint(image, after_size)
            columns = _columns(image, begin)
        except BadPage:
            continue
        if columns[0] == 0 and len(columns) in (2, 3):
            head = image[begin] + sum(serial_size(kind) for kind in columns[:-1])
            if begin + head == line and size == head + serial_size(columns[-1]):
                return _Cell(key, begin, size, head, len(columns) == 3)
    return None


def _columns(image: bytes, begin: int) -> list[int]:
    """Serial types of a row; its header is short."""
    end, at = varint(image, begin)
    if not 2 < end < 16:
        raise BadPage("expected the header of a row")
    columns = []
    while at < begin + end:
        kind, at = varint(image, at)
        serial_size(kind)
        columns.append(kind)
    return columns


def _alone(data: bytes) -> bytes | None:
    """A line without its cell, if it ends before the page does."""
    text = data.decode(errors="surrogateescape")
    try:
        _, end = _decode(text)
        return text[:end].encode()
    except (ValueError, RecursionError):
        return None
