"""Is this what a card's key signed, for us, once the card had verified its holder? Nothing else is decided.

Key, authenticator data and signature are read and checked by the fido2 library. That costs memory, so this
module is imported only when a card has answered or is to be added.
"""

import hashlib
import hmac
import struct
from base64 import b64decode
from typing import Any

from cryptography.exceptions import InvalidSignature
from fido2 import cbor
from fido2.cose import ES256, CoseKey, EdDSA
from fido2.webauthn import AuthenticatorData

from agent.stake import b64
from drivers.readings import CardAsserted

ALGORITHMS = {ES256.ALGORITHM: "ES256", EdDSA.ALGORITHM: "EdDSA"}
"""No others: what is not needed cannot be confused."""

NONSENSE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error)
"""What the library raises over bytes that are not what they should be."""


class NotProven(Exception):
    """The assertion proves nothing; the text is the one word that says why."""


class BadKey(Exception):
    """These are not the bytes of a public key that we can use."""


def public_key(text: str) -> CoseKey:
    """The COSE key in base64url without padding, as rows hold it. Raises BadKey."""
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if b64(raw) != text:
            raise BadKey("expected base64url without padding, got something else")
        key = CoseKey.parse(_map(cbor.decode(raw)))
        if key.ALGORITHM not in ALGORITHMS:
            raise BadKey(
                f"expected a key for {' or '.join(ALGORITHMS.values())}, got algorithm {key.get(3)!r}"
            )
        _usable(key)
    except NONSENSE as error:
        raise BadKey("expected a COSE key, got something else") from error
    return key


def algorithm(key: CoseKey) -> str:
    return ALGORITHMS[key.ALGORITHM]


def verify(said: CardAsserted, *, key: str, rp_id: str, client_data_hash: bytes) -> int:
    """The card's signature counter, once everything is as it must be. Raises NotProven."""
    try:
        auth_data = AuthenticatorData(said.auth_data)
        wanted = hashlib.sha256(rp_id.encode()).digest()
        if not hmac.compare_digest(auth_data.rp_id_hash, wanted):
            raise NotProven("other_party")
        if not auth_data.is_user_present():
            raise NotProven("not_present")
        if not auth_data.is_user_verified():
            raise NotProven("not_verified")
        public_key(key).verify(said.auth_data + client_data_hash, said.signature)
    except InvalidSignature:
        raise NotProven("signature") from None
    except BadKey:
        raise NotProven("public_key") from None
    except NONSENSE:
        raise NotProven("malformed") from None
    return int(auth_data.counter)


def _map(value: Any) -> Any:
    if not isinstance(value, dict):
        raise BadKey("expected a map, got something else")
    return value


def _usable(key: CoseKey) -> None:
    """A key that is none says so when it is used: here, rather than at somebody's door."""
    try:
        key.verify(b"", b"")
    except InvalidSignature:
        return
    raise BadKey("expected a key that refuses an empty signature, got one that takes it")
