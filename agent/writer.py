"""The one thread that touches the journal's SQLite file.

Jobs queue up while the last commit is being synced, and all that queued up is committed together: group
commit without linger. `wait=False` jobs (a cursor, say) do not ask for a commit of their own; they ride
with the next one, or go after a few seconds.

WAL with `synchronous=FULL` makes every commit durable. `locking_mode=EXCLUSIVE`, set before WAL, keeps
every other process out, and with that a known corruption in the shared-memory WAL index of older SQLite.

A write that finds no room is waited out: nothing is acknowledged meanwhile, `trouble` says so, and jobs that
only read are still answered. Any other failure is final. After a failed sync nobody knows what is on the
disk, so the thread ends, and the process with it. (SQLite keeps the failed sync of a checkpoint to itself,
and may: what it could not copy is still in the log, and is copied again by the next one.)
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
CLOSE_S = 10.0
"""Longest that the last commit may take; a disk that hangs must not keep the process from ending."""

# IOERR_WRITE is a quota used up or a file system gone read-only. As with FULL nothing was promised yet.
_NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}


class NotAsWritten(sqlite3.DatabaseError):
    """SQLite can read it, and it cannot be what we wrote."""


class JournalFailed(Exception):
    """The store cannot be trusted any more: stop every action and end the process."""


class JournalDamaged(JournalFailed):
    """The file is not as it was written: to be set aside, and what is good in it to be taken over."""


class JournalBusy(JournalFailed):
    """Another process holds the file."""


@dataclass(slots=True)
class _Queued:
    job: Job[Any]
    done: asyncio.Future[Any]
    wait: bool
    reads: bool
    then: Callable[[], None] | None


class Writer:
    """Runs jobs on the connection, in order, each batch in one transaction."""

    def __init__(self, path: Path, on_trouble: Callable[[str | None], None] = lambda _: None) -> None:
        self.path = path
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = threading.Event()
        self._last_taken = False
        self._ride_until = 0.0
        self._refusal: JournalFailed | None = None
        """Why no job is taken any more."""
        self.failed: asyncio.Future[JournalFailed] = self._loop.create_future()
        """Gets the reason when the store has failed for good."""

    async def open(self) -> None:
        """Raises JournalFailed, or JournalBusy while another process holds the file."""
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except JournalFailed as failed:
            self._refusal = failed
            self._thread.join()
            raise
        except asyncio.CancelledError:
            self._queue.put(None)
            raise

    def submit(
        self, job: Job[T], *, wait: bool = True, reads: bool = False, then: Callable[[], None] | None = None
    ) -> asyncio.Future[T]:
        """Queue a job. The future is done once the job's transaction is on stable storage.

        A job that only `reads` is answered even while there is no room to write. `then` is called on the
        loop when the transaction is durable, before whoever awaits the future, and even if nobody does.
        """
        done: asyncio.Future[T] = self._loop.create_future()
        if self._refusal is not None:
            _refuse(done, self._refusal)
        else:
            self._queue.put(_Queued(job, done, wait, reads, then))
        return done

    def condemn(self, reason: str) -> None:
        """The file was found not to be as it was written: take nothing more."""
        self._failed(JournalDamaged(f"{self.path}: {reason}"), [])

    async def close(self) -> None:
        """Commit what is queued and end the thread. What finds no room on the disk is given up."""
        if self._thread.ident is None:
            return
        self._refusal = self._refusal or JournalFailed(f"{self.path}: closed")
        self._closing.set()
        self._queue.put(None)
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self._failed(JournalFailed(f"{self.path}: the last commit took more than {CLOSE_S:g} s"), [])
            self._queue.put(None)
            return
        self._thread.join()

    # -- on the loop ------------------------------------------------------------------------------

    def _failed(self, reason: JournalFailed, batch: list[_Queued]) -> None:
        self._refusal = reason
        if not self.failed.done():
            self.failed.set_result(reason)
        left = list(batch)
        with contextlib.suppress(queue.Empty):
            while queued := self._queue.get_nowait():
                left.append(queued)
        for queued in left:
            _refuse(queued.done, reason)

    def _committed(self, batch: list[_Queued], results: list[Any]) -> None:
        for queued, result in zip(batch, results, strict=True):
            if queued.then is not None:
                self._loop.call_soon(queued.then)
            _resolve(queued.done, result)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError) as error:
            kind = JournalBusy if _name(error) in ("SQLITE_BUSY", "SQLITE_LOCKED") else JournalFailed
            why = error.strerror if isinstance(error, OSError) else error
            self._tell(_refuse, self._opened, kind(f"{self.path}: {why}"))
        else:
            self._tell(_resolve, self._opened, None)
            with contextlib.closing(connection):
                self._serve(connection)
        finally:
            self._tell(_resolve, self._ended, None)

    def _connect(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=0)
        try:
            # Small pages: a lone scan touches three or four, and each is written whole.
            connection.execute("PRAGMA page_size=1024")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError(f"expected journal mode wal, got {mode}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA temp_store=MEMORY")
            # Where SQLite is built to zero what is deleted, pruning would write every page it frees.
            connection.execute("PRAGMA secure_delete=FAST").fetchall()
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _serve(self, connection: sqlite3.Connection) -> None:
        batch: list[_Queued] = []
        try:
            while not self._last_taken:
                self._collect(batch)
                if self._due(batch):
                    self._commit(connection, batch)
                self._answer_readers(connection, batch)
        except sqlite3.Error as error:
            kind = JournalDamaged if is_damage(error) else JournalFailed
            self._tell(self._failed, kind(f"{self.path}: {error}"), batch)
        except BaseException as error:
            # A job of ours is wrong. Nobody must wait for ever because of that.
            self._tell(self._failed, JournalFailed(f"{self.path}: {type(error).__name__} in a job"), batch)
            raise

    def _collect(self, batch: list[_Queued]) -> None:
        """Everything that is queued. Waits while nothing asks for a commit or an answer."""
        while True:
            left = max(0.0, self._ride_until - time.monotonic()) if batch else None
            try:
                self._take(batch, self._queue.get(timeout=left))
            except queue.Empty:
                return
            self._take_waiting(batch)
            if self._last_taken or any(queued.wait for queued in batch):
                return

    def _due(self, batch: list[_Queued]) -> bool:
        """Whether something asks for a commit now. Reading never does; riders are kept back for a while."""
        writers = [queued for queued in batch if not queued.reads]
        overdue = self._last_taken or time.monotonic() >= self._ride_until
        return any(queued.wait for queued in writers) or bool(writers and overdue)

    def _take_waiting(self, batch: list[_Queued]) -> None:
        with contextlib.suppress(queue.Empty):
            while not self._last_taken:
                self._take(batch, self._queue.get_nowait())

    def _take(self, batch: list[_Queued], queued: _Queued | None) -> None:
        if queued is None:
            self._last_taken = True
            return
        if not batch:
            self._ride_until = time.monotonic() + RIDE_S
        batch.append(queued)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Queued]) -> None:
        """Commit all writers of the batch, and take them out of it."""
        refused = False
        results: list[Any] = []
        writers: list[_Queued] = []
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                writers = [queued for queued in batch if not queued.reads]
                results = [queued.job(connection) for queued in writers]
                connection.execute("COMMIT")
                break
            except sqlite3.Error as error:
                if _name(error) not in _NO_ROOM or self._closing.is_set():
                    raise
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not refused:
                    self._tell(self._on_trouble, str(error))
                refused = True
            self._answer_readers(connection, batch)
            self._closing.wait(FULL_RETRY_S)
            self._take_waiting(batch)
        if refused:
            self._tell(self._on_trouble, None)
        batch[:] = [queued for queued in batch if queued.reads]
        self._tell(self._committed, writers, results)

    def _answer_readers(self, connection: sqlite3.Connection, batch: list[_Queued]) -> None:
        """Outside a transaction of ours: reading costs no sync."""
        readers = [queued for queued in batch if queued.reads]
        if readers:
            results = [queued.job(connection) for queued in readers]
            batch[:] = [queued for queued in batch if not queued.reads]
            self._tell(self._committed, readers, results)

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        # The loop may be closed already when a process ends without waiting for us.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


def is_damage(error: Exception) -> bool:
    """Whether an error speaks of the file's content, not of the disk or of us."""
    return isinstance(error, NotAsWritten) or _name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _name(error: Exception) -> str:
    """SQLite's name of an error; the module's own errors have none."""
    return str(getattr(error, "sqlite_errorname", ""))


def _resolve(done: asyncio.Future[Any], result: object) -> None:
    if not done.done():
        done.set_result(result)


def _refuse(done: asyncio.Future[Any], reason: JournalFailed) -> None:
    if not done.done():
        done.set_exception(reason)
        # `failed` tells it once; a future that nobody awaits need not tell it again.
        done.exception()
