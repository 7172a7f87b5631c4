"""Sums and CRCs against values that others published, and the laws they owe to their protocols."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.checksums import crc16_gen2, crc16_modbus, minus8, minus16, sum8, sum16, xor8

CHECK = b"123456789"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # Catalogue of parametrised CRC algorithms: CRC-16/GENIBUS, alias CRC-16/EPC, check 0xd64e.
        ("crc16_gen2", crc16_gen2(CHECK), 0xD64E),
        ("crc16_modbus", crc16_modbus(CHECK), 0x4B37),
        ("sum8", sum8(CHECK), 0xDD),
        ("sum16", sum16(CHECK), 0x01DD),
        ("minus8", minus8(CHECK), 0x23),
        ("minus16", minus16(CHECK), 0xFE23),
        ("xor8", xor8(CHECK), 0x31),
    ],
)
def test_the_published_check_value_comes_out(name: str, value: int, expected: int) -> None:
    assert value == expected, name


@pytest.mark.parametrize(
    ("function", "expected"),
    [(sum8, 0), (sum16, 0), (minus8, 0), (minus16, 0), (xor8, 0), (crc16_gen2, 0), (crc16_modbus, 0xFFFF)],
)
def test_nothing_sums_to_nothing(function: object, expected: int) -> None:
    assert callable(function)
    assert function(b"") == expected


def test_an_nmea_sentence_carries_its_xor() -> None:
    """NMEA 0183: the exclusive OR of everything between `$` and `*`."""
    assert xor8(b"GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,") == 0x47


def test_an_ssi_packet_and_its_checksum_sum_to_zero() -> None:
    """The two's complement of the sum of all bytes; a CMD_ACK from the host is 04 D0 04 00 FF 28."""
    assert minus16(bytes.fromhex("04d00400")) == 0xFF28


def test_a_fingerprint_packet_carries_its_sum() -> None:
    """VfyPwd with password 0: 01 00 07 13 00 00 00 00 and the sum 00 1B."""
    assert sum16(bytes.fromhex("0100071300000000")) == 0x001B


@given(st.binary(max_size=300))
def test_a_complement_brings_the_sum_to_zero(data: bytes) -> None:
    assert (sum8(data) + minus8(data)) & 0xFF == 0
    assert (sum16(data) + minus16(data)) & 0xFFFF == 0


@given(st.binary(max_size=300))
def test_a_frame_xored_with_its_own_check_is_zero(data: bytes) -> None:
    assert xor8(data + bytes([xor8(data)])) == 0


@given(st.binary(max_size=64))
def test_a_tag_with_its_crc_leaves_the_residue_of_the_standard(data: bytes) -> None:
    """Gen2: the CRC over data and its own CRC, before the last inversion, is 1D0F."""
    assert crc16_gen2(data + crc16_gen2(data).to_bytes(2)) ^ 0xFFFF == 0x1D0F


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_flipped_bit_is_never_missed(data: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    for function in (sum8, sum16, minus8, minus16, xor8, crc16_gen2, crc16_modbus):
        assert function(data) != function(bytes(flipped))
