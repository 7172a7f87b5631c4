"""Every way a journal can be damaged: it is set aside as it is, and what is lost is named exactly."""

import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.ledger import TILE, leaf_hash
from agent.salvage import (
    NewerJournal,
    Salvage,
    Salvaged,
    check,
    deep_check,
    keep,
    newest_set_aside,
    salvage,
    set_aside,
    suspect,
)
from agent.soundness import TABLES, schema
from agent.sqlite_file import File
from agent.sqlite_pages import parse_page, walk
from tests import wreck
from tests.wreck import EPOCH, OLDER, PUBLIC, Written, log

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
            keep(fresh, lines)
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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """10 MB."""
    written = wreck.write(tmp_path_factory.mktemp("large"), 9000, group=16, cursor=REACHED, sizes=(300, 1200))
    assert written.path.stat().st_size > 10_000_000
    return written


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


# -- nothing wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "logged"])
def test_a_sound_journal_is_not_set_aside_and_would_be_salvaged_whole(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    written: Written = request.getfixturevalue(kind).copied(tmp_path / "copy")
    found = outcome(written.path)
    assert found.reason is None
    assert holds(written, found) == set()
    told = found.told
    assert (told.kept, told.first, told.last, told.lost, told.doubtful) == (ENTRIES, 1, ENTRIES, [], [])
    assert not told.open_end
    assert told.records_complete
    assert (told.records, told.epoch, told.older) == (written.records, EPOCH, 20)
    assert told.last_checkpoint == written.notes[640]
    assert told.copied == 20 + ENTRIES - REACHED


def test_a_journal_that_is_not_there_yet_is_no_damage(tmp_path: Path) -> None:
    assert check(tmp_path / "journal.db") is None
    (tmp_path / "journal.db").touch()
    assert check(tmp_path / "journal.db") is None


def test_a_journal_of_a_later_version_is_refused_and_left_alone(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute("CREATE TABLE news (id INTEGER PRIMARY KEY)")
        connection.execute("PRAGMA user_version=2")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with pytest.raises(NewerJournal, match="expected schema 1, got 2"):
        check(written.path)


def test_a_flipped_version_is_damage_and_no_later_version(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    damage(written.path, 63, b"\x09")
    assert "expected schema 1" in str(check(written.path))


def test_a_journal_in_use_by_another_process_is_not_judged(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA locking_mode=EXCLUSIVE').fetchall()\n"
        "c.execute('BEGIN EXCLUSIVE')\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(written.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BlockingIOError):
            check(written.path)
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait()


# -- every place ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["zeros", "garbage"])
@pytest.mark.parametrize("place", PLACES)
def test_damage_costs_the_entries_it_touches_and_they_are_named(
    place: str, fill: str, plain: Written, tmp_path: Path
) -> None:
    written = plain.copied(tmp_path / "copy")
    at, size = places(written.path)[place]
    damage(written.path, at, bytes(size) if fill == "zeros" else random.Random(place).randbytes(size))
    missing = holds(written, outcome(written.path))
    assert missing <= touching(plain, plain.path, at, at + size)


@pytest.mark.parametrize(
    "place", ["the file header", "the schema", "the whole interior page", "the records", "the checkpoints"]
)
def test_what_opening_depends_on_is_noticed_at_once(place: str, plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    at, size = places(written.path)[place]
    damage(written.path, at, bytes(size))
    assert check(written.path) is not None


@pytest.mark.parametrize("at", range(0, 100, 3))
def test_no_byte_of_the_header_keeps_a_journal_that_passes_from_opening(
    at: int, plain: Written, tmp_path: Path
) -> None:
    written = plain.copied(tmp_path / "copy")
    damage(written.path, at, b"\xa5")
    if check(written.path) is None:
        with closing(sqlite3.connect(written.path)) as connection:
            connection.execute("INSERT INTO entry VALUES (?, 1, ?)", (ENTRIES + 1, bytes(9000)))
            connection.commit()
            assert connection.execute("SELECT max(sequence) FROM entry").fetchone() == (ENTRIES + 1,)


def test_a_bad_list_of_free_pages_is_noticed(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute("DELETE FROM entry WHERE sequence < 90")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert check(written.path) is None
    trunk = int.from_bytes(written.path.read_bytes()[32:36], "big")
    damage(written.path, (trunk - 1) * PAGE, b"\xff" * 12)
    assert "free page" in str(check(written.path)) or "beyond the end" in str(check(written.path))


# -- the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "size"),
    [
        (0, 32),
        (1, 1),
        (12, 1),
        (26, 1),
        (32, 24),
        (33, 1),
        (32 + 9, 1),
        (32 + 18, 1),
        (32 + 24, PAGE),
        (32 + 600, 1),
    ],
)
@pytest.mark.parametrize("frame", [0, 20])
def test_a_bad_frame_is_noticed_and_costs_one_page(
    frame: int, at: int, size: int, logged: Written, tmp_path: Path
) -> None:
    written = logged.copied(tmp_path / "copy")
    first = at + (frame * FRAME if at >= 32 else 0)
    damage(log(written.path), first, random.Random(at).randbytes(size))
    found = outcome(written.path)
    assert found.reason is not None
    assert "write-ahead log" in found.reason
    assert holds(written, found) <= touching(logged, log(logged.path), first, first + size)


@pytest.mark.parametrize("cut", [1, 30, 2000, PAGE, PAGE + 23, PAGE + 25, 2 * PAGE - 1, 2 * FRAME - 7])
def test_a_torn_end_of_the_log_is_no_damage(cut: int, logged: Written, tmp_path: Path) -> None:
    """Nobody was told that the last transaction was kept: SQLite drops it, as after any power cut."""
    written = logged.copied(tmp_path / "copy")
    data = log(written.path).read_bytes()
    log(written.path).write_bytes(data[:-cut])
    found = outcome(written.path)
    assert found.reason is None
    assert len(holds(written, found)) <= 6


def test_a_journal_whose_file_is_gone_is_salvaged_from_its_log(logged: Written, tmp_path: Path) -> None:
    written = logged.copied(tmp_path / "copy")
    written.path.unlink()
    found = outcome(written.path)
    assert found.reason == "the file is gone, its write-ahead log is not"
    holds(written, found)
    assert set(range(ENTRIES - 100, ENTRIES + 1)) <= found.lines().keys()


# -- the whole file -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 300_000])
def test_a_cut_file_is_noticed(cut: int, plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    size = written.path.stat().st_size
    written.path.write_bytes(written.path.read_bytes()[:-cut])
    found = outcome(written.path)
    assert found.reason is not None
    assert holds(written, found) <= touching(plain, plain.path, size - cut, size)


@pytest.mark.parametrize("data", [b"x", b"\0" * 5000, random.Random(1).randbytes(50_000)])
def test_what_is_no_journal_at_all_is_set_aside(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(data)
    found = outcome(tmp_path / "journal.db")
    assert found.reason is not None
    assert (found.told.kept, found.told.epoch, found.told.records) == (0, "", {})
    assert not found.told.records_complete
    assert found.told.open_end


def test_a_folder_in_its_place_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    found = outcome(tmp_path / "journal.db")
    assert found.reason == "expected a file, got something else"
    assert (tmp_path / "journal.damaged-1.db").is_dir()
    assert found.told.kept == 0


@pytest.mark.parametrize("kind", ["plain", "logged"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_survived_and_accounted_for(
    kind: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dice = random.Random(seed)
    original: Written = request.getfixturevalue(kind)
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    written = original.copied(tmp_path / "copy")
    part = dice.choice(wreck.parts(written.path))
    size = dice.choice([1, 16, 512, PAGE, 3 * PAGE])
    at = dice.randrange(part.stat().st_size)
    damage(part, at, dice.choice([bytes(size), dice.randbytes(size)]))
    missing = holds(original, outcome(written.path))
    assert missing <= touching(original, original.path.with_name(part.name), at, at + size)


@pytest.mark.parametrize("seed", range(4))
def test_ten_megabytes_with_bad_pages_lose_those_pages_alone(
    seed: int, large: Written, tmp_path: Path
) -> None:
    written = large.copied(tmp_path / "copy")
    dice = random.Random(seed)
    bad = dice.sample(range(10, written.path.stat().st_size // PAGE), 5)
    for number in bad:
        damage(written.path, (number - 1) * PAGE, dice.randbytes(PAGE))
    found = outcome(written.path)
    assert len(holds(written, found)) <= 60
    assert found.told.kept >= 9000 - 60


# -- what was altered, pruned or counted ----------------------------------------------------------


def test_an_altered_line_that_is_still_json_is_doubtful_where_it_was_signed(
    plain: Written, tmp_path: Path
) -> None:
    written = plain.copied(tmp_path / "copy")
    at = written.path.read_bytes().find(b'"text":"', 200_000) + 9
    damage(written.path, at, b"Z")
    found = outcome(written.path)
    altered = {n for n, line in found.lines().items() if line != written.lines[n]}
    assert len(altered) == 1
    assert altered <= numbers(found.told.doubtful)
    assert found.told.lost == []


def test_pruned_lines_are_not_called_lost(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    prune(written, 100)
    with File(written.path) as file:
        leaf = next(walk(file, schema(file)[0]["entry"]))
    damage(written.path, (leaf.page - 1) * PAGE, bytes(PAGE))
    told = outcome(written.path).told
    assert told.lost == []
    assert told.lost_or_pruned[0][0] == 1
    assert 100 < told.lost_or_pruned[-1][1] < 120


def test_a_line_that_contradicts_its_kept_hash_is_lost(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    prune(written, 100)
    at = written.path.read_bytes().find(written.lines[200][:200])
    damage(written.path, at + 150, b"9")
    found = outcome(written.path)
    assert 200 not in found.lines()
    assert found.told.lost_or_pruned == [(200, 200)]


def prune(written: Written, upto: int) -> None:
    """The lines of the first tile up to there."""
    leaves = b"".join(leaf_hash(written.lines[n]) for n in range(1, TILE + 1))
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute("UPDATE tile SET leaves = ? WHERE number = 0", (leaves,))
        connection.execute("DELETE FROM entry WHERE sequence <= ?", (upto,))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def test_of_a_damaged_page_of_records_the_stricter_version_is_taken(logged: Written, tmp_path: Path) -> None:
    """The image before it has all counters but the one that was counted last, and that as it was then."""
    written = logged.copied(tmp_path / "copy")
    with File(written.path) as file:
        root = schema(file)[0]["record"]
        at = max(frame.at for frame in file.log.frames[: file.log.committed] if frame.page == root)
    damage(log(written.path), at, bytes(PAGE))
    told = outcome(written.path).told
    assert not told.records_complete
    changed = {key for key, value in written.records.items() if told.records[key] != value}
    assert changed == {"tries:subject-10"} < set(told.doubtful_records)
    assert told.records["tries:subject-10"]["failures"] == 10


def test_a_cursor_that_lies_ahead_of_the_newest_entry_is_not_believed(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    at = written.path.read_bytes().find(b"cursor100")
    damage(written.path, at, b"cursor900")
    found = outcome(written.path)
    assert "900 entries were sent" in str(found.reason)
    assert found.told.lost_records == ("cursor",)
    assert found.lines().keys() == written.lines.keys()


# -- setting aside --------------------------------------------------------------------------------


def test_nothing_that_was_set_aside_is_overwritten(logged: Written, tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        written = logged.copied(tmp_path)
        names.append(set_aside(written.path).name)
    assert names == ["journal.damaged-1.db", "journal.damaged-2.db", "journal.damaged-3.db"]
    assert newest_set_aside(tmp_path / "journal.db") == tmp_path / "journal.damaged-3.db"
    assert log(tmp_path / "journal.damaged-3.db").exists()


def test_a_log_that_was_left_when_the_power_went_follows_its_file(logged: Written, tmp_path: Path) -> None:
    written = logged.copied(tmp_path)
    written.path.rename(tmp_path / "journal.damaged-1.db")
    (tmp_path / "journal.damaged-1.db-moving").touch()
    assert check(written.path) is not None
    assert set_aside(written.path) == tmp_path / "journal.damaged-1.db"
    assert sorted(name.name for name in tmp_path.iterdir()) == [
        "journal.damaged-1.db",
        "journal.damaged-1.db-wal",
    ]


def test_what_was_found_in_use_is_the_reason_at_the_next_boot(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    suspect(written.path, "entry 7 was changed")
    assert check(written.path) == "entry 7 was changed"
    set_aside(written.path)
    assert check(written.path) is None


def test_salvaging_twice_keeps_every_line_once(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "fresh.db")) as fresh:
        first, again = (salvage(written.path, fresh) for _ in range(2))
        assert first == again
        assert fresh.execute("SELECT count(*) FROM salvaged").fetchone() == (first.copied,)


# -- in use ---------------------------------------------------------------------------------------


def test_a_deep_check_finds_what_the_quick_one_does_not_read(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    with closing(sqlite3.connect(written.path)) as connection:
        assert [deep_check(connection, step) for step in range(3)] == [None] * 3
        connection.execute(
            "UPDATE entry SET line = CAST(replace(line, 'text', 'news') AS BLOB) WHERE sequence = 300"
        )
        assert deep_check(connection, 1) == "entries from 257 to 512 were changed"
        connection.execute("DELETE FROM entry WHERE sequence = 600")
        connection.execute("DELETE FROM entry WHERE sequence = 100")
        assert deep_check(connection, 0) == "entry 100 is missing"
        assert deep_check(connection, 2) is None  # Not signed for yet: the tile is not complete.


def test_a_deep_check_reports_a_page_that_cannot_be_read(plain: Written, tmp_path: Path) -> None:
    written = plain.copied(tmp_path / "copy")
    at, size = places(written.path)["a whole leaf"]
    damage(written.path, at, b"\xff" * size)
    assert check(written.path) is None
    with closing(sqlite3.connect(written.path)) as connection:
        found = [deep_check(connection, step) for step in range(3)]
    assert any(problem is not None and "malformed" in problem for problem in found)
