"""Documents as the fleet issues them: each under the next version, signed by the role's key, and kept.

    desk = Desk(keyring, now)
    desk.bundle("van-0042", "roster", rows, scope="depot-7")
    desk.revoke(subjects=["drv-5f2e81"])
    desk.head("van-0042")
    desk.outgoing("van-0042")       # everything that is to stand at the broker, by topic

Hold `keyring.locked()` meanwhile. What was signed with another key than the newest, is about to expire or
was made before versions last started anew is signed anew when the next head is made: a head names only what a
device would take.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agent.commands import RANKS
from agent.documents import ROSTER_S, Document, Role, SignedGrant
from agent.envelope import Kind, issue
from agent.fleet.enrolment import devices, recipient
from agent.fleet.issued import EVERYBODY, Issued
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.sealing import RowOf, seal_all
from agent.jws import Signer

DAY = 86_400
HEAD_S = DAY
DOCUMENT_S = 90 * DAY
LASTS = {"bundle/roster": ROSTER_S}
"""What lives shorter than the rest. A document is signed anew when two thirds of its life are over."""
TIME_S = 300
GRANT_S = 60 * DAY
"""Longest that a pickup code may last: no parcel waits longer than a locker's config can say."""
BUNDLES = ("roster", "grants", "manifest")
KEPT = ("config", "revocations", *(f"bundle/{kind}" for kind in BUNDLES))
"""What a head names beside the root."""
ROLES = {"config": Role.CONFIG, "revocations": Role.REVOCATIONS, "bundle": Role.BUNDLE, "head": Role.HEAD}
REVOKED = ("subjects", "credentials", "keys", "grants")


@dataclass(frozen=True, slots=True)
class Order:
    """A command, before it has a key and a number."""

    rank: str
    name: str
    args: Mapping[str, Any]
    operator: str
    reason: str
    nonce: object = None
    """Of the device's birth message: for that connection alone. What a device sends need not be one."""

    def body(self) -> dict[str, Any]:
        body = {
            "class": self.rank,
            "name": self.name,
            "args": dict(self.args),
            "operator": self.operator,
            "reason": self.reason,
        }
        return {**body, "nonce": self.nonce} if isinstance(self.nonce, str) else body


def commanded(keyring: Keyring, device: str, order: Order) -> bytes:
    """A command of now, good for as long as its class allows. Raises KeyringError."""
    with keyring.locked():
        desk = Desk(keyring, int(time.time()))
        return desk.command(device, order, lasts=RANKS[order.rank].longest_s)


class Desk:
    """Issues documents at one time, from the keys in one folder."""

    def __init__(self, keyring: Keyring, now: int) -> None:
        """`now` in seconds since 1970 UTC."""
        self.keyring = keyring
        self.issued = Issued(keyring.folder)
        # What a new root lets sign must not be older than the root.
        self._now = max(now, keyring.root_at)

    # -- documents --------------------------------------------------------------------------------

    def bundle(
        self, device: str, kind: str, rows: Iterable[RowOf], *, scope: str, as_of: int | None = None
    ) -> Document[Any]:
        """All that the bundle is to hold, in force with the next head. Raises KeyringError, BadPage.

        Of grants a device gets those for itself: six digits are soon tried out by whoever has another's.
        """
        before = self.issued.laid(device, kind)
        last = self.issued.document(device, f"bundle/{kind}")
        ver = last.ver + 1 if last else 1
        to = recipient(self.keyring, device)
        rows = [row for row in rows if row.body.get("locker") in (None, device, to.address)]
        laid = seal_all(kind, rows, to, self.keyring.epoch(), before=before, ver=ver)
        self.issued.keep_laid(device, laid)
        body = laid.body(scope, self._now if as_of is None else as_of)
        return self._issue(device, f"bundle/{kind}", body, aud=to.address)

    def config(self, device: str, body: Mapping[str, Any]) -> Document[Any]:
        """The config that the device is to try, in force once it has been confirmed to it."""
        if not body["dry_run"]:
            self.issued.keep_wish(device, "\n".join(body["toml"]))
        return self._issue(device, "config", body, aud=f"{self.keyring.tenant}/{device}")

    def revoke(self, **more: Iterable[str]) -> Document[Any]:
        """Take away for ever: subjects, credentials, keys, grants. It adds to what was revoked before.

        Raises Refused for more than one document holds.
        """
        last = self.issued.document(EVERYBODY, "revocations")
        before = last.body.model_dump() if last else {}
        body = {name: sorted({*before.get(name, ()), *more.get(name, ())}) for name in REVOKED}
        body["grants"] = self._still_withdrawn(body["grants"])
        return self._issue(EVERYBODY, "revocations", body, aud=f"{self.keyring.tenant}/*")

    def _still_withdrawn(self, grants: Iterable[str]) -> list[str]:
        """Without those that have expired since: a document holds some thousands, and codes are many."""
        known = self.issued.withdrawn()
        since = {grant: known.get(grant, self._now) for grant in grants}
        kept = {grant: at for grant, at in since.items() if self._now - at <= GRANT_S + DAY}
        self.issued.keep_withdrawn(kept)
        return sorted(kept)

    def head(self, device: str) -> Document[Any]:
        """What is current for the device, for a day."""
        recipient(self.keyring, device)
        self._renew(device)
        pins = {name: each.pin.model_dump() for name, each in self.current(device).items()}
        root = self.keyring.document.pin.model_dump()
        body = {"documents": {"root": root, **pins}}
        return self._issue(device, "head", body, aud=f"{self.keyring.tenant}/{device}", lasts=HEAD_S)

    def command(self, device: str, order: Order, *, lasts: int, signatures: int = 1) -> bytes:
        """A command for one device. It is not kept: it is worth something only for a moment."""
        recipient(self.keyring, device)
        signers = self.keyring.signers(Role.EMERGENCY if order.rank == "E" else Role.COMMAND)
        if len(signers) < signatures:
            raise KeyringError(f"expected {signatures} command keys, got {len(signers)}")
        return issue(
            Kind.COMMAND,
            order.body(),
            signers[:signatures],
            aud=f"{self.keyring.tenant}/{device}",
            iat=self._now,
            exp=self._now + lasts,
            ver=self.issued.sequence(device, signers[0].kid),
        )

    def grant(
        self, locker: str, *, lasts: int, parcel: str | None = None, compartment: str | None = None
    ) -> bytes:
        """A pickup code for one door of one locker. It is not kept: whoever shows it is who it is for.

        Raises Refused for one that would not fit into its code.
        """
        recipient(self.keyring, locker)
        body = SignedGrant(parcel=parcel, compartment=compartment)
        return issue(
            Kind.GRANT,
            # What stands in it by default makes the code larger for nothing.
            body.model_dump(exclude_defaults=True),
            self._signers(Role.GRANT),
            aud=f"{self.keyring.tenant}/{locker}",
            iat=self._now,
            exp=self._now + lasts,
            ver=1,
        )

    def time(self, device: str, nonce: str, utc_ms: int) -> bytes:
        """What time it is, for whoever asked with this nonce."""
        return issue(
            Kind.TIME,
            {"nonce": nonce, "utc": utc_ms},
            self.keyring.signers(Role.TIME)[:1],
            aud=f"{self.keyring.tenant}/{device}",
            iat=self._now,
            exp=self._now + TIME_S,
            ver=1,
        )

    # -- what stands at the broker ----------------------------------------------------------------

    def current(self, device: str) -> dict[str, Document[Any]]:
        """The newest documents for a device, by the name that a head gives them."""
        found = {name: self.issued.document(self._shelf(device, name), name) for name in KEPT}
        return {name: each for name, each in found.items() if each is not None}

    def outgoing(self, device: str) -> dict[str, bytes]:
        """By topic below `postern/v1/<device>/down/`, in the order in which it is best sent: pages, what
        names them, and the head last."""
        named = {
            each.sha256: self.issued.page(device, each.sha256)
            for name, document in self.current(device).items()
            if name.startswith("bundle/")
            for each in document.body.pages
        }
        self.issued.forget_pages(device, named)
        return {f"page/{digest}": raw for digest, raw in named.items()} | self.documents(device)

    def documents(self, device: str) -> dict[str, bytes]:
        """The same without the pages."""
        outgoing = {"root": self.keyring.document.raw}
        outgoing |= {name: document.raw for name, document in self.current(device).items()}
        head = self.issued.document(device, "head")
        return outgoing if head is None else {**outgoing, "head": head.raw}

    # -- issuing ----------------------------------------------------------------------------------

    def _issue(
        self, shelf: str, name: str, body: Mapping[str, Any], *, aud: str, lasts: int | None = None
    ) -> Document[Any]:
        kind = Kind(name.partition("/")[0])
        last = self.issued.document(shelf, name)
        role = ROLES[kind.value]
        raw = issue(
            kind,
            body,
            self._signers(role),
            aud=aud,
            iat=self._now,
            exp=self._now + (lasts or LASTS.get(name, DOCUMENT_S)),
            ver=last.ver + 1 if last else 1,
        )
        self.issued.keep(shelf, name, raw)
        made = self.issued.document(shelf, name)
        assert made is not None
        return made

    def renew_shared(self) -> None:
        """What all devices have in common, before heads are made for several of them at once."""
        document = self.issued.document(EVERYBODY, "revocations")
        if document is not None:
            self._renew_one(EVERYBODY, "revocations", document)

    def _renew(self, device: str) -> None:
        """Sign anew what a device would not take any more, with the same in it."""
        for name, document in self.current(device).items():
            self._renew_one(self._shelf(device, name), name, document)

    def _renew_one(self, shelf: str, name: str, document: Document[Any]) -> None:
        wanted = {each.kid for each in self._signers(ROLES[name.partition("/")[0]])}
        since = max(self._restarted_at, self._now - LASTS.get(name, DOCUMENT_S) * 2 // 3)
        # What was signed in the very second of a restart may have been refused just before it.
        if document.claims.iat <= since or not wanted <= set(document.signers):
            self._issue(shelf, name, document.claims.body, aud=document.claims.aud)

    @cached_property
    def _restarted_at(self) -> int:
        return self.keyring.restarted_at

    def _signers(self, role: Role) -> list[Signer]:
        return self.keyring.signers(role)[: self.keyring.root.threshold(role)]

    def _shelf(self, device: str, name: str) -> str:
        return EVERYBODY if name == "revocations" else device


def chosen(keyring: Keyring, device: str | None) -> list[str]:
    """This device, or all that are enrolled. Raises KeyringError."""
    if device is not None:
        recipient(keyring, device)
        return [device]
    known = sorted(devices(keyring.folder))
    if not known:
        raise KeyringError(f"{keyring.folder}: expected enrolled devices, got none")
    return known
