"""One stored line: is it a canonical CloudEvents entry, and the one that its place says? Pure."""

import json
import re
from typing import Any

from pydantic_core import from_json, to_json

from agent.audit.verdict import Broken, Code

Entry = dict[str, Any]

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def check_line(line: bytes, sequence: int, epoch: str, source: str) -> Entry:
    """The entry. Raises Broken with MALFORMED or IDENTITY."""
    entry = canonical(line)
    if entry is None or not _is_entry(entry):
        raise Broken(Code.MALFORMED, "expected a canonical CloudEvents line", sequence)
    expected = (f"{epoch}-{sequence}", str(sequence), source)
    found = (entry.get("id"), entry.get("sequence"), entry.get("source"))
    if found != expected:
        raise Broken(Code.IDENTITY, f"expected id, sequence and source {expected}, got {found}", sequence)
    return entry


def canonical(line: bytes) -> Entry | None:
    """The JSON object, if writing it again gives the same bytes: no spaces, no key twice, no other escapes.

    The fast writer decides almost always. It writes some exponents otherwise than the journal does.
    """
    try:
        found = from_json(line, allow_inf_nan=False)
        same = to_json(found) == line or _encode(found).encode() == line
    except ValueError:
        return None
    return found if same and isinstance(found, dict) else None


def _is_entry(entry: Entry) -> bool:
    type_, subject, time = entry.get("type"), entry.get("subject"), entry.get("time")
    return (
        entry.get("specversion") == "1.0"
        and isinstance(type_, str)
        and type_.startswith("postern.")
        and isinstance(subject, str)
        and isinstance(time, str)
        and _TIME.fullmatch(time) is not None
        and isinstance(entry.get("data"), dict)
    )
