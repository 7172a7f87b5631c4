"""What stands at the broker for a device: everything that was issued, once, and nothing else of ours.

Messages are retained, so that a device that was away finds them. What is there already is not sent again, and
pages that no list names any more are cleared. The broker is asked what it has, and believed in nothing.
"""

import asyncio
import json
import re
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
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
_BELOW = re.compile(r"postern/v1/([^/]+)/down/(.+)")
OUTCOMES = {f"postern.command.{outcome}": outcome for outcome in Outcome}
"""Entries that tell how a command ended."""
Outgoing = Mapping[str, Mapping[str, bytes]]
"""What is to stand at the broker: by device, and by topic below its `down/`."""


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
    return (await reconcile_all(connection, {device: outgoing}))[device]


async def reconcile_all(connection: Connection, outgoing: Outgoing) -> dict[str, Published]:
    """The same for several devices, in as many round trips as for one. Raises ConnectionLost."""
    if not outgoing:
        return {}
    there = await _retained(connection, list(outgoing))
    news, gone, done = [], [], {}
    for device, wanted in outgoing.items():
        held = there[device]
        fresh = [
            (device, name, raw) for name, raw in wanted.items() if held.get(name) != sha256(raw).digest()
        ]
        stale = [(device, name, b"") for name in held if name.startswith(PAGES) and name not in wanted]
        news += fresh
        gone += stale
        done[device] = Published(len(fresh), len(wanted) - len(fresh), len(stale))
    await send_all(connection, news)
    # Last: until a device has the new list it may still fetch what the old one names.
    await send_all(connection, gone)
    return done


async def send(connection: Connection, device: str, messages: Mapping[str, bytes]) -> None:
    """Retained, in order, all acknowledged at its end. Raises ConnectionLost, also when one is refused."""
    await send_all(connection, [(device, name, raw) for name, raw in messages.items()])


async def send_all(connection: Connection, messages: Iterable[tuple[str, str, bytes]]) -> None:
    """As `send`, for many devices: device, name below `down/` and message of each."""
    flying: deque[tuple[str, asyncio.Future[int]]] = deque()
    for device, name, raw in messages:
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


async def _retained(connection: Connection, devices: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """Hashes of what the broker holds for these devices, by topic below `down/`.

    A message of our own is brought after all that was retained: with it the lists are whole. Then we want to
    hear no more of it: all that we send would come back to us.
    """
    fence, filters = secrets.token_bytes(16), [f"{down(device)}#" for device in devices]
    await connection.subscribe(*filters)
    fenced = connection.publish(f"{down(devices[-1])}fence", fence)
    there: dict[str, dict[str, bytes]] = {device: {} for device in devices}
    try:
        async with asyncio.timeout(LIST_S):
            while True:
                message = await connection.receive()
                connection.acknowledge(message)
                if message.payload == fence:
                    break
                found = _BELOW.fullmatch(message.topic)
                if message.retained and message.payload and found is not None and found[1] in there:
                    there[found[1]][found[2]] = sha256(message.payload).digest()
    except TimeoutError as error:
        raise ConnectionLost(f"no list of what is retained within {LIST_S:g} s") from error
    await _landed("fence", fenced)
    connection.unsubscribe(*filters)
    return there


def _hear(connection: Connection) -> None:
    """What still comes back to us of what we send must be taken."""
    for message in connection.waiting():
        connection.acknowledge(message)


async def _landed(name: str, acked: "asyncio.Future[int]") -> None:
    if (code := await acked) >= REFUSED:
        raise ConnectionLost(f"{name} refused by the broker", code)
