"""Kerong CU16 and KU16 lock boards: 16 locks, boards 0 to 15 on one bus.

    02 ADDR COMMAND 03 SUM                     a question or command
    02 ADDR 35|36 D1 D2 D3 D4 03 SUM           the state of one board

The high nibble of ADDR is the board, the low one the lock, each from 0; SUM is the low byte of the sum of
everything before it. D1 and D2 are the hooks of locks 1 to 8 and 9 to 16, D3 and D4 the content sensors.

The board seldom answers an unlock, and what it may answer is not known well enough to be evidence: only a
hook that drops is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import ActionRefused, BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.checksums import sum8
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels, bits_of

STATUS = 0x30
UNLOCK = 0x31
ALL_STATUS = 0x32
STATE = 0x35
"""The answer to STATUS."""
BUS_STATE = 0x36
"""The answer of each board to ALL_STATUS."""
WHOLE_BUS = 0xF0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    board: int
    command: int
    lock: int = 0
    """From 0; nothing but 0 in a state."""
    data: bytes = b""

    def encode(self) -> bytes:
        body = bytes([0x02, self.board << 4 | self.lock, self.command]) + self.data + b"\x03"
        return body + bytes([sum8(body)])


class Cu16Codec(FrameCodec[Frame]):
    HEADERS = (b"\x02",)
    LIMIT = 9

    def measure(self, head: bytes) -> int | None:
        if len(head) < 3:
            return None
        if head[2] in (STATE, BUS_STATE):
            return 9
        # Whatever else a board may say is as short as a command.
        if 0x30 <= head[2] <= 0x39:
            return 5
        raise BadFrame("command")

    def decode(self, raw: bytes) -> Frame:
        if raw[-2] != 0x03:
            raise BadFrame("trailer")
        if sum8(raw[:-1]) != raw[-1]:
            raise BadFrame("checksum")
        return Frame(raw[1] >> 4, raw[2], raw[1] & 0x0F, raw[3:-2])


class Cu16Board(Board):
    address: int = Field(ge=0, le=15)
    locks: int = Field(default=16, ge=1, le=16)
    polarity: Literal["1_locked", "0_locked"] = "1_locked"
    content: Literal["none", "1_occupied", "0_occupied"] = "none"
    """What the content sensors' bits say, where there are any."""

    def means(self, fact: Fact, number: int, bit: bool) -> bool:
        if fact is Fact.CONTENT:
            return bit == (self.content == "1_occupied")
        return super().means(fact, number, bit)


class Cu16Options(BusOptions):
    boards: Annotated[tuple[Cu16Board, ...], AsTables] = (Cu16Board(address=0),)


class Cu16Driver(BoardsDriver[Frame, Cu16Board]):
    """One bus of CU16 boards."""

    kind: ClassVar[str] = "cu16"
    OptionsType: ClassVar[type[Options]] = Cu16Options
    BAUD: ClassVar[int] = 19200
    BAUDS = (19200, 9600, 57600, 115200)
    ROLL_S: ClassVar[float] = 0.3
    """Seconds in which a bus of 16 boards has said what it has to say."""

    def __init__(self, link: Link, emit: Emit, options: Cu16Options) -> None:
        super().__init__(link, emit, options, Cu16Codec())

    async def levels(self, board: Cu16Board) -> Levels:
        address = board.address
        answer = await self.dialogue.ask(
            Frame(address, STATUS).encode(), lambda frame: self.answers_for(frame) == address
        )
        hooks = bits_of(answer.data[:2], 16)
        if board.content == "none":
            return {Fact.HOOK: hooks}
        return {Fact.HOOK: hooks, Fact.CONTENT: bits_of(answer.data[2:], 16)}

    async def pulse(self, board: Cu16Board, lock: int, pulse_ms: int | None) -> bool:
        await self.dialogue.tell(Frame(board.address, UNLOCK, lock - 1).encode())
        return False

    def answers_for(self, frame: Frame) -> int | None:
        return frame.board if frame.command == STATE else None

    async def roll_call(self) -> Mapping[str, str]:
        """Every board on the bus, listed or not. Boards that answer into each other only cost noise."""
        await self.dialogue.tell(bytes.fromhex("02 F0 32 03 27"))
        heard = Counter[int]()
        while (frame := await self.dialogue.listen(self.ROLL_S)) is not None:
            if frame.command == BUS_STATE:
                heard[frame.board] += 1
        for board, times in heard.items():
            if times > 1:
                raise ActionRefused(f"two boards answer to address {board}")
        listed = {board.address for board in self.boards}
        return {"unlisted": ",".join(str(board) for board in sorted(heard) if board not in listed)}
