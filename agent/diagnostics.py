"""What somebody far away needs to see why a device is not well: one bounded message, and nobody in it.

Only what is named here goes into it, of the status as of the log: no session, no position, no parcel, no name
of a person, no text of an error that could quote one. It goes up beside the entries; its hash stands in the
command's outcome, and so under the next checkpoint.
"""

import gzip
import platform
import resource
import shutil
import sqlite3
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.entry import compact

TOPIC = "diagnostics"
"""Below `up/`."""
LIMIT = 64 * 1024
"""Bytes before compression; the oldest lines of the log give way."""
TEXT_MOST = 200

STATUS = (
    "version",
    "epoch",
    "units",
    "config",
    "keys",
    "wiped_by",
    "trust",
    "journal",
    "uplink",
    "knowledge",
    "fleet",
    "templates",
    "clock",
    "certificate",
)
"""Of the status."""
FIELDS = frozenset(
    name
    for line in (
        "timestamp level logger event unit kind port part reason error code broker attempt wait_s backlog",
        "entries units name command offset_s size version first bytes missing foreign slot bucket ver rows",
        "pages changed times topic topics path what trace outcome mistakes within_s changes keys request",
    )
    for name in line.split()
)
"""Of a line of the log. What a unit says of itself, and details of a refusal, are not among them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """As it is sent."""

    payload: bytes
    lines: int

    @property
    def told(self) -> dict[str, Any]:
        """What the outcome of the command says of it."""
        return {"sha256": sha256(self.payload).hexdigest(), "bytes": len(self.payload), "lines": self.lines}


def bundle(
    device: str, command: str, status: Mapping[str, Any], machine: Mapping[str, Any], log: Sequence[Any]
) -> Bundle:
    """Of this status, this machine and as many of the latest lines as fit."""
    facts = {
        "device": device,
        "command": command,
        **{name: status[name] for name in STATUS if name in status},
        "machine": dict(machine),
    }
    room = LIMIT - len(compact(facts))
    lines: list[Mapping[str, Any]] = []
    for line in reversed(log):
        shown = {name: _bounded(value) for name, value in line.items() if name in FIELDS}
        room -= len(compact(shown)) + 1
        if room < len(',"log":[]'):
            break
        lines.insert(0, shown)
    return Bundle(gzip.compress(compact({**facts, "log": lines}), mtime=0), len(lines))


def machine(state: Path, config_sha256: str) -> dict[str, Any]:
    """What is true of the machine and this process, not of what it does."""
    disk = shutil.disk_usage(state)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "python": platform.python_version(),
        "system": platform.release(),
        "hardware": platform.machine(),
        "sqlite": sqlite3.sqlite_version,
        "tls": ssl.OPENSSL_VERSION,
        "config_sha256": config_sha256,
        "disk": {"bytes": disk.total, "free": disk.free},
        "process": {"most_kib": used.ru_maxrss, "cpu_s": round(used.ru_utime + used.ru_stime, 2)},
    }


def _bounded(value: Any) -> Any:
    match value:
        case bool() | int() | float() | None:
            return value
        case list() | tuple():
            return [_bounded(each) for each in value[:8]]
        case _:
            return str(value)[:TEXT_MOST]
