"""`postern fleet ferry`: everything that is current for one device, as a file for somebody to carry there."""

import argparse
import sys
import time
from pathlib import Path

EXIT_USAGE = 2


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ferry = actions.add_parser("ferry", help="write what is current for a device into a file to be carried")
    ferry.add_argument("device")
    ferry.add_argument("--keys", type=Path, required=True, metavar="DIR")
    ferry.add_argument("--out", type=Path, required=True, metavar="FILE")
    ferry.set_defaults(run=_ferry)


def _ferry(given: argparse.Namespace) -> int:
    from agent import cargo
    from agent.envelope import Refused
    from agent.fleet.keyring import Keyring, KeyringError
    from agent.fleet.signing import Desk, chosen

    try:
        keyring = Keyring(given.keys)
        (device,) = chosen(keyring, given.device)
        with keyring.locked():
            desk = Desk(keyring, int(time.time()))
            head = desk.head(device)
            outgoing = desk.outgoing(device)
        label = cargo.Label(keyring.tenant, device)
        count = cargo.write(given.out, label, outgoing.items())
    except (KeyringError, Refused, OSError, ValueError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{given.out}: {count} documents and pages for {device}; its head is good until {head.claims.exp}")
    return 0
