"""The sealed rows of this device: those that bundles brought, and those that were added here.

How a row is sealed is in `agent.row_seal`.

Rows lie by bundle, bucket and lookup id. All buckets that were sealed under one epoch key, for one number
of buckets, are a *generation* of their bundle. A new page takes the place of its bucket at once; a new
generation is filled beside the one in force and takes its place when it is whole. The fleet's epoch keys
stand here as well, sealed under the pepper, and go with it.

Beside each row stands whose it is, as a digest that only this device can make and that differs from row to
row: with the pepper and somebody's reference, their rows can be found and deleted; with less, nothing can.

Reading is for the loop. Every change is one transaction on a connection of its own, and may be made in a
thread. A file that is found damaged opens nothing from then on, until it is mended.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag

from agent import aside, row_file, slots
from agent.documents import BUCKETS, KEY_PAGE
from agent.row_file import OWN, Replaced, connect, is_damage, whole
from agent.row_seal import NONCE, BadPage, Keys, bucket_of, seal_row, unsealed, value_of
from agent.templates import KIND, Finger, Template, Wanted

LOCAL = "local"
"""The bundle of the rows that were added on this device."""


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
        self.begun = not path.exists() or not path.stat().st_size
        """Whether there was nothing here before."""
        self.damage: str | None = None
        """What is wrong with the file, while it is not mended."""
        self.on_damage: Callable[[], object] = lambda: None
        """Called when damage is noticed, from whichever thread it was."""
        self._path = path
        nowhere = sqlite3.connect(":memory:", check_same_thread=False)
        self._writer = self._reader = nowhere
        """Until there is a file that can be opened."""
        self._connections = [nowhere]
        """Also those on files that were replaced; somebody may just be reading in one."""
        self._replacing = threading.Lock()
        self._current: dict[str, Generation] = {}
        self._spoilt: set[bytes] = set()
        """Lookup ids of rows that do not open any more."""
        if aside.is_kept(path):
            self._noticed("set aside before, and not replaced")
        try:
            self._attach()
        except BaseException as error:
            if not is_damage(error):
                self.close()
                raise
            self.doubt(error)

    def _attach(self) -> None:
        """Begin on the file that is there."""
        self._writer, self._reader = self._connected(), self._connected()
        row_file.own(self._path)
        row_file.prepare(self._writer)
        self._look()
        self._purge()

    def _connected(self) -> sqlite3.Connection:
        self._connections.append(connect(self._path))
        return self._connections[-1]

    def close(self) -> None:
        for each in self._connections:
            each.close()

    # -- by presentation --------------------------------------------------------------------------

    def open(self, bundle: str, kind: str, token: bytes) -> dict[str, Any] | None:
        """The body of the row that this secret opens, from what is in force of the bundle."""
        value = self.value(bundle, kind, token)
        return None if value is None else self.opened(bundle, value)

    def value(self, bundle: str, kind: str, token: bytes) -> bytes | None:
        """`v` of a secret by what is in force of the bundle; None where nothing is."""
        generation = self.current(bundle)
        return None if generation is None else value_of(generation.epoch, kind, token)

    def opened(self, bundle: str, value: bytes) -> dict[str, Any] | None:
        """`open`, for who has `v` already."""
        generation = self.current(bundle)
        if generation is None or self.keys.wiped:
            return None
        lookup, key, check = self.keys.split(value)
        bucket = bucket_of(value, generation.buckets)
        found = self._read(_SEALED, (generation.number, bucket, lookup))
        if not found:
            return None
        ((sealed,),) = found
        body = unsealed(sealed, lookup, key, check) if isinstance(sealed, bytes) else None
        if body is None:
            self._spoilt.add(lookup)
            self._noticed("expected a row that its own secret opens, got another")
        return body

    def as_of(self, bundle: str) -> int | None:
        """Seconds since 1970 UTC of what is in force of the bundle; None where there is nothing."""
        if bundle != LOCAL:
            generation = self.current(bundle)
            return None if generation is None else generation.as_of
        # Another process may have added a row.
        found = self._read("SELECT as_of FROM generation WHERE number = ?", (OWN,))
        return found[0][0] if found and isinstance(found[0][0], int) else None

    def slots(self, bundle: str) -> Mapping[Finger, Wanted]:
        """What is in force of the bundle about the slots of fingerprint modules."""
        generation = self.current(bundle)
        if generation is None or self.keys.wiped:
            return {}
        return slots.planned(self._read(slots.PLAN, (generation.number,)))

    def page_of(self, bundle: str, value: bytes) -> tuple[int, "Page"] | None:
        """Bucket and page that brought the row whose `v` begins like this, from what is in force."""
        generation = self.current(bundle)
        if generation is None:
            return None
        bucket = bucket_of(value, generation.buckets)
        found = self._read(
            "SELECT ver, sha256, rows, seal FROM page WHERE generation = ? AND bucket = ?",
            (generation.number, bucket),
        )
        return (bucket, Page(*found[0])) if found else None

    def __len__(self) -> int:
        found = self._read("SELECT count(*) FROM sealed", ())
        return int(found[0][0]) if found else 0

    # -- rows that are added here -----------------------------------------------------------------

    def put(self, kind: str, token: bytes, body: Mapping[str, Any], *, as_of: int) -> None:
        """Seal a row under the secret that opens it, in place of the one before."""
        with self._change() as execute:
            row = self._sealed(value_of(self.keys.epoch, kind, token), body)
            execute("INSERT OR REPLACE INTO sealed VALUES (?, 0, ?, ?, ?)", (OWN, *row))
            execute("UPDATE generation SET as_of = ? WHERE number = ?", (as_of, OWN))

    def forget(self, kind: str, token: bytes) -> bool:
        """Delete the row that was added here and that this secret opens; False if there is none."""
        lookup, _, _ = self.keys.derive(kind, token)
        with self._change() as execute:
            deleted = execute("DELETE FROM sealed WHERE generation = ? AND id = ?", (OWN, lookup))
            return bool(deleted.rowcount)

    # -- rows that go -----------------------------------------------------------------------------

    def erasure(self, subject: str) -> str:
        """What is kept of somebody who was erased: enough to know their reference again, not to tell it."""
        return self.keys.digest("erased", subject.encode())

    def owned(self, subject: str) -> int:
        """How many rows are this subject's. Goes through all of them: for a thread."""
        with self._apart() as connection:
            owner = slots.owner(self.keys, subject)
            return len(self._of(connection, subject)) + slots.owned(connection, owner)

    def disown(self, subject: str) -> int:
        """Delete every row that is this subject's, wherever it came from. For a thread."""
        with self._apart() as connection, whole(connection):
            found = self._of(connection, subject)
            connection.executemany(_DELETE, found)
            templates = slots.disown(connection, slots.owner(self.keys, subject))
        return len(found) + templates

    def drop_copies(self) -> int:
        """Overwrite and unlink what was set aside of damaged files: nobody can be told apart in those any
        more. How many files that were. For a thread."""
        found = aside.all_set_aside(self._path)
        for each in found:
            aside.delete(each)
        return len(found)

    def _of(self, connection: sqlite3.Connection, subject: str) -> list[tuple[int, int, bytes]]:
        rows = connection.execute("SELECT generation, bucket, id, owner FROM sealed WHERE owner NOT NULL")
        owner = self.keys.owner
        return [(gen, bucket, id_) for gen, bucket, id_, whose in rows if owner(id_, subject) == whose]

    def wipe(self) -> int:
        """Nothing is opened from now on; every row and epoch key is deleted. How many rows, as far as they
        could be counted. For a thread."""
        self.keys = Keys.none()
        self._current = {}
        try:
            with self._apart() as connection:
                with whole(connection) as execute:
                    count = int(execute("SELECT count(*) FROM sealed").fetchone()[0])
                    for statement in _WIPE:
                        execute(statement)
                connection.execute("PRAGMA incremental_vacuum").fetchall()
        except row_file.TROUBLE as error:
            if not is_damage(error):
                raise
            with self._replacing:
                self._begin_anew(str(error))
            count = 0
        self.drop_copies()
        return count

    @contextlib.contextmanager
    def _apart(self) -> Iterator[sqlite3.Connection]:
        """A connection for one long job."""
        try:
            with contextlib.closing(connect(self._path)) as connection:
                yield connection
        except row_file.TROUBLE as error:
            self.doubt(error)
            raise

    # -- rows that bundles bring ------------------------------------------------------------------

    def current(self, bundle: str) -> Generation | None:
        """What is in force of the bundle."""
        return None if self.damage else self._current.get(bundle)

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

    def doubt(self, error: BaseException) -> None:
        """Something could not be done with the file: damage, if it is, is noticed."""
        if is_damage(error):
            self._noticed(str(error))

    def look_over(self) -> None:
        """Notice damage where nobody has read yet. Goes through all of the file: for a thread."""
        if (found := row_file.flaw(self._path)) is not None:
            self._noticed(found)

    def mend(self) -> Replaced | None:
        """In place of a damaged file begin a new one, with what was added here as far as it can be read:
        all else the fleet has. What came of it; None for a sound file. For a thread.
        """
        with self._replacing:
            if self.damage is None:
                self.look_over()
            return None if self.damage is None else self._begin_anew(self.damage)

    def _begin_anew(self, reason: str) -> Replaced:
        # After a wipe nothing is to be left that was not wiped.
        replaced = row_file.replace(self._path, reason, keep=not self.keys.wiped, spoilt=self._spoilt)
        self._attach()
        self._spoilt.clear()
        self.damage = None
        return replaced

    def _noticed(self, damage: str) -> None:
        if self.damage is None:
            self.damage = " ".join(damage.split())[:200]
            self.on_damage()

    def _read(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """On the loop. Nothing where the file is damaged, which is noticed."""
        if self.damage is not None:
            return []
        try:
            return self._reader.execute(statement, values).fetchall()
        except row_file.TROUBLE as error:
            if not is_damage(error):
                raise
            self.doubt(error)
            return []

    def _look(self) -> None:
        """Learn what is in force; kept in memory, since only this object changes it."""
        found = self._writer.execute(_IN_FORCE).fetchall()
        self._current = {row[0]: self._generation(row) for row in found}

    def _generation(self, row: Iterable[Any]) -> Generation:
        bundle, number, buckets, epoch, ver, as_of = row
        numbers = all(isinstance(each, int | None) for each in (ver, as_of))
        named = isinstance(bundle, str) and isinstance(epoch, bytes | None) and isinstance(buckets, int)
        if not (numbers and named and 0 < buckets <= BUCKETS):
            raise row_file.Foreign(f"expected what a generation says of itself, got others: {number!r:.20}")
        key = self.keys.epoch if epoch is None else self._unwrapped(epoch, bundle)
        return Generation(number=number, buckets=buckets, epoch=key, ver=ver, as_of=as_of)

    def _unwrapped(self, wrapped: bytes, bundle: str) -> bytes:
        try:
            return self.keys.wrapping().decrypt(wrapped[:NONCE], wrapped[NONCE:], bundle.encode())
        except (InvalidTag, ValueError):
            # Another pepper than the one that it was sealed under: no row opens, and none shall.
            if not self.keys.wiped:
                self._noticed("expected an epoch key that was sealed on this device, got another")
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
        with whole(self._writer) as execute:
            yield execute


_GENERATIONS = "SELECT bundle, number, buckets, epoch, generation.ver, as_of FROM generation"
_IN_FORCE = _GENERATIONS + " WHERE current = 1"
_BY_KEY_PAGE = _GENERATIONS + (
    " JOIN page ON generation = number AND bucket = ? WHERE bundle = ? AND buckets = ? AND sha256 = ?"
)
_SEALED = "SELECT sealed FROM sealed WHERE generation = ? AND bucket = ? AND id = ?"
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


def _empty(execute: Any, generation: int, bucket: int) -> None:
    for statement in (_EMPTY, slots.EMPTY):
        execute(statement, (generation, bucket))


def _check_template(template: Template, generation: Generation, bucket: int) -> None:
    if template.value != value_of(generation.epoch, KIND, template.token):
        raise BadPage("expected the value that follows from subject, unit and slot, got another")
    if (found := bucket_of(template.value, generation.buckets)) != bucket:
        raise BadPage(f"expected rows of bucket {bucket}, got one of {found}")
