"""Kerong CU12 (DS12) lock boards: 12 locks, boards 0 to 15 on one bus.

    02 ADDR LOCK COMMAND ASK LEN 03 SUM <LEN bytes>

The sum stands before the data and covers it. ASK is 0 in a question and tells in the answer what came of it.
In this family's samples 0 is locked: the other way round than with its sisters.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import ActionRefused, BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.checksums import sum8
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels, bits_of

STATUS = 0x80
UNLOCK = 0x81
COMMANDS = frozenset({0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x8E, 0x8F})
HEAD_SIZE = 8
LONGEST_DATA = 16


class Ask(IntEnum):
    """What an answer says of its question."""

    QUESTION = 0x00
    DONE = 0x10
    FAILED = 0x11
    TIMED_OUT = 0x12
    UNKNOWN_COMMAND = 0x13
    BAD_CHECKSUM = 0x14


MISUNDERSTOOD = frozenset({Ask.UNKNOWN_COMMAND, Ask.BAD_CHECKSUM})
"""The board did not get as far as a pulse. Of the other failures nobody knows."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    board: int
    lock: int
    command: int
    ask: Ask = Ask.QUESTION
    data: bytes = b""

    def encode(self) -> bytes:
        head = bytes([0x02, self.board, self.lock, self.command, self.ask, len(self.data), 0x03])
        return head + bytes([sum8(head + self.data)]) + self.data


class Cu12Codec(FrameCodec[Frame]):
    HEADERS = (b"\x02",)
    LIMIT = HEAD_SIZE + LONGEST_DATA

    def measure(self, head: bytes) -> int | None:
        if len(head) < HEAD_SIZE - 1:
            return None
        if head[3] not in COMMANDS or head[4] not in tuple(Ask):
            raise BadFrame("command")
        if head[6] != 0x03:
            raise BadFrame("trailer")
        return HEAD_SIZE + head[5]

    def decode(self, raw: bytes) -> Frame:
        data = raw[HEAD_SIZE:]
        if sum8(raw[: HEAD_SIZE - 1] + data) != raw[HEAD_SIZE - 1]:
            raise BadFrame("checksum")
        return Frame(raw[1], raw[2], raw[3], Ask(raw[4]), data)


class Cu12Board(Board):
    address: int = Field(ge=0, le=15)
    locks: int = Field(default=12, ge=1, le=12)
    polarity: Literal["1_locked", "0_locked"] = "0_locked"


class Cu12Options(BusOptions):
    boards: Annotated[tuple[Cu12Board, ...], AsTables] = (Cu12Board(address=0),)


class Cu12Driver(BoardsDriver[Frame, Cu12Board]):
    """One bus of CU12 boards."""

    kind: ClassVar[str] = "cu12"
    OptionsType: ClassVar[type[Options]] = Cu12Options
    BAUD: ClassVar[int] = 19200
    BAUDS = (9600, 57600, 115200)

    def __init__(self, link: Link, emit: Emit, options: Cu12Options) -> None:
        super().__init__(link, emit, options, Cu12Codec())

    async def levels(self, board: Cu12Board) -> Levels:
        answer = await self.dialogue.ask(
            Frame(board.address, 0, STATUS).encode(), lambda frame: self.answers_for(frame) == board.address
        )
        return {Fact.HOOK: bits_of(answer.data, board.locks)}

    async def pulse(self, board: Cu12Board, lock: int, pulse_ms: int | None) -> bool:
        wanted = (board.address, lock - 1, UNLOCK)
        answer = await self.dialogue.ask(
            Frame(*wanted).encode(),
            lambda frame: (frame.board, frame.lock, frame.command) == wanted and frame.ask != Ask.QUESTION,
            tries=1,
        )
        if answer.ask in MISUNDERSTOOD:
            raise ActionRefused(answer.ask.name.lower())
        return answer.ask == Ask.DONE

    def answers_for(self, frame: Frame) -> int | None:
        return frame.board if (frame.command, frame.ask) == (STATUS, Ask.DONE) else None
