"""The fleet's documents: what stands in the body of each kind of envelope, and what it is once verified.

Models are strict and closed: a key that is not known here is a mistake, not a wish. They say what a document
is, never whether it may be believed: a `Document` is made by `agent.trust` alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from agent.envelope import Claims, Envelope, Kind, Reason, Refused, told
from agent.jws import BadJws, decoded, kid_of

PAGE = 96 * 1024
"""Most bytes of a sealed page."""
KEY_PAGE = -1
"""The bucket that holds no rows but the key they are sealed under."""
BUCKETS = 1024
ROSTER_S = 31 * 86_400
"""How long after it was signed a list of people opens anything, whatever its rows say."""
LABEL_MOST = 80
"""Characters of a parcel's label, where a grant names it."""

Kid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[int, Field(ge=1, le=2**64 - 1)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Nonce = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{21}[AQgw]$")]
"""128 random bits in base64url."""


class Role(StrEnum):
    """What a key may sign."""

    ROOT = "root"
    HEAD = "head"
    CONFIG = "config"
    BUNDLE = "bundle"
    REVOCATIONS = "revocations"
    COMMAND = "command"
    EMERGENCY = "emergency"
    TIME = "time"
    RECEIPT = "receipt"
    GRANT = "grant"
    """May let somebody open one compartment once."""


class Body(BaseModel):
    """Strict, closed and frozen, as every body is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _public_key(text: str) -> str:
    try:
        size = len(decoded(text))
    except BadJws as bad:
        raise ValueError(str(bad)) from bad
    if size != 32:
        raise ValueError(f"expected a public key of 32 bytes, got {size}")
    return text


def _role(text: str) -> str:
    return Role(text).value


class RoleKeys(Body):
    """Who may act in a role, and how many of them it takes."""

    kids: Annotated[list[Kid], Field(min_length=1, max_length=16)]
    threshold: Annotated[int, Field(ge=1, le=16)]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if len(set(self.kids)) < len(self.kids):
            raise ValueError("expected each key once in a role")
        if self.threshold > len(self.kids):
            raise ValueError(f"expected a threshold of at most {len(self.kids)}, got {self.threshold}")
        return self


class Root(Body):
    """Whose signatures count, and for what."""

    epoch: Annotated[int, Field(ge=1)]
    """Raised, all versions start anew: the way back after somebody drove them to the end."""
    keys: dict[Kid, Annotated[str, AfterValidator(_public_key)]]
    """Raw public keys in base64url by their kid."""
    roles: dict[Annotated[str, AfterValidator(_role)], RoleKeys]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kid, key in self.keys.items():
            if kid != kid_of(decoded(key)):
                raise ValueError(f"expected the kid {kid_of(decoded(key))}, got {kid}")
        for role, keys in self.roles.items():
            if not set(keys.kids) <= set(self.keys):
                raise ValueError(f"expected the keys of {role} among keys")
        if Role.ROOT not in self.roles or self.roles[Role.ROOT].threshold < 2:
            raise ValueError("expected a root that takes two signatures at least")
        if set(self.kids(Role.COMMAND)) & set(self.kids(Role.EMERGENCY)):
            raise ValueError("expected emergency keys that are no command keys")
        return self

    def kids(self, role: Role) -> tuple[str, ...]:
        return tuple(self.roles[role].kids) if role in self.roles else ()

    def threshold(self, role: Role) -> int:
        return self.roles[role].threshold if role in self.roles else 1

    def lets(self, role: Role, signers: Collection[str]) -> bool:
        """Whether these are enough of its keys."""
        return len(set(signers) & set(self.kids(role))) >= self.threshold(role)

    def public(self, role: Role) -> dict[str, bytes]:
        """The raw public keys of a role by kid."""
        return {kid: decoded(self.keys[kid]) for kid in self.kids(role)}


BundleKind = Literal["roster", "grants", "manifest"]
Name = Literal["root", "config", "revocations", "bundle/roster", "bundle/grants", "bundle/manifest"]
"""What a head can pin."""


class Pin(Body):
    """Exactly one document: its version and the hash of its whole envelope."""

    ver: Version
    sha256: Digest


class Head(Body):
    """Every document that is current. It lives for a day, so that a device sees that it is being frozen."""

    documents: dict[Name, Pin]

    def pin(self, name: str) -> Pin | None:
        return next((pin for each, pin in self.documents.items() if each == name), None)


class Page(Body):
    """One sealed page of a bundle, named by its hash."""

    bucket: Annotated[int, Field(ge=KEY_PAGE, lt=BUCKETS)]
    ver: Version
    sha256: Digest
    size: Annotated[int, Field(ge=1, le=PAGE)]


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("expected a power of two")
    return value


class Bundle(Body):
    """A list of pages that together are the roster, the grants or the manifest of one device."""

    kind: BundleKind
    scope: Text
    as_of: Annotated[int, Field(ge=0)]
    """Seconds since 1970 UTC at which its rows were right."""
    buckets: Annotated[int, Field(ge=1, le=BUCKETS), AfterValidator(_power_of_two)]
    rows: Annotated[int, Field(ge=0)]
    pages: Annotated[list[Page], Field(max_length=BUCKETS + 1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        buckets = [page.bucket for page in self.pages]
        if len(set(buckets)) < len(buckets):
            raise ValueError("expected one page for a bucket")
        if buckets and max(buckets) >= self.buckets:
            raise ValueError(f"expected buckets below {self.buckets}, got {max(buckets)}")
        if len({page.sha256 for page in self.pages}) < len(buckets):
            raise ValueError("expected each page once")
        return self


class Revocations(Body):
    """What is taken away for ever, whatever else says otherwise."""

    subjects: list[Text]
    credentials: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]]
    """The first 16 bytes of a row's v."""
    keys: list[Kid]
    grants: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]]


class SignedGrant(Body):
    """A pickup code that needs no sync: whoever shows it may open one compartment once, until it expires."""

    parcel: Annotated[str, StringConstraints(min_length=1, max_length=LABEL_MOST)] | None = None
    """Label of the parcel; its compartment is where it lies."""
    compartment: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,15}$")] | None = None
    purpose: Literal["pickup", "return"] = "pickup"
    nbf: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _for_something(self) -> Self:
        if self.parcel is None and self.compartment is None:
            raise ValueError("expected a parcel or a compartment")
        return self


class Command(Body):
    """Something to be done once. Its `ver` is the sequence of the key that issued it, its `jti` its name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    rank: Annotated[Literal["A", "B", "C", "D", "E"], Field(alias="class")]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    args: dict[str, Any]
    operator: Annotated[str, StringConstraints(max_length=80)]
    reason: Annotated[str, StringConstraints(max_length=200)]
    nonce: Nonce | None = None
    """The device's own, from its birth message: proves that the command was made for this connection."""


class Time(Body):
    """What time it is, told to whoever asked."""

    nonce: Nonce
    utc: Annotated[int, Field(ge=0)]
    """Milliseconds since 1970."""


class Config(Body):
    """Held as it is: what it means is read where it is applied."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


BODIES: Mapping[Kind, type[Body]] = {
    Kind.ROOT: Root,
    Kind.HEAD: Head,
    Kind.CONFIG: Config,
    Kind.BUNDLE: Bundle,
    Kind.REVOCATIONS: Revocations,
    Kind.COMMAND: Command,
    Kind.TIME: Time,
    Kind.GRANT: SignedGrant,
}

B_co = TypeVar("B_co", bound=Body, covariant=True)


@dataclass(frozen=True, slots=True)
class Document(Generic[B_co]):
    """A body, the claims it came with, and the exact bytes that were signed."""

    kind: Kind
    name: str
    """As heads pin it: the kind, and of bundles `bundle/<kind>`."""
    claims: Claims
    body: B_co
    signers: tuple[str, ...]
    """Keys whose signatures on it were verified."""
    raw: bytes

    @property
    def ver(self) -> int:
        return self.claims.ver

    @property
    def sha256(self) -> str:
        return sha256(self.raw).hexdigest()

    @property
    def pin(self) -> Pin:
        return Pin(ver=self.ver, sha256=self.sha256)


def read(kind: Kind, envelope: Envelope, signers: tuple[str, ...], claims: Claims) -> Document[Any]:
    """The document in an envelope that has been verified. Raises Refused for a body of another shape."""
    try:
        body = BODIES[kind].model_validate(claims.body)
    except ValidationError as error:
        raise Refused(Reason.SCHEMA, told(error)) from error
    name = f"bundle/{body.kind}" if isinstance(body, Bundle) else str(kind)
    return Document(kind, name, claims, body, signers, envelope.raw)
