"""Words to a card that speaks ISO/IEC 14443-4, through a PN532 that does the block protocol.

APDUs of ISO/IEC 7816-4 in their short form: what is longer than one of them goes out in several (command
chaining, CLA | 10), and what does not fit one answer is fetched (GET RESPONSE after 61 xx). A short APDU fits
the chip's buffer of 264 bytes, if only in an extended frame; a card's answer that does not comes in parts.
"""

import asyncio
from dataclasses import dataclass, field

from drivers.base import ActionRefused
from drivers.pn532_dialogue import Pn532Dialogue, Unanswered

IN_DATA_EXCHANGE = 0x40
TARGET = 0x01
MORE = 0x40
"""In the status byte: the card's answer goes on, and an empty exchange fetches the next part."""
STATUS = 0x3F
"""The chip's error code. The bit above `MORE` tells of a node address, which we never give."""
LONGEST = 8192
"""Bytes that one answer of a card may have, its parts together."""

SHORT_MOST = 255
CHAINED = 0x10
GET_RESPONSE = 0xC0
DONE = 0x9000
MORE_DATA = 0x61


class CardSilent(ActionRefused):
    """The card does not answer the reader: it has left the field, or never quite was in it."""


class CardSlow(CardSilent):
    """The card has kept the reader waiting for longer than it is given."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the card."""

    data: bytes = field(repr=False)
    status: int
    """SW1 and SW2."""


class Card:
    """The one card that the chip has activated.

    A card may ask the chip for more time, again and again, and cut its answers as small as it likes: so it is
    given `within` seconds for everything together.
    """

    def __init__(self, chip: Pn532Dialogue, within: float) -> None:
        self._chip = chip
        self._until = asyncio.get_running_loop().time() + within

    async def tell(self, cla: int, ins: int, p1: int, p2: int, data: bytes = b"") -> Answer:
        """What the card answers to one command of any length. Raises CardSilent, NoReply."""
        while len(data) > SHORT_MOST:
            part, data = data[:SHORT_MOST], data[SHORT_MOST:]
            answer = await self._apdu(bytes([cla | CHAINED, ins, p1, p2, len(part)]) + part)
            if answer.status != DONE:
                return answer
        head = bytes([cla, ins, p1, p2])
        answer = await self._apdu(head + (bytes([len(data)]) + data if data else b"") + b"\x00")
        return await self._fetched(answer)

    async def _fetched(self, answer: Answer) -> Answer:
        whole = answer.data
        while answer.status >> 8 == MORE_DATA:
            answer = await self._apdu(bytes([0x00, GET_RESPONSE, 0x00, 0x00, answer.status & 0xFF]))
            whole = _longer(whole, answer.data)
        return Answer(whole, answer.status)

    async def _apdu(self, apdu: bytes) -> Answer:
        more, whole = await self._exchange(apdu)
        while more:
            more, rest = await self._exchange(b"")
            whole = _longer(whole, rest)
        if len(whole) < 2:
            raise CardSilent(f"expected an answer that ends in a status word, got {len(whole)} bytes")
        return Answer(whole[:-2], int.from_bytes(whole[-2:], "big"))

    async def _exchange(self, data: bytes) -> tuple[bool, bytes]:
        """One round trip: whether more is to come, and what came."""
        left = self._until - asyncio.get_running_loop().time()
        if left <= 0:
            raise CardSlow("its time is up")
        request = bytes([TARGET]) + data
        try:
            said = await self._chip.command(IN_DATA_EXCHANGE, request, within=left, again=False)
        except Unanswered as unanswered:
            raise CardSlow(str(unanswered)) from None
        if not said or said[0] & STATUS:
            raise CardSilent(f"the chip reports error {said[0] & STATUS:02x}" if said else "an empty answer")
        return bool(said[0] & MORE), said[1:]


def _longer(whole: bytes, part: bytes) -> bytes:
    """Raises CardSilent for an answer that has no end, or does not go on as it was said to."""
    if not part:
        raise CardSilent("expected the rest of an answer, got nothing")
    if len(whole) + len(part) > LONGEST:
        raise CardSilent(f"expected at most {LONGEST} bytes of answer, got more")
    return whole + part
