"""Secrets that an operator gives: at a prompt that does not echo, or in a file. Never on a command line."""

import argparse
import getpass
import sys
from pathlib import Path

from agent.fleet.keyring import KeyringError, Passphrase

SHORTEST = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        action="append",
        default=[],
        metavar="[KEY=]FILE",
        help="its first line is the passphrase of this key file (root-1); otherwise asked for; repeatable",
    )


def passphrases(given: argparse.Namespace) -> Passphrase:
    """Asks for each key file once. Raises KeyringError."""
    files = dict(_split(text) for text in given.passphrase_file)
    known: dict[Path, bytes] = {}

    def ask(path: Path) -> bytes:
        if path not in known:
            source = files.get(path.stem, files.get(""))
            known[path] = _typed(path) if source is None else _read(source)
        return known[path]

    return ask


def _split(text: str) -> tuple[str, Path]:
    name, _, path = text.rpartition("=")
    return name, Path(path)


def _read(path: Path) -> bytes:
    try:
        first = path.read_bytes().split(b"\n", 1)[0].strip()
    except OSError as error:
        raise KeyringError(f"{path}: {error.strerror}") from error
    return _long_enough(str(path), first)


def _typed(path: Path) -> bytes:
    if not sys.stdin.isatty():
        raise KeyringError(f"{path}: expected --passphrase-file or a terminal to ask at, got neither")
    first = getpass.getpass(f"passphrase of {path.name}: ")
    if not path.exists() and getpass.getpass("once more: ") != first:
        raise KeyringError(f"{path}: expected the same passphrase twice, got two")
    return _long_enough(path.name, first.encode())


def _long_enough(where: str, passphrase: bytes) -> bytes:
    if len(passphrase) < SHORTEST:
        raise KeyringError(f"{where}: expected a passphrase of at least {SHORTEST} characters, got fewer")
    return passphrase
