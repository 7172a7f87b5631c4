"""`postern fleet command`: have one device do something once, and hear what became of it.

Exit codes: 0 done, 1 the broker did not take it, the device is away or no outcome came in time, 2 a mistake
in what was typed or with a key, 4 the device did not do it.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import online

if TYPE_CHECKING:
    from agent.mqtt import Connection

BIRTH_S = 10.0
"""Longest that the broker may take to bring what a device last said of itself."""
OUTCOME_S = 30.0
ROUND_S = 60.0
"""From the last moment at which a person may come to what has come of it."""
EXIT_NOT_DONE = 4
BESIDE = {"diagnostics": "diagnostics"}
"""Commands whose answer is more than an outcome, and the topic that it comes on."""


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = actions.add_parser(
        "command", help="have one device do something once, and wait for the outcome"
    )
    command.add_argument("name")
    command.add_argument("device", nargs="?", metavar="DEVICE")
    command.add_argument("--device", dest="named", help="the same, in another place")
    doors = command.add_mutually_exclusive_group()
    doors.add_argument("--doors", type=_numbers, metavar="N,N", help="of open_doors: by number")
    doors.add_argument("--all", action="store_true", help="of open_doors: all that there are")
    command.add_argument("--unit", help="of open_doors: the lock boards, where there are several")
    command.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="JSON or text")
    command.add_argument("--operator", required=True, help="who orders it")
    command.add_argument("--reason", required=True)
    command.add_argument("--good-for", type=online.seconds, help="seconds; the most that its class allows")
    command.add_argument(
        "--wait",
        type=online.seconds,
        help="seconds for the outcome (30; as long as it lives where it waits for a person)",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="diagnostics: where to put them")
    online.add_options(command, _order)


async def _order(given: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from agent.cli import Mistake
    from agent.commands import COMMANDS, RANKS, Outcome
    from agent.envelope import Envelope, Kind, told
    from agent.fleet.keyring import Keyring
    from agent.fleet.publish import OUTCOMES, asked
    from agent.fleet.signing import Desk, Order

    keyring = Keyring(given.keys)
    if given.name not in COMMANDS:
        raise Mistake(f"expected one of {', '.join(COMMANDS)}, got {given.name!r}")
    if (given.out is not None) != (given.name in BESIDE):
        raise Mistake(f"--out: expected it for {', '.join(BESIDE)} and for nothing else")
    rank, shape = COMMANDS[given.name]
    longest = RANKS[rank].longest_s
    device = _device(given)
    args = dict(_argument(text) for text in given.arg) | _doors(given)
    try:
        shape.model_validate(args)
    except ValidationError as error:
        raise Mistake(f"--arg: {told(error)}") from error
    good_for = int(min(given.good_for or longest, longest))
    patience = given.wait or (good_for + ROUND_S if RANKS[rank].present else OUTCOME_S)
    async with online.connected(given) as connection:
        state = await born(given, device, connection)
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
                device,
                order,
                lasts=good_for,
                signatures=RANKS[rank].signatures,
            )
        jti = Envelope.parse(Kind.COMMAND, raw).claims(Kind.COMMAND).jti
        if RANKS[rank].present:
            print(f"postern fleet: {jti} waits {good_for} s for a technician at {device}", file=sys.stderr)
        beside = BESIDE.get(given.name)
        outcome, brought = await asked(connection, device, raw, jti, within=patience, beside=beside)
    if outcome is None:
        print(f"postern fleet: no outcome of {jti} in {patience:g} s; it may still come", file=sys.stderr)
        return online.EXIT_FAILED
    online.tell(given, {"device": device, "command": jti, "type": outcome["type"], "data": outcome["data"]})
    if OUTCOMES[outcome["type"]] is not Outcome.SUCCEEDED:
        return EXIT_NOT_DONE
    if beside is not None and not _saved(given.out, brought):
        print(f"postern fleet: {device} has sent it, and it did not come; ask again", file=sys.stderr)
        return online.EXIT_FAILED
    return 0


def _saved(out: Path, brought: bytes | None) -> bool:
    """Put what a device has sent into a file for its owner alone; whether there was anything."""
    from agent import keyfile
    from agent.fleet.collect import BadBatch, unpack

    try:
        lines = unpack(brought or b"", "gzip" if brought else None)
        tree = json.loads(b"".join(lines))
    except (BadBatch, ValueError, RecursionError):
        return False
    keyfile.write(out, json.dumps(tree, indent=2).encode())
    return True


async def born(given: argparse.Namespace, device: str, connection: "Connection") -> Mapping[str, Any]:
    """The birth message of the device, where it is online: at this node or, as it is retained, at another."""
    from agent.fleet.publish import birth
    from agent.mqtt import ConnectionLost

    state = await birth(connection, device, within=BIRTH_S)
    if not state.get("online") and len(given.host) > 1:

        async def ask(node: "Connection") -> Mapping[str, Any]:
            return await birth(node, device, within=BIRTH_S)

        found = await online.at_each(given, ask)
        state = next((each for each in found if each.get("online")), {})
    if not state.get("online"):
        raise ConnectionLost(f"{device} is not online: a command is for now, or for nobody")
    return state


def _device(given: argparse.Namespace) -> str:
    from agent.cli import Mistake

    names = {each for each in (given.device, given.named) if each}
    if len(names) != 1:
        raise Mistake(f"expected one device, got {', '.join(sorted(names)) or 'none'}")
    return str(names.pop())


def _doors(given: argparse.Namespace) -> dict[str, Any]:
    """What is said about doors outside of `--arg`."""
    doors = "all" if given.all else given.doors
    said = {"doors": doors, "unit": given.unit}
    return {name: value for name, value in said.items() if value is not None}


def _numbers(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,2,5, got {text!r}") from None


def _argument(text: str) -> tuple[str, Any]:
    from agent.cli import Mistake

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Mistake(f"--arg: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
