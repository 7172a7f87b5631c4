"""A journal that is damaged is set aside under another name, once and for good; one in use is looked over."""

import sqlite3
from contextlib import closing
from pathlib import Path

from agent.salvage import Salvage, check, deep_check, newest_set_aside, set_aside, suspect
from agent.soundness import TABLES
from agent.store import keep_salvaged
from tests import salvaging
from tests.salvaging import (
    damage,
    places,
)
from tests.wreck import Written, log

plain, logged = salvaging.plain, salvaging.logged


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
        fresh.execute(f"CREATE TABLE salvaged {TABLES['salvaged']}")
        told = []
        for _ in range(2):
            work = Salvage(written.path)
            for lines in work.lines():
                keep_salvaged(fresh, lines)
            told.append(work.result())
        assert told[0] == told[1]
        assert fresh.execute("SELECT count(*) FROM salvaged").fetchone() == (told[0].copied,)


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
