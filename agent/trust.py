"""What the fleet has told and this device believes. Bytes and a time in, a new state or a refusal out.

A `Trusted` holds only what has been verified. `take` goes through one envelope in a fixed order: size,
signatures of the role's threshold, type and audience, expiry, version, hash in the head, schema. Whoever
commits the records that come back with an `Accepted`, and only then uses its `trusted`, can be killed at any
time: nothing is forgotten and nothing goes back. There is no network and no clock in here.

Documents come into force as a set: what the newest head names is staged until all of it is here. Two things
never wait for a head: a new root, and revocations, which only take away. So these may come in another text
than the head names: whoever carries an envelope can leave out signatures, add those of strangers or order
them anew. The same payload is the same document, and the text that the head names is taken up when it comes.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from agent.admission import Audience, check_begun, check_pin, check_time, check_version
from agent.clock import Moment
from agent.documents import Bundle, Document, Head, Pin, Revocations, Role, Root, read
from agent.envelope import Claims, Envelope, Kind, Reason, Refused
from agent.revoked import Revoked

HEAD_S = 24 * 3600
ROLES = {
    Kind.ROOT: (Role.ROOT,),
    Kind.HEAD: (Role.HEAD,),
    Kind.CONFIG: (Role.CONFIG,),
    Kind.BUNDLE: (Role.BUNDLE,),
    Kind.REVOCATIONS: (Role.REVOCATIONS,),
    Kind.COMMAND: (Role.COMMAND, Role.EMERGENCY),
    Kind.TIME: (Role.TIME,),
    Kind.GRANT: (Role.GRANT,),
}
"""Who may sign it. What a command's signer may command is for `agent.commands`."""

BUNDLES = ("bundle/roster", "bundle/grants", "bundle/manifest")
AT_ONCE = ("root", "revocations")
"""Names of what waits for no head; of these a later one than the head names will do."""
PREFIX = "trust/"
"""Of the journal's records that are this room's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Everything verified so far, as of one commit."""

    audience: Audience
    pinned: str
    """Hash of the root that was put here by hand, from which all trust follows."""
    root: Document[Root]
    head: Document[Head] | None = None
    held: Mapping[str, Document[Any]] = field(default_factory=dict)
    """What is in force, by name."""
    staged: Mapping[str, Document[Any]] = field(default_factory=dict)
    """What the head names and what waits for the rest of it. Not remembered: it is retained at the broker."""
    reworded: Mapping[str, Document[Any]] = field(default_factory=dict)
    """Another text of what is in force at once, should a head name that. Not remembered either."""
    revoked: Revoked = field(default_factory=Revoked)
    since: Mapping[str, int] = field(default_factory=dict)
    """Names whose versions start anew, with nothing that was issued before (seconds since 1970)."""
    knowledge_at: int | None = None
    """When the newest head was issued of which everything was here, pages as well."""

    @classmethod
    def pin(cls, raw: bytes, audience: Audience) -> Self:
        """Trust in the first root, whose bytes somebody has compared. Raises Refused."""
        envelope = Envelope.parse(Kind.ROOT, raw)
        claims = envelope.claims(Kind.ROOT)
        signed_by = tuple(each.kid for each in envelope.jws.signatures)
        body: Root = read(Kind.ROOT, envelope, signed_by, claims).body
        signers = envelope.signers(body.public(Role.ROOT), body.threshold(Role.ROOT))
        audience.check(claims)
        return cls(audience=audience, pinned=envelope.sha256, root=read(Kind.ROOT, envelope, signers, claims))

    # -- what others ask --------------------------------------------------------------------------

    def is_revoked(self, subject: str | None = None, credential: bytes | None = None) -> bool:
        """Whether a driver, or the credential with this `v`, has been revoked."""
        return self.revoked.names(subject, credential)

    def is_withdrawn(self, grant: str) -> bool:
        """Whether a grant has been taken back by its jti."""
        return grant in self.revoked.grants

    @property
    def complete(self) -> bool:
        """Whether all documents of the newest head are in force."""
        return self.head is not None and not self._lacking(self.head.body, self.held)

    @property
    def bundles(self) -> tuple[Document[Bundle], ...]:
        """Those in force."""
        return tuple(self.held[name] for name in BUNDLES if name in self.held)

    def known(self) -> Self:
        """The same, once everything that the head names is here to the last page."""
        if self.head is None or not self.complete:
            return self
        return replace(self, knowledge_at=max(self.knowledge_at or 0, self.head.claims.iat))

    # -- taking -----------------------------------------------------------------------------------

    def take(self, kind: Kind, raw: bytes, now: Moment) -> "Accepted":
        """What follows from a root, head, config, bundle or revocations. Raises Refused."""
        for known in (self.root, self.head, *self.held.values(), *self.staged.values()):
            if known is not None and (known.kind, known.raw) == (kind, raw):
                return Accepted(trusted=self, document=known)
        envelope = Envelope.parse(kind, raw)
        match kind:
            case Kind.ROOT:
                return self._take_root(envelope, now)
            case Kind.HEAD:
                return self._take_head(envelope, now)
            case Kind.REVOCATIONS:
                return self._take_revocations(envelope, now)
            case Kind.CONFIG | Kind.BUNDLE:
                return self._take_pinned(kind, envelope, now)
        raise Refused(Reason.NOT_PERMITTED, f"expected a document that is kept, got a {kind}")

    def open(self, kind: Kind, raw: bytes) -> Document[Any]:
        """A command or time: signature, type and audience hold. The rest is its reader's. Raises Refused."""
        envelope = Envelope.parse(kind, raw)
        signers, claims = self._verified(kind, envelope)
        return read(kind, envelope, signers, claims)

    def _take_root(self, envelope: Envelope, now: Moment) -> "Accepted":
        """Signed by those who are trusted now, and by those who will be.

        It does not expire: one that is not the newest may be the way to the newest, and a device that is
        kept from the newest sees it in the head.
        """
        old = self.root
        signers, claims = self._verified(Kind.ROOT, envelope)
        check_begun(claims, now)
        if _says_the_same(envelope, old):
            return self._take_text(replace(old, signers=signers, raw=envelope.raw), old)
        check_version(Kind.ROOT, claims, envelope, old)
        root: Document[Root] = read(Kind.ROOT, envelope, signers, claims)
        envelope.signers(root.body.public(Role.ROOT), root.body.threshold(Role.ROOT))
        if root.body.epoch < old.body.epoch:
            raise Refused(
                Reason.ROLLED_BACK, f"expected epoch {old.body.epoch} or later, got {root.body.epoch}"
            )
        anew = root.body.epoch > old.body.epoch
        after = replace(self, root=root)._sifted(claims.iat, anew=anew)
        return self._accepted(root, after._settled(), root)

    def _take_text(self, told: Document[Any], known: Document[Any]) -> "Accepted":
        """The same in other words: one of them is kept, for a head that names it."""
        if self.head is not None and self.head.body.pin(known.name) == known.pin:
            return Accepted(trusted=self, document=known)
        return self._accepted(known, replace(self, reworded={**self.reworded, known.name: told})._settled())

    def _take_head(self, envelope: Envelope, now: Moment) -> "Accepted":
        signers, claims = self._verified(Kind.HEAD, envelope)
        check_time(claims, now)
        if self.head is not None and _says_the_same(envelope, self.head):
            return Accepted(trusted=self, document=self.head)
        self._check_new("head", claims, envelope, self.head)
        head: Document[Head] = read(Kind.HEAD, envelope, signers, claims)
        if claims.exp - claims.iat > HEAD_S:
            raise Refused(
                Reason.SCHEMA, f"expected a head of {HEAD_S} s at most, got {claims.exp - claims.iat}"
            )
        for name, pin in head.body.documents.items():
            self._check_named(name, pin)
        staged = {name: each for name, each in self.staged.items() if head.body.pin(name) == each.pin}
        return self._accepted(head, replace(self, head=head, staged=staged)._settled(), head)

    def _take_revocations(self, envelope: Envelope, now: Moment) -> "Accepted":
        signers, claims = self._verified(Kind.REVOCATIONS, envelope)
        check_time(claims, now)
        known = self.held.get("revocations")
        if known is not None and _says_the_same(envelope, known):
            return self._take_text(replace(known, signers=signers, raw=envelope.raw), known)
        self._check_new("revocations", claims, envelope, known)
        pin = self.head.body.pin("revocations") if self.head else None
        if pin is not None and pin.ver == claims.ver and pin.sha256 != envelope.sha256:
            raise Refused(Reason.MIXED, f"expected the revocations {claims.ver} of the head, got others")
        document: Document[Revocations] = read(Kind.REVOCATIONS, envelope, signers, claims)
        revoked = self.revoked.merged(document.body)
        after = replace(self, held={**self.held, "revocations": document}, revoked=revoked)
        return self._accepted(document, after._sifted(claims.iat)._settled(), document)

    def _take_pinned(self, kind: Kind, envelope: Envelope, now: Moment) -> "Accepted":
        signers, claims = self._verified(kind, envelope)
        check_time(claims, now)
        name = f"bundle/{claims.body.get('kind')}" if kind is Kind.BUNDLE else str(kind)
        self._check_new(name, claims, envelope, self.staged.get(name) or self.held.get(name))
        pin = self.head.body.pin(name) if self.head else None
        if pin is None or pin.ver < claims.ver:
            named = f"version {pin.ver}" if pin else "none"
            raise Refused(
                Reason.NOT_IN_HEAD, f"expected {name} as the head has it ({named}), got {claims.ver}"
            )
        check_pin(name, pin, Pin(ver=claims.ver, sha256=envelope.sha256))
        document = read(kind, envelope, signers, claims)
        return self._accepted(document, replace(self, staged={**self.staged, name: document})._settled())

    # -- checks -----------------------------------------------------------------------------------

    def _verified(self, kind: Kind, envelope: Envelope) -> tuple[tuple[str, ...], Claims]:
        """Signatures, then type, then audience. Raises Refused."""
        keys = {kid: key for role in ROLES[kind] for kid, key in self.root.body.public(role).items()}
        if kind is not Kind.ROOT:
            # Who may revoke keys must not be able to depose the root: only a root can do that.
            keys = {kid: key for kid, key in keys.items() if kid not in self.revoked.keys}
        one = len(ROLES[kind]) > 1
        signers = envelope.signers(keys, 1 if one else self.root.body.threshold(ROLES[kind][0]))
        claims = envelope.claims(kind)
        self.audience.check(claims)
        return signers, claims

    def _check_new(self, name: str, claims: Claims, envelope: Envelope, last: Document[Any] | None) -> None:
        check_version(name, claims, envelope, last)
        if last is None and claims.iat < self.since.get(name, 0):
            raise Refused(
                Reason.ROLLED_BACK, f"expected a {name} made after versions began anew, got an older"
            )

    def _check_named(self, name: str, pin: Pin) -> None:
        """Raises Refused for a head that names an older document, or another than is known."""
        known = self.root if name == "root" else self.held.get(name)
        if known is not None and not (name in AT_ONCE and known.ver == pin.ver):
            check_pin(name, known.pin, pin)
        before = self.head.body.pin(name) if self.head else None
        if before is not None:
            check_pin(name, before, pin)

    # -- coming into force ------------------------------------------------------------------------

    def _lacking(self, head: Head, here: Mapping[str, Document[Any]]) -> list[str]:
        """Names that are not here as the head has them."""
        have = {**{name: document.pin for name, document in here.items()}, "root": self.root.pin}
        return [
            name
            for name, pin in head.documents.items()
            if have.get(name) != pin and not (name in AT_ONCE and name in have and have[name].ver > pin.ver)
        ]

    def _settled(self) -> Self:
        """All that is staged comes into force once nothing of the head is lacking."""
        if self.head is None:
            return self
        after = self._worded(self.head.body)
        here = {**after.held, **after.staged}
        return after if after._lacking(self.head.body, here) else replace(after, held=here, staged={})

    def _worded(self, head: Head) -> Self:
        """With what is in force at once in the very text that the head names, where that is here."""
        named = {name: told for name, told in self.reworded.items() if head.pin(name) == told.pin}
        reworded = {name: told for name, told in self.reworded.items() if name not in named}
        root = named.pop("root", self.root)
        return replace(self, root=root, held={**self.held, **named}, reworded=reworded)

    def _sifted(self, at: int, *, anew: bool = False) -> Self:
        """Without what the keys that count now have not signed: its versions start anew, from what is made
        after `at`. With `anew` nothing is left, and nothing of before can be the first of its name."""

        def stays(document: Document[Any]) -> bool:
            signers = set(document.signers) - self.revoked.keys
            return not anew and self.root.body.lets(ROLES[document.kind][0], signers)

        known = {**({"head": self.head} if self.head else {}), **self.held}
        gone = {name: at for name, document in known.items() if not stays(document)}
        since = dict.fromkeys(("head", "config", "revocations", *BUNDLES), at) if anew else gone
        return replace(
            self,
            head=None if "head" in gone else self.head,
            held={name: each for name, each in self.held.items() if name not in gone},
            staged={name: each for name, each in self.staged.items() if stays(each)},
            reworded={},
            since={**self.since, **since},
        )

    def _accepted(self, document: Document[Any], after: "Trusted", *effective: Document[Any]) -> "Accepted":
        before, now = self.dump(), after.dump()
        changed = {key: value for key, value in now.items() if before.get(key) != value}
        known = {name: each.claims for name, each in self.held.items()}
        came = [each for name, each in after.held.items() if known.get(name) != each.claims]
        return Accepted(
            trusted=after,
            document=document,
            records={**dict.fromkeys(before.keys() - now.keys()), **changed},
            effective=(*effective, *(each for each in came if each not in effective)),
            forgotten=tuple(name for name in self.held if name not in after.held),
        )

    # -- what is remembered -----------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """As journal records."""
        records: dict[str, Any] = {
            f"{PREFIX}root": {**_record(self.root), "pinned": self.pinned},
            f"{PREFIX}revoked": self.revoked.dump(),
            f"{PREFIX}since": dict(self.since),
            f"{PREFIX}known": self.knowledge_at,
        }
        if self.head is not None:
            records[f"{PREFIX}head"] = _record(self.head)
        records |= {f"{PREFIX}doc/{name}": _record(document) for name, document in self.held.items()}
        return {key: value for key, value in records.items() if value is not None}

    @classmethod
    def load(cls, raw: bytes | None, audience: Audience, records: Mapping[str, Any]) -> Self:
        """What was dumped. `raw` is the root put here by hand: another than it was starts anew under it.

        What has been revoked stays so whatever the root. Without `raw` there must be records. Raises Refused
        for a root that is none.
        """
        root = records.get(f"{PREFIX}root")
        revoked = Revoked.load(records.get(f"{PREFIX}revoked"))
        first = None if raw is None else cls.pin(raw, audience)
        if first is not None and (root is None or root["pinned"] != first.pinned):
            return replace(first, revoked=revoked)
        if root is None:
            raise Refused(Reason.MALFORMED, "expected a root, got none")
        head = records.get(f"{PREFIX}head")
        prefix = f"{PREFIX}doc/"
        held = {key.removeprefix(prefix): each for key, each in records.items() if key.startswith(prefix)}
        return cls(
            audience=audience,
            pinned=root["pinned"],
            root=_loaded(Kind.ROOT, root),
            head=head and _loaded(Kind.HEAD, head),
            held=_readable(held),
            revoked=revoked,
            since=records.get(f"{PREFIX}since", {}),
            knowledge_at=records.get(f"{PREFIX}known"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A document that was believed, and what follows: commit the records, then use `trusted`."""

    trusted: Trusted
    document: Document[Any]
    records: Mapping[str, Any] = field(default_factory=dict)
    """Journal records that change; None for one that goes."""
    effective: tuple[Document[Any], ...] = ()
    """What has come into force by it, in order: none where it was known, or waits for the rest of its set."""
    forgotten: tuple[str, ...] = ()
    """Names of what is no longer in force."""


def _says_the_same(envelope: Envelope, known: Document[Any]) -> bool:
    """Whether it is the known document, in whatever text."""
    return envelope.jws.payload == Envelope.parse(known.kind, known.raw).jws.payload


def _record(document: Document[Any]) -> dict[str, Any]:
    return {"raw": document.raw.decode("ascii"), "signers": list(document.signers)}


def _readable(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Document[Any]]:
    """What can still be read. The rest is brought again as the head has it, and no older one can be."""
    found: dict[str, Document[Any]] = {}
    for name, record in records.items():
        with contextlib.suppress(Refused):
            found[name] = _loaded(Kind(name.partition("/")[0]), record)
    return found


def _loaded(kind: Kind, record: Mapping[str, Any]) -> Document[Any]:
    """What was verified before it was remembered."""
    envelope = Envelope.parse(kind, record["raw"].encode("ascii"))
    return read(kind, envelope, tuple(record["signers"]), envelope.claims(kind))
