"""One parcel's custody as a file that proves itself, for somebody who has the device's public key only.

    proof = prove(archive, "sscc:106141412345678908")
    checked = check_proof(proof, VerifierKey.parse(text))

It proves that these entries are in the device's record as it was signed, unchanged and in this order. It
cannot prove that the record holds no others about the parcel.
"""

import base64
import binascii
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.audit.archive import Archive, Tile
from agent.audit.inspect import Filter, parse
from agent.audit.line import Entry, check_line
from agent.audit.tree import Tree
from agent.audit.verdict import Broken, Code, Failure
from agent.audit.verify import open_own
from agent.ledger import TILE, inclusion_proofs, leaf_hash, verify_inclusion
from agent.note import BadNote, Checkpoint, Note, VerifierKey

VERSION = 1

Json = dict[str, Any]
Watcher = Callable[[int, int], None]


class Unprovable(Exception):
    """There is nothing to prove, or nothing to prove it with."""


@dataclass(frozen=True, slots=True)
class Proven:
    """One entry of a proof, and what is wrong with it; None when it is proven."""

    sequence: int
    entry: Entry
    failure: Failure | None


@dataclass(slots=True)
class _Gathered:
    """What one pass over the archive leaves: roots of whole tiles, and the leaves of those that matter."""

    size: int
    tiles: list[bytes] = field(default_factory=list)
    leaves: dict[int, list[bytes]] = field(default_factory=dict)
    """By number of tile."""
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    later: int = 0
    """Entries of the parcel that no checkpoint covers."""
    root: bytes = b""

    def read(self, start: int, end: int) -> list[bytes]:
        number, first = divmod(start, TILE)
        return self.leaves[number][first : first + end - start]

    def read_tiles(self, start: int, end: int) -> list[bytes]:
        return self.tiles[start:end]


def prove(archive: Archive, parcel: str, watch: Watcher = lambda _done, _of: None) -> tuple[Json, int]:
    """The proof, and how many entries of the parcel are too new to be in it. Raises Unprovable or Broken."""
    note, checkpoint = _latest(archive)
    gathered = _gather(archive, parcel, checkpoint.size, watch)
    if gathered.root != checkpoint.root:
        raise Unprovable("the entries are not those of the latest checkpoint: verify the journal")
    if not gathered.lines:
        newer = f"; {gathered.later} too new for the latest checkpoint" if gathered.later else ""
        raise Unprovable(f"{parcel}: expected entries with this subject, got none{newer}")
    proof = {
        "postern_proof": VERSION,
        "origin": checkpoint.origin,
        "parcel": parcel,
        "checkpoint": note.decode(),
        "entries": _entries(gathered),
    }
    return proof, gathered.later


def check_proof(proof: Any, key: VerifierKey) -> tuple[Checkpoint, list[Proven]]:
    """Every entry of the proof, judged. Raises Broken for what is wrong with all of it."""
    if not isinstance(proof, dict) or proof.get("postern_proof") != VERSION:
        raise Broken(Code.MALFORMED, f"expected a proof of version {VERSION}")
    note, parcel, entries = proof.get("checkpoint"), proof.get("parcel"), proof.get("entries")
    if not (isinstance(note, str) and isinstance(parcel, str) and isinstance(entries, list) and entries):
        raise Broken(Code.MALFORMED, "expected a checkpoint, a parcel and at least one entry")
    checkpoint, _ = open_own(note.encode(errors="replace"), key)
    if proof.get("origin") != checkpoint.origin:
        raise Broken(Code.ORIGIN, f"expected a proof of {checkpoint.origin}, got {proof.get('origin')!r}")
    judged, latest = [], 0
    for found in entries:
        proven = _judge(found, parcel, checkpoint, latest)
        judged.append(proven)
        latest = max(latest, proven.sequence)
    return checkpoint, judged


def _latest(archive: Archive) -> tuple[bytes, Checkpoint]:
    newest = deque(archive.checkpoints(), 1)
    if not newest:
        raise Unprovable("expected a signed checkpoint, got none")
    note = newest[0][1]
    try:
        return note, Checkpoint.parse(Note.parse(note).text)
    except BadNote as bad:
        raise Unprovable(f"the latest checkpoint: {bad}") from bad


def _gather(archive: Archive, parcel: str, size: int, watch: Watcher) -> _Gathered:
    gathered, tree, chosen = _Gathered(size), Tree(), Filter(parcel=parcel)
    for tile in archive.tiles():
        number = tile.first // TILE
        theirs = [(n, line) for n, line in _lines(tile) if _is_about(chosen, line)]
        within = [(n, line) for n, line in theirs if n <= size]
        gathered.lines += within
        gathered.later += len(theirs) - len(within)
        if tile.first <= size:
            leaves = _leaves(tile)[: size - tile.first + 1]
            tree.add(leaves)
            if len(leaves) == TILE:
                gathered.tiles.append(tree.last_tile)
            if within or number == (size - 1) // TILE:
                gathered.leaves[number] = leaves
        watch(tile.first, archive.size)
    gathered.root = tree.root()
    return gathered


def _lines(tile: Tile) -> list[tuple[int, bytes]]:
    return [(n, line) for n, line in enumerate(tile.lines, tile.first) if line is not None]


def _is_about(chosen: Filter, line: bytes) -> bool:
    return chosen.may_want(line) and chosen.wants(parse(line))


def _leaves(tile: Tile) -> list[bytes]:
    leaves = []
    for sequence, (line, kept) in enumerate(zip(tile.lines, tile.leaves, strict=False), tile.first):
        leaf = kept if line is None else leaf_hash(line)
        if leaf is None:
            raise Broken(Code.GAP, "neither a line nor its hash", sequence)
        leaves.append(leaf)
    return leaves


def _entries(gathered: _Gathered) -> list[Json]:
    indices = (sequence - 1 for sequence, _ in gathered.lines)
    paths = inclusion_proofs(indices, gathered.size, gathered.read, gathered.read_tiles)
    return [
        {
            "sequence": sequence,
            "line": line.decode(),
            "path": [base64.b64encode(each).decode() for each in path],
        }
        for (sequence, line), path in zip(gathered.lines, paths, strict=True)
    ]


def _judge(found: Any, parcel: str, checkpoint: Checkpoint, latest: int) -> Proven:
    """One entry of a proof; `latest` is the sequence of the one before it."""
    sequence, line, path = _read(found)
    entry = parse(line)
    try:
        entry = _check(sequence, line, parcel, checkpoint)
        if sequence <= latest:
            raise Broken(Code.DUPLICATE, f"expected a sequence above {latest}", sequence)
        if not verify_inclusion(leaf_hash(line), sequence - 1, checkpoint.size, path, checkpoint.root):
            raise Broken(Code.ROOT, "not in the record that was signed", sequence)
    except Broken as broken:
        return Proven(sequence, entry, broken.failure)
    return Proven(sequence, entry, None)


def _check(sequence: int, line: bytes, parcel: str, checkpoint: Checkpoint) -> Entry:
    whose, _, epoch = checkpoint.origin.rpartition("/")
    entry = check_line(line, sequence, epoch, f"/postern/{whose}")
    if entry["subject"] != parcel:
        raise Broken(Code.IDENTITY, f"expected an entry about {parcel}, got {entry['subject']}", sequence)
    return entry


def _read(found: Any) -> tuple[int, bytes, list[bytes]]:
    """Raises Broken, MALFORMED, for what is not even shaped like an entry of a proof."""
    try:
        sequence, line, encoded = found["sequence"], found["line"].encode(), found["path"]
        path = [base64.b64decode(text, validate=True) for text in encoded]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error):
        raise Broken(Code.MALFORMED, "expected sequence, line and path") from None
    if type(sequence) is not int:
        raise Broken(Code.MALFORMED, f"expected a sequence, got {sequence!r}")
    return sequence, line, path
