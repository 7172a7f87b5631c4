"""Rows as people write them: a CSV with a header, or a JSON list of objects with the same names.

    roster.csv      kind,subject,secret,finger,until,role
                    badge,drv-5f2e81,04a1b2c3d4,finger:7,2026-12-31,
                    template,drv-5f2e81,,finger:7,2026-12-31, with a column `template` that holds it in
                    base64, or the path of its file
    manifest.csv    label,driver,stop,flags
    grants.csv      kind,secret,selector,jti,locker,compartment,parcel,purpose,nbf,exp

A column `scope` in a roster or manifest (`depot-7; depot-9`) says whom a row is for; without it, for all.
Every mistake is told with its row and column, all of them at once, and a secret is never shown. `read` gives
rows that still hold their secrets: they leave as `v` alone.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from agent import page
from agent.fleet.sealing import RowOf
from agent.jws import BadJws, decoded, encoded
from agent.mistakes import BadConfig, Mistake
from agent.roster import MIN_TOKEN_BITS, pin_token, token_bits
from agent.row_seal import BadPage
from agent.templates import KIND
from agent.templates import token as token_of

MIN_PIN = 8
GRANT_CODE = 16
SELECTOR, GRANT_PIN = 4, 6
LIMIT = 64 * 1024 * 1024
SCOPE = "scope"

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "roster": (
        "kind",
        "subject",
        "secret",
        "finger",
        "until",
        "role",
        "level",
        "public_key",
        "template",
        SCOPE,
    ),
    "manifest": ("label", "driver", "stop", "flags", SCOPE),
    "grants": (
        "kind",
        "secret",
        "selector",
        "jti",
        "locker",
        "compartment",
        "parcel",
        "purpose",
        "nbf",
        "exp",
    ),
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "roster": ("kind", "subject", "secret"),
    "manifest": ("label",),
    "grants": ("kind", "secret", "jti", "locker", "parcel", "exp"),
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "roster": ("badge", "static", "pin", "fido2", "template"),
    "grants": ("grant", "grant_pin"),
}

TEMPLATES = range(256, 2048 + 1)
"""Bytes of one, over all module families."""
LONGEST_PATH = 255
"""A longer text is the template itself: the shortest takes more."""

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,512}")


class _Wrong(Exception):
    """What one cell should have held, and what it holds: never a secret."""

    def __init__(self, column: str, expected: str, got: str) -> None:
        super().__init__(column)
        self.column, self.expected, self.got = column, expected, got


def read(bundle: str, path: Path, scope: str | None = None) -> list[RowOf]:
    """The rows of one scope, or all of them. Raises BadConfig with every mistake of the file, also for a
    scope that no row names in a file where others are named."""
    mistakes: list[Mistake] = []
    scopes: set[str] = set()
    rows: list[RowOf] = []
    seen: dict[tuple[str, bytes], int] = {}
    for number, cells in enumerate(_cells(bundle, path), start=1):
        try:
            row, known = _row(bundle, cells, path.parent), _scopes(cells)
            scopes |= known
            column, key = _identity(row)
            first = seen.setdefault((row.kind, key), number)
            if first != number:
                raise _Wrong(column, "each once", f"that of row {first}")
            if scope is None or not known or scope in known:
                rows.append(row)
        except _Wrong as wrong:
            mistakes.append(Mistake(f"row {number}, column {wrong.column}", wrong.expected, wrong.got))
        except BadPage as bad:
            mistakes.append(Mistake(f"row {number}", "a row that a device takes", str(bad)))
    if scope is not None and scopes and scope not in scopes:
        # Else a slip of the pen would leave out everybody whom the file says anything of.
        mistakes.append(Mistake("column scope", f"--scope, one of {', '.join(sorted(scopes))}", repr(scope)))
    if mistakes:
        raise BadConfig(str(path), mistakes)
    return rows


def _scopes(cells: Mapping[str, str]) -> set[str]:
    return {each.strip() for each in cells.get(SCOPE, "").split(";")} - {""}


def _cells(bundle: str, path: Path) -> Iterable[Mapping[str, str]]:
    """The rows of a file as text by column, empty cells left out. Raises BadConfig."""
    try:
        if path.stat().st_size > LIMIT:
            raise BadConfig(str(path), [Mistake("file", f"at most {LIMIT} bytes", "more")])
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadConfig(str(path), [Mistake("file", "a readable file", str(reason))]) from error
    found = _from_json(path, text) if path.suffix == ".json" else _from_csv(path, text)
    strange = [
        Mistake(f"row {number}, column {name}", f"one of {', '.join(COLUMNS[bundle])}", repr(name))
        for number, row in enumerate(found, start=1)
        for name in row
        if name not in COLUMNS[bundle]
    ]
    if strange:
        raise BadConfig(str(path), strange[:20])
    return [{name: cell.strip() for name, cell in row.items() if cell.strip()} for row in found]


def _from_csv(path: Path, text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise BadConfig(str(path), [Mistake(f"line {reader.line_num}", "CSV", str(error))]) from error
    for number, row in enumerate(rows, start=1):
        # What is over the header's columns stands under None, and what is missing is None.
        if None in row or None in row.values():
            columns = len(reader.fieldnames or ())
            raise BadConfig(str(path), [Mistake(f"row {number}", f"{columns} columns", "another number")])
    return rows


def _from_json(path: Path, text: str) -> list[dict[str, str]]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfig(str(path), [Mistake("syntax", "JSON", str(error))]) from error
    if not isinstance(tree, list) or not all(isinstance(row, dict) for row in tree):
        raise BadConfig(str(path), [Mistake("file", "a list of objects", "something else")])
    return [{name: _text(value) for name, value in row.items() if value is not None} for row in tree]


def _text(value: Any) -> str:
    match value:
        case list():
            return ";".join(map(str, value))
        case _:
            return str(value)


# -- one row --------------------------------------------------------------------------------------


def _identity(row: RowOf) -> tuple[str, bytes]:
    """The column whose content may stand in one row of the kind alone, and what it comes to."""
    if row.kind == KIND:
        return "finger", f"{row.body['unit']}:{row.body['slot']}".encode()
    return "label" if row.kind == "parcel" else "secret", row.token


def _row(bundle: str, cells: Mapping[str, str], folder: Path) -> RowOf:
    if cells.get("kind") == KIND and KIND in KINDS.get(bundle, ()):
        return _provision(cells, folder)
    if KIND in cells:
        raise _Wrong(KIND, "nothing but in rows of kind template", "something")
    for column in NEEDED[bundle]:
        if column not in cells:
            raise _Wrong(column, "something", "nothing")
    kind = _one_of("kind", cells["kind"], KINDS[bundle]) if bundle in KINDS else "parcel"
    token = _TOKENS[kind](cells)
    body = _BODIES[bundle](cells)
    page.check(bundle, [{"v": "A" * 43, "kind": kind, "body": body}])
    return RowOf(kind, token, body)


def _provision(cells: Mapping[str, str], folder: Path) -> RowOf:
    for column in ("subject", "finger", KIND):
        if column not in cells:
            raise _Wrong(column, "something", "nothing")
    for column in ("secret", "role", "level", "public_key"):
        if column in cells:
            raise _Wrong(column, "nothing in rows of kind template", "something")
    unit, slot = _finger(cells)
    body = {
        "subject": cells["subject"],
        "unit": unit,
        "slot": slot,
        "template": encoded(_template(cells[KIND], folder)),
    }
    if "until" in cells:
        body["until"] = _second("until", cells["until"])
    page.check("roster", [{"v": "A" * 43, "kind": KIND, "body": body}])
    return RowOf(KIND, token_of(cells["subject"], unit, slot), body)


def _template(text: str, folder: Path) -> bytes:
    """The template in the cell, or in the file that it names beside the list."""
    expected = f"{TEMPLATES.start} to {TEMPLATES.stop - 1} bytes"
    if len(text) > LONGEST_PATH:
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise _Wrong(KIND, "base64, or the path of a file", "another text") from error
    else:
        try:
            with (folder / text).open("rb") as file:
                content = file.read(TEMPLATES.stop)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            # What stands there is not shown: it may be part of a template.
            raise _Wrong(KIND, "base64, or a readable file", str(reason)) from error
    if len(content) not in TEMPLATES:
        raise _Wrong(KIND, expected, "more" if len(content) >= TEMPLATES.stop else f"{len(content)} bytes")
    return content


def _finger(cells: Mapping[str, str]) -> tuple[str, int]:
    unit, _, slot = cells["finger"].rpartition(":")
    if not unit or not _is_number(slot) or len(slot) > len("65535"):
        raise _Wrong("finger", "UNIT:SLOT", repr(cells["finger"]))
    return unit, int(slot)


def _person(cells: Mapping[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {name: cells[name] for name in ("subject", "role", "public_key") if name in cells}
    if "finger" in cells:
        body["finger"] = list(_finger(cells))
    if "until" in cells:
        body["until"] = _second("until", cells["until"])
    if "level" in cells:
        body["level"] = int(_one_of("level", cells["level"], ("0", "1", "2", "3")))
    return body


def _load(cells: Mapping[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {name: cells[name] for name in ("driver", "stop") if name in cells}
    if "flags" in cells:
        body["flags"] = [flag.strip() for flag in cells["flags"].split(";")]
    return body


def _grant(cells: Mapping[str, str]) -> dict[str, Any]:
    words = ("jti", "locker", "compartment", "parcel", "purpose")
    return {
        **{name: cells[name] for name in words if name in cells},
        **{name: _second(name, cells[name]) for name in ("nbf", "exp") if name in cells},
    }


def _badge(cells: Mapping[str, str]) -> bytes:
    return _secret(cells, "what a reader says of it, in printable characters")


def _static(cells: Mapping[str, str]) -> bytes:
    token = _secret(cells, "a token in printable characters")
    if (bits := token_bits(token)) < MIN_TOKEN_BITS:
        raise _Wrong("secret", f"a token of at least {MIN_TOKEN_BITS} bits", f"at most {bits}")
    return token


def _pin(cells: Mapping[str, str]) -> bytes:
    pin = cells["secret"]
    if not _is_number(pin) or len(pin) < MIN_PIN:
        raise _Wrong("secret", f"a PIN of at least {MIN_PIN} digits", f"{len(pin)} characters")
    return pin_token(cells["subject"], pin.encode())


def _card(cells: Mapping[str, str]) -> bytes:
    try:
        return decoded(cells["secret"])
    except BadJws as bad:
        raise _Wrong("secret", "the id of a credential in base64url", "another text") from bad


def _grant_code(cells: Mapping[str, str]) -> bytes:
    try:
        code = decoded(cells["secret"])
    except BadJws:
        code = b""
    if len(code) != GRANT_CODE:
        raise _Wrong("secret", f"a code of {GRANT_CODE} bytes in base64url", "another text")
    return code


def _grant_pin(cells: Mapping[str, str]) -> bytes:
    selector, pin = cells.get("selector", ""), cells["secret"]
    if len(selector) != SELECTOR or not selector.isalnum():
        raise _Wrong("selector", f"{SELECTOR} letters or digits", f"{len(selector)} characters")
    if not _is_number(pin) or len(pin) != GRANT_PIN:
        raise _Wrong("secret", f"a PIN of {GRANT_PIN} digits", f"{len(pin)} characters")
    # As a locker reads what is typed.
    return selector.upper().encode() + b"\0" + pin.encode()


def _label(cells: Mapping[str, str]) -> bytes:
    label = cells["label"]
    scheme, _, number = label.partition(":")
    if not scheme or not number or not label.isascii():
        raise _Wrong("label", "an identity such as sscc:106141412345678908", repr(label))
    return label.encode()


_TOKENS: Mapping[str, Callable[[Mapping[str, str]], bytes]] = {
    "badge": _badge,
    "static": _static,
    "pin": _pin,
    "fido2": _card,
    "grant": _grant_code,
    "grant_pin": _grant_pin,
    "parcel": _label,
}
_BODIES: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "roster": _person,
    "manifest": _load,
    "grants": _grant,
}


def _secret(cells: Mapping[str, str], expected: str) -> bytes:
    secret = cells["secret"].encode()
    if not _PRINTABLE.fullmatch(secret):
        raise _Wrong("secret", expected, "others")
    return secret


def _one_of(column: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise _Wrong(column, f"one of {', '.join(known)}", repr(text))
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _second(column: str, text: str) -> int:
    """Seconds since 1970 UTC, or an RFC 3339 time; a date alone lasts to its end."""
    if _is_number(text) and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _Wrong(column, "a date, an RFC 3339 time or seconds since 1970", repr(text)) from error
    if len(text) == len("2026-12-31"):
        moment = datetime.combine(moment, time(23, 59, 59))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
