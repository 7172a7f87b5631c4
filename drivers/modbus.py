"""Modbus RTU, as far as relay boards need it: the bytes of questions and answers. No I/O.

    ADDRESS FUNCTION <data> CRCl CRCh

Nothing marks where a frame begins, so the codec knows which addresses may answer and how long each answer
is. A write is answered by its own copy, or its beginning; an error by the function with its top bit set.
"""

from collections.abc import Collection
from dataclasses import dataclass

from drivers.base import BadFrame, FrameCodec
from drivers.checksums import crc16_modbus

READ_COILS = 0x01
READ_INPUTS = 0x02
READ_REGISTERS = 0x03
WRITE_COIL = 0x05
WRITE_COILS = 0x0F
READS = (READ_COILS, READ_INPUTS, READ_REGISTERS)
WRITES = (WRITE_COIL, WRITE_COILS)
ERROR = 0x80
LONGEST_READ = 32
"""Bytes of data in an answer: more than any relay board has inputs for."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """One question or answer."""

    address: int
    function: int
    data: bytes
    """What follows the function; without the count of bytes that an answer to a read begins with."""

    def encode(self) -> bytes:
        """As a question, or the answer to a write."""
        return sealed(bytes([self.address, self.function]) + self.data)


def sealed(body: bytes) -> bytes:
    return body + crc16_modbus(body).to_bytes(2, "little")


def read(address: int, function: int, start: int, count: int) -> Pdu:
    return Pdu(address, function, start.to_bytes(2) + count.to_bytes(2))


def write_coil(address: int, coil: int, value: int) -> Pdu:
    return Pdu(address, WRITE_COIL, coil.to_bytes(2) + value.to_bytes(2))


def write_coils(address: int, start: int, bits: Collection[bool]) -> Pdu:
    packed = sum(bit << at for at, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
    head = start.to_bytes(2) + len(bits).to_bytes(2)
    return Pdu(address, WRITE_COILS, head + bytes([len(packed)]) + packed)


class ModbusCodec(FrameCodec[Pdu]):
    """Answers of the boards at certain addresses."""

    HEADERS = ()
    LIMIT = 5 + LONGEST_READ

    def __init__(self, addresses: Collection[int]) -> None:
        super().__init__()
        self._addresses = frozenset(addresses)

    def measure(self, head: bytes) -> int | None:
        if head[0] not in self._addresses:
            raise BadFrame("address")
        if len(head) < 2:
            return None
        function = head[1]
        if function in WRITES:
            return 8
        if function & ~ERROR in READS + WRITES and function & ERROR:
            return 5
        if function not in READS:
            raise BadFrame("function")
        return None if len(head) < 3 else 5 + head[2]

    def decode(self, raw: bytes) -> Pdu:
        if crc16_modbus(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
            raise BadFrame("checksum")
        return Pdu(raw[0], raw[1], raw[3 if raw[1] in READS else 2 : -2])

    def _hunt(self) -> bool:
        """Any byte may be the first of a frame."""
        return bool(self._buffer)
