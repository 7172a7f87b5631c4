"""Credentials that were taken away while somebody was on duty with them.

The fleet names a credential by a digest under its own key (`v`). With that key whoever finds the name of a
badge or a PIN can guess what it is, so a session remembers it sealed under the device's pepper.
"""

import hmac
from collections.abc import Collection, Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from agent.row_seal import Keys

REMEMBERED = 64
"""Names that are kept open in memory; two people have shown eight at most."""


class Withdrawn:
    """Remembers what was shown, and compares it with what is revoked; each name is opened once."""

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}
        self._keys: Keys | None = None
        # Made to seal the same thing alike each time, which any other cipher must not do.
        self._box = AESSIV(bytes(64))

    def sealed(self, names: Iterable[bytes], keys: Keys) -> tuple[str, ...]:
        """As they are remembered while somebody is on duty with them: the same each time."""
        box = self._under(keys)
        return tuple(box.encrypt(name, None).hex() for name in names)

    def any_of(self, shown: Collection[str], revoked: Collection[str], keys: Keys) -> bool:
        """Whether one of these is `revoked`, which has names in hex. What does not open counts as revoked."""
        if not shown or not revoked:
            return False
        box = self._under(keys)
        names = [self._name(each, box) for each in shown]
        return any(name is None or name in revoked for name in names)

    def _name(self, each: str, box: AESSIV) -> str | None:
        if each not in self._names:
            if len(self._names) >= REMEMBERED:
                self._names.clear()
            self._names[each] = _opened(bytes.fromhex(each), box)
        return self._names[each]

    def _under(self, keys: Keys) -> AESSIV:
        if keys is not self._keys:
            self._keys, self._names = keys, {}
            self._box = AESSIV(hmac.digest(keys.device, b"shown", "sha512"))
        return self._box


def _opened(raw: bytes, box: AESSIV) -> str | None:
    try:
        return box.decrypt(raw, None).hex()
    except InvalidTag:
        return None
