"""HPKE (RFC 9180) written out from its text for the one suite that pages use, so that it can disagree.

Base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. One message a context.
"""

import hashlib
import hmac
import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEM = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("002000010003")
"""KEM 0x0020, KDF 0x0001, AEAD 0x0003: section 7."""


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    block, out, number = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + labeled + bytes([number]), hashlib.sha256)
        out, number = out + block, number + 1
    return out[:length]


def shared(dh: bytes, enc: bytes, recipient: bytes) -> bytes:
    """What comes of an agreement: section 4.1, ExtractAndExpand."""
    prk = _extract(KEM, b"", b"eae_prk", dh)
    return _expand(KEM, prk, b"shared_secret", enc + recipient, 32)


def schedule(secret_of_both: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and base nonce: section 5.1, mode 0."""
    context = b"\0" + _extract(SUITE, b"", b"psk_id_hash", b"") + _extract(SUITE, b"", b"info_hash", info)
    secret = _extract(SUITE, secret_of_both, b"secret", b"")
    return _expand(SUITE, secret, b"key", context, 32), _expand(SUITE, secret, b"base_nonce", context, 12)


def seal(
    plain: bytes, recipient: bytes, info: bytes, aad: bytes = b"", ephemeral: bytes | None = None
) -> bytes:
    """The encapsulated key, then the ciphertext of the first message."""
    private = X25519PrivateKey.from_private_bytes(ephemeral or os.urandom(32))
    enc = private.public_key().public_bytes_raw()
    dh = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    key, nonce = schedule(shared(dh, enc, recipient), info)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plain, aad)


def unseal(raw: bytes, private: bytes, info: bytes, aad: bytes = b"") -> bytes:
    own = X25519PrivateKey.from_private_bytes(private)
    enc, sealed = raw[:32], raw[32:]
    dh = own.exchange(X25519PublicKey.from_public_bytes(enc))
    key, nonce = schedule(shared(dh, enc, own.public_key().public_bytes_raw()), info)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)
