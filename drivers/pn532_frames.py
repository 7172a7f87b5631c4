"""The frames of the PN532 on its high-speed UART: bytes to frames, commands to bytes. No I/O.

    00 00 FF LEN LCS TFI DATA.. DCS 00                   normal: LEN + LCS = 0 mod 256
    00 00 FF FF FF LENM LENL LCS TFI DATA.. DCS 00       extended: LENM + LENL + LCS = 0 mod 256
    00 00 FF 00 FF 00    00 00 FF FF 00 00               ACK, NACK
    00 00 FF 01 FF 7F 81 00                              syntax error

TFI is D4 from the host and D5 from the chip; LEN counts TFI and DATA, whose sum with DCS is 0 mod 256. Before
the start code `00 FF` there may be any number of zeros (user manual UM0701-02, section 6.2.1).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from drivers.base import BadFrame, FrameCodec

PREAMBLE = b"\x00"
START = b"\x00\xff"
POSTAMBLE = b"\x00"
EXTENDED = b"\xff\xff"
FROM_HOST, FROM_CHIP, SYNTAX = 0xD4, 0xD5, 0x7F

NORMAL_MOST = 0xFF
"""Bytes of TFI and DATA that a normal frame holds."""
EXTENDED_MOST = 265
"""Bytes of TFI and DATA in the longest frame that the chip takes or sends: "up to 264 bytes" of DATA."""

WAKE = bytes.fromhex("55 55") + bytes(10)
"""Two bytes with enough edges to wake the chip from low power, and zeros for the time it needs."""
ACK_FRAME = bytes.fromhex("00 00 FF 00 FF 00")
"""Sent by the host it aborts whatever the chip is doing, and the chip answers nothing more."""
NACK_FRAME = bytes.fromhex("00 00 FF FF 00 00")
"""Sent by the host it asks for the last frame once more."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The command was understood and is being carried out."""


@dataclass(frozen=True, slots=True)
class Nack:
    """The command was not understood."""


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """The command is none, or its parameters make no sense. It was not carried out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the chip answers to one command."""

    code: int
    """The command's plus one."""
    data: bytes = field(repr=False)
    """Kept out of every `repr`: it may hold a card's number."""


Frame = Ack | Nack | SyntaxFault | Answer


def encode(data: bytes) -> bytes:
    """The frame of one command: its code and parameters. Extended where it is longer than a normal one."""
    body = bytes([FROM_HOST]) + data
    if len(body) > EXTENDED_MOST:
        raise ValueError(f"expected at most {EXTENDED_MOST - 1} bytes of command, got {len(data)}")
    if len(body) <= NORMAL_MOST:
        length = bytes([len(body), -len(body) & 0xFF])
    else:
        high, low = divmod(len(body), 256)
        length = EXTENDED + bytes([high, low, -(high + low) & 0xFF])
    return PREAMBLE + START + length + body + bytes([-sum(body) & 0xFF]) + POSTAMBLE


class Pn532Codec(FrameCodec[Frame]):
    """Frames from the chip. Those of a host, as an echoing line sends them back, are noise."""

    # With and without a preamble, so that one that is there is not counted as noise.
    HEADERS: ClassVar[tuple[bytes, ...]] = (PREAMBLE + START, START)
    LIMIT: ClassVar[int] = 3 + 5 + EXTENDED_MOST + 2

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0
        """Bytes so far."""
        self.spoilt = 0
        """How often something came that is no frame. Unlike `noise` it is never cleared."""

    def feed(self, data: bytes) -> list[Frame]:
        counted = self.noise.total()
        frames = super().feed(data)
        self.heard += len(data)
        self.spoilt += self.noise.total() > counted
        return frames

    def measure(self, head: bytes) -> int | None:
        at = _after_start(head)
        length = head[at : at + 2]
        if len(length) < 2:
            return None
        if length in (b"\x00\xff", b"\xff\x00"):
            return at + 3
        if length == EXTENDED:
            return self._measure_extended(head, at)
        if sum(length) & 0xFF:
            raise BadFrame("length_checksum")
        return at + 2 + length[0] + 2

    def _measure_extended(self, head: bytes, at: int) -> int | None:
        length = head[at + 2 : at + 5]
        if len(length) < 3:
            return None
        if sum(length) & 0xFF:
            raise BadFrame("length_checksum")
        size = int.from_bytes(length[:2], "big")
        if not size:
            raise BadFrame("empty")
        if size > EXTENDED_MOST:
            raise BadFrame("too_long")
        return at + 5 + size + 2

    def decode(self, raw: bytes) -> Frame:
        if not raw.endswith(POSTAMBLE):
            raise BadFrame("postamble")
        at = _after_start(raw)
        length = raw[at : at + 2]
        if length in (b"\x00\xff", b"\xff\x00"):
            return Ack() if length == b"\x00\xff" else Nack()
        summed = raw[at + (5 if length == EXTENDED else 2) : -1]
        if sum(summed) & 0xFF:
            raise BadFrame("checksum")
        return _frame(summed[:-1])


def _after_start(raw: bytes) -> int:
    return raw.index(START) + len(START)


def _frame(body: bytes) -> Frame:
    if body == bytes([SYNTAX]):
        return SyntaxFault()
    if body[0] != FROM_CHIP or len(body) < 2:
        raise BadFrame("not_from_chip")
    return Answer(body[1], body[2:])
