"""What a device asks the fleet with for keys that it has made anew: signed by the key that it is known by."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.admission import Audience
from agent.certificate import csr, key_of
from agent.envelope import Kind, issue
from agent.jws import Signer, encoded

VALID_S = 30 * 86_400
"""How long a request may lie about."""


def key_request(
    audience: Audience,
    number: int,
    device_key: bytes,
    *,
    at: int,
    tls_key: bytes | None,
    seal_key: bytes | None,
    levels: Mapping[str, str],
) -> bytes:
    """Of the keys that are given, the public halves. `tls_key` is PEM, the others are raw secrets."""
    body = {
        "device": audience.device,
        "tenant": audience.tenant,
        "csr": tls_key and csr(key_of(tls_key, "next key"), audience.device),
        "seal_key": seal_key and encoded(public_of(seal_key)),
        "levels": dict(levels),
    }
    signer = Signer(Ed25519PrivateKey.from_private_bytes(device_key))
    aud = f"{audience.tenant}/*"
    return issue(Kind.RENEWAL, body, [signer], aud=aud, iat=at, exp=at + VALID_S, ver=number)


def public_of(seal_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seal_key).public_key().public_bytes_raw()
