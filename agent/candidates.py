"""What a reading may be: one Label with an id, a scheme and how much speaks for it.

A barcode seldom says what it is, so readers return ranked candidates and never one answer. The id is the
parcel's name in the journal: printable ASCII, at most 128 characters, the same for every symbology and tag
that carries the same number.

    Label(scheme="sscc", id="sscc:106141412345678908", confidence=Confidence.DECLARED)
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

LONGEST_ID = 128
"""Characters; what does not fit is named by its hash."""


class Confidence(IntEnum):
    """How much speaks for a candidate. Below TEXT, the bare text is the better name."""

    DECLARED = 90
    """Symbology, header or tag names the standard, and the check digit, where there is one, is right."""
    CHECKED = 80
    """A form that no other scheme uses, with the right check digit."""
    FORM = 60
    """A registered prefix or form of a scheme that has no check digit."""
    DIGITS = 40
    """Bare digits of the right count and check digit: one number in ten passes by chance (DHL: in seven)."""
    CONTENT = 30
    """Well-formed GS1 data that names no unit: a route, a batch, a postal code."""
    TEXT = 20
    """The text or the tag's bits as read. Always true, and says nothing."""
    UNSURE = 10
    """The form claims a scheme, but its check digit is wrong (`check` is `bad`) or its issuer unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One candidate: what a barcode or tag may be the name of."""

    scheme: str
    id: str
    """`<kind of number>:<number>`; one number has one id, whichever scheme carried it."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What else the reading tells, e.g. `ship_to_postal`. Values are as read: not escaped, not bounded."""
    confidence: Confidence


def identity(kind: str, number: str) -> str:
    """The id of `number`: control and non-ASCII characters escaped, `sha256:` and 32 digits if too long."""
    plain = number.isascii() and number.isprintable() and "\\" not in number
    name = f"{kind}:{number if plain else number.encode('unicode_escape').decode('ascii')}"
    if len(name) <= LONGEST_ID:
        return name
    return f"sha256:{hashlib.sha256(name.encode('ascii')).hexdigest()[:32]}"


def judged(
    scheme: str,
    number: str,
    *,
    right: bool,
    confidence: Confidence,
    kind: str = "",
    fields: Mapping[str, str] | None = None,
) -> Label:
    """A candidate whose check digit is right, or not: then it is UNSURE and flagged, never dropped."""
    told = dict(fields or {})
    if not right:
        told["check"] = "bad"
        confidence = Confidence.UNSURE
    return Label(scheme=scheme, id=identity(kind or scheme, number), fields=told, confidence=confidence)


def ranked(found: Iterable[Label]) -> tuple[Label, ...]:
    """Best first; equals keep the order in which they were found."""
    return tuple(sorted(found, key=lambda label: -label.confidence))
