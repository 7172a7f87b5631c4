"""The fleet's books: whatever comes in whatever order, they hold every device to what it has signed."""

import random
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fleet.audit import GRACE_S, Auditor, Birth, Noted, Work
from agent.fleet.findings import Kind
from agent.fleet.store import Store, StoreFailed, Trust
from agent.ledger import Frontier, leaf_hash
from agent.note import BadNote, Checkpoint, SignerKey, sign
from tests.desk import FLEET, NOW, Desk, Journal, batch
from tests.site import LONG
from tests.test_collect import DEVICE, line


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "fleet.db")
    yield made
    made.store.close()


# -- all is well ----------------------------------------------------------------------------------


def test_what_is_whole_and_agrees_is_cosigned(desk: Desk) -> None:
    journal = Journal().grow(700)
    outcome = desk.take(journal.born(), journal.noted(), journal.sent())
    assert len(outcome.entries) == 700
    assert desk.cosigned(journal) == 700
    assert not desk.told


def test_an_entry_is_new_once_even_for_another_process(desk: Desk, tmp_path: Path) -> None:
    journal = Journal().grow(10)
    other = Desk(tmp_path / "fleet.db")
    assert len(desk.take(journal.sent()).entries) == 10
    assert not desk.take(journal.sent()).entries
    assert not other.take(journal.sent(3, 4)).entries
    other.take(journal.born(), journal.noted())
    assert other.cosigned(journal) == 10
    other.store.close()


@pytest.mark.timeout(180)
@settings(max_examples=300 if LONG else 40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_order_and_duplicates_do_not_matter(chance: random.Random, size: int) -> None:
    journal = Journal().grow(size)
    sizes = [chance.randint(1, size) for _ in range(3)]
    work: list[Work] = [journal.sent(number) for number in range(1, size + 1)]
    work += [journal.noted(each) for each in (*sizes, size)]
    work += [chance.choice(work) for _ in range(10)]
    chance.shuffle(work)
    with tempfile.TemporaryDirectory() as folder, closing(Desk(Path(folder) / "fleet.db")) as desk:
        desk.take(journal.born())
        while work:
            count = chance.randint(1, len(work))
            desk.take(*work[:count])
            del work[:count]
    assert desk.cosigned(journal) == size
    assert set(desk.kinds) <= {Kind.GAP}


def test_a_birth_and_a_known_checkpoint_are_answered_again(desk: Desk) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.sent(), journal.noted())
    receipt = desk.receipt
    assert desk.take(journal.born()).receipts == {DEVICE: receipt}
    assert desk.take(journal.noted()).receipts == {DEVICE: receipt}
    assert not desk.take(Birth(DEVICE, {"online": False})).receipts


def test_a_late_checkpoint_of_a_smaller_size_is_no_rollback(desk: Desk) -> None:
    journal = Journal().grow(600)
    desk.take(journal.born(), journal.sent(), journal.noted())
    for size in (1, 255, 256, 257, 512, 513, 599):
        desk.take(journal.noted(size))
    assert not desk.told
    assert desk.cosigned(journal) == 600


def test_without_a_key_of_the_fleet_nothing_is_cosigned(tmp_path: Path) -> None:
    journal, store = Journal().grow(3), Store(tmp_path / "fleet.db")
    work: list[Work] = [journal.born(), journal.sent(), journal.noted()]
    assert not Auditor(store).take(work, NOW).receipts
    store.close()


# -- two histories --------------------------------------------------------------------------------


def test_a_device_that_goes_on_from_an_old_copy_is_told_of_and_not_cosigned(desk: Desk) -> None:
    journal = Journal().grow(200)
    old = journal.copy(100).grow(3, subject="another")
    desk.take(journal.born(), journal.sent(), journal.noted())
    desk.take(journal.noted(100))
    assert not desk.told, "a replay of what it had signed is no proof"
    desk.take(old.sent(101, 102, 103), old.noted())
    assert desk.kinds == [Kind.CONTRADICTION, Kind.ROLLBACK]
    desk.take(old.noted(), old.sent())
    assert len(desk.told) == 2, "once each"
    journal.grow(10)
    desk.take(journal.sent(), journal.noted())
    assert desk.cosigned(journal) == 200, "what has signed two histories is cosigned no more"


def test_one_size_with_two_roots_is_a_fork(desk: Desk) -> None:
    journal = Journal().grow(64)
    other = journal.copy(63).grow(1, subject="another")
    desk.take(journal.born(), journal.noted(), other.noted())
    assert desk.kinds == [Kind.FORK]


def test_a_root_that_the_entries_do_not_have_is_a_fork(desk: Desk) -> None:
    journal = Journal().grow(64)
    other = journal.copy(30).grow(70, subject="another")
    desk.take(journal.born(), journal.sent(), journal.noted())
    desk.take(other.sent(*range(65, 101)), other.noted())
    assert desk.kinds == [Kind.FORK]
    assert desk.cosigned(journal) == 64


def test_a_forged_entry_that_came_first_gives_way_to_the_one_that_was_signed(desk: Desk) -> None:
    journal = Journal().grow(10)
    forged = line(5, "e1", subject="forged")
    desk.take(journal.born(), batch(forged))
    desk.take(journal.sent())
    desk.take(journal.noted())
    assert desk.kinds == [Kind.CONTRADICTION]
    assert desk.cosigned(journal) == 10
    ledger = desk.store.known_ledger(DEVICE, "e1")
    assert ledger is not None
    assert desk.store.line(ledger.id, 5) == journal.lines[4]


# -- what is missing ------------------------------------------------------------------------------


def test_entries_that_a_device_went_on_without_are_missing(desk: Desk) -> None:
    journal = Journal().grow(192)
    desk.take(journal.born(), journal.sent(*range(1, 11), *range(13, 65)), journal.noted(64))
    for size in range(65, 129):
        desk.take(journal.sent(size), journal.noted(size), now=NOW + 10 * (size - 64))
    assert not desk.told, "they may be of a lane that comes later"
    desk.take(now=NOW + 640)
    assert desk.told == [(Kind.GAP, "of the 128 entries signed, 2 missing: 11-12")]
    assert desk.receipt is None
    desk.take(journal.sent(11, 12))
    assert desk.cosigned(journal) == 128


def test_a_backlog_that_is_still_coming_is_no_gap(desk: Desk) -> None:
    journal = Journal().grow(5000)
    desk.take(journal.born(), journal.noted(4900))
    for first in range(1, 5000, 1000):
        desk.take(journal.sent(*range(first, first + 1000)), now=NOW + first)
        desk.take(now=NOW + first + GRACE_S - 1)
    desk.take(journal.noted(5000))
    assert not desk.told
    assert desk.cosigned(journal) == 5000


def test_custody_that_comes_before_the_rest_of_a_backlog_opens_no_gap(desk: Desk) -> None:
    journal = Journal().grow(5000)
    desk.take(journal.born(), journal.noted(5000))
    custody, rest = range(1, 5001, 2), range(2, 5001, 2)
    at = NOW
    for sequences in (custody, rest):
        for first in range(0, 2500, 500):
            desk.take(journal.sent(*sequences[first : first + 500]), now=at)
            at += GRACE_S - 1
            desk.take(now=at)
    assert not desk.told
    assert desk.cosigned(journal) == 5000


def test_a_tail_that_does_not_come_is_missing_after_a_while(desk: Desk) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.sent(*range(1, 60)), journal.noted())
    desk.take(now=NOW + GRACE_S - 1)
    assert not desk.told
    for late in (1, 100):
        desk.take(now=NOW + GRACE_S + late)
    assert desk.told == [(Kind.GAP, "of the 64 entries signed, 5 missing: 60-64")]


# -- keys -----------------------------------------------------------------------------------------


def test_a_checkpoint_waits_for_the_key_that_the_birth_names(desk: Desk) -> None:
    journal = Journal().grow(3)
    desk.take(journal.sent(), journal.noted())
    assert desk.receipt is None
    desk.take(journal.born())
    assert desk.cosigned(journal) == 3
    pinned = desk.store.pinned(DEVICE)
    assert pinned is not None
    assert pinned.trust is Trust.FIRST_SIGHT


def test_another_key_is_not_believed(desk: Desk) -> None:
    journal, thief = Journal().grow(3), Journal(secret=b"t" * 32).grow(3)
    desk.take(journal.born())
    desk.take(thief.born(), thief.sent(), thief.noted(), thief.noted(2))
    assert desk.kinds == [Kind.BAD_SIGNATURE, Kind.BAD_SIGNATURE]
    desk.take(journal.noted())
    assert desk.cosigned(journal) == 3


def test_a_key_that_the_operator_names_is_believed_before_any_other(desk: Desk) -> None:
    journal, thief = Journal().grow(3), Journal(secret=b"t" * 32)
    desk.auditor.trust(journal.signer.verifier)
    desk.take(thief.born(), journal.sent(), journal.noted())
    assert desk.cosigned(journal) == 3
    assert desk.kinds == [Kind.BAD_SIGNATURE]
    with pytest.raises(BadNote, match="expected tenant/device/epoch"):
        desk.auditor.trust(FLEET.verifier)


@pytest.mark.parametrize("origin", ["test/van-0043/e1", f"other/{DEVICE}/e1", "e1"])
def test_a_checkpoint_of_another_ledger_is_not_taken_for_the_device_s(desk: Desk, origin: str) -> None:
    journal = Journal().grow(3)
    other = Journal()
    other.signer = SignerKey(origin, journal.signer.private)
    desk.take(journal.born(), journal.sent(), other.grow(3).noted(), Noted(DEVICE, b"\xff"))
    assert desk.kinds == [Kind.BAD_SIGNATURE]
    assert desk.receipt is None


@pytest.mark.parametrize("key", [None, 7, "", "x+y+z", "\ud800+1+2", "a" * 1000, FLEET.verifier.text])
def test_a_birth_that_names_no_key_pins_none(desk: Desk, key: object) -> None:
    desk.take(Birth(DEVICE, {"online": True, "epoch": "\ud800", "key": key}))
    assert desk.store.pinned(DEVICE) is None


# -- a new journal --------------------------------------------------------------------------------


def opened(epoch: str, previous: object) -> Journal:
    first = line(1, epoch, type="postern.journal.opened", data={"previous": previous})
    return Journal(epoch, lines=[first])


def noted(size: int, secret: bytes = b"d" * 32) -> dict[str, Any]:
    """What a fresh journal says of the one before it."""
    before = Journal("e1", secret).grow(64)
    note = sign(Checkpoint(before.signer.name, size, b"r" * 32).text, before.signer)
    return {"epoch": "e1", "file": "journal.damaged-1.db", "note": note.decode()}


@pytest.mark.parametrize(
    ("previous", "told"),
    [
        (noted(70), [Kind.NEW_EPOCH]),
        (noted(60), [Kind.NEW_EPOCH, Kind.ROLLBACK]),
        (noted(60, b"t" * 32), [Kind.NEW_EPOCH]),
        (None, [Kind.NEW_EPOCH]),
        ({"epoch": "e1", "note": None}, [Kind.NEW_EPOCH]),
        ({"epoch": "\ud800", "note": "\ud800" * 999}, [Kind.NEW_EPOCH]),
    ],
)
def test_a_new_journal_is_told_of_with_what_it_follows(
    desk: Desk, previous: object, told: list[Kind]
) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.sent(), journal.noted())
    later = opened("e2", previous).grow(4)
    desk.take(later.born(), later.sent(), later.noted())
    assert desk.kinds == told
    assert desk.cosigned(later) == 5


# -- the file -------------------------------------------------------------------------------------


def test_what_fails_half_way_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    journal = Journal().grow(3)
    with sqlite3.connect(tmp_path / "fleet.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON entry WHEN NEW.sequence = 3"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    other.close()
    with pytest.raises(StoreFailed, match="no room"):
        desk.take(journal.sent())
    ledger = desk.store.known_ledger(DEVICE, "e1")
    assert ledger is None


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    with pytest.raises(StoreFailed, match="expected a fleet's store"):
        Store(path)


SCHEMA_1 = """
CREATE TABLE device (name TEXT PRIMARY KEY, tenant TEXT, key BLOB, trust TEXT, unread BLOB) WITHOUT ROWID;
CREATE TABLE ledger (id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL,
 whole INTEGER NOT NULL DEFAULT 0, agreed BLOB NOT NULL, signed INTEGER NOT NULL DEFAULT 0,
 barred INTEGER NOT NULL DEFAULT 0, stirred REAL NOT NULL, UNIQUE (device, epoch));
CREATE TABLE leaf (ledger INTEGER, sequence INTEGER, hash BLOB NOT NULL,
 PRIMARY KEY (ledger, sequence)) WITHOUT ROWID;
CREATE TABLE entry (ledger INTEGER, sequence INTEGER, line BLOB NOT NULL,
 PRIMARY KEY (ledger, sequence)) WITHOUT ROWID;
CREATE TABLE contested (ledger INTEGER, sequence INTEGER, hash BLOB NOT NULL, line BLOB NOT NULL,
 PRIMARY KEY (ledger, sequence)) WITHOUT ROWID;
CREATE TABLE tile (ledger INTEGER, number INTEGER, root BLOB NOT NULL,
 PRIMARY KEY (ledger, number)) WITHOUT ROWID;
CREATE TABLE checkpoint (ledger INTEGER, size INTEGER, root BLOB, note BLOB NOT NULL,
 verdict TEXT NOT NULL, PRIMARY KEY (ledger, size, root)) WITHOUT ROWID;
CREATE TABLE receipt (ledger INTEGER, size INTEGER, note BLOB NOT NULL,
 PRIMARY KEY (ledger, size)) WITHOUT ROWID;
CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, device TEXT NOT NULL,
 epoch TEXT NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL,
 UNIQUE (device, epoch, kind, about));
PRAGMA user_version = 1;
"""
"""As the first collectors made it."""


def written_by_the_first(path: Path, journal: Journal, upto: int) -> None:
    """A file of schema 1 in which the entries up to there are agreed, and the others wait for one that was
    declared lost.
    """
    with sqlite3.connect(path) as old:
        old.executescript(SCHEMA_1)
        agreed = Frontier().append(*map(leaf_hash, journal.lines[:upto]))
        old.execute(
            "INSERT INTO ledger VALUES (1, ?, 'e1', ?, ?, ?, 0, 0)", (DEVICE, upto, agreed.dump(), upto)
        )
        pinned = (DEVICE, "test", journal.signer.verifier.public)
        old.execute("INSERT INTO device VALUES (?, ?, ?, 'first sight', NULL)", pinned)
        for sequence in journal.there():
            row = journal.lines[sequence - 1]
            old.execute("INSERT INTO leaf VALUES (1, ?, ?)", (sequence, leaf_hash(row)))
            old.execute("INSERT INTO entry VALUES (1, ?, ?)", (sequence, row))
        forged = line(1, subject="forged")
        old.execute("INSERT INTO contested VALUES (1, 1, ?, ?)", (leaf_hash(forged), forged))
        finding = ("GAP", DEVICE, "e1", "70", "of the 64 entries signed, 1 missing: 70")
        old.execute("INSERT INTO finding VALUES (1, ?, ?, ?, ?, ?, 0)", finding)
    old.close()


def test_a_file_of_the_first_schema_is_brought_up_to_date_with_all_that_it_holds(tmp_path: Path) -> None:
    journal = Journal().grow(80).lose(70).grow(9)
    written_by_the_first(tmp_path / "fleet.db", journal, 64)
    desk = Desk(tmp_path / "fleet.db")
    ledger = desk.store.known_ledger(DEVICE, "e1")
    assert ledger is not None
    assert (ledger.accounted, desk.store.contested(ledger.id)) == (64, 1)
    desk.take(journal.noted())
    assert desk.cosigned(journal) == 90
    assert [each.settled for each in desk.store.findings.all(settled=True)] == [NOW]
    desk.store.close()
    again = Store(tmp_path / "fleet.db")
    again.close()
