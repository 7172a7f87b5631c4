"""What the commands that speak to devices have in common: keys, a broker, and how they end."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.fleet import broker

if TYPE_CHECKING:
    from agent.fleet.publish import Outgoing, Published
    from agent.mqtt import Connection, Server

T = TypeVar("T")

NAME = "postern-push"
EXIT_FAILED, EXIT_USAGE = 1, 2


def add_options(
    parser: argparse.ArgumentParser, act: Callable[[argparse.Namespace], Awaitable[int | None]]
) -> None:
    """`act` does the work; what it gives is the exit code."""
    parser.add_argument("--keys", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    broker.add_options(parser)
    parser.set_defaults(run=_run, act=act, away=False)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds up to a day, got {text!r}")
    return found


def _run(given: argparse.Namespace) -> int:
    from agent.envelope import Refused
    from agent.fleet.keyring import KeyringError
    from agent.fleet.rollout_file import BadRollout
    from agent.fleet.sealing import TooManyRows
    from agent.mqtt import ConnectionLost
    from agent.row_seal import BadPage

    try:
        code = asyncio.run(given.act(given)) or 0
        return code or (EXIT_FAILED if given.away else 0)
    except (KeyringError, TooManyRows, BadPage, BadRollout, Refused, OSError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ConnectionLost as lost:
        print(f"postern fleet: {lost}", file=sys.stderr)
        return EXIT_FAILED


def server(given: argparse.Namespace) -> "Server":
    """The broker that was named. Raises Mistake for files that cannot be used."""
    from agent.cli import Mistake

    try:
        return broker.server(given, NAME)
    except (OSError, ValueError, IndexError) as error:
        raise Mistake(f"postern fleet: {error}") from error


@asynccontextmanager
async def connected(given: argparse.Namespace) -> "AsyncIterator[Connection]":
    """A connection to the first node of the broker that is there. Raises ConnectionLost where none is."""
    from agent.mqtt import ConnectionLost

    *nodes, last = server(given).nodes()
    for node in nodes:
        try:
            connection = await _open(node)
        except ConnectionLost as lost:
            print(f"postern fleet: {lost}", file=sys.stderr)
            continue
        break
    else:
        connection = await _open(last)
    try:
        yield connection
    finally:
        await connection.close()


async def everywhere(given: argparse.Namespace, work: "Callable[[Connection], Awaitable[T]]") -> T:
    """Do this at each node of the broker: nodes may share what passes and not what they retain.

    What came of it at the first that is there; the exit code tells of those that are not. Raises
    ConnectionLost where none is.
    """
    done = await at_each(given, work)
    given.away = given.away or len(done) < len(given.host)
    return done[0]


async def leave(given: argparse.Namespace, outgoing: "Outgoing") -> "dict[str, Published]":
    """Have each node of the broker hold just these. Raises ConnectionLost where none is there."""
    from agent.fleet.publish import reconcile_all

    return await everywhere(given, partial(reconcile_all, outgoing=outgoing)) if outgoing else {}


async def at_each(given: argparse.Namespace, work: "Callable[[Connection], Awaitable[T]]") -> list[T]:
    """What came of it at each node that is there, one after the other: they may share client ids as well.

    Of those that are away a word is said. Raises ConnectionLost where all are.
    """
    from agent.mqtt import ConnectionLost

    done: list[T] = []
    lost: ConnectionLost | None = None
    for node in server(given).nodes():
        try:
            connection = await _open(node)
            try:
                done.append(await work(connection))
            finally:
                await connection.close()
        except ConnectionLost as error:
            lost = error
            print(f"postern fleet: {error}", file=sys.stderr)
    if lost is not None and not done:
        raise lost
    return done


async def _open(node: "Server") -> "Connection":
    """Raises ConnectionLost."""
    from agent.mqtt import Connection

    connection = Connection(node)
    try:
        await connection.connect()
    except BaseException:
        await connection.close()
        raise
    return connection


def tell(given: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """One line, for people or as JSON."""
    print(json.dumps(facts) if given.json else _line(facts.items()), flush=True)


def _line(facts: Iterable[tuple[str, Any]]) -> str:
    line = "  ".join(f"{name} {_said(value)}" for name, value in facts)
    # What a device sends does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in line)


def _said(value: Any) -> str:
    """What has parts as JSON, so that it can be copied from the line."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)
