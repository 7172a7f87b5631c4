"""The sealed rows: what takes whose place, what a thief finds, what an older file becomes."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.documents import KEY_PAGE
from agent.row_seal import BadPage, Keys, bucket_of, value_of
from agent.rows import LOCAL, Generation, Page, Rows

KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))
EPOCH = bytes(range(64, 96))
ROSTER = "roster"
SUBJECT = "drv-anna-5f2e81"
BUCKETS = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roster.db"


@pytest.fixture
def rows(path: Path) -> Iterator[Rows]:
    with contextlib.closing(Rows(path, KEYS)) as made:
        yield made


def page(text: str, rows: int = 0, ver: int = 1) -> Page:
    return Page(ver, hashlib.sha256(text.encode()).digest(), rows)


def started(rows: Rows, key_page: str = "key", buckets: int = BUCKETS, epoch: bytes = EPOCH) -> Generation:
    return rows.begin(ROSTER, buckets, page(key_page), epoch)


def badge(number: int) -> bytes:
    return b"badge-%06d" % number


def filled(rows: Rows, count: int, generation: Generation, epoch: bytes = EPOCH) -> None:
    """So many badges, each of a driver of its own, laid in their buckets."""
    pages: dict[int, list[tuple[bytes, dict[str, Any]]]] = {}
    for number in range(count):
        value = value_of(epoch, "badge", badge(number))
        body = {"subject": f"{SUBJECT}-{number}"}
        pages.setdefault(bucket_of(value, generation.buckets), []).append((value, body))
    for bucket, content in pages.items():
        rows.replace_bucket(generation, bucket, page(f"page {bucket}", len(content)), content)


def whole(rows: Rows, count: int = 50) -> Generation:
    generation = started(rows)
    filled(rows, count, generation)
    rows.complete(ROSTER, generation, as_of=1000)
    return generation


def opened(rows: Rows, number: int) -> str | None:
    body = rows.open(ROSTER, "badge", badge(number))
    return None if body is None else str(body["subject"])


# -- taking effect --------------------------------------------------------------------------------


def test_a_bundle_is_in_force_when_it_is_whole_and_not_before(rows: Rows) -> None:
    generation = started(rows)
    filled(rows, 50, generation)
    assert opened(rows, 7) is None
    assert rows.as_of(ROSTER) is None
    rows.complete(ROSTER, generation, as_of=1000)
    assert [opened(rows, number) for number in range(50)] == [f"{SUBJECT}-{number}" for number in range(50)]
    assert opened(rows, 50) is None
    assert rows.as_of(ROSTER) == 1000


def test_rows_survive_closing_with_what_is_known_of_their_pages(rows: Rows, path: Path) -> None:
    generation = whole(rows)
    with contextlib.closing(Rows(path, KEYS)) as again:
        assert opened(again, 49) == f"{SUBJECT}-49"
        assert again.generation(ROSTER, BUCKETS, page("key").sha256) == again.current(ROSTER)
        assert again.pages(generation) == rows.pages(generation)
        assert again.as_of(ROSTER) == 1000


def test_a_page_takes_the_place_of_its_bucket_alone(rows: Rows) -> None:
    generation = whole(rows)
    bucket = bucket_of(value_of(EPOCH, "badge", badge(7)), BUCKETS)
    same = [n for n in range(50) if bucket_of(value_of(EPOCH, "badge", badge(n)), BUCKETS) == bucket]
    rows.replace_bucket(
        generation, bucket, page("new", 1), [(value_of(EPOCH, "badge", badge(7)), {"subject": "b"})]
    )
    assert opened(rows, 7) == "b"
    assert [n for n in range(50) if opened(rows, n) is None] == [n for n in same if n != 7]
    assert rows.pages(generation)[bucket] == page("new", 1)


def test_a_new_epoch_is_filled_beside_the_one_in_force(rows: Rows) -> None:
    whole(rows)
    fresh = started(rows, "another key", epoch=bytes(32))
    assert opened(rows, 7) == f"{SUBJECT}-7"
    filled(rows, 20, fresh, bytes(32))
    assert opened(rows, 40) == f"{SUBJECT}-40"
    rows.complete(ROSTER, fresh, as_of=2000)
    rows.settle(fresh, 2)
    assert (opened(rows, 7), opened(rows, 40)) == (f"{SUBJECT}-7", None)
    assert len(rows) == 20, "the rows of the epoch before are gone"


def test_so_is_another_number_of_buckets(rows: Rows) -> None:
    whole(rows)
    assert rows.generation(ROSTER, 64, page("key").sha256) is None
    wider = started(rows, buckets=64)
    filled(rows, 50, wider)
    rows.complete(ROSTER, wider, as_of=2000)
    rows.settle(wider, 2)
    assert all(opened(rows, number) for number in range(50))
    assert len(rows) == 50


def test_a_generation_that_is_given_up_leaves_nothing(rows: Rows) -> None:
    whole(rows)
    filled(rows, 30, started(rows, "half", epoch=bytes(32)), bytes(32))
    assert len(rows) == 80
    started(rows, "another", epoch=bytes(32))
    assert len(rows) == 50
    assert rows.generation(ROSTER, BUCKETS, page("half").sha256) is None


def test_buckets_without_a_page_are_emptied(rows: Rows) -> None:
    generation = whole(rows)
    kept = {KEY_PAGE, 0, 1}
    emptied = rows.keep_only(generation, kept)
    assert emptied == len(range(BUCKETS)) - 2
    assert set(rows.pages(generation)) == kept
    buckets = {bucket_of(value_of(EPOCH, "badge", badge(n)), BUCKETS) for n in range(50) if opened(rows, n)}
    assert buckets == {0, 1}


def test_dropping_a_bundle_leaves_what_was_added_here(rows: Rows) -> None:
    whole(rows)
    rows.put("badge", badge(7), {"subject": "local"}, as_of=5)
    rows.drop(ROSTER)
    assert len(rows) == 1
    assert opened(rows, 7) is None
    assert rows.open(LOCAL, "badge", badge(7)) == {"subject": "local"}


@pytest.mark.parametrize("rowed", ["elsewhere", "twice"])
def test_a_page_with_rows_that_are_not_its_own_changes_nothing(rows: Rows, rowed: str) -> None:
    generation = whole(rows)
    value = value_of(EPOCH, "badge", badge(7))
    bucket = bucket_of(value, BUCKETS) ^ (1 if rowed == "elsewhere" else 0)
    with pytest.raises(BadPage, match=r"expected rows of bucket|expected a row once"):
        rows.replace_bucket(generation, bucket, page("bad", 2), [(value, {}), (value, {})])
    assert all(opened(rows, number) for number in range(50))


def test_who_reads_does_not_wait_for_who_fills(rows: Rows) -> None:
    """A row is read while the transaction that replaces its bucket is open."""
    generation = whole(rows)
    value = value_of(EPOCH, "badge", badge(7))
    seen = []

    def content() -> Iterator[tuple[bytes, dict[str, Any]]]:
        yield value, {"subject": "new"}
        seen.append(opened(rows, 7))

    rows.replace_bucket(generation, bucket_of(value, BUCKETS), page("new", 1), content())
    assert (seen, opened(rows, 7)) == ([f"{SUBJECT}-7"], "new")


# -- buckets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "buckets", "bucket"),
    [
        ("0000", 1, 0),
        ("ffff", 1, 0),
        ("7fff", 2, 0),
        ("8000", 2, 1),
        ("ffff", 1024, 1023),
        ("0040", 1024, 1),
        ("003f", 1024, 0),
        ("abcd", 256, 0xAB),
    ],
)
def test_the_bucket_is_the_top_bits_of_the_value(first: str, buckets: int, bucket: int) -> None:
    assert bucket_of(bytes.fromhex(first) + bytes(30), buckets) == bucket


# -- what a thief finds ---------------------------------------------------------------------------


def test_two_devices_share_no_lookup_id_for_one_driver(tmp_path: Path) -> None:
    found = []
    for device in (1, 2):
        path = tmp_path / f"{device}.db"
        with contextlib.closing(Rows(path, Keys(bytes([device]) * 32, KEYS.epoch))) as rows:
            whole(rows)
            assert opened(rows, 7)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found.append({bytes(lookup) for (lookup,) in connection.execute("SELECT id FROM sealed")})
    assert [len(ids) for ids in found] == [50, 50]
    assert not found[0] & found[1]


def test_without_the_pepper_no_row_of_a_bundle_opens(rows: Rows, path: Path) -> None:
    whole(rows)
    with contextlib.closing(Rows(path, Keys(bytes(32), KEYS.epoch))) as thief:
        assert [opened(thief, number) for number in range(50)] == [None] * 50


def test_the_file_names_no_driver_no_token_and_no_epoch_key(rows: Rows, path: Path) -> None:
    whole(rows)
    image = path.read_bytes()
    values = [value_of(EPOCH, "badge", badge(number)) for number in range(50)]
    for secret in (SUBJECT.encode(), b"drv-", badge(7), EPOCH, KEYS.device, KEYS.epoch, *values):
        for form in (secret, secret.hex().encode(), secret.decode("latin-1").encode("utf-16-le")):
            assert form not in image


def test_with_the_pepper_and_no_token_no_row_opens(rows: Rows, path: Path) -> None:
    """Everything that the file and the keys give is tried as a row's key: none is one."""
    whole(rows)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, sealed FROM sealed").fetchall()
    lookups = {bytes(lookup) for lookup, _ in found}
    known = [KEYS.device, KEYS.epoch, EPOCH, *lookups, *(bytes(row[:16]) for _, row in found)]
    for guess in known:
        assert KEYS.split(guess)[0] not in lookups
        assert rows.open(ROSTER, "badge", guess) is None


def test_a_deleted_generation_is_gone_from_the_file(rows: Rows, path: Path) -> None:
    whole(rows, 2000)
    lookup = KEYS.split(value_of(EPOCH, "badge", badge(7)))[0]
    before = path.stat().st_size
    assert lookup in path.read_bytes()
    rows.drop(ROSTER)
    assert lookup not in path.read_bytes()
    assert path.stat().st_size < before / 2, "and its room is given back"


def test_a_row_that_is_deleted_is_gone_from_a_file_that_stays_as_large(rows: Rows, path: Path) -> None:
    for number in range(60):
        rows.put("badge", badge(number), {"subject": SUBJECT}, as_of=1)
    lookup = KEYS.derive("badge", badge(7))[0]
    assert lookup in path.read_bytes()
    assert rows.forget("badge", badge(7))
    assert lookup not in path.read_bytes()
    other = KEYS.derive("badge", badge(8))[0]
    assert rows.disown(SUBJECT) == 59
    assert other not in path.read_bytes()


# -- an older file --------------------------------------------------------------------------------


def first_layout(path: Path, count: int) -> None:
    """The file as it was when it knew only rows that were added here."""
    with contextlib.closing(Rows(path.with_suffix(".now"), KEYS)) as now:
        for number in range(count):
            now.put("badge", badge(number), {"subject": f"{SUBJECT}-{number}"}, as_of=1234)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE row (id BLOB PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID")
        old.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
        old.execute("INSERT INTO about VALUES ('as_of', 1234)")
        old.execute("ATTACH ? AS now", (str(path.with_suffix(".now")),))
        old.execute("INSERT INTO row SELECT id, sealed FROM now.sealed")
        old.commit()


def test_an_older_file_loses_no_row(path: Path) -> None:
    first_layout(path, 20)
    for _ in range(2):
        with contextlib.closing(Rows(path, KEYS)) as rows:
            assert len(rows) == 20
            assert all(rows.open(LOCAL, "badge", badge(number)) for number in range(20))
            assert rows.as_of(LOCAL) == 1234


def test_an_older_file_without_rows_opens(path: Path) -> None:
    first_layout(path, 0)
    with contextlib.closing(Rows(path, KEYS)) as rows:
        assert len(rows) == 0
        whole(rows)
        assert opened(rows, 7)


# -- rows that go ---------------------------------------------------------------------------------


def test_the_rows_of_one_subject_are_found_and_deleted_without_their_secrets(rows: Rows) -> None:
    whole(rows)
    rows.put("pin", b"1234", {"subject": f"{SUBJECT}-7"}, as_of=1)
    assert rows.owned(f"{SUBJECT}-7") == 2
    assert rows.disown(f"{SUBJECT}-7") == 2
    assert (rows.owned(f"{SUBJECT}-7"), opened(rows, 7), rows.open(LOCAL, "pin", b"1234")) == (0, None, None)
    assert opened(rows, 8) == f"{SUBJECT}-8"


def test_nothing_in_the_file_says_which_rows_belong_together(rows: Rows, path: Path) -> None:
    for kind in ("badge", "pin", "static"):
        rows.put(kind, b"the same", {"subject": SUBJECT}, as_of=1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        owners = [owner for (owner,) in connection.execute("SELECT owner FROM sealed")]
    assert len(set(owners)) == 3


def test_without_the_pepper_nobody_finds_whose_a_row_is(rows: Rows, path: Path) -> None:
    whole(rows)
    with contextlib.closing(Rows(path, Keys(bytes(32), KEYS.epoch))) as thief:
        assert thief.owned(f"{SUBJECT}-7") == 0


def test_who_was_erased_does_not_come_back_with_a_page(rows: Rows, path: Path) -> None:
    rows.erased = frozenset({rows.erasure(f"{SUBJECT}-7")})
    whole(rows)
    assert (opened(rows, 7), opened(rows, 8)) == (None, f"{SUBJECT}-8")
    assert rows.owned(f"{SUBJECT}-7") == 0


def test_after_a_wipe_nothing_opens_nothing_is_there_and_nothing_more_is_taken_in(
    rows: Rows, path: Path
) -> None:
    lookup = KEYS.split(value_of(EPOCH, "badge", badge(7)))[0]
    whole(rows)
    rows.put("pin", b"1234", {"subject": SUBJECT}, as_of=1)
    assert lookup in path.read_bytes()
    assert rows.wipe() == 51
    assert lookup not in path.read_bytes()
    assert (len(rows), rows.as_of(ROSTER), rows.as_of(LOCAL)) == (0, None, None)
    whole(rows)
    assert (len(rows), opened(rows, 7)) == (0, None)
