"""A damaged journal never stops the device, and what is good in it goes on."""

import sqlite3
from pathlib import Path

import pytest

from tests.rig import Rig, labels
from tests.site import Entry

pytestmark = pytest.mark.broker

PAGE = 1024


async def recorded(rig: Rig, *names: str) -> Path:
    """A journal with scans that the fleet has never heard of; its agent is dead."""
    rig.relay.cut()
    await rig.start()
    await rig.scan_all(names)
    await rig.stop_agent()
    return rig.folder / "state" / "journal.db"


def page_of(path: Path, sequence: int) -> int:
    """Where an entry's bytes lie in the file."""
    with sqlite3.connect(path) as connection:
        (line,) = connection.execute("SELECT line FROM entry WHERE sequence = ?", (sequence,)).fetchone()
    connection.close()
    return path.read_bytes().index(line[:100]) // PAGE


async def told_of_damage(rig: Rig) -> Entry:
    await rig.until(lambda: rig.of("journal.damaged"), "what was saved")
    (entry,) = rig.of("journal.damaged")
    await rig.until(lambda: rig.fleet.devices[rig.device].online, "the birth")
    return entry


@pytest.mark.timeout(120)
async def test_a_damaged_journal_is_set_aside_and_what_is_good_in_it_reaches_the_fleet(
    tmp_path: Path,
) -> None:
    names = labels("old", 200)
    async with Rig(tmp_path) as rig:
        path = await recorded(rig, *names)
        damaged = bytearray(path.read_bytes())
        # The newest entries' page is read at every start: damage there cannot be missed.
        at = page_of(path, 200) * PAGE
        damaged[at : at + PAGE] = bytes(PAGE)
        newest = page_of(path, 204) * PAGE
        damaged[newest : newest + PAGE] = bytes(PAGE)
        path.write_bytes(damaged)

        rig.relay.restore()
        await rig.start()
        await rig.scan_and_hear("new-000001")
        entry = await told_of_damage(rig)
        kept, copied = entry["data"]["kept"], entry["data"]["copied"]
        await rig.until(lambda: len(rig.of("custody.seen")) > copied - 20, "the old entries")
        (opened,) = [each for each in rig.of("journal.opened") if each["data"]["previous"]]
        assert opened["data"]["previous"]["file"] == entry["data"]["file"]
        assert (path.parent / entry["data"]["file"]).read_bytes() == bytes(damaged)
        lost = {n for first, last in entry["data"]["lost"] for n in range(first, last + 1)}
        epoch = entry["data"]["epoch"]
        await rig.until(
            lambda: sum(each["id"].startswith(epoch) for each in rig.entries) >= kept, "all that was kept"
        )
        there = {int(each["sequence"]) for each in rig.entries if each["id"].startswith(epoch)}
        assert there.isdisjoint(lost)
        assert len(there) == kept
        assert "new-000001" in rig.taken()


@pytest.mark.timeout(60)
async def test_a_journal_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        path = await recorded(rig, *labels("old", 3))
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE record ADD COLUMN more")
            connection.execute("PRAGMA user_version=2")
        connection.close()
        before = path.read_bytes()
        await rig.start_agent()
        await rig.until(lambda: any("journal failed" in str(each) for each in rig.events), "the refusal")
        assert path.read_bytes() == before
        assert not list(path.parent.glob("*damaged*"))
