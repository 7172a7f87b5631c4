"""`postern fleet push`, `revoke`, `head` and `command`: what is said to devices, signed and sent.

Exit codes: 0 done, 1 the broker did not take it or no outcome came in time, 2 a mistake in what was typed, in
a file or with a key, 4 the device did not do what it was told.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.fleet.keyring import Keyring
    from agent.mqtt import Connection

NAME = "postern-push"
BIRTH_S = 10.0
"""Longest that the broker may take to bring what a device last said of itself."""
EXIT_FAILED, EXIT_USAGE, EXIT_NOT_DONE = 1, 2, 4


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    push = actions.add_parser("push", help="say what a bundle is to hold from now on")
    push.add_argument("bundle", choices=("roster", "grants", "manifest"))
    push.add_argument("file", type=Path, help="CSV with a header, or JSON: all rows, not only the new ones")
    push.add_argument("--scope", default="all", help="whom the rows are for, for people to read")
    head = actions.add_parser("head", help="tell devices what is current, for a day")
    head.add_argument("--every", type=_seconds, help="again and again, in seconds, until interrupted")
    revoke = actions.add_parser("revoke", help="take drivers, credentials or grants away for ever")
    revoke.add_argument("--subject", action="append", default=[], help="a driver's reference; repeatable")
    revoke.add_argument("--grant", action="append", default=[], help="a grant's id; repeatable")
    revoke.add_argument("--credentials", type=Path, help="a roster file: the credentials in it")
    command = actions.add_parser(
        "command", help="have one device do something once, and wait for the outcome"
    )
    command.add_argument("name")
    command.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="JSON or text")
    command.add_argument("--operator", required=True, help="who orders it")
    command.add_argument("--reason", required=True)
    command.add_argument("--good-for", type=_seconds, help="seconds; the most that the class allows")
    command.add_argument("--wait", type=_seconds, default=30.0, help="seconds for the outcome (30)")
    for action, run in ((push, _push), (head, _head), (revoke, _revoke), (command, _command)):
        action.add_argument("--keys", type=Path, required=True, metavar="DIR")
        action.add_argument("--json", action="store_true")
        broker.add_options(action)
        action.set_defaults(run=_guarded, act=run)
    for action in (push, head):
        to = action.add_mutually_exclusive_group(required=True)
        to.add_argument("--device")
        to.add_argument("--all", action="store_true")
    command.add_argument("--device", required=True)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds up to a day, got {text!r}")
    return seconds


def _guarded(given: argparse.Namespace) -> int:
    from agent.envelope import Refused
    from agent.fleet.keyring import KeyringError
    from agent.fleet.sealing import TooManyRows
    from agent.mqtt import ConnectionLost
    from agent.rows import BadPage

    try:
        result: int = asyncio.run(given.act(given)) or 0
    except (KeyringError, TooManyRows, BadPage, Refused, OSError, ValueError, IndexError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ConnectionLost as lost:
        print(f"postern fleet: {lost}", file=sys.stderr)
        return EXIT_FAILED
    return result


# -- push -----------------------------------------------------------------------------------------


async def _push(given: argparse.Namespace) -> None:
    from agent.fleet import row_files
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    devices = chosen(keyring, given.device)
    rows = row_files.read(given.bundle, given.file)
    for device in devices:
        with keyring.locked():
            desk = Desk(keyring, int(time.time()))
            document = desk.bundle(device, given.bundle, rows, scope=given.scope)
            desk.head(device)
            outgoing = desk.outgoing(device)
        body = document.body
        new = sum(each.ver == document.ver for each in body.pages)
        facts = {
            "bundle": body.kind,
            "ver": document.ver,
            "rows": body.rows,
            "pages": len(body.pages),
            "new": new,
        }
        await _reconcile(given, device, outgoing, facts)


async def _reconcile(
    given: argparse.Namespace, device: str, outgoing: Mapping[str, bytes], facts: Mapping[str, Any]
) -> None:
    from dataclasses import asdict

    from agent.fleet.publish import reconcile

    async with _connected(given) as connection:
        published = await reconcile(connection, device, outgoing)
    _tell(given, {"device": device, **facts, **asdict(published)})


# -- head -----------------------------------------------------------------------------------------


async def _head(given: argparse.Namespace) -> None:
    from agent.mqtt import ConnectionLost

    sent: dict[str, Mapping[str, bytes]] = {}
    while given.every is not None:
        try:
            await _heads(given, sent)
        except ConnectionLost as lost:
            # A head is good for a day: the broker has until then.
            print(f"postern fleet: {lost}", file=sys.stderr, flush=True)
        await asyncio.sleep(given.every)
    await _heads(given, sent)


async def _heads(given: argparse.Namespace, sent: dict[str, Mapping[str, bytes]]) -> None:
    """A head for each device, and whatever else has changed since `sent`."""
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    for device in chosen(keyring, given.device):
        with keyring.locked():
            desk = Desk(keyring, int(time.time()))
            document = desk.head(device)
            outgoing = desk.outgoing(device)
        facts = {"head": document.ver, "until": document.claims.exp}
        if device in sent:
            await _send_news(given, device, sent[device], outgoing, facts)
        else:
            await _reconcile(given, device, outgoing, facts)
        sent[device] = _without_pages(outgoing)


async def _send_news(
    given: argparse.Namespace,
    device: str,
    before: Mapping[str, bytes],
    outgoing: Mapping[str, bytes],
    facts: Mapping[str, Any],
) -> None:
    """What has changed since we were last here; pages come with the push that made them."""
    from agent.fleet.publish import send

    news = {name: raw for name, raw in _without_pages(outgoing).items() if before.get(name) != raw}
    async with _connected(given) as connection:
        await send(connection, device, news)
    _tell(given, {"device": device, **facts, "sent": len(news)})


def _without_pages(outgoing: Mapping[str, bytes]) -> dict[str, bytes]:
    from agent.fleet.publish import PAGES

    return {name: raw for name, raw in outgoing.items() if not name.startswith(PAGES)}


# -- revoke ---------------------------------------------------------------------------------------


async def _revoke(given: argparse.Namespace) -> None:
    """The revocations to everybody first: they take effect by themselves. Then the heads that name them."""
    from agent.fleet.keyring import Keyring, KeyringError
    from agent.fleet.publish import send
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    credentials = _credentials(given.credentials, keyring) if given.credentials else ()
    if not (given.subject or given.grant or credentials):
        raise KeyringError("expected --subject, --grant or --credentials, got none")
    devices = chosen(keyring, None)
    with keyring.locked():
        desk = Desk(keyring, int(time.time()))
        document = desk.revoke(subjects=given.subject, grants=given.grant, credentials=credentials)
    async with _connected(given) as connection:
        for device in devices:
            await send(connection, device, {"revocations": document.raw})
        for device in devices:
            with keyring.locked():
                desk.head(device)
                outgoing = desk.outgoing(device)
            await send(connection, device, _without_pages(outgoing))
    _tell(given, {"revocations": document.ver, "devices": len(devices)})


def _credentials(path: Path, keyring: "Keyring") -> list[str]:
    """How the fleet's rows know the credentials of a file."""
    from agent.fleet import row_files
    from agent.rows import value_of

    epoch = keyring.epoch().key
    return [value_of(epoch, row.kind, row.token)[:16].hex() for row in row_files.read("roster", path)]


# -- command --------------------------------------------------------------------------------------


async def _command(given: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from agent.commands import COMMANDS, RANKS, Outcome
    from agent.envelope import Envelope, Kind, told
    from agent.fleet.keyring import Keyring
    from agent.fleet.publish import OUTCOMES, birth, command
    from agent.fleet.signing import Desk, Order
    from agent.mqtt import ConnectionLost

    keyring = Keyring(given.keys)
    if given.name not in COMMANDS:
        raise ValueError(f"expected one of {', '.join(COMMANDS)}, got {given.name!r}")
    rank, shape = COMMANDS[given.name]
    longest = RANKS[rank].longest_s
    args = dict(_argument(text) for text in given.arg)
    try:
        shape.model_validate(args)
    except ValidationError as error:
        raise ValueError(f"--arg: {told(error)}") from error
    async with _connected(given) as connection:
        state = await birth(connection, given.device, within=BIRTH_S)
        if not state.get("online"):
            raise ConnectionLost(f"{given.device} is not online: a command is for now, or for nobody")
        order = Order(
            rank=rank,
            name=given.name,
            args=args,
            operator=given.operator,
            reason=given.reason,
            # For this connection of the device alone, whatever it believes the time to be.
            nonce=state.get("time_nonce"),
        )
        with keyring.locked():
            raw = Desk(keyring, int(time.time())).command(
                given.device,
                order,
                lasts=int(min(given.good_for or longest, longest)),
                signatures=RANKS[rank].signatures,
            )
        jti = Envelope.parse(Kind.COMMAND, raw).claims(Kind.COMMAND).jti
        outcome = await command(connection, given.device, raw, jti, within=given.wait)
    if outcome is None:
        print(f"postern fleet: no outcome of {jti} in {given.wait:g} s; it may still come", file=sys.stderr)
        return EXIT_FAILED
    _tell(given, {"device": given.device, "command": jti, "type": outcome["type"], "data": outcome["data"]})
    return 0 if OUTCOMES[outcome["type"]] is Outcome.SUCCEEDED else EXIT_NOT_DONE


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"--arg: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


# -- the broker -----------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(given: argparse.Namespace) -> "AsyncIterator[Connection]":
    from agent.mqtt import Connection

    connection = Connection(broker.server(given, NAME))
    try:
        await connection.connect()
        yield connection
    finally:
        await connection.close()


def _tell(given: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    print(json.dumps(facts) if given.json else _line(facts.items()), flush=True)


def _line(facts: Iterable[tuple[str, Any]]) -> str:
    line = "  ".join(f"{name} {value}" for name, value in facts)
    # What a device sends does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in line)
