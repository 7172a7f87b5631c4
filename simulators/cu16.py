"""Kerong CU16 lock boards, written from the published protocol: up to 16 boards of 16 locks on one bus.

`02 ADDR CMD 03 SUM` asks; the high nibble of ADDR is the board, the low one the lock. A lock that holds is a
1 bit. An unlock is carried out in silence, as on most real boards. A frame with a wrong sum is ignored.
"""

from simulators.boards import LockBus, VirtualBoard, bitmap


class Cu16Bus(LockBus):
    BAUD = 19200

    confused = 0
    """So many of the next unlocks are answered, with something of no use."""

    def frame_in(self, heard: bytearray) -> bytes | None:
        while (start := heard.find(0x02)) >= 0:
            del heard[:start]
            if len(heard) < 5:
                return None
            frame = bytes(heard[:5])
            if frame[3] == 0x03 and sum(frame[:4]) & 0xFF == frame[4]:
                del heard[:5]
                return frame
            del heard[0]
        heard.clear()
        return None

    def obey(self, frame: bytes) -> None:
        number, lock, command = frame[1] >> 4, frame[1] & 0x0F, frame[2]
        if command == 0x32:
            for address in sorted(self.boards):
                if (each := self.there(address)) is not None:
                    self._tell(each, 0x36)
            return
        board = self.there(number)
        if board is None:
            return
        if command == 0x30:
            self._tell(board, 0x35)
        elif command == 0x31 and lock < len(board.doors):
            board.doors[lock].pulse()
            if self.confused:
                self.confused -= 1
                self.answer(board, frame)
        elif command == 0x33:
            for door in board.doors:
                door.pulse()

    def _tell(self, board: VirtualBoard, command: int) -> None:
        hooks = bitmap([door.hooked for door in board.doors], 2)
        content = bitmap([door.occupied for door in board.doors], 2)
        body = bytes([0x02, board.said << 4, command]) + hooks + content + b"\x03"
        self.answer(board, body + bytes([sum(body) & 0xFF]))
