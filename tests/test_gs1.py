"""GS1 numbers as scanners send them. Samples from the GS1 specifications and scanner manuals."""

import subprocess
import sys

import pytest

from agent import gs1
from agent.candidates import Confidence, Label, ranked
from agent.gs1 import GS

SSCC = "106141412345678908"
GTIN = "09501101530003"


def best(text: str, symbology: str | None = None) -> Label:
    return ranked(gs1.read(text, symbology))[0]


def ids(text: str, symbology: str | None = None) -> list[str]:
    return [label.id for label in ranked(gs1.read(text, symbology))]


@pytest.mark.parametrize(
    ("body", "digit"),
    [
        ("37613032110910342", "0"),
        ("10614141234567890", "8"),
        ("09520123456789123", "5"),
        ("590123412345", "7"),
    ],
)
def test_the_check_digit(body: str, digit: str) -> None:
    assert gs1.check_digit(body) == digit


@pytest.mark.parametrize(
    ("text", "symbology", "confidence"),
    [
        (f"00{SSCC}", "]C1", Confidence.DECLARED),
        (f"00{SSCC}", "]d2", Confidence.DECLARED),
        (f"00{SSCC}", None, Confidence.CHECKED),
        (f"{GS}00{SSCC}", None, Confidence.CHECKED),
        (f"(00){SSCC}", None, Confidence.CHECKED),
        ("(00) 1 0614141 234567890 8", None, Confidence.CHECKED),
        (f"https://id.gs1.org/00/{SSCC}", "]Q1", Confidence.CHECKED),
        (f"HTTPS://ID.GS1.ORG/00/{SSCC}", None, Confidence.CHECKED),
        (f"00{SSCC}02{GTIN}3725", None, Confidence.CHECKED),
        (f"00{SSCC}02{GTIN}3725", "]C1", Confidence.DECLARED),
        (f"42012345{GS}00{SSCC}", "]C1", Confidence.DECLARED),
        (SSCC, None, Confidence.DIGITS),
        (SSCC, "]C1", Confidence.DIGITS),
    ],
)
def test_an_sscc_has_one_id_in_every_form(text: str, symbology: str | None, confidence: Confidence) -> None:
    label = best(text, symbology)
    assert (label.scheme, label.id, label.confidence) == ("sscc", f"sscc:{SSCC}", confidence)


@pytest.mark.parametrize(
    "text", ["00376130321109103421", "(00)376130321109103421", f"00376130321109103421{GS}10A"]
)
@pytest.mark.parametrize("symbology", ["]C1", None])
def test_an_sscc_with_a_wrong_check_digit_is_flagged(text: str, symbology: str | None) -> None:
    label = best(text, symbology)
    assert (label.id, label.confidence) == ("sscc:376130321109103421", Confidence.UNSURE)
    assert label.fields["check"] == "bad"


@pytest.mark.parametrize("text", ["376130321109103421", "5901234123458", "12345678", "123456789013"])
def test_bare_digits_with_a_wrong_check_digit_are_nothing(text: str) -> None:
    assert ids(text) == []


@pytest.mark.parametrize(
    ("text", "symbology", "number", "confidence"),
    [
        ("5901234123457", "]E0", "05901234123457", Confidence.DECLARED),
        ("5901234123457", None, "05901234123457", Confidence.DIGITS),
        ("0614141123452", "]E0", "00614141123452", Confidence.DECLARED),
        ("614141123452", None, "00614141123452", Confidence.DIGITS),
        ("614141123452", "]E0", "00614141123452", Confidence.DIGITS),
        ("96385074", "]E4", "00000096385074", Confidence.DECLARED),
        ("10614141000415", "]I1", "10614141000415", Confidence.DECLARED),
        ("590123412345712345", "]E3", "05901234123457", Confidence.DECLARED),
        (f"01{GTIN}", "]C1", GTIN, Confidence.DECLARED),
        (f"https://example.com/some/path/01/{GTIN}?17=261130", None, GTIN, Confidence.CHECKED),
    ],
)
def test_a_gtin_has_one_id_in_every_form(
    text: str, symbology: str | None, number: str, confidence: Confidence
) -> None:
    label = best(text, symbology)
    assert (label.scheme, label.id, label.confidence) == ("gtin", f"gtin:{number}", confidence)


def test_a_declared_gtin_with_a_wrong_check_digit_is_flagged() -> None:
    label = best("5901234123458", "]E0")
    assert (label.fields["check"], label.confidence) == ("bad", Confidence.UNSURE)


def test_an_add_on_is_told_beside_the_gtin() -> None:
    assert best("590123412345712", "]E3").fields == {"add_on": "12"}


@pytest.mark.parametrize("text", ["59012341234571", "123", "59O1234123457"])
def test_what_ean_13_cannot_carry_is_not_declared(text: str) -> None:
    assert ids(text, "]E0") == []


def test_separators_end_elements_of_variable_length() -> None:
    label = best(f"01{GTIN}10ABC{GS}17261130" + "21X", "]C1")
    assert (label.scheme, label.id) == ("sgtin", f"sgtin:{GTIN}.X")
    assert label.fields == {"batch": "ABC", "expires": "261130", "serial": "X"}


def test_a_dropped_separator_merges_elements_and_is_not_guessed() -> None:
    label = best(f"01{GTIN}10ABC21X", "]C1")
    assert (label.id, label.fields) == (f"gtin:{GTIN}", {"batch": "ABC21X"})


def test_an_empty_element_is_lost_data_and_not_gs1() -> None:
    assert ids(f"01{GTIN}10ABC{GS}{GS}21X", "]C1") == []


def test_a_date_of_zeros_does_not_cost_the_parcel_its_name() -> None:
    assert best(f"01{GTIN}17000000", "]C1").id == f"gtin:{GTIN}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("8003006141411234525678", "grai:00614141123452.5678"),
        ("800300614141123452", "grai:00614141123452"),
        ("800406141415678", "giai:06141415678"),
        ("8018061414112345678903", "gsrn:061414112345678903"),
        ("253061414112345212345", "gdti:0614141123452.12345"),
        ("40206141411234567890", "gsin:06141411234567890"),
        ("401ABC-1/2", "ginc:ABC-1/2"),
        ("4140614141123452", "gln:0614141123452"),
        ("4140614141123452254DOCK1", "sgln:0614141123452.DOCK1"),
    ],
)
def test_every_key_that_names_a_unit_is_read(text: str, name: str) -> None:
    assert best(text, "]C1").id == name


def test_the_parcel_goes_before_the_shipment_and_the_shipment_before_the_product() -> None:
    text = f"01{GTIN}401CONSIGNMENT{GS}40206141411234567890{GS}00{SSCC}"
    order = ["sscc", "gsin", "ginc", "gtin"]
    assert [name.partition(":")[0] for name in ids(text, "]C1")] == order


def test_destination_and_route_are_fields() -> None:
    label = best(f"00{SSCC}42112345678{GS}403ROUTE9{GS}400PO1{GS}4101234567890128", "]C1")
    assert label.fields == {
        "ship_to_country": "123",
        "ship_to_postal": "45678",
        "route": "ROUTE9",
        "order": "PO1",
        "ship_to": "1234567890128",
    }


def test_elements_that_name_nothing_are_content() -> None:
    label = best(f"42012345{GS}403ROUTE9", "]C1")
    assert (label.scheme, label.id, label.confidence) == (
        "gs1",
        "gs1:(420)12345(403)ROUTE9",
        Confidence.CONTENT,
    )


def test_one_ai_with_two_values_is_not_believed() -> None:
    assert ids(f"00{SSCC}00376130321109103420", "]C1") == []
    assert ids(f"00{SSCC}00{SSCC}", "]C1") == [f"sscc:{SSCC}"]


def test_a_composite_is_read_as_one_message() -> None:
    assert ids("5901234123457|]e021ABC", "]E0") == ["sgtin:05901234123457.ABC"]
    assert best(f"00{SSCC}|]e010BATCH", "]C1").fields == {"batch": "BATCH"}


def test_a_composite_whose_second_part_is_broken_is_its_linear_part() -> None:
    assert ids("5901234123457|]e0@@", "]E0") == ["gtin:05901234123457"]
    assert ids(f"00{SSCC}|]e0", "]C1") == [f"sscc:{SSCC}"]


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/track/12345",
        "https://example.com/00/",
        "https://example.com/00/123",
        "http://[/00/1",
        f"Https://id.gs1.org/00/{SSCC}",
        "ftp://id.gs1.org/00/1",
        "https://id.gs1.org/01/%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1",
        "(00)123",
        "(00)376130321109103420(",
        "(junk)1",
        f"12345{GS}hello",
        "010950110153000312",
        "LAB0000000001",
        "",
    ],
)
def test_what_is_not_gs1_is_no_candidate(text: str) -> None:
    assert ids(text) == []


def test_a_message_too_long_for_any_gs1_carrier_is_not_read() -> None:
    assert ids(f"01{GTIN}" + f"10A{GS}" * 400, "]Q3") == []


def test_an_sscc_label_is_read_without_biip() -> None:
    code = (
        "import sys; from agent.labels import read_label; "
        f"read_label(b']C100{SSCC}'); read_label(b'LAB1'); read_label(b']E05901234123457'); "
        "read_label(b'https://example.com/x'); sys.exit('biip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_biip_can_be_paid_for_at_start() -> None:
    gs1.preload()
    assert "biip" in sys.modules
