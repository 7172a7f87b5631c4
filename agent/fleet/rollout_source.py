"""What is rolled out: a file by name and hash, and how a device is given what is in it.

The rollout's own file never holds what is in that one: a roster is full of secrets.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.envelope import told
from agent.fleet import online, row_files, wishes
from agent.fleet.delivery import Issue, deliver
from agent.fleet.enrolment import devices
from agent.fleet.keyring import Keyring
from agent.fleet.publish import down
from agent.fleet.rollout_file import BadRollout
from agent.fleet.rollout_run import Answer, Give
from agent.fleet.rollout_sight import CONFIG


def name_of(what: str) -> str:
    """As heads name it."""
    return what if what == CONFIG else f"bundle/{what}"


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
    issue = _issue(what, path, source, keyring)

    async def leave(due: Sequence[str]) -> dict[str, int]:
        left = deliver(partial(online.leave, given), keyring, due, issue)
        return {device: document.ver async for device, document, _ in left}

    return leave


def _issue(what: str, path: Path, source: Mapping[str, Any], keyring: Keyring) -> Issue:
    """How the document of a device is made. Raises for a file with mistakes, before anybody gets it."""
    if what != CONFIG:
        kind = what.partition("/")[2]
        rows = row_files.read(kind, path, source["scope"])
        return lambda desk, device: desk.bundle(device, kind, rows, scope=source["scope"])
    text = wishes.text_in(path)
    for device in devices(keyring.folder):
        wishes.config_for(text, device, keyring.tenant, str(path))
    try:
        body = wishes.body(
            text,
            timeout_s=source["confirm_timeout"],
            units=source["require"],
            min_agent=source["min_agent"],
            dry_run=False,
        )
    except ValidationError as error:
        raise BadRollout(f"{path}: {told(error)}") from error
    return lambda desk, device: desk.config(device, body)


def confirming(given: argparse.Namespace, keyring: Keyring, what: str) -> Answer:
    """Lets a device that runs well on the config it tries keep it: once for each of its connections."""
    answered: dict[str, object] = {}

    async def answer(births: Mapping[str, Mapping[str, Any]]) -> None:
        words = {}
        for device, birth in births.items() if what == CONFIG else ():
            if answered.get(device, ...) != birth.get("time_nonce"):
                raw = wishes.word(keyring, device, birth)
                words.update({} if raw is None else {device: raw})
        if not words:
            return
        async with online.connected(given) as connection:
            for device, raw in words.items():
                await connection.publish(f"{down(device)}command", raw)
                answered[device] = births[device].get("time_nonce")

    return answer
