"""One page of a bundle: how it is sealed to one device, how it is opened there, and what may stand in it.

A page is sealed with HPKE (RFC 9180, base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305), the encapsulated key
first. Bundle, device and version stand in `info`, so that a page passes for no other. Its plaintext is

    {"rows": [{"v": "…", "kind": "badge", "body": {"subject": "…"}}, …]}

or, in the key page, `{"epoch_key": "…", "epoch_id": 1}`. A page is named by the hash of its sealed bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from agent import strict_json
from agent.envelope import told
from agent.jws import BadJws, decoded
from agent.row_seal import BadPage
from agent.strict_json import BadJson
from agent.templates import KIND, Template

LIMIT = 96 * 1024
"""Most bytes of a sealed page."""
OVERHEAD = 48
"""Bytes that sealing adds: an encapsulated key and a tag."""

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)

Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
"""32 bytes in canonical base64url."""
Reference = Annotated[str, StringConstraints(min_length=1, max_length=64)]
UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Slot = Annotated[int, Field(ge=0, le=65_535)]
Second = Annotated[int, Field(ge=0, le=253_402_300_799)]
"""Since 1970 UTC."""


class _Closed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Person(_Closed):
    """Who holds a credential."""

    subject: Reference
    finger: tuple[UnitName, Slot] | None = None
    until: Second | None = None
    public_key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{40,512}$")] | None = None
    role: Literal["driver", "supervisor", "technician"] | None = None
    level: Annotated[int, Field(ge=0, le=3)] | None = None


class Grant(_Closed):
    """A pickup code: opens one compartment of one locker once, in one window."""

    jti: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    locker: Reference
    compartment: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,15}$")] | None = None
    """Its name; without one, wherever the parcel lies."""
    parcel: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    """Its label, such as `sscc:...`."""
    purpose: Literal["pickup", "return"] = "pickup"
    nbf: Second = 0
    exp: Second


class Load(_Closed):
    """What is known of a parcel that is to be carried."""

    driver: Reference | None = None
    stop: Reference | None = None
    flags: Annotated[list[Reference], Field(max_length=16)] = []


class Provision(_Closed):
    """A template for one slot of one fingerprint module, from 256 bytes to 2 KiB."""

    subject: Reference
    unit: UnitName
    slot: Slot
    template: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{342,2731}$")]
    """In base64url without padding."""
    until: Second | None = None


class PersonRow(_Closed):
    v: Secret
    kind: Literal["badge", "static", "pin", "fido2"]
    body: Person

    @model_validator(mode="after")
    def _card(self) -> Self:
        if (self.kind == "fido2") != (self.body.public_key is not None):
            raise ValueError("expected a public key for fido2 and for nothing else")
        return self


class TemplateRow(_Closed):
    v: Secret
    kind: Literal["template"]
    body: Provision

    @field_validator("body")
    @classmethod
    def _canonical(cls, body: Provision) -> Provision:
        try:
            decoded(body.template)
        except BadJws:
            raise ValueError("expected a template in canonical base64url") from None
        return body


class GrantRow(_Closed):
    v: Secret
    kind: Literal["grant", "grant_pin"]
    body: Grant


class LoadRow(_Closed):
    v: Secret
    kind: Literal["parcel"]
    body: Load


class _Roster(_Closed):
    rows: list[Annotated[PersonRow | TemplateRow, Field(discriminator="kind")]]


class _Grants(_Closed):
    rows: list[GrantRow]


class _Manifest(_Closed):
    rows: list[LoadRow]


class KeyPage(_Closed):
    """What the rows are sealed under."""

    epoch_key: Secret
    epoch_id: Annotated[int, Field(ge=1, le=2**31)]


_PAGES: Mapping[str, TypeAdapter[Any]] = {
    "roster": TypeAdapter(_Roster),
    "grants": TypeAdapter(_Grants),
    "manifest": TypeAdapter(_Manifest),
}
_KEY_PAGE = TypeAdapter(KeyPage)

BUNDLES = tuple(_PAGES)


@dataclass(frozen=True, slots=True)
class EpochKey:
    """What a key page brings."""

    id: int
    key: bytes

    def __repr__(self) -> str:
        return f"EpochKey({self.id}, ...)"


@dataclass(frozen=True, slots=True)
class Content:
    """What stands in a page of rows."""

    rows: Sequence[tuple[bytes, Mapping[str, Any]]]
    """Each `v` and body, of what opens by presentation."""
    templates: Sequence[Template] = ()

    def __len__(self) -> int:
        return len(self.rows) + len(self.templates)


def info(bundle: str, address: str, ver: int) -> bytes:
    """What a page is sealed for. `address` is `<tenant>/<device>`."""
    return b"\0".join((b"postern/v1", b"page", bundle.encode(), address.encode(), str(ver).encode()))


def seal(plain: bytes, recipient: X25519PublicKey, purpose: bytes) -> bytes:
    """A page that only this device can open."""
    return _SUITE.encrypt(plain, recipient, purpose)


def unseal(raw: bytes, private: X25519PrivateKey, purpose: bytes) -> bytes:
    """The plaintext of a page. Raises BadPage for one that was sealed for another device or purpose."""
    try:
        return _SUITE.decrypt(raw, private, purpose)
    except (InvalidTag, ValueError) as error:
        raise BadPage("expected a page that was sealed for this device and purpose") from error


def read_rows(bundle: str, plain: bytes) -> Content:
    """What stands in a page of this bundle. Raises BadPage."""
    tree = _read(_PAGES[bundle], plain)
    rows = tree["rows"]
    return Content(
        [(decoded(row["v"]), row["body"]) for row in rows if row["kind"] != KIND],
        [_template(decoded(row["v"]), row["body"]) for row in rows if row["kind"] == KIND],
    )


def read_key(plain: bytes) -> EpochKey:
    """What stands in a key page. Raises BadPage."""
    tree = _read(_KEY_PAGE, plain)
    return EpochKey(tree["epoch_id"], decoded(tree["epoch_key"]))


def write(tree: Mapping[str, Any]) -> bytes:
    return strict_json.dumps(tree)


def check(bundle: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Whether a device would take these rows. Raises BadPage."""
    _read(_PAGES[bundle], write({"rows": list(rows)}))


def _template(value: bytes, body: Mapping[str, Any]) -> Template:
    return Template(
        value=value,
        subject=body["subject"],
        unit=body["unit"],
        slot=body["slot"],
        until=body.get("until"),
        content=decoded(body["template"]),
    )


def _read(shape: TypeAdapter[Any], plain: bytes) -> Any:
    try:
        tree = strict_json.loads(plain)
        # From the text, where a list may stand for a pair.
        shape.validate_json(plain)
    except BadJson as bad:
        raise BadPage(str(bad)) from bad
    except ValidationError as error:
        raise BadPage(told(error)) from error
    return tree
