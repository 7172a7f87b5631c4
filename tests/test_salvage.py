"""Every way a journal can be damaged: it is set aside as it is, and what is lost is named exactly."""

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.salvage import NewerJournal, check
from tests import salvaging, wreck
from tests.salvaging import (
    ENTRIES,
    FRAME,
    PAGE,
    PLACES,
    REACHED,
    damage,
    holds,
    outcome,
    places,
    touching,
)
from tests.wreck import EPOCH, Written, log

plain, logged = salvaging.plain, salvaging.logged

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
