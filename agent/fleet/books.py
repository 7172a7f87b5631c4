"""`postern fleet findings`, `devices` and `accounts`: what is in the fleet's file.

Exit codes: 0 done, 1 there is no such finding to settle, 2 entries are missing (`accounts`) or a mistake in
what was typed, 3 a grave finding is open, 74 the file cannot be read.
"""

import argparse
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import records

if TYPE_CHECKING:
    from agent.fleet.claim_book import Account
    from agent.fleet.finding_book import Kept
    from agent.fleet.store import Ledger, Store

COMMAND = "postern fleet"
EXIT_FAILED = 1
EXIT_OPEN = 2
"""Entries that a device has signed for are neither here nor declared."""
EXIT_GRAVE = 3

Json = dict[str, Any]
Look = Callable[["Store", argparse.Namespace], int]


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what only reads the file; each action sets `run`."""
    findings = _action(
        actions,
        "findings",
        "list what was found, open ones only; exit code 3 if a grave one is open",
        _findings,
    )
    findings.add_argument("--all", action="store_true", help="the settled ones too")
    _add_settle(findings)
    _action(actions, "devices", "how far each device's journals are here, agreed and vouched for", _devices)
    _action(
        actions,
        "accounts",
        "produced = delivered + declared, counted by lane; exit code 2 while some are missing",
        _accounts,
    )


def _add_settle(findings: argparse.ArgumentParser) -> None:
    about = "somebody has looked into it: it is settled, and stays on record with who, when and why"
    deeds = findings.add_subparsers(metavar="settle")
    settle = deeds.add_parser("settle", help="settle one, with a reason", description=about)
    settle.add_argument("number", type=int, help="its number in the list")
    settle.add_argument("--reason", required=True)
    settle.add_argument("--operator", help="who settles it; otherwise the one who is logged in")
    # What may stand before the word may also stand after it.
    settle.add_argument("--store", type=Path, default=argparse.SUPPRESS)
    settle.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    settle.set_defaults(run=_settle)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str, look: Look
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=about, description=about)
    parser.add_argument("--store", type=Path, help="the file that `fleet collect` keeps (required)")
    parser.add_argument("--device", help="only this one")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(run=lambda given: _looked(look, given))
    return parser


def _looked(look: Look, given: argparse.Namespace) -> int:
    def read(store: "Store") -> int:
        with store.reading():
            return look(store, given)

    return _with_store(given, read)


def _with_store(given: argparse.Namespace, act: Callable[["Store"], int]) -> int:
    if given.store is None:
        return records.failed(COMMAND, "expected --store, got none", records.EXIT_USAGE)
    return records.read(given.store, COMMAND, act)


# -- findings -------------------------------------------------------------------------------------


def _findings(store: "Store", given: argparse.Namespace) -> int:
    from agent.fleet.table import printable, show

    found = list(store.findings.all(given.device, settled=given.all))
    if given.json:
        for each in found:
            print(json.dumps(each.as_json()))
    elif found:
        rows = [
            (
                str(each.number),
                _when(each.at),
                _when(each.settled) if each.settled is not None else "open",
                each.finding.kind.value,
                each.finding.device,
                each.finding.epoch,
                printable(each.finding.text + _by_hand(each) + _what_to_do(each)),
            )
            for each in found
        ]
        headings = ("NO", "FOUND", "SETTLED", "KIND", "DEVICE", "EPOCH", "WHAT")
        show(headings, rows, marked=[each.grave and each.settled is None for each in found])
    else:
        print("nothing found" if given.all else "nothing open", file=sys.stderr)
    return EXIT_GRAVE if any(each.grave and each.settled is None for each in found) else 0


def _what_to_do(kept: "Kept") -> str:
    return kept.finding.remedy if kept.settled is None else ""


def _by_hand(kept: "Kept") -> str:
    return f"; settled by {kept.operator}: {kept.reason}" if kept.operator is not None else ""


def _settle(given: argparse.Namespace) -> int:
    operator, reason = (given.operator or getpass.getuser()).strip(), given.reason.strip()
    if not operator or not reason:
        return records.failed(COMMAND, "expected an operator and a reason, got nothing", records.EXIT_USAGE)

    def settle(store: "Store") -> int:
        with store.transaction():
            was_open = store.findings.settle_by_hand(given.number, operator, reason, time.time())
        if was_open is None:
            return records.failed(
                COMMAND, f"expected the number of a finding, got {given.number}", EXIT_FAILED
            )
        if not was_open:
            return records.failed(COMMAND, f"finding {given.number} was settled before", EXIT_FAILED)
        told = {"settled": given.number, "operator": operator, "reason": reason}
        print(json.dumps(told) if given.json else f"finding {given.number} settled by {operator}")
        return 0

    return _with_store(given, settle)


# -- devices --------------------------------------------------------------------------------------


def _devices(store: "Store", given: argparse.Namespace) -> int:
    from agent.fleet.table import show

    found = list(_each_device(store, given.device))
    if given.json:
        for each in found:
            print(json.dumps(each))
        return 0
    headings = ("DEVICE", "EPOCH", "SIGNED", "HERE", "AGREED", "RECEIPT", "LOST", "PASSED", "OTHERS", "HEARD")
    names = (
        "device",
        "epoch",
        "signed",
        "whole",
        "agreed",
        "receipt",
        "declared",
        "passed_over",
        "contested",
    )
    rows = [
        (*(str(each[name]) for name in names), _when(each["heard"]), f"{each['trust']}  {each['key']}")
        for each in found
    ]
    show((*headings, "KEY"), rows, marked=[each["barred"] for each in found])
    return 0


def _each_device(store: "Store", only: str | None) -> Iterator[Json]:
    """An object for each journal; one without a journal for a device that has sent none."""
    from agent.note import VerifierKey

    for device, heard in store.devices():
        if only not in (None, device):
            continue
        pinned = store.pinned(device)
        ledgers: list[Ledger | None] = [*store.ledgers(device)]
        for ledger in ledgers or [None]:
            epoch = ledger.epoch if ledger else ""
            origin = f"{pinned.tenant}/{device}/{epoch or '-'}" if pinned else ""
            yield {
                "device": device,
                "epoch": epoch,
                **(_ledger(store, ledger) if ledger else _NOTHING),
                "key": VerifierKey(origin, pinned.public).text if pinned else None,
                "trust": pinned.trust.value if pinned else None,
                "heard": heard,
            }


def _ledger(store: "Store", ledger: "Ledger") -> Json:
    from agent.fleet.claims import Why

    receipt = store.notes.receipt(ledger.id)
    return {
        "signed": ledger.signed,
        "whole": ledger.whole,
        "agreed": ledger.agreed.size,
        "accounted": ledger.accounted,
        "receipt": receipt[0] if receipt else 0,
        "declared": store.claims.count(ledger.id, Why.LOST),
        "passed_over": store.claims.count(ledger.id, Why.PASSED_OVER),
        "contested": store.contested(ledger.id),
        "barred": ledger.barred,
    }


_COUNTS = ("signed", "whole", "agreed", "accounted", "receipt", "declared", "passed_over", "contested")
_NOTHING: Json = {**dict.fromkeys(_COUNTS, 0), "barred": False}


# -- accounts -------------------------------------------------------------------------------------


def _accounts(store: "Store", given: argparse.Namespace) -> int:
    from agent.fleet.table import show

    ledgers = [
        ledger
        for device, _ in store.devices()
        if given.device in (None, device)
        for ledger in store.ledgers(device)
    ]
    found = [(ledger, store.claims.accounts(ledger.id, ledger.accounted)) for ledger in ledgers]
    if given.json:
        for ledger, accounts in found:
            print(json.dumps(_account_json(ledger, accounts)))
    else:
        rows = [row for ledger, accounts in found for row in _account_rows(ledger, accounts)]
        headings = ("DEVICE", "EPOCH", "LANE", "PRODUCED", "DELIVERED", "DECLARED", "PASSED", "UNWRITTEN")
        show((*headings, "NOT YET"), rows)
    return EXIT_OPEN if any(ledger.accounted < ledger.signed for ledger, _ in found) else 0


def _account_json(ledger: "Ledger", accounts: "list[Account]") -> Json:
    """`produced` is what the device has signed for; the lanes add up to what of that is accounted for."""
    return {
        "device": ledger.device,
        "epoch": ledger.epoch,
        "produced": ledger.signed,
        "accounted": ledger.accounted,
        "outstanding": max(0, ledger.signed - ledger.accounted),
        "lanes": [{**asdict(each), "produced": each.produced} for each in accounts],
    }


def _account_rows(ledger: "Ledger", accounts: "list[Account]") -> Iterator[tuple[str, ...]]:
    whose = (ledger.device, ledger.epoch)
    names = ("produced", "delivered", "declared", "passed_over", "unwritten")
    for each in accounts:
        yield (*whose, each.lane or "(unsaid)", *(str(getattr(each, name)) for name in names), "")
    counted = [str(sum(getattr(each, name) for each in accounts)) for name in names[1:]]
    yield (*whose, "all", str(ledger.signed), *counted, str(max(0, ledger.signed - ledger.accounted)))


def _when(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else "never"
