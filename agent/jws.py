"""JSON Web Signatures (RFC 7515) as Postern takes them: Ed25519 (RFC 9864) alone, and strict.

One signature travels in the compact form, several in the general JSON form. The protected header is exactly

    {"alg":"Ed25519","kid":"0c7a3f5e9b1d2846","typ":"postern-head+jws"}

There is no unprotected header, no `crit`, no other algorithm to be talked into, and one text for each value:
base64url without padding or spare bits, no JSON key twice. A `Jws` is what arrived, and its payload is still
only bytes: nothing in it is looked at before `signers` has said who vouches for it.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent import strict_json
from agent.strict_json import BadJson

ALG = "Ed25519"
SIGNATURES = 16
"""Most signatures of one document."""
HEADER = 512
"""Bytes of a protected header, encoded: ours take about 100."""

_KID = re.compile("[0-9a-f]{16}")
_TYP = re.compile(r"[a-z0-9-]{1,40}\+jws")


class BadJws(Exception):
    """Malformed, or badly signed: the payload means nothing."""


def kid_of(public: bytes) -> str:
    """The name of a raw public key: the first 16 hex digits of its SHA-256."""
    return sha256(public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key that signs under its own name."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def kid(self) -> str:
        return kid_of(self.public)

    def sign(self, payload: str, typ: str) -> "Signature":
        header = strict_json.dumps({"alg": ALG, "kid": self.kid, "typ": typ})
        protected = encoded(header)
        return Signature(protected, self.kid, typ, self.private.sign(f"{protected}.{payload}".encode()))


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, and the header that it covers beside the payload."""

    protected: str
    kid: str
    """Whose it claims to be."""
    typ: str
    value: bytes

    @classmethod
    def parse(cls, protected: object, value: object) -> Self:
        """Raises BadJws."""
        if not isinstance(protected, str) or not isinstance(value, str) or len(protected) > HEADER:
            raise BadJws("expected a protected header and a signature in base64url")
        header = _json(decoded(protected))
        if not isinstance(header, dict) or set(header) != {"alg", "kid", "typ"}:
            raise BadJws("expected a protected header of alg, kid and typ alone")
        alg, kid, typ = header["alg"], header["kid"], header["typ"]
        if alg != ALG:
            raise BadJws(f"expected alg {ALG}, got {str(alg)[:20]!r}")
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise BadJws(f"expected a kid of 16 hex digits, got {str(kid)[:40]!r}")
        if not isinstance(typ, str) or not _TYP.fullmatch(typ):
            raise BadJws(f"expected a typ that ends in +jws, got {str(typ)[:40]!r}")
        return cls(protected, kid, typ, decoded(value))

    def verifies(self, payload: str, public: bytes) -> bool:
        return verifies(f"{self.protected}.{payload}".encode(), self.value, public)


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed JWS of which nothing has been verified."""

    payload: str
    """As it is signed, in base64url."""
    signatures: tuple[Signature, ...]
    """At least one, each of another key, all of one type."""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Either form. Bound the size first. Raises BadJws."""
        try:
            text = raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise BadJws("expected ASCII") from error
        return cls._general(_json(raw, text=len(raw))) if text.startswith("{") else cls._compact(text)

    @property
    def typ(self) -> str:
        return self.signatures[0].typ

    @property
    def raw(self) -> bytes:
        if len(self.signatures) == 1:
            only = self.signatures[0]
            return f"{only.protected}.{self.payload}.{encoded(only.value)}".encode()
        lines = [{"protected": each.protected, "signature": encoded(each.value)} for each in self.signatures]
        return strict_json.dumps({"payload": self.payload, "signatures": lines})

    def signers(self, keys: Mapping[str, bytes]) -> tuple[str, ...]:
        """Those of the keys (raw, by kid) whose signature is good. Raises BadJws if that of one is not.

        Signatures of others are ignored.
        """
        known = [each for each in self.signatures if each.kid in keys]
        for each in known:
            if not each.verifies(self.payload, keys[each.kid]):
                raise BadJws(f"bad signature of {each.kid}")
        return tuple(each.kid for each in known)

    @classmethod
    def _compact(cls, text: str) -> Self:
        parts = text.split(".")
        if len(parts) != 3:
            raise BadJws(f"expected three parts, got {len(parts)}")
        decoded(parts[1])
        return cls(parts[1], (Signature.parse(parts[0], parts[2]),))

    @classmethod
    def _general(cls, tree: Any) -> Self:
        if not isinstance(tree, dict) or set(tree) != {"payload", "signatures"}:
            raise BadJws("expected payload and signatures alone")
        payload, lines = tree["payload"], tree["signatures"]
        if not isinstance(payload, str) or not isinstance(lines, list):
            raise BadJws("expected a payload in base64url and a list of signatures")
        if not 2 <= len(lines) <= SIGNATURES:
            raise BadJws(f"expected 2 to {SIGNATURES} signatures in the general form, got {len(lines)}")
        if any(not isinstance(line, dict) or set(line) != {"protected", "signature"} for line in lines):
            raise BadJws("expected signatures of protected and signature alone")
        decoded(payload)
        signatures = tuple(Signature.parse(line["protected"], line["signature"]) for line in lines)
        if len({each.kid for each in signatures}) < len(signatures):
            raise BadJws("expected one signature of each key")
        if len({each.typ for each in signatures}) > 1:
            raise BadJws("expected signatures of one type")
        return cls(payload, signatures)


def sign(payload: bytes, typ: str, signers: Sequence[Signer]) -> bytes:
    """A JWS with a signature of each, in their order. Raises BadJws for what could not be read back."""
    text = encoded(payload)
    return _checked(Jws(text, tuple(each.sign(text, typ) for each in signers)))


def cosign(raw: bytes, signer: Signer) -> bytes:
    """The same with this signature after the others; an earlier one of the same key is replaced.

    Nothing is verified here: look at what it says first. Raises BadJws.
    """
    jws = Jws.parse(raw)
    others = [each for each in jws.signatures if each.kid != signer.kid]
    return _checked(Jws(jws.payload, (*others, signer.sign(jws.payload, jws.typ))))


def verifies(message: bytes, signature: bytes, public: bytes) -> bool:
    """Whether this is the Ed25519 signature (RFC 8032) of the message under a raw public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        # A key of another length is no key: it has signed nothing.
        return False
    return True


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Canonical base64url without padding only: one text for each value. Raises BadJws."""
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadJws(f"expected base64url, got {text[:40]!r}") from error
    if encoded(value) != text:
        raise BadJws(f"expected canonical base64url, got {text[:40]!r}")
    return value


def _json(raw: bytes, *, text: int = strict_json.TEXT) -> Any:
    try:
        return strict_json.loads(raw, text=text)
    except BadJson as bad:
        raise BadJws(str(bad)) from bad


def _checked(jws: Jws) -> bytes:
    """What is written must be read back."""
    Jws.parse(jws.raw)
    return jws.raw
