"""`postern journal` as it is typed: what it says, what it writes, and how it exits."""

import argparse
import asyncio
import json
import os
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agent.audit.command import add_commands
from agent.audit.export import as_epcis
from agent.audit.inspect import Filter
from agent.audit.reader import open_archive
from agent.audit.replay import Sent, replay
from agent.batch import pack
from agent.fleet.collect import unpack
from agent.fleet.device_log import DeviceLog, New
from simulators.broker import Broker
from tests.brokers import BROKERS, PATIENCE, broker_of, connected, server
from tests.journals import (
    ORIGIN,
    Made,
    Signer,
    entry,
    leaf,
    line,
    parcel,
    write_export,
    write_journal,
)

SCHEMA = Path(__file__).parents[2] / "shared" / "schemas" / "epcis-2.0.json"
TOPIC = "postern/v1/van-0042/up/entries"


def journal(*words: object) -> int:
    """Run `postern journal` with these words and return its exit code."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    given = parser.parse_args(["journal", *map(str, words)])
    code: int = given.run(given)
    return code


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write_journal(tmp_path / "journal.db", 300)


Said = pytest.CaptureFixture[str]


# -- verify ---------------------------------------------------------------------------------------


def test_a_clean_journal_exits_with_0_and_says_pass(made: Made, capsys: Said) -> None:
    assert journal("verify", made.path, "--key", made.vkey) == 0
    assert capsys.readouterr().out.startswith(f"PASS {ORIGIN}\n")


def test_a_broken_journal_exits_with_1_and_says_what_and_where(made: Made, capsys: Said) -> None:
    made.change("DELETE FROM entry WHERE sequence=7")
    assert journal("verify", made.path, "--key", made.vkey) == 1
    assert capsys.readouterr().out.startswith("FAIL GAP at 7: ")


def test_an_unproven_tail_exits_with_2_and_never_says_pass(made: Made, capsys: Said) -> None:
    made.change("DELETE FROM checkpoint WHERE size=300")
    assert journal("verify", made.path, "--key", made.vkey) == 2
    out = capsys.readouterr().out
    assert out.startswith(f"INCOMPLETE {ORIGIN}\n")
    assert "PASS" not in out


def test_the_report_as_json_has_verdict_code_and_place(made: Made, capsys: Said) -> None:
    made.change("UPDATE entry SET line=? WHERE sequence=70", line(70, subject="s10:RB1GB"))
    assert journal("verify", made.path, "--key", made.vkey, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "FAIL"
    assert (report["failure"]["code"], report["failure"]["first"], report["failure"]["last"]) == (
        "ROOT",
        65,
        128,
    )


def test_receipts_are_read_from_files(made: Made, tmp_path: Path, capsys: Said) -> None:
    note = tmp_path / "receipt"
    note.write_bytes(made.receipt(300))
    words = ("verify", made.path, "--key", made.vkey, "--receipt-key", made.fleet.vkey, "--receipt", note)
    assert journal(*words) == 0
    assert "vouches up to 300" in capsys.readouterr().out


def test_receipts_without_a_key_to_open_them_are_a_mistake(made: Made, tmp_path: Path, capsys: Said) -> None:
    assert journal("verify", made.path, "--key", made.vkey, "--receipt", tmp_path / "receipt") == 2
    assert "--receipt-key" in capsys.readouterr().err


def test_a_journal_that_an_agent_holds_is_left_alone(made: Made, capsys: Said) -> None:
    agent = sqlite3.connect(made.path, isolation_level=None)
    agent.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    agent.execute("INSERT INTO record VALUES ('written', x'31')")
    try:
        assert journal("verify", made.path, "--key", made.vkey) == 75
        assert "stop the agent, or audit an export or a copy" in capsys.readouterr().err
    finally:
        agent.close()


def test_a_damaged_file_fails_and_is_never_passed(made: Made, capsys: Said) -> None:
    with made.path.open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        file.write(bytes(8192))
    assert journal("verify", made.path, "--key", made.vkey) == 1
    assert capsys.readouterr().out.startswith("FAIL ")


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b'{"postern_export":2}\n', b"SQLite format 3\x00", b"\xff" * 50]
)
def test_what_is_no_journal_fails(tmp_path: Path, content: bytes, capsys: Said) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    assert journal("verify", path, "--key", Signer(ORIGIN).vkey) == 1
    assert capsys.readouterr().out.startswith("FAIL UNREADABLE")


@pytest.mark.parametrize("key", ["", "a+b", "acme+00000000+AAAA"])
def test_a_key_that_is_none_is_a_mistake(made: Made, key: str, capsys: Said) -> None:
    assert journal("verify", made.path, "--key", key) == 2
    assert "expected" in capsys.readouterr().err


def test_a_key_that_names_no_epoch_is_a_mistake(made: Made, capsys: Said) -> None:
    assert journal("verify", made.path, "--key", Signer("acme/van-0042", made.device.key).vkey) == 2
    assert "<tenant>/<device>/<epoch>" in capsys.readouterr().err


def test_exit_codes_are_told_by_help(capsys: Said) -> None:
    with pytest.raises(SystemExit):
        journal("verify", "--help")
    assert "2   INCOMPLETE" in capsys.readouterr().out


# -- inspect --------------------------------------------------------------------------------------


def test_entries_are_listed_with_the_newest_at_the_bottom(made: Made, capsys: Said) -> None:
    assert journal("inspect", made.path, "--last", 2) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [each.split()[0] for each in rows] == ["SEQ", "299", "300"]


def test_a_table_says_when_it_does_not_show_all(made: Made, capsys: Said) -> None:
    journal("inspect", made.path)
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 101
    assert "--last 0 shows all" in told.err


def test_entries_come_as_json_one_a_line_and_all_of_them(made: Made, capsys: Said) -> None:
    assert journal("inspect", made.path, "--json") == 0
    assert capsys.readouterr().out.encode() == b"".join(each + b"\n" for each in made.lines)


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--last", "-1")])
def test_a_mistake_in_a_filter_is_told(made: Made, words: tuple[str, str], capsys: Said) -> None:
    assert journal("inspect", made.path, *words) == 2
    assert words[1] in capsys.readouterr().err


# -- prove ----------------------------------------------------------------------------------------


def test_a_proof_is_written_and_a_stranger_reads_custody_from_it(
    made: Made, tmp_path: Path, capsys: Said
) -> None:
    proof = tmp_path / "proof.json"
    assert journal("prove", made.path, parcel(3), "--out", proof) == 0
    assert journal("check-proof", proof, "--key", made.vkey) == 0
    out = capsys.readouterr().out
    assert "entry 3: PASS\nentry 10: PASS\n" in out
    assert "2026-11-24T00:00:03Z  custody.accepted" in out


def test_a_forged_proof_fails_and_its_entry_is_not_told(made: Made, tmp_path: Path, capsys: Said) -> None:
    proof = tmp_path / "proof.json"
    journal("prove", made.path, parcel(3), "--out", proof)
    proof.write_text(proof.read_text().replace("drv-1", "drv-7", 1))
    assert journal("check-proof", proof, "--key", made.vkey, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "FAIL"
    assert [(each["code"], each["entry"]) for each in told["entries"] if each["code"]] == [("ROOT", None)]


def test_a_proof_that_lacks_the_newest_entries_is_incomplete(tmp_path: Path, capsys: Said) -> None:
    made = write_journal(tmp_path / "journal.db", 300, signed=[256])
    assert journal("prove", made.path, parcel(3)) == 2
    assert "too new" in capsys.readouterr().err


def test_a_parcel_that_was_never_here_has_no_proof(made: Made, capsys: Said) -> None:
    assert journal("prove", made.path, "s10:RB1GB") == 1
    assert "expected entries with this subject, got none" in capsys.readouterr().err


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 256, 257, 600])
def test_an_export_is_the_agreed_bytes(tmp_path: Path, size: int) -> None:
    made = write_journal(tmp_path / "journal.db", size)
    assert journal("export", made.path, "-o", tmp_path / "export.ndjson") == 0
    expected = write_export(tmp_path / "expected.ndjson", made)
    assert (tmp_path / "export.ndjson").read_bytes() == expected.read_bytes()


def test_an_export_of_an_empty_journal_is_incomplete(tmp_path: Path, capsys: Said) -> None:
    made = write_journal(tmp_path / "journal.db", 0)
    journal("export", made.path, "-o", tmp_path / "export.ndjson")
    assert journal("verify", tmp_path / "export.ndjson", "--key", made.vkey) == 2
    assert "nothing here is signed" in capsys.readouterr().out


def test_an_export_of_a_pruned_journal_says_what_the_journal_said(tmp_path: Path, capsys: Said) -> None:
    made = write_journal(tmp_path / "journal.db", 600, pruned=[*range(1, 200), 300, 302], seen=600)
    note = tmp_path / "receipt"
    note.write_bytes(made.receipt(600))
    journal("export", made.path, "-o", tmp_path / "export.ndjson")
    fleet = ("--receipt-key", made.fleet.vkey, "--receipt", note)
    assert journal("verify", tmp_path / "export.ndjson", "--key", made.vkey, *fleet) == 0
    assert "600, of which 201 pruned" in capsys.readouterr().out


def test_an_export_of_one_parcel_still_verifies(made: Made, tmp_path: Path) -> None:
    path, note = tmp_path / "export.ndjson", tmp_path / "receipt"
    note.write_bytes(made.receipt(300))
    journal("export", made.path, "--parcel", parcel(3), "-o", path)
    assert path.read_bytes().count(b'"specversion"') == 43
    fleet = ("--receipt-key", made.fleet.vkey, "--receipt", note)
    assert journal("verify", path, "--key", made.vkey, *fleet) == 0
    assert journal("verify", path, "--key", made.vkey) == 2, "who says that the rest was not just deleted?"


def test_an_export_of_a_broken_journal_is_as_broken(made: Made, tmp_path: Path, capsys: Said) -> None:
    made.change("DELETE FROM entry WHERE sequence=7")
    assert journal("export", made.path, "-o", tmp_path / "export.ndjson") == 0
    assert journal("verify", tmp_path / "export.ndjson", "--key", made.vkey) == 1
    assert "FAIL GAP at 7" in capsys.readouterr().out


def test_custody_is_exported_as_valid_epcis(made: Made, tmp_path: Path) -> None:
    if not SCHEMA.exists():
        missing = f"{SCHEMA.name}: expected GS1's schema in shared/schemas beside the checkout, got no file"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    out = tmp_path / "custody.jsonld"
    assert journal("export", made.path, "--format", "epcis", "--parcel", parcel(3), "-o", out) == 0
    document = json.loads(out.read_text())
    import_module("jsonschema").Draft7Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert len(document["epcisBody"]["eventList"]) == 43


def test_events_have_corrected_times_and_corrected_entries_are_found(tmp_path: Path) -> None:
    clock = {**entry(2)["data"], "epoch_ns": 0}
    correction = {**entry(3)["data"], "corrects": entry(1)["id"], "reason": "did_not_occur"}
    lines = [
        line(1),
        line(2, type="postern.clock.corrected", subject="van-0042", data=clock),
        line(3, type="postern.custody.corrected", subject=parcel(1), data=correction),
    ]
    made = write_journal(tmp_path / "journal.db", lines=lines)
    with open_archive(made.path) as archive:
        found = as_epcis(archive, Filter(type="custody.corrected"), "2026-11-24T09:00:00Z")
    (event,) = found["epcisBody"]["eventList"]
    assert event["eventTime"] == "1970-01-01T00:00:01.000000Z"
    assert "errorDeclaration" in event


# -- replay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKERS)
async def test_entries_arrive_at_another_broker_as_a_device_sends_them(
    name: str, made: Made, tmp_path: Path
) -> None:
    sent, log = Sent(to=40), DeviceLog("van-0042")
    async with broker_of(name, tmp_path) as broker, connected(broker.port, "fleet") as fleet:
        await fleet.subscribe("postern/v1/+/up/entries")
        with open_archive(made.path) as archive:
            await replay(archive, server(broker.port, "replay"), TOPIC, sent)
        assert (sent.to, sent.entries, sent.problem) == (300, 260, None)
        await _take(fleet, log, 260)
    assert log.summary()["missing"] == 0
    assert log.highest == 300


async def _take(fleet: Any, log: DeviceLog, entries: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while log.entries < entries:
            message = await fleet.receive()
            for each in unpack(message.payload, message.properties.get("content-encoding")):
                assert isinstance(log.take(each), New)
            fleet.acknowledge(message)


async def test_a_refused_replay_says_from_where_to_go_on(made: Made) -> None:
    async with Broker() as broker:
        broker.puback_reason = 0x97
        sent = Sent(to=100)
        with open_archive(made.path) as archive:
            await replay(archive, server(broker.port), TOPIC, sent)
    assert sent.to == 100
    assert sent.problem is not None
    assert "0x97" in sent.problem


async def test_batches_never_span_pruned_entries(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300, pruned=range(50, 60), seen=256)
    log = DeviceLog("van-0042")
    async with Broker() as broker, connected(broker.port, "fleet") as fleet:
        await fleet.subscribe(TOPIC)
        with open_archive(made.path) as archive:
            await replay(archive, server(broker.port, "replay"), TOPIC, Sent(to=0))
        await _take(fleet, log, 290)
    assert [(first, last) for _, first, last in log.gaps] == [(50, 59)]


def test_a_broker_that_is_not_there_is_told(made: Made, capsys: Said) -> None:
    assert journal("replay", made.path, "--host", "127.0.0.1", "--port", "1", "--plain") == 1
    err = capsys.readouterr().err
    assert f"0 entries sent to {TOPIC}" in err
    assert "go on with --after 0" in err


def test_the_uplinks_own_packing_is_used() -> None:
    assert import_module("agent.audit.replay").pack is pack


# -- key ------------------------------------------------------------------------------------------


def test_the_key_of_the_device_is_told_for_its_journal(made: Made, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "device").write_bytes(made.device.key.private_bytes_raw())
    assert journal("key", tmp_path) == 0
    assert capsys.readouterr().out == made.vkey + "\n"
    assert journal("key", tmp_path, "--origin", "acme/van-0042/000000000000") == 0
    assert capsys.readouterr().out.startswith("acme/van-0042/000000000000+")


def test_a_key_is_never_made_by_asking_for_it(tmp_path: Path, capsys: Said) -> None:
    assert journal("key", tmp_path) == 1
    assert not list(tmp_path.iterdir())
    assert "No such file" in capsys.readouterr().err


def test_the_test_writer_hashes_as_the_standard_says() -> None:
    assert leaf(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
