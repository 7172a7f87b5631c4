"""A fingerprint card in the field: CTAP2 over NFC (CTAP 2.1, section 11.3), through the reader.

The messages are the fido2 library's; what is ours is the way there: select the applet, hand the message over
in APDUs, and ask again while the card says that it waits for a finger (91 00). What comes back is taken apart
here, field by field: the library would turn a number where bytes belong into that many bytes.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

from fido2 import cbor
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2, args
from fido2.webauthn import AuthenticatorData

from drivers.isodep import DONE, Card, CardSilent, CardSlow
from drivers.readings import AssertCard, CardAsserted, CardFailed, CardFailure, CredentialMade, MakeCredential

FIDO_AID = bytes.fromhex("A0000006472F0001")
SELECT = (0x00, 0xA4, 0x04, 0x00)
VERSIONS = (b"U2F_V2", b"FIDO_2_0")
"""What an authenticator answers to SELECT. One that has both protocols says the older one's name."""

NFCCTAP_MSG = (0x80, 0x10, 0x80, 0x00)
"""P1 bit 80: we know how to ask again while the card is not done."""
NFCCTAP_GETRESPONSE = (0x80, 0x11, 0x00, 0x00)
NFCCTAP_CANCEL = (0x80, 0x11, 0x11, 0x00)
NOT_DONE = 0x9100
ASK_AGAIN = 0.05
"""Seconds between two questions whether the card is done."""

INFO_WITHIN = 1.0
"""Seconds that a card has to tell what it can do."""

ALGORITHMS = (-8, -7)
"""EdDSA and ES256, as COSE numbers them, the one we would rather have first."""

FAILURES = {
    CtapError.ERR.NO_CREDENTIALS: CardFailure.NO_CREDENTIAL,
    CtapError.ERR.KEY_STORE_FULL: CardFailure.NO_CREDENTIAL,
    CtapError.ERR.USER_ACTION_TIMEOUT: CardFailure.NO_FINGER,
    CtapError.ERR.ACTION_TIMEOUT: CardFailure.NO_FINGER,
    CtapError.ERR.TIMEOUT: CardFailure.NO_FINGER,
    CtapError.ERR.KEEPALIVE_CANCEL: CardFailure.NO_FINGER,
    CtapError.ERR.UP_REQUIRED: CardFailure.NO_FINGER,
    CtapError.ERR.UV_INVALID: CardFailure.WRONG_FINGER,
    CtapError.ERR.OPERATION_DENIED: CardFailure.WRONG_FINGER,
    CtapError.ERR.PUAT_REQUIRED: CardFailure.WRONG_FINGER,
    CtapError.ERR.UV_BLOCKED: CardFailure.BLOCKED,
    CtapError.ERR.PIN_BLOCKED: CardFailure.BLOCKED,
}
"""What a CTAP status means to whoever holds the card. Any other says that the card is of no use here."""

NONSENSE = (TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error)
"""What the library raises over bytes that are no CBOR or hold something else than they should."""


async def select_fido(card: Card) -> tuple[str, ...]:
    """The version that the FIDO applet names, or nothing where there is none. Raises CardSilent."""
    answer = await card.tell(*SELECT, FIDO_AID)
    known = answer.status == DONE and answer.data in VERSIONS
    return (answer.data.decode("ascii"),) if known else ()


async def have_asserted(card: Card, action: AssertCard) -> CardAsserted | CardFailed:
    """Have the holder verified by the card, and the hash signed with the credential it finds by itself."""
    request = args(action.rp_id, action.client_data_hash, None, None, {"up": True, "uv": True})
    try:
        await _fit(card)
        said = await _ask(card, Ctap2.CMD.GET_ASSERTION, request, action.within)
        return CardAsserted(
            credential_id=_bytes(said[1]["id"]), auth_data=_bytes(said[2]), signature=_bytes(said[3])
        )
    except (CtapError, CardSilent, ValueError, *NONSENSE) as error:
        return CardFailed(failure=_failure(error))


async def have_made(card: Card, action: MakeCredential) -> CredentialMade | CardFailed:
    """Have a discoverable credential made for one person, once the card has verified its holder."""
    request = args(
        action.client_data_hash,
        {"id": action.rp_id, "name": action.rp_id},
        # A name is asked for by the protocol; ours are no names.
        {"id": action.person, "name": "postern", "displayName": "postern"},
        [{"type": "public-key", "alg": number} for number in ALGORITHMS],
        None,
        None,
        {"rk": True, "uv": True},
    )
    try:
        await _fit(card)
        said = await _ask(card, Ctap2.CMD.MAKE_CREDENTIAL, request, action.within)
        made = AuthenticatorData(_bytes(said[2])).credential_data
        if made is None:
            raise ValueError("expected a credential in the authenticator data, got none")
        key = cbor.encode(made.public_key)
        return CredentialMade(credential_id=made.credential_id, public_key=key, aaguid=str(made.aaguid))
    except (CtapError, CardSilent, ValueError, *NONSENSE) as error:
        return CardFailed(failure=_failure(error))


async def _fit(card: Card) -> None:
    """Raises ValueError where a card cannot verify its holder by itself."""
    if not await select_fido(card):
        raise ValueError("expected the FIDO applet, got none")
    options = (await _ask(card, Ctap2.CMD.GET_INFO, None, INFO_WITHIN)).get(4)
    if not (isinstance(options, Mapping) and options.get("uv") is True):
        raise ValueError("expected a card that has enrolled its holder's finger, got one that has not")


async def _ask(card: Card, command: int, request: Mapping[int, Any] | None, within: float) -> Any:
    """The map that the card answers with. Raises CtapError where it says no, ValueError for no map."""
    said = await _hear(card, bytes([command]) + (b"" if request is None else cbor.encode(request)), within)
    if said[0]:
        raise CtapError(said[0])
    answer = cbor.decode(said[1:])
    if not isinstance(answer, Mapping):
        raise ValueError("expected a map, got something else")
    return answer


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"expected bytes, got {type(value).__name__}")
    return value


async def _hear(card: Card, message: bytes, within: float) -> bytes:
    clock = asyncio.get_running_loop()
    until = clock.time() + within
    answer = await card.tell(*NFCCTAP_MSG, message)
    while answer.status == NOT_DONE:
        late = clock.time() >= until
        if not late:
            await asyncio.sleep(ASK_AGAIN)
        answer = await card.tell(*(NFCCTAP_CANCEL if late else NFCCTAP_GETRESPONSE))
        if late and answer.status == NOT_DONE:
            raise CtapError(CtapError.ERR.KEEPALIVE_CANCEL)
    if answer.status != DONE:
        raise ValueError(f"expected 9000, got {answer.status:04x}")
    return answer.data


def _failure(error: Exception) -> CardFailure:
    if isinstance(error, CardSlow):
        return CardFailure.NO_FINGER
    if isinstance(error, CardSilent):
        return CardFailure.GONE
    if isinstance(error, CtapError):
        return FAILURES.get(error.code, CardFailure.UNFIT)
    return CardFailure.UNFIT
