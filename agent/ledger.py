"""The Merkle tree over the journal's lines: its root, and the proofs that go with it (RFC 6962, RFC 9162).

Everything here is pure: the caller reads and stores. A leaf is the hash of one line; leaves count from 0.
A `Reader` returns hashes `start` to `end` (without `end`), from disk or memory. A *tile* is the subtree of
256 leaves that starts at a multiple of 256. Its root never changes once it is complete, so a store that
keeps the roots of complete tiles (32 bytes for 256 entries) answers for a million leaves in milliseconds;
without them every leaf is read again.

The verifiers answer False to whatever is wrong with a proof; they do not raise. Proofs do not bind the
sizes, only the shape they give the way to the root: take size and root together, from a signed checkpoint.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from typing import Self

HASH = 32
"""Bytes in a hash."""
TILE = 256
"""Leaves in a tile: height 8, as in C2SP tlog-tiles."""
EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves."""

Reader = Callable[[int, int], Sequence[bytes]]
Range = tuple[int, int]


def leaf_hash(line: bytes) -> bytes:
    return sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree to append to: its size and the roots of its complete subtrees, widest first.

    A value: a transaction that is rolled back simply keeps the frontier it had.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or self.size.bit_count() != len(self.roots):
            raise ValueError(f"expected a root for each bit set in size {self.size}, got {len(self.roots)}")

    def append(self, *leaves: bytes) -> "Frontier":
        """The tree with these leaf hashes added."""
        level: Sequence[bytes] = [_hash(leaf) for leaf in leaves]
        size, below = self.size + len(leaves), list(self.roots)
        roots: list[bytes] = []
        for height in range(size.bit_length()):
            if self.size >> height & 1:
                level = [below.pop(), *level]
            if len(level) % 2:
                roots.append(level[-1])
            level = _pairs(level)
        return Frontier(size, tuple(reversed(roots)))

    def root(self) -> bytes:
        if not self.roots:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.roots))

    def dump(self) -> bytes:
        """Size as 8 bytes, then the roots."""
        return self.size.to_bytes(8, "big") + b"".join(self.roots)

    @classmethod
    def load(cls, dumped: bytes) -> Self:
        """Raises ValueError unless size and number of roots agree."""
        size = int.from_bytes(dumped[:8], "big")
        expected = 8 + HASH * size.bit_count()
        if len(dumped) != expected:
            raise ValueError(f"expected {expected} bytes for a frontier of size {size}, got {len(dumped)}")
        return cls(size, tuple(dumped[at : at + HASH] for at in range(8, expected, HASH)))

    @classmethod
    def read(cls, size: int, leaves: Reader, tiles: Reader | None = None) -> Self:
        """The frontier of the first `size` leaves, rebuilt from what is stored."""
        start, roots = 0, []
        for bit in reversed(range(size.bit_length())):
            if size >> bit & 1:
                roots.append(subtree_root(start, start + (1 << bit), leaves, tiles))
                start += 1 << bit
        return cls(size, tuple(roots))


def subtree_root(start: int, end: int, leaves: Reader, tiles: Reader | None = None) -> bytes:
    """Root over the leaves from `start` to `end`: a tile, the tree, or any subtree a proof is made of.

    `tiles` reads the roots of complete tiles. Raises ValueError when a reader does not give what was asked.
    """
    if end - start < TILE:
        return _fold(_read(leaves, start, end))
    first, last = start // TILE, end // TILE
    if tiles is None:
        whole = [_fold(_read(leaves, n * TILE, (n + 1) * TILE)) for n in range(first, last)]
    else:
        whole = list(_read(tiles, first, last))
    if last * TILE < end:
        whole.append(_fold(_read(leaves, last * TILE, end)))
    return _fold(whole)


def inclusion_proof(index: int, size: int, leaves: Reader, tiles: Reader | None = None) -> list[bytes]:
    """What proves that leaf `index` is in the tree of `size`. Raises ValueError when it cannot be."""
    return next(inclusion_proofs([index], size, leaves, tiles))


def inclusion_proofs(
    indices: Iterable[int], size: int, leaves: Reader, tiles: Reader | None = None
) -> Iterator[list[bytes]]:
    """Of several leaves: what their proofs have in common is hashed once. Raises ValueError as for one."""
    roots: dict[Range, bytes] = {}
    for index in indices:
        if not 0 <= index < size:
            raise ValueError(f"expected an index below size {size}, got {index}")
        beside = _beside_leaf(index, size)
        for span in beside:
            if span not in roots:
                roots[span] = subtree_root(*span, leaves, tiles)
        yield [roots[span] for span in beside]


def consistency_proof(old: int, new: int, leaves: Reader, tiles: Reader | None = None) -> list[bytes]:
    """What proves that the tree of size `new` begins with the tree of size `old`.

    Empty when `old` is 0 or `new`. Raises ValueError when `old` is larger.
    """
    if not 0 <= old <= new:
        raise ValueError(f"expected an old size up to {new}, got {old}")
    if old in (0, new):
        return []
    return [subtree_root(start, end, leaves, tiles) for start, end in _beside_tree(old, new)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Is `leaf`, a leaf hash, number `index` of the tree? RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size or not _all_hashes(leaf, root, *proof):
        return False
    place, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            node = node_hash(sibling, node)
            place, last = _up_the_edge(place, last)
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Does the new tree begin with the whole old one? RFC 9162, section 2.1.4.2.

    The empty tree begins every tree, and every tree begins itself: both with an empty proof.
    """
    if not 0 <= old_size <= new_size or not _all_hashes(old_root, new_root, *proof):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == new_size:
        return not proof and old_root == new_root
    return bool(proof) and _climbs(old_size, old_root, new_size, new_root, proof)


def _climbs(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Both roots from the one proof. An old tree that is a complete subtree is its own first step."""
    complete = old_size.bit_count() == 1
    first, *rest = [old_root, *proof] if complete else proof
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_node = new_node = first
    for sibling in rest:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            place, last = _up_the_edge(place, last)
        else:
            new_node = node_hash(new_node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root


def _up_the_edge(place: int, last: int) -> Range:
    """Past the levels at which a node of the right edge has no sibling."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _beside_leaf(index: int, size: int) -> list[Range]:
    """The subtrees beside the way from the leaf to the root, lowest first."""
    start, end, beside = 0, size, []
    while end - start > 1:
        split = start + _left_width(end - start)
        if index < split:
            beside.append((split, end))
            end = split
        else:
            beside.append((start, split))
            start = split
    return beside[::-1]


def _beside_tree(old: int, new: int) -> list[Range]:
    """The subtrees that the roots of both sizes are made of, lowest first.

    The lowest is left out where it is the old tree itself, whose root the verifier has.
    """
    start, end, beside = 0, new, []
    while end != old:
        split = start + _left_width(end - start)
        if old <= split:
            beside.append((split, end))
            end = split
        else:
            beside.append((start, split))
            start = split
    if start:
        beside.append((start, end))
    return beside[::-1]


def _left_width(width: int) -> int:
    """The largest power of two below `width`: how many leaves are on the left."""
    return 1 << (width - 1).bit_length() - 1


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over these, level by level; the last of an odd level goes up as it is."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        above = _pairs(level)
        level = above + level[-1:] if len(level) % 2 else above
    return level[0]


def _pairs(level: Sequence[bytes]) -> list[bytes]:
    """The level above; the last of an odd number is left out. `node_hash`, without a call for each."""
    pairs = zip(level[::2], level[1::2], strict=False)
    return [sha256(b"\x01" + left + right).digest() for left, right in pairs]


def _read(reader: Reader, start: int, end: int) -> Sequence[bytes]:
    hashes = reader(start, end)
    if len(hashes) != end - start:
        raise ValueError(f"expected {end - start} hashes from number {start}, got {len(hashes)}")
    return hashes


def _hash(value: bytes) -> bytes:
    if len(value) != HASH:
        raise ValueError(f"expected a hash of {HASH} bytes, got {len(value)}")
    return value


def _all_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH for value in values)
