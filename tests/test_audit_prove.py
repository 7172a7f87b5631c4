"""One parcel's custody, proven to a stranger who has the device's public key and nothing else."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.audit.prove import Unprovable, check_proof, prove
from agent.audit.reader import open_archive
from agent.audit.verdict import Broken, Code
from agent.note import VerifierKey
from tests.journals import (
    EPOCH,
    ORIGIN,
    PARCELS,
    Made,
    Signer,
    leaf,
    line,
    note,
    parcel,
    root,
    write_export,
    write_journal,
)

Json = dict[str, Any]


def proof_of(path: Path, number: int = 3) -> tuple[Json, int]:
    with open_archive(path) as archive:
        proof, later = prove(archive, parcel(number))
    return json.loads(json.dumps(proof)), later


def failures(proof: Any, made: Made) -> list[Code | None]:
    _, judged = check_proof(proof, VerifierKey.parse(made.vkey))
    return [proven.failure.code if proven.failure else None for proven in judged]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_journal(tmp_path_factory.mktemp("made") / "journal.db", 600)


@pytest.fixture(scope="module")
def proof(made: Made) -> Json:
    return proof_of(made.path)[0]


@pytest.mark.parametrize("size", [3, 64, 255, 256, 257, 512, 600])
def test_every_entry_of_the_parcel_is_proven(tmp_path: Path, size: int) -> None:
    made = write_journal(tmp_path / "journal.db", size)
    proof, later = proof_of(made.path)
    expected = [n for n in range(1, size + 1) if n % PARCELS == 3]
    assert [each["sequence"] for each in proof["entries"]] == expected
    assert failures(proof, made) == [None] * len(expected)
    assert later == 0


def test_an_export_proves_the_same(made: Made, proof: Json, tmp_path: Path) -> None:
    assert proof_of(write_export(tmp_path / "export.ndjson", made)) == (proof, 0)


def test_what_was_pruned_elsewhere_keeps_nothing_from_being_proven(tmp_path: Path) -> None:
    gone = [n for n in range(1, 513) if n % PARCELS != 3]
    made = write_journal(tmp_path / "journal.db", 600, pruned=gone, seen=600)
    proof, _ = proof_of(made.path)
    assert set(failures(proof, made)) == {None}


def test_entries_after_the_latest_checkpoint_are_counted_and_left_out(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300, signed=[128, 280])
    proof, later = proof_of(made.path)
    assert later == len([n for n in range(281, 301) if n % PARCELS == 3])
    assert set(failures(proof, made)) == {None}


def test_a_proof_grows_with_the_logarithm_of_the_journal(proof: Json) -> None:
    assert max(len(each["path"]) for each in proof["entries"]) <= 10


@pytest.mark.parametrize("signed", [(), (64,)])
def test_nothing_is_proven_that_is_not_signed(tmp_path: Path, signed: tuple[int, ...]) -> None:
    lines = [line(n, subject=parcel(9)) for n in range(1, 70)] + [line(70, subject=parcel(3))]
    made = write_journal(tmp_path / "journal.db", lines=lines, signed=signed)
    with pytest.raises(Unprovable, match=r"expected a signed checkpoint|1 too new"):
        proof_of(made.path)


def test_a_parcel_that_was_never_here_is_not_proven(made: Made) -> None:
    with pytest.raises(Unprovable, match="expected entries with this subject, got none"):
        proof_of(made.path, 12345)


def test_no_proof_is_made_of_an_edited_journal(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "journal.db", 300)
    made.change("UPDATE entry SET line=? WHERE sequence=5", line(5, subject="s10:RB1GB"))
    with pytest.raises(Unprovable, match="verify the journal"):
        proof_of(made.path)


# -- a forger at work -----------------------------------------------------------------------------


def test_an_edited_line_fails_and_the_others_pass(made: Made, proof: Json) -> None:
    forged = copy.deepcopy(proof)
    forged["entries"][1]["line"] = forged["entries"][1]["line"].replace("drv-1", "drv-2")
    assert forged != proof
    assert failures(forged, made)[:3] == [None, Code.ROOT, None]


def test_an_entry_at_another_place_fails(made: Made, proof: Json) -> None:
    forged = copy.deepcopy(proof)
    forged["entries"][1]["sequence"] += PARCELS
    assert failures(forged, made)[1] is Code.IDENTITY


def test_entries_out_of_order_or_twice_fail(made: Made, proof: Json) -> None:
    forged = copy.deepcopy(proof)
    forged["entries"] = [forged["entries"][1], forged["entries"][0], forged["entries"][1]]
    assert failures(forged, made) == [None, Code.DUPLICATE, Code.DUPLICATE]


def test_an_entry_about_another_parcel_fails(made: Made, proof: Json) -> None:
    other = proof_of(made.path, 4)[0]
    forged = {**proof, "entries": [*proof["entries"], other["entries"][-1]]}
    assert failures(forged, made)[-1] is Code.IDENTITY


def test_another_device_cannot_vouch_for_it(made: Made, proof: Json) -> None:
    with pytest.raises(Broken) as broken:
        check_proof(proof, VerifierKey.parse(Signer(ORIGIN).vkey))
    assert broken.value.failure.code is Code.ORIGIN


def test_a_checkpoint_that_the_device_did_not_sign_is_refused(made: Made, proof: Json) -> None:
    raw = note(600, root([leaf(each) for each in made.lines]), Signer(ORIGIN)).decode()
    with pytest.raises(Broken) as broken:
        check_proof({**proof, "checkpoint": raw}, VerifierKey.parse(made.vkey))
    assert broken.value.failure.code is Code.ORIGIN


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"postern_proof": 2},
        {"postern_proof": 1, "checkpoint": "", "parcel": "x", "entries": []},
    ],
)
def test_what_is_no_proof_is_refused(made: Made, wrong: Any) -> None:
    with pytest.raises(Broken) as broken:
        check_proof(wrong, VerifierKey.parse(made.vkey))
    assert broken.value.failure.code is Code.MALFORMED


@pytest.mark.parametrize("wrong", [None, {}, {"sequence": "3", "line": "", "path": []}, {"sequence": 3}])
def test_an_entry_of_another_shape_is_refused(made: Made, proof: Json, wrong: Any) -> None:
    with pytest.raises(Broken, match="expected"):
        check_proof({**proof, "entries": [wrong]}, VerifierKey.parse(made.vkey))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_character_of_a_line_or_path_is_found(
    made: Made, proof: Json, data: st.DataObject
) -> None:
    forged = copy.deepcopy(proof)
    each = data.draw(st.sampled_from(forged["entries"]))
    where = data.draw(st.sampled_from(["line", *range(len(each["path"]))]))
    part, key = (each, "line") if where == "line" else (each["path"], where)
    at = data.draw(st.integers(0, len(part[key]) - 2))
    new = data.draw(st.sampled_from("ABcd09 {").filter(lambda char: char != part[key][at]))
    part[key] = part[key][:at] + new + part[key][at + 1 :]
    assert is_refused(forged, made)


def is_refused(proof: Json, made: Made) -> bool:
    """As a whole, or in one of its entries."""
    try:
        return set(failures(proof, made)) != {None}
    except Broken:
        return True


def test_the_epoch_of_the_checkpoint_is_the_epoch_of_the_entries(made: Made, proof: Json) -> None:
    assert all(json.loads(each["line"])["id"].startswith(EPOCH) for each in proof["entries"])
