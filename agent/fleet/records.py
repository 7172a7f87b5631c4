"""What the commands that read the fleet's file have in common: its option, the keys, and how it is opened."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.fleet.store import Store
    from agent.note import VerifierKey

EXIT_USAGE, EXIT_STORE = 2, 74


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, required=True, help="the file that `fleet collect` keeps")


def add_receipt_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--receipt-key",
        action="append",
        default=[],
        metavar="VKEY",
        help="check receipts with this; repeatable",
    )


def checked(
    given: argparse.Namespace, command: str, look: "Callable[[Store, Sequence[VerifierKey]], int]"
) -> int:
    """The exit code of `look`, which gets the opened file and the keys to check receipts with."""
    from agent.note import BadNote, VerifierKey

    try:
        keys = [VerifierKey.parse(text) for text in given.receipt_key]
    except BadNote as bad:
        return failed(command, f"--receipt-key: {bad}", EXIT_USAGE)
    return read(given.store, command, lambda store: look(store, keys))


def read(path: Path, command: str, look: "Callable[[Store], int]") -> int:
    """The exit code of `look`, or EXIT_STORE if the file cannot be read."""
    from agent.fleet.store import StoreFailed, opened

    try:
        with opened(path) as store:
            return look(store)
    except StoreFailed as error:
        return failed(command, error, EXIT_STORE)


def failed(command: str, error: object, code: int) -> int:
    print(f"{command}: {error}", file=sys.stderr)
    return code
