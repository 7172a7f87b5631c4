"""A Merkle tree grown from leaves alone, in memory that does not grow with it."""

from collections.abc import Sequence

from agent.ledger import TILE, Frontier


class Tree:
    """Two frontiers: one of whole tiles, and one inside the tile that is being filled."""

    def __init__(self) -> None:
        self.last_tile = b""
        """Root of the tile completed last."""
        self._tiles = Frontier()
        self._inside = Frontier()

    @property
    def size(self) -> int:
        return self._tiles.size * TILE + self._inside.size

    def add(self, leaves: Sequence[bytes]) -> None:
        """Leaf hashes, up to the end of the tile and not beyond."""
        self._inside = self._inside.append(*leaves)
        if self._inside.size > TILE:
            raise ValueError(f"expected leaves of one tile, got {self._inside.size}")
        if self._inside.size == TILE:
            (self.last_tile,) = self._inside.roots
            self._tiles = self._tiles.append(self.last_tile)
            self._inside = Frontier()

    def root(self) -> bytes:
        # A tile is 2**8 leaves: the bits of the size are those of the tiles, then those inside.
        return Frontier(self.size, (*self._tiles.roots, *self._inside.roots)).root()
