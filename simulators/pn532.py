"""A PN532 on its high-speed UART, written from the user manual UM0701-02, with cards to hold to it.

with Pn532Reader(Path("cards")) as reader:
    reader.present(NumberCard(bytes.fromhex("FB0EE20B")))

Frames are `00 00 FF LEN LCS TFI DATA.. DCS 00`, or extended with `FF FF LENM LENL LCS`. The chip sleeps until
it hears 55, acknowledges every whole frame, forgets what it was doing when the host sends an ACK or another
command, and says its last answer again to a NACK. It sees one card at a time.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from simulators.base import Faults, VirtualDevice

ACK = bytes.fromhex("00 00 FF 00 FF 00")
SYNTAX_ERROR = bytes.fromhex("00 00 FF 01 FF 7F 81 00")
FIRMWARE = bytes.fromhex("32 01 06 07")
"""PN532, version 1.6, all three technologies."""
FOR_EVER = 0xFF

TIMED_OUT = b"\x01"
WRONG_CONTEXT = b"\x27"
MORE = 0x40
AIR_TIME = 0.005
"""Seconds that one look for a card takes."""


class CardInField(Protocol):
    """What an antenna sees of a card."""

    uid: bytes
    sak: int
    ats: bytes

    def ask(self, apdu: bytes, answer: Callable[[bytes], None]) -> None: ...

    def lose_power(self) -> None: ...


class NumberCard:
    """A card that has a number and no more to say: MIFARE Classic and the like."""

    sak = 0x08
    ats = b""

    def __init__(self, uid: bytes) -> None:
        self.uid = uid

    def ask(self, apdu: bytes, answer: Callable[[bytes], None]) -> None:
        """It does not answer."""

    def lose_power(self) -> None:
        """It has nothing to forget."""


def frame(data: bytes) -> bytes:
    """One whole frame from the chip."""
    body = b"\xd5" + data
    if len(body) < 256:
        length = bytes([len(body), -len(body) % 256])
    else:
        high, low = len(body) // 256, len(body) % 256
        length = bytes([0xFF, 0xFF, high, low, -(high + low) % 256])
    return b"\x00\x00\xff" + length + body + bytes([-sum(body) % 256, 0x00])


class Pn532Reader(VirtualDevice):
    def __init__(self, name: Path, faults: Faults | None = None) -> None:
        super().__init__(name, faults)
        self.card: CardInField | None = None
        self.part = 262
        """Bytes of a card's answer that one InDataExchange hands out."""
        self.asked: list[bytes] = []
        """Every command that was understood, code and parameters."""
        self.misses_next = 0
        """So many of the next frames from the host are not heard."""
        self.rejects_next = 0
        """So many of the next commands are answered with a syntax error."""
        self.deaf_to: int | None = None
        """A command that is never heard."""
        self.unheard: list[bytes] = []
        """What it was not heard to say."""
        self.aborts = 0
        """How often the host has called off what was going on."""
        self.heard = asyncio.Event()
        """Set with every command that was understood."""
        self.pulled = asyncio.Event()
        """Set when the card was pulled away by `pull_at`."""
        self._pull_at: int | None = None
        self._asleep = True
        self._active: CardInField | None = None
        """The card that was activated, whether it is still there or not."""
        self._exchanging: int | None = None
        self._looks = FOR_EVER
        self._heard = bytearray()
        self._last = b""
        self._rest = b""
        self._turn = 0
        """Of the command that is being carried out; an answer to an earlier one is not sent."""
        self._looking: int | None = None
        self._delayed: asyncio.TimerHandle | None = None

    # -- hands ------------------------------------------------------------------------------------

    def present(self, card: CardInField) -> None:
        """Hold a card to the antenna, in place of the one that was there."""
        self.remove()
        self.card = card
        if self._looking is not None:
            turn, self._looking = self._looking, None
            self._listed(turn)

    def remove(self) -> None:
        """Pull the card away, whatever is going on."""
        card, self.card = self.card, None
        if card is not None:
            card.lose_power()
            if self._exchanging is not None:
                self._answer(self._exchanging, b"\x41" + TIMED_OUT)

    def pull_at(self, code: int) -> None:
        """Pull the card away in the moment this command arrives next."""
        self._pull_at = code
        self.pulled.clear()

    # -- power and line ---------------------------------------------------------------------------

    def powered(self) -> None:
        self._fall_silent()
        self._heard.clear()
        self._asleep = True
        self._active = None
        self._looks = FOR_EVER
        self._rest = self._last = b""

    def unplug(self) -> None:
        self._fall_silent()
        super().unplug()

    def received(self, data: bytes) -> None:
        if self._asleep:
            if b"\x55" not in data:
                return
            self._asleep = False
        self._heard += data
        while (heard := self._next()) is not None:
            self._deal_with(heard)

    def _next(self) -> bytes | None:
        """The body of the next frame: TFI and data; `A` and `N` for ACK and NACK, `?` for a broken one."""
        start = self._heard.find(b"\x00\xff")
        if start < 0:
            del self._heard[:-1]
            return None
        del self._heard[:start]
        held = self._heard
        if len(held) < 5:
            return None
        if bytes(held[2:4]) in (b"\x00\xff", b"\xff\x00"):
            said = b"A" if held[2] == 0 else b"N"
            del held[:5]
            return said
        extended = held[2:4] == b"\xff\xff"
        head, size = (7, int.from_bytes(held[4:6], "big")) if extended else (4, held[2])
        if len(held) < head + size + 2:
            return None
        whole = bytes(held[: head + size + 2])
        length = whole[4:7] if extended else whole[2:4]
        good = sum(length) % 256 == 0 and sum(whole[head:-1]) % 256 == 0
        del held[: len(whole) if good else 2]
        return whole[head:-2] if good else b"?"

    def _deal_with(self, heard: bytes) -> None:
        if self.misses_next:
            self.misses_next -= 1
            return
        if len(heard) > 1 and heard[1] == self.deaf_to:
            self.unheard.append(heard[1:])
            return
        match heard:
            case b"A":
                self.aborts += 1
                self._fall_silent()
            case b"N":
                self.send(self._last)
            case b"?":
                pass
            case _:
                self._fall_silent()
                self.send(ACK)
                self._obey(heard)

    def _fall_silent(self) -> None:
        self._turn += 1
        self._looking = self._exchanging = None
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _answer(self, turn: int, data: bytes) -> None:
        if turn == self._turn and self.plugged:
            self._turn += 1
            self._exchanging = None
            self._last = frame(data)
            self.send(self._last)

    # -- commands ---------------------------------------------------------------------------------

    def _obey(self, body: bytes) -> None:
        turn, code, parameters = self._turn, body[1:2], body[2:]
        if self.rejects_next or body[0] != 0xD4:
            self.rejects_next = max(0, self.rejects_next - 1)
            self.send(SYNTAX_ERROR)
            return
        self.asked.append(body[1:])
        self.heard.set()
        if self._pull_at == body[1] and self.card is not None:
            self._pull_at = None
            self.remove()
            self.pulled.set()
        match code:
            case b"\x02" if not parameters:
                self._answer(turn, b"\x03" + FIRMWARE)
            case b"\x14" if parameters[:1] == b"\x01":
                self._answer(turn, b"\x15")
            case b"\x32" if parameters:
                self._configure(parameters)
                self._answer(turn, b"\x33")
            case b"\x4a" if parameters[:1] in (b"\x01", b"\x02") and parameters[1:2] == b"\x00":
                self._delayed = asyncio.get_running_loop().call_later(AIR_TIME, self._listed, turn)
            case b"\x40" if parameters:
                self._exchange(turn, parameters[1:])
            case b"\x52" if len(parameters) == 1:
                self._active = None
                self._answer(turn, b"\x53\x00")
            case _:
                self.send(SYNTAX_ERROR)

    def _configure(self, parameters: bytes) -> None:
        if parameters[0] == 0x05 and len(parameters) == 4:
            self._looks = parameters[3]

    def _listed(self, turn: int) -> None:
        """A card that is active and was not released does not answer a call to all."""
        card = self.card
        if card is not None and self._active is not card:
            self._active = card
            self._rest = b""
            card.lose_power()
            about = bytes([1, 0x00, 0x04, card.sak, len(card.uid)]) + card.uid + card.ats
            self._answer(turn, b"\x4b\x01" + about)
        elif self._looks == FOR_EVER:
            self._looking = turn
        else:
            self._answer(turn, b"\x4b\x00")

    def _exchange(self, turn: int, data: bytes) -> None:
        if self._active is None:
            self._answer(turn, b"\x41" + WRONG_CONTEXT)
        elif self.card is not self._active:
            self._answer(turn, b"\x41" + TIMED_OUT)
        elif not data:
            self._hand_out(turn, self._rest)
        else:
            self._exchanging = turn
            self._active.ask(data, lambda said: self._hand_out(turn, said))

    def _hand_out(self, turn: int, said: bytes) -> None:
        part, self._rest = said[: self.part], said[self.part :]
        self._answer(turn, bytes([0x41, MORE if self._rest else 0]) + part)
