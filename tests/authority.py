"""A fleet as tests play it: keys made on the spot, and any document that it could sign, right or wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.admission import Audience
from agent.clock import NS, Moment
from agent.envelope import Envelope, Kind, issue
from agent.jws import Signer, encoded
from agent.trust import Trusted
from tests.moments import NOON_NS

NOON = NOON_NS // NS
DAY = 86_400
SELF = Audience(tenant="acme", device="locker-17", groups=frozenset({"north"}))
ROLES = ("head", "config", "bundle", "revocations", "command", "emergency", "time", "receipt")
NOTHING: dict[str, list[str]] = {"subjects": [], "credentials": [], "keys": [], "grants": []}


def fresh() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


class Authority:
    """Three root keys of which two must sign, and a key for each role."""

    def __init__(self) -> None:
        self.roots = [fresh() for _ in range(3)]
        self.signers = {role: [fresh()] for role in ROLES}
        self.thresholds = {"root": 2}
        self.epoch = 1

    def rotate(self, *roles: str) -> None:
        """New keys for old; the root that says so is still to be issued."""
        for role in roles:
            self.signers[role] = [fresh()]

    def root_body(self) -> dict[str, Any]:
        members = {"root": self.roots, **self.signers}
        return {
            "epoch": self.epoch,
            "keys": {each.kid: encoded(each.public) for group in members.values() for each in group},
            "roles": {
                role: {"kids": [each.kid for each in group], "threshold": self.thresholds.get(role, 1)}
                for role, group in members.items()
            },
        }

    def root(self, ver: int = 1, *, by: Sequence[Signer] | None = None, **claims: Any) -> bytes:
        """Signed by two of three."""
        body = claims.pop("body", None) or self.root_body()
        return self.made(Kind.ROOT, body, ver, by or self.roots[:2], aud="acme/*", **claims)

    def head(self, ver: int, documents: Mapping[str, bytes | tuple[int, str]], **claims: Any) -> bytes:
        """A head that names envelopes as they are, or whatever versions and hashes."""
        pins = {name: pin_of(name, what) for name, what in documents.items()}
        return self.made(Kind.HEAD, {"documents": pins}, ver, exp_in=DAY, **claims)

    def bundle(self, kind: str, ver: int, *pages: Mapping[str, Any], **claims: Any) -> bytes:
        about = {"kind": kind, "scope": "depot-7", "as_of": NOON, "buckets": 4, "rows": 0}
        return self.made(Kind.BUNDLE, {**about, "pages": list(pages)}, ver, **claims)

    def revocations(self, ver: int, *, of: Mapping[str, list[str]] = NOTHING, **claims: Any) -> bytes:
        return self.made(Kind.REVOCATIONS, {**NOTHING, **of}, ver, **claims)

    def made(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        ver: int,
        by: Sequence[Signer] | None = None,
        *,
        aud: str = SELF.name,
        iat: int = NOON,
        exp_in: int = 30 * DAY,
        jti: str | None = None,
    ) -> bytes:
        signers = self.signers[kind] if by is None else by
        return issue(kind, body, signers, aud=aud, iat=iat, exp=iat + exp_in, ver=ver, jti=jti)

    def trusted(self) -> Trusted:
        """A device that has been given the first root."""
        return Trusted.pin(self.root(), SELF)


def pin_of(name: str, what: bytes | tuple[int, str]) -> dict[str, Any]:
    if isinstance(what, tuple):
        return {"ver": what[0], "sha256": what[1]}
    kind = Kind(name.partition("/")[0])
    envelope = Envelope.parse(kind, what)
    return {"ver": envelope.claims(kind).ver, "sha256": envelope.sha256}


def at(seconds: int, moment: Moment) -> Moment:
    """The same boot, so many seconds later."""
    later = seconds * NS
    return Moment(
        moment.boot,
        moment.mono_ns + later,
        moment.utc_ns + later,
        moment.trust,
        moment.error_s,
        moment.vouched,
    )
