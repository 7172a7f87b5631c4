"""What the rows of the identity cache are sealed under, and how one opens. Pure.

A row opens only by presentation: the presented secret itself yields the row's lookup id, its key and a
check value, so that the file alone names nobody.

    v = HMAC-SHA256(K_epoch, kind || SHA256(token))
    HMAC-SHA512(P_device, v) = lookup id (16 bytes) || ChaCha20-Poly1305 key (32) || check value (16)
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent.keystore import Keystore

CHECK, NONCE, OWNER = 16, 12, 8
"""Bytes of each in a row."""


class BadPage(Exception):
    """What a page holds is not what it was to hold: expected and found, in words."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The two secrets that rows are sealed under. Losing either closes every row for good."""

    device: bytes
    """P_device, the pepper: never leaves this device."""
    epoch: bytes
    """K_epoch of the rows that were added here."""

    wiped: bool = False
    """They were taken away: these open nothing, and nothing is sealed under them."""

    def __repr__(self) -> str:
        return "Keys(...)"

    @classmethod
    def load(cls, folder: Path) -> "Keys":
        """The keys of this device, made where there are none yet. Raises BadKeyFile, also after a wipe."""
        store = Keystore.at(folder)
        return cls(store.load("pepper").reveal(), store.load("epoch").reveal())

    @classmethod
    def none(cls) -> "Keys":
        """What is left after a wipe."""
        return cls(os.urandom(32), os.urandom(32), wiped=True)

    def derive(self, kind: str, token: bytes) -> tuple[bytes, bytes, bytes]:
        """Lookup id, row key and check value of a secret presented to a row that was added here."""
        return self.split(value_of(self.epoch, kind, token))

    def split(self, value: bytes) -> tuple[bytes, bytes, bytes]:
        """Lookup id, row key and check value, as this device alone derives them."""
        okm = hmac.digest(self.device, value, "sha512")
        return okm[:16], okm[16:48], okm[48:]

    def digest(self, purpose: str, value: bytes) -> str:
        """A short keyed digest, to tell equal values apart from different ones without keeping them."""
        return hmac.digest(self.device, purpose.encode() + b"\0" + value, "sha256")[:8].hex()

    def owner(self, lookup: bytes, subject: str) -> bytes:
        """Whose the row with this lookup id is; two rows of one subject have nothing in common."""
        return hmac.digest(self.device, b"owner\0" + lookup + subject.encode(), "sha256")[:OWNER]

    def wrapping(self) -> ChaCha20Poly1305:
        """What the fleet's epoch keys are sealed with."""
        return ChaCha20Poly1305(hmac.digest(self.device, b"epoch keys", "sha512")[:32])


def value_of(epoch: bytes, kind: str, token: bytes) -> bytes:
    """`v`: what the fleet knows of a secret, and all that a page says of it."""
    return hmac.digest(epoch, kind.encode() + hashlib.sha256(token).digest(), "sha256")


def bucket_of(value: bytes, buckets: int) -> int:
    """The top bits of the first two bytes; `buckets` is a power of two, at most 1024."""
    return int.from_bytes(value[:2], "big") * buckets >> 16


def seal_row(keys: Keys, value: bytes, body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Lookup id and sealed row."""
    lookup, key, check = keys.split(value)
    nonce, plain = os.urandom(NONCE), json.dumps(body, separators=(",", ":")).encode()
    return lookup, check + nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, lookup)


def open_row(keys: Keys, value: bytes, sealed: bytes) -> dict[str, Any] | None:
    """The body of a sealed row; None unless this is the secret that opens it."""
    return unsealed(sealed, *keys.split(value))


def unsealed(sealed: bytes, lookup: bytes, key: bytes, check: bytes) -> dict[str, Any] | None:
    """The same for who has derived the three already."""
    if not hmac.compare_digest(sealed[:CHECK], check):
        return None
    nonce, rest = sealed[CHECK : CHECK + NONCE], sealed[CHECK + NONCE :]
    try:
        body: dict[str, Any] = json.loads(ChaCha20Poly1305(key).decrypt(nonce, rest, lookup).decode())
    except InvalidTag:
        return None
    return body
