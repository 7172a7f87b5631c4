"""What a damaged journal's own hashes say about the lines that were read from it."""

from dataclasses import dataclass, field

from agent.ledger import HASH, TILE, Frontier, leaf_hash, subtree_root
from agent.note import BadNote, Checkpoint, Note
from agent.recovery import last_blob
from agent.spans import Span
from agent.sqlite_file import File
from agent.sqlite_pages import LARGEST, BadPage, fields, walk


@dataclass(frozen=True, slots=True)
class Tile:
    """The stored hashes of 256 entries."""

    root: bytes
    leaves: bytes | None


@dataclass(slots=True)
class _Open:
    """The lines of a tile as they come."""

    tile: Tile | None
    hashes: dict[int, bytes] = field(default_factory=dict)
    """By sequence."""


class Proofs:
    """Takes the lines in any order; keeps the hashes of those tiles only that are not whole yet."""

    def __init__(self, file: File, tile_root: int, checkpoint_root: int, epoch: str) -> None:
        self._file = file
        self._tiles, self._checkpoints, self._epoch = tile_root, checkpoint_root, epoch
        self._open: dict[int, _Open] = {}
        self._proved: set[int] = set()
        self._right: dict[int, bytes] = {}
        """Roots of tiles that are right where the stored one is not."""
        self._complete = self._count()

    def fits(self, sequence: int, line: bytes) -> bool:
        """False for a line that contradicts its stored leaf hash. Of others the root is awaited."""
        number, place = divmod(sequence - 1, TILE)
        if number in self._proved:
            return True
        opened = self._open.get(number)
        if opened is None:
            opened = self._open[number] = _Open(self.tile(number))
        leaf = leaf_hash(line)
        if opened.tile is not None and opened.tile.leaves is not None:
            return leaf == opened.tile.leaves[place * HASH : (place + 1) * HASH]
        if opened.tile is not None or (self._complete is not None and number >= self._complete):
            opened.hashes[sequence] = leaf
        if opened.tile is not None and _root(number, opened.hashes) == opened.tile.root:
            self._proved.add(number)
            del self._open[number]
        return True

    def proved(self, sequence: int) -> bool:
        """A stored hash says that this line, which fits, is the one that was written."""
        number = (sequence - 1) // TILE
        opened = self._open.get(number)
        kept = opened is not None and opened.tile is not None and opened.tile.leaves is not None
        return kept or number in self._proved

    def doubtful(self) -> list[Span]:
        """Entries among which at least one is not as it was signed."""
        found = []
        for number, opened in sorted(self._open.items()):
            if opened.tile is None and opened.hashes:
                found += self._contradicted(number, opened.hashes, whole=False)
            elif len(opened.hashes) == TILE:
                found += self._contradicted(number, opened.hashes, whole=True)
        return found

    def tile(self, number: int) -> Tile | None:
        """As it is stored, if that can be read and agrees with itself."""
        for leaf in walk(self._file, self._tiles, number, number) if self._tiles else ():
            for key, row in leaf.rows:
                if key == number:
                    return _tile(row)
        return None

    def pruned(self, first: int, last: int) -> list[Span]:
        """The tiles between two sequences of which lines had been pruned."""
        wanted = ((first - 1) // TILE, (last - 1) // TILE)
        return [
            (key * TILE + 1, (key + 1) * TILE)
            for leaf in (walk(self._file, self._tiles, *wanted) if self._tiles else ())
            for key, row in leaf.rows
            if wanted[0] <= key <= wanted[1] and (tile := _tile(row)) and tile.leaves is not None
        ]

    def _count(self) -> int | None:
        """How many tiles are complete; None when their table cannot be read at its end."""
        leaves = [*walk(self._file, self._tiles, LARGEST, LARGEST)] if self._tiles else []
        if not leaves or not leaves[-1].sound:
            return None
        return max((key + 1 for key, _ in leaves[-1].rows), default=0)

    def _contradicted(self, number: int, hashes: dict[int, bytes], *, whole: bool) -> list[Span]:
        """Narrowed by the checkpoints that were signed within the tile."""
        start = number * TILE
        proved, wrong = start, start + TILE if whole else start
        before = self._before(number)
        for size, root in self._signed(start, start + TILE) if before else ():
            leaves = [hashes[n] for n in range(start + 1, size + 1) if n in hashes]
            if before is None or len(leaves) < size - start:
                break
            if before.append(*leaves).root() == root:
                proved = size
            else:
                wrong = max(wrong, size)
        if whole and proved == start + TILE:
            self._right[number] = _root(number, hashes)
        return [(proved + 1, wrong)] if proved < wrong else []

    def _before(self, number: int) -> Frontier | None:
        """The tree in front of a tile, if all of its roots can be read."""
        roots = {
            key: tile.root
            for leaf in (walk(self._file, self._tiles, 0, number) if self._tiles else ())
            for key, row in leaf.rows
            if (tile := _tile(row)) is not None
        } | self._right
        try:
            return Frontier.read(
                number * TILE, lambda *_: [], lambda start, end: [roots[n] for n in range(start, end)]
            )
        except (KeyError, ValueError):
            return None

    def _signed(self, after: int, upto: int) -> list[tuple[int, bytes]]:
        """Size and root of the checkpoints in a range."""
        found = []
        for leaf in walk(self._file, self._checkpoints, after + 1, upto) if self._checkpoints else ():
            for key, row in leaf.rows:
                checkpoint = _checkpoint(row)
                if after < key <= upto and checkpoint is not None and checkpoint.size == key:
                    found.append((key, checkpoint.root))
        return found


def _root(number: int, hashes: dict[int, bytes]) -> bytes:
    """Root of a tile whose leaves are all there; nothing otherwise."""
    if len(hashes) < TILE:
        return b""
    leaves = [hashes[n] for n in range(number * TILE + 1, (number + 1) * TILE + 1)]
    return subtree_root(0, TILE, lambda start, end: leaves[start:end])


def _tile(row: bytes) -> Tile | None:
    try:
        columns = fields(row)
    except BadPage:
        return None
    match columns:
        case [None, bytes(root), None] if len(root) == HASH:
            return Tile(root, None)
        case [None, bytes(root), bytes(leaves)] if len(root) == HASH and len(leaves) == TILE * HASH:
            hashes = [leaves[n : n + HASH] for n in range(0, len(leaves), HASH)]
            right = subtree_root(0, TILE, lambda start, end: hashes[start:end]) == root
            return Tile(root, leaves if right else None)
    return None


def _checkpoint(row: bytes) -> Checkpoint | None:
    note = last_blob(row)
    try:
        return Checkpoint.parse(Note.parse(note).text) if note else None
    except BadNote:
        return None
