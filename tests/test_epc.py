"""Samples of GS1's Tag Data Standard, annex E, and round trips through an encoder written from its tables."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.candidates import Confidence, Label
from agent.gs1 import check_digit
from agent.labels import read_epc, read_label

PC = 0x3000
"""Six words, no user memory, no extension, toggle clear."""


def read(text: str, pc: int | None = PC) -> tuple[Label, ...]:
    return read_epc(bytes.fromhex(text), pc)


@pytest.mark.parametrize(
    ("tag", "name", "barcode"),
    [
        ("3074257BF7194E4000001A85", "sgtin:80614141123458.6789", b"]C10180614141123458216789"),
        ("3114257BF4499602D2000000", "sscc:106141412345678908", b"]C100106141412345678908"),
        ("311BA1B300CE0A6A83000000", "sscc:095201234567891235", b"]C100095201234567891235"),
        ("3374257BF40C0E400000162E", "grai:00614141123452.5678", b"]C18003006141411234525678"),
        ("3474257BF40000000000162E", "giai:06141415678", b"]C1800406141415678"),
        ("F90095201234567891235000", "sscc:095201234567891235", b"00095201234567891235"),
    ],
)
def test_a_tag_and_a_barcode_of_one_number_have_one_id(tag: str, name: str, barcode: bytes) -> None:
    best, raw = read(tag)
    assert (best.id, best.confidence) == (name, Confidence.DECLARED)
    assert (raw.scheme, raw.id) == ("epc-raw", f"epc:{tag}")
    assert read_label(barcode)[0].id == name


def test_without_the_pc_word_nothing_is_declared() -> None:
    sscc, _ = read("3114257BF4499602D2000000", None)
    asset, _ = read("3474257BF40000000000162E", None)
    manager, _ = read("35000E86F8000A9000000010", None)
    assert sscc.confidence is Confidence.CHECKED
    assert asset.confidence is Confidence.FORM
    assert manager.confidence is Confidence.FORM


def test_the_toggle_bit_says_that_the_bits_are_no_epc() -> None:
    (label,) = read("3114257BF4499602D2000000", PC | 0x0100 | 0xA1)
    assert (label.scheme, label.fields) == ("epc-raw", {"afi": "A1"})


def test_a_gid_is_manager_class_and_serial() -> None:
    assert read("35000E86F8000A9000000010")[0].id == "gid:59503.8388777.16"


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("3114257BF4499602D2000001", "bits set in the reserved tail of an SSCC-96"),
        ("307C257BF7194E4000001A85", "partition 7"),
        ("3063FFFFFFFFFE4000001A85", "a company prefix of more than 12 digits"),
        ("3074257BF7FFFFC000001A85", "an item reference of more than its digits"),
        ("3074257BF7194E4000001A8500", "a byte too many"),
        ("3074257BF7194E4000001A", "a byte too few"),
        ("3500", "a GID cut short"),
        ("F9009520123456789123500F", "bits behind an SSCC+ whose toggle is clear"),
        ("F900952012345678912A5000", "an SSCC+ with a digit beyond 9"),
        ("F9", "an SSCC+ cut short"),
        ("36" + "00" * 25, "a scheme that is not decoded"),
        ("E2801160600002054CC2096F", "a TID"),
        ("00" * 12, "an unprogrammed tag"),
    ],
)
def test_what_is_not_written_as_the_standard_says_stays_raw(tag: str, why: str) -> None:
    (label,) = read(tag)
    assert (label.scheme, label.id, label.confidence) == ("epc-raw", f"epc:{tag}", Confidence.TEXT), why


@pytest.mark.parametrize(
    ("tag", "fields"),
    [
        ("E2801160", {"header": "TID"}),
        ("36" + "00" * 25, {"header": "SGTIN-198"}),
        ("F7" + "00" * 11, {"header": "SGTIN+"}),
        ("0000", {"header": "unprogrammed"}),
        ("AB00", {}),
    ],
)
def test_a_raw_tag_tells_its_header_where_it_is_known(tag: str, fields: dict[str, str]) -> None:
    assert read(tag)[-1].fields == fields


def test_an_sscc_plus_may_carry_more_data_behind_it() -> None:
    assert read("F98095201234567891235ABC")[0].id == "sscc:095201234567891235"


def test_an_sscc_plus_with_a_wrong_check_digit_is_flagged() -> None:
    raw, flagged = read("F90095201234567891234000")
    assert raw.scheme == "epc-raw"
    assert (flagged.id, flagged.fields["check"]) == ("sscc:095201234567891234", "bad")


def test_an_empty_tag_has_no_candidate() -> None:
    assert read_epc(b"") == ()


# Tag Data Standard, partition tables: bits of the company prefix for 12, 11, ... 6 digits.
COMPANY_BITS = {12: 40, 11: 37, 10: 34, 9: 30, 8: 27, 7: 24, 6: 20}


def encoded(header: int, pair_bits: int, company: str, reference: str, rest: int) -> bytes:
    """A 96-bit tag: header, filter 2, partition, company prefix, reference, rest."""
    company_bits = COMPANY_BITS[len(company)]
    fields = [
        (header, 8),
        (2, 3),
        (12 - len(company), 3),
        (int(company), company_bits),
        (int(reference or "0"), pair_bits - company_bits),
        (rest, 82 - pair_bits),
    ]
    return int("".join(f"{value:0{bits}b}" for value, bits in fields if bits), 2).to_bytes(12, "big")


def digits(length: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=length, max_size=length)


def pairs(total: int) -> st.SearchStrategy[tuple[str, str]]:
    """Company prefix and reference that hold `total` digits together."""
    return st.integers(6, 12).flatmap(lambda n: st.tuples(digits(n), digits(total - n)))


@given(pairs(13), st.integers(0, 2**38 - 1))
def test_an_sgtin_survives_the_round_trip(pair: tuple[str, str], serial: int) -> None:
    company, reference = pair
    body = reference[0] + company + reference[1:]
    name = f"sgtin:{body}{check_digit(body)}.{serial}"
    assert read_epc(encoded(0x30, 44, company, reference, serial), PC)[0].id == name


@given(pairs(17))
def test_an_sscc_survives_the_round_trip(pair: tuple[str, str]) -> None:
    company, reference = pair
    body = reference[0] + company + reference[1:]
    tag = read_epc(encoded(0x31, 58, company, reference, 0), PC)
    assert tag[0].id == f"sscc:{body}{check_digit(body)}"
    assert tag[0] == read_label(f"]C100{body}{check_digit(body)}".encode())[0]


@given(pairs(12), st.integers(0, 2**41 - 1))
def test_an_sgln_survives_the_round_trip(pair: tuple[str, str], extension: int) -> None:
    body = "".join(pair)
    place = body + check_digit(body)
    name = f"sgln:{place}.{extension}" if extension else f"gln:{place}"
    assert read_epc(encoded(0x32, 41, *pair, extension), PC)[0].id == name


@given(pairs(12), st.integers(0, 2**38 - 1))
def test_a_grai_survives_the_round_trip(pair: tuple[str, str], serial: int) -> None:
    body = "".join(pair)
    assert read_epc(encoded(0x33, 44, *pair, serial), PC)[0].id == f"grai:0{body}{check_digit(body)}.{serial}"


@given(st.integers(6, 12).flatmap(digits), st.integers(0, 10**12))
def test_a_giai_survives_the_round_trip(company: str, reference: int) -> None:
    assert read_epc(encoded(0x34, 82, company, str(reference), 0), PC)[0].id == f"giai:{company}{reference}"


@settings(deadline=None)
@given(st.binary(max_size=62), st.none() | st.integers(0, 0xFFFF))
def test_any_tag_has_a_bounded_printable_id(epc: bytes, pc: int | None) -> None:
    labels = read_epc(epc, pc)
    assert bool(labels) == bool(epc)
    assert all(label.id.isprintable() and len(label.id) <= 128 for label in labels)


@settings(deadline=None)
@given(st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0xF9]), st.binary(min_size=11, max_size=11))
def test_any_bits_under_a_known_header_are_decoded_or_left_raw(header: int, rest: bytes) -> None:
    labels = read_epc(bytes([header]) + rest, PC)
    assert any(label.scheme == "epc-raw" for label in labels)
    assert all(label.id.isprintable() and len(label.id) <= 128 for label in labels)
