"""The "8A/80" lock boards of Shuoming and their many clones (CM06): up to 50 locks, boards 1 to 32.

    8A BOARD LOCK 11 XOR             unlock one; the answer has 00 or 11 in place of the 11
    80 BOARD 00 33 XOR               the state of a board
    80 BOARD <n bytes> 33 XOR        its answer: the last byte is locks 1 to 8, the one before 9 to 16, ...
    82 BOARD LOCK 00|11 XOR          a change that nobody asked about; not all boards tell it

XOR is that of everything before it. How many bytes of state there are is the board's affair, not a matter of
its locks: one with 8 locks answers with three. And an answer of one byte would be the question itself.

The answer `8A bb ll 11` is the command byte for byte, so an echo must be off the line before any pulse. 00
and 11 tell the state of the lock's switch, which sources read in opposite ways; either is an answer, and an
answer is what shows that the pulse was accepted. The state is asked for afterwards as for any lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.checksums import xor8
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels, bits_of

UNLOCK = 0x8A
STATE = 0x80
NOTICE = 0x82
DO = 0x11
READ = 0x33
SWITCH = (0x00, 0x11)


@dataclass(frozen=True, slots=True)
class Frame:
    """One answer or notice."""

    header: int
    board: int
    data: bytes
    """Between BOARD and XOR: lock and switch, or the bytes of state."""

    def encode(self) -> bytes:
        tail = bytes([READ]) if self.header == STATE else b""
        body = bytes([self.header, self.board]) + self.data + tail
        return body + bytes([xor8(body)])


class BccCodec(FrameCodec[Frame]):
    HEADERS = (b"\x8a", b"\x80", b"\x82")
    LIMIT = 4 + 7

    def __init__(self, status_bytes: Mapping[int, int]) -> None:
        """`status_bytes`: board to the number of bytes in which it tells its state."""
        super().__init__()
        self._status_bytes = status_bytes

    def measure(self, head: bytes) -> int | None:
        if head[0] != STATE:
            return 5
        if len(head) < 2:
            return None
        if head[1] not in self._status_bytes:
            raise BadFrame("board")
        return 4 + self._status_bytes[head[1]]

    def decode(self, raw: bytes) -> Frame:
        if xor8(raw[:-1]) != raw[-1]:
            raise BadFrame("checksum")
        if raw[0] == STATE:
            if raw[-2] != READ:
                raise BadFrame("trailer")
            return Frame(raw[0], raw[1], raw[2:-2])
        if raw[3] not in SWITCH:
            raise BadFrame("state")
        return Frame(raw[0], raw[1], raw[2:-1])


class BccBoard(Board):
    address: int = Field(ge=1, le=32)
    locks: int = Field(default=24, ge=1, le=50)
    polarity: Literal["1_locked", "0_locked"] = "1_locked"
    status_bytes: int | None = Field(default=None, ge=2, le=7)
    """Bytes of state in its answer; without it three, or as many as its locks need."""

    @property
    def size(self) -> int:
        return self.status_bytes or max(3, (self.locks + 7) // 8)


class BccOptions(BusOptions):
    boards: Annotated[tuple[BccBoard, ...], AsTables] = (BccBoard(address=1),)


class BccDriver(BoardsDriver[Frame, BccBoard]):
    """One bus of such boards."""

    kind: ClassVar[str] = "bcc"
    OptionsType: ClassVar[type[Options]] = BccOptions
    PULSE_MS: ClassVar[int] = 600
    UNLOCK_WITHIN: ClassVar[float] = 1.5
    """Seconds. Some boards look at the lock for a second before they answer."""

    def __init__(self, link: Link, emit: Emit, options: BccOptions) -> None:
        sizes = {board.address: board.size for board in options.boards}
        super().__init__(link, emit, options, BccCodec(sizes))

    async def levels(self, board: BccBoard) -> Levels:
        question = Frame(STATE, board.address, b"\x00").encode()
        answer = await self.dialogue.ask(question, lambda frame: self.answers_for(frame) == board.address)
        return {Fact.HOOK: bits_of(answer.data[::-1], board.locks)}

    async def pulse(self, board: BccBoard, lock: int, pulse_ms: int | None) -> bool:
        await self.dialogue.ask(
            Frame(UNLOCK, board.address, bytes([lock, DO])).encode(),
            lambda frame: (frame.header, frame.board, frame.data[0]) == (UNLOCK, board.address, lock),
            within=self.UNLOCK_WITHIN,
            tries=1,
        )
        return True

    def answers_for(self, frame: Frame) -> int | None:
        return frame.board if frame.header == STATE else None
