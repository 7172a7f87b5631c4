"""The fleet as this device knows it: all that the app needs of it.

Where a root is pinned the fleet is the authority over who may do what, and is heard on the downlink. A root
that is there and cannot be read leaves nobody in authority: what was believed before goes on where it is
remembered, and nothing is opened on anyone's word where it is not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.admission import Audience
from agent.bundle import Bundles, seal_kid
from agent.clock import Clock, Correction, Moment, SystemClock
from agent.commands import OpenManyDoors
from agent.documents import Document
from agent.envelope import CAPS, Kind, Reason, Refused
from agent.errands import Errands
from agent.journal import Journal
from agent.postbox import Postbox
from agent.roster import Roster
from agent.standing import NEVER
from agent.templates import Template
from agent.trust import PREFIX, Trusted
from agent.units import Unit
from agent.workflow import Dismissed, Draft
from drivers.readings import ActionDone, OpenDoor, Reading, Signal

log = structlog.get_logger("liaison")


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def corrected(self, correction: Correction | None) -> None:
        """The clock has been set."""
        ...

    def dismiss(self, event: Dismissed) -> None:
        """End sessions and logins at once."""
        ...

    def lease(self, unit: str, door: int, told: Mapping[str, Any]) -> str | None:
        """Have a door opened: why it will not be, or nothing; None where no workflow minds it."""
        ...

    def lease_many(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        """Have many doors opened once somebody in charge is there: why they will not be, or nothing."""
        ...

    def keeps(self, command: str) -> bool:
        """Whether a command from before the start is still being seen to."""
        ...

    def heed(self) -> None:
        """The fleet's word has changed."""
        ...

    def wish(self, document: Document[Any]) -> None:
        """The fleet wishes another config."""
        ...

    def confirm_config(self, version: int, sha256: str) -> str:
        """The fleet says that the config on trial may stay; why it will not, or nothing."""
        ...

    def resend(self, epoch: str | None, first: int, last: int) -> str:
        """The fleet lacks entries; why they will not be sent again, or nothing."""
        ...

    def status(self) -> dict[str, Any]:
        """What `postern status` shows."""
        ...

    def diagnose(self, command: str, lines: int) -> Mapping[str, Any]:
        """Send up how the device is; what is told of it."""
        ...

    def ask_again(self) -> None:
        """Have the broker bring what it has retained once more."""
        ...

    async def rotate_keys(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        """Make new keys and ask for them; the number of the request, and why there is none."""
        ...

    async def confirm_keys(self, request: int, chain: Sequence[str]) -> str:
        """The fleet has taken them; why that counts for nothing, or nothing."""
        ...


class Liaison:
    """Hears the fleet where there is one."""

    def __init__(
        self,
        root: Path,
        audience: Audience,
        seals: Callable[[], Sequence[bytes]],
        *,
        roster: Roster,
        journal: Journal,
        units: Mapping[str, Unit],
        clock: Clock,
        provision: Callable[[Sequence[Template]], None],
        mend: Callable[[], Awaitable[bool]],
        house: House,
    ) -> None:
        """`root` is the file of the root that was put here by hand, if one was; `seals` gives the secrets
        that pages may be sealed to; `provision` is given the templates that they bring; `mend` replaces
        a damaged roster, and says whether it was one."""
        self.post: Postbox | None = None
        self._root, self._audience, self._seals = root, audience, seals
        self._roster, self._journal, self._units = roster, journal, units
        self._clock, self._provision, self._mend, self._house = clock, provision, mend, house
        self._bundles: Bundles | None = None
        self._errands: Errands | None = None

    async def resume(self) -> None:
        """Go on with what is remembered. The journal is open."""
        trusted = await self._trusted()
        if trusted is None:
            return
        seal, *_ = seals = self._opening()
        self._bundles = Bundles(self._roster.rows, seal, self._audience.name, self._report, self._provision)
        self._bundles.seals = seals
        self._errands = Errands(self._journal, self._audience.device, self, self._house.stamp)
        clock = self._clock if isinstance(self._clock, SystemClock) else None
        post = Postbox(trusted, self._journal, self._bundles, self._errands, clock=clock, house=self._house)
        self.post = post
        self._roster.authority = replace(
            self._roster.authority,
            knowledge_at=post.knowledge_at,
            listed_at=post.listed_at,
            is_revoked=post.is_revoked,
            revoked_credentials=lambda: post.trusted.revoked.credentials,
            manifest=self._manifest,
        )
        await post.restore()

    @property
    def trusted(self) -> Trusted | None:
        """What the fleet has told, as far as it is verified; None where no root is pinned."""
        return None if self.post is None else self.post.trusted

    def revoked(self) -> frozenset[str]:
        """References of everybody whom the fleet has revoked."""
        return frozenset() if self.trusted is None else self.trusted.revoked.subjects

    def awaits(self, kind: str) -> bool:
        """Whether a list of this kind is believed and its rows are still to come; after a wipe none are."""
        listed = () if self.trusted is None else self.trusted.bundles
        believed = any(each.body.kind == kind and each.body.pages for each in listed)
        rows = self._roster.rows
        return believed and rows.current(kind) is None and not rows.keys.wiped

    def reseal(self) -> None:
        """The keys that pages may be sealed to are others now."""
        if self._bundles is not None:
            self._bundles.seals = self._opening()

    async def sealed_to(self, secret: bytes) -> bool:
        """Whether all that is in force came in pages sealed to this key."""
        kid = seal_kid(X25519PrivateKey.from_private_bytes(secret))
        return self._bundles is not None and await self._bundles.sealed_to(kid)

    def _opening(self) -> list[X25519PrivateKey]:
        return [X25519PrivateKey.from_private_bytes(each) for each in self._seals()]

    def seek(self, values: Sequence[bytes]) -> None:
        """Have just the pages brought once more that these templates came in."""
        if self._bundles is not None:
            self._bundles.seek(values)

    def close(self) -> None:
        if self._bundles is not None:
            self._bundles.close()

    def saw(self, unit: str, reading: Reading) -> None:
        """Before anybody decides about it: a unit may tell what became of a command."""
        if self._errands is not None and isinstance(reading, ActionDone):
            self._errands.done(unit, reading)

    def asked(self) -> dict[str, Any]:
        """What a birth message asks of the fleet."""
        return {} if self.post is None else {"time_nonce": self.post.ask()}

    def asks_again(self) -> bool:
        """Whether the fleet should be asked anew what time it is."""
        return self.post is not None and self.post.asks_again()

    def birth(self) -> dict[str, Any]:
        """What a birth message says about the fleet's documents."""
        return {"trust": None if self.post is None else self.post.held()}

    def report(self) -> dict[str, Any] | None:
        """For `postern status`."""
        return None if self.post is None else self.post.status()

    # -- what commands ask ------------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        return self._house.status()

    def perform(self, unit: str, action: OpenDoor | Signal) -> str:
        """Have a unit do something; the reason why it will not, or nothing."""
        found = self._units.get(unit)
        if found is None:
            return "unknown_unit"
        return found.order(action) if found.can(action) else "lost" if not found.ready else "cannot"

    def open_door(self, unit: str, door: int, told: Mapping[str, Any]) -> str:
        """Where a workflow minds the door it decides; elsewhere the unit is told at once."""
        refusal = self._house.lease(unit, door, told)
        return self.perform(unit, OpenDoor(door=door)) if refusal is None else refusal

    def open_doors(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        return self._house.lease_many(wanted, told, until_ns)

    def keeps(self, command: str) -> bool:
        return self._house.keeps(command)

    def heed(self) -> None:
        self._house.heed()

    def dismiss_all(self, reason: str) -> None:
        self._house.dismiss(Dismissed(at=self._house.stamp()[0], reason=reason))

    def confirm_config(self, version: int, sha256: str) -> str:
        return self._house.confirm_config(version, sha256)

    def resend(self, epoch: str | None, first: int, last: int) -> str:
        return self._house.resend(epoch, first, last)

    def diagnose(self, command: str, lines: int) -> Mapping[str, Any]:
        return self._house.diagnose(command, lines)

    async def reload(self, kind: str | None) -> Mapping[str, int]:
        """What is in force stays so until everything is here anew. In the postbox's turn: it calls this."""
        bundles, trusted = self._bundles, self.trusted
        if await self._mend():
            # It held all of them.
            kind = None
        assert bundles is not None
        assert trusted is not None
        held = [each for each in trusted.bundles if kind in (None, each.body.kind)]
        counts: dict[str, int] = {each.body.kind: await bundles.reload(each) for each in held}
        self._house.ask_again()
        return counts

    async def refill(self) -> None:
        """Have a damaged roster replaced and all of it brought again, between two messages of the fleet's."""
        if self.post is None:
            await self._mend()
        else:
            await self.post.between(lambda: self.reload(None))

    async def rotate_keys(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        return await self._house.rotate_keys(keys, why)

    async def confirm_keys(self, request: int, chain: Sequence[str]) -> str:
        return await self._house.confirm_keys(request, chain)

    def reinstate(self, subject: str) -> Mapping[str, Any]:
        return self._roster.reinstate(subject, self._journal.records)

    # -- what is pinned ---------------------------------------------------------------------------

    async def _trusted(self) -> Trusted | None:
        """What is believed; None where no root was ever put here, or nothing of it can be read."""
        records = self._journal.records
        remembered = f"{PREFIX}root" in records
        problem: Refused | None = None
        sources: list[bytes | None] = [None]
        try:
            if (raw := _read(self._root)) is not None:
                sources.insert(0, raw)
            elif not remembered:
                return None
        except Refused as refused:
            problem = refused
        for source in sources:
            try:
                trusted = Trusted.load(source, self._audience, records)
            except Refused as refused:
                problem = problem or refused
                continue
            if problem is not None:
                await self._tell_of_root(problem, remembered)
            return trusted
        if problem is not None:
            await self._tell_of_root(problem, remembered)
        self._roster.authority = replace(self._roster.authority, knowledge_at=lambda: NEVER)
        return None

    async def _tell_of_root(self, problem: Refused, remembered: bool) -> None:
        log.error("root cannot be used", path=str(self._root), reason=str(problem))
        data = {"reason": problem.reason, "detail": problem.detail, "remembered": remembered}
        await self._report(Draft("fleet.root_refused", self._audience.device, data))

    def _manifest(self) -> Callable[[str], bool] | None:
        rows = self._roster.rows
        if rows.current("manifest") is None:
            return None
        return lambda label: rows.open("manifest", "parcel", label.encode()) is not None

    async def _report(self, draft: Draft) -> None:
        now, position = self._house.stamp()
        await self._journal.append([draft], now, position)


def _read(path: Path) -> bytes | None:
    """The file of a root, or None where there is none. Raises Refused."""
    try:
        with path.open("rb") as file:
            return file.read(CAPS[Kind.ROOT] + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(Reason.MALFORMED, f"expected a readable file, got {error.strerror}") from error
