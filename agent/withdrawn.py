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


class Withdrawn:
    """Remembers what was shown, and compares it with what is revoked; each name is opened once."""

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}
        self._keys: Keys | None = None
        self._box = ChaCha20Poly1305(bytes(32))

    def sealed(self, names: Iterable[bytes], keys: Keys) -> tuple[str, ...]:
        """As they are remembered while somebody is on duty with them: the same each time."""
        box = self._under(keys)
        found = []
        for name in names:
            # The nonce follows from the name: no two share one, and a name is always sealed alike.
            nonce = hmac.digest(keys.device, b"shown nonce\0" + name, "sha256")[:NONCE]
            found.append((nonce + box.encrypt(nonce, name, None)).hex())
        return tuple(found)

    def any_of(self, shown: Collection[str], revoked: Collection[str], keys: Keys) -> bool:
        """Whether one of these is `revoked`, which has names in hex. What does not open counts as revoked."""
        if not shown or not revoked:
            return False
        box = self._under(keys)
        names = [self._name(each, box) for each in shown]
        return any(name is None or name in revoked for name in names)

    def _name(self, each: str, box: ChaCha20Poly1305) -> str | None:
        if each not in self._names:
            if len(self._names) >= REMEMBERED:
                self._names.clear()
            self._names[each] = _opened(bytes.fromhex(each), box)
        return self._names[each]

    def _under(self, keys: Keys) -> ChaCha20Poly1305:
        if keys is not self._keys:
            self._keys, self._names = keys, {}
            self._box = ChaCha20Poly1305(hmac.digest(keys.device, b"shown", "sha512")[:32])
        return self._box


def _opened(raw: bytes, box: ChaCha20Poly1305) -> str | None:
    try:
        return box.decrypt(raw[:NONCE], raw[NONCE:], None).hex()
    except InvalidTag:
        return None
