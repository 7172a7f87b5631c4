"""Winnsen lock boards, written from the published layout. There is no checksum.

`90 06 05 ST LK 03` unlocks and is answered by `90 07 85 ST LK OK 03`; `90 07 02 ST LO HI 03` asks for the
state and is answered by `90 07 82 ST LO HI 03`, 1 for a lock that is open. A second firmware answers only
`90 06 12 ST LK 03`, lock by lock. For a while after a pulse a lock cools down, and fails to open.
"""

import asyncio
from pathlib import Path
from typing import Any

from simulators.boards import LockBus, VirtualBoard, bitmap


class WinnsenBus(LockBus):
    def __init__(self, name: Path, *args: Any, **more: Any) -> None:
        super().__init__(name, *args, **more)
        self.cool_down = 15.0
        """Seconds."""
        self.one_by_one = False
        """The second firmware."""
        self.lies = 0
        """So many of the next answers to an unlock have the wrong last word, as one flipped bit makes it."""
        self.names: int | None = None
        """The lock that answers to an unlock name, where that is not the one that was pulsed."""
        self._hot: dict[tuple[int, int], float] = {}

    def frame_in(self, heard: bytearray) -> bytes | None:
        while (start := heard.find(0x90)) >= 0:
            del heard[:start]
            if len(heard) < 2 or (heard[1] in (6, 7) and len(heard) < heard[1]):
                return None
            if heard[1] in (6, 7) and heard[heard[1] - 1] == 0x03:
                frame = bytes(heard[: heard[1]])
                del heard[: len(frame)]
                return frame
            del heard[0]
        heard.clear()
        return None

    def obey(self, frame: bytes) -> None:
        board, lock = self.there(frame[3]), frame[4]
        if board is None:
            return
        if frame[2] == 0x02 and not self.one_by_one:
            self._say(board, 0x82, *bitmap([not door.hooked for door in board.doors], 2))
        elif frame[2] == 0x12 and self.one_by_one and 1 <= lock <= len(board.doors):
            self._say(board, 0x92, lock, int(not board.doors[lock - 1].hooked))
        elif frame[2] == 0x05 and 1 <= lock <= len(board.doors):
            opened = self._pulse(board, lock)
            if self.lies:
                self.lies -= 1
                opened = not opened
            self._say(board, 0x85, self.names or lock, int(opened))

    def _pulse(self, board: VirtualBoard, lock: int) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._hot.get((board.address, lock), 0.0):
            return False
        self._hot[board.address, lock] = now + self.cool_down
        board.doors[lock - 1].pulse()
        return not board.doors[lock - 1].hooked

    def _say(self, board: VirtualBoard, function: int, *data: int) -> None:
        self.answer(board, bytes([0x90, 0x07, function, board.said, *data, 0x03]))
