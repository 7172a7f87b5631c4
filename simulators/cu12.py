"""Kerong CU12 (DS12) lock boards, written from the published samples.

`02 ADDR LOCK CMD ASK LEN 03 SUM [DATA]`, where SUM covers the data that follows it. CMD 80 asks for the
state, 81 unlocks, LOCK counts from 0. In the answer ASK is 10 for done, 11 failed, 12 timed out, 13 not
known, 14 a wrong sum. A lock that holds is a 0 bit.
"""

from pathlib import Path
from typing import Any

from simulators.boards import LockBus, VirtualBoard, bitmap


class Cu12Bus(LockBus):
    BAUD = 19200

    def __init__(self, name: Path, *args: Any, **more: Any) -> None:
        super().__init__(name, *args, **more)
        self.refusals: list[int] = []
        """ASK codes of the next answers to an unlock, which is then not carried out."""

    def frame_in(self, heard: bytearray) -> bytes | None:
        while (start := heard.find(0x02)) >= 0:
            del heard[:start]
            if len(heard) < 8 or len(heard) < 8 + heard[5]:
                return None
            frame = bytes(heard[: 8 + heard[5]])
            if frame[6] == 0x03 and (sum(frame) - frame[7]) % 256 == frame[7]:
                del heard[: len(frame)]
                return frame
            del heard[0]
        heard.clear()
        return None

    def obey(self, frame: bytes) -> None:
        board, lock, command = self.there(frame[1]), frame[2], frame[3]
        if board is None or frame[4] != 0x00:
            return
        if command == 0x80:
            self._say(board, lock, command, 0x10, bitmap([not door.hooked for door in board.doors], 2))
        elif command != 0x81 or lock >= len(board.doors):
            self._say(board, lock, command, 0x13)
        elif self.refusals:
            self._say(board, lock, command, self.refusals.pop(0))
        else:
            board.doors[lock].pulse()
            self._say(board, lock, command, 0x12 if board.doors[lock].hooked else 0x10)

    def _say(self, board: VirtualBoard, lock: int, command: int, ask: int, data: bytes = b"") -> None:
        head = bytes([0x02, board.said, lock, command, ask, len(data), 0x03])
        self.answer(board, head + bytes([sum(head + data) % 256]) + data)
