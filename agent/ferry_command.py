"""`postern ferry`: take what somebody has carried here, or hand out what is carried for another device."""

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    ferry = commands.add_parser("ferry", help="carry signed documents to a device that has no network")
    actions = ferry.add_subparsers(required=True, metavar="ACTION")
    take = actions.add_parser("import", help="take a cargo: for this device, or to be carried on")
    take.add_argument("file", type=Path)
    give = actions.add_parser("export", help="write what is on board for a device into a file")
    give.add_argument("--for", dest="device", required=True, metavar="DEVICE")
    give.add_argument("--out", type=Path, required=True, metavar="FILE")
    default = Path("/etc/postern/postern.toml")
    for action, run in ((take, _import), (give, _export)):
        action.add_argument("--config", type=Path, default=default, help=f"config file ({default})")
        action.set_defaults(run=run)


def _import(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cargo import BadCargo
    from agent.cli import Mistake
    from agent.config import load
    from agent.ferry import spool

    state = load(given.config).state
    try:
        spool(state, given.file)
        told = asyncio.run(control.ask(state / control.SOCKET, "ferry", look=True))
    except BadCargo as bad:
        raise Mistake(f"{given.file}: {bad}") from bad
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if error.filename == str(given.file):
            raise Mistake(f"{given.file}: {error.strerror}") from error
        print("no agent runs here: it is taken at the next start")
        return 0
    except (OSError, TimeoutError, ValueError) as error:
        raise Mistake(f"{given.file}: {error}") from error
    wrong = told.pop("wrong", [])
    print(", ".join(f"{outcome}: {count}" for outcome, count in told.items()) or "taken already")
    for reason in wrong:
        print(f"{given.file}: refused {reason}", file=sys.stderr)
    return 1 if wrong else 0


def _export(given: argparse.Namespace) -> int:
    from agent.cli import Mistake
    from agent.config import load
    from agent.ferry import FOLDER, HOLD, SUFFIX

    path = load(given.config).state / FOLDER / HOLD / f"{given.device}{SUFFIX}"
    try:
        shutil.copyfile(path, given.out)
    except FileNotFoundError:
        print(f"nothing on board for {given.device}", file=sys.stderr)
        return 1
    except OSError as error:
        raise Mistake(f"{error.filename}: {error.strerror}") from error
    print(f"{given.out}: for {given.device}")
    return 0
