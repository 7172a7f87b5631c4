"""Signed documents and sealed pages for one device, as a file that others carry to it.

One JSON object a line: whom it is for, then each document under the name of its topic, in the order in which
it is best taken. Nothing in it has to be believed: what it brings is verified as if the broker had brought
it, and pages open on that device alone. So whoever carries it can lose it, and nothing else.

    {"postern_cargo":1,"tenant":"example-post","device":"locker-7"}
    {"name":"head","raw":"ZXlK..."}
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import keyfile

LAYOUT = 1
NAME = re.compile(r"root|head|revocations|bundle/(roster|grants|manifest)|page/[0-9a-f]{64}")
"""What may be carried. Commands and time are for now or never: they are not."""
DEVICE = re.compile(r"[a-z0-9][a-z0-9-]{2,39}")
RAW_LIMIT = 96 * 1024
LINE_LIMIT = 4 * RAW_LIMIT // 3 + 512
CARGO_LIMIT = 48 * 1024 * 1024
"""Bytes of a whole file: the most that a device holds in pages, in base64."""


class BadCargo(Exception):
    """What is no cargo, or not for whom it says: expected and found."""


@dataclass(frozen=True, slots=True)
class Label:
    """Whom a cargo is for."""

    tenant: str
    device: str


def write(path: Path, label: Label, pieces: Iterable[tuple[str, bytes]]) -> int:
    """Put a cargo into a file, whole or not at all; how many pieces. What may not be carried is left out."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + keyfile.FRESH)
    count = 0
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_line({"postern_cargo": LAYOUT, "tenant": label.tenant, "device": label.device}))
        for name, raw in pieces:
            if NAME.fullmatch(name):
                file.write(_line({"name": name, "raw": base64.b64encode(raw).decode()}))
                count += 1
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    keyfile.sync_folder(path.parent)
    return count


def label_of(path: Path) -> Label:
    """Whom a file is for. Raises BadCargo, and OSError for one that cannot be read."""
    with path.open("rb") as file:
        return _label(file.readline(LINE_LIMIT))


def bounded(path: Path) -> None:
    """Raises BadCargo for a file that is larger than any cargo."""
    if (size := path.stat().st_size) > CARGO_LIMIT:
        raise BadCargo(f"expected at most {CARGO_LIMIT} bytes, got {size}")


def pieces(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each piece, one in memory at a time. Raises BadCargo at what is none."""
    bounded(path)
    with path.open("rb") as file:
        _label(file.readline(LINE_LIMIT))
        for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), 2):
            yield _piece(line, number)


def _label(line: bytes) -> Label:
    tree = _tree(line, 1)
    tenant, device = tree.get("tenant"), tree.get("device")
    if tree.get("postern_cargo") != LAYOUT:
        raise BadCargo(f"line 1: expected a cargo of layout {LAYOUT}, got another")
    for name in (tenant, device):
        if not isinstance(name, str) or not DEVICE.fullmatch(name):
            raise BadCargo("line 1: expected the names of a tenant and a device, got others")
    return Label(str(tenant), str(device))


def _piece(line: bytes, number: int) -> tuple[str, bytes]:
    tree = _tree(line, number)
    name, text = tree.get("name"), tree.get("raw")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(text, str):
        raise BadCargo(f"line {number}: expected a document that may be carried, got something else")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadCargo(f"line {number}: expected base64, got something else") from error
    if len(raw) > RAW_LIMIT:
        raise BadCargo(f"line {number}: expected at most {RAW_LIMIT} bytes, got {len(raw)}")
    return name, raw


def _tree(line: bytes, number: int) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise BadCargo(
            f"line {number}: expected a whole line of at most {LINE_LIMIT} bytes, got a part of one"
        )
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadCargo(f"line {number}: expected JSON, got something else") from error
    if not isinstance(tree, dict):
        raise BadCargo(f"line {number}: expected an object, got {type(tree).__name__}")
    return tree


def _line(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"
