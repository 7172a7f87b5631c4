"""A fingerprint card: a CTAP2 authenticator on NFC, written from CTAP 2.1, with a sensor to lay a finger on.

    card = FidoCard(fingers={"thumb"})
    reader.present(card)
    card.touch("thumb")

Fingers are names. The card speaks the FIDO applet's APDUs (CTAP 2.1 section 11.3) and three commands:
authenticatorMakeCredential, authenticatorGetAssertion, authenticatorGetInfo. All its credentials are
discoverable, and it signs nothing before it has matched a finger; that it did, it says only to who asked for
it (option `uv`). It has no PIN.
"""

import copy
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_p256
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from simulators.cbor import BadCbor, decode, encode

FIDO_AID = bytes.fromhex("A0000006472F0001")
AAGUID = bytes.fromhex("9f1c2b7e5d0a4e6b8c3d2f1a0b9e8d7c")
ES256, EDDSA = -7, -8
UP, UV, AT = 0x01, 0x04, 0x40
WRONG_FINGERS = 3
"""In a row; then the card is blocked."""
SHORT_MOST = 256
"""Bytes of one answer; what is longer is fetched by GET RESPONSE."""
WAITING_FOR_FINGER = b"\x02"

OK = b"\x90\x00"
NOT_DONE = b"\x91\x00"
NOT_FOUND = b"\x6a\x82"
NOT_NOW = b"\x69\x85"
NO_SUCH = b"\x6d\x00"
WRONG_LENGTH = b"\x67\x00"


class Status(IntEnum):
    """CTAP status codes (section 8.2)."""

    OK = 0x00
    INVALID_COMMAND = 0x01
    INVALID_PARAMETER = 0x02
    INVALID_CBOR = 0x12
    MISSING_PARAMETER = 0x14
    UNSUPPORTED_ALGORITHM = 0x26
    OPERATION_DENIED = 0x27
    KEY_STORE_FULL = 0x28
    INVALID_OPTION = 0x2C
    KEEPALIVE_CANCEL = 0x2D
    NO_CREDENTIALS = 0x2E
    UV_BLOCKED = 0x3C


class Declined(Exception):
    """The card says no; the status says why."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass
class Credential:
    """A key for one person at one relying party. Nothing but signatures of it leaves the card."""

    id: bytes
    rp_id: str
    person: bytes
    algorithm: int
    key: EllipticCurvePrivateKey | Ed25519PrivateKey
    counter: int = 0

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, Ed25519PrivateKey):
            return self.key.sign(data)
        return self.key.sign(data, ECDSA(hashes.SHA256()))

    def cose(self) -> dict[int, Any]:
        """The public key as RFC 9053 writes it."""
        if isinstance(self.key, Ed25519PrivateKey):
            return {1: 1, 3: EDDSA, -1: 6, -2: self.key.public_key().public_bytes_raw()}
        point = self.key.public_key().public_numbers()
        return {1: 2, 3: ES256, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}


class FidoCard:
    """The card, its applet and its sensor."""

    sak = 0x20
    """ISO/IEC 14443-4 and nothing else."""
    ats = bytes.fromhex("05 78 80 70 02")

    def __init__(
        self,
        *,
        fingers: set[str] | None = None,
        uid: bytes = bytes.fromhex("04a1b2c3d4e5f6"),
        algorithms: tuple[int, ...] = (ES256, EDDSA),
        version: str = "FIDO_2_0",
        keeps_alive: bool = True,
        counts: bool = True,
        room: int = 8,
    ) -> None:
        self.uid = uid
        self.fingers = fingers if fingers is not None else {"thumb"}
        """Enrolled on the card."""
        self.algorithms = algorithms
        self.version = version
        self.keeps_alive = keeps_alive
        """Says 91 00 while it waits for a finger; else it keeps the reader waiting on the air."""
        self.counts = counts
        """False for cards whose signature counter stays at zero."""
        self.room = room
        self.claims_verification = True
        """False for a card that signs without the UV flag whatever it is asked."""
        self.finger: str | None = None
        self.tries_left = WRONG_FINGERS
        self.credentials: list[Credential] = []
        self.tried = 0
        """Fingers that were compared."""
        self._selected = False
        self._chain = b""
        self._rest = b""
        self._waiting: Callable[[], bytes] | None = None
        self._answer: Callable[[bytes], None] | None = None

    # -- hands ------------------------------------------------------------------------------------

    def touch(self, finger: str) -> None:
        """Lay a finger on the sensor. It stays there until it is lifted."""
        self.finger = finger
        if self._answer is not None and self._waiting is not None:
            answer, self._answer = self._answer, None
            answer(self._first(self._completed()))

    def lift(self) -> None:
        self.finger = None

    def cloned(self) -> "FidoCard":
        """Another card with the same keys, and counters that go their own way from now on."""
        other = copy.copy(self)
        other.credentials = [copy.copy(each) for each in self.credentials]
        return other

    def lose_power(self) -> None:
        """Taken out of the field."""
        self._selected = False
        self._chain = self._rest = b""
        self._waiting = self._answer = None

    # -- APDUs ------------------------------------------------------------------------------------

    def ask(self, apdu: bytes, answer: Callable[[bytes], None]) -> None:
        """`answer` is called once: now, or when a finger has been laid on the card."""
        said = self._hear(apdu)
        if said is None:
            self._answer = answer
        else:
            answer(said)

    def _hear(self, apdu: bytes) -> bytes | None:
        if len(apdu) < 4:
            return WRONG_LENGTH
        cla, ins, p1 = apdu[:3]
        size = apdu[4] if len(apdu) > 5 else 0
        data = apdu[5 : 5 + size]
        if len(data) != size:
            return WRONG_LENGTH
        if cla & 0x10:
            self._chain += data
            return OK
        data, self._chain = self._chain + data, b""
        match cla, ins:
            case 0x00, 0xA4:
                self._selected = data == FIDO_AID
                return self.version.encode() + OK if self._selected else NOT_FOUND
            case 0x00, 0xC0:
                return self._first(self._rest) if self._rest else NOT_NOW
            case 0x80, 0x10 if self._selected:
                return self._begun(data, bool(p1 & 0x80))
            case 0x80, 0x11 if self._selected:
                return self._asked_again(cancel=p1 == 0x11)
        return NO_SUCH

    def _first(self, answer: bytes) -> bytes:
        """As much of an answer as fits, and how much there is to fetch."""
        part, self._rest = answer[:SHORT_MOST], answer[SHORT_MOST:]
        return part + (bytes([0x61, min(len(self._rest), 0xFF)]) if self._rest else OK)

    def _begun(self, message: bytes, knows_to_ask_again: bool) -> bytes | None:
        self._waiting = None
        try:
            operation, needs_finger = self._operation(message)
        except Declined as declined:
            return bytes([declined.status]) + OK
        if not needs_finger:
            return self._first(operation())
        self._waiting = operation
        if self.finger is not None:
            return self._first(self._completed())
        return WAITING_FOR_FINGER + NOT_DONE if self.keeps_alive and knows_to_ask_again else None

    def _asked_again(self, *, cancel: bool) -> bytes:
        if self._waiting is None:
            return NOT_NOW
        if self.finger is not None:
            return self._first(self._completed())
        if not cancel:
            return WAITING_FOR_FINGER + NOT_DONE
        self._waiting = None
        return bytes([Status.KEEPALIVE_CANCEL]) + OK

    def _completed(self) -> bytes:
        """What the operation that waited says about the finger that lies there."""
        operation, self._waiting = self._waiting, None
        assert operation is not None
        try:
            self._match()
            return operation()
        except Declined as declined:
            return bytes([declined.status])

    def _match(self) -> None:
        self.tried += 1
        if not self.tries_left:
            raise Declined(Status.UV_BLOCKED)
        if self.finger not in self.fingers:
            self.tries_left -= 1
            raise Declined(Status.OPERATION_DENIED if self.tries_left else Status.UV_BLOCKED)
        self.tries_left = WRONG_FINGERS

    # -- CTAP2 ------------------------------------------------------------------------------------

    def _operation(self, message: bytes) -> tuple[Callable[[], bytes], bool]:
        """What a message asks for, and whether it needs a finger. Raises Declined."""
        if not message:
            raise Declined(Status.INVALID_COMMAND)
        try:
            request = decode(message[1:]) if message[1:] else {}
        except BadCbor:
            raise Declined(Status.INVALID_CBOR) from None
        match message[0]:
            case 0x01:
                return self._checked(request, self._make, (1, 2, 3, 4)), True
            case 0x02:
                return self._checked(request, self._assert, (1, 2)), True
            case 0x04:
                return lambda: bytes([Status.OK]) + encode(self._info()), False
        raise Declined(Status.INVALID_COMMAND)

    def _checked(
        self, request: Any, operation: Callable[[Any], dict[int, Any]], needed: tuple[int, ...]
    ) -> Callable[[], bytes]:
        if not isinstance(request, dict) or not set(needed) <= request.keys():
            raise Declined(Status.MISSING_PARAMETER)
        options = request.get(7 if len(needed) > 2 else 5, {})
        if options.get("uv") and not self.fingers:
            raise Declined(Status.INVALID_OPTION)
        return lambda: bytes([Status.OK]) + encode(operation(request))

    def _info(self) -> dict[int, Any]:
        return {
            1: sorted({self.version, "FIDO_2_0"}, reverse=True),
            3: AAGUID,
            4: {"rk": True, "up": True, "uv": bool(self.fingers), "plat": False},
            5: 1200,
            9: ["nfc"],
            10: [{"alg": each, "type": "public-key"} for each in self.algorithms],
        }

    def _make(self, request: dict[int, Any]) -> dict[int, Any]:
        wanted = [each["alg"] for each in request[4] if each["alg"] in self.algorithms]
        if not wanted:
            raise Declined(Status.UNSUPPORTED_ALGORITHM)
        rp_id, person = request[2]["id"], request[3]["id"]
        if len(self.credentials) >= self.room:
            raise Declined(Status.KEY_STORE_FULL)
        key = Ed25519PrivateKey.generate() if wanted[0] == EDDSA else generate_p256(SECP256R1())
        made = Credential(id=os.urandom(32), rp_id=rp_id, person=person, algorithm=wanted[0], key=key)
        # The newest first; a person's earlier credential for the same relying party is overwritten.
        others = [each for each in self.credentials if (each.rp_id, each.person) != (rp_id, person)]
        self.credentials = [made, *others]
        attested = AAGUID + len(made.id).to_bytes(2, "big") + made.id + encode(made.cose())
        auth_data = self._auth_data(made, AT | _verified(request.get(7))) + attested
        statement = {"alg": made.algorithm, "sig": made.sign(auth_data + request[1])}
        return {1: "packed", 2: auth_data, 3: statement}

    def _assert(self, request: dict[int, Any]) -> dict[int, Any]:
        found = [each for each in self.credentials if each.rp_id == request[1]]
        if allowed := request.get(3):
            ids = [each["id"] for each in allowed]
            found = [each for each in found if each.id in ids]
        if not found:
            raise Declined(Status.NO_CREDENTIALS)
        chosen = found[0]
        chosen.counter += self.counts
        auth_data = self._auth_data(chosen, _verified(request.get(5)))
        answer: dict[int, Any] = {
            1: {"id": chosen.id, "type": "public-key"},
            2: auth_data,
            3: chosen.sign(auth_data + request[2]),
            4: {"id": chosen.person},
        }
        return answer if len(found) == 1 else {**answer, 5: len(found)}

    def _auth_data(self, credential: Credential, more: int) -> bytes:
        flags = UP | (more if self.claims_verification else more & ~UV)
        rp = hashlib.sha256(credential.rp_id.encode()).digest()
        return rp + bytes([flags]) + credential.counter.to_bytes(4, "big")


def _verified(options: dict[str, bool] | None) -> int:
    """The UV flag, for who has asked for it: without `uv` a finger is no more than a touch."""
    return UV if options and options.get("uv") else 0
