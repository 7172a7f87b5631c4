"""What a reading is taken for, all schemes together: order, symbologies, ids, and never an exception."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.labels import Confidence, read_label


def schemes(data: bytes, symbology: str | None = None) -> list[str]:
    return [label.scheme for label in read_label(data, symbology)]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"LAB0000000001", "text:LAB0000000001"),
        (b"  LAB0000000001\r\n", "text:LAB0000000001"),
        (b"RB123456785GB", "s10:RB123456785GB"),
        (b"1Z5R89390357567127", "ups:1Z5R89390357567127"),
        (b"1Z999AA10123456784", "ups:1Z999AA10123456784"),
        (b"3318810025", "dhl:3318810025"),
        (b"3318810010", "text:3318810010"),
        (b"JJD0099999999", "dhl:JJD0099999999"),
        (b"00376130321109103420", "sscc:376130321109103420"),
        (b"]C100376130321109103420", "sscc:376130321109103420"),
        (b"]C0LAB0000000001", "text:LAB0000000001"),
        (b"]E05901234123457", "gtin:05901234123457"),
        (b"420221539101026837331000039521", "usps:9101026837331000039521"),
    ],
)
def test_the_best_candidate_names_the_parcel(data: bytes, name: str) -> None:
    assert read_label(data)[0].id == name


def test_an_aim_identifier_counts_the_same_in_the_data_and_beside_it() -> None:
    inside = read_label(b"]C100376130321109103420")
    assert read_label(b"00376130321109103420", "]C1") == inside
    assert read_label(b"]C100376130321109103420", "]C1") == inside


@pytest.mark.parametrize("data", [b"]", b"]x", b"]C1", b"]Yp1", b"]]C1", b"\x1d", b" ", b"\x00"])
def test_an_identifier_or_control_character_alone_is_text(data: bytes) -> None:
    (label,) = read_label(data)
    assert label.scheme == "text"


def test_an_empty_reading_has_no_candidate() -> None:
    assert read_label(b"") == ()


@pytest.mark.parametrize(
    ("data", "order"),
    [
        (b"JJD0099999999", ["dhl-piece", "iso15459", "text"]),
        (b"1JUN123456789A4711", ["iso15459", "text"]),
        (b"JACKET42", ["text", "iso15459"]),
        (b"J4603636537", ["ups-waybill", "text", "iso15459"]),
        (b"RB123456784GB", ["text", "s10"]),
        (b"00376130321109103421", ["text", "sscc"]),
        (b"]C1376130321109103420", ["sscc", "text"]),
        (b"]C1106141412345678908", ["sscc", "gs1", "text"]),
        (b"]C142012345\x1d403R9", ["gs1", "text"]),
        (b"]C142022153\x1d9101026837331000039521", ["usps-impb", "text"]),
        (b"5901234123457", ["gtin", "text"]),
        (b"12345678901234567890", ["text"]),
    ],
)
def test_candidates_are_ranked_by_what_speaks_for_them(data: bytes, order: list[str]) -> None:
    labels = read_label(data)
    assert [label.scheme for label in labels] == order
    assert [label.confidence for label in labels] == sorted(
        (label.confidence for label in labels), reverse=True
    )


def test_the_text_itself_is_always_a_candidate() -> None:
    assert schemes(b"]C100376130321109103420") == ["sscc", "text"]


def test_one_ups_parcel_has_one_id_in_both_its_barcodes() -> None:
    maxicode = (
        b"[)>\x1e01\x1d96336091062\x1d840\x1d002\x1d1Z14647438\x1dUPSN\x1d410E1W\x1d195\x1d\x1d1/1\x1e\x04"
    )
    assert read_label(maxicode, "]U1")[0].id == read_label(b"1Z410E1W0214647438")[0].id


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"A\x1dB", "text:A\\x1dB"),
        (b"A\\x1dB", "text:A\\\\x1dB"),
        ("Ä".encode(), "text:\\xc4"),
        ("Ä".encode("latin-1"), "text:\\xc4"),
        ("箱".encode(), "text:\\u7bb1"),
        (b"A" * 123, "text:" + "A" * 123),
    ],
)
def test_a_text_id_is_printable_ascii(data: bytes, name: str) -> None:
    assert read_label(data)[0].id == name


def test_a_text_too_long_for_an_id_is_named_by_its_hash() -> None:
    (label,) = read_label(b"A" * 124)
    assert label.id == "sha256:" + hashlib.sha256(b"text:" + b"A" * 124).hexdigest()[:32]


def test_labels_can_be_kept_in_sets() -> None:
    assert len({*read_label(b"RB123456785GB"), *read_label(b"]C0RB123456785GB")}) == 2


SYMBOLOGIES = st.none() | st.sampled_from(
    ["]C1", "]C0", "]E0", "]E3", "]E4", "]I1", "]d2", "]Q3", "]e0", "]U1"]
)
FRAGMENTS = st.sampled_from(
    [
        *(
            b"]",
            b"]C1",
            b"]d2",
            b"|]e0",
            b"\x1d",
            b"\x1e",
            b"(",
            b")",
            b"(01)",
            b"[)>\x1e01\x1d96",
            b"https://a/",
        ),
        *(
            b"00",
            b"01",
            b"10",
            b"17",
            b"21",
            b"420",
            b"421",
            b"3103",
            b"3919",
            b"8003",
            b"8008",
            b"7003",
            b"/01/",
        ),
        *(b"376130321109103420", b"09501101530003", b"000000", b"1Z", b"JJD", b"UPSN", "١".encode(), b"\xff"),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.lists(FRAGMENTS, max_size=14).map(b"".join), SYMBOLOGIES)
@example(b"]C1", "]C1")
@example(b"0" * 7089, None)
@example(b"J" * 7089, None)
@example(b"(00)" * 1772, None)
@example(b"https://" + b"/01/" * 1700, "]Q1")
@example(b"10A\x1d" * 1772, "]Q3")
def test_any_reading_has_ranked_bounded_printable_ids(data: bytes, symbology: str | None) -> None:
    labels = read_label(data, symbology)
    assert bool(labels) == bool(data)
    assert all(label.id.isascii() and label.id.isprintable() for label in labels)
    assert all(len(label.id) <= 128 for label in labels)
    assert [label.confidence for label in labels] == sorted(
        (label.confidence for label in labels), reverse=True
    )
    assert not data or Confidence.TEXT in [label.confidence for label in labels]
    assert len({label.id for label in labels}) == len(labels)
