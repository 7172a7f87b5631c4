"""Kerong CU48 lock boards and their kin: up to 48 locks, one frame for all of them.

    02 ADDR LOCK 60|61 03 SUM                  the state of a board, unlock one; LOCK from 0
    02 ADDR LOCK 75 LEN <LEN bytes> SUM        the answer to both: 6 bytes of state, or none

SUM is the low byte of the sum of everything before it. Answers have no 03.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.checksums import sum8
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels, bits_of

STATUS = 0x60
UNLOCK = 0x61
ANSWER = 0x75
STATE_SIZE = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    board: int
    lock: int
    command: int
    data: bytes = b""

    def encode(self) -> bytes:
        tail = bytes([len(self.data)]) + self.data if self.command == ANSWER else b"\x03"
        body = bytes([0x02, self.board, self.lock, self.command]) + tail
        return body + bytes([sum8(body)])


class Cu48Codec(FrameCodec[Frame]):
    HEADERS = (b"\x02",)
    LIMIT = 6 + STATE_SIZE

    def measure(self, head: bytes) -> int | None:
        if len(head) < 5:
            return None
        match head[3], head[4]:
            case (0x60 | 0x61, 0x03):
                return 6
            case (0x75, 0x00 | 0x06):
                return 6 + head[4]
        raise BadFrame("command")

    def decode(self, raw: bytes) -> Frame:
        if sum8(raw[:-1]) != raw[-1]:
            raise BadFrame("checksum")
        return Frame(raw[1], raw[2], raw[3], raw[5:-1])


class Cu48Board(Board):
    address: int = Field(ge=0, le=255)
    locks: int = Field(default=48, ge=1, le=48)
    polarity: Literal["1_locked", "0_locked"] = "1_locked"


class Cu48Options(BusOptions):
    boards: Annotated[tuple[Cu48Board, ...], AsTables] = (Cu48Board(address=0),)


class Cu48Driver(BoardsDriver[Frame, Cu48Board]):
    """One bus of CU48 boards."""

    kind: ClassVar[str] = "cu48"
    OptionsType: ClassVar[type[Options]] = Cu48Options
    BAUD: ClassVar[int] = 19200
    BAUDS = (9600, 57600, 115200)

    def __init__(self, link: Link, emit: Emit, options: Cu48Options) -> None:
        super().__init__(link, emit, options, Cu48Codec())

    async def levels(self, board: Cu48Board) -> Levels:
        answer = await self.dialogue.ask(
            Frame(board.address, 0, STATUS).encode(), lambda frame: self.answers_for(frame) == board.address
        )
        return {Fact.HOOK: bits_of(answer.data, board.locks)}

    async def pulse(self, board: Cu48Board, lock: int, pulse_ms: int | None) -> bool:
        accepted = Frame(board.address, lock - 1, ANSWER)
        await self.dialogue.ask(
            Frame(board.address, lock - 1, UNLOCK).encode(), lambda frame: frame == accepted, tries=1
        )
        return True

    def answers_for(self, frame: Frame) -> int | None:
        return frame.board if frame.command == ANSWER and frame.data else None
