"""Kerong CU48 lock boards, written from the published samples.

`02 ADDR LOCK 60 03 SUM` asks for the state, `61` unlocks; LOCK counts from 0. Answers are
`02 ADDR LOCK 75 LEN <LEN bytes> SUM`, with no 03: six bytes of state, 1 for a lock that holds, or none.
"""

from simulators.boards import LockBus, VirtualBoard, bitmap


class Cu48Bus(LockBus):
    BAUD = 19200

    def frame_in(self, heard: bytearray) -> bytes | None:
        while (start := heard.find(0x02)) >= 0:
            del heard[:start]
            if len(heard) < 6:
                return None
            frame = bytes(heard[:6])
            if frame[4] == 0x03 and sum(frame[:5]) % 256 == frame[5]:
                del heard[:6]
                return frame
            del heard[0]
        heard.clear()
        return None

    def obey(self, frame: bytes) -> None:
        board, lock = self.there(frame[1]), frame[2]
        if board is None:
            return
        if frame[3] == 0x60:
            self._say(board, 0, bitmap([door.hooked for door in board.doors], 6))
        elif frame[3] == 0x61 and lock < len(board.doors):
            board.doors[lock].pulse()
            self._say(board, lock, b"")

    def _say(self, board: VirtualBoard, lock: int, data: bytes) -> None:
        body = bytes([0x02, board.said, lock, 0x75, len(data)]) + data
        self.answer(board, body + bytes([sum(body) % 256]))
