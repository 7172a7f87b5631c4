"""Signed bytes from the fleet: what kinds there are, how one is written, and how it is opened.

An envelope is a JWS whose payload is a set of claims. Opening it goes by steps, each of which may refuse:
`Envelope.parse` bounds the size and reads the form, `signers` verifies, and only `claims` looks inside. What
a document may do is for `agent.trust` to say. Nothing here knows a clock or a network: fleet and device
share it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agent import jws, strict_json
from agent.jws import BadJws, Jws, Signer
from agent.strict_json import BadJson

KIB = 1024
LATEST = 253_402_300_799
"""The last second of the year 9999."""


class Kind(StrEnum):
    """What an envelope holds. Its `typ` says so under the signature: one kind can never pass as another."""

    ROOT = "root"
    HEAD = "head"
    CONFIG = "config"
    BUNDLE = "bundle"
    REVOCATIONS = "revocations"
    COMMAND = "command"
    TIME = "time"
    ENROLMENT = "enrolment"
    RENEWAL = "renewal"
    """New keys of a device that is known, signed by the key that it is known by."""
    GRANT = "grant"
    """A pickup code: short enough for a QR code that a telephone shows."""
    DEPOSIT = "deposit"
    """A locker's receipt for a courier, signed by the locker."""

    @property
    def typ(self) -> str:
        return f"postern-{self}+jws"


CAPS = {
    Kind.ROOT: 32 * KIB,
    Kind.HEAD: 8 * KIB,
    Kind.CONFIG: 96 * KIB,
    Kind.BUNDLE: 96 * KIB,
    Kind.REVOCATIONS: 96 * KIB,
    Kind.COMMAND: 8 * KIB,
    Kind.TIME: 8 * KIB,
    Kind.ENROLMENT: 16 * KIB,
    Kind.RENEWAL: 16 * KIB,
    Kind.GRANT: 512,
    Kind.DEPOSIT: 2 * KIB,
}
"""Most bytes of an envelope."""


class Reason(StrEnum):
    """Why an envelope changes nothing."""

    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    """None of its signatures is of a key that may sign this."""
    BELOW_THRESHOLD = "below_threshold"
    WRONG_TYPE = "wrong_type"
    WRONG_AUDIENCE = "wrong_audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REPLAYED = "replayed"
    ROLLED_BACK = "rolled_back"
    FAST_FORWARD = "fast_forward"
    NOT_IN_HEAD = "not_in_head"
    MIXED = "mixed"
    """Two different documents under one version."""
    SCHEMA = "schema"
    BUDGET = "budget"
    NOT_PERMITTED = "not_permitted"


class Refused(Exception):
    """An envelope that changes nothing. `reason` names why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Claims(BaseModel):
    """What every payload says about itself, and the body that is its kind's."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    iss: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    """The key of the first signature."""
    aud: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    """`<tenant>/<device>`, `<tenant>/*` or `<tenant>/@<group>`."""
    iat: Annotated[int, Field(ge=0, le=LATEST)]
    """Seconds since 1970 UTC, as `exp`."""
    exp: Annotated[int, Field(ge=0, le=LATEST)]
    jti: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    """128 random bits in base64url."""
    ver: Annotated[int, Field(ge=1)]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope, of which nothing has been verified."""

    raw: bytes
    jws: Jws

    @classmethod
    def parse(cls, kind: Kind, raw: bytes) -> Self:
        """Raises Refused for what is over the cap of its kind, or no JWS as we take it."""
        if len(raw) > CAPS[kind]:
            raise Refused(
                Reason.OVERSIZED, f"expected a {kind} of at most {CAPS[kind]} bytes, got {len(raw)}"
            )
        try:
            return cls(raw, Jws.parse(raw))
        except BadJws as bad:
            raise Refused(Reason.MALFORMED, str(bad)) from bad

    @property
    def sha256(self) -> str:
        """Of the whole, in hex: what a head pins."""
        return sha256(self.raw).hexdigest()

    def signers(self, keys: Mapping[str, bytes], threshold: int = 1) -> tuple[str, ...]:
        """Which of these keys (raw, by kid) signed it. Raises Refused unless `threshold` of them did."""
        try:
            found = self.jws.signers(keys)
        except BadJws as bad:
            raise Refused(Reason.BAD_SIGNATURE, str(bad)) from bad
        if not found:
            first = self.jws.signatures[0].kid
            raise Refused(Reason.UNKNOWN_KEY, f"expected a key that may sign this, got {first}")
        if len(found) < threshold:
            raise Refused(Reason.BELOW_THRESHOLD, f"expected {threshold} signatures, got {len(found)}")
        return found

    def claims(self, kind: Kind) -> Claims:
        """What was signed, as a `kind`. Verify first. Raises Refused."""
        if self.jws.typ != kind.typ:
            raise Refused(Reason.WRONG_TYPE, f"expected {kind.typ}, got {self.jws.typ}")
        try:
            claims = Claims.model_validate(strict_json.loads(jws.decoded(self.jws.payload)))
        except BadJson as bad:
            raise Refused(Reason.MALFORMED, str(bad)) from bad
        except ValidationError as error:
            raise Refused(Reason.SCHEMA, told(error)) from error
        if claims.iss != self.jws.signatures[0].kid:
            raise Refused(Reason.SCHEMA, f"expected iss {self.jws.signatures[0].kid}, got {claims.iss}")
        return claims


def issue(
    kind: Kind,
    body: BaseModel | Mapping[str, Any],
    signers: Sequence[Signer],
    *,
    aud: str,
    iat: int,
    exp: int,
    ver: int,
    jti: str | None = None,
) -> bytes:
    """A signed envelope, read back before it is given. Raises Refused for one that no device would take."""
    claims = Claims(
        iss=signers[0].kid,
        aud=aud,
        iat=iat,
        exp=exp,
        jti=jti or new_id(),
        ver=ver,
        body=dict(body) if isinstance(body, Mapping) else body.model_dump(by_alias=True, exclude_none=True),
    )
    raw = jws.sign(strict_json.dumps(claims.model_dump()), kind.typ, signers)
    envelope = Envelope.parse(kind, raw)
    envelope.signers({signer.kid: signer.public for signer in signers}, len(signers))
    envelope.claims(kind)
    return raw


def new_id() -> str:
    """A `jti`: 128 random bits in base64url."""
    return jws.encoded(os.urandom(16))


def told(error: ValidationError) -> str:
    """The first mistake of a document in words, and nothing of what it holds."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step)[:40] for step in first["loc"])
    if first["type"] == "union_tag_invalid":
        # Pydantic's own words for this one quote what they found.
        return f"{where}.kind: expected one of {first['ctx']['expected_tags']}"
    return f"{where}: {first['msg']}"[:200]
