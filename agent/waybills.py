"""Parcel numbers of the carriers: one function a scheme, each `(text) -> Label | None`.

S10, UPS 1Z and waybill, DHL Express and piece ids, 3S, ISO 15459 licence plates, USPS IMpb, UPS MaxiCode.
A form that names its scheme by letters is kept with a wrong check digit and flagged; bare digits with a
wrong check digit are not of that scheme at all. GS1 numbers are in `gs1`.
"""

import re
from collections.abc import Iterator

from agent.candidates import Confidence, Label, identity, judged
from agent.gs1 import GS, check_digit

RS = "\x1e"

# ISO 3166-1 alpha-2, then AC and TA (reserved in ISO 3166 at the request of the UPU) and XK (Kosovo's post).
_ISO_3166 = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW
    BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI
    FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN
    IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME
    MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF
    PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV
    SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE
    YT ZA ZM ZW AC TA XK
"""
_COUNTRIES = frozenset(_ISO_3166.split())

_S10 = re.compile(r"([A-Z]{2})([0-9]{8})([0-9])([A-Z]{2})")
_S10_WEIGHTS = (8, 6, 4, 2, 3, 5, 9, 7)


def s10(text: str) -> Label | None:
    """UPU S10: service, eight digits, check digit, country of origin, as in `RB123456785GB`."""
    found = _S10.fullmatch(text)
    if not found or found[4] not in _COUNTRIES:
        return None
    right = s10_check_digit(found[2]) == found[3]
    fields = {"service": found[1], "country": found[4]}
    return judged("s10", text, right=right, confidence=Confidence.CHECKED, fields=fields)


def s10_check_digit(serial: str) -> str:
    """Of eight digits: 11 minus the weighted sum mod 11, where 10 is written 0 and 11 is written 5."""
    rest = 11 - sum(weight * int(digit) for weight, digit in zip(_S10_WEIGHTS, serial, strict=True)) % 11
    return {10: "0", 11: "5"}.get(rest, str(rest))


_UPS_1Z = re.compile(r"1Z([0-9A-Z]{6})([0-9A-Z]{2})[0-9A-Z]{7}[0-9]")
_UPS_WAYBILL = re.compile(r"[AHJKTV][0-9]{10}")


def ups_1z(text: str) -> Label | None:
    """UPS 1Z: shipper account, service, package number, check digit, as in `1Z5R89390357567127`."""
    found = _UPS_1Z.fullmatch(text)
    if not found:
        return None
    right = ups_check_digit(text[2:-1]) == text[-1]
    fields = {"shipper": found[1], "service": found[2]}
    return judged("ups-1z", text, kind="ups", right=right, confidence=Confidence.CHECKED, fields=fields)


def ups_waybill(text: str) -> Label | None:
    """UPS waybill: a letter that the check digit does not cover, nine digits, check digit."""
    if not _UPS_WAYBILL.fullmatch(text):
        return None
    right = ups_check_digit(text[1:-1]) == text[-1]
    return judged("ups-waybill", text, kind="ups", right=right, confidence=Confidence.CHECKED)


def ups_check_digit(body: str) -> str:
    """Mod 10 with every second character doubled; a letter counts as (code - 63) mod 10."""
    values = [int(char) if char.isdecimal() else (ord(char) - 63) % 10 for char in body]
    return str(-(sum(values[::2]) + 2 * sum(values[1::2])) % 10)


_DHL_EXPRESS = re.compile(r"[0-9]{10,11}")
_DHL_PIECE = re.compile(r"(?:JJD|JVGL)[0-9A-Z]{8,30}")
_PIECE_3S = re.compile(r"3S[0-9A-Z]{3,25}[0-9]{6}")


def dhl_express(text: str) -> Label | None:
    """DHL Express waybill: 10 or 11 digits, the last being the others mod 7."""
    if not _DHL_EXPRESS.fullmatch(text) or int(text[:-1]) % 7 != int(text[-1]):
        return None
    return Label(scheme="dhl-express", id=identity("dhl", text), confidence=Confidence.DIGITS)


def dhl_piece(text: str) -> Label | None:
    """DHL piece id. It has no check digit."""
    if not _DHL_PIECE.fullmatch(text):
        return None
    return Label(scheme="dhl-piece", id=identity("dhl", text), confidence=Confidence.FORM)


def piece_3s(text: str) -> Label | None:
    """Piece id under data identifier 3S: DHL Parcel prints it, and so do other carriers, so it names none."""
    if not _PIECE_3S.fullmatch(text):
        return None
    return Label(scheme="piece-3s", id=identity("piece", text), confidence=Confidence.FORM)


_ISO15459 = re.compile(r"([1-6]?J)([0-9A-Z]{2})(?=[A-Z]*[0-9])[0-9A-Z]{1,32}")
_LONGEST_ISO15459 = 35

# Issuing agencies of two letters seen on parcels: DHL, EDIFICE, Odette, Dun & Bradstreet.
_AGENCIES = frozenset({"JD", "LE", "OD", "UN"})


def iso15459(text: str) -> Label | None:
    """ISO 15459 licence plate under J or 1J to 6J, which tell the level of packing: no part of the id."""
    found = _ISO15459.fullmatch(text)
    if not found or len(text) > _LONGEST_ISO15459:
        return None
    identifier, agency = found.groups()
    return Label(
        scheme="iso15459",
        id=identity("iso15459", text.removeprefix(identifier)),
        fields={"identifier": identifier, "agency": agency},
        confidence=Confidence.FORM if agency in _AGENCIES else Confidence.UNSURE,
    )


_IMPB = re.compile(r"9[1-5][0-9]{20}(?:[0-9]{4})?")
_ZIP = re.compile(r"[0-9]{5}(?:[0-9]{4})?")


def usps_impb(text: str) -> Label | None:
    """USPS IMpb: 22 or 26 digits from 91 to 95, alone or after `420` and a ZIP code of 5 or 9 digits.

    The postal service uses these GS1 application identifiers in its own way, so no GS1 rule splits them.
    """
    for postal, number in _impb_splits(text):
        if _IMPB.fullmatch(number) and check_digit(number[:-1]) == number[-1]:
            fields = {"ship_to_postal": postal} if postal else {}
            name = identity("usps", number)
            return Label(scheme="usps-impb", id=name, fields=fields, confidence=Confidence.CHECKED)
    return None


def _impb_splits(text: str) -> Iterator[tuple[str, str]]:
    if not text.startswith("420"):
        yield "", text
        return
    postal, separator, number = text[3:].partition(GS)
    # A scanner that drops the separator leaves 34 digits that are ZIP+4 and 22 or ZIP and 26.
    splits = [(postal, number)] if separator else [(text[3:12], text[12:]), (text[3:8], text[8:])]
    yield from (split for split in splits if _ZIP.fullmatch(split[0]))


_MAXICODE_HEADER = f"[)>{RS}01{GS}96"


def maxicode_ups(text: str) -> Label | None:
    """UPS MaxiCode message of modes 2 and 3.

    It carries the short number `1Z` + 8; shipper account and service stand in fields of their own, and put
    back in place they give the 1Z number of the linear barcode, whose check digit then covers all of them.
    """
    if not text.startswith(_MAXICODE_HEADER):
        return None
    parts = text.removeprefix(_MAXICODE_HEADER).partition(RS)[0].split(GS)
    if len(parts) < 6 or parts[4] != "UPSN":
        return None
    postal, country, service, short, _, shipper = parts[:6]
    whole = ups_1z(short) or ups_1z(f"1Z{shipper}{service[-2:]}{short.removeprefix('1Z')}")
    if not whole:
        return None
    fields = {**whole.fields, "ship_to_postal": postal, "ship_to_country": country}
    certain = Confidence.UNSURE if "check" in whole.fields else Confidence.DECLARED
    return Label(scheme="maxicode-ups", id=whole.id, fields=fields, confidence=certain)


READERS = (
    s10,
    ups_1z,
    ups_waybill,
    dhl_express,
    dhl_piece,
    piece_3s,
    iso15459,
    usps_impb,
    maxicode_ups,
)
