"""A roster's file that is damaged or gone: kept, told of, nobody let in, and filled again as at first."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.documents import Bundle, Document
from agent.journal import Journal
from agent.mending import HELD, Mending
from agent.row_file import KEPT
from agent.row_seal import Keys
from agent.rows import Rows
from agent.trust import PREFIX
from tests.bundles import badges
from tests.moments import moment
from tests.schemas import unlike
from tests.test_bundle import KEYS, Van
from tests.test_cli import Postern
from tests.test_fleet_down import BADGE, OTHER, acme
from tests.test_wipe import entries

MANY = 300
OWN = 20
PAGE = 4096


def own(number: int) -> bytes:
    return b"own-%d" % number


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    """With rows of the fleet's and rows that were added here; stopped."""
    made = Van(tmp_path / "roster.db")
    made.start()
    for number in range(OWN):
        made.rows.put("badge", own(number), {"subject": f"drv-own-{number}"}, as_of=7)
    await made.bundles.accepted(made.press.print(badges(range(MANY))))
    await made.fetch()
    made.stop()
    yield made
    made.stop()


def spoil(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def same_list(van: Van) -> Document[Bundle]:
    """What is believed since before the damage."""
    assert van.press.laid is not None
    return van.press.signed(van.press.laid.body("depot-7", 1))


def root_of(path: Path, table: str) -> int:
    """Where in the file the table begins."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        found = store.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return (int(found[0]) - 1) * PAGE


def changed(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as store:
        for statement in statements:
            store.execute(statement)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def header_alone(path: Path) -> None:
    os.truncate(path, 100)


def noise_at_the_root(path: Path) -> None:
    spoil(path, root_of(path, "sealed"), os.urandom(PAGE))


def noise_in_the_header(path: Path) -> None:
    spoil(path, 0, os.urandom(PAGE))


def noise_in_the_schema(path: Path) -> None:
    """What SQLite then says of it is no text."""
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"CREATE TABLE page", b"CREATE \xff\xfeABLE page", 1))


def another_text(path: Path) -> None:
    path.write_bytes(b"no roster" * 1000)


def another_database(path: Path) -> None:
    path.unlink()
    changed(path, "CREATE TABLE entry (line)", "INSERT INTO entry VALUES ('noise')")


def a_table_short(path: Path) -> None:
    changed(path, "DROP TABLE page")


def a_column_short(path: Path) -> None:
    changed(path, "ALTER TABLE generation DROP COLUMN as_of")


def no_key(path: Path) -> None:
    changed(path, "UPDATE generation SET epoch = x'00' WHERE number > 0")


def odd_buckets(path: Path) -> None:
    changed(path, "UPDATE generation SET buckets = 'many' WHERE number > 0")


def half_a_change(path: Path) -> None:
    """Written half, and what would take it back is gone."""
    spoil(path, root_of(path, "generation"), bytes(PAGE // 2))
    path.with_name(path.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + os.urandom(2000))


AT_START: list[Callable[[Path], None]] = [
    header_alone,
    noise_in_the_header,
    noise_in_the_schema,
    another_text,
    another_database,
    a_table_short,
    a_column_short,
    no_key,
    odd_buckets,
    half_a_change,
]


@pytest.mark.parametrize("damage", [*AT_START, cut, noise_at_the_root])
async def test_a_damaged_file_is_kept_and_filled_again_by_the_same_list(
    van: Van, damage: Callable[[Path], None]
) -> None:
    damage(van.path)
    damaged = van.path.read_bytes()
    van.start()
    if damage in AT_START:
        assert van.rows.damage
    assert [van.subject(number) for number in (0, MANY - 1)] == [None, None], "nobody is let in meanwhile"
    assert (van.rows.current("roster"), dict(van.rows.slots("roster"))) == (None, {})

    told = van.rows.mend()
    assert told is not None
    assert (told.file, van.rows.damage) == ("roster.damaged-1.db", None)
    assert van.path.with_name("roster.damaged-1.db").stat().st_mode & 0o777 == 0o600
    assert len(van.path.with_name("roster.damaged-1.db").read_bytes()) == len(damaged)
    here = [number for number in range(OWN) if van.rows.open("local", "badge", own(number))]
    assert len(here) == told.kept
    assert told.kept == OWN or told.more_may_be_lost

    document = same_list(van)
    await van.bundles.accepted(document)
    assert len(await van.fetch()) == len(van.press.pages)
    assert all(van.subject(number) == f"drv-{number}" for number in range(MANY))
    assert van.rows.mend() is None


async def test_rows_that_were_added_here_outlive_a_damage_beside_them(van: Van) -> None:
    a_table_short(van.path)
    van.start()
    told = van.rows.mend()
    assert told is not None
    assert (told.kept, told.more_may_be_lost) == (OWN, False)
    assert van.rows.as_of("local") == 7
    assert all(van.rows.open("local", "badge", own(number)) for number in range(OWN))


async def test_damage_that_a_lookup_meets_lets_nobody_in_and_is_noticed_once(van: Van) -> None:
    van.start()
    noticed: list[str | None] = []
    van.rows.on_damage = lambda: noticed.append(van.rows.damage)
    raw = van.path.read_bytes()
    for table in ("sealed", "generation"):
        spoil(van.path, root_of(van.path, table), b"\xa5" * PAGE)
    # As it is for who has read nothing of it yet.
    spoil(van.path, 24, (int.from_bytes(raw[24:28]) + 1).to_bytes(4))
    assert [van.subject(number) for number in range(MANY)] == [None] * MANY
    assert van.rows.as_of("local") is None
    assert len(van.rows) == 0
    assert noticed == ["database disk image is malformed"]


async def test_a_row_that_its_own_secret_does_not_open_is_damage(van: Van) -> None:
    changed(van.path, "UPDATE sealed SET sealed = randomblob(80) WHERE generation = 0")
    van.start()
    assert van.rows.open("local", "badge", own(3)) is None
    assert van.rows.damage == "expected a row that its own secret opens, got another"
    told = van.rows.mend()
    assert told is not None
    assert (told.kept, told.more_may_be_lost) == (OWN - 1, True)


async def test_rows_that_a_search_does_not_find_are_damage(van: Van) -> None:
    """Two pages in each other's place: each is sound, and SQLite sees nothing wrong with the file."""
    with contextlib.closing(sqlite3.connect(van.path)) as store:
        leaves = store.execute(
            "SELECT pageno FROM dbstat WHERE name = 'sealed' AND pagetype = 'leaf'"
        ).fetchall()
    first, second = ((number - 1) * PAGE for (number,) in leaves[1:3])
    raw = van.path.read_bytes()
    spoil(van.path, first, raw[second : second + PAGE])
    spoil(van.path, second, raw[first : first + PAGE])
    van.start()
    assert van.rows.damage is None
    van.rows.look_over()
    assert van.rows.damage == "rows out of order"


async def test_a_full_or_forbidden_disk_is_no_damage(van: Van, monkeypatch: pytest.MonkeyPatch) -> None:
    van.path.rename(van.path.with_suffix(".away"))
    van.path.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        Rows(van.path, KEYS)
    van.path.rmdir()
    van.path.with_suffix(".away").rename(van.path)
    van.start()
    with contextlib.closing(sqlite3.connect(van.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("agent.row_file.BUSY_S", 0.0)
        with pytest.raises(sqlite3.OperationalError):
            van.rows.owned("drv-1")
    assert (van.rows.damage, van.rows.mend()) == (None, None)
    assert van.subject(1) == "drv-1"


async def test_a_replacement_that_the_power_interrupts_is_made_again(van: Van) -> None:
    cut(van.path)
    van.path.with_name("roster.damaged-1.db").hardlink_to(van.path)
    van.path.with_name("roster.db.new").write_bytes(b"half of it")
    van.start()
    assert van.rows.damage
    told = van.rows.mend()
    assert told is not None
    assert told.file == "roster.damaged-1.db"
    assert not list(van.path.parent.glob("*.new*"))


async def test_no_more_damaged_files_are_kept_than_a_card_can_bear(van: Van) -> None:
    given_up = []
    for _ in range(KEPT + 2):
        another_text(van.path)
        van.start()
        told = van.rows.mend()
        assert told is not None
        given_up.append(told.given_up)
        van.stop()
    assert given_up == [0] * KEPT + [1, 1]
    names = sorted(each.name for each in van.path.parent.glob("roster.damaged*"))
    assert names == ["roster.damaged-3.db", "roster.damaged-4.db", "roster.damaged-5.db"]


@pytest.mark.parametrize("damage", [another_text, cut, noise_at_the_root])
async def test_a_wipe_leaves_nothing_of_a_damaged_file(van: Van, damage: Callable[[Path], None]) -> None:
    shutil.copy(van.path, van.path.with_name("roster.damaged-4.db"))
    damage(van.path)
    before = van.path.read_bytes()
    with van.path.open("rb") as image:
        van.start()
        van.rows.wipe()
        image.seek(0)
        assert image.read() != before
    assert not list(van.path.parent.glob("roster.damaged*"))
    assert len(van.rows) == 0
    assert van.path.stat().st_mode & 0o777 == 0o600


async def test_another_pepper_opens_no_row_and_the_file_is_kept_for_the_right_one(van: Van) -> None:
    with contextlib.closing(Rows(van.path, Keys(os.urandom(32), KEYS.epoch))) as rows:
        assert rows.damage == "expected an epoch key that was sealed on this device, got another"
        assert rows.mend() is not None
    van.path.with_name("roster.damaged-1.db").replace(van.path)
    van.start()
    assert van.subject(7) == "drv-7"


async def test_a_file_that_cannot_be_replaced_yet_lets_nobody_in_and_stops_nothing(van: Van) -> None:
    another_text(van.path)
    van.path.with_name("roster.db.new").mkdir()
    van.start()
    async with mending(van) as (mends, journal):
        await mends.resume()
        document = same_list(van)
        await van.bundles.accepted(document)
        assert (van.subject(1), journal.last) == (None, 0)
        van.path.with_name("roster.db.new").rmdir()
        assert await mends.mend()
        assert journal.last == 1
        await van.bundles.accepted(document)
        await van.fetch()
        assert van.subject(1) == "drv-1"


async def test_a_file_of_yesterday_is_no_roster_of_today(van: Van) -> None:
    """Whoever was taken off the list since would be let in by it."""
    van.start()
    async with mending(van) as (mends, journal):
        journal.ride({HELD: {"roster": 1}})
        await mends.resume()
        assert (van.rows.damage, van.subject(1)) == (None, "drv-1")
        journal.ride({HELD: {"roster": 2}})
        await mends.resume()
        await journal.save()
        ((told,),) = [await journal.read(0, entries=10, size=10**6)]
        assert json.loads(told.line)["data"]["reason"] == "expected version 2 of roster, got 1"
        assert van.subject(1) is None


@contextlib.asynccontextmanager
async def mending(van: Van) -> AsyncIterator[tuple[Mending, Journal]]:
    journal = Journal(van.path.with_name("journal.db"), source="/postern/acme/van-0042", key=bytes(32))
    await journal.open()
    try:
        yield Mending(van.rows, journal, device="van-0042", stamp=lambda: (moment(1), {})), journal
    finally:
        await journal.close()


async def test_a_device_that_was_wiped_starts_on_a_damaged_file_and_keeps_nothing_of_it(van: Van) -> None:
    another_text(van.path)
    with contextlib.closing(Rows(van.path, Keys.none())) as rows:
        assert rows.mend() is not None
        assert len(rows) == 0
    assert not list(van.path.parent.glob("roster.damaged*"))


# -- a whole device -------------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.timeout(150)
async def test_a_device_whose_roster_is_noise_starts_lets_nobody_in_and_mends_itself(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        site, file = van.site, tmp_path / "state" / "roster.db"
        await fleet.push(range(MANY))
        pages = (await van.completed(1))["pages"]
        await van.tells(lambda status: status["knowledge"]["freshness"] == "fresh")
        # One failure that must not be forgotten: Boris has no PIN.
        van.badge.present(OTHER)
        await van.heard("identity.factor_shown")
        van.keypad.scan("11111111")
        await van.heard("identity.refused")
        await site.kill_agent()
        before = remembered(file.parent)
        assert any(key.startswith("subject/") for key in before)
        assert before[HELD] == {"roster": 1}

        another_text(file)
        site.relay.cut()
        van.badge.remove()
        await van.start()
        van.badge.present(BADGE)
        await site.until(lambda: site.logged("roster was damaged"), "the damage")
        assert file.with_name("roster.damaged-1.db").read_bytes() == b"no roster" * 1000
        # Answered while there is nothing to know anybody by.
        site.relay.restore()
        await van.heard("identity.refused", 2)
        assert site.of("identity.refused")[1]["data"]["outcome"] == "unknown"
        await van.heard("fleet.bundle_completed", 2)
        assert site.of("fleet.bundle_completed")[1]["data"]["changed"] == pages
        await van.tells(lambda status: status["knowledge"]["freshness"] == "fresh")

        # While it runs: met by whoever is looked up, mended at once.
        spoil(file, 0, os.urandom(file.stat().st_size))
        van.badge.remove()
        van.badge.present(OTHER)
        await van.heard("fleet.bundle_completed", 3)
        await site.kill_agent()
        assert remembered(file.parent) == before

        file.unlink()
        await van.start()
        await van.heard("fleet.bundle_completed", 4)
        await van.tells(lambda status: status["knowledge"]["freshness"] == "fresh")
        van.badge.remove()
        van.badge.present(BADGE)
        await van.heard("identity.factor_shown", 2)
        entries = site.of("identity.roster_damaged")
        assert not unlike(entries)
        told = [entry["data"] for entry in entries]
        files = ["roster.damaged-1.db", "roster.damaged-2.db", None]
        assert [(each["file"], each["kept"], each["more_may_be_lost"]) for each in told] == [
            (name, 0, True) for name in files
        ]
        assert told[2]["reason"] == "expected a roster.db, got none"
        assert not site.of("agent.fault", "fleet.page_refused")


def remembered(state: Path) -> dict[str, Any]:
    """What must never roll back."""
    with contextlib.closing(sqlite3.connect(state / "journal.db")) as store:
        rows = store.execute("SELECT * FROM record").fetchall()
    return {key: json.loads(value) for key, value, *_ in rows if key.startswith(("subject/", HELD, PREFIX))}


def test_a_command_leaves_a_damaged_roster_to_the_agent_and_who_is_erased_is_in_no_copy(
    tmp_path: Path,
) -> None:
    made = Postern(tmp_path)
    add = ("roster", "add", "--config", made.config, "drv-7f3a91", "badge")
    assert made.run(*add, said=b"0100a3e9ae\n")[0] == 0
    a_table_short(made.state / "roster.db")
    code, _, err = made.run(*add, said=b"0100a3e9ae\n")
    assert code == 2
    assert "damaged (expected the tables of a roster, got others: page); the agent replaces it" in err
    with made.agent():
        assert (made.state / "roster.damaged-1.db").exists()
        code, out, _ = made.run("identity", "erase", "--config", made.config, "drv-7f3a91")
        assert (code, out.splitlines()[0][:15]) == (0, "erased: 1 rows,")
        assert "damaged rosters that were set aside, deleted as well: 1" in out
        assert not list(made.state.glob("roster.damaged*"))
    told = {entry["type"]: entry["data"] for entry in entries(made)}
    assert told["postern.identity.roster_damaged"]["kept"] == 1
    assert told["postern.identity.erased"]["copies"] == 1
