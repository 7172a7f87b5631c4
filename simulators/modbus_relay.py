"""Modbus RTU relay boards with digital inputs, written from Waveshare's protocol pages.

Coils 0000 and on are the relays, coil 00FF all of them. A write of so many tenths of a second to coil 0200
and on closes a relay for that long, to 0400 and on opens it for that long. Discrete inputs are the inputs.
Holding register 4000 is the address, 8000 the version of the firmware in hundredths. Firmware before V2 knows
no timed pulse, and answers a write of a single coil with something else than its copy.

Each relay feeds the solenoid of one door; the first `contacts` inputs are switches at the doors.
"""

import asyncio
from pathlib import Path
from typing import Any

from simulators.boards import LockBus, VirtualBoard, bitmap

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3


class RelayBus(LockBus):
    def __init__(self, name: Path, *args: Any, contacts: int = 0, inputs: int = 0, **more: Any) -> None:
        super().__init__(name, *args, **more)
        self.contacts = contacts
        self.version = 200
        """In hundredths. Below 200 it is V1."""
        self.off_by = 0
        """So many relays further on is the one that it takes a single one for, and says so."""
        self.lacks: set[int] = set()
        """Functions that are answered with an exception."""
        self.welded: set[tuple[int, int]] = set()
        """Board and relay, from 1, that do not open any more."""
        self.opened = asyncio.Event()
        """A timed pulse has ended."""
        for board in self.boards.values():
            board.inputs = [False] * inputs

    def frame_in(self, heard: bytearray) -> bytes | None:
        while len(heard) >= 8:
            size = 9 + heard[6] if heard[1] in (0x0F, 0x10) else 8
            if size <= 64 and len(heard) < size:
                return None
            frame = bytes(heard[:size])
            if size <= 64 and frame == _sealed(frame[:-2]):
                del heard[:size]
                return frame
            del heard[0]
        return None

    def obey(self, frame: bytes) -> None:
        for address in list(self.boards) if frame[0] == 0 else [frame[0]]:
            if (board := self.there(address)) is not None:
                self._obey(board, frame)

    def _obey(self, board: VirtualBoard, frame: bytes) -> None:
        said_by = board.said
        function, at, value = frame[1], int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
        if function in self.lacks:
            said = bytes([function | 0x80, ILLEGAL_FUNCTION])
        else:
            match function:
                case 0x01:
                    said = _read(function, at, value, [door.energised for door in board.doors])
                case 0x02:
                    shut = [door.shut for door in board.doors[: self.contacts]]
                    said = _read(function, at, value, shut + board.inputs)
                case 0x03:
                    said = self._register(board, at)
                case 0x05:
                    at += self.off_by
                    frame = frame[:2] + at.to_bytes(2, "big") + frame[4:]
                    said = self._write_coil(board, at, value, frame)
                case 0x06 if at == 0x4000:
                    self._readdress(board, value)
                    said = frame[1:6]
                case 0x0F:
                    said = self._write_coils(board, at, value, frame)
                case _:
                    said = bytes([function | 0x80, ILLEGAL_FUNCTION])
        self.answer(board, _sealed(bytes([said_by]) + said))

    def _register(self, board: VirtualBoard, at: int) -> bytes:
        known = {0x4000: board.address, 0x8000: self.version}
        if at not in known:
            return bytes([0x83, ILLEGAL_ADDRESS])
        return bytes([0x03, 2]) + known[at].to_bytes(2, "big")

    def _readdress(self, board: VirtualBoard, address: int) -> None:
        del self.boards[board.address]
        board.address = address
        self.boards[address] = board

    def _write_coil(self, board: VirtualBoard, at: int, value: int, frame: bytes) -> bytes:
        if at == 0x00FF:
            relays = range(len(board.doors))
        elif (relay := at & 0xFF) < len(board.doors) and at >> 8 in (0x00, 0x02, 0x04):
            relays = range(relay, relay + 1)
        else:
            return bytes([0x85, ILLEGAL_ADDRESS])
        timed = at >> 8 in (0x02, 0x04)
        if timed and self.version < 200:
            return bytes([0x85, ILLEGAL_ADDRESS])
        if not timed and value not in (0x0000, 0x5500, 0xFF00):
            return bytes([0x85, ILLEGAL_VALUE])
        for each in relays:
            was = board.doors[each].energised
            closed = at >> 8 == 0x02 if timed else value == 0xFF00 or (value == 0x5500 and not was)
            self._switch(board, each, closed)
            if timed:
                self._later(value / 10, board, each, not closed)
        return frame[1:4] + b"\x01\x00" if self.version < 200 else frame[1:6]

    def _write_coils(self, board: VirtualBoard, at: int, count: int, frame: bytes) -> bytes:
        if at + count > len(board.doors):
            return bytes([0x8F, ILLEGAL_ADDRESS])
        bits = int.from_bytes(frame[7:-2], "little")
        for offset in range(count):
            self._switch(board, at + offset, bool(bits >> offset & 1))
        return frame[1:6]

    def _switch(self, board: VirtualBoard, relay: int, closed: bool) -> None:
        door = board.doors[relay]
        if closed:
            door.energise()
        elif (board.address, relay + 1) not in self.welded:
            door.release()

    def _later(self, seconds: float, board: VirtualBoard, relay: int, closed: bool) -> None:
        """Timed by the board: whatever becomes of the line or the host meanwhile."""

        def end() -> None:
            self._switch(board, relay, closed)
            self.opened.set()

        asyncio.get_running_loop().call_later(seconds, end)


def _read(function: int, at: int, count: int, bits: list[bool]) -> bytes:
    if at + count > len(bits):
        return bytes([function | 0x80, ILLEGAL_ADDRESS])
    size = (count + 7) // 8
    return bytes([function, size]) + bitmap(bits[at : at + count], size)


def _sealed(body: bytes) -> bytes:
    """With the CRC of Modbus, low byte first."""
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 * (crc & 1)
    return body + crc.to_bytes(2, "little")
