"""Configs from the fleet's side: checked before they are signed, confirmed once a device runs well on one.

A device on trial says in its birth message which config it tries and whether everything is well with it. The
word that lets it stay names that very document, and carries the nonce of that connection.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.config import FILE_LIMIT, Config, check, tree_of
from agent.desired import SCHEMA, Desired
from agent.documents import Document
from agent.fleet.issued import Issued
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.publish import down
from agent.fleet.signing import Order, commanded
from agent.mistakes import BadConfig, Mistake, reason
from agent.mqtt import Connection
from agent.trial import State

CONFIRM = "confirm_config"
ENDS = (State.CONFIRMED, State.REFUSED, State.REVERTED)


def text_in(path: Path) -> str:
    """Raises BadConfig."""
    try:
        raw = path.read_bytes()
        if len(raw) > FILE_LIMIT:
            raise BadConfig(str(path), [Mistake("file", f"at most {FILE_LIMIT} bytes", "more")])
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), [Mistake("file", "a readable file", reason(error))]) from error


def config_for(text: str, device: str, tenant: str, origin: str) -> Config:
    """The config as this device would read it, which may leave out who it is. Raises BadConfig."""
    tree = tree_of(text, origin)
    config = check({"device": {"id": device, "tenant": tenant}, **tree}, origin)
    told = config.file.device
    if (told.id, told.tenant) != (device, tenant):
        found = f"{told.tenant}/{told.id}"
        raise BadConfig(origin, [Mistake("device", f"{tenant}/{device}, or no such table", found)])
    return config


def body(
    text: str, *, timeout_s: int, units: Iterable[str] | None, min_agent: str, dry_run: bool
) -> dict[str, Any]:
    """Of a `config` document."""
    gates = {} if units is None else {"gates": {"units": list(units)}}
    made = {
        "schema": SCHEMA,
        "toml": text.split("\n"),
        "min_agent": min_agent,
        "confirm_timeout": timeout_s,
        "dry_run": dry_run,
        **gates,
    }
    Desired.model_validate(made)
    return made


def last_wish(issued: Issued, device: str, tenant: str) -> Config:
    """What the device was last to use. Raises KeyringError where it never was sent a config."""
    text = issued.wish(device)
    if text is None:
        raise KeyringError(f"{device}: expected a config that was pushed before, got none")
    return config_for(text, device, tenant, f"last config of {device}")


def word(keyring: Keyring, device: str, birth: Mapping[str, Any]) -> bytes | None:
    """The command that lets a device keep what it tries, if that is what it was sent and it is well."""
    told, nonce = birth.get("config"), birth.get("time_nonce")
    if not isinstance(told, dict) or told.get("state") != State.TRIAL or told.get("ready") is not True:
        return None
    document = Issued(keyring.folder).document(device, "config")
    if document is None or (told.get("version"), told.get("sha256")) != (document.ver, document.sha256):
        return None
    order = Order(
        rank="B",
        name=CONFIRM,
        args={"version": document.ver, "sha256": document.sha256},
        operator="fleet",
        reason="on trial, and well",
        nonce=nonce,
    )
    return commanded(keyring, device, order)


class Watch:
    """Devices that were sent a config, until each has said what became of it."""

    def __init__(self, folder: Path, sent: Mapping[str, Document[Any]]) -> None:
        self.ends: dict[str, Mapping[str, Any]] = {}
        """What `up/config` said last, by device."""
        self._folder = folder
        self._sent = sent
        self._answered: set[tuple[str, object]] = set()

    async def run(self, connection: Connection, within: float) -> None:
        """Until all have ended, or this time is over (seconds). Raises ConnectionLost."""
        for device in self._sent:
            await connection.subscribe(f"postern/v1/{device}/up/state", f"postern/v1/{device}/up/config")
        try:
            async with asyncio.timeout(within):
                while len(self.ends) < len(self._sent):
                    message = await connection.receive()
                    connection.acknowledge(message)
                    await self._hear(connection, message.topic, message.payload)
        except TimeoutError:
            return

    async def _hear(self, connection: Connection, topic: str, payload: bytes) -> None:
        _, _, device, _, what = topic.split("/")
        try:
            told = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if device not in self._sent or not isinstance(told, dict):
            return
        if what == "config":
            self._ended(device, told)
            return
        nonce = told.get("time_nonce")
        if (device, nonce) in self._answered:
            return
        if (raw := word(Keyring(self._folder), device, told)) is not None:
            self._answered.add((device, nonce))
            await connection.publish(f"{down(device)}command", raw)

    def _ended(self, device: str, told: Mapping[str, Any]) -> None:
        document = self._sent[device]
        mine = (document.ver, document.sha256)
        checked = told.get("checked")
        if isinstance(checked, dict) and (checked.get("version"), checked.get("sha256")) == mine:
            self.ends[device] = {"state": "checked", **checked}
        elif (told.get("version"), told.get("sha256")) == mine and told.get("state") in ENDS:
            self.ends[device] = told
