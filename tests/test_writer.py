"""The writer thread on real files: order, group commit, failure, and an end in every case."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import writer
from agent.writer import JournalBusy, JournalFailed, Writer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Writer]:
    store = Writer(tmp_path / "journal.db")
    await store.open()
    await store.submit(create)
    yield store
    await store.close()


def create(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t (n INTEGER)")


def insert(n: int) -> writer.Job[int]:
    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (n,))
        return n

    return job


def everything(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY rowid")]


def fail(connection: sqlite3.Connection) -> None:
    raise sqlite3.OperationalError("the disk is broken")


class Gate:
    """A job that holds the thread until it is let go."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._go = threading.Event()

    def __call__(self, _: sqlite3.Connection) -> None:
        self._reached.set()
        self._go.wait(10)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)

    def open(self) -> None:
        self._go.set()


async def test_jobs_run_in_order_and_give_back_their_results(store: Writer) -> None:
    results = await asyncio.gather(*[store.submit(insert(n)) for n in range(100)])
    assert results == list(range(100))
    assert await store.submit(everything, reads=True) == list(range(100))


async def test_what_queues_up_during_a_commit_is_committed_together(store: Writer) -> None:
    gate = Gate()
    held = store.submit(gate)
    await gate.reached()
    waiting = [store.submit(insert(n)) for n in range(50)]
    before = store.submit(lambda connection: connection.total_changes)
    gate.open()
    await asyncio.gather(held, *waiting)
    # All fifty had been made, in one transaction, when the job behind them was run.
    assert await before - (await store.submit(lambda connection: connection.total_changes)) == 0


async def test_a_job_that_may_wait_rides_with_the_next_that_may_not(store: Writer) -> None:
    riding = store.submit(insert(1), wait=False)
    await store.submit(insert(2))
    assert riding.done()
    assert await store.submit(everything, reads=True) == [1, 2]


async def test_a_job_that_may_wait_is_not_kept_back_for_ever(
    store: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RIDE_S", 0.01)
    assert await store.submit(insert(1), wait=False) == 1


async def test_what_may_wait_is_committed_at_the_close(tmp_path: Path) -> None:
    store = Writer(tmp_path / "journal.db")
    await store.open()
    await store.submit(create)
    riding = store.submit(insert(1), wait=False)
    await store.close()
    assert riding.result() == 1


async def test_then_is_called_before_whoever_awaits_goes_on(store: Writer) -> None:
    order: list[str] = []
    await store.submit(insert(1), then=lambda: order.append("then"))
    order.append("awaited")
    assert order == ["then", "awaited"]


async def test_then_is_called_though_whoever_asked_has_gone(store: Writer) -> None:
    gate, called = Gate(), asyncio.Event()
    held = store.submit(gate)
    await gate.reached()
    store.submit(insert(1), then=called.set).cancel()
    gate.open()
    await held
    async with asyncio.timeout(10):
        await called.wait()
    assert await store.submit(everything, reads=True) == [1]


async def test_commits_are_full_exclusive_and_in_the_log(store: Writer) -> None:
    def settings(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "locking_mode")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store.submit(settings, reads=True) == ["wal", 2, "exclusive"]


async def test_only_the_owner_may_read_the_file(store: Writer) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_another_holds_is_busy(store: Writer) -> None:
    other = Writer(store.path)
    with pytest.raises(JournalBusy, match="locked"):
        await other.open()
    with pytest.raises(JournalBusy):
        await other.submit(everything)
    await other.close()


async def test_a_closed_file_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(3):
        store = Writer(tmp_path / "journal.db")
        await store.open()
        await store.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no/such/folder", "No such file or directory"),
        ("folder", "unable to open database file"),
        ("garbage", "file is not a database"),
    ],
)
async def test_a_file_that_cannot_be_opened_leaves_no_thread(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    store = Writer(tmp_path / name)
    with pytest.raises(JournalFailed, match=why):
        await store.open()
    assert "journal" not in {thread.name for thread in threading.enumerate()}
    await store.close()


async def test_a_writer_never_opened_can_be_closed(tmp_path: Path) -> None:
    await Writer(tmp_path / "journal.db").close()


async def test_an_opening_that_is_given_up_ends_its_thread(tmp_path: Path) -> None:
    store = Writer(tmp_path / "journal.db")
    opening = asyncio.create_task(store.open())
    asyncio.get_running_loop().call_soon(opening.cancel)
    with pytest.raises(asyncio.CancelledError):
        await opening
    await store.close()


async def test_a_failure_is_final_and_reaches_everyone(tmp_path: Path) -> None:
    store = Writer(tmp_path / "journal.db")
    await store.open()
    await store.submit(create)
    gate = Gate()
    held = store.submit(gate)
    await gate.reached()
    first, broken, later = store.submit(insert(1)), store.submit(fail), store.submit(insert(2))
    gate.open()
    await held
    for future in (first, broken, later):
        with pytest.raises(JournalFailed, match="the disk is broken"):
            await future
    assert "the disk is broken" in str(await store.failed)
    with pytest.raises(JournalFailed, match="the disk is broken"):
        await store.submit(insert(3))
    await store.close()
    await store.close()


async def test_nothing_of_a_failed_transaction_is_kept(tmp_path: Path) -> None:
    store = Writer(tmp_path / "journal.db")
    await store.open()
    await store.submit(create)
    store.submit(insert(1))
    store.submit(fail)
    await store.failed
    await store.close()
    store = Writer(tmp_path / "journal.db")
    await store.open()
    assert await store.submit(everything, reads=True) == []
    await store.close()


async def test_a_failure_that_nobody_awaits_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    store = Writer(tmp_path / "journal.db")
    await store.open()
    store.submit(fail)
    store.submit(insert(1))
    await store.failed
    store.submit(insert(2))
    await store.close()
    assert not told


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_job_that_is_wrong_fails_the_store_instead_of_hanging_it(tmp_path: Path) -> None:
    def wrong(_: sqlite3.Connection) -> None:
        raise LookupError("no such thing")

    store = Writer(tmp_path / "journal.db")
    await store.open()
    with pytest.raises(JournalFailed, match="LookupError in a job"):
        await store.submit(wrong)
    await store.close()


async def test_a_job_after_the_close_is_refused(tmp_path: Path) -> None:
    store = Writer(tmp_path / "journal.db")
    await store.open()
    await store.close()
    with pytest.raises(JournalFailed, match="closed"):
        await store.submit(insert(1))
    assert not store.failed.done()


async def test_a_commit_that_hangs_does_not_keep_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CLOSE_S", 0.01)
    store = Writer(tmp_path / "journal.db")
    await store.open()
    gate = Gate()
    held = store.submit(gate)
    await gate.reached()
    queued = store.submit(create)
    await store.close()
    assert "took more than" in str(store.failed.result())
    with pytest.raises(JournalFailed):
        await queued
    gate.open()
    await held
    await asyncio.to_thread(store._thread.join)


def refuse(connection: sqlite3.Connection) -> None:
    """Let the file grow no further, as on a disk that is full."""
    connection.execute("PRAGMA max_page_count = 1")


class Trouble:
    """Keeps what the writer says of its trouble, and lets a test wait for it."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str | None] = asyncio.Queue()

    async def next(self) -> str | None:
        async with asyncio.timeout(10):
            return await self.said.get()


def big(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")


def release(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1000000")


async def test_while_there_is_no_room_nothing_is_acknowledged_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_RETRY_S", 0.01)
    trouble = Trouble()
    store = Writer(tmp_path / "journal.db", trouble.said.put_nowait)
    await store.open()
    await store.submit(create)
    await store.submit(insert(1))
    await store.submit(refuse, reads=True)
    writing = store.submit(big)
    assert await trouble.next() == "database or disk is full"
    behind = store.submit(insert(2))
    assert await store.submit(everything, reads=True) == [1]
    assert not writing.done()
    assert not behind.done()
    await store.submit(release, reads=True)
    await writing
    assert await behind == 2
    assert await trouble.next() is None
    await store.close()


async def test_a_close_without_room_gives_up_and_says_so(tmp_path: Path) -> None:
    trouble = Trouble()
    store = Writer(tmp_path / "journal.db", trouble.said.put_nowait)
    await store.open()
    await store.submit(create)
    await store.submit(refuse, reads=True)
    writing = store.submit(big)
    await trouble.next()
    await store.close()
    with pytest.raises(JournalFailed, match="full"):
        await writing
    assert "full" in str(store.failed.result())
