"""Credentials that were taken away while somebody was on duty with them.

The fleet names a credential by a digest under its own key (`v`). With that key whoever finds the name of a
badge or a PIN can guess what it is, so a session remembers it sealed under the device's pepper.
"""

import hmac
from collections.abc import Collection, Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent.row_seal import Keys

NONCE = 12
REMEMBERED = 64
"""Names that are kept open in memory; two people have shown eight at most."""


def sealed(names: Iterable[bytes], keys: Keys) -> tuple[str, ...]:
    """As they are remembered while somebody is on duty with them: the same each time."""
    return tuple(_seal(name, keys) for name in names)


class Withdrawn:
    """Compares what was shown with what is revoked; each name is opened once."""

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}

    def any_of(self, shown: Collection[str], revoked: Collection[str], keys: Keys) -> bool:
        """Whether one of these is `revoked`, which has names in hex. What does not open counts as revoked."""
        if not shown or not revoked:
            return False
        names = [self._name(each, keys) for each in shown]
        return any(name is None or name in revoked for name in names)

    def _name(self, each: str, keys: Keys) -> str | None:
        if each not in self._names:
            if len(self._names) >= REMEMBERED:
                self._names.clear()
            self._names[each] = _open(each, keys)
        return self._names[each]


def _seal(name: bytes, keys: Keys) -> str:
    # The nonce follows from what it seals: no two names share one, and one name is always sealed alike.
    nonce = hmac.digest(keys.device, b"shown nonce\0" + name, "sha256")[:NONCE]
    return (nonce + _box(keys).encrypt(nonce, name, None)).hex()


def _open(each: str, keys: Keys) -> str | None:
    raw = bytes.fromhex(each)
    try:
        return _box(keys).decrypt(raw[:NONCE], raw[NONCE:], None).hex()
    except InvalidTag:
        return None


def _box(keys: Keys) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hmac.digest(keys.device, b"shown", "sha512")[:32])
