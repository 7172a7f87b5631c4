"""Numbers from carriers' manuals and public lists of valid and invalid samples."""

from collections.abc import Callable

import pytest

from agent.candidates import Confidence, Label
from agent.gs1 import GS
from agent.waybills import (
    READERS,
    dhl_express,
    dhl_piece,
    iso15459,
    maxicode_ups,
    piece_3s,
    s10,
    s10_check_digit,
    ups_1z,
    ups_check_digit,
    ups_waybill,
    usps_impb,
)


def known(label: Label | None) -> Label:
    assert label is not None
    return label


@pytest.mark.parametrize(
    ("serial", "digit"),
    [("47312482", "9"), ("12345678", "5"), ("00000000", "5"), ("00000008", "0")],
)
def test_the_s10_check_digit(serial: str, digit: str) -> None:
    assert s10_check_digit(serial) == digit


def test_an_s10_number_tells_its_service_and_country() -> None:
    label = known(s10("RB473124829GB"))
    assert (label.id, label.confidence) == ("s10:RB473124829GB", Confidence.CHECKED)
    assert label.fields == {"service": "RB", "country": "GB"}


@pytest.mark.parametrize("country", ["AC", "TA", "XK", "ZW", "US"])
def test_s10_knows_the_countries_of_the_postal_union(country: str) -> None:
    assert known(s10(f"EE123456785{country}")).confidence is Confidence.CHECKED


@pytest.mark.parametrize(
    "text",
    ["RB123456785ZZ", "RB123456785UK", "RB12345678GB", "rb123456785gb", "RB1234567895GB", "B1123456785GB"],
)
def test_what_is_not_s10_is_no_candidate(text: str) -> None:
    assert s10(text) is None


@pytest.mark.parametrize(
    ("body", "digit"),
    [("5R8939035756712", "7"), ("999AA1012345678", "4"), ("879E93034683444", "0"), ("410E7W039275159", "1")],
)
def test_the_ups_check_digit(body: str, digit: str) -> None:
    assert ups_check_digit(body) == digit
    label = known(ups_1z(f"1Z{body}{digit}"))
    assert (label.id, label.confidence) == (f"ups:1Z{body}{digit}", Confidence.CHECKED)
    assert label.fields == {"shipper": body[:6], "service": body[6:8]}


@pytest.mark.parametrize("text", ["K1506235620", "V0490119172"])
def test_the_letter_of_a_ups_waybill_is_not_checked(text: str) -> None:
    label = known(ups_waybill(text))
    assert (label.id, label.confidence) == (f"ups:{text}", Confidence.CHECKED)


@pytest.mark.parametrize(
    "text", ["2Z5R89390357567127", "1A5R89390357567127", "1Z5R8939035756712", "B1506235620"]
)
def test_what_is_not_ups_is_no_candidate(text: str) -> None:
    assert ups_1z(text) is None
    assert ups_waybill(text) is None


@pytest.mark.parametrize(
    ("reader", "text"),
    [(s10, "RB123456784GB"), (ups_1z, "1Z1111111111111111"), (ups_waybill, "V0490119173")],
)
def test_a_form_with_letters_is_kept_with_a_wrong_check_digit_and_flagged(
    reader: Callable[[str], Label | None], text: str
) -> None:
    label = known(reader(text))
    assert label.fields["check"] == "bad"
    assert label.confidence is Confidence.UNSURE


def test_dhl_express_is_checked_mod_7() -> None:
    label = known(dhl_express("3318810025"))
    assert (label.id, label.confidence) == ("dhl:3318810025", Confidence.DIGITS)
    assert known(dhl_express("12345678903")).id == "dhl:12345678903"


@pytest.mark.parametrize("text", ["3318810010", "3318810020", "331881002", "331881002555", "0000000007"])
def test_bare_digits_with_a_wrong_check_digit_are_not_dhl(text: str) -> None:
    assert dhl_express(text) is None


@pytest.mark.parametrize("text", ["JJD0099999999", "JVGL9999999999", "JJD01999999999999999"])
def test_dhl_piece_ids(text: str) -> None:
    label = known(dhl_piece(text))
    assert (label.id, label.confidence) == (f"dhl:{text}", Confidence.FORM)


def test_3s_names_no_carrier() -> None:
    label = known(piece_3s("3SBCC000123456"))
    assert (label.scheme, label.id) == ("piece-3s", "piece:3SBCC000123456")
    assert piece_3s("3SIMPLEWORDS") is None


def test_the_level_of_packing_is_not_part_of_a_licence_plate() -> None:
    labels = [known(iso15459(f"{identifier}UN123456789A4711")) for identifier in ("J", "1J", "6J")]
    assert {label.id for label in labels} == {"iso15459:UN123456789A4711"}
    assert [label.fields["identifier"] for label in labels] == ["J", "1J", "6J"]
    assert labels[0].confidence is Confidence.FORM


def test_an_unknown_agency_is_unsure() -> None:
    assert known(iso15459("JACKET42")).confidence is Confidence.UNSURE


@pytest.mark.parametrize("text", ["JACKET", "7JUN123456", "JUN12_456", "J", "JUN" + "1" * 33])
def test_what_is_no_licence_plate(text: str) -> None:
    assert iso15459(text) is None


@pytest.mark.parametrize(
    ("text", "number", "postal"),
    [
        ("9400111201080805483016", "9400111201080805483016", None),
        ("9505511069605048600624", "9505511069605048600624", None),
        ("9361289878700317633795", "9361289878700317633795", None),
        ("92748931507708513018050063", "92748931507708513018050063", None),
        ("420221539101026837331000039521", "9101026837331000039521", "22153"),
        (f"42022153{GS}9101026837331000039521", "9101026837331000039521", "22153"),
        ("4201002334249200190132607600833457", "9200190132607600833457", "100233424"),
        ("4201028200009261290113185417468510", "9261290113185417468510", "102820000"),
        (f"420102820000{GS}9261290113185417468510", "9261290113185417468510", "102820000"),
        ("4201234592748931507708513018050063", "92748931507708513018050063", "12345"),
    ],
)
def test_usps_numbers_with_and_without_the_separator(text: str, number: str, postal: str | None) -> None:
    label = known(usps_impb(text))
    assert (label.id, label.fields.get("ship_to_postal")) == (f"usps:{number}", postal)
    assert label.confidence is Confidence.CHECKED


@pytest.mark.parametrize(
    "text",
    [
        "9200000000000000000000",
        "4201028200009261290113185417468511",
        f"4201234{GS}9101026837331000039521",
        f"420{GS}9101026837331000039521",
        "61299998820821171811",
        "420",
    ],
)
def test_what_is_not_usps_is_no_candidate(text: str) -> None:
    assert usps_impb(text) is None


def maxicode(postal: str, country: str, service: str, short: str, shipper: str, scac: str = "UPSN") -> str:
    head = f"[)>\x1e01{GS}96"
    return head + GS.join([postal, country, service, short, scac, shipper, "089", "", "1/1"]) + "\x1e\x04"


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (maxicode("841706672", "840", "001", "1Z12345675", "12345E"), "1Z12345E0112345675"),
        (maxicode("V6C3E2", "068", "001", "1Z12345675", "12345E"), "1Z12345E0112345675"),
        (maxicode("M5E1G45", "124", "066", "1Z12345679", "12345E"), "1Z12345E6612345679"),
        (maxicode("336091062", "840", "002", "1Z14647438", "410E1W"), "1Z410E1W0214647438"),
        (maxicode("336091062", "840", "002", "1Z5R89390357567127", "5R8939"), "1Z5R89390357567127"),
    ],
)
def test_a_maxicode_gives_the_number_of_the_linear_barcode(message: str, number: str) -> None:
    """Messages from printers' manuals: the check digit of the short number covers the whole one."""
    label = known(maxicode_ups(message))
    assert (label.scheme, label.id, label.confidence) == (
        "maxicode-ups",
        f"ups:{number}",
        Confidence.DECLARED,
    )
    assert label.id == known(ups_1z(number)).id


def test_a_maxicode_tells_where_the_parcel_goes() -> None:
    label = known(maxicode_ups(maxicode("841706672", "840", "001", "1Z12345675", "12345E")))
    assert label.fields == {
        "shipper": "12345E",
        "service": "01",
        "ship_to_postal": "841706672",
        "ship_to_country": "840",
    }


def test_a_maxicode_whose_number_does_not_fit_is_unsure() -> None:
    label = known(maxicode_ups(maxicode("841706672", "840", "003", "1Z12345675", "12345E")))
    assert label.confidence is Confidence.UNSURE
    assert label.fields["check"] == "bad"


@pytest.mark.parametrize(
    "text",
    [
        maxicode("841706672", "840", "001", "1Z12345675", "12345E", scac="FDEG"),
        maxicode("841706672", "840", "001", "12345675", "12"),
        f"[)>\x1e01{GS}96841706672{GS}840",
        f"[)>\x1e06{GS}JUN123456789",
    ],
)
def test_what_is_no_ups_maxicode(text: str) -> None:
    assert maxicode_ups(text) is None


@pytest.mark.parametrize("text", ["LAB0000000001", "", "]", "\x1d", "1Z", "J", "420", "[)>"])
def test_plain_text_is_of_no_carrier(text: str) -> None:
    assert [label for reader in READERS if (label := reader(text))] == []
