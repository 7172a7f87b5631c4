"""The sealed rows of this device: those that bundles brought, and those that were added here.

How a row is sealed is in `agent.row_seal`.

Rows lie by bundle, bucket and lookup id. All buckets that were sealed under one epoch key, for one number
of buckets, are a *generation* of their bundle. A new page takes the place of its bucket at once; a new
generation is filled beside the one in force and takes its place when it is whole. The fleet's epoch keys
stand here as well, sealed under the pepper, and go with it.

Beside each row stands whose it is, as a digest that only this device can make and that differs from row to
row: with the pepper and somebody's reference, their rows can be found and deleted; with less, nothing can.

Reading is for the loop. Every change is one transaction on a connection of its own, and may be made in a
thread.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag

from agent import slots
from agent.keyfile import FRESH, sync_folder
from agent.row_seal import NONCE, BadPage, Keys, bucket_of, seal_row, unsealed, value_of
from agent.templates import KIND, Finger, Template, Wanted

LOCAL = "local"
"""The bundle of the rows that were added on this device."""
KEY_PAGE = -1
"""The bucket of the page that brings an epoch key."""

BUSY_S = 5.0
_LOCAL = 0
"""The number of its only generation."""

_SCHEMA = (
    "CREATE TABLE generation (number INTEGER PRIMARY KEY, bundle TEXT NOT NULL, buckets INTEGER NOT NULL,"
    " epoch BLOB, current INTEGER NOT NULL, ver INTEGER, as_of INTEGER)",
    "CREATE TABLE page (generation INTEGER, bucket INTEGER, ver INTEGER NOT NULL, sha256 BLOB NOT NULL,"
    " rows INTEGER NOT NULL, seal TEXT, PRIMARY KEY (generation, bucket)) WITHOUT ROWID",
    "CREATE TABLE sealed (generation INTEGER, bucket INTEGER, id BLOB, owner BLOB, sealed BLOB NOT NULL,"
    " PRIMARY KEY (generation, bucket, id)) WITHOUT ROWID",
    "INSERT INTO generation VALUES (0, 'local', 1, NULL, 1, NULL, NULL)",
)
_FROM_FIRST = (
    "INSERT INTO sealed SELECT 0, 0, id, NULL, sealed FROM row",
    "UPDATE generation SET as_of = (SELECT value FROM about WHERE key = 'as_of') WHERE number = 0",
    "DROP TABLE row",
    "DROP TABLE about",
)
"""From the first layout, which knew only rows that were added here."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is held: what was declared of it."""

    ver: int
    sha256: bytes
    rows: int
    seal: str | None = None
    """Which key opened it, by `kid`; None where nobody noted that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The rows of one bundle that share an epoch key and a number of buckets."""

    number: int
    buckets: int
    epoch: bytes
    ver: int | None
    """Version of the bundle that it was last told of as; None while it never was whole."""
    as_of: int | None
    """Seconds since 1970 UTC of the knowledge in it."""

    def __repr__(self) -> str:
        return f"Generation({self.number}, ...)"


class Rows:
    """Owns the file."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.keys = keys
        self.erased: frozenset[str] = frozenset()
        """By `erasure`: whose rows are not to be taken in any more."""
        self._path = path
        self._writer = _connect(path)
        path.chmod(0o600)
        _prepare(self._writer)
        self._reader = _connect(path)
        self._worn: list[sqlite3.Connection] = []
        """On a file that was replaced; somebody may just be reading in it."""
        self._current: dict[str, Generation] = {}
        self._look()
        self._purge()

    def close(self) -> None:
        for each in (self._reader, self._writer, *self._worn):
            each.close()

    # -- by presentation --------------------------------------------------------------------------

    def open(self, bundle: str, kind: str, token: bytes) -> dict[str, Any] | None:
        """The body of the row that this secret opens, from what is in force of the bundle."""
        generation = self._current.get(bundle)
        if generation is None or self.keys.wiped:
            return None
        value = value_of(generation.epoch, kind, token)
        lookup, key, check = self.keys.split(value)
        bucket = bucket_of(value, generation.buckets)
        found = self._reader.execute(
            "SELECT sealed FROM sealed WHERE generation = ? AND bucket = ? AND id = ?",
            (generation.number, bucket, lookup),
        ).fetchone()
        return None if found is None else unsealed(found[0], lookup, key, check)

    def as_of(self, bundle: str) -> int | None:
        """Seconds since 1970 UTC of what is in force of the bundle; None where there is nothing."""
        if bundle != LOCAL:
            generation = self._current.get(bundle)
            return None if generation is None else generation.as_of
        # Another process may have added a row.
        row = self._reader.execute("SELECT as_of FROM generation WHERE number = ?", (_LOCAL,)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def slots(self, bundle: str) -> Mapping[Finger, Wanted]:
        """What is in force of the bundle about the slots of fingerprint modules."""
        generation = self._current.get(bundle)
        if generation is None or self.keys.wiped:
            return {}
        return slots.planned(self._reader, generation.number)

    def page_of(self, bundle: str, value: bytes) -> tuple[int, "Page"] | None:
        """Bucket and page that brought the row whose `v` begins like this, from what is in force."""
        generation = self._current.get(bundle)
        if generation is None:
            return None
        bucket = bucket_of(value, generation.buckets)
        found = self._reader.execute(
            "SELECT ver, sha256, rows, seal FROM page WHERE generation = ? AND bucket = ?",
            (generation.number, bucket),
        ).fetchone()
        return None if found is None else (bucket, Page(*found))

    def __len__(self) -> int:
        return int(self._reader.execute("SELECT count(*) FROM sealed").fetchone()[0])

    # -- rows that are added here -----------------------------------------------------------------

    def put(self, kind: str, token: bytes, body: Mapping[str, Any], *, as_of: int) -> None:
        """Seal a row under the secret that opens it, in place of the one before."""
        with self._change() as execute:
            row = self._sealed(value_of(self.keys.epoch, kind, token), body)
            execute("INSERT OR REPLACE INTO sealed VALUES (?, 0, ?, ?, ?)", (_LOCAL, *row))
            execute("UPDATE generation SET as_of = ? WHERE number = ?", (as_of, _LOCAL))

    def forget(self, kind: str, token: bytes) -> bool:
        """Delete the row that was added here and that this secret opens; False if there is none."""
        lookup, _, _ = self.keys.derive(kind, token)
        with self._change() as execute:
            deleted = execute("DELETE FROM sealed WHERE generation = ? AND id = ?", (_LOCAL, lookup))
            return bool(deleted.rowcount)

    # -- rows that go -----------------------------------------------------------------------------

    def erasure(self, subject: str) -> str:
        """What is kept of somebody who was erased: enough to know their reference again, not to tell it."""
        return self.keys.digest("erased", subject.encode())

    def owned(self, subject: str) -> int:
        """How many rows are this subject's. Goes through all of them: for a thread."""
        with contextlib.closing(_connect(self._path)) as connection:
            owner = slots.owner(self.keys, subject)
            return len(self._of(connection, subject)) + slots.owned(connection, owner)

    def disown(self, subject: str) -> int:
        """Delete every row that is this subject's, wherever it came from. For a thread."""
        with contextlib.closing(_connect(self._path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = self._of(connection, subject)
            connection.executemany(_DELETE, found)
            templates = slots.disown(connection, slots.owner(self.keys, subject))
            connection.execute("COMMIT")
        return len(found) + templates

    def _of(self, connection: sqlite3.Connection, subject: str) -> list[tuple[int, int, bytes]]:
        rows = connection.execute("SELECT generation, bucket, id, owner FROM sealed WHERE owner NOT NULL")
        owner = self.keys.owner
        return [(gen, bucket, id_) for gen, bucket, id_, whose in rows if owner(id_, subject) == whose]

    def wipe(self) -> int:
        """Nothing is opened from now on; every row and epoch key is deleted. How many rows. For a thread."""
        self.keys = Keys.none()
        self._current = {}
        with contextlib.closing(_connect(self._path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            count = int(connection.execute("SELECT count(*) FROM sealed").fetchone()[0])
            for statement in _WIPE:
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA incremental_vacuum").fetchall()
        return count

    # -- rows that bundles bring ------------------------------------------------------------------

    def current(self, bundle: str) -> Generation | None:
        """What is in force of the bundle."""
        return self._current.get(bundle)

    def generation(self, bundle: str, buckets: int, key_page: bytes) -> Generation | None:
        """The one whose epoch key came in the page of this hash, whether in force or being filled."""
        row = self._writer.execute(_BY_KEY_PAGE, (KEY_PAGE, bundle, buckets, key_page)).fetchone()
        return self._generation(row) if row else None

    def begin(self, bundle: str, buckets: int, key_page: Page, epoch_key: bytes) -> Generation:
        """A generation to be filled beside the one in force; any other that was being filled is given up."""
        with self._change() as execute:
            execute("UPDATE generation SET bundle = '' WHERE bundle = ? AND current = 0", (bundle,))
            nonce = os.urandom(NONCE)
            wrapped = nonce + self.keys.wrapping().encrypt(nonce, epoch_key, bundle.encode())
            number = execute(
                "INSERT INTO generation VALUES (NULL, ?, ?, ?, 0, NULL, NULL)",
                (bundle, buckets, wrapped),
            ).lastrowid
            assert number is not None
            execute(_PUT_PAGE, (number, KEY_PAGE, key_page.ver, key_page.sha256, 0, key_page.seal))
        self._purge()
        return Generation(number=number, buckets=buckets, epoch=epoch_key, ver=None, as_of=None)

    def pages(self, generation: Generation) -> dict[int, Page]:
        """What is held, by bucket."""
        found = self._writer.execute(
            "SELECT bucket, ver, sha256, rows, seal FROM page WHERE generation = ?", (generation.number,)
        )
        return {bucket: Page(*page) for bucket, *page in found}

    def replace_bucket(
        self,
        generation: Generation,
        bucket: int,
        page: Page,
        rows: Iterable[tuple[bytes, Mapping[str, Any]]],
        templates: Iterable[Template] = (),
    ) -> None:
        """All rows of a bucket, each `v` and body, with the page that brought them. Of templates only their
        places and digests. Raises BadPage.
        """
        with self._change() as execute:
            _empty(execute, generation.number, bucket)
            placed = [each for each in templates if not self._unwanted({"subject": each.subject})]
            for each in placed:
                _check_template(each, generation, bucket)
            slots.put(execute, self.keys, generation.number, bucket, placed)
            sealed = []
            for value, body in rows:
                if (found := bucket_of(value, generation.buckets)) != bucket:
                    raise BadPage(f"expected rows of bucket {bucket}, got one of {found}")
                if self._unwanted(body):
                    continue
                sealed.append((generation.number, bucket, *self._sealed(value, body)))
            sealed.sort()
            if len({row[2] for row in sealed}) < len(sealed):
                raise BadPage("expected a row once, got it twice")
            self._writer.executemany("INSERT INTO sealed VALUES (?, ?, ?, ?, ?)", sealed)
            execute(_PUT_PAGE, (generation.number, bucket, page.ver, page.sha256, page.rows, page.seal))

    def keep_only(self, generation: Generation, buckets: Collection[int]) -> int:
        """Delete the rows of buckets that no page stands for any more; how many buckets that were."""
        gone = [bucket for bucket in self.pages(generation) if bucket not in buckets]
        for bucket in gone:
            with self._change() as execute:
                _empty(execute, generation.number, bucket)
                execute("DELETE FROM page WHERE generation = ? AND bucket = ?", (generation.number, bucket))
        return len(gone)

    def complete(self, bundle: str, generation: Generation, *, as_of: int) -> None:
        """The generation is whole: from now on it is what is in force, and the one before is given up."""
        with self._change() as execute:
            others = "UPDATE generation SET bundle = '', current = 0 WHERE bundle = ? AND number != ?"
            execute(others, (bundle, generation.number))
            whole = "UPDATE generation SET current = 1, as_of = ? WHERE number = ?"
            execute(whole, (as_of, generation.number))
        self._look()

    def settle(self, generation: Generation, ver: int) -> None:
        """Note that it has been told of, as this version. What it replaced is deleted: that may take long."""
        with self._change() as execute:
            execute("UPDATE generation SET ver = ? WHERE number = ?", (ver, generation.number))
        self._look()
        self._purge()

    def suspend(self, bundle: str) -> bool:
        """Nothing of the bundle opens any more, and its pages stay; False if nothing of it did before."""
        with self._change() as execute:
            found = execute(
                "UPDATE generation SET current = 0, ver = NULL WHERE bundle = ? AND current = 1", (bundle,)
            )
        self._look()
        return bool(found.rowcount)

    def drop(self, bundle: str) -> None:
        """Delete everything of a bundle, and its epoch keys."""
        with self._change() as execute:
            execute("UPDATE generation SET bundle = '', current = 0 WHERE bundle = ?", (bundle,))
        self._look()
        self._purge()

    def distrust(self, bundle: str) -> None:
        """No page that is here counts as brought any more. What they brought stays until it is replaced."""
        with self._change() as execute:
            of = "SELECT number FROM generation WHERE bundle = ?"
            execute(f"UPDATE page SET sha256 = x'' WHERE generation IN ({of})", (bundle,))  # noqa: S608

    # -- the file ---------------------------------------------------------------------------------

    def mend(self) -> bool:
        """In place of a damaged file begin a new one, with what was added here as far as it can be read:
        all else the fleet has. Whether it was damaged. For a thread.
        """
        if _sound(self._writer):
            return False
        fresh = self._path.with_name(self._path.name + FRESH)
        fresh.unlink(missing_ok=True)
        with contextlib.closing(_connect(fresh)) as connection:
            fresh.chmod(0o600)
            _prepare(connection)
            for row in _readable(self._writer):
                connection.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?)", row)
        # What a broken change left is of the damaged file, and would be taken for one of the new.
        self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
        fresh.replace(self._path)
        sync_folder(self._path.parent)
        self._worn += [self._reader, self._writer]
        self._writer, self._reader = _connect(self._path), _connect(self._path)
        self._look()
        return True

    def _look(self) -> None:
        """Who is in force; kept in memory, since only this object changes it."""
        found = self._writer.execute(_IN_FORCE).fetchall()
        self._current = {row[0]: self._generation(row) for row in found}

    def _generation(self, row: Iterable[Any]) -> Generation:
        bundle, number, buckets, epoch, ver, as_of = row
        key = self.keys.epoch if epoch is None else self._unwrapped(epoch, bundle)
        return Generation(number=number, buckets=buckets, epoch=key, ver=ver, as_of=as_of)

    def _unwrapped(self, wrapped: bytes, bundle: str) -> bytes:
        try:
            return self.keys.wrapping().decrypt(wrapped[:NONCE], wrapped[NONCE:], bundle.encode())
        except InvalidTag:
            # Another pepper than the one that it was sealed under: no row opens, and none shall.
            return os.urandom(32)

    def _purge(self) -> None:
        """Delete what was given up, a bucket at a time: nobody who reads has to wait for all of it."""
        given_up = self._writer.execute("SELECT number FROM generation WHERE bundle = ''").fetchall()
        for (number,) in given_up:
            buckets = self._writer.execute("SELECT bucket FROM page WHERE generation = ?", (number,))
            for (bucket,) in buckets.fetchall():
                with self._change() as execute:
                    _empty(execute, number, bucket)
            with self._change() as execute:
                execute("DELETE FROM page WHERE generation = ?", (number,))
                execute("DELETE FROM generation WHERE number = ?", (number,))
        if given_up:
            # `execute` would take one step of it, and each step frees one page.
            self._writer.executescript("PRAGMA incremental_vacuum")

    def _sealed(self, value: bytes, body: Mapping[str, Any]) -> tuple[bytes, bytes | None, bytes]:
        """Lookup id, owner and sealed row."""
        lookup, sealed = seal_row(self.keys, value, body)
        subject = body.get("subject")
        owner = self.keys.owner(lookup, subject) if subject else None
        return lookup, owner, sealed

    def _unwanted(self, body: Mapping[str, Any]) -> bool:
        """Of somebody who was erased here, until the fleet has dropped them too; after a wipe, everything."""
        subject = body.get("subject")
        erased = subject is not None and bool(self.erased) and self.erasure(subject) in self.erased
        return self.keys.wiped or erased

    @contextlib.contextmanager
    def _change(self) -> Iterator[Any]:
        """Everything in it is in the file at its end, or nothing."""
        with _whole(self._writer) as execute:
            yield execute


_GENERATIONS = "SELECT bundle, number, buckets, epoch, generation.ver, as_of FROM generation"
_IN_FORCE = _GENERATIONS + " WHERE current = 1"
_BY_KEY_PAGE = _GENERATIONS + (
    " JOIN page ON generation = number AND bucket = ? WHERE bundle = ? AND buckets = ? AND sha256 = ?"
)
_DELETE = "DELETE FROM sealed WHERE generation = ? AND bucket = ? AND id = ?"
_WIPE = (
    slots.WIPE,
    "DELETE FROM sealed",
    "DELETE FROM page",
    "DELETE FROM generation WHERE number != 0",
    "UPDATE generation SET as_of = NULL, epoch = NULL",
)
_EMPTY = "DELETE FROM sealed WHERE generation = ? AND bucket = ?"
_PUT_PAGE = "INSERT OR REPLACE INTO page VALUES (?, ?, ?, ?, ?, ?)"


def _prepare(connection: sqlite3.Connection) -> None:
    execute = connection.execute
    tables = {name for (name,) in execute("SELECT name FROM sqlite_master")}
    if "sealed" in tables:
        execute(slots.SCHEMA)
        if "seal" not in {column[1] for column in execute("PRAGMA table_info(page)")}:
            execute("ALTER TABLE page ADD COLUMN seal TEXT")
        return
    # Given back to the file system when a generation is gone. Only an empty file can be told so.
    execute("PRAGMA auto_vacuum=INCREMENTAL")
    with _whole(connection):
        for statement in (*_SCHEMA, slots.SCHEMA, *(_FROM_FIRST if "row" in tables else ())):
            execute(statement)


@contextlib.contextmanager
def _whole(connection: sqlite3.Connection) -> Iterator[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.execute
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _sound(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


def _readable(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Rows that were added here, up to the first that cannot be read."""
    found: list[tuple[Any, ...]] = []
    with contextlib.suppress(sqlite3.DatabaseError):
        found += connection.execute("SELECT * FROM sealed WHERE generation = ?", (_LOCAL,))
    return found


def _empty(execute: Any, generation: int, bucket: int) -> None:
    for statement in (_EMPTY, slots.EMPTY):
        execute(statement, (generation, bucket))


def _check_template(template: Template, generation: Generation, bucket: int) -> None:
    if template.value != value_of(generation.epoch, KIND, template.token):
        raise BadPage("expected the value that follows from subject, unit and slot, got another")
    if (found := bucket_of(template.value, generation.buckets)) != bucket:
        raise BadPage(f"expected rows of bucket {bucket}, got one of {found}")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # A row that was deleted is not to be found in the file.
    return connection
