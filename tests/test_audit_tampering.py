"""Whatever is done to a journal is found, named and located: the threats of an insider with root."""

import json
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.audit.verdict import Code, Verdict
from tests.audits import audit, audit_file, found
from tests.journals import (
    EPOCH,
    FLEET,
    ORIGIN,
    Made,
    Signer,
    leaf,
    line,
    note,
    root,
    write_export,
    write_journal,
    written,
)

SHORT_HASH = b'{"leaves":{"from":300,"hashes":["AA=="]}}\n'

Tamper = Callable[[Made], None]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write_journal(tmp_path / "journal.db", 600)


# -- tampering ------------------------------------------------------------------------------------


def edit(sequence: int) -> Tamper:
    changed = line(sequence, subject="s10:RB999999999GB")
    return lambda made: made.change("UPDATE entry SET line=? WHERE sequence=?", changed, sequence)


def delete(sequence: int) -> Tamper:
    return lambda made: made.change("DELETE FROM entry WHERE sequence=?", sequence)


def swap(first: int, second: int) -> Tamper:
    def tamper(made: Made) -> None:
        for at, other in ((first, second), (second, first)):
            made.change("UPDATE entry SET line=? WHERE sequence=?", made.lines[other - 1], at)

    return tamper


def insert_before(sequence: int) -> Tamper:
    def tamper(made: Made) -> None:
        made.change("UPDATE entry SET sequence=-sequence WHERE sequence >= ?", sequence)
        made.change("UPDATE entry SET sequence=1-sequence WHERE sequence < 0")
        made.change("INSERT INTO entry VALUES (?, 0, ?)", sequence, line(sequence, subject="s10:RB1GB"))

    return tamper


def shift_down(sequence: int) -> Tamper:
    """Delete one, and let the rest take the places before them."""

    def tamper(made: Made) -> None:
        delete(sequence)(made)
        made.change("UPDATE entry SET sequence=-sequence WHERE sequence > ?", sequence)
        made.change("UPDATE entry SET sequence=-sequence-1 WHERE sequence < 0")

    return tamper


def edit_with_its_tile(made: Made) -> None:
    edit(300)(made)
    leaves = [leaf(each) for each in made.lines[256:512]]
    leaves[300 - 257] = leaf(line(300, subject="s10:RB999999999GB"))
    made.change("UPDATE tile SET root=? WHERE number=1", root(leaves))


def cut_after(sequence: int) -> Tamper:
    return lambda made: made.change("DELETE FROM entry WHERE sequence > ?", sequence)


def forked_checkpoint(made: Made) -> None:
    """The device's key signs another tree of 320 entries."""
    made.change("UPDATE checkpoint SET note=? WHERE size=320", note(320, bytes(32), made.device))


def unsigned(made: Made) -> None:
    whole = note(320, root([leaf(each) for each in made.lines[:320]]), made.device)
    text = whole.partition(b"\n\n")[0] + b"\n\n"
    made.change("UPDATE checkpoint SET note=? WHERE size=320", text)


def signed_by_another(made: Made) -> None:
    raw = note(320, root([leaf(each) for each in made.lines[:320]]), Signer("somebody/else/000000000000"))
    made.change("UPDATE checkpoint SET note=? WHERE size=320", raw)


def checkpoint_of_another_epoch(made: Made) -> None:
    origin = "acme/van-0042/000000000000"
    raw = note(320, bytes(32), Signer(origin, made.device.key), origin=origin)
    made.change("UPDATE checkpoint SET note=? WHERE size=320", raw)


def misfiled_checkpoint(made: Made) -> None:
    made.change("DELETE FROM checkpoint WHERE size=320")
    made.change("UPDATE checkpoint SET size=320 WHERE size=256")


def line_of(sequence: int, raw: bytes) -> Tamper:
    return lambda made: made.change("UPDATE entry SET line=? WHERE sequence=?", raw, sequence)


@pytest.mark.parametrize(
    ("tamper", "code", "first", "last"),
    [
        (edit(300), Code.ROOT, 257, 320),
        (edit(1), Code.ROOT, 1, 64),
        (edit(600), Code.ROOT, 577, 600),
        (edit_with_its_tile, Code.ROOT, 257, 320),
        (delete(300), Code.GAP, 300, 300),
        (delete(1), Code.GAP, 1, 1),
        (delete(600), Code.TRUNCATED, 600, 600),
        (cut_after(590), Code.TRUNCATED, 591, 600),
        (cut_after(500), Code.TRUNCATED, 501, 512),
        (swap(300, 301), Code.IDENTITY, 300, 300),
        (swap(10, 590), Code.IDENTITY, 10, 10),
        (insert_before(300), Code.IDENTITY, 301, 301),
        (shift_down(300), Code.IDENTITY, 300, 300),
        (forked_checkpoint, Code.FORK, 257, 320),
        (unsigned, Code.SIGNATURE, 320, 320),
        (signed_by_another, Code.SIGNATURE, 320, 320),
        (checkpoint_of_another_epoch, Code.ORIGIN, 320, 320),
        (misfiled_checkpoint, Code.MALFORMED, 320, 320),
        (line_of(300, line(300, id=f"{EPOCH}-301")), Code.IDENTITY, 300, 300),
        (line_of(300, line(300, id="000000000000-300")), Code.IDENTITY, 300, 300),
        (line_of(300, line(300, source="/postern/acme/van-0043")), Code.IDENTITY, 300, 300),
        (line_of(300, line(300, sequence="0300")), Code.IDENTITY, 300, 300),
        (line_of(300, line(300, specversion="0.3")), Code.MALFORMED, 300, 300),
        (line_of(300, line(300, time="yesterday")), Code.MALFORMED, 300, 300),
        (line_of(300, line(300).replace(b",", b", ", 1)), Code.MALFORMED, 300, 300),
        (line_of(300, line(300)[:-1] + b',"type":"postern.x"}'), Code.MALFORMED, 300, 300),
        (line_of(300, b""), Code.MALFORMED, 300, 300),
        (line_of(300, b"[" * 100_000), Code.MALFORMED, 300, 300),
        (line_of(300, written([])), Code.MALFORMED, 300, 300),
        (
            lambda made: made.change("UPDATE tile SET root=? WHERE number=1", bytes(32)),
            Code.TILE,
            257,
            512,
        ),
        (lambda made: made.change("DELETE FROM tile WHERE number=0"), Code.TILE, 1, 256),
    ],
)
def test_tampering_is_found_named_and_located(
    made: Made, tamper: Tamper, code: Code, first: int, last: int
) -> None:
    tamper(made)
    assert found(audit(made)) == (code, first, last)


def test_without_a_checkpoint_in_between_an_edit_is_located_to_its_tile(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 1000, signed=[1000])
    edit(700)(made)
    assert found(audit(made)) == (Code.TILE, 513, 768)


def test_an_edited_line_beside_a_pruned_one_is_located_exactly(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 600, pruned=[260], seen=320)
    edit(300)(made)
    assert found(audit(made)) == (Code.LEAF, 300, 300)


def test_a_hash_that_stands_for_a_pruned_line_cannot_be_changed(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 600, pruned=[260], seen=320)
    leaves = [leaf(each) for each in made.lines[256:512]]
    leaves[3] = bytes(32)
    made.change("UPDATE tile SET leaves=? WHERE number=1", b"".join(leaves))
    assert found(audit(made)) == (Code.ROOT, 257, 320)


def test_truncated_and_continued_with_the_devices_key_is_two_histories(made: Made) -> None:
    """An old checkpoint that was left in place gives it away."""
    lines = [*made.lines[:400], *(line(n, subject="s10:RB1GB") for n in range(401, 601))]
    old = {size: root([leaf(each) for each in made.lines[:size]]) for size in (448,)}
    other = write_journal(made.path.with_name("other.db"), lines=lines, device=made.device)
    other.change("UPDATE checkpoint SET note=? WHERE size=448", note(448, old[448], made.device))
    assert found(audit(other)) == (Code.FORK, 385, 448)


# -- what only the fleet's receipts show ----------------------------------------------------------


def signed_anew(made: Made, lines: list[bytes]) -> Made:
    """The whole file again, with the device's own key."""
    return write_journal(made.path.with_name("anew.db"), lines=lines, device=made.device)


@pytest.mark.parametrize("edited", [1, 300, 512])
def test_a_history_signed_anew_with_the_devices_key_is_caught_by_a_receipt(made: Made, edited: int) -> None:
    lines = list(made.lines)
    lines[edited - 1] = line(edited, subject="s10:RB999999999GB")
    anew = signed_anew(made, lines)
    assert audit(anew).verdict is Verdict.PASS, "nothing in the file gives it away"
    assert found(audit(anew, receipts=[made.receipt(512)], fleet=made.fleet)) == (Code.REWRITTEN, 1, 512)


def resequenced(lines: Sequence[bytes]) -> list[bytes]:
    """Each line under the number of the place where it is now."""
    entries = (json.loads(each) for each in lines)
    return [
        line(n, subject=each["subject"], time=each["time"], data=each["data"])
        for n, each in enumerate(entries, 1)
    ]


@pytest.mark.parametrize(
    ("changed", "last"),
    [
        (lambda lines: [*lines[:299], *lines[300:]], 599),
        (lambda lines: [*lines[:299], line(300, subject="s10:RB999999999GB"), *lines[299:]], 601),
        (lambda lines: [*lines[:299], lines[300], lines[299], *lines[301:]], 600),
        (lambda lines: [*lines[:299], *reversed(lines[299:400]), *lines[400:]], 600),
    ],
    ids=["deleted", "inserted", "swapped", "reordered"],
)
def test_whatever_was_done_before_all_was_signed_anew_is_located_by_receipts(
    made: Made, changed: Callable[[list[bytes]], list[bytes]], last: int
) -> None:
    anew = signed_anew(made, resequenced(changed(list(made.lines))))
    assert audit(anew).verdict is Verdict.PASS, "nothing in the file gives it away"
    receipts = [made.receipt(256), made.receipt(320), made.receipt(min(last, 600))]
    assert found(audit(anew, receipts=receipts, fleet=made.fleet)) == (Code.REWRITTEN, 257, 320)


@pytest.mark.parametrize("cosigned", [600, 592, 591])
def test_ten_entries_cut_that_the_fleet_has_cosigned_are_missed(made: Made, cosigned: int) -> None:
    cut = signed_anew(made, made.lines[:590])
    report = audit(cut, receipts=[made.receipt(512), made.receipt(cosigned)], fleet=made.fleet)
    assert found(report) == (Code.ROLLBACK, 591, cosigned)


def test_receipts_locate_where_a_history_was_signed_anew(made: Made) -> None:
    lines = list(made.lines)
    lines[299] = line(300, subject="s10:RB999999999GB")
    receipts = [made.receipt(size) for size in (600, 256, 320)]
    report = audit(signed_anew(made, lines), receipts=receipts, fleet=made.fleet)
    assert found(report) == (Code.REWRITTEN, 257, 320)


def test_a_device_set_back_to_an_older_image_is_caught_by_a_receipt(made: Made) -> None:
    older = signed_anew(made, made.lines[:500])
    report = audit(older, receipts=[made.receipt(600)], fleet=made.fleet)
    assert found(report) == (Code.ROLLBACK, 501, 600)


def test_what_the_file_says_that_the_fleet_has_seen_is_held_against_it(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300, seen=256)
    made.change("UPDATE record SET value=? WHERE key='receipt'", _record(400, bytes(32)))
    assert found(audit(made)) == (Code.ROLLBACK, 301, 400)
    made.change("UPDATE record SET value=? WHERE key='receipt'", _record(256, bytes(32)))
    assert found(audit(made)) == (Code.REWRITTEN, 1, 256)


def _record(size: int, root: bytes) -> bytes:
    return written({"size": size, "root": b64encode(root).decode()})


def test_a_receipt_that_no_key_of_the_fleet_signed_is_refused(made: Made) -> None:
    report = audit(made, receipts=[made.receipt(600)], fleet=Signer("another.example/receipts"))
    assert found(report)[0] is Code.RECEIPT


def test_a_receipt_with_a_bad_cosignature_is_refused(made: Made) -> None:
    report = audit(made, receipts=[made.receipt(600)], fleet=Signer(FLEET))
    assert found(report)[0] is Code.RECEIPT
    good = made.receipt(600)
    spoiled = good.replace(good[-12:-10], b"AA" if good[-12:-10] != b"AA" else b"BB")
    assert found(audit(made, receipts=[spoiled], fleet=made.fleet))[0] is Code.SIGNATURE


def test_a_receipt_of_another_journal_is_refused(made: Made) -> None:
    other = "acme/van-0042/000000000000"
    raw = note(64, bytes(32), Signer(other, made.device.key), made.fleet, origin=other)
    assert found(audit(made, receipts=[raw], fleet=made.fleet))[0] is Code.ORIGIN


# -- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["acme/van-0043/5f1e0c9a77b2", "acme/van-0042/000000000000", ORIGIN])
def test_another_key_or_name_than_the_journals_is_refused(made: Made, name: str) -> None:
    key = made.device.key if name != ORIGIN else Signer(ORIGIN).key
    assert found(audit_file(made.path, Signer(name, key).vkey))[0] is Code.ORIGIN


def test_a_key_that_names_no_epoch_is_a_mistake(made: Made) -> None:
    with pytest.raises(ValueError, match="expected a key named <tenant>/<device>/<epoch>, got acme"):
        audit_file(made.path, Signer("acme/van-0042", made.device.key).vkey)


# -- exports --------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[list[bytes]], None]) -> Path:
    told = path.read_bytes().splitlines(keepends=True)
    change(told)
    path.write_bytes(b"".join(told))
    return path


def _swap_lines(told: list[bytes]) -> None:
    told[300], told[301] = told[301], told[300]


@pytest.mark.parametrize(
    ("change", "code", "first", "last"),
    [
        (lambda told: told.__delitem__(300), Code.GAP, 300, 300),
        (lambda told: told.__delitem__(slice(1, 4)), Code.GAP, 1, 3),
        (lambda told: told.insert(300, told[300]), Code.DUPLICATE, 300, 300),
        (_swap_lines, Code.GAP, 300, 300),
        (lambda told: told.__setitem__(300, line(300, subject="s10:RB1GB") + b"\n"), Code.ROOT, 257, 320),
        (lambda told: told.__delitem__(slice(591, 601)), Code.TRUNCATED, 591, 600),
        (lambda told: told.insert(300, b"{}\n"), Code.MALFORMED, 300, 300),
        (lambda told: told.insert(300, SHORT_HASH), Code.MALFORMED, 300, 300),
        (lambda told: told.append(told[-2]), Code.MALFORMED, 576, 576),
        (lambda told: told.append(b'{"checkpoint":7}\n'), Code.MALFORMED, None, None),
    ],
)
def test_tampering_with_an_export_is_found_named_and_located(
    made: Made, change: Callable[[list[bytes]], None], code: Code, first: int | None, last: int | None
) -> None:
    path = rewrite(write_export(made.path.with_name("export.ndjson"), made), change)
    assert found(audit_file(path, made.vkey)) == (code, first, last)


def test_two_checkpoints_of_one_size_are_two_histories(made: Made) -> None:
    forked = written({"checkpoint": note(600, bytes(32), made.device).decode()}) + b"\n"
    path = rewrite(write_export(made.path.with_name("export.ndjson"), made), lambda told: told.append(forked))
    assert found(audit_file(path, made.vkey)) == (Code.FORK, 600, 600)


# -- any byte -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_journal(tmp_path_factory.mktemp("pristine") / "journal.db", 520, pruned=[3, 9], seen=64)


def columns(path: Path) -> Collection[tuple[str, str, int]]:
    """Every stored value of which each byte counts: table and column, key, number of bytes."""
    connection = sqlite3.connect(path)
    values = []
    for table, column, key in (
        ("entry", "line", "sequence"),
        ("tile", "root", "number"),
        ("tile", "leaves", "number"),
        ("checkpoint", "note", "size"),
    ):
        statement = f"SELECT {key}, length({column}) FROM {table} WHERE {column} IS NOT NULL"
        place = f"UPDATE {table} SET {column}=?2 WHERE {key}=?1/SELECT {column} FROM {table} WHERE {key}=?"
        values += [(place, str(row), size) for row, size in connection.execute(statement)]
    connection.close()
    return values


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(pristine: Made, tmp_path: Path, data: st.DataObject) -> None:
    place, key, size = data.draw(st.sampled_from(list(columns(pristine.path))))
    at, flip = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 255))
    path = Path(shutil.copy(pristine.path, tmp_path / "journal.db"))
    update, _, select = place.partition("/")
    connection = sqlite3.connect(path)
    with connection:
        ((value,),) = connection.execute(select, (int(key),)).fetchall()
        changed = bytearray(value)
        changed[at] ^= flip
        connection.execute(update, (int(key), bytes(changed)))
    connection.close()
    assert audit_file(path, pristine.vkey).verdict is Verdict.FAIL
