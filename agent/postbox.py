"""Opens what the fleet sends: verify, remember, then use.

A document counts once its entry and the state that follows are on stable storage; only then is its message
acknowledged. One that comes before what vouches for it (a bundle before its head, a head before its root) is
kept and tried again, one of each name. What is refused is an entry, but a flood of it is only counted.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from agent import emergency
from agent.clock import NS, Correction, Moment, SystemClock, Trust
from agent.documents import Bundle, Config, Document, Head, Root
from agent.envelope import Kind, Reason, Refused
from agent.errands import Errands
from agent.journal import Journal
from agent.mending import HELD
from agent.signed_time import Asked, answer
from agent.standing import NEVER
from agent.trust import BUNDLES, PREFIX, Accepted, Trusted
from agent.workflow import Draft, Lane

DOCUMENTS = {
    "root": Kind.ROOT,
    "revocations": Kind.REVOCATIONS,
    "head": Kind.HEAD,
    "config": Kind.CONFIG,
    **dict.fromkeys(BUNDLES, Kind.BUNDLE),
}
"""Topics of what is kept, in the order in which it is best taken."""
TOPICS = (*DOCUMENTS, "time", "command")
PAGE = "page/"
EARLY = (Reason.NOT_IN_HEAD, Reason.UNKNOWN_KEY, Reason.BELOW_THRESHOLD, Reason.NOT_YET_VALID)
"""Reasons that another document, or the time, may yet take away."""

log = structlog.get_logger("postbox")


class Pages(Protocol):
    """Who fills bundles from pages."""

    async def accepted(self, document: Document[Bundle]) -> None:
        """A list that has come into force."""
        ...

    async def forgotten(self, kind: str) -> None:
        """A list is no longer believed: its rows go."""
        ...

    async def page(self, raw: bytes) -> bool:
        """A page that may be lacked; whether it was taken."""
        ...

    def wanted(self) -> Sequence[str]:
        """Hashes of the pages that are lacked."""
        ...

    def versions(self) -> Mapping[str, int]:
        """Of the bundles whose pages are all here."""
        ...


class House(Protocol):
    """What the postbox needs of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def corrected(self, correction: Correction | None) -> None:
        """The clock has been set."""
        ...

    def heed(self) -> None:
        """The fleet's word has changed."""
        ...

    def wish(self, document: Document[Any]) -> None:
        """The fleet wishes another config."""
        ...


class Postbox:
    """Takes one message at a time."""

    def __init__(
        self,
        trusted: Trusted,
        journal: Journal,
        pages: Pages,
        errands: Errands,
        *,
        clock: SystemClock | None,
        house: House,
    ) -> None:
        """Without a `clock` of ours nothing sets it."""
        self.trusted = trusted
        self.asked: Asked | None = None
        """The question about the time that the last birth message asked."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """What was refused on this connection: kind and reason."""
        self._told: Counter[tuple[str, str]] = Counter()
        self._journal, self._pages, self._errands = journal, pages, errands
        self._clock, self._house = clock, house
        self._device = trusted.audience.device
        self._early: dict[str, tuple[bytes, Refused]] = {}
        """What may yet be believed, and why it is not now."""
        self._one = asyncio.Lock()
        """The broker and a courier may bring something at the same time."""
        self._via: str | None = None

    # -- life -------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Go on where the last run was stopped, maybe between remembering and doing."""
        await self._remember_start()
        self._errands.restore()
        for name in BUNDLES:
            document = self.trusted.held.get(name)
            if document is None:
                await self._pages.forgotten(name.partition("/")[2])
            else:
                await self._pages.accepted(document)
        if (config := self.trusted.held.get("config")) is not None:
            self._house.wish(config)
        self._know()

    def connected(self) -> None:
        """A new connection: everything retained comes again, and every reason may be told again."""
        self._via = None
        self._tell_unnamed()
        self._count_rest()
        self.refused.clear()
        self._told.clear()
        self._early.clear()
        self.asked = None
        self._errands.connected()

    def ask(self) -> str:
        """The nonce for a birth message: the same while it stands, so that answers find it."""
        now, _ = self._house.stamp()
        if self.asked is None or not self.asked.stands(now):
            self.asked = Asked.at(now)
        return self.asked.nonce

    def asks_again(self) -> bool:
        """Whether it is time for another birth message, to be told what time it is."""
        return (
            self.asked is not None and self.asked.answered and not self.asked.stands(self._house.stamp()[0])
        )

    # -- what others ask --------------------------------------------------------------------------

    @property
    def topics(self) -> Sequence[str]:
        """Names of what is always wanted."""
        return TOPICS

    @property
    def wanted(self) -> Sequence[str]:
        """Topics of pages that are lacked."""
        return [f"{PAGE}{digest}" for digest in self._pages.wanted()]

    def knowledge_at(self) -> float:
        """When the fleet last said something that is here in full."""
        return NEVER if self.trusted.knowledge_at is None else float(self.trusted.knowledge_at)

    def listed_at(self) -> float | None:
        """When the fleet has signed the roster that is in force."""
        roster = self.trusted.held.get("bundle/roster")
        return None if roster is None else float(roster.claims.iat)

    def is_revoked(self, subject: str | None, credential: bytes | None) -> bool:
        return self.trusted.is_revoked(subject, credential)

    def held(self) -> dict[str, Any]:
        """Versions of what is believed, as the birth message tells them: the fleet sees what is missing."""
        trusted = self.trusted
        return {
            "root": trusted.root.ver,
            "head": trusted.head and trusted.head.ver,
            "complete": trusted.complete,
            "documents": {name: document.ver for name, document in sorted(trusted.held.items())},
        }

    def status(self) -> dict[str, Any]:
        """For people. Nothing secret."""
        trusted, (now, _) = self.trusted, self._house.stamp()
        age_s = trusted.head and now.utc_ns // NS - trusted.head.claims.iat
        return {
            **self.held(),
            "head_age_s": age_s,
            "lacking": len(self._pages.wanted()),
            "waiting": sorted({*self._early, *trusted.staged}),
            "revoked": len(trusted.revoked),
            "locked": emergency.in_force(self._journal.records, now),
            "refused": {f"{kind}: {reason}": n for (kind, reason), n in sorted(self.refused.items())},
        }

    # -- taking -----------------------------------------------------------------------------------

    async def take(self, name: str, raw: bytes, via: str | None = None) -> None:
        """A message; `name` is its topic below `down/`. When it returns, whatever follows is durable.

        `via` is who brought it, where that was not the broker. An empty one says nothing: somebody has
        cleared what was retained.
        """
        if not raw:
            return
        async with self._one:
            self._via = via
            await self._sort(name, raw)

    async def between(self, work: Callable[[], Awaitable[object]]) -> None:
        """Have something done to the bundles while no message is taken."""
        async with self._one:
            await self._fill(work())

    async def _sort(self, name: str, raw: bytes) -> None:
        if name.startswith(PAGE):
            await self._fill(self._pages.page(raw))
        elif name in DOCUMENTS:
            await self._document(name, raw)
        elif name == Kind.TIME:
            await self._try(name, self._time, raw)
        elif name == Kind.COMMAND:
            await self._try(name, self._command, raw)

    async def _document(self, name: str, raw: bytes) -> None:
        self._early.pop(name, None)
        head = self.trusted.head
        if await self._believe(name, raw):
            await self._try_early()
        if self.trusted.head is not head:
            self._tell_unnamed()

    async def _believe(self, name: str, raw: bytes) -> bool:
        """Whether something has come into force by it."""
        now, position = self._house.stamp()
        try:
            accepted = self.trusted.take(DOCUMENTS[name], raw, now)
        except Refused as refused:
            if refused.reason in EARLY:
                self._early[name] = raw, refused
            if refused.reason is not Reason.NOT_IN_HEAD:
                self._tell(DOCUMENTS[name], refused)
            return False
        drafts = [self._accepted(document) for document in accepted.effective]
        if drafts or accepted.records:
            await self._journal.append(drafts, now, position, accepted.records)
        self.trusted = accepted.trusted
        await self._use(accepted)
        return bool(accepted.effective)

    async def _try_early(self) -> None:
        """What came too early, now that something else is here; over again while that helps."""
        while True:
            early = [name for name in DOCUMENTS if name in self._early]
            helped = [await self._believe(name, self._early.pop(name)[0]) for name in early]
            if not any(helped):
                return

    async def _use(self, accepted: Accepted) -> None:
        """What is remembered is now in force."""
        if self._clock is not None:
            self._house.corrected(self._clock.at_least(accepted.document.claims.iat * NS))
        if accepted.effective or accepted.forgotten:
            # Whoever is revoked goes off duty before anything that may take its time.
            self._house.heed()
        for name in accepted.forgotten:
            if name in BUNDLES:
                await self._pages.forgotten(name.partition("/")[2])
        for document in accepted.effective:
            if isinstance(document.body, Bundle):
                await self._fill(self._pages.accepted(document))
            elif isinstance(document.body, Config):
                self._house.wish(document)
        self._know()

    async def _fill(self, work: Awaitable[object]) -> None:
        """Have bundles filled; what people may do can be another thing once one is whole."""
        before = self._pages.versions()
        await work
        if (after := dict(self._pages.versions())) != before:
            self._journal.ride({HELD: after})
            self._house.heed()
        self._know()

    def _know(self) -> None:
        """How fresh knowledge is counts from the newest head of which everything is here, pages as well."""
        versions = self._pages.versions()
        for document in self.trusted.bundles:
            if document.body.pages and versions.get(document.body.kind) != document.ver:
                return
        known = self.trusted.known()
        if known.knowledge_at != self.trusted.knowledge_at:
            self.trusted = known
            self._journal.ride({f"{PREFIX}known": known.knowledge_at})
            self._house.heed()

    async def _time(self, raw: bytes) -> None:
        now, _ = self._house.stamp()
        asked = self.asked
        told = answer(self.trusted.open(Kind.TIME, raw), asked, now)
        if told is None or asked is None:
            return
        self.asked = replace(asked, answered=True)
        if self._clock is not None:
            self._house.corrected(self._clock.observe(Trust.FLEET, told.utc_ns, told.mono_ns, told.error_s))
        await self._try_early()

    async def _command(self, raw: bytes) -> None:
        await self._errands.take(self.trusted.open(Kind.COMMAND, raw), self.trusted, self.asked)

    async def _try(self, kind: str, take: Callable[[bytes], Any], raw: bytes) -> None:
        try:
            await take(raw)
        except Refused as refused:
            self._tell(kind, refused)

    # -- telling ----------------------------------------------------------------------------------

    async def _remember_start(self) -> None:
        """A root that was put here anew, and all that went with the one before."""
        before = {key: each for key, each in self._journal.records.items() if self._is_ours(key)}
        after = self.trusted.dump()
        changes = {**dict.fromkeys(before.keys() - after.keys()), **after}
        if all(before.get(key) == value for key, value in changes.items()):
            return
        now, position = self._house.stamp()
        root = self.trusted.root
        pinned = Draft(
            "fleet.root_pinned", self._device, {"ver": root.ver, "sha256": root.sha256}, Lane.STATE
        )
        await self._journal.append([pinned], now, position, changes)

    def _is_ours(self, key: str) -> bool:
        return key.startswith(PREFIX) and not key.startswith(f"{PREFIX}seq/")

    def _accepted(self, document: Document[Any]) -> Draft:
        data: dict[str, Any] = {"name": document.name, "ver": document.ver, "sha256": document.sha256}
        match document.body:
            case Root() as root:
                data["epoch"] = root.epoch
            case Head() as head:
                data["documents"] = {name: pin.ver for name, pin in head.documents.items()}
            case _:
                data["key"] = document.claims.iss
        if self._via is not None:
            data["via"] = self._via
        return Draft(f"fleet.{document.kind}_accepted", self._device, data, Lane.STATE)

    def _tell(self, kind: str, refused: Refused) -> None:
        """An entry for the first of each sort on a connection, the tenth, the hundredth and so on."""
        sort = (str(kind), str(refused.reason))
        self.refused[sort] += 1
        times = self.refused[sort]
        if times == 10 ** (len(str(times)) - 1):
            self._told[sort] = times
            log.warning("refused", kind=sort[0], reason=sort[1], detail=refused.detail, times=times)
            data = {"reason": refused.reason, "detail": refused.detail, "times": times}
            if self._via is not None:
                data["via"] = self._via
            self._report(Draft(f"fleet.{kind}_refused", self._device, data, Lane.STATE))

    def _tell_unnamed(self) -> None:
        """What has waited for a head that did not come, or that names another, is refused like anything."""
        for name, (_, refused) in self._early.items():
            if refused.reason is Reason.NOT_IN_HEAD:
                self._tell(DOCUMENTS[name], refused)

    def _count_rest(self) -> None:
        """Nothing is refused without being counted in an entry."""
        rest = {
            f"{kind}: {reason}": times
            for (kind, reason), times in self.refused.items()
            if times > self._told[(kind, reason)]
        }
        if rest:
            self._report(Draft("fleet.refusals_counted", self._device, {"times": rest}, Lane.STATE))

    def _report(self, draft: Draft) -> None:
        now, position = self._house.stamp()
        self._journal.append([draft], now, position)
