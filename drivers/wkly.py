"""Lock boards that begin every frame with WKLY: up to 50 locks, boards 0 to 31.

    57 4B 4C 59 LEN BOARD COMMAND <data> XOR

LEN is that of the whole frame and XOR runs over all of it, header included. (An XOR over the payload alone,
as some programs have it, agrees when LEN is 9 and never else.) Some firmware answers with 53 for the 57.

    82 LOCK            unlock one        answer: RESULT LOCK STATE
    84                 the whole board   answer: RESULT COUNT <one STATE for each lock>
    85                 a change that nobody asked about: LOCK STATE

RESULT is 00 or FF, STATE 00 open, 01 closed or FF where it could not be read.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.checksums import xor8
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels

HEADER = b"WKLY"
OTHER_HEADER = b"SKLY"
UNLOCK = 0x82
ALL_STATUS = 0x84
DONE = 0x00
STATES = {0x00: False, 0x01: True}
SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    board: int
    command: int
    data: bytes = b""

    def encode(self) -> bytes:
        size = SHORTEST + len(self.data)
        body = HEADER + bytes([size, self.board, self.command]) + self.data
        return body + bytes([xor8(body)])


class WklyCodec(FrameCodec[Frame]):
    HEADERS = (HEADER, OTHER_HEADER)
    LIMIT = 64
    """The state of 50 locks makes 60 bytes."""

    def measure(self, head: bytes) -> int | None:
        if len(head) < 5:
            return None
        if head[4] < SHORTEST:
            raise BadFrame("length")
        return head[4]

    def decode(self, raw: bytes) -> Frame:
        if xor8(raw[:-1]) != raw[-1]:
            raise BadFrame("checksum")
        return Frame(raw[5], raw[6], raw[7:-1])


class WklyBoard(Board):
    address: int = Field(ge=0, le=31)
    locks: int = Field(default=24, ge=1, le=50)
    polarity: Literal["1_locked", "0_locked"] = "1_locked"


class WklyOptions(BusOptions):
    boards: Annotated[tuple[WklyBoard, ...], AsTables] = (WklyBoard(address=0),)


class WklyDriver(BoardsDriver[Frame, WklyBoard]):
    """One bus of such boards."""

    kind: ClassVar[str] = "wkly"
    OptionsType: ClassVar[type[Options]] = WklyOptions
    UNLOCK_WITHIN: ClassVar[float] = 1.5
    """Seconds. The answer tells the lock's state, so the board looks at it first."""

    def __init__(self, link: Link, emit: Emit, options: WklyOptions) -> None:
        super().__init__(link, emit, options, WklyCodec())

    async def levels(self, board: WklyBoard) -> Levels:
        answer = await self.dialogue.ask(
            Frame(board.address, ALL_STATUS).encode(), lambda frame: self.answers_for(frame) == board.address
        )
        states = answer.data[2 : 2 + answer.data[1]]
        return {Fact.HOOK: tuple(STATES.get(state) for state in states)}

    async def pulse(self, board: WklyBoard, lock: int, pulse_ms: int | None) -> bool:
        answer = await self.dialogue.ask(
            Frame(board.address, UNLOCK, bytes([lock])).encode(),
            # The command has one byte of data, an answer three.
            lambda frame: (
                (frame.board, frame.command, len(frame.data), frame.data[1:2])
                == (board.address, UNLOCK, 3, bytes([lock]))
            ),
            within=self.UNLOCK_WITHIN,
            tries=1,
        )
        # FF may be the pulse that failed or the hook that did not drop: then the hook decides.
        return answer.data[0] == DONE

    def answers_for(self, frame: Frame) -> int | None:
        whole = len(frame.data) >= 2 and frame.data[0] == DONE and len(frame.data) == 2 + frame.data[1]
        return frame.board if frame.command == ALL_STATUS and whole else None
