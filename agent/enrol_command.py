"""`postern enrol`: make this device's keys, ask to be known, take the answer.

postern enrol --out request.jws                 # shows the fingerprint that two people compare
postern enrol --accept welcome.json             # asks for the root's fingerprint, or --root-fingerprint
postern enrol --seal auto                       # as root: keys into systemd credentials, with a TPM if any
"""

import argparse
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.credentials import WITH
from agent.keystore import NAMES, SEALED

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from agent.config import Config

CLAIM_LIMIT = 64
WHITE_ON_BLACK, PLAIN = "\x1b[97;40m", "\x1b[0m"


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    enrol = commands.add_parser("enrol", help="make this device's keys and have the fleet know it")
    does = enrol.add_mutually_exclusive_group(required=True)
    does.add_argument("--out", type=Path, metavar="FILE", help="write the request that the fleet answers")
    does.add_argument("--accept", type=Path, metavar="FILE", help="take the fleet's answer")
    does.add_argument("--seal", choices=WITH, help="as root: move the keys into systemd credentials")
    enrol.add_argument("--renew", action="store_true", help="after a wipe: make new keys first")
    enrol.add_argument("--claim-file", type=Path, help="file whose first line is the fleet's one-time code")
    enrol.add_argument("--root-fingerprint", help="as it came another way; asked for without it")
    enrol.add_argument("--sealed", type=Path, default=SEALED, help=argparse.SUPPRESS)
    default = Path("/etc/postern/postern.toml")
    enrol.add_argument("--config", type=Path, default=default, help=f"config file ({default})")
    enrol.set_defaults(run=_enrol)


def _enrol(given: argparse.Namespace) -> int:
    from agent.cli import Mistake
    from agent.config import load
    from agent.enrolment import EnrolmentError
    from agent.keyfile import BadKeyFile

    config = load(given.config)
    try:
        if given.accept is not None:
            return _accept(given, config)
        return _seal(given, config) if given.seal is not None else _ask(given, config)
    except (EnrolmentError, BadKeyFile) as error:
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Mistake(f"{error.filename or config.state}: {error.strerror}") from error


def _ask(given: argparse.Namespace, config: "Config") -> int:
    from agent import keyfile
    from agent.enrolment import request
    from agent.keystore import Keystore

    keystore = Keystore.of(config.state)
    if given.renew:
        keystore.renew()
    claim = _claim(given.claim_file)
    made = request(config.state, keystore, config.audience, now=int(time.time()), claim=claim)
    keyfile.write(given.out, made.raw)
    for name, level in made.levels.items():
        print(f"key {name}: {level}")
    device = config.file.device.id
    _show(f"fingerprint of {device}", made.fingerprint, f"POSTERN:DEVICE:{device}:")
    print(f"{given.out}: take this to the fleet, and the fingerprint another way")
    return 0


def _accept(given: argparse.Namespace, config: "Config") -> int:
    from agent.cli import Mistake
    from agent.enrolment import ROOT, accept, read_welcome
    from agent.tls_files import TLS

    welcome = read_welcome(given.accept.read_bytes())
    compared = given.root_fingerprint
    if compared is None:
        if not sys.stdin.isatty():
            raise Mistake("--root-fingerprint: expected it, or a terminal to ask at")
        compared = input("Fingerprint of the root, as it came another way than this file: ")
    accept(config.state, welcome, config.audience, compared)
    print(f"{config.state / ROOT}: the root is in force from the next start")
    if welcome.certificate is not None or welcome.ca is not None:
        print(f"{config.state / TLS}: used towards the broker wherever [broker.tls] says nothing else")
    return 0


def _seal(given: argparse.Namespace, config: "Config") -> int:
    from agent.cli import Mistake
    from agent.credentials import has_tpm, seal
    from agent.keystore import FOLDER, needs_tpm
    from agent.tls_files import KEY, TLS, fold, lay_out

    lay_out(config.state)
    files = {name: config.state / FOLDER / name for name in NAMES}
    files[TLS] = config.state / TLS / KEY
    there = {name: path for name, path in files.items() if path.exists()}
    if not there:
        raise Mistake(f"{config.state / FOLDER}: expected keys, got none; `postern enrol --out` makes them")
    print(f"TPM: {'found' if has_tpm() else 'none that systemd can use'}")
    for name, path in there.items():
        blob = seal(path, name, given.sealed, given.seal)
        print(f"{blob}: opens with {'this TPM alone' if needs_tpm(blob) else 'a key on this disk'}")
    fold(config.state)
    print("The files are overwritten and gone, though flash may keep old copies. Restart the agent.")
    return 0


def _claim(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open(encoding="utf-8") as file:
        return file.readline(CLAIM_LIMIT + 1).strip()[:CLAIM_LIMIT] or None


def _show(title: str, fingerprint: str, prefix: str) -> None:
    """As text to be read out; on a terminal also as a code to be scanned."""
    print(f"{title}:\n  {fingerprint}")
    if sys.stdout.isatty():
        import segno

        code = segno.make(prefix + fingerprint.replace(" ", "").upper(), error="m", micro=False)
        shown = io.StringIO()
        code.terminal(shown, compact=True)
        # Dark on light whatever the terminal's own colours: few decoders read the negative.
        for line in shown.getvalue().splitlines():
            print(f"{WHITE_ON_BLACK}{line}{PLAIN}")
