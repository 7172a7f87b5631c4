"""`postern fleet findings`, `devices` and `accounts` as they are typed: what they say and how they exit."""

import argparse
import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fleet.audit import Birth
from agent.fleet.command import add_commands
from agent.note import SignerKey
from tests.desk import NOW, Desk, Journal
from tests.test_collect import DEVICE

Said = pytest.CaptureFixture[str]


def fleet(*words: object) -> int:
    """Run `postern fleet` with these words and return its exit code."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    given = parser.parse_args(["fleet", *map(str, words)])
    code: int = given.run(given)
    return code


def objects(said: Said) -> list[dict[str, Any]]:
    return [json.loads(each) for each in said.readouterr().out.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def desk(path: Path) -> Iterator[Desk]:
    made = Desk(path)
    yield made
    made.store.close()


def test_what_is_open_is_listed_and_what_is_settled_on_request(desk: Desk, path: Path, capsys: Said) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.sent(*range(1, 60)), journal.noted())
    desk.take(now=NOW + 1000)
    assert fleet("findings", "--store", path, "--json") == 0
    (gap,) = objects(capsys)
    assert (gap["finding"], gap["device"], gap["settled"], gap["grave"]) == ("GAP", DEVICE, None, False)
    desk.take(journal.sent(*range(60, 65)), now=NOW + 2000)
    assert fleet("findings", "--store", path, "--json") == 0
    assert not objects(capsys)
    assert fleet("findings", "--store", path, "--json", "--all") == 0
    assert [each["settled"] for each in objects(capsys)] == [NOW + 2000]
    assert fleet("findings", "--store", path) == 0
    assert capsys.readouterr().err == "nothing open\n"


def test_a_grave_one_that_is_open_ends_with_3(desk: Desk, path: Path, capsys: Said) -> None:
    journal = Journal().grow(64)
    other = journal.copy(63).grow(1, subject="another")
    desk.take(journal.born(), journal.noted(), other.noted())
    assert fleet("findings", "--store", path) == 3
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NO", "FOUND", "SETTLED", "KIND", "DEVICE", "EPOCH", "WHAT"]
    assert row.split()[2:6] == ["open", "FORK", DEVICE, "e1"]
    assert fleet("findings", "--store", path, "--device", "van-0099") == 0


def test_devices_say_how_far_each_journal_is(desk: Desk, path: Path, capsys: Said) -> None:
    journal = Journal().grow(20, lane="telemetry").lose(5, 6).grow(10)
    desk.take(journal.born(), journal.sent(), journal.noted(21), journal.noted())
    journal.grow(9)
    desk.take(journal.sent(*range(32, 36)), journal.noted(), now=NOW + 60)
    assert fleet("devices", "--store", path, "--json") == 0
    (told,) = objects(capsys)
    assert told == {
        "device": DEVICE,
        "epoch": "e1",
        "signed": 40,
        "whole": 35,
        "agreed": 31,
        "accounted": 31,
        "receipt": 31,
        "declared": 2,
        "passed_over": 0,
        "contested": 0,
        "barred": False,
        "key": journal.signer.verifier.text,
        "trust": "first sight",
        "heard": NOW + 60,
    }
    assert fleet("devices", "--store", path) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:9] == [
        DEVICE, "e1", "40", "35", "31", "31", "2", "0", "0",
    ]  # fmt: skip


def test_a_device_that_is_trusted_and_was_never_heard_is_listed(desk: Desk, path: Path, capsys: Said) -> None:
    desk.auditor.trust(Journal().signer.verifier)
    assert fleet("devices", "--store", path, "--json") == 0
    (told,) = objects(capsys)
    assert (told["epoch"], told["signed"], told["trust"], told["heard"]) == ("", 0, "given", None)


def test_accounts_add_up_to_what_the_device_has_signed(desk: Desk, path: Path, capsys: Said) -> None:
    journal = Journal().grow(20, lane="telemetry").lose(5, 6).grow(10, lane="custody").drop_unwritten(7)
    desk.take(journal.born(), journal.sent(), journal.noted())
    assert fleet("accounts", "--store", path, "--json") == 0
    (told,) = objects(capsys)
    assert (told["produced"], told["accounted"], told["outstanding"]) == (32, 32, 0)
    assert {each["lane"]: (each["produced"], each["delivered"]) for each in told["lanes"]} == {
        "custody": (10, 10),
        "state": (2, 2),
        "telemetry": (20, 18),
    }
    journal.grow(5, lane="custody")
    desk.take(journal.noted())
    assert fleet("accounts", "--store", path) == 2
    assert capsys.readouterr().out.splitlines()[-1].split()[2:] == ["all", "37", "30", "2", "0", "7", "5"]


def test_a_file_that_is_not_there_is_not_made(path: Path, capsys: Said) -> None:
    assert fleet("devices", "--store", path) == 74
    assert "expected a fleet's file, got none" in capsys.readouterr().err
    assert not path.exists()


def test_at_a_terminal_it_is_a_table_that_no_device_can_steer(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = SignerKey("test/a\x7fb/e1", Journal().signer.private)
    desk.take(Birth(DEVICE, {"online": True, "epoch": "e1", "key": thief.verifier.text}))
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        fleet("findings", "--store", path)
        terminal.flush()
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "BAD_SIGNATURE" in shown
    assert "\x7f" not in shown


def test_a_grave_one_that_a_person_has_settled_stays_on_record_with_who_and_why(
    desk: Desk, path: Path, capsys: Said
) -> None:
    journal = Journal().grow(64)
    other = journal.copy(63).grow(1, subject="another")
    desk.take(journal.born(), journal.noted(), other.noted())
    why = ("--operator", "op-7", "--reason", "the van was cloned; it is in the lab")
    assert fleet("findings", "settle", 1, "--store", path, *why) == 0
    assert fleet("findings", "--store", path, "--json") == 0
    capsys.readouterr()
    assert fleet("findings", "--store", path, "--json", "--all") == 0
    (told,) = objects(capsys)
    assert (told["finding"], told["grave"], told["operator"]) == ("FORK", True, "op-7")
    assert told["reason"] == "the van was cloned; it is in the lab"
    assert told["settled"] > told["at"] or told["at"] == NOW
    assert fleet("findings", "--store", path, "--all") == 0
    assert "settled by op-7: the van was cloned" in capsys.readouterr().out
    # The same evidence once more opens nothing; the device is not cosigned either.
    desk.take(other.noted(), journal.noted())
    assert fleet("findings", "--store", path) == 0
    assert desk.store.ledgers(DEVICE)[0].barred


def test_new_evidence_opens_another(desk: Desk, path: Path) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.noted(), journal.copy(63).grow(1, subject="another").noted())
    assert fleet("findings", "settle", 1, "--store", path, "--reason", "known") == 0
    desk.take(journal.copy(63).grow(1, subject="a third").noted())
    assert fleet("findings", "--store", path) == 3


@pytest.mark.parametrize(
    ("number", "words", "code", "said"),
    [
        (9, ("--reason", "why"), 1, "expected the number of a finding, got 9"),
        (1, ("--reason", " "), 2, "expected an operator and a reason"),
    ],
)
def test_what_cannot_be_settled_is_told(
    desk: Desk, path: Path, capsys: Said, number: int, words: tuple[str, ...], code: int, said: str
) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.noted(), journal.copy(63).grow(1, subject="another").noted())
    assert fleet("findings", "settle", number, "--store", path, *words) == code
    assert said in capsys.readouterr().err
    assert fleet("findings", "--store", path) == 3


def test_one_is_settled_once(desk: Desk, path: Path, capsys: Said) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.noted(), journal.copy(63).grow(1, subject="another").noted())
    assert fleet("findings", "--store", path, "settle", 1, "--reason", "known", "--operator", "op-1") == 0
    assert fleet("findings", "settle", 1, "--store", path, "--reason", "again", "--operator", "op-2") == 1
    assert "was settled before" in capsys.readouterr().err
    (kept,) = desk.store.findings.all(settled=True)
    assert (kept.operator, kept.reason) == ("op-1", "known")


def test_without_a_file_it_is_a_mistake(capsys: Said) -> None:
    assert fleet("findings") == 2
    assert "expected --store, got none" in capsys.readouterr().err
