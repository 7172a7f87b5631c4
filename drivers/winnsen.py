"""Winnsen lock boards: 16 locks a station, and no checksum at all.

    90 LEN FUNCTION STATION ... 03             LEN is that of the whole frame

    05 STATION LOCK             unlock one       85 STATION LOCK 01|00    opened, failed
    02 STATION FF FF            all locks        82 STATION LOW HIGH      1 is open
    12 STATION LOCK             one lock         92 STATION LOCK 01|00    a second firmware's only question

With nothing to tell a frame from noise, everything is held to: its length for its function, the station and
lock that were asked about, and a second poll that says the same. For about 15 s after a pulse a lock's next
one fails; whether any current flowed, the answer does not say.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivers.base import BadFrame, Emit, FrameCodec, Link, Options
from drivers.boards import BoardsDriver
from drivers.doors import AsTables, Board, BusOptions, Fact, Levels, bits_of

UNLOCK = 0x05
STATUS = 0x02
ONE_STATUS = 0x12
ANSWER = 0x80
"""This bit is set in the function of an answer."""
SIZES = {UNLOCK: 6, ONE_STATUS: 6, STATUS: 7, UNLOCK | ANSWER: 7, STATUS | ANSWER: 7, ONE_STATUS | ANSWER: 7}
YES = 0x01
YES_OR_NO = (0x00, 0x01)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    function: int
    station: int
    data: bytes

    def encode(self) -> bytes:
        return bytes([0x90, SIZES[self.function], self.function, self.station]) + self.data + b"\x03"


class WinnsenCodec(FrameCodec[Frame]):
    HEADERS = (b"\x90",)
    LIMIT = 7

    def measure(self, head: bytes) -> int | None:
        if len(head) < 3:
            return None
        if SIZES.get(head[2]) != head[1]:
            raise BadFrame("length")
        return head[1]

    def decode(self, raw: bytes) -> Frame:
        if raw[-1] != 0x03:
            raise BadFrame("trailer")
        if raw[2] in (UNLOCK | ANSWER, ONE_STATUS | ANSWER) and raw[5] not in YES_OR_NO:
            raise BadFrame("state")
        return Frame(raw[2], raw[3], raw[4:-1])


class WinnsenBoard(Board):
    address: int = Field(ge=0, le=255)
    locks: int = Field(default=16, ge=1, le=16)
    polarity: Literal["1_locked", "0_locked"] = "0_locked"
    one_by_one: bool = False
    """For the firmware that tells the state of single locks only."""


class WinnsenOptions(BusOptions):
    boards: Annotated[tuple[WinnsenBoard, ...], AsTables] = (WinnsenBoard(address=1),)


class WinnsenDriver(BoardsDriver[Frame, WinnsenBoard]):
    """One bus of such boards."""

    kind: ClassVar[str] = "winnsen"
    OptionsType: ClassVar[type[Options]] = WinnsenOptions
    CONFIRM = 2

    def __init__(self, link: Link, emit: Emit, options: WinnsenOptions) -> None:
        super().__init__(link, emit, options, WinnsenCodec())

    async def levels(self, board: WinnsenBoard) -> Levels:
        if board.one_by_one:
            locks = range(1, board.locks + 1)
            return {Fact.HOOK: [await self._one(board, lock) for lock in locks]}
        answer = await self._ask(board, STATUS, b"\xff\xff")
        return {Fact.HOOK: bits_of(answer.data, board.locks)}

    async def pulse(self, board: WinnsenBoard, lock: int, pulse_ms: int | None) -> bool:
        answer = await self._ask(board, UNLOCK, bytes([lock]))
        if answer.data[1] != YES:
            return False
        # One flipped bit makes a yes of a no: the lock itself is asked as well.
        bit = (await self.levels(board))[Fact.HOOK][lock - 1]
        return bit is not None and not board.means(Fact.HOOK, lock, bit)

    def answers_for(self, frame: Frame) -> int | None:
        return frame.station if frame.function in (STATUS | ANSWER, ONE_STATUS | ANSWER) else None

    async def _one(self, board: WinnsenBoard, lock: int) -> bool:
        return (await self._ask(board, ONE_STATUS, bytes([lock]))).data[1] == YES

    async def _ask(self, board: WinnsenBoard, function: int, data: bytes) -> Frame:
        named = data if function != STATUS else b""
        return await self.dialogue.ask(
            Frame(function, board.address, data).encode(),
            lambda frame: (
                (frame.function, frame.station) == (function | ANSWER, board.address)
                and frame.data.startswith(named)
            ),
            tries=1,
        )
