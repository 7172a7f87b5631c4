"""The `postern` command.

Exit codes: 0 done, 1 failed, 2 a mistake in what was typed or configured, 74 the journal failed, 75 another
agent holds the journal, 130 interrupted. Every mistake of an operator is one line on standard error; a
traceback is a defect of ours.
"""

import argparse
import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import VERSION, logs

if TYPE_CHECKING:
    from agent.app import App
    from agent.config import Config
    from agent.devices import Found

EXIT_FAILED, EXIT_USAGE, EXIT_JOURNAL, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 74, 75, 130
CONFIG = Path("/etc/postern/postern.toml")


class Mistake(Exception):
    """Something typed that cannot be done, in words for the operator."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path may hold bytes that are no text; saying so must not fail.
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and given.run is not _demo:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = rest
    logs.configure(given.log_level, given.log_format)
    from agent.mistakes import BadConfig

    try:
        result: int = given.run(given)
        sys.stdout.flush()
    except (BadConfig, Mistake) as mistake:
        print(mistake, file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # Nobody reads any more. What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="postern", description="The edge agent at the gate where a parcel changes hands."
    )
    parser.add_argument("--version", action="version", version=f"postern {VERSION}")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    parser.add_argument("--log-format", choices=logs.FORMATS, default="auto")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the agent until it is told to stop")
    config_option(run)
    run.add_argument(
        "--kiosk",
        action="store_true",
        help="serve the locker's screen, even without a [kiosk] in the file",
    )
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="check a config file and name every mistake")
    check.add_argument("config", type=Path, nargs="?", default=CONFIG)
    check.add_argument("--against", type=Path, metavar="FILE", help="say what it would change in this one")
    check.set_defaults(run=_check)

    devices = commands.add_parser("devices", help="list serial ports and what answers on them")
    devices.add_argument("--config", type=Path, help="include the units of this file")
    devices.add_argument("--json", action="store_true", help="one JSON object a line")
    devices.set_defaults(run=_devices)

    status = commands.add_parser("status", help="ask a running agent how it is")
    config_option(status)
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)

    demo = commands.add_parser("demo", help="a courier's morning on virtual devices", add_help=False)
    demo.set_defaults(run=_demo)

    from agent.audit.command import add_commands as add_journal
    from agent.cards_command import add_commands as add_cards
    from agent.config_command import add_commands as add_config
    from agent.doors_command import add_commands as add_doors
    from agent.enrol_command import add_commands as add_enrol
    from agent.ferry_command import add_commands as add_ferry
    from agent.fingers_command import add_commands as add_fingers
    from agent.fleet.command import add_commands as add_fleet
    from agent.identity_command import add_commands as add_identity
    from agent.roster_command import add_commands as add_roster
    from agent.schema_command import add_commands as add_schema

    add_config(commands)
    add_enrol(commands)
    add_ferry(commands)
    add_identity(commands)
    add_journal(commands)
    add_fleet(commands)
    add_roster(commands)
    add_cards(commands)
    add_fingers(commands)
    add_doors(commands)
    add_schema(commands)
    return parser


def config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"config file ({CONFIG})")


def ask_agent(
    config: "Config",
    running: Callable[[Path], Awaitable[Mapping[str, Any]]],
    stopped: "Callable[[App], Awaitable[Mapping[str, Any]]]",
) -> Mapping[str, Any]:
    """Ask the agent that runs at this socket; where none does, do it here. Raises JournalFailed."""
    from agent import control
    from agent.app import App
    from agent.keyfile import BadKeyFile
    from agent.writer import JournalBusy

    async def told() -> Mapping[str, Any]:
        try:
            return await running(config.state / control.SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            return await App(config).visit(stopped)

    try:
        return asyncio.run(told())
    except (ValueError, BadKeyFile) as wrong:
        raise Mistake(str(wrong)) from wrong
    except JournalBusy as busy:
        print(f"an agent holds the journal and does not answer: {busy}", file=sys.stderr)
        raise SystemExit(EXIT_HELD) from busy
    except (OSError, TimeoutError) as error:
        raise SystemExit(f"{config.state}: {error}") from error


# Each command imports what it needs: `postern check` need not wait for a broker library.


def _run(given: argparse.Namespace) -> int:
    from agent.run_command import run

    return run(given.config, kiosk=given.kiosk)


def _check(given: argparse.Namespace) -> int:
    from agent.config import load
    from agent.explain import asks_for_bodies, explain

    config = load(given.config)
    config.server()
    for unit in config.units:
        there = unit.address.tcp is not None or unit.address.find() is not None
        note = "" if there else "  (not there now)"
        print(f"unit {unit.name}: {unit.kind} as {unit.role} on {unit.address.text}{note}")
    for action in asks_for_bodies(config):
        print(f"policy.{action}: nobody gets by without a finger or a card; badge and pin is another way")
    if given.against:
        print(explain(load(given.against), config).text)
    print(f"{given.config}: good; {len(config.units)} units")
    return 0


def _devices(given: argparse.Namespace) -> int:
    from agent.config import load
    from agent.devices import survey

    async def show() -> int:
        count = 0
        async for found in survey(load(given.config).units if given.config else ()):
            count += 1
            print(json.dumps(_as_json(found)) if given.json else _as_line(found), flush=True)
        return count

    if not asyncio.run(show()) and not given.json:
        print("no serial port found", file=sys.stderr)
    return 0


def _as_json(found: "Found") -> dict[str, Any]:
    return {
        "port": found.port,
        "unit": found.unit,
        "kind": found.kind,
        "hardware": found.hardware,
        "about": None if found.about is None else dict(found.about),
        "problem": found.problem,
    }


def _as_line(found: "Found") -> str:
    about = " ".join(f"{key}={value}" for key, value in (found.about or {}).items())
    name = found.unit or found.hardware
    line = f"{found.port:24} {name:12} {found.kind:8} {found.problem or about or 'open'}"
    # What a device says of itself does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in line)


def _status(given: argparse.Namespace) -> int:
    from agent import control
    from agent.config import load

    path = load(given.config).state / control.SOCKET
    try:
        answer = asyncio.run(control.ask(path, "status"))
    except (OSError, TimeoutError, ValueError) as error:
        print(f"no agent answers at {path}: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(answer, indent=None if given.json else 2))
    return 0


def _demo(given: argparse.Namespace) -> int:
    # The agent never imports the simulators: the demo is a program of its own that starts an agent.
    os.execv(sys.executable, [sys.executable, "-m", "simulators.demo", *given.rest])
