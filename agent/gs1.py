"""GS1 numbers: element strings, Digital Link URIs, GTIN symbologies and bare digits.

The rules of the application identifiers (AI) are biip's. Importing it takes 20 MB and a tenth of a second,
so the label that matters most, `00` and an SSCC, is read here without it, as are plain GTINs, and biip is
imported with the first message that needs it. A profile that expects GS1 messages calls `preload` at start.

biip reports a wrong check digit beside a parsed message; here every key's check digit is judged anew.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from agent.candidates import Confidence, Label, judged

GS = "\x1d"
"""How scanners send FNC1 as a separator."""

SYMBOLOGIES = frozenset({"]C1", "]d2", "]Q3", "]e0", "]J1"})
"""AIM identifiers that say FNC1 came first: the data is a GS1 element string."""

_GTIN_DIGITS = {"]E0": 13, "]E3": 13, "]E4": 8, "]I1": 14}
"""AIM identifiers of GTIN symbologies; after ]E3's GTIN come 2 or 5 digits of an add-on."""

_LONGEST = 512
"""Characters given to biip, which takes up to 60 us an element. A GS1-128 holds 48, a link seldom 200."""

_SSCC = re.compile(r"00[0-9]{18}")
_BARE_SSCC = re.compile(r"[0-9]{18}")
_BARE_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}")
_UNDECLARED = re.compile(r"\x1d[0-9]{2}|[0-9]{2}[^\x1d]*\x1d.|00([0-9]{18}).|01([0-9]{14}).", re.DOTALL)
_BRACKETED = re.compile(r"(?:\([0-9]{2,4}\)[^()]+)+")
_LINK = re.compile(r"https?://|HTTPS?://")
_LINK_KEY = re.compile(r"/(?:0[01]|253|40[12]|414|80(?:03|04|17|18))/[^/?#]")
_COMPOSITE = "|]e"

_FIELDS = {
    "00": "sscc",
    "01": "gtin",
    "02": "content",
    "10": "batch",
    "11": "produced",
    "15": "best_before",
    "17": "expires",
    "21": "serial",
    "37": "count",
    "254": "extension",
    "400": "order",
    "401": "consignment",
    "402": "shipment",
    "403": "route",
    "410": "ship_to",
    "420": "ship_to_postal",
}
"""Field names of common elements; any other is told under its AI."""

Elements = list[tuple[str, str]]
"""AI and value, in the order read."""


class _Key(NamedTuple):
    ai: str
    scheme: str
    checked: int
    """Leading digits that end in a check digit, before a serial number. 0: the whole value, unchecked."""


# A unit before a group of units, a group before a product or a place.
_KEYS = (
    _Key("00", "sscc", 18),
    _Key("8003", "grai", 14),
    _Key("8004", "giai", 0),
    _Key("8017", "gsrn", 18),
    _Key("8018", "gsrn", 18),
    _Key("253", "gdti", 13),
    _Key("402", "gsin", 17),
    _Key("401", "ginc", 0),
    _Key("01", "gtin", 14),
    _Key("414", "gln", 13),
)

_COMPLETED = {"gtin": ("21", "sgtin"), "gln": ("254", "sgln")}
"""A product or place becomes one thing with this second element."""


def check_digit(body: str) -> str:
    """Mod 10 with weights 3, 1, 3, ... from the right."""
    return str(-(3 * sum(map(int, body[::-2])) + sum(map(int, body[-2::-2]))) % 10)


def preload() -> None:
    """Pay for biip now rather than with the first GS1 message."""
    import_module("biip")


def read(text: str, symbology: str | None) -> Iterator[Label]:
    """Candidates among GS1 numbers, in no order."""
    declared = symbology in SYMBOLOGIES
    linear, composite, second = text.partition(_COMPOSITE)
    if composite and (both := _composite(linear, second[1:])):
        yield from labels(both, declared=True)
    elif digits := _GTIN_DIGITS.get(symbology or ""):
        yield from _gtin(linear, digits, symbology == "]E3")
    elif _SSCC.fullmatch(linear):
        yield from labels([("00", linear[2:])], declared=declared)
    else:
        # 18 digits under FNC1 may be an SSCC without its AI; other digits there are what the AIs say.
        if not declared or len(linear) == 18:
            yield from _bare(linear)
        yield from labels(_elements(linear, declared) or [], declared=declared)


def labels(elements: Elements, *, declared: bool) -> Iterator[Label]:
    """One candidate for each key that names something; if none does, all elements as one."""
    values = dict(elements)
    keys = [key for key in _KEYS if key.ai in values]
    for key in keys:
        yield _label(key, values, declared)
    if values and not keys:
        whole = "".join(f"({ai}){value}" for ai, value in elements)
        yield judged("gs1", whole, right=True, confidence=Confidence.CONTENT, fields=_fields(values, ""))


def _label(key: _Key, values: dict[str, str], declared: bool) -> Label:
    value, scheme = values[key.ai], key.scheme
    end = key.checked or len(value)
    number, serial = value[:end], value[end:]
    second, completed = _COMPLETED.get(scheme, ("", ""))
    if second in values:
        scheme, serial = completed, values[second]
    undeclared = Confidence.CHECKED if key.checked else Confidence.FORM
    return judged(
        scheme,
        f"{number}.{serial}" if serial else number,
        right=not key.checked or check_digit(number[:-1]) == number[-1],
        confidence=Confidence.DECLARED if declared else undeclared,
        fields=_fields(values, key.ai),
    )


def _fields(values: dict[str, str], own: str) -> dict[str, str]:
    fields = {_FIELDS.get(ai, ai): value for ai, value in values.items() if ai not in (own, "421")}
    if "421" in values:
        fields["ship_to_country"], fields["ship_to_postal"] = values["421"][:3], values["421"][3:]
    return fields


def _gtin(text: str, digits: int, with_add_on: bool) -> Iterator[Label]:
    """What a GTIN symbology says; twelve digits under ]E0, where thirteen are promised, are bare digits."""
    number, add_on = text[:digits], text[digits:]
    if len(number) != digits or not _BARE_GTIN.fullmatch(number) or (add_on and not with_add_on):
        yield from _bare(text)
        return
    right = check_digit(number[:-1]) == number[-1]
    fields = {"add_on": add_on} if add_on else {}
    yield judged("gtin", number.zfill(14), right=right, confidence=Confidence.DECLARED, fields=fields)


def _bare(text: str) -> Iterator[Label]:
    """Digits alone: of the scheme that their count suggests if the check digit is right, else of none."""
    is_sscc = _BARE_SSCC.fullmatch(text)
    if (is_sscc or _BARE_GTIN.fullmatch(text)) and check_digit(text[:-1]) == text[-1]:
        scheme, number = ("sscc", text) if is_sscc else ("gtin", text.zfill(14))
        yield judged(scheme, number, right=True, confidence=Confidence.DIGITS)


def _composite(linear: str, second: str) -> Elements | None:
    """A linear GTIN or element string and the 2D part printed over it, as one message."""
    first = f"01{linear.zfill(14)}" if _BARE_GTIN.fullmatch(linear) else linear
    return _parsed(f"{first}{GS}{second}")


def _elements(text: str, declared: bool) -> Elements | None:
    if _LINK.match(text):
        return _parsed(text) if _LINK_KEY.search(text) else None
    if declared or _BRACKETED.fullmatch(text) or _looks_like_elements(text):
        return _parsed(text)
    return None


def _looks_like_elements(text: str) -> bool:
    """Most scanners send no AIM identifier: a separator or the right check digit of a first key stands in."""
    found = _UNDECLARED.match(text)
    if not found:
        return False
    number = found[1] or found[2]
    return not number or check_digit(number[:-1]) == number[-1]


def _parsed(text: str) -> Elements | None:
    """biip's elements of a link, a bracketed or a plain element string; None if it is not GS1."""
    # biip passes over an empty element, which is data lost on the way, and takes the digits of any script.
    if len(text) > _LONGEST or not text.isascii() or GS * 2 in text:
        return None
    from biip import ParseConfig, ParseError
    from biip.gs1_digital_link_uris import GS1DigitalLinkURI
    from biip.gs1_messages import GS1Message

    # Real labels carry dates of zeros; no date matters to a parcel's identity.
    config = ParseConfig(gs1_element_strings_verify_date=False)
    parse = GS1DigitalLinkURI.parse if _LINK.match(text) else GS1Message.parse
    if text.startswith("("):
        parse = GS1Message.parse_hri
    try:
        parts = parse(text, config=config).element_strings
    except (ParseError, ValueError, LookupError, ArithmeticError):
        # Beside its ParseError biip lets through what urlsplit, int, indexing and Decimal raise.
        return None
    return _agreeing([(part.ai.ai, part.value) for part in parts])


def _agreeing(elements: Elements) -> Elements | None:
    """GS1 allows an AI twice only with one value: with two, nobody knows which is meant."""
    once = list(dict.fromkeys(elements))
    agree = len(dict(once)) == len(once) and all(value.isascii() for _, value in once)
    return once if agree else None
