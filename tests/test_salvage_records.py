"""What was altered, pruned or counted in a damaged journal, and is not what it seems."""

import sqlite3
from contextlib import closing
from pathlib import Path

from agent.ledger import TILE, leaf_hash
from agent.soundness import schema
from agent.sqlite_file import File
from agent.sqlite_pages import walk
from tests import salvaging
from tests.salvaging import (
    PAGE,
    damage,
    numbers,
    outcome,
)
from tests.wreck import Written, log

plain, logged = salvaging.plain, salvaging.logged


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
