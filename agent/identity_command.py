"""`postern wipe` and `postern identity`: what is taken away, and what is shown to whom it is about.

Both ask a running agent over its socket; while none runs they open the journal themselves.
"""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.keystore import SEALED

if TYPE_CHECKING:
    from argparse import _SubParsersAction

EXIT_USAGE, EXIT_JOURNAL = 2, 74

Told = Mapping[str, Any]


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    wipe = commands.add_parser(
        "wipe", help="take away every key that opens a row, and every row; the record stays"
    )
    wipe.add_argument("--yes", metavar="DEVICE", help="the device's id: do it without asking")
    _config_option(wipe)
    wipe.set_defaults(run=_wipe)

    identity = commands.add_parser("identity", help="what this device holds about a driver, by reference")
    actions = identity.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help="print it as JSON")
    erase = actions.add_parser("erase", help="take away all but the reference in past entries")
    for action, run in ((export, _export), (erase, _erase)):
        action.add_argument("subject", metavar="DRIVER_REF")
        _config_option(action)
        action.set_defaults(run=run)


def _config_option(parser: argparse.ArgumentParser) -> None:
    default = Path("/etc/postern/postern.toml")
    parser.add_argument("--config", type=Path, default=default, help=f"config file ({default})")


def _wipe(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent
    from agent.config import load
    from agent.keystore import Keystore
    from agent.writer import JournalFailed

    config = load(given.config)
    device = config.file.device.id
    typed = given.yes if given.yes is not None else _asked(device)
    if typed != device:
        print(f"nothing wiped: expected {device}, got {typed!r:.60}", file=sys.stderr)
        return EXIT_USAGE
    try:
        told = ask_agent(
            config,
            lambda path: control.ask(path, "wipe", device=device),
            lambda app: app.vault.wipe("operator"),
        )
    except JournalFailed as failed:
        # What must go goes, recorded by its mark; the entry follows when there is a journal again.
        _say_what_is_left(Keystore.of(config.state).erase("operator"))
        print(f"the keys are wiped, but the journal failed: {failed}", file=sys.stderr)
        return EXIT_JOURNAL
    print(f"{device} is wiped: {told['rows']} rows; keys: {', '.join(told['keys']) or 'none were left'}")
    _say_what_is_left(told["not_erased"])
    return 0


def _asked(device: str) -> str:
    if not sys.stdin.isatty():
        return ""
    print(f"This takes away every key and row of {device}. It has to be enrolled again afterwards.")
    return input("Type the device's id to go on: ").strip()


def _say_what_is_left(credentials: Sequence[str]) -> None:
    for name in credentials:
        print(f"postern.{name} is a systemd credential: not used any more, but not ours to erase.")
        print(f"  Delete {SEALED}/postern.{name}; what a TPM sealed opens on this board alone.")
    print("Flash may keep old copies of what was overwritten: destroy the card if it must not be read.")


def _export(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent
    from agent.config import load

    subject = given.subject

    async def whole(look: Callable[[int], Awaitable[Told]]) -> dict[str, Any]:
        told = dict(await look(0))
        while (after := told.pop("next")) is not None:
            more = await look(after)
            told["entries"] = [*told["entries"], *more["entries"]]
            told["next"] = more["next"]
        return told

    told = ask_agent(
        load(given.config),
        lambda path: whole(lambda after: control.ask(path, "identity", subject=subject, after=after)),
        lambda app: whole(lambda after: app.vault.identity.export(subject, after)),
    )
    print(json.dumps({**told, "entries": [json.loads(line) for line in told["entries"]]}, indent=2))
    return 0


def _erase(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent
    from agent.config import load

    told = ask_agent(
        load(given.config),
        lambda path: control.ask(path, "erase", subject=given.subject),
        lambda app: app.vault.identity.erase(given.subject),
    )
    print(f"erased: {told['rows']} rows, {told['counters']} counters; past entries keep the reference alone")
    if told["copies"]:
        print(f"damaged rosters that were set aside, deleted as well: {told['copies']}")
    for key in told["remaining"]:
        print(f"still there until it is over by itself: {key}")
    print("A finger taught at this device is not found by reference: postern fingers forget UNIT SLOT.")
    return 0
