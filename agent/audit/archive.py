"""What an audit reads from, whatever kind of file it is in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self


class Unreadable(Exception):
    """The file cannot be read, in words for whoever asked for it."""


class Held(Unreadable):
    """An agent holds the journal."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 sequences, from one that begins a tile."""

    first: int
    lines: Sequence[bytes | None]
    """None where there is no line."""
    leaves: Sequence[bytes | None]
    """The leaf hashes that were kept, None where there is none. At least as many as lines."""
    root: bytes | None = None
    """As it was stored."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Size and root that the fleet has confirmed, by what the file says: nothing vouches for it."""

    size: int
    root: bytes


class Archive(Protocol):
    """Something to audit."""

    origin: str | None
    """`<tenant>/<device>/<epoch>` as the file has it; None while it holds nothing."""
    size: int
    """Sequences to expect. An export that was cut has fewer."""
    promised: int
    """The last sequence that the file speaks of, apart from its checkpoints."""
    stores_tiles: bool
    seen: Seen | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def tiles(self, after: int = 0) -> Iterator[Tile]:
        """From the tile of sequence `after` + 1. Raises Unreadable, or Broken for what cannot be placed."""

    def checkpoints(self) -> Iterator[tuple[int | None, bytes]]:
        """Notes in stored order, with the size they are filed under."""


def lines(archive: Archive, after: int = 0) -> Iterator[tuple[int, bytes]]:
    """Every line that is there, with its sequence, in order."""
    for tile in archive.tiles(after):
        for sequence, line in enumerate(tile.lines, tile.first):
            if line is not None and sequence > after:
                yield sequence, line
