"""What a UHF tag is: the 96-bit EPC schemes and SSCC+ of GS1's Tag Data Standard.

A tag's EPC is turned into GS1 elements, so that it gets the id that a barcode with the same number gets. Many
tags carry something else (a TID, bits of a private scheme, ISO content): the raw bits are always a candidate.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent import gs1
from agent.candidates import Confidence, Label, identity, ranked
from agent.gs1 import Elements, check_digit

TOGGLE = 0x0100
"""PC bit 17h: when set, the low byte of the PC word is an ISO application family (AFI), the rest no EPC."""

_HEADERS = {
    0x00: "unprogrammed",
    0x2C: "GDTI-96",
    0x2D: "GSRN-96",
    0x2E: "GSRNP-96",
    0x2F: "USDOD-96",
    0x30: "SGTIN-96",
    0x31: "SSCC-96",
    0x32: "SGLN-96",
    0x33: "GRAI-96",
    0x34: "GIAI-96",
    0x35: "GID-96",
    0x36: "SGTIN-198",
    0x37: "GRAI-170",
    0x38: "GIAI-202",
    0x39: "SGLN-195",
    0x3C: "CPI-96",
    0x3F: "SGCN-96",
    0xE2: "TID",
    0xF0: "CPI+",
    0xF1: "GRAI+",
    0xF2: "SGLN+",
    0xF3: "ITIP+",
    0xF4: "GSRN+",
    0xF5: "GSRNP+",
    0xF6: "GDTI+",
    0xF7: "SGTIN+",
    0xF8: "SGCN+",
    0xF9: "SSCC+",
    0xFA: "GIAI+",
    0xFB: "DSGTIN+",
}
"""Tag Data Standard 2.x, table of headers. Not all are decoded."""

_COMPANY_BITS = (40, 37, 34, 30, 27, 24, 20)
"""Width of the company prefix by partition 0 to 6. Its digits are 12 to 6, and 7 is no partition."""

_SSCC_PLUS = re.compile(r"F9[0-9A-F]([0-9]{18})([0-9A-F]*)")
"""Header, a nibble of toggle and filter, the SSCC as BCD; behind it zeros unless the toggle is set."""


def read_epc(epc: bytes, pc: int | None = None) -> tuple[Label, ...]:
    """Candidates for a tag's EPC, without PC and CRC; none only for an empty one.

    `pc` is the protocol control word. Without it ISO content cannot be excluded, and nothing is DECLARED.
    """
    if not epc:
        return ()
    if pc is not None and pc & TOGGLE:
        return (_raw(epc, {"afi": f"{pc & 0xFF:02X}"}),)
    declared = pc is not None
    found = [*gs1.labels(_elements(epc) or [], declared=declared), *_gid(epc, declared)]
    header = _HEADERS.get(epc[0])
    return ranked([*found, _raw(epc, {"header": header} if header else {})])


def _raw(epc: bytes, fields: dict[str, str]) -> Label:
    name = identity("epc", epc.hex().upper())
    return Label(scheme="epc-raw", id=name, fields=fields, confidence=Confidence.TEXT)


class _Fields(NamedTuple):
    """Company prefix and the reference behind it as digits, and what follows as a number."""

    company: str
    reference: str
    rest: int


def _sgtin(tag: _Fields) -> Elements | None:
    body = tag.reference[0] + tag.company + tag.reference[1:]
    return [("01", body + check_digit(body)), ("21", str(tag.rest))]


def _sscc(tag: _Fields) -> Elements | None:
    """The 24 bits behind an SSCC are reserved and zero: anything else was not written as an SSCC."""
    body = tag.reference[0] + tag.company + tag.reference[1:]
    return None if tag.rest else [("00", body + check_digit(body))]


def _sgln(tag: _Fields) -> Elements | None:
    """Extension 0 means the place as a whole, which a barcode says by leaving (254) out."""
    body = tag.company + tag.reference
    place = ("414", body + check_digit(body))
    return [place, ("254", str(tag.rest))] if tag.rest else [place]


def _grai(tag: _Fields) -> Elements | None:
    body = tag.company + tag.reference
    return [("8003", f"0{body}{check_digit(body)}{tag.rest}")]


def _giai(tag: _Fields) -> Elements | None:
    """The one reference that is a plain number: zeros in front would make another one."""
    return [("8004", tag.company + str(int(tag.reference)))]


class _Scheme(NamedTuple):
    bits: int
    """Of company prefix and reference together, which the partition divides."""
    digits: int
    """The most that both hold together."""
    elements: Callable[[_Fields], Elements | None]


_SCHEMES = {
    0x30: _Scheme(44, 13, _sgtin),
    0x31: _Scheme(58, 17, _sscc),
    0x32: _Scheme(41, 12, _sgln),
    0x33: _Scheme(44, 12, _grai),
    0x34: _Scheme(82, 25, _giai),
}


def _elements(epc: bytes) -> Elements | None:
    if epc[0] == 0xF9:
        return _sscc_plus(epc)
    scheme = _SCHEMES.get(epc[0])
    # A reader that reports more words than the scheme has bits read something else.
    tag = _divided(epc, scheme) if scheme and len(epc) == 12 else None
    return scheme.elements(tag) if scheme and tag else None


def _divided(epc: bytes, scheme: _Scheme) -> _Fields | None:
    """Header 8 bits, filter 3, partition 3, company prefix and reference, rest. None if digits overflow."""
    value = int.from_bytes(epc)
    partition = (value >> 82) & 7
    if partition == 7:
        return None
    company_digits = 12 - partition
    reference_digits = scheme.digits - company_digits
    pair, rest = divmod(value & ((1 << 82) - 1), 1 << (82 - scheme.bits))
    company, reference = divmod(pair, 1 << (scheme.bits - _COMPANY_BITS[partition]))
    if company >= 10**company_digits or reference >= 10**reference_digits:
        return None
    padded = f"{reference:0{reference_digits}d}" if reference_digits else ""
    return _Fields(f"{company:0{company_digits}d}", padded, rest)


def _sscc_plus(epc: bytes) -> Elements | None:
    found = _SSCC_PLUS.fullmatch(epc.hex().upper())
    if not found:
        return None
    carries_more = epc[1] & 0x80
    return None if found[2].strip("0") and not carries_more else [("00", found[1])]


def _gid(epc: bytes, declared: bool) -> Iterator[Label]:
    """GID-96: manager 28 bits, class 24, serial 36; no other kind of number corresponds to it."""
    if epc[0] != 0x35 or len(epc) != 12:
        return
    value = int.from_bytes(epc)
    number = f"{(value >> 60) & 0xFFFFFFF}.{(value >> 36) & 0xFFFFFF}.{value & 0xFFFFFFFFF}"
    confidence = Confidence.DECLARED if declared else Confidence.FORM
    yield Label(scheme="gid", id=identity("gid", number), confidence=confidence)
