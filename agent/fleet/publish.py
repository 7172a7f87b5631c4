"""What stands at the broker for a device: everything that was issued, once, and nothing else of ours.

Messages are retained, so that a device that was away finds them. What is there already is not sent again, and
pages that no list names any more are cleared. The broker is asked what it has, and believed in nothing.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from agent.commands import Outcome
from agent.fleet.collect import BadBatch, unpack
from agent.mqtt import Connection, ConnectionLost, Message

LIST_S = 60.0
"""Longest that a broker may take to bring what it has retained for one device."""
REFUSED = 0x80
"""Reason codes from here on are refusals."""
PAGES = "page/"
OUTCOMES = {f"postern.command.{outcome}": outcome for outcome in Outcome}
"""Entries that tell how a command ended."""


@dataclass(frozen=True, slots=True)
class Published:
    """What it took."""

    sent: int
    kept: int
    """Was there already."""
    cleared: int


def down(device: str) -> str:
    return f"postern/v1/{device}/down/"


async def reconcile(connection: Connection, device: str, outgoing: Mapping[str, bytes]) -> Published:
    """Have the broker hold just these, by topic below `down/`, sent in their order. Raises ConnectionLost."""
    there = await _retained(connection, device)
    news = {name: raw for name, raw in outgoing.items() if there.get(name) != sha256(raw).digest()}
    gone = [name for name in there if name.startswith(PAGES) and name not in outgoing]
    await send(connection, device, news)
    # Last: until a device has the new list it may still fetch what the old one names.
    await send(connection, device, dict.fromkeys(gone, b""))
    return Published(len(news), len(outgoing) - len(news), len(gone))


async def send(connection: Connection, device: str, messages: Mapping[str, bytes]) -> None:
    """Retained, in order, all acknowledged at its end. Raises ConnectionLost, also when one is refused."""
    flying: deque[tuple[str, asyncio.Future[int]]] = deque()
    for name, raw in messages.items():
        while flying and not connection.room:
            await _landed(*flying.popleft())
        flying.append((name, connection.publish(down(device) + name, raw, retain=True)))
        _hear(connection)
    for each in flying:
        await _landed(*each)
    _hear(connection)


async def birth(connection: Connection, device: str, *, within: float) -> Mapping[str, Any]:
    """What the device last said of itself; nothing if it never did, in this time (seconds).

    Raises ConnectionLost.
    """
    topic = f"postern/v1/{device}/up/state"
    await connection.subscribe(topic)
    try:
        async with asyncio.timeout(within):
            message = await connection.receive()
            connection.acknowledge(message)
            state = json.loads(message.payload)
    except (TimeoutError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


async def command(
    connection: Connection, device: str, raw: bytes, name: str, *, within: float
) -> Mapping[str, Any] | None:
    """Send a command, and the entry that tells its outcome; None if none has come in this time (seconds).

    `name` is the command's `jti`. Raises ConnectionLost.
    """
    outcome, _ = await asked(connection, device, raw, name, within=within)
    return outcome


async def asked(
    connection: Connection, device: str, raw: bytes, name: str, *, within: float, beside: str | None = None
) -> tuple[Mapping[str, Any] | None, bytes | None]:
    """The same, and what comes `beside` the entries, on that topic below `up/`, in answer to it: None for
    what has not come, or is not what the outcome names by its hash.
    """
    up = f"postern/v1/{device}/up/"
    await connection.subscribe(*(up + topic for topic in ("entries", beside) if topic))
    outcome: Mapping[str, Any] | None = None
    brought: bytes | None = None
    try:
        async with asyncio.timeout(within):
            await _landed("command", connection.publish(f"{down(device)}command", raw))
            while True:
                message = await connection.receive()
                connection.acknowledge(message)
                if message.topic == f"{up}{beside}" and message.properties.get("command") == name:
                    brought = message.payload
                elif message.topic == f"{up}entries":
                    found = [each for each in entries_in(message) if _outcome_of(each, name)]
                    outcome = next(iter(found), outcome)
                if outcome is not None and (beside is None or _ends(outcome, brought)):
                    break
    except TimeoutError:
        pass
    return outcome, brought if outcome and brought and _named(outcome, brought) else None


def _ends(outcome: Mapping[str, Any], brought: bytes | None) -> bool:
    """Whether there is nothing more to wait for: an outcome that names nothing brings nothing."""
    return "sha256" not in outcome["data"] or (brought is not None and _named(outcome, brought))


def _named(outcome: Mapping[str, Any], brought: bytes) -> bool:
    return bool(outcome["data"].get("sha256") == sha256(brought).hexdigest())


def entries_in(message: Message) -> list[dict[str, Any]]:
    """What a device sends is not believed to be anything in particular, but for `data`: that is an object."""
    try:
        lines = unpack(message.payload, message.properties.get("content-encoding"))
        trees = [json.loads(line) for line in lines]
    except (BadBatch, ValueError, RecursionError):
        return []
    return [tree for tree in trees if isinstance(tree, dict) and isinstance(tree.get("data"), dict)]


def _outcome_of(entry: Mapping[str, Any], name: str) -> bool:
    return str(entry.get("type")) in OUTCOMES and bool(entry["data"].get("command") == name)


async def _retained(connection: Connection, device: str) -> dict[str, bytes]:
    """Hashes of what the broker holds for the device, by topic below `down/`.

    A message of our own is brought after all that was retained: with it the list is whole.
    """
    fence = secrets.token_bytes(16)
    await connection.subscribe(down(device) + "#")
    fenced = connection.publish(f"{down(device)}fence", fence)
    there: dict[str, bytes] = {}
    try:
        async with asyncio.timeout(LIST_S):
            while True:
                message = await connection.receive()
                connection.acknowledge(message)
                if message.payload == fence:
                    break
                if message.retained and message.payload:
                    there[message.topic.removeprefix(down(device))] = sha256(message.payload).digest()
    except TimeoutError as error:
        raise ConnectionLost(f"no list of what is retained within {LIST_S:g} s") from error
    await _landed("fence", fenced)
    return there


def _hear(connection: Connection) -> None:
    """What we send comes back to us, and must be taken."""
    for message in connection.waiting():
        connection.acknowledge(message)


async def _landed(name: str, acked: "asyncio.Future[int]") -> None:
    if (code := await acked) >= REFUSED:
        raise ConnectionLost(f"{name} refused by the broker", code)
