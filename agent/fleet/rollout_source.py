"""What is rolled out: a file by name and hash, and how a device is given what is in it.

The rollout's own file never holds what is in that one: a roster is full of secrets.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.documents import Document
from agent.fleet import online, row_files
from agent.fleet.keyring import Keyring
from agent.fleet.publish import reconcile
from agent.fleet.rollout_file import BadRollout
from agent.fleet.rollout_run import Give
from agent.fleet.signing import Desk

Issue = Callable[[Desk, str], Document[Any]]


def name_of(what: str) -> str:
    """As heads name it."""
    return what if what == "config" else f"bundle/{what}"


def digest(path: Path) -> str:
    """Raises BadRollout."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadRollout(f"{path}: {error.strerror}") from error


def give(given: argparse.Namespace, keyring: Keyring, what: str, source: Mapping[str, Any]) -> Give:
    """Raises BadRollout where the file is another than the one that was begun with."""
    path = Path(source["file"])
    if digest(path) != source["sha256"]:
        raise BadRollout(f"{path}: has changed since this rollout began: give it back, or begin another")
    issue = _issue(what, path, source)

    async def leave(devices: Sequence[str]) -> dict[str, int]:
        versions = {}
        async with online.connected(given) as connection:
            for device in devices:
                with keyring.locked():
                    desk = Desk(keyring, int(time.time()))
                    document = issue(desk, device)
                    desk.head(device)
                    outgoing = desk.outgoing(device)
                await reconcile(connection, device, outgoing)
                versions[device] = document.ver
        return versions

    return leave


def _issue(what: str, path: Path, source: Mapping[str, Any]) -> Issue:
    kind = what.partition("/")[2]
    rows = row_files.read(kind, path)
    return lambda desk, device: desk.bundle(device, kind, rows, scope=source["scope"])
