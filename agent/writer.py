"""The one thread that touches the journal's SQLite file.

Jobs queue up while the last commit is being synced, and all that queued up is committed together: group
commit without linger. `wait=False` jobs (a cursor, say) do not ask for a commit of their own; they ride
with the next one, or go after a few seconds.

WAL with `synchronous=FULL` makes every commit durable. `locking_mode=EXCLUSIVE`, set before WAL, keeps
every other process out, and with that a known corruption in the shared-memory WAL index of older SQLite.

A full disk is waited out: nothing is acknowledged meanwhile, and `trouble` says so. Any other failure is
final. After a failed sync nobody knows what is on the disk, so the thread ends, and the process with it.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

RIDE_S = 5.0
"""Longest that a job which may wait is kept back."""
FULL_RETRY_S = 0.5

_BUSY_OR_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}


class JournalFailed(Exception):
    """The store cannot be trusted any more: stop every action and end the process."""


class JournalBusy(JournalFailed):
    """Another process holds the file."""


@dataclass(slots=True)
class _Queued:
    job: Job[Any]
    done: asyncio.Future[Any]
    wait: bool


class Writer:
    """Runs jobs on the connection, in order, each batch in one transaction."""

    def __init__(self, path: Path, on_trouble: Callable[[str | None], None] = lambda _: None) -> None:
        self.path = path
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self.failed: asyncio.Future[JournalFailed] = self._loop.create_future()
        """Gets the reason when the store has failed for good."""

    async def open(self) -> None:
        """Raises JournalFailed, or JournalBusy while another process holds the file."""
        self._thread.start()
        await self._opened

    def submit(self, job: Job[T], *, wait: bool = True) -> asyncio.Future[T]:
        """Queue a job. The future is done once the job's transaction is on stable storage."""
        done: asyncio.Future[T] = self._loop.create_future()
        if self.failed.done():
            done.set_exception(self.failed.result())
        else:
            self._queue.put(_Queued(job, done, wait))
        return done

    async def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            busy = getattr(error, "sqlite_errorname", "") in ("SQLITE_BUSY", "SQLITE_LOCKED")
            kind = JournalBusy if busy else JournalFailed
            self._tell(self._opened.set_exception, kind(f"{self.path}: {error}"))
            return
        self._tell(self._opened.set_result, None)
        with contextlib.closing(connection):
            batch: list[_Queued] = []
            more = True
            while more:
                more = self._collect(batch)
                try:
                    if batch:
                        self._commit(connection, batch)
                except sqlite3.Error as error:
                    self._fail(JournalFailed(f"{self.path}: {error}"), batch)
                    return
                batch = []

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=0, check_same_thread=False)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        return connection

    def _collect(self, batch: list[_Queued]) -> bool:
        """Everything that is queued; False when it is the last. Waits while nothing asks for a commit."""
        deadline: float | None = None
        while True:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                queued = self._queue.get(timeout=left)
                while queued is not None:
                    batch.append(queued)
                    queued = self._queue.get_nowait()
                return False
            except queue.Empty:
                if any(queued.wait for queued in batch):
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return True
                deadline = deadline or time.monotonic() + RIDE_S

    def _commit(self, connection: sqlite3.Connection, batch: list[_Queued]) -> None:
        waited = False
        results: list[Any] = []
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                results = [queued.job(connection) for queued in batch]
                connection.execute("COMMIT")
                break
            except sqlite3.Error as error:
                if error.sqlite_errorname not in _BUSY_OR_FULL:
                    raise
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if not waited:
                    self._tell(self._on_trouble, str(error))
                waited = True
                time.sleep(FULL_RETRY_S)
        if waited:
            self._tell(self._on_trouble, None)
        self._tell(_resolve, batch, results)

    def _fail(self, reason: JournalFailed, batch: list[_Queued]) -> None:
        def tell() -> None:
            self.failed.set_result(reason)
            left = list(batch)
            with contextlib.suppress(queue.Empty):
                while queued := self._queue.get_nowait():
                    left.append(queued)
            for queued in left:
                if not queued.done.done():
                    queued.done.set_exception(reason)

        self._tell(tell)

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        # The loop may be closed already when a process ends without waiting for us.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


def _resolve(batch: list[_Queued], results: list[Any]) -> None:
    for queued, result in zip(batch, results, strict=True):
        if not queued.done.done():
            queued.done.set_result(result)
