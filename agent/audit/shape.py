"""What checked lines have in common, so that the next of their kind are checked at one look.

    shapes = Shapes(epoch, source)
    if not shapes.fit(line, sequence):
        shapes.learn(check_line(line, sequence, epoch, source))

A shape is a regular expression made of an entry that was checked in full: its keys in their order, and in
the place of each value whatever is written in one way only. So a line that fits is canonical, is the entry
that its place says, and has each key once. Text with escapes or beyond ASCII and rare numbers fit no shape:
such lines are checked in full each time.
"""

import json
import re
from collections.abc import Callable
from typing import Any

MOST = 8
"""Shapes kept of one type of entry."""
TYPES = 64

_PLAIN = re.compile(r"[ !#-\[\]-~]*")
_TEXT = r'"[ !#-\[\]-~]*+"'
# Both writers of JSON agree on these: at most 15 digits, no exponent, no zero too many.
_NUMBER = (
    r"(?:0|-?[1-9][0-9]{0,14}|-?[1-9][0-9]{0,6}\.(?:0|[0-9]{0,6}[1-9])"
    r"|-?0\.(?:0|(?!0000)[0-9]{0,6}[1-9]))"
)
_TIME = r'"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z"'
_TYPE = b'"type":"'

Match = Callable[[bytes], re.Match[bytes] | None]


class Shapes:
    """Of one epoch of one device."""

    def __init__(self, epoch: str, source: str) -> None:
        self._epoch, self._source = epoch, source
        self._known: dict[bytes, list[Match]] = {}

    def fit(self, line: bytes, sequence: int) -> bool:
        """Whether this is a canonical entry of the journal with this sequence. False says nothing."""
        start = line.find(_TYPE) + len(_TYPE)
        known = self._known.get(line[start : line.find(b'"', start)])
        if known is None:
            return False
        for number, match in enumerate(known):
            if found := match(line):
                if number:
                    known.insert(0, known.pop(number))
                return found[1] == b"%d" % sequence
        return False

    def learn(self, entry: dict[str, Any]) -> None:
        """An entry that was checked in full."""
        known = self._known.setdefault(entry["type"].encode(), [])
        try:
            shape = self._shape(entry)
        except ValueError:
            return
        if len(self._known) <= TYPES:
            known.insert(0, re.compile(shape.encode()).fullmatch)
            del known[MOST:]

    def _shape(self, entry: dict[str, Any]) -> str:
        """Raises ValueError for one that has none."""
        keys = list(entry)
        if keys.index("id") > keys.index("sequence"):
            raise ValueError("expected the id before the sequence, which repeats it")
        fixed = {
            "specversion": '"1\\.0"',
            "id": f'"{re.escape(self._epoch)}-([0-9]+)"',
            "source": _literal(self._source),
            "type": _literal(entry["type"]),
            "subject": _TEXT,
            "time": _TIME,
            "sequence": '"\\1"',
        }
        pairs = (f"{_literal(key)}:{fixed.get(key) or _like(value)}" for key, value in entry.items())
        return "\\{" + ",".join(pairs) + "\\}"


def _like(value: Any) -> str:
    """What is written in place of this value, in one way only."""
    match value:
        case str():
            return _TEXT
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _NUMBER
        case list():
            return "\\[" + ",".join(map(_like, value)) + "\\]"
        case dict():
            pairs = (f"{_literal(key)}:{_like(each)}" for key, each in value.items())
            return "\\{" + ",".join(pairs) + "\\}"
    raise ValueError(f"expected a value of JSON, got {type(value).__name__}")


def _literal(text: str) -> str:
    """This very text. Raises ValueError where there are several ways to write it."""
    if not _PLAIN.fullmatch(text):
        raise ValueError("expected plain text")
    return re.escape(json.dumps(text))
