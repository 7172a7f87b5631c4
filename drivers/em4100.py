"""EM4100 badge readers at 125 kHz: RDM6300, ID-12 and modules with a binary frame. They only talk.

    02 <10 hex digits> <2 hex digits> 03           RDM6300
    02 <10 hex digits> <2 hex digits> 0D 0A 03     ID-12
    02 0A 02 <5 bytes> <XOR> 03                    binary: length of the whole frame, type, number

The checksum of the text frames is the XOR of the five bytes; that of the binary one covers length and
type too. A badge number is five bytes: a version or customer byte, then the id whose low three or four
bytes are printed on the badge in decimal. The module sends it about every 50 ms while the badge is there.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

from pydantic import Field

from drivers.base import BadFrame, Driver, Emit, FrameCodec, Link, Options
from drivers.checksums import xor8
from drivers.presence import Presence, Sighting
from drivers.readings import TagArrived, TagLeft

TECHNOLOGY = "em4100"

CR = 0x0D
TEXT_TAIL = b"\x03"
ID12_TAIL = b"\r\n\x03"
BINARY_LENGTH = 10
BINARY_TYPE_EM4100 = 2

TEXT_END = 13
"""STX and twelve hex digits come before the tail of a text frame."""

HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")


class Em4100Codec(FrameCodec[bytes]):
    """Frames are badge numbers of five bytes, whichever layout they came in."""

    HEADERS = (b"\x02",)
    LIMIT = TEXT_END + len(ID12_TAIL)

    def measure(self, head: bytes) -> int | None:
        if len(head) > 1 and head[1] == BINARY_LENGTH:
            return BINARY_LENGTH
        # Judged digit by digit: a frame cut short is then known by the next one's STX, which is kept.
        if not HEX_DIGITS.issuperset(head[1:TEXT_END]):
            raise BadFrame("not_hex")
        if len(head) <= TEXT_END:
            return None
        return TEXT_END + len(ID12_TAIL if head[TEXT_END] == CR else TEXT_TAIL)

    def decode(self, raw: bytes) -> bytes:
        return _binary(raw) if raw[1] == BINARY_LENGTH else _text(raw)


def _text(raw: bytes) -> bytes:
    if raw[TEXT_END:] not in (TEXT_TAIL, ID12_TAIL):
        raise BadFrame("trailer")
    number = bytes.fromhex(raw[1:TEXT_END].decode("ascii"))
    if xor8(number) != 0:
        raise BadFrame("checksum")
    return number[:-1]


def _binary(raw: bytes) -> bytes:
    if raw[-1:] != TEXT_TAIL:
        raise BadFrame("trailer")
    if xor8(raw[1:-1]) != 0:
        raise BadFrame("checksum")
    if raw[2] != BINARY_TYPE_EM4100:
        raise BadFrame("tag_type")
    return raw[3:-2]


class Em4100Options(Options):
    presence_ms: int = Field(default=400, ge=100, le=60_000)
    """Without a sighting for so long, a badge has left. Several of the module's 50 ms repeats."""


class Em4100Driver(Driver):
    """One reading when a badge comes, one when it has gone; nothing for the repeats in between."""

    kind = "em4100"
    OptionsType = Em4100Options

    HALF_FRAME = 0.1
    """Seconds of silence that end half a frame; a whole one takes 17 ms at 9600 baud."""

    def __init__(self, link: Link, emit: Emit, options: Em4100Options) -> None:
        super().__init__(link, emit, options)
        self.codec = Em4100Codec()
        self.presence = Presence(options.presence_ms / 1000)
        self._heard_at = 0.0

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        """Nothing: these readers cannot be asked, and are silent while there is no badge."""
        return {}

    async def run(self) -> None:
        while True:
            data = await self._hear()
            now = asyncio.get_running_loop().time()
            if data:
                self._heard_at = now
            elif now >= self._heard_at + self.HALF_FRAME:
                self.codec.reset()
            for uid in self.codec.feed(data):
                await self._sight(uid, now)
            for uid in self.presence.leave(now):
                await self.emit(TagLeft(uid=uid, technology=TECHNOLOGY))

    async def _hear(self) -> bytes:
        """What arrives before a badge may leave or half a frame is too old; empty if nothing does."""
        ends = [self._heard_at + self.HALF_FRAME] if self.codec.waiting else []
        leaves = self.presence.next_leave()
        if leaves is not None:
            ends.append(leaves)
        try:
            async with asyncio.timeout_at(min(ends, default=None)):
                return await self.link.read()
        except TimeoutError:
            # While `emit` waited for a full inbox, the badge went on talking: that counts before it leaves.
            return self.link.pending()

    async def _sight(self, uid: bytes, now: float) -> None:
        match self.presence.sighted(uid, now):
            case Sighting.ARRIVED:
                await self.emit(TagArrived(uid=uid, technology=TECHNOLOGY))
            case Sighting.REFUSED:
                self.noise["too_many_tags"] += 1
            case Sighting.STAYED:
                pass
