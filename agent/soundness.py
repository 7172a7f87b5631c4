"""Can this journal be used? A quick look before it is opened, and a slow one while it is in use.

`check` reads what opening and the next append depend on, by the format, and changes nothing: the file's
header, its write-ahead log, both ends of every table, all records. What lies between is left to `deep_check`,
a tile of 256 entries at a time, and `suspect` keeps what that found for the next boot.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.cursors import Cursors
from agent.keyfile import sync_folder
from agent.ledger import HASH, TILE, leaf_hash, subtree_root
from agent.note import BadNote, Checkpoint, Note
from agent.sqlite_file import File
from agent.sqlite_pages import LARGEST, MAGIC, SMALLEST, BadPage, fields, walk, walk_index

SCHEMA = 1
TABLES = {
    "entry": "(sequence INTEGER PRIMARY KEY, lane INTEGER NOT NULL, line BLOB NOT NULL)",
    "record": "(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "tile": "(number INTEGER PRIMARY KEY, root BLOB NOT NULL, leaves BLOB)",
    "checkpoint": "(size INTEGER PRIMARY KEY, note BLOB NOT NULL)",
    "salvaged": "(number INTEGER PRIMARY KEY, line BLOB NOT NULL)",
}
"""What makes schema 1. A newer schema must differ here: with these unchanged the number is damaged."""

_HEADER = {
    18: (1, "written in write-ahead mode", 2),
    19: (1, "read in write-ahead mode", 2),
    20: (1, "no reserved bytes", 0),
    21: (3, "the payload fractions", 0x402020),
    44: (4, "schema format", 4),
    52: (4, "no automatic vacuum", 0),
    56: (4, "UTF-8", 1),
    64: (4, "no incremental vacuum", 0),
}
"""Offset: size, what is expected there, and its value."""


class NewerJournal(Exception):
    """A later version of this program wrote the file: it is sound, and not ours to touch."""


class _Damaged(Exception):
    """Why the file must be set aside."""


def check(path: Path) -> str | None:
    """Why the journal must be set aside, or None: it can be opened, or is not there yet.

    Changes nothing. Raises NewerJournal; BlockingIOError while another process has it open; and OSError
    when it may not be read. Call it before this process opens the file.
    """
    if path.exists() and not path.is_file():
        return "expected a file, got something else"
    if (note := suspicion_of(path)).exists():
        return note.read_text(errors="replace").strip() or "damage found while in use"
    with File(path) as file:
        file.lock()
        try:
            _check_file(file)
        except (_Damaged, BadPage, BadNote) as damage:
            return str(damage)
    return None


def suspect(path: Path, reason: str) -> None:
    """Make the next `check` say so: damage was met in use. Durable when it returns."""
    note = suspicion_of(path)
    with note.open("w") as file:
        file.write(reason)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(note.parent)


def suspicion_of(path: Path) -> Path:
    """Where `suspect` keeps its reason."""
    return path.with_name(path.name + "-suspect")


def deep_check(connection: sqlite3.Connection, step: int) -> str | None:
    """What is wrong with entries step*256+1 to (step+1)*256, or None. A job of a millisecond that only reads.

    Call it with 0, 1, 2 ... up to the newest entry, and again from 0.
    """
    try:
        return _check_tile(connection, step)
    except (sqlite3.Error, ValueError, TypeError) as error:
        return f"entries from {step * TILE + 1}: {error}"


# -- the file -------------------------------------------------------------------------------------


def _check_file(file: File) -> None:
    if file.log.damage:
        raise _Damaged(file.log.damage)
    if file.size == 0 and not file.log.committed:
        return
    if file.size == 0:
        raise _Damaged("the file is gone, its write-ahead log is not")
    _check_header(file)
    roots, statements = schema(file)
    version = int.from_bytes(file.header[60:64], "big")
    if not roots and version == 0:
        return
    if version > SCHEMA and any(sql != TABLES.get(name) for name, sql in statements.items()):
        raise NewerJournal(f"{file.path}: expected schema {SCHEMA}, got {version} of a later version")
    if version != SCHEMA or not {"entry", "record"} <= roots.keys():
        raise _Damaged(f"expected schema {SCHEMA} with its tables, got {version} with {sorted(roots)}")
    if (number := file.missing()) is not None:
        raise _Damaged(f"cut short: page {number} of {file.pages} is missing")
    _check_free_pages(file)
    _check_content(file, roots)


def _check_header(file: File) -> None:
    if not file.header.startswith(MAGIC):
        raise _Damaged("not an SQLite file")
    if _number(file.header, 16, 2) % 65535 != file.page_size % 65535:
        raise _Damaged(f"expected pages of {file.page_size} bytes")
    for at, (size, meaning, value) in _HEADER.items():
        if (got := _number(file.header, at, size)) != value:
            raise _Damaged(f"header: expected {meaning} ({value}), got {got}")
    if file.header[24:28] == file.header[92:96] and not file.log.committed:
        told = _number(file.header, 28, 4)
        if told != file.size // file.page_size:
            raise _Damaged(f"expected {told} pages, got {file.size / file.page_size:g}")


def schema(file: File) -> tuple[dict[str, int], dict[str, str]]:
    """The root page of each table and what makes it. Raises BadPage."""
    roots: dict[str, int] = {}
    statements: dict[str, str] = {}
    for leaf in walk(file, 1):
        if not leaf.sound:
            raise BadPage("the schema cannot be read")
        for _, row in leaf.rows:
            match fields(row):
                case ["table", str(name), _, int(root), str(sql)]:
                    roots[name] = root
                    statements[name] = " ".join(sql[sql.find("(") :].split())
                case columns:
                    raise BadPage(f"expected a table in the schema, got {columns[:2]}")
    return roots, statements


def _check_free_pages(file: File) -> None:
    """A bad list of free pages would spoil the next append."""
    number, count = _number(file.header, 32, 4), _number(file.header, 36, 4)
    seen = 0
    while number and seen <= count:
        image = file.read(number)
        leaves = _number(image, 4, 4)
        listed = [_number(image, 8 + 4 * n, 4) for n in range(min(leaves, file.usable // 4 - 2))]
        if leaves > file.usable // 4 - 2 or not all(1 < page <= file.pages for page in listed):
            raise _Damaged(f"free pages: page {number} lists what is none")
        seen += 1 + leaves
        number = _number(image, 0, 4)
    if seen != count:
        raise _Damaged(f"free pages: expected {count}, got {seen}")


def _check_content(file: File, roots: dict[str, int]) -> None:
    records = _records(file, roots["record"])
    epoch = records.get("epoch")
    if not isinstance(epoch, str):
        raise _Damaged("the records do not name the epoch")
    last = 0
    for sequence, line in (*_edge(file, roots["entry"], last=SMALLEST), *_edge(file, roots["entry"])):
        _check_line(epoch, sequence, line)
        last = max(last, sequence)
    signed = [0]
    for size, note in _edge(file, roots.get("checkpoint", 0)):
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        if checkpoint.size != size or not checkpoint.origin.endswith(f"/{epoch}"):
            raise _Damaged(f"checkpoint {size} is of {checkpoint.origin} at {checkpoint.size}")
        signed.append(size)
    for meaning, size in (("signed", max(signed)), ("sent", max(Cursors.load(records).places))):
        if size > last:
            raise _Damaged(f"{size} entries were {meaning}, but the newest is {last}")
    for name in ("tile", "salvaged"):
        for _ in (*_edge(file, roots.get(name, 0), last=SMALLEST), *_edge(file, roots.get(name, 0))):
            pass


def _records(file: File, root: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for page in walk_index(file, root):
        if not page.sound:
            raise _Damaged(f"page {page.page} of the records cannot be read")
        for _, row in page.rows:
            match fields(row):
                case [str(key), bytes(value)]:
                    found[key] = parsed(value, f"record {key}")
                case _:
                    raise _Damaged(f"page {page.page} of the records holds what is none")
    return found


def _edge(file: File, root: int, last: int = LARGEST) -> Iterator[tuple[int, bytes]]:
    """Key and last column of the rows at one end of a table."""
    for leaf in walk(file, root, first=last, last=last) if root else ():
        if not leaf.sound:
            raise _Damaged(f"page {leaf.page} cannot be read")
        for key, row in leaf.rows:
            value = fields(row)[-1]
            yield key, value if isinstance(value, bytes) else b""


def _check_line(epoch: str, sequence: int, line: bytes) -> None:
    entry = parsed(line, f"entry {sequence}")
    found = entry.get("id") if isinstance(entry, dict) else None
    if found != f"{epoch}-{sequence}":
        raise _Damaged(f"expected entry {epoch}-{sequence}, got {found}")


def parsed(value: bytes, meaning: str) -> object:
    """What JSON says. Raises BadPage."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadPage(f"{meaning} is not JSON") from None


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


# -- a tile ---------------------------------------------------------------------------------------


def _check_tile(connection: sqlite3.Connection, number: int) -> str | None:
    span = (number * TILE + 1, (number + 1) * TILE)
    (epoch,) = connection.execute("SELECT value FROM record WHERE key = 'epoch'").fetchone()
    (newest,) = connection.execute("SELECT max(sequence) FROM entry").fetchone()
    found = connection.execute("SELECT sequence, line FROM entry WHERE sequence BETWEEN ? AND ?", span)
    lines = dict(found.fetchall())
    for sequence, line in lines.items():
        name = f'"id":"{json.loads(epoch)}-{sequence}"'.encode()
        if not isinstance(line, bytes) or name not in line[:128]:
            return f"entry {sequence} is another one"
    tile = connection.execute("SELECT root, leaves FROM tile WHERE number = ?", (number,)).fetchone()
    if tile is None:
        return f"the hash of entries {span[0]} to {span[1]} is missing" if span[1] <= (newest or 0) else None
    return disagreement(number, lines, *tile)


def disagreement(number: int, lines: dict[int, bytes], root: bytes, leaves: bytes | None) -> str | None:
    """What does not fit between the lines of a tile and its hashes. `leaves` stand for pruned lines."""
    hashes: list[bytes] = []
    for sequence in range(number * TILE + 1, (number + 1) * TILE + 1):
        line = lines.get(sequence)
        kept = None if leaves is None else leaves[len(hashes) * HASH : (len(hashes) + 1) * HASH]
        if line is None and kept is None:
            return f"entry {sequence} is missing"
        leaf = kept if line is None else leaf_hash(line)
        if kept is not None and leaf != kept:
            return f"entry {sequence} was changed"
        hashes.append(leaf or b"")
    got = subtree_root(0, TILE, lambda start, end: hashes[start:end])
    return None if got == root else f"entries from {number * TILE + 1} to {(number + 1) * TILE} were changed"
