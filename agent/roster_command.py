"""`postern roster`: who may identify here, as an operator at this device says it."""

import argparse
import contextlib
import getpass
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli import EXIT_FAILED, Mistake, config_option

if TYPE_CHECKING:
    from agent.roster import Roster

KINDS = ("badge", "static", "pin", "fido2")
ROLES = ("driver", "supervisor", "technician")
LONGEST_DAYS = 31


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `roster` to the `postern` command."""
    roster = commands.add_parser("roster", help="who may identify here")
    actions = roster.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a driver's credential; it is read from standard input")
    add.add_argument("subject", help="the driver's reference: random, never a name")
    add.add_argument("kind", choices=KINDS)
    add.add_argument("--finger", metavar="UNIT:SLOT", help="where this driver's template is, for a badge")
    add.add_argument("--role", choices=ROLES, help="what this person is (driver)")
    add.add_argument("--days", type=days, default=31, help="how long the row is good for (31)")
    forget = actions.add_parser("forget", help="delete the row that a credential opens")
    forget.add_argument("kind", choices=KINDS)
    forget.add_argument("--subject", default="", help="the driver's reference, for a PIN")
    for action, run in ((add, _add), (forget, _forget)):
        config_option(action)
        action.set_defaults(run=run)


def days(text: str) -> int:
    """How long a row is good for."""
    if not (text.isdecimal() and 1 <= int(text) <= LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"expected 1 to {LONGEST_DAYS}, got {text!r}")
    return int(text)


def _add(given: argparse.Namespace) -> int:
    from agent.config import load
    from agent.roster import Row

    config = load(given.config)
    finger = _finger(given.finger, {unit.name for unit in config.units if unit.role == "finger"})
    until = int(time.time()) + given.days * 86_400
    token, public_key = _credential(given)
    row = Row(
        subject=subject_of(given),
        kind=given.kind,
        finger=finger,
        until=until,
        role=given.role,
        public_key=public_key,
    )
    with opened(config.state) as roster:
        roster.put(row, token, as_of=int(time.time()))
        rows = len(roster)
    print(f"{given.kind} of {given.subject} is good for {given.days} days; {rows} rows")
    return 0


def _forget(given: argparse.Namespace) -> int:
    from agent.config import load

    state = load(given.config).state
    if given.kind == "pin":
        subject_of(given)
    token, _ = _credential(given)
    with opened(state) as roster:
        there = roster.forget(given.kind, token)
    print("forgotten" if there else "no row opens with that")
    return 0 if there else EXIT_FAILED


@contextlib.contextmanager
def opened(state: Path) -> Iterator["Roster"]:
    """The roster of a state folder, made where there is none yet. Raises Mistake."""
    from agent.keyfile import BadKeyFile
    from agent.roster import Roster, RosterError
    from agent.row_seal import Keys

    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.closing(Roster(state / "roster.db", Keys.load(state / "keys"))) as roster:
            if (damage := roster.rows.damage) is not None:
                raise RosterError(f"{state}/roster.db: damaged ({damage}); the agent replaces it")
            yield roster
    except (RosterError, BadKeyFile) as error:
        raise Mistake(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        raise SystemExit(f"roster in {state}: {error}") from error


def subject_of(given: argparse.Namespace) -> str:
    subject: str = given.subject
    if not subject or not subject.isprintable():
        raise Mistake(f"subject: expected the driver's reference, got {subject!r}")
    return subject


def _finger(text: str | None, units: set[str]) -> tuple[str, int] | None:
    if text is None:
        return None
    unit, _, slot = text.rpartition(":")
    if not unit or not slot.isdecimal():
        raise Mistake(f"--finger: expected UNIT:SLOT, got {text!r}")
    if unit not in units:
        known = ", ".join(sorted(units)) or "(none)"
        raise Mistake(f"--finger: expected one of the fingerprint modules {known}, got {unit!r}")
    return unit, int(slot)


def _credential(given: argparse.Namespace) -> tuple[bytes, str | None]:
    """What opens the row, and of a fingerprint card its public key."""
    if given.kind != "fido2":
        return _token(given), None
    from agent.cards_command import Record

    record = Record.read()
    return record.credential_id, record.public_key


def _token(given: argparse.Namespace) -> bytes:
    """From a prompt that does not echo, or the first line of standard input. Never from the command line."""
    from agent.roster import pin_token

    if sys.stdin.isatty():
        secret = getpass.getpass(f"{given.kind}: ").encode(errors="surrogateescape").strip()
    else:
        secret = sys.stdin.buffer.readline(8192).strip()
    if not secret:
        raise Mistake(f"standard input: expected the {given.kind} on the first line, got nothing")
    return pin_token(given.subject, secret) if given.kind == "pin" else secret
