"""The line between two agents: a courier's handheld plugged into a locker hands over what it carries for it.

Both ends speak alike, at 115200 by default. A frame is

    F3 1E | kind | length, 2 bytes | body, at most 1,000 bytes | CRC-16 (Modbus) of all that, high byte first

Kinds: 1 hello (JSON: tenant and device), 2 offer (SHA-256 of a cargo, its size in 4 bytes), 3 take (SHA-256,
where to go on in 4 bytes), 4 data (SHA-256, where it belongs in 4 bytes, then bytes of it), 5 done (SHA-256).
Numbers are big endian. Whoever wants a cargo asks for it piece by piece, so that nothing is sent faster than
it is taken, and a line that was cut goes on where it was. What is in a cargo is verified elsewhere: here
only bytes are.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

from drivers.base import BadFrame, Driver, Emit, FrameCodec, Link, Options, Unsupported
from drivers.checksums import crc16_modbus
from drivers.readings import Action, PeerSaid, TellPeer

HEADER = b"\xf3\x1e"
BODY_LIMIT = 1000
OVERHEAD = len(HEADER) + 1 + 2 + 2
IDLE_S = 1.0
"""Silence after which half a frame will never be whole."""


def frame(kind: int, body: bytes) -> bytes:
    """What goes over the line."""
    if len(body) > BODY_LIMIT:
        raise ValueError(f"expected at most {BODY_LIMIT} bytes, got {len(body)}")
    head = HEADER + bytes([kind]) + len(body).to_bytes(2, "big") + body
    return head + crc16_modbus(head).to_bytes(2, "big")


class FerryCodec(FrameCodec[tuple[int, bytes]]):
    """Kind and body of each frame."""

    HEADERS = (HEADER,)

    def measure(self, head: bytes) -> int | None:
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5], "big")
        if length > BODY_LIMIT:
            raise BadFrame("length")
        return length + OVERHEAD

    def decode(self, raw: bytes) -> tuple[int, bytes]:
        if crc16_modbus(raw[:-2]).to_bytes(2, "big") != raw[-2:]:
            raise BadFrame("checksum")
        return raw[2], raw[5:-2]


class FerryDriver(Driver):
    """Passes on what the other end says, and says what it is told to."""

    kind = "ferry"
    BAUD = 115200
    performs = frozenset({TellPeer})

    def __init__(self, link: Link, emit: Emit, options: Options) -> None:
        super().__init__(link, emit, options)
        self.codec = FerryCodec()

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        # The other end need not be there yet.
        return {}

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S if self.codec.waiting else None):
                    data = await self.link.read()
            except TimeoutError:
                self.codec.reset()
                continue
            for kind, body in self.codec.feed(data):
                await self.emit(PeerSaid(kind=kind, body=body))

    async def perform(self, action: Action) -> None:
        if not isinstance(action, TellPeer):
            raise Unsupported(f"ferry: no {type(action).__name__}")
        await self.link.write(frame(action.kind, action.body))
