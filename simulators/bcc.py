"""The "8A/80" lock boards, written from the published protocol.

`8A BOARD LOCK 11 XOR` unlocks; the answer ends in 00 for a lock that is open now and in 11 for one that still
holds, which is the command itself. `80 BOARD 00 33 XOR` is answered by `80 BOARD <state> 33 XOR`, the last
byte of state being locks 1 to 8, 1 for a lock that holds. Some boards report changes by themselves with 82.
"""

import asyncio
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

from simulators.boards import LockBus, VirtualBoard, bitmap


class BccBus(LockBus):
    def __init__(self, name: Path, *args: Any, **more: Any) -> None:
        super().__init__(name, *args, **more)
        self.status_bytes = 3
        self.thinks = 0.0
        """Seconds that a board looks at a lock before it answers an unlock."""

    def notice(self, board: int, lock: int) -> None:
        """Tell by itself how a lock is."""
        hooked = self.door(board, lock).hooked
        self.answer(self.boards[board], _sealed(0x82, board, lock, 0x11 if hooked else 0x00))

    def frame_in(self, heard: bytearray) -> bytes | None:
        while len(heard) >= 5:
            frame = bytes(heard[:5])
            if frame[0] in (0x80, 0x8A) and reduce(xor, frame) == 0:
                del heard[:5]
                return frame
            del heard[0]
        return None

    def obey(self, frame: bytes) -> None:
        board, lock = self.there(frame[1]), frame[2]
        if board is None:
            return
        if frame[0] == 0x80 and lock == 0 and frame[3] == 0x33:
            state = bitmap([door.hooked for door in board.doors], self.status_bytes)
            self.answer(board, _sealed(0x80, board.said, *reversed(state), 0x33))
        elif frame[0] == 0x8A and 0 < lock <= len(board.doors) and frame[3] == 0x11:
            board.doors[lock - 1].pulse()
            if self.thinks:
                asyncio.get_running_loop().call_later(self.thinks, self._tell, board, lock)
            else:
                self._tell(board, lock)

    def _tell(self, board: VirtualBoard, lock: int) -> None:
        self.answer(board, _sealed(0x8A, board.said, lock, 0x11 if board.doors[lock - 1].hooked else 0x00))


def _sealed(*body: int) -> bytes:
    return bytes([*body, reduce(xor, body)])
