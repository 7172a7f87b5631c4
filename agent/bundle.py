"""Bundles on the device: roster, grants and manifest, each a signed list of sealed pages.

    bundles = Bundles(rows, seal, "acme/van-0042", report)
    await bundles.accepted(document)    # verified already: which pages are lacked now?
    bundles.wanted()                    # their hashes
    await bundles.page(raw)             # checked, opened, and in place of its bucket

Nothing here trusts who brings a page: it is taken when it is lacked and has the size and the hash that the
signed list declares, else it is dropped and counted. What was taken is on stable storage with its hash, so
that a download that broke off goes on with what is still lacked.
"""

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import page
from agent.documents import KEY_PAGE, Bundle, Document, Page
from agent.jws import kid_of
from agent.page import Content
from agent.row_seal import BadPage
from agent.rows import Generation, Rows
from agent.rows import Page as Held
from agent.templates import Template
from agent.workflow import Draft, Lane

ROSTER = "roster"
"""The bundle that brings templates."""
TOTAL = 32 * 1024 * 1024
"""Most bytes that the pages of one bundle may have together."""

T = TypeVar("T")

log = structlog.get_logger("bundles")


@dataclass(slots=True)
class _Filling:
    """A bundle that is not whole yet."""

    document: Document[Bundle]
    lacked: dict[str, Page]
    """By hash."""
    generation: Generation | None
    """None until its key page is here, which is all that is asked for till then."""
    bad: set[str] = field(default_factory=set)
    """Hashes of pages that are what was declared and still cannot be used: asking again would not help."""
    changed: int = 0

    @property
    def kind(self) -> str:
        return self.document.body.kind

    def wanted(self) -> list[str]:
        return [
            digest
            for digest, lacked in self.lacked.items()
            if digest not in self.bad and (self.generation is not None or lacked.bucket == KEY_PAGE)
        ]


class Bundles:
    """Brings the rows of this device to what the newest accepted bundles say."""

    def __init__(
        self,
        rows: Rows,
        seal: X25519PrivateKey,
        address: str,
        report: Callable[[Draft], Awaitable[object]],
        provision: Callable[[Sequence[Template]], None] = lambda _: None,
    ) -> None:
        """`address` is `<tenant>/<device>`; what `report` gives is done when the entry is durable.
        `provision` is given each template that a page brings: it is kept nowhere here.
        """
        self.dropped: Counter[str] = Counter()
        """Pages that were not taken, by reason."""
        self._rows = rows
        self.seals: Sequence[X25519PrivateKey] = (seal,)
        """Keys that pages may be sealed to."""
        self._address = address
        self._report = report
        self._filling: dict[str, _Filling] = {}
        self._provision = provision
        self._sought: dict[str, tuple[bytes, int, int]] = {}
        """Pages whose rows are here and whose templates are lacked, by hash: a row of it, bucket, version."""
        self._refusals: Counter[tuple[str, str]] = Counter()
        """What was refused since the last list: bundle and reason."""
        self._told: Counter[tuple[str, str]] = Counter()
        """How many of these an entry has told of."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bundles")

    def close(self) -> None:
        """After the page at hand, if there is one. The rows are not closed."""
        self._thread.shutdown()

    def versions(self) -> dict[str, int]:
        """Of the bundles that are in force."""
        found = {kind: self._rows.current(kind) for kind in page.BUNDLES}
        return {kind: each.ver for kind, each in found.items() if each is not None and each.ver is not None}

    def wanted(self) -> list[str]:
        """Hashes of the pages that are lacked and can be taken now."""
        lacked = [digest for filling in self._filling.values() for digest in filling.wanted()]
        return [*lacked, *(digest for digest in self._sought if digest not in lacked)]

    async def sealed_to(self, kid: str) -> bool:
        """Whether every page of what is in force was opened by this key, and none is still to come."""
        if self._filling:
            return False
        return bool(await self._do("", None, partial(self._sealed_to, kid)))

    def seek(self, values: Iterable[bytes]) -> None:
        """The pages that brought these templates are wanted once more; each is named by the first half of
        its row's `v`. What was sought before still is, while the bundle has that page."""
        wanted = {*(value for value, _, _ in self._sought.values()), *values}
        self._sought.clear()
        for value in wanted:
            if (found := self._rows.page_of(ROSTER, value)) is not None:
                bucket, held = found
                self._sought[held.sha256.hex()] = (value, bucket, held.ver)

    async def accepted(self, document: Document[Bundle]) -> None:
        """A list that was verified: a newer one than before, or the same again after a restart."""
        kind = document.body.kind
        before = self._filling.get(kind)
        if before is not None and before.document.sha256 == document.sha256:
            return
        self._filling.pop(kind, None)
        await self._count_rest()
        if (mistake := _mistake(document.body)) is not None:
            await self._refused(kind, None, "schema", mistake)
        elif not document.body.pages:
            await self._empty(document)
        elif (filling := await self._do(kind, None, partial(self._lay_out, document))) is not None:
            self._filling[kind] = filling
            await self._complete_if_whole(filling)

    async def reload(self, document: Document[Bundle]) -> int:
        """Everything of the newest list is wanted once more, and stays in force until it is here. How many
        pages that are."""
        kind = document.body.kind
        await self._do(kind, None, partial(self._distrust, kind))
        self._filling.pop(kind, None)
        await self.accepted(document)
        return len(document.body.pages)

    async def forgotten(self, kind: str) -> None:
        """A list is no longer believed, or there never was one: what it brought opens nothing any more.

        Its pages stay until the next start: a list that another key signs anew may name the same.
        """
        self._filling.pop(kind, None)
        if not await self._do(kind, None, partial(self._rows.suspend, kind)):
            await self._do(kind, None, partial(self._drop, kind))

    async def page(self, raw: bytes) -> bool:
        """Take a page, if one of just these bytes is lacked; whether it was taken."""
        digest = sha256(raw).hexdigest()
        for filling in self._filling.values():
            if digest not in filling.wanted():
                continue
            lacked = filling.lacked[digest]
            if len(raw) != lacked.size:
                return await self._refused(filling.kind, lacked.bucket, "size", f"{len(raw)} bytes")
            taken = await self._do(
                filling.kind, lacked.bucket, partial(self._take, filling, digest, lacked, raw)
            )
            if taken is None:
                return False
            filling.generation, templates = taken
            filling.lacked.pop(digest)
            filling.changed += 1
            if templates:
                self._provision(templates)
            await self._complete_if_whole(filling)
            return True
        if digest in self._sought:
            _, bucket, ver = self._sought.pop(digest)
            return await self._take_again(raw, bucket, ver)
        return await self._refused("", None, "unwanted", f"{len(raw)} bytes")

    async def _take_again(self, raw: bytes, bucket: int, ver: int) -> bool:
        """Its rows stay as they are."""
        content = await self._do(ROSTER, bucket, partial(self._read, ROSTER, ver, raw))
        if content is not None:
            self._provision(content.templates)
        return content is not None

    # -- in the thread ----------------------------------------------------------------------------

    def _lay_out(self, document: Document[Bundle]) -> _Filling | None:
        """What is lacked; None if this very bundle is in force."""
        body = document.body
        key_page = next(each for each in body.pages if each.bucket == KEY_PAGE)
        generation = self._rows.generation(body.kind, body.buckets, bytes.fromhex(key_page.sha256))
        lacked = {each.sha256: each for each in body.pages}
        if generation is not None:
            self._rows.keep_only(generation, {each.bucket for each in body.pages})
            for held in self._rows.pages(generation).values():
                lacked.pop(held.sha256.hex(), None)
            if not lacked and generation.ver == document.ver:
                return None
        return _Filling(document, lacked, generation)

    def _take(
        self, filling: _Filling, digest: str, lacked: Page, raw: bytes
    ) -> tuple[Generation, Sequence[Template]]:
        """The generation that the page is part of, and the templates in it. Raises BadPage."""
        kind, generation = filling.kind, filling.generation
        if generation is None:
            plain, seal = self._opened(kind, lacked.ver, raw)
            brought = page.read_key(plain)
            held = Held(lacked.ver, bytes.fromhex(digest), 0, seal)
            return self._rows.begin(kind, filling.document.body.buckets, held, brought.key), ()
        plain, seal = self._opened(kind, lacked.ver, raw)
        content = page.read_rows(kind, plain)
        held = Held(lacked.ver, bytes.fromhex(digest), len(content), seal)
        self._rows.replace_bucket(generation, lacked.bucket, held, content.rows, content.templates)
        return generation, content.templates

    def _read(self, kind: str, ver: int, raw: bytes) -> Content:
        return page.read_rows(kind, self._opened(kind, ver, raw)[0])

    def _opened(self, kind: str, ver: int, raw: bytes) -> tuple[bytes, str]:
        """What is in a page, and the `kid` of the key that opened it. Raises BadPage."""
        *others, last = self.seals
        purpose = page.info(kind, self._address, ver)
        for each in others:
            with contextlib.suppress(BadPage):
                return page.unseal(raw, each, purpose), seal_kid(each)
        return page.unseal(raw, last, purpose), seal_kid(last)

    def _sealed_to(self, kid: str) -> bool:
        held = [self._rows.current(kind) for kind in page.BUNDLES]
        pages = [each for found in held if found for each in self._rows.pages(found).values()]
        return bool(pages) and all(each.seal == kid for each in pages)

    def _count(self, generation: Generation) -> int:
        return sum(held.rows for held in self._rows.pages(generation).values())

    def _put_in_force(self, document: Document[Bundle], generation: Generation) -> bool:
        body = document.body
        self._rows.complete(body.kind, generation, as_of=body.as_of)
        return True

    def _settle(self, document: Document[Bundle], generation: Generation) -> bool:
        self._rows.settle(generation, document.ver)
        return True

    def _distrust(self, kind: str) -> bool:
        self._rows.distrust(kind)
        return True

    def _drop(self, kind: str) -> bool:
        self._rows.drop(kind)
        return True

    # -- what comes of it -------------------------------------------------------------------------

    async def _complete_if_whole(self, filling: _Filling) -> None:
        generation = filling.generation
        if filling.lacked or generation is None:
            return
        kind, document = filling.kind, filling.document
        rows = await self._do(kind, None, partial(self._count, generation))
        if rows is None:
            return
        if not await self._do(kind, None, partial(self._put_in_force, document, generation)):
            return
        await self._tell_completed(document, rows, filling.changed)
        # Settled last: at a restart in between it is told once more.
        if await self._do(kind, None, partial(self._settle, document, generation)):
            self._filling.pop(kind, None)

    async def _empty(self, document: Document[Bundle]) -> None:
        kind = document.body.kind
        if self._rows.current(kind) is not None:
            await self._tell_completed(document, 0, 0)
        await self._do(kind, None, partial(self._drop, kind))

    async def _tell_completed(self, document: Document[Bundle], rows: int, changed: int) -> None:
        body = document.body
        data = {
            "kind": body.kind,
            "ver": document.ver,
            "rows": rows,
            "pages": len(body.pages),
            "changed": changed,
        }
        log.info("bundle completed", **data)
        await self._report(Draft("fleet.bundle_completed", self._device, data, Lane.STATE))

    async def _do(self, kind: str, bucket: int | None, job: Callable[[], T]) -> T | None:
        """A job on the rows, in the thread; None if it was refused. What it was to change is as before."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except BadPage as bad:
            if (filling := self._filling.get(kind)) is not None:
                filling.bad.update(each for each, lacked in filling.lacked.items() if lacked.bucket == bucket)
            await self._refused(kind, bucket, "bad_page", str(bad))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # A full disk, most likely. The page is still lacked, and will be asked for again.
            self._rows.doubt(error)
            await self._refused(kind, bucket, "storage", str(error))
        return None

    async def _refused(self, kind: str, bucket: int | None, reason: str, detail: str) -> bool:
        """An entry for the first of a sort, the tenth, the hundredth: a flood must not fill the journal."""
        self.dropped[reason] += 1
        sort = (kind, reason)
        self._refusals[sort] += 1
        times = self._refusals[sort]
        if times == 10 ** (len(str(times)) - 1):
            self._told[sort] = times
            data = {"kind": kind or None, "bucket": bucket, "reason": reason, "detail": detail}
            log.warning("page refused", **data, times=times)
            told = {**data, "times": times}
            await self._report(Draft("fleet.page_refused", self._device, told, Lane.STATE))
        return False

    async def _count_rest(self) -> None:
        """Nothing is dropped without being counted in an entry."""
        rest = {
            f"{kind or 'page'}: {reason}": times
            for (kind, reason), times in self._refusals.items()
            if times > self._told[(kind, reason)]
        }
        self._refusals.clear()
        self._told.clear()
        if rest:
            await self._report(Draft("fleet.refusals_counted", self._device, {"times": rest}, Lane.STATE))

    @property
    def _device(self) -> str:
        return self._address.rpartition("/")[2]


def seal_kid(key: X25519PrivateKey) -> str:
    return kid_of(key.public_key().public_bytes_raw())


def _mistake(body: Bundle) -> str | None:
    """What no schema can tell of a list."""
    total = sum(each.size for each in body.pages)
    if total > TOTAL:
        return f"expected at most {TOTAL} bytes of pages, got {total}"
    if body.pages and not any(each.bucket == KEY_PAGE for each in body.pages):
        return "expected a key page, got none"
    if not body.pages and body.rows:
        return f"expected pages for {body.rows} rows, got none"
    return None
