"""The verifier passes what is clean, and never passes what nobody vouches for."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.audit.verdict import Code, Verdict
from agent.clock import NS, Moment, Trust
from agent.journal import Journal
from agent.workflow import Draft
from tests.audits import audit, audit_file, found
from tests.journals import Made, Signer, entry, leaf, line, loss, root, roots, write_export, write_journal
from tests.site import LONG

SIZES = (1, 2, 63, 64, 65, 255, 256, 257, 511, 512, 513)
BIG = 1_000_000 if LONG else 200_000 if os.environ.get("CI") else 20_000


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write_journal(tmp_path / "journal.db", 600)


# -- the helper itself ----------------------------------------------------------------------------


def test_both_ways_to_grow_the_test_tree_agree() -> None:
    leaves = [leaf(line(n)) for n in range(1, 20)]
    assert roots(leaves, range(20)) == {size: root(leaves[:size]) for size in range(20)}


# -- clean journals -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_clean_journal_passes(tmp_path: Path, size: int) -> None:
    report = audit(write_journal(tmp_path / "journal.db", size))
    assert report.verdict is Verdict.PASS
    assert (report.size, report.lines, report.signed_to) == (size, size, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_clean_export_passes(tmp_path: Path, size: int) -> None:
    made = write_journal(tmp_path / "journal.db", size)
    report = audit_file(write_export(tmp_path / "export.ndjson", made), made.vkey)
    assert report.verdict is Verdict.PASS
    assert report.lines == size


def test_an_empty_journal_is_incomplete_because_nothing_is_signed(tmp_path: Path) -> None:
    report = audit(write_journal(tmp_path / "journal.db", 0))
    assert report.verdict is Verdict.INCOMPLETE
    assert report.incomplete == ("no checkpoint: nothing here is signed",)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_clean_journal_raises_an_alarm(tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 800))
    seen = data.draw(st.integers(0, size))
    most = min(seen, size // 256 * 256)
    pruned = data.draw(st.sets(st.integers(1, most))) if most else set[int]()
    signed = {*data.draw(st.sets(st.integers(1, size), max_size=20)), size}
    path = tmp_path / "journal.db"
    path.unlink(missing_ok=True)
    report = audit(write_journal(path, size, pruned=pruned, seen=seen, signed=signed))
    assert report.verdict is Verdict.PASS, report.as_text()
    assert (report.pruned, report.checkpoints) == (len(pruned), len(signed))


@pytest.mark.timeout(300)
def test_a_big_clean_journal_passes(tmp_path: Path) -> None:
    report = audit(write_journal(tmp_path / "journal.db", BIG))
    assert report.verdict is Verdict.PASS
    assert report.tiles == BIG // 256


def test_numbers_that_two_json_writers_write_differently_are_canonical(tmp_path: Path) -> None:
    data = {**entry(1)["data"], "tiny": 1e-07, "small": 1e-05, "huge": 1e22, "name": "Zoë \u2028 \x01"}
    report = audit(write_journal(tmp_path / "journal.db", lines=[line(1, data=data)]))
    assert report.verdict is Verdict.PASS


def test_a_log_beside_the_file_is_read_with_it(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300)
    held = sqlite3.connect(made.path)
    held.execute("INSERT INTO record VALUES ('written', x'31')")
    held.commit()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / f"killed-{name}")
    held.close()
    report = audit_file(tmp_path / "killed-journal.db", made.vkey)
    assert report.verdict is Verdict.PASS


def test_nothing_is_made_beside_a_file_that_was_closed_in_order(made: Made) -> None:
    before = sorted(made.path.parent.iterdir())
    audit(made)
    assert sorted(made.path.parent.iterdir()) == before


@pytest.mark.parametrize("previous", [{"epoch": "0123456789ab"}, None, "nonsense"])
def test_the_report_says_which_epoch_this_one_continues(tmp_path: Path, previous: object) -> None:
    opened = line(1, type="postern.journal.opened", data={**entry(1)["data"], "previous": previous})
    report = audit(write_journal(tmp_path / "journal.db", lines=[opened]))
    assert report.verdict is Verdict.PASS
    assert ("continues    epoch 0123456789ab" in report.as_text()) == isinstance(previous, dict)


async def test_what_an_agent_writes_passes(tmp_path: Path) -> None:
    secret = bytes(range(32))
    kept = Journal(tmp_path / "journal.db", source="/postern/acme/van-0042", key=secret)
    await kept.open()
    at = Moment("b1", 5 * NS, 1_795_507_200 * NS, Trust.NTP, 1e-05)
    for n in range(70):
        drafts = [Draft("custody.seen", f"s10:RB{n}GB", {"text": "Zoë\n\u2028"}) for _ in range(8)]
        await kept.append(drafts, at, {"position": None})
    origin = f"acme/van-0042/{kept.epoch}"
    await kept.close()
    report = audit_file(
        tmp_path / "journal.db", Signer(origin, Ed25519PrivateKey.from_private_bytes(secret)).vkey
    )
    assert report.verdict is Verdict.PASS, report.as_text()
    assert (report.size, report.tiles) == (kept.last, kept.last // 256)


# -- pruned lines ---------------------------------------------------------------------------------


def test_pruned_lines_with_their_hashes_pass_and_are_counted(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 600, pruned=range(1, 301), seen=320)
    report = audit(made)
    assert report.verdict is Verdict.PASS
    assert (report.lines, report.pruned) == (300, 300)


def test_a_pruned_line_without_its_hash_is_missing(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 600, pruned=[100], seen=320)
    made.change("UPDATE tile SET leaves=NULL WHERE number=0")
    assert found(audit(made)) == (Code.MISSING, 100, 100)


def test_a_line_gone_that_the_fleet_never_had_is_no_pass(tmp_path: Path) -> None:
    report = audit(write_journal(tmp_path / "journal.db", 600, pruned=[321, 500], seen=320))
    assert report.verdict is Verdict.INCOMPLETE
    assert "2 lines from 321 on are gone" in report.incomplete[0]


def test_lines_that_an_entry_declares_lost_may_be_gone(tmp_path: Path) -> None:
    lines = [*(line(n) for n in range(1, 600)), loss(600, (321, 321), (498, 502))]
    made = write_journal(tmp_path / "journal.db", lines=lines, pruned=[321, 500], seen=320)
    assert audit(made).verdict is Verdict.PASS


def test_an_export_with_pruned_ranges_and_the_fleets_receipt_passes(made: Made, tmp_path: Path) -> None:
    path = write_export(tmp_path / "export.ndjson", made, pruned=range(200, 300))
    report = audit_file(path, made.vkey, receipts=[made.receipt(600)], fleet=made.fleet)
    assert report.verdict is Verdict.PASS
    assert report.pruned == 100


# -- tails ----------------------------------------------------------------------------------------


def test_a_tail_after_the_last_checkpoint_is_incomplete(tmp_path: Path) -> None:
    report = audit(write_journal(tmp_path / "journal.db", 300, signed=range(64, 300, 64)))
    assert report.verdict is Verdict.INCOMPLETE
    assert report.incomplete == ("entries 257..300 come after the last checkpoint",)


def test_ten_entries_cut_after_the_cosigned_size_are_never_a_pass(tmp_path: Path) -> None:
    """The cut is covered up with the device's key: only the fleet's silence about the tail shows."""
    whole = write_journal(tmp_path / "whole.db", 300)
    receipt = whole.receipt(256)
    cut = write_journal(tmp_path / "cut.db", 290, device=whole.device)
    report = audit(cut, receipts=[receipt], fleet=whole.fleet)
    assert report.verdict is Verdict.INCOMPLETE
    assert report.incomplete == ("entries 257..290 are not vouched for by the fleet",)


def test_ten_entries_cut_with_their_checkpoint_are_never_a_pass(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300)
    made.change("DELETE FROM entry WHERE sequence > 290")
    made.change("DELETE FROM checkpoint WHERE size > 290")
    assert audit(made).verdict is Verdict.INCOMPLETE


def test_what_the_fleet_vouches_for_to_the_end_passes(made: Made) -> None:
    report = audit(made, receipts=[made.receipt(128), made.receipt(600)], fleet=made.fleet)
    assert report.verdict is Verdict.PASS
    assert report.cosigned_to == 600


def test_a_cosignature_among_the_devices_own_checkpoints_counts(made: Made) -> None:
    made.change("UPDATE checkpoint SET note=? WHERE size=600", made.receipt(600))
    assert audit(made, fleet=made.fleet).verdict is Verdict.PASS
