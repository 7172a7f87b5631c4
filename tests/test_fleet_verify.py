"""The fleet's file checked again: what was changed in it is found, and what is not vouched for is said."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fleet.audit import Auditor
from agent.fleet.store import Store
from tests.desk import FLEET, NOW
from tests.parcels import MORNING, Machine
from tests.test_fleet_books import Said, fleet, objects

KEY = ("--receipt-key", FLEET.verifier.text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def auditor(path: Path) -> Iterator[Auditor]:
    store = Store(path)
    yield Auditor(store, FLEET)
    store.close()


def machine(device: str = "van-0042", entries: int = 600) -> Machine:
    made = Machine(device)
    for number in range(entries):
        made.say("custody.seen", f"parcel-{number}", number, unit="belt")
    return made


def verify(path: Path, capsys: Said, *words: object) -> tuple[int, list[dict[str, Any]]]:
    code = fleet("verify", "--store", path, "--json", *words)
    return code, objects(capsys)


def test_what_nobody_has_touched_passes(auditor: Auditor, path: Path, capsys: Said) -> None:
    for device in ("van-0042", "van-0043"):
        auditor.take(machine(device).work(), NOW)
    code, found = verify(path, capsys, *KEY)
    assert (code, [each["verdict"] for each in found]) == (0, ["PASS", "PASS"])
    assert [(each["size"], each["tiles"], each["cosigned_to"]) for each in found] == [(600, 2, 600)] * 2
    assert fleet("verify", "--store", path, "--device", "van-0043") == 0
    said = capsys.readouterr()
    assert said.err == "1 journals: 1 PASS\nthe fleet's signatures were not checked: no --receipt-key\n"


HARM = [
    ("UPDATE entry SET line = CAST(replace(line, 'belt', 'gate') AS BLOB) WHERE sequence = 300", "LEAF"),
    ("UPDATE leaf SET hash = zeroblob(32) WHERE sequence = 300", "LEAF"),
    ("DELETE FROM entry WHERE sequence = 300; DELETE FROM leaf WHERE sequence = 300", "GAP"),
    ("UPDATE tile SET root = zeroblob(32) WHERE number = 1", "TILE"),
    ("DELETE FROM tile WHERE number = 0", "TILE"),
    ("UPDATE checkpoint SET note = CAST(replace(note, '600', '601') AS BLOB)", "SIGNATURE"),
    ("DELETE FROM checkpoint", "SIGNATURE"),
    ("UPDATE receipt SET note = CAST(replace(note, 'fleet-main', 'fleet-mean') AS BLOB)", "RECEIPT"),
    ("UPDATE receipt SET note = x'00'", "RECEIPT"),
    ("UPDATE ledger SET agreed = (SELECT agreed FROM ledger WHERE device = 'van-0001')", "TRUNCATED"),
    ("UPDATE ledger SET barred = 1", "FORK"),
    ("UPDATE device SET key = zeroblob(32)", "ORIGIN"),
]


@pytest.mark.parametrize(("harm", "code"), HARM, ids=[each for _, each in HARM])
def test_whatever_is_changed_in_the_file_fails_with_its_name(
    auditor: Auditor, path: Path, capsys: Said, harm: str, code: str
) -> None:
    auditor.take(machine("van-0001", 3).work(), NOW)
    auditor.take(machine().work(), NOW)
    auditor.store.close()
    with sqlite3.connect(path) as connection:
        connection.executescript(harm)
    connection.close()
    exit_code, found = verify(path, capsys, *KEY, "--device", "van-0042")
    assert (exit_code, found[0]["verdict"], found[0]["failure"]["code"]) == (1, "FAIL", code)


def test_a_receipt_of_a_stranger_fails(auditor: Auditor, path: Path, capsys: Said) -> None:
    auditor.take(machine().work(), NOW)
    code, found = verify(path, capsys, "--receipt-key", Machine("van-0009").signer.verifier.text)
    assert (code, found[0]["failure"]["code"]) == (1, "RECEIPT")


def test_what_is_not_vouched_for_yet_is_incomplete(auditor: Auditor, path: Path, capsys: Said) -> None:
    made = machine()
    auditor.take(made.work(512), NOW)
    code, found = verify(path, capsys, *KEY)
    assert (code, found[0]["verdict"]) == (2, "INCOMPLETE")
    assert found[0]["incomplete"] == ["entries 513..600 are not vouched for yet"]
    assert found[0]["signed_to"] == 512


def test_entries_that_were_signed_and_have_not_come_are_incomplete(
    auditor: Auditor, path: Path, capsys: Said
) -> None:
    made = machine(entries=100)
    born, entries, noted = made.work()
    auditor.take([born, noted], NOW)
    code, found = verify(path, capsys)
    assert (code, found[0]["verdict"]) == (2, "INCOMPLETE")
    assert "100 of the 100 entries signed are not here" in found[0]["incomplete"]
    auditor.take([entries], NOW)
    assert verify(path, capsys, *KEY)[0] == 0


def test_a_device_that_has_signed_two_histories_fails(auditor: Auditor, path: Path, capsys: Said) -> None:
    made = machine(entries=64)
    auditor.take(made.work(), NOW)
    made.lines[-1] = made.lines[-1].replace(b"parcel-63", b"parcel-XX")
    auditor.take(made.work()[2:], MORNING)
    code, found = verify(path, capsys, *KEY)
    assert (code, found[0]["failure"]["code"]) == (1, "FORK")


def test_a_file_without_a_journal_says_so(auditor: Auditor, path: Path, capsys: Said) -> None:
    assert fleet("verify", "--store", path) == 2
    assert "nothing to check" in capsys.readouterr().err
    assert fleet("verify", "--store", path.with_name("none.db")) == 74
