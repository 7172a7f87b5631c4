"""WKLY lock boards, written from the published samples.

`57 4B 4C 59 LEN BOARD CMD <data> XOR`: LEN counts the whole frame, XOR covers all of it. 82 unlocks one, 84
asks for all of them, one byte a lock: 00 open, 01 closed, FF not known. 85 reports a change by itself.
"""

from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

from simulators.boards import LockBus, VirtualBoard


class WklyBus(LockBus):
    def __init__(self, name: Path, *args: Any, **more: Any) -> None:
        super().__init__(name, *args, **more)
        self.begin = b"\x57\x4b\x4c\x59"
        """Some firmware has 53 for the 57."""
        self.unreadable: set[tuple[int, int]] = set()
        """Board and lock of switches that cannot be read."""

    def notice(self, board: int, lock: int) -> None:
        """Tell by itself how a lock is."""
        self._say(self.boards[board], 0x85, lock, self._state(self.boards[board], lock))

    def frame_in(self, heard: bytearray) -> bytes | None:
        while (start := heard.find(b"\x57\x4b\x4c\x59")) >= 0:
            del heard[:start]
            if len(heard) < 5 or len(heard) < heard[4]:
                return None
            frame = bytes(heard[: max(8, heard[4])])
            if reduce(xor, frame) == 0:
                del heard[: len(frame)]
                return frame
            del heard[0]
        return None

    def obey(self, frame: bytes) -> None:
        board, command = self.there(frame[5]), frame[6]
        if board is None:
            return
        if command == 0x84:
            states = [self._state(board, lock) for lock in range(1, len(board.doors) + 1)]
            self._say(board, command, 0x00, len(states), *states)
        elif command == 0x82:
            lock = frame[7]
            if not 1 <= lock <= len(board.doors):
                self._say(board, command, 0xFF, lock, 0xFF)
                return
            board.doors[lock - 1].pulse()
            state = self._state(board, lock)
            self._say(board, command, 0xFF if state == 0x01 else 0x00, lock, state)

    def _state(self, board: VirtualBoard, lock: int) -> int:
        if (board.address, lock) in self.unreadable:
            return 0xFF
        return int(board.doors[lock - 1].hooked)

    def _say(self, board: VirtualBoard, command: int, *data: int) -> None:
        body = self.begin + bytes([8 + len(data), board.said, command, *data])
        self.answer(board, body + bytes([reduce(xor, body)]))
