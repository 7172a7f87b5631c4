"""What the commands that speak to devices have in common: keys, a broker, and how they end."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import broker

if TYPE_CHECKING:
    from agent.mqtt import Connection, Server

NAME = "postern-push"
EXIT_FAILED, EXIT_USAGE = 1, 2


def add_options(
    parser: argparse.ArgumentParser, act: Callable[[argparse.Namespace], Awaitable[int | None]]
) -> None:
    """`act` does the work; what it gives is the exit code."""
    parser.add_argument("--keys", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    broker.add_options(parser)
    parser.set_defaults(run=_run, act=act)


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
    from agent.rows import BadPage

    try:
        return asyncio.run(given.act(given)) or 0
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
    from agent.mqtt import Connection

    connection = Connection(server(given))
    try:
        await connection.connect()
        yield connection
    finally:
        await connection.close()


def tell(given: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """One line, for people or as JSON."""
    print(json.dumps(facts) if given.json else _line(facts.items()), flush=True)


def _line(facts: Iterable[tuple[str, Any]]) -> str:
    line = "  ".join(f"{name} {value}" for name, value in facts)
    # What a device sends does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in line)
