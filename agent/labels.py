"""What a barcode or tag is: ranked candidates for the parcel's name, best first.

    >>> read_label(b"]C100106141412345678908")[0].id
    'sscc:106141412345678908'

The last resort is always among them: scheme `text` with the text itself, `epc-raw` with the tag's bits. What
is ranked below it claims a scheme but fails its check. Nothing here raises, whatever was read.
"""

import re

from agent import gs1, waybills
from agent.candidates import Confidence, Label, identity, ranked
from agent.epc import read_epc

__all__ = ["Confidence", "Label", "named", "read_epc", "read_label"]

_AIM = re.compile(r"\][A-Zc-eopsz][0-9A-Za-z]")
"""ISO/IEC 15424: flag character, symbology, modifier."""
_ID = re.compile(r"[a-z][a-z0-9]{1,11}:[^/]")
"""How an id begins: no address of a page does."""


def read_label(data: bytes, symbology: str | None = None) -> tuple[Label, ...]:
    """Candidates for a barcode's data; none only for empty data.

    `symbology` is the AIM identifier, e.g. `]C1`, where the driver knows it. The data may begin with one too.
    """
    text = _decoded(data)
    symbology, text = _split_symbology(text, symbology)
    if not text:
        return ()
    found = [label for reader in waybills.READERS if (label := reader(text))]
    # What USPS prints under ]C1 is also well-formed GS1, and means something else there.
    if not any(label.confidence >= Confidence.CHECKED for label in found):
        found += gs1.read(text, symbology)
    found.append(Label(scheme="text", id=identity("text", text), confidence=Confidence.TEXT))
    return ranked(found)


def named(text: str) -> str:
    """A parcel's id from how a person writes it: the id itself, or what a scanner would read.

    >>> named("RB473124829DE"), named("s10:RB473124829DE")
    ('s10:RB473124829DE', 's10:RB473124829DE')
    """
    labels = () if _ID.match(text) else read_label(text.encode())
    return labels[0].id if labels else text


def _decoded(data: bytes) -> str:
    """UTF-8, or else Latin-1, which every byte is; without the spaces that scanners or printers add."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.strip(" \t\r\n") or text


def _split_symbology(text: str, symbology: str | None) -> tuple[str | None, str]:
    """AIM identifier and data. An identifier with nothing behind it is data."""
    if symbology:
        return symbology, text.removeprefix(symbology) or text
    found = _AIM.match(text)
    if found and len(text) > found.end():
        return found[0], text[found.end() :]
    return None, text
