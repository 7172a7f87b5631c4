"""What a device is told at its birth, by whoever has the keys at hand: the time, roots it has missed, and
that the config on trial may stay. And the certificate that it asks for, and what it is asked for when entries
stay missing.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from agent.documents import Role
from agent.fleet import renewals
from agent.fleet.gaps import Gap
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.signing import Desk, Order, commanded
from agent.fleet.wishes import word

Answer = tuple[str, bytes]
"""A name below `down/`, and what to say there."""

_NONCE = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")

log = structlog.get_logger("answers")


class Answers:
    """Reads the folder anew each time: keys may be changed meanwhile."""

    def __init__(self, folder: Path) -> None:
        """Raises KeyringError for a folder that has no key to tell the time with."""
        self._folder = folder
        self._confirmed: dict[str, object] = {}
        """Nonces of the connections over which the last word was given, by device."""
        self._renewed: dict[str, tuple[bytes, object]] = {}
        """The request for keys that was answered last, and over which connection, by device."""
        Keyring(folder).signers(Role.TIME)

    def __call__(self, device: str, birth: Mapping[str, Any]) -> list[Answer]:
        """What a device says of itself is not believed: it gets what anybody may have."""
        try:
            keyring = Keyring(self._folder)
            return [
                *_roots(keyring, birth),
                *_time(keyring, device, birth),
                *self._config(keyring, device, birth),
            ]
        except KeyringError as error:
            log.warning("no answer", device=device, reason=str(error))
            return []

    def missing(self, gap: Gap, birth: Mapping[str, Any]) -> bytes | None:
        """The command that has a device send again what is missing; None where it cannot be given."""
        order = Order(
            rank="A",
            name="resend",
            args=gap.wanted,
            operator="fleet",
            reason="missing here",
            nonce=birth.get("time_nonce"),
        )
        try:
            return commanded(Keyring(self._folder), gap.device, order)
        except KeyringError as error:
            log.warning("not asked again", device=gap.device, reason=str(error))
            return None

    def renewal(self, device: str, birth: Mapping[str, Any], raw: bytes) -> list[Answer]:
        """To a device that asks for new keys: what it may have without anybody deciding, once for a
        connection: whoever repeats its request must not use up what it may be commanded."""
        nonce = birth.get("time_nonce")
        if self._renewed.get(device) == (raw, nonce):
            return []
        self._renewed[device] = (raw, nonce)
        try:
            return [("command", renewals.answer(Keyring(self._folder), device, raw, nonce))]
        except (KeyringError, renewals.RenewalError, OSError) as error:
            log.warning("no keys", device=device, reason=str(error))
            return []

    def _config(self, keyring: Keyring, device: str, birth: Mapping[str, Any]) -> list[Answer]:
        """Once for a connection."""
        nonce = birth.get("time_nonce")
        raw = None if self._confirmed.get(device) == nonce else word(keyring, device, birth)
        if raw is None:
            return []
        self._confirmed[device] = nonce
        return [("command", raw)]


def _roots(keyring: Keyring, birth: Mapping[str, Any]) -> list[Answer]:
    """Those after the one it has, in order: each vouches for the next, and the broker keeps only the last."""
    trust = birth.get("trust")
    known = trust.get("root") if isinstance(trust, dict) else None
    if not isinstance(known, int) or not 1 <= known < keyring.document.ver:
        return []
    return [("root", raw) for raw in keyring.roots()[known:]]


def _time(keyring: Keyring, device: str, birth: Mapping[str, Any]) -> list[Answer]:
    nonce = birth.get("time_nonce")
    if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        return []
    now_ns = time.time_ns()
    return [("time", Desk(keyring, now_ns // 10**9).time(device, nonce, now_ns // 10**6))]
