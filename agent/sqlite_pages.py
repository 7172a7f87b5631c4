"""Pages, cells and trees of an SQLite file, read without SQLite.

A damaged journal is evidence, and SQLite changes what it opens: it plays the write-ahead log back into the
file, and drops what follows a bad frame without a word. So it is read by the published format
(https://www.sqlite.org/fileformat2.html), which will not change. Nothing here trusts a number it finds:
bytes that make no sense raise BadPage, never anything else, and every loop is bounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

MAGIC = b"SQLite format 3\x00"
FILE_HEADER = 100
"""Bytes before the first page's own header."""
SMALLEST, LARGEST = -(2**63), 2**63 - 1
"""Row numbers."""
LONGEST = 1 << 24
"""Bytes in a row; the journal writes nothing near it."""

INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13

_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of the integer and float types, by serial type."""
_REAL = 7
_DEEPEST = 20

Field = int | bytes | str | None


class BadPage(Exception):
    """These bytes are not what SQLite writes."""


class Images(Protocol):
    """The pages of one database."""

    usable: int
    """Bytes of a page that SQLite uses."""

    def read(self, number: int) -> bytes:
        """The newest committed image of a page. Raises BadPage."""


@dataclass(frozen=True, slots=True)
class Page:
    """A tree page: its kind and where its cells begin."""

    image: bytes
    kind: int
    cells: tuple[int, ...]
    right: int
    """Rightmost child of an interior page."""
    sound: bool
    """All of its cell pointers point into the page."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The rows of one page and the range of keys it was to hold: above `after`, up to `upto`."""

    page: int
    after: int
    upto: int
    rows: tuple[tuple[int, bytes], ...]
    """Key and payload. Pages of a table WITHOUT ROWID have no keys: 0."""
    sound: bool
    """All that belongs on the page was read. Where it was not, any key of the range may be missing."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next begins."""
    value = 0
    try:
        for place in range(at, at + 8):
            byte = data[place]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, place + 1
        value = value << 8 | data[at + 8]
    except IndexError:
        raise BadPage("a number runs off the page") from None
    return (value - (1 << 64) if value >> 63 else value), at + 9


def fields(payload: bytes) -> list[Field]:
    """The columns of a row; of a float only that it is none."""
    end, at = varint(payload, 0)
    body, found = end, []
    while at < end:
        kind, at = varint(payload, at)
        size = serial_size(kind)
        found.append(_field(kind, payload[body : body + size]))
        body += size
    if at != end or body != len(payload):
        raise BadPage(f"expected a row of {body} bytes, got {len(payload)}")
    return found


def serial_size(kind: int) -> int:
    """Bytes of a column of this serial type."""
    if kind >= 12:
        return (kind - 12) // 2
    if 0 <= kind < len(_INTEGER_SIZES):
        return _INTEGER_SIZES[kind]
    raise BadPage(f"expected a serial type, got {kind}")


def _field(kind: int, value: bytes) -> Field:
    if kind >= 12 and kind % 2 == 0:
        return value
    if kind >= 12:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadPage("expected UTF-8") from None
    if kind in (0, _REAL):
        return None
    return kind - 8 if kind >= 8 else int.from_bytes(value, "big", signed=True)


def parse_page(image: bytes, usable: int, *, first: bool = False) -> Page:
    """A tree page; `first` for page 1, which begins with the header of the file. Raises BadPage."""
    at = FILE_HEADER if first else 0
    kind = image[at]
    if kind not in (INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF):
        raise BadPage(f"expected a tree page, got type {kind}")
    begin = at + (12 if kind in (INDEX_INTERIOR, TABLE_INTERIOR) else 8)
    count = int.from_bytes(image[at + 3 : at + 5], "big")
    end = begin + 2 * count
    if end > usable:
        raise BadPage(f"{count} cells do not fit on a page")
    offsets = [int.from_bytes(image[place : place + 2], "big") for place in range(begin, end, 2)]
    good = tuple(offset for offset in offsets if end <= offset <= usable - 4)
    right = int.from_bytes(image[at + 8 : at + 12], "big")
    return Page(image, kind, good, right, len(good) == count == len(set(good)))


def payload(images: Images, image: bytes, at: int, size: int, *, index: bool = False) -> bytes:
    """A row of `size` bytes whose first are at `at`; the rest is on overflow pages."""
    if not 0 <= size <= LONGEST:
        raise BadPage(f"expected a row of at most {LONGEST} bytes, got {size}")
    local = _local(images.usable, size, index=index)
    if at + local > images.usable:
        raise BadPage("a row runs off the page")
    if local == size:
        return image[at : at + size]
    rest = int.from_bytes(image[at + local : at + local + 4], "big")
    return image[at : at + local] + _overflow(images, rest, size - local)


def _local(usable: int, size: int, *, index: bool) -> int:
    """How many bytes of a row are on its own page."""
    most = (usable - 12) * 64 // 255 - 23 if index else usable - 35
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least


def _overflow(images: Images, number: int, size: int) -> bytes:
    parts: list[bytes] = []
    seen: set[int] = set()
    room = images.usable - 4
    while size > 0:
        if number in seen:
            raise BadPage("overflow pages in a circle")
        seen.add(number)
        image = images.read(number)
        parts.append(image[4 : 4 + min(size, room)])
        number, size = int.from_bytes(image[:4], "big"), size - room
    return b"".join(parts)


def table_rows(images: Images, page: Page) -> Iterator[tuple[int, bytes] | None]:
    """Key and payload of each cell of a table's leaf, or None for one that cannot be read."""
    for cell in page.cells:
        try:
            size, at = varint(page.image, cell)
            key, at = varint(page.image, at)
            yield key, payload(images, page.image, at, size)
        except BadPage:
            yield None


def index_rows(images: Images, page: Page) -> Iterator[bytes | None]:
    """The payload of each cell of an index page, or None for one that cannot be read."""
    for cell in page.cells:
        try:
            size, at = varint(page.image, cell + (4 if page.kind == INDEX_INTERIOR else 0))
            yield payload(images, page.image, at, size, index=True)
        except BadPage:
            yield None


def walk(images: Images, root: int, first: int = SMALLEST, last: int = LARGEST) -> Iterator[Leaf]:
    """The leaves of a table that may hold keys from `first` to `last`, in order.

    A part of the tree that cannot be read is one unsound leaf without rows.
    """
    yield from _walk(images, root, (SMALLEST - 1, LARGEST), (first, last), set(), 0)


def _walk(
    images: Images, number: int, span: tuple[int, int], wanted: tuple[int, int], seen: set[int], depth: int
) -> Iterator[Leaf]:
    after, upto = span
    try:
        page = parse_page(images.read(number), images.usable, first=number == 1)
        if page.kind == TABLE_LEAF:
            yield _leaf(images, number, page, after, upto)
            return
        if page.kind != TABLE_INTERIOR or number in seen or depth > _DEEPEST:
            raise BadPage("expected a page of a table")
        children = _children(page, after, upto)
    except BadPage:
        yield Leaf(number, after, upto, (), sound=False)
        return
    seen.add(number)
    for child, low, high in children:
        if high >= wanted[0] and low < wanted[1]:
            yield from _walk(images, child, (low, high), wanted, seen, depth + 1)


def _leaf(images: Images, number: int, page: Page, after: int, upto: int) -> Leaf:
    read = list(table_rows(images, page))
    rows = tuple(row for row in read if row is not None)
    keys = [after, *(key for key, _ in rows)]
    ordered = all(low < high for low, high in pairwise(keys)) and keys[-1] <= upto
    return Leaf(number, after, upto, rows, page.sound and ordered and len(rows) == len(read))


def _children(page: Page, after: int, upto: int) -> list[tuple[int, int, int]]:
    """Each child of an interior page with the range of its keys."""
    found, low = [], after
    for cell in page.cells:
        key, _ = varint(page.image, cell + 4)
        if not low < key <= upto:
            raise BadPage("keys out of order")
        found.append((int.from_bytes(page.image[cell : cell + 4], "big"), low, key))
        low = key
    if not page.sound:
        raise BadPage("a cell pointer points nowhere")
    return [*found, (page.right, low, upto)]


def walk_index(images: Images, root: int) -> Iterator[Leaf]:
    """The pages of a table WITHOUT ROWID; what cannot be read is an unsound page."""
    waiting, seen = [root], set[int]()
    while waiting:
        number = waiting.pop()
        try:
            page = parse_page(images.read(number), images.usable, first=number == 1)
            if number in seen or page.kind not in (INDEX_LEAF, INDEX_INTERIOR):
                raise BadPage("expected a page of an index")
        except BadPage:
            yield Leaf(number, SMALLEST, LARGEST, (), sound=False)
            continue
        seen.add(number)
        if page.kind == INDEX_INTERIOR:
            waiting += [int.from_bytes(page.image[at : at + 4], "big") for at in page.cells] + [page.right]
        read = list(index_rows(images, page))
        rows = tuple((0, row) for row in read if row is not None)
        yield Leaf(number, SMALLEST, LARGEST, rows, page.sound and len(rows) == len(read))
