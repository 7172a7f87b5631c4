"""Sums, XOR and CRC-16 of the supported protocols, with their published check values.

The CRC check value is the CRC of the ASCII digits `123456789`, as the catalogues of CRC parameters give it.
"""

from functools import reduce
from operator import xor


def sum8(data: bytes) -> int:
    """Low byte of the sum of all bytes."""
    return sum(data) & 0xFF


def sum16(data: bytes) -> int:
    """Low 16 bits of the sum of all bytes."""
    return sum(data) & 0xFFFF


def minus8(data: bytes) -> int:
    """Two's complement of the byte sum: added to the sum it gives zero."""
    return -sum(data) & 0xFF


def minus16(data: bytes) -> int:
    """16-bit two's complement of the byte sum."""
    return -sum(data) & 0xFFFF


def xor8(data: bytes) -> int:
    """All bytes XORed together."""
    return reduce(xor, data, 0)


def _forward(poly: int, start: int, data: bytes) -> int:
    crc = start
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ poly if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


def crc16_gen2(data: bytes) -> int:
    """EPC Gen2 tag CRC over PC and EPC (poly 1021, init FFFF, inverted). Check value D64E."""
    return _forward(0x1021, 0xFFFF, data) ^ 0xFFFF


def crc16_modbus(data: bytes) -> int:
    """Modbus RTU (poly 8005 reflected, init FFFF); sent low byte first. Check value 4B37."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc
