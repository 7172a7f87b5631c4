"""The journal on real files: what an entry is, in what order, and what survives."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import tail, writer
from agent.clock import NS, Moment, Trust
from agent.entry import compact
from agent.journal import Journal
from agent.workflow import Draft, Lane
from agent.writer import JournalDamaged, JournalFailed
from tests.test_writer import Gate, Trouble

SOURCE = "/postern/parcels/van-0042"
AT = Moment("boot-1", 5 * NS, 1_795_507_200 * NS + 123_456_789, Trust.NTP, 0.1)
NOWHERE = {"position": None, "position_reason": "no_receiver"}
ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Journal]:
    kept = Journal(folder / "journal.db", source=SOURCE, **more)
    await kept.open()
    try:
        yield kept
    finally:
        await kept.close()


def scan(n: int) -> Draft:
    return Draft("custody.scanned", f"sscc:{n}", {"n": n})


async def append(kept: Journal, *numbers: int, records: Mapping[str, Any] | None = None) -> None:
    await kept.append([scan(n) for n in numbers], AT, NOWHERE, records)


async def numbers(kept: Journal, after: int = 0, *, entries: int = 1000, size: int = 1_000_000) -> list[int]:
    found = await kept.read(after, entries=entries, size=size)
    assert [stored.sequence for stored in found] == list(range(after + 1, after + 1 + len(found)))
    return [json.loads(stored.line)["data"]["n"] for stored in found]


# -- what an entry is -----------------------------------------------------------------------------


async def test_an_entry_is_one_cloud_event_on_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        draft = Draft("custody.scanned", "sscc:1", {"text": "a\nb\u2028c"}, Lane.CUSTODY)
        await kept.append([draft], AT, {"position": {"lat": 48.1, "lon": 11.5, "age_s": 0.5}})
        (stored,) = await kept.read(0, entries=10, size=10_000)
        assert b"\n" not in stored.line
        assert json.loads(stored.line) == {
            "specversion": "1.0",
            "id": f"{kept.epoch}-1",
            "source": SOURCE,
            "type": "postern.custody.scanned",
            "subject": "sscc:1",
            "time": "2026-11-24T08:00:00.123456Z",
            "sequence": "1",
            "lane": "custody",
            "data": {
                "text": "a\nb\u2028c",
                "clock": {"boot": "boot-1", "mono_ns": 5 * NS, "trust": "ntp", "error_s": 0.1},
                "position": {"lat": 48.1, "lon": 11.5, "age_s": 0.5},
            },
        }


async def test_an_entry_without_a_position_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        await append(kept, 1)
        (stored,) = await kept.read(0, entries=1, size=1)
        data = json.loads(stored.line)["data"]
        assert (data["position"], data["position_reason"]) == (None, "no_receiver")


async def test_sequences_go_on_without_gaps_over_restarts(tmp_path: Path) -> None:
    epochs = set()
    for n in range(3):
        async with opened(tmp_path) as kept:
            epochs.add(kept.epoch)
            assert kept.last == n * 2
            await append(kept, n * 2 + 1, n * 2 + 2)
    async with opened(tmp_path) as kept:
        assert await numbers(kept) == [1, 2, 3, 4, 5, 6]
    assert len(epochs) == 1


async def test_a_new_file_is_a_new_epoch(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(tmp_path) as one, opened(tmp_path / "other") as other:
        assert one.epoch != other.epoch


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), {1, 2}, b"bytes", "\ud800"])
async def test_what_is_not_json_is_refused_and_leaves_no_gap(tmp_path: Path, wrong: object) -> None:
    async with opened(tmp_path) as kept:
        with pytest.raises((ValueError, TypeError)):
            kept.append([scan(1), Draft("a.b", "c", {"wrong": wrong})], AT, NOWHERE, {"key": 1})
        with pytest.raises((ValueError, TypeError)):
            kept.append([scan(1)], AT, NOWHERE, {"key": 1, "wrong": wrong})
        assert "key" not in kept.records
        await append(kept, 1, 2)
        assert await numbers(kept) == [1, 2]


# -- durable before anything is acknowledged -------------------------------------------------------


async def test_an_entry_is_read_only_once_it_is_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        gate = Gate()
        held = kept._writer.submit(gate)
        await gate.reached()
        done = kept.append([scan(1)], AT, NOWHERE)
        assert (kept.last, await kept.read(0, entries=10, size=10_000)) == (0, [])
        gate.open()
        await held
        await done
        assert (kept.last, await numbers(kept)) == (1, [1])


async def test_a_checkpoint_is_found_by_its_size(tmp_path: Path) -> None:
    async with opened(tmp_path, key=bytes(32)) as kept:
        await append(kept, *range(64))
        await append(kept, 64)
        assert kept.notary is not None
        assert await kept.checkpoint_at(64) == kept.notary.note
        assert await kept.checkpoint_at(63) is None


async def test_what_is_in_use_is_measured_with_every_tile(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        empty = kept.used
        await append(kept, *range(255))
        assert kept.used == empty > 0
        await append(kept, 255)
        measured = kept.used
        assert measured > empty
        await append(kept, *range(200))
        await kept.measure()
        assert kept.used > measured


async def test_watchers_are_called_once_entries_are_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        seen: list[int] = []
        kept.watch(lambda: seen.append(kept.last))
        await append(kept, 1, 2)
        await kept.append([], AT, NOWHERE, {"key": 1})
        await append(kept, 3)
        assert seen == [2, 3]


async def test_an_append_that_nobody_waits_for_any_more_is_still_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        gate = Gate()
        held = kept._writer.submit(gate)
        await gate.reached()
        kept.append([scan(1)], AT, NOWHERE).cancel()
        gate.open()
        await held
        await append(kept, 2)
        assert await numbers(kept) == [1, 2]
        assert await numbers(kept, after=1) == [2]


async def test_a_journal_that_failed_takes_nothing_more(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "journal.db", source=SOURCE)
    await kept.open()
    await append(kept, 1)
    broken = kept._writer.submit(lambda connection: connection.execute("nonsense"))
    unanswered = kept.append([scan(2)], AT, NOWHERE)
    for future in (broken, unanswered, kept.save()):
        with pytest.raises(JournalFailed):
            await future
    with pytest.raises(JournalFailed):
        await kept.alive()
    assert kept.failed.done()
    assert kept.last == 1
    await kept.close()


# -- reading back ----------------------------------------------------------------------------------


@pytest.fixture(params=["from memory", "from the file"])
async def hundred(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    """A hundred entries, as they are read from the tail in memory and from the file."""
    async with opened(tmp_path) as kept:
        await append(kept, *range(1, 101))
        if request.param == "from memory":
            yield kept
            return
    async with opened(tmp_path) as kept:
        yield kept


@pytest.mark.parametrize(
    ("after", "entries", "expected"),
    [
        (0, 1000, range(1, 101)),
        (0, 10, range(1, 11)),
        (37, 3, range(38, 41)),
        (99, 10, range(100, 101)),
        (100, 10, ()),
        (500, 10, ()),
    ],
)
async def test_entries_are_read_in_order_and_no_more_than_asked_for(
    hundred: Journal, after: int, entries: int, expected: range
) -> None:
    assert await numbers(hundred, after, entries=entries) == list(expected)


async def test_no_more_bytes_are_read_than_asked_for_but_one_entry_always(hundred: Journal) -> None:
    lines = [len(stored.line) + 1 for stored in await hundred.read(0, entries=10, size=1_000_000)]
    assert await numbers(hundred, size=sum(lines[:4])) == [1, 2, 3, 4]
    assert await numbers(hundred, size=sum(lines[:4]) - 1) == [1, 2, 3]
    assert await numbers(hundred, size=0) == [1]


@pytest.mark.parametrize(("entries", "size"), [(20, 1_000_000), (1000, 20 * 400)])
async def test_what_memory_no_longer_holds_comes_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int, size: int
) -> None:
    monkeypatch.setattr(tail, "ENTRIES", entries)
    monkeypatch.setattr(tail, "BYTES", size)
    async with opened(tmp_path) as kept:
        for n in range(1, 101):
            await append(kept, n)
        assert kept.recent(40) is None
        assert kept.recent(99) is not None
        for after in range(0, 101, 7):
            assert await numbers(kept, after) == list(range(after + 1, 101))


# -- records ---------------------------------------------------------------------------------------


async def test_records_are_there_again_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        await append(kept, 1, records={"a": {"x": 1}, "b": [2], "c": "ü"})
        await append(kept, 2, records={"b": None, "c": "changed"})
        kept.ride({"cursor": 2})
    async with opened(tmp_path) as kept:
        assert {key: kept.records.get(key) for key in ("a", "b", "c", "cursor")} == {
            "a": {"x": 1},
            "b": None,
            "c": "changed",
            "cursor": 2,
        }


async def test_what_rides_goes_with_the_next_append(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        kept.ride({"cursor": 7})
        await append(kept, 1, records={"a": 1})
        assert kept._riding == {}
    async with opened(tmp_path) as kept:
        assert (kept.records["cursor"], kept.records["a"]) == (7, 1)


async def test_of_a_record_that_rides_and_is_given_the_one_given_last_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        kept.ride({"a": 1, "b": 1})
        await append(kept, 1, records={"a": 2, "b": None})
        expected = {**kept.records}
    async with opened(tmp_path) as kept:
        assert kept.records == expected == {"epoch": kept.epoch, "a": 2}


async def test_a_new_journal_holds_its_epoch_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        assert set(kept.records) == {"epoch"}


async def test_looking_over_finds_an_entry_that_is_not_as_it_was_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        for n in range(1, 301):
            await append(kept, n)
        await kept.look_over(0)
        await kept.look_over(1)
        assert not kept.failed.done()
        change = "UPDATE entry SET line = replace(line, '\"n\":10', '\"n\":11') WHERE sequence = 10"
        await kept._writer.submit(lambda connection: connection.execute(change).fetchall())
        await kept.look_over(0)
        assert isinstance(kept.failed.result(), JournalDamaged)


# -- files that are not what they should be --------------------------------------------------------


def spoil(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("PRAGMA user_version=7", "expected schema 1, got 7"),
        ("PRAGMA user_version=0", "expected schema 1, got 0"),
        ("DELETE FROM record WHERE key = 'epoch'", "holds what nobody wrote: KeyError"),
        ("UPDATE record SET value = 'not json'", "holds what nobody wrote: JSONDecodeError"),
        (
            "UPDATE record SET value = '\"other\"' WHERE key = 'epoch'",
            "expected the newest entry to be other-2, got ",
        ),
        ("UPDATE entry SET line = '[]' WHERE sequence = 2", "holds what nobody wrote: TypeError"),
        ("UPDATE entry SET sequence = 9 WHERE sequence = 2", "-9, got "),
        ("DROP TABLE entry", "no such table: entry"),
    ],
)
async def test_a_file_that_does_not_agree_with_itself_is_not_used(
    tmp_path: Path, statement: str, why: str
) -> None:
    async with opened(tmp_path) as kept:
        await append(kept, 1, 2)
    spoil(tmp_path / "journal.db", statement)
    broken = Journal(tmp_path / "journal.db", source=SOURCE)
    with pytest.raises(JournalFailed, match=why):
        await broken.open()
    await broken.close()


async def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    spoil(tmp_path / "journal.db", "CREATE TABLE theirs (x)")
    kept = Journal(tmp_path / "journal.db", source=SOURCE)
    with pytest.raises(JournalFailed, match="not a journal"):
        await kept.open()
    await kept.close()


# -- a disk that is full ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode:
        why = f"cannot mount a small disk: {made.stderr.strip()}"
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(why)
        pytest.skip(why)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


@pytest.mark.root
async def test_a_full_disk_is_waited_out_and_nothing_is_lost_or_acknowledged(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_RETRY_S", 0.01)
    trouble = Trouble()
    async with opened(small_disk, on_trouble=trouble.said.put_nowait) as kept:
        await append(kept, 1)
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            fill(ballast)
        waiting = [kept.append([scan(n)], AT, NOWHERE, {"last": n}) for n in range(2, 400)]
        assert await trouble.next() == "database or disk is full"
        unanswered = [future for future in waiting if not future.done()]
        assert unanswered
        assert await numbers(kept) == list(range(1, kept.last + 1))
        await kept.alive()
        ballast.unlink()
        await asyncio.gather(*waiting)
        assert await trouble.next() is None
        assert await numbers(kept) == list(range(1, 400))
    async with opened(small_disk) as kept:
        assert await numbers(kept) == list(range(1, 400))
        assert kept.records["last"] == 399


# -- a sync that fails, a process that is killed ---------------------------------------------------

APPENDING = """
import asyncio, sys
from pathlib import Path
from agent.clock import Moment
from agent.journal import Journal
from agent.workflow import Draft
from agent.writer import JournalFailed

async def main():
    journal = Journal(Path(sys.argv[1]), source="/postern/t/d")
    await journal.open()
    at = Moment("boot", 1, 1_795_507_200_000_000_000)
    window = asyncio.Semaphore(8)

    async def one(n):
        async with window:
            drafts = [Draft("custody.scanned", "s", {"n": 2 * n + k}) for k in (1, 2)]
            await journal.append(drafts, at, {"position": None}, {"last": 2 * n + 2})
            print(2 * n + 2, flush=True)

    async with asyncio.TaskGroup() as group:
        for n in range(journal.last // 2, journal.last // 2 + 20_000):
            group.create_task(one(n))

reason = None
try:
    asyncio.run(main())
except* JournalFailed as failed:
    reason = f"failed: {failed.exceptions[0]}"
sys.exit(reason)
"""


async def check(path: Path, acknowledged: int) -> None:
    """What a process that ended in the middle of appending must have left behind."""
    async with opened(path.parent) as kept:
        assert kept.last >= acknowledged
        found = await numbers(kept, entries=100_000, size=1 << 30)
        assert found == list(range(1, kept.last + 1))
        assert kept.last % 2 == 0
        assert kept.records["last"] == kept.last
        (newest,) = await kept.read(kept.last - 1, entries=1, size=1)
        assert json.loads(newest.line)["id"] == f"{kept.epoch}-{kept.last}"


def acknowledged_when_killed(path: Path, lines: int) -> int:
    """The latest that a process acknowledged which is killed after so many acknowledgements."""
    command = [sys.executable, "-c", APPENDING, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    return max(acknowledged)


async def test_a_process_killed_while_appending_leaves_no_gap_and_loses_nothing(tmp_path: Path) -> None:
    path, epochs = tmp_path / "journal.db", set()
    for lines in (1, 2, 5, 40, 150, 400):
        await check(path, acknowledged_when_killed(path, lines))
        async with opened(tmp_path) as kept:
            epochs.add(kept.epoch)
    assert len(epochs) == 1


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=50)


@pytest.fixture
def strace() -> list[str]:
    """The tracer, if it may trace here."""
    command = ["strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
    try:
        tried = run([*command, "true"])
        why = tried.stderr.strip() if tried.returncode else ""
    except FileNotFoundError as error:
        why = str(error)
    if not why:
        return command
    why = f"cannot trace a process here: {why}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.mark.root
@pytest.mark.parametrize("sync", [1, 4, 9, 30])
async def test_a_failed_sync_ends_the_process_and_nothing_unsynced_was_acknowledged(
    tmp_path: Path, strace: list[str], sync: int
) -> None:
    path = tmp_path / "journal.db"
    async with opened(tmp_path) as kept:
        await append(kept, 1, 2, records={"last": 2})
    inject = ["-e", f"inject=fsync,fdatasync:error=EIO:when={sync}+"]
    ended = run([*strace, *inject, sys.executable, "-c", APPENDING, str(path)])
    assert (ended.returncode, ended.stderr) == (1, f"failed: {path}: disk I/O error\n")
    await check(path, max([int(line) for line in ended.stdout.split()], default=2))


def test_json_is_stored_without_spaces_and_as_utf_8() -> None:
    assert compact({"a": [1, "ü"], "b": None}) == '{"a":[1,"ü"],"b":null}'.encode()
