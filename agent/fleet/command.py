"""`postern fleet`: what a person can ask of the fleet's side."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import (
    books,
    broker,
    certificates_command,
    config_command,
    ferry_command,
    grant_command,
    keys_command,
    order_command,
    push_command,
    report_command,
    rollout_command,
    verify_command,
    watch_command,
)

if TYPE_CHECKING:
    from agent.fleet.clerk import Clerk
    from agent.fleet.collect import Collector
    from agent.fleet.device_log import DeviceLog, Entry
    from agent.fleet.findings import Finding
    from agent.mqtt import Server
    from agent.note import SignerKey

NAME = "postern-collect"
EXIT_USAGE = 2
EXIT_GRAVE = 3
"""A device has signed two histories, or gone back behind its own."""
EXIT_STORE = 74


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `fleet` to the `postern` command; each action sets `run`."""
    fleet = subparsers.add_parser("fleet", help="the fleet's side: hear devices, and tell them")
    actions = fleet.add_subparsers(required=True, metavar="ACTION")
    collect = actions.add_parser("collect", help="print entries as they come, one a line, until interrupted")
    broker.add_options(collect)
    collect.add_argument("--device", default="+", help="only this one")
    collect.add_argument("--share", metavar="GROUP", help="divide the messages with others of this group")
    collect.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="SECONDS",
        help="have the broker keep messages while we are away",
    )
    collect.add_argument("--store", type=Path, help="keep everything in this file, and hold devices to it")
    collect.add_argument("--key-file", type=Path, help="give receipts with this key, made if need be")
    collect.add_argument("--key-name", default="main", help="the key signs as fleet-<name>")
    collect.add_argument(
        "--device-key",
        action="append",
        default=[],
        metavar="VKEY",
        help="trust this device's key; repeatable",
    )
    collect.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="tell devices the time and roots they missed, confirm trials and keys, ask for what is missing",
    )
    collect.add_argument(
        "--notices",
        type=Path,
        metavar="FILE",
        help="with --keys: add the codes of deposits to this file, for recipients",
    )
    collect.add_argument("--json", action="store_true", help="entries and summary as JSON, one object a line")
    collect.set_defaults(run=run)
    books.add_actions(actions)
    keys_command.add_actions(actions)
    certificates_command.add_actions(actions)
    push_command.add_actions(actions)
    config_command.add_actions(actions)
    grant_command.add_actions(actions)
    order_command.add_actions(actions)
    ferry_command.add_actions(actions)
    watch_command.add_actions(actions)
    report_command.add_actions(actions)
    verify_command.add_actions(actions)
    rollout_command.add_actions(actions)


def run(given: argparse.Namespace) -> int:
    """Collect until SIGINT or SIGTERM; the summary goes to standard error."""
    from agent.fleet.keyring import KeyringError
    from agent.fleet.store import StoreFailed
    from agent.keyfile import BadKeyFile
    from agent.note import BadNote

    try:
        server, clerk = broker.server(given, NAME, keep=given.keep), _clerk(given)
        show = _show(given)
    except (OSError, IndexError, ValueError, BadKeyFile, BadNote, KeyringError) as error:
        return _failed(error, EXIT_USAGE)
    try:
        collector, grave = asyncio.run(_collect(given, server, clerk, show))
    except (BadNote, KeyringError) as error:
        return _failed(error, EXIT_USAGE)
    except StoreFailed as error:
        return _failed(error, EXIT_STORE)
    summaries = [device.summary() for _, device in sorted(collector.devices.items())]
    for summary in summaries:
        print(json.dumps(summary) if given.json else _summary_line(summary), file=sys.stderr)
    return EXIT_GRAVE if grave else 0


def _failed(error: Exception, code: int) -> int:
    print(f"postern fleet collect: {error}", file=sys.stderr)
    return code


async def _collect(
    given: argparse.Namespace, server: "Server", clerk: "Clerk | None", show: "Callable[[Entry], None]"
) -> "tuple[Collector, list[Finding]]":
    """The collector as it was at the end, and the grave ones of its findings. Raises StoreFailed, BadNote."""
    from agent.fleet.answers import Answers
    from agent.fleet.collect import Collector
    from agent.fleet.findings import GRAVE

    grave: list[Finding] = []

    def show_state(device: "DeviceLog") -> None:
        if not given.json:
            print(f"{device.device}: {'online' if device.online else 'offline'}", flush=True)

    def show_finding(finding: "Finding") -> None:
        print(json.dumps(finding.as_json()) if given.json else _finding_line(finding), flush=True)
        if finding.kind in GRAVE:
            grave.append(finding)

    answers = Answers(given.keys) if given.keys else None
    collector = Collector(
        server,
        show,
        device=given.device,
        share=given.share,
        on_state=show_state,
        clerk=clerk,
        on_finding=show_finding,
        answer=answers or (lambda _device, _birth: ()),
        ask=answers.missing if answers else lambda _gap, _birth: None,
        renew=answers.renewal if answers else (lambda _device, _birth, _raw: ()),
    )
    async with clerk or contextlib.nullcontext():
        running = asyncio.create_task(collector.run(), name="collector")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return collector, grave


def _show(given: argparse.Namespace) -> "Callable[[Entry], None]":
    """What is done with each entry. Raises KeyringError or ValueError."""
    line: Callable[[Any], str] = json.dumps if given.json else _entry_line
    if given.notices and given.keys is None:
        raise ValueError("--notices: expected --keys as well, got none")
    note = grant_command.noted(given.keys, given.notices) if given.notices else None

    def show(entry: "Entry") -> None:
        if note is not None:
            note(entry)
        print(line(entry), flush=True)

    return show


def _clerk(given: argparse.Namespace) -> "Clerk | None":
    """Raises ValueError, BadKeyFile or BadNote for what cannot be used."""
    from agent.fleet.clerk import Clerk
    from agent.note import VerifierKey

    if given.store is None:
        if given.key_file or given.device_key:
            raise ValueError("--key-file and --device-key: expected --store as well, got none")
        return None
    signer = _signer(given) if given.key_file else None
    return Clerk(given.store, signer, [VerifierKey.parse(text) for text in given.device_key])


def _signer(given: argparse.Namespace) -> "SignerKey":
    """Shows what the devices' configs need to believe the receipts."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agent import keyfile
    from agent.note import SignerKey

    signer = SignerKey(
        f"fleet-{given.key_name}", Ed25519PrivateKey.from_private_bytes(keyfile.load(given.key_file))
    )
    print(f"[fleet]\nkeys = [{json.dumps(signer.verifier.text)}]", file=sys.stderr, flush=True)
    return signer


def _entry_line(entry: "Entry") -> str:
    device = entry["source"].rpartition("/")[2]
    name = entry["type"].removeprefix("postern.")
    line = f"{entry['time']}  {device} {entry['sequence']:>6}  {name}  {entry.get('subject', '')}"
    # What a device sends does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in line)


def _finding_line(finding: "Finding") -> str:
    line = f"{finding.kind}  {finding.device} {finding.epoch}  {finding.text}{finding.remedy}"
    return "".join(char if char.isprintable() else "?" for char in line)


def _summary_line(summary: dict[str, Any]) -> str:
    return (
        f"{summary['device']}: {summary['entries']} entries up to {summary['highest']}, "
        f"{summary['missing']} missing, {summary['duplicates']} duplicates, {summary['rejected']} rejected"
    )
