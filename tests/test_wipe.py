"""`postern wipe` and what is left of a device afterwards: the record, and nothing that opens a row."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.audit.verdict import Verdict
from agent.keystore import OPENING
from agent.ledger import leaf_hash
from tests.audits import audit_file
from tests.test_cli import Postern

DEVICE = "van-0042"
BADGE = b"0100a3e9ae"


@pytest.fixture
def postern(tmp_path: Path) -> Postern:
    made = Postern(tmp_path)
    add = ("roster", "add", "--config", made.config, "drv-7f3a91")
    assert made.run(*add, "badge", said=BADGE + b"\n")[0] == 0
    assert made.run(*add, "pin", said=b"84612075\n")[0] == 0
    return made


def wipe(postern: Postern, device: str = DEVICE) -> tuple[int, str, str]:
    return postern.run("wipe", "--config", postern.config, "--yes", device)


def entries(postern: Postern, room: str = "identity") -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        lines = [json.loads(line) for (line,) in store.execute("SELECT line FROM entry ORDER BY sequence")]
    return [line for line in lines if line["type"].startswith(f"postern.{room}.")]


def types(postern: Postern) -> list[str]:
    return [entry["type"].removeprefix("postern.identity.") for entry in entries(postern)]


def status(postern: Postern) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(postern.run("status", "--config", postern.config, "--json")[1])
    return said


def keys(postern: Postern) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (postern.state / "keys").iterdir()}


def rows(postern: Postern) -> int:
    with contextlib.closing(sqlite3.connect(postern.state / "roster.db")) as store:
        return int(store.execute("SELECT count(*) FROM sealed").fetchone()[0])


def test_a_running_agent_wipes_itself_says_so_and_goes_on_recording(postern: Postern) -> None:
    before = keys(postern)
    with postern.agent():
        code, out, err = wipe(postern)
        assert (code, err) == (0, "")
        assert out.startswith("van-0042 is wiped: 2 rows; keys: ")
        told = status(postern)
        assert (told["wiped_by"], told["keys"]) == ("operator", {"device": "file"})
        assert told["journal"]["last"] > 0
    assert types(postern) == ["wipe_begun", "wiped"]
    assert entries(postern, "agent")[-1]["type"] == "postern.agent.stopped"
    assert rows(postern) == 0
    assert set(keys(postern)) == {"device", "wiped"}
    image = b"".join(file.read_bytes() for file in postern.state.iterdir() if file.is_file())
    assert not [name for name in OPENING if name in before and before[name] in image]


def test_a_wiped_device_stays_wiped_over_a_restart(postern: Postern) -> None:
    with postern.agent():
        assert wipe(postern)[0] == 0
    with postern.agent():
        assert status(postern)["wiped_by"] == "operator"
    assert types(postern) == ["wipe_begun", "wiped"]
    code, _, err = postern.run(
        "roster", "add", "--config", postern.config, "drv-7f3a91", "badge", said=BADGE + b"\n"
    )
    assert code == 2
    assert "wiped; `postern enrol --renew` makes a new one" in err


def test_a_stopped_device_is_wiped_as_well(postern: Postern) -> None:
    assert wipe(postern)[0] == 0
    assert types(postern) == ["wipe_begun", "wiped"]
    assert rows(postern) == 0
    with postern.agent():
        assert status(postern)["wiped_by"] == "operator"


@pytest.mark.parametrize("typed", ["van-0043", "", "VAN-0042"])
def test_nothing_is_wiped_for_another_device(postern: Postern, typed: str) -> None:
    before = keys(postern)
    code, out, err = wipe(postern, typed)
    assert (code, out, err) == (2, "", f"nothing wiped: expected van-0042, got {typed!r}\n")
    assert keys(postern) == before
    assert rows(postern) == 2


def test_a_script_that_does_not_say_which_device_wipes_none(postern: Postern) -> None:
    assert postern.run("wipe", "--config", postern.config)[0] == 2
    assert rows(postern) == 2


def test_the_journal_verifies_before_and_after(postern: Postern) -> None:
    with postern.agent():
        key = status(postern)["key"]
    assert audit_file(postern.state / "journal.db", key).verdict is Verdict.PASS
    with postern.agent():
        wipe(postern)
    assert audit_file(postern.state / "journal.db", key).verdict is Verdict.PASS


def test_a_wipe_that_was_interrupted_is_finished_at_the_next_start(postern: Postern) -> None:
    """The intent is in the journal, and the power went before anything was erased."""
    with postern.agent():
        pass
    write_record(postern, "wiped", {"by": "tamper", "pepper": None, "done": False})
    with postern.agent():
        assert status(postern)["wiped_by"] == "tamper"
    assert types(postern) == ["wiped"]
    assert rows(postern) == 0


def test_a_wipe_that_no_journal_could_tell_of_is_told_of_later(postern: Postern) -> None:
    """Keys were erased while the journal had failed: the mark in the folder is what says so."""
    (postern.state / "keys" / "wiped").write_text("operator")
    with postern.agent():
        assert status(postern)["wiped_by"] == "operator"
    assert types(postern) == ["wipe_begun", "wiped"]
    assert rows(postern) == 0


def test_keys_from_a_copy_of_the_disk_are_erased_again(postern: Postern) -> None:
    before = keys(postern)
    with postern.agent():
        wipe(postern)
    (postern.state / "keys" / "wiped").unlink()
    for name, key in before.items():
        (postern.state / "keys" / name).write_bytes(key)
    with postern.agent():
        assert status(postern)["wiped_by"] == "operator"
    assert set(keys(postern)) == {"device", "wiped"}
    assert types(postern) == ["wipe_begun", "wiped", "wiped"]


def test_every_leaf_of_the_past_stays_where_it_was(postern: Postern) -> None:
    with postern.agent():
        pass
    before = leaves(postern)
    with postern.agent():
        wipe(postern)
    assert leaves(postern)[: len(before)] == before


def leaves(postern: Postern) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        return [leaf_hash(line) for (line,) in store.execute("SELECT line FROM entry ORDER BY sequence")]


def write_record(postern: Postern, key: str, value: object) -> None:
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        store.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (key, json.dumps(value).encode()))
        store.commit()


def test_a_journal_that_has_failed_does_not_keep_the_keys_alive(postern: Postern) -> None:
    with postern.agent():
        pass
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        store.execute("ALTER TABLE record ADD COLUMN more")
        store.execute("PRAGMA user_version=2")
        store.commit()
    code, out, err = wipe(postern)
    assert code == 74
    assert err.startswith("the keys are wiped, but the journal failed: ")
    assert "Flash may keep old copies" in out
    assert set(keys(postern)) == {"device", "wiped"}
