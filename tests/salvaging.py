"""Journals damaged on purpose, what came of them at boot, and the laws that hold of every salvage."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.salvage import Salvage, Salvaged, check, set_aside
from agent.soundness import TABLES, schema
from agent.sqlite_file import File
from agent.sqlite_pages import parse_page, walk
from agent.store import keep_salvaged
from tests import wreck
from tests.wreck import EPOCH, OLDER, PUBLIC, Written

PAGE = 4096
FRAME = PAGE + 24
ENTRIES, REACHED = 700, 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a damaged journal."""

    reason: str | None
    told: Salvaged
    stored: dict[int, bytes]

    def lines(self, epoch: str = EPOCH) -> dict[int, bytes]:
        """By the sequence that each line says."""
        read = ((json.loads(line)["id"].split("-"), line) for _, line in sorted(self.stored.items()))
        return {int(sequence): line for (whose, sequence), line in read if whose == epoch}

    def lost(self) -> set[int]:
        return numbers(self.told.lost) | numbers(self.told.lost_or_pruned)


def numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}


def outcome(path: Path) -> Outcome:
    """As at boot."""
    reason = check(path)
    before = {part.name: digest(part) for part in wreck.parts(path) if part.is_file()}
    aside = set_aside(path)
    work = Salvage(aside, reason or "", public=PUBLIC)
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.execute(f"CREATE TABLE salvaged {TABLES['salvaged']}")
        work.recover_records()
        for lines in work.lines():
            keep_salvaged(fresh, lines)
        stored = dict(fresh.execute("SELECT number, line FROM salvaged").fetchall())
    after = {
        part.name.replace("damaged-1.", ""): digest(part) for part in wreck.parts(aside) if part.is_file()
    }
    assert before == after
    return Outcome(reason, work.result(), stored)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damage(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def holds(written: Written, found: Outcome, *, reached: int = REACHED) -> set[int]:
    """The laws of every salvage; returns the entries that are missing."""
    got, told = found.lines(), found.told
    signed = max(written.notes)
    for sequence, line in got.items():
        altered = line != written.lines[sequence]
        assert not altered or sequence in numbers(told.doubtful) or sequence > signed
    missing = {n for n in written.lines if n > reached} - got.keys()
    assert {n for n in missing if n <= told.last} == {n for n in found.lost() if n > reached}
    assert told.open_end or all(n <= told.last for n in missing)
    older = found.lines(OLDER)
    assert older.keys() <= {n + 500 for n in written.older}
    assert len(older) == told.older == len(written.older) or told.older_lost
    in_order = [json.loads(line)["id"] for _, line in sorted(found.stored.items())]
    assert in_order == [*(f"{OLDER}-{n}" for n in sorted(older)), *(f"{EPOCH}-{n}" for n in sorted(got))]
    for key, value in written.records.items():
        named = key in told.lost_records + told.doubtful_records
        assert named or not told.records_complete or told.records.get(key) == value
    return missing


def touching(written: Written, path: Path, first: int, last: int) -> set[int]:
    """Entries of which a byte is in these bytes of the file and that are whole nowhere else."""
    data = {part: part.read_bytes() for part in wreck.parts(written.path)}
    found = set()
    for sequence, line in written.lines.items():
        whole = [(part, at) for part, held in data.items() if (at := held.find(line)) >= 0]
        pieces = [line[:300], *(line[n : n + 60] for n in range(600, len(line) - 60, 900))]
        pages = {
            (part, data[part].find(piece) // PAGE) for part in data for piece in pieces if piece in data[part]
        }
        away = any(part != path or at + len(line) <= first or at > last for part, at in whole)
        if not away and any(part == path and first // PAGE - 1 <= n <= last // PAGE + 1 for part, n in pages):
            found.add(sequence)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """All of it in the file."""
    written = wreck.write(tmp_path_factory.mktemp("plain"), ENTRIES, older=20, cursor=REACHED)
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return written


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The newest 150 entries in the write-ahead log."""
    return wreck.write(tmp_path_factory.mktemp("logged"), ENTRIES, older=20, cursor=REACHED, logged=150)


def places(path: Path) -> dict[str, tuple[int, int]]:
    """A byte range of every kind there is in a file: offset and size."""
    with File(path) as file:
        roots, _ = schema(file)
        leaf = next(leaf for leaf in walk(file, roots["entry"]) if leaf.after > 300)
        page = parse_page(file.read(leaf.page), PAGE)
        overflow = next(
            n for n in range(2, file.pages) if file.read(n)[0] == 0 and file.read(n)[4:5] not in b"\0"
        )
    base = (leaf.page - 1) * PAGE
    whole = {name: ((root - 1) * PAGE, PAGE) for name, root in roots.items()}
    return {
        "the file header": (0, 100),
        "the schema": (100, PAGE - 100),
        "an interior page": (whole["entry"][0], 40),
        "the whole interior page": whole["entry"],
        "a leaf's header": (base, 8),
        "a leaf's cell pointers": (base + 8, 2 * len(page.cells)),
        "a cell's head": (base + page.cells[0], 8),
        "a line": (base + page.cells[0] + 40, 60),
        "a whole leaf": (base, PAGE),
        "an overflow page": ((overflow - 1) * PAGE, PAGE),
        "the records": whole["record"],
        "the tiles": whole["tile"],
        "the checkpoints": whole["checkpoint"],
        "the older lines": whole["salvaged"],
    }


PLACES = [
    "the file header",
    "the schema",
    "an interior page",
    "the whole interior page",
    "a leaf's header",
    "a leaf's cell pointers",
    "a cell's head",
    "a line",
    "a whole leaf",
    "an overflow page",
    "the records",
    "the tiles",
    "the checkpoints",
    "the older lines",
]
