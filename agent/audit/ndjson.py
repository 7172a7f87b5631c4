"""The export of a journal: its lines as they are stored, one a line, with what it takes to verify them.

    {"postern_export":1,"origin":"acme/van-0042/5f1e0c9a77b2","from":1,"to":1200}
    {"specversion":"1.0","id":"5f1e0c9a77b2-1",...}
    {"leaves":{"from":2,"hashes":["...","..."]}}
    {"checkpoint":"acme/van-0042/5f1e0c9a77b2\\n1200\\n..."}

A line that was pruned, or is left out on purpose, is there as its hash. Read twice, never kept: lines and
checkpoints come from passes of their own.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

from agent.audit.archive import Archive, Seen, Tile, Unreadable
from agent.audit.verdict import Broken, Code
from agent.ledger import HASH, TILE, leaf_hash

VERSION = 1

_CHECKPOINT, _LEAVES = b'{"checkpoint":', b'{"leaves":'
_SEQUENCE = re.compile(rb'"sequence":"([1-9][0-9]{0,18})"')

Slot = tuple[bytes | None, bytes | None]
"""A line, or the hash that stands for it."""


class Export(Archive):
    """A file in the export format."""

    stores_tiles = False
    seen: Seen | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = _json(file.readline(4096))
        if not isinstance(header, dict) or header.get("postern_export") != VERSION:
            raise Unreadable(f"{path}: expected a journal or an export of version {VERSION}")
        origin, last = header.get("origin"), header.get("to")
        if not isinstance(origin, str) or not isinstance(last, int):
            raise Unreadable(f"{path}: expected origin and last sequence in the first line")
        self.origin = origin or None
        self.size = self.promised = last
        self._files: set[IO[bytes]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what a pass that was broken off has left open."""
        for file in list(self._files):
            file.close()

    def tiles(self, after: int = 0) -> Iterator[Tile]:
        """What comes before the first thing out of place is handed on before it is complained of."""
        slots, first, broken = self._slots(), 1, None
        while broken is None:
            tile = list[Slot]()
            try:
                tile.extend(islice(slots, TILE))
            except Broken as error:
                broken = error
            if tile and first + len(tile) > after + 1:
                yield Tile(first, [line for line, _ in tile], [leaf for _, leaf in tile])
            first += TILE
            if not tile:
                break
        if broken is not None:
            raise broken

    def checkpoints(self) -> Iterator[tuple[int | None, bytes]]:
        for raw in self._after_header():
            if raw.startswith(_CHECKPOINT):
                found = _json(raw)
                note = found.get("checkpoint") if isinstance(found, dict) and len(found) == 1 else None
                if not isinstance(note, str):
                    raise Broken(Code.MALFORMED, "expected the text of a checkpoint")
                yield None, note.encode(errors="replace")

    def _slots(self) -> Iterator[Slot]:
        """What stands for each sequence, from 1. Raises Broken where the next one does not follow."""
        following = 1
        for raw in self._after_header():
            if raw.startswith(_CHECKPOINT):
                continue
            if raw.startswith(_LEAVES):
                first, hashes = _leaves(raw, following)
                _follows(first, following)
                yield from ((None, leaf) for leaf in hashes)
                following += len(hashes)
                continue
            found = _SEQUENCE.search(raw)
            _follows(int(found[1]) if found else following, following)
            yield raw, None
            following += 1

    def _after_header(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            self._files.add(file)
            try:
                file.readline()
                for raw in file:
                    yield raw.removesuffix(b"\n")
            finally:
                self._files.remove(file)


def write(
    archive: Archive,
    out: IO[bytes],
    wanted: Callable[[bytes], bool] = lambda _: True,
    watch: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Export what is `wanted`, and the hashes of the rest. Returns the number of lines written.

    What is not there at all is left out: a verifier will say so.
    """
    header = {"postern_export": VERSION, "origin": archive.origin or "", "from": 1, "to": archive.size}
    out.write(_compact(header))
    written = 0
    for tile in archive.tiles():
        written += _write_tile(tile, out, wanted)
        watch(tile.first, archive.size)
    for _, note in archive.checkpoints():
        out.write(_compact({"checkpoint": note.decode(errors="replace")}))
    return written


def _write_tile(tile: Tile, out: IO[bytes], wanted: Callable[[bytes], bool]) -> int:
    written, first, hashes = 0, tile.first, list[bytes]()
    for sequence, (line, kept) in enumerate(zip(tile.lines, tile.leaves, strict=False), tile.first):
        shown = line is not None and wanted(line)
        leaf = kept if line is None else leaf_hash(line)
        if not shown and leaf is not None:
            first = first if hashes else sequence
            hashes.append(leaf)
            continue
        _write_leaves(out, first, hashes)
        hashes = []
        if line is not None:
            out.write(line + b"\n")
            written += 1
    _write_leaves(out, first, hashes)
    return written


def _write_leaves(out: IO[bytes], first: int, hashes: list[bytes]) -> None:
    if hashes:
        encoded = [base64.b64encode(leaf).decode() for leaf in hashes]
        out.write(_compact({"leaves": {"from": first, "hashes": encoded}}))


def _follows(found: int, expected: int) -> None:
    if found > expected:
        raise Broken(Code.GAP, f"expected sequence {expected}, got {found}", expected, found - 1)
    if found < expected:
        raise Broken(Code.DUPLICATE, f"expected sequence {expected}, got {found} again or too late", found)


def _leaves(raw: bytes, following: int) -> tuple[int, list[bytes]]:
    bad = Broken(Code.MALFORMED, "expected leaf hashes and the first of their sequences", following)
    found = _json(raw)
    try:
        first, encoded = found["leaves"]["from"], found["leaves"]["hashes"]
        hashes = [base64.b64decode(text, validate=True) for text in encoded]
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise bad from None
    whole = all(len(leaf) == HASH for leaf in hashes)
    if type(first) is not int or not whole or _compact(found) != raw + b"\n":
        raise bad
    if [base64.b64encode(leaf).decode() for leaf in hashes] != encoded:
        raise bad
    return first, hashes


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
