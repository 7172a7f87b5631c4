"""What a fingerprint card is asked to sign, and what that signature is good for. Pure.

A card signs 32 bytes: the SHA-256 of a short JSON text that names a fresh challenge, this device and reader,
the purpose, and what the purpose is about. So a signature that was heard on a wire is worth nothing anywhere
else, at any other time, or for anything else.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.clock import Moment

CHALLENGE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Stake:
    """What somebody proves themselves for."""

    purpose: str
    """`session`, `handover`."""
    transaction: str = ""
    """What exactly it is about, where there is more than one: a digest."""


SESSION = Stake("session")


def about(purpose: str, words: Iterable[str]) -> Stake:
    """The stake in something that these words say completely."""
    text = json.dumps([purpose, *words])
    return Stake(purpose, hashlib.sha256(text.encode()).hexdigest()[:32])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A card was asked to sign. Kept in memory alone: after a restart no signature is awaited."""

    unit: str
    rp_id: str
    client_data: str = field(repr=False)
    stake: Stake
    boot: str
    mono_ns: int
    within: float
    """Seconds after which an answer is too late."""

    @property
    def client_data_hash(self) -> bytes:
        return hashlib.sha256(self.client_data.encode()).digest()

    def awaited(self, unit: str, at: Moment) -> bool:
        """Whether an answer from there, now, could be the one."""
        return self.unit == unit and self.boot == at.boot and at.since(self.mono_ns) < self.within


def rp_id(source: str) -> str:
    """Whom a tenant's cards know their credentials by, from `/postern/<tenant>/<device>`.

    A name under `invalid` (RFC 2606) belongs to nobody, so no web site can ask a card for it.
    """
    return f"{source.split('/')[2]}.postern.invalid"


def client_data(source: str, unit: str, stake: Stake, challenge: bytes) -> str:
    """The text whose hash is signed, written one way only."""
    said = {
        "challenge": b64(challenge),
        "device": source,
        "purpose": stake.purpose,
        "reader": unit,
        "transaction": stake.transaction,
        "type": "postern.assert",
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
