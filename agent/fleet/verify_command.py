"""`postern fleet verify`: check everything in the fleet's file again, as if nobody had ever looked.

Exit codes as of `postern journal verify`: 0 PASS, 1 FAIL, 2 INCOMPLETE (nothing is wrong, and not all is
vouched for) or a mistake in what was typed; 74 the fleet's file cannot be read.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.fleet import records

if TYPE_CHECKING:
    from agent.audit.verdict import Report
    from agent.audit.verify import Watcher
    from agent.fleet.store import Ledger, Store
    from agent.note import VerifierKey

COMMAND = "postern fleet verify"
EXIT_FAILED, EXIT_INCOMPLETE = 1, 2


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "check every line, leaf, tile, checkpoint and receipt again; 0 PASS, 1 FAIL, 2 INCOMPLETE"
    verify = actions.add_parser("verify", help="check the whole file again", description=about)
    records.add_store(verify)
    verify.add_argument("--device", help="only this one")
    records.add_receipt_key(verify)
    verify.add_argument("--json", action="store_true", help="one object for each journal")
    verify.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    return records.checked(given, COMMAND, lambda store, keys: _verify(given, store, keys))


def _verify(given: argparse.Namespace, store: "Store", keys: "Sequence[VerifierKey]") -> int:
    """Each journal as it is at one moment: collecting goes on meanwhile."""
    from agent.audit.progress import Progress
    from agent.audit.verdict import Verdict

    with store.reading():
        known = [
            ledger
            for device, _ in store.devices()
            if given.device in (None, device)
            for ledger in store.ledgers(device)
        ]
    checked, done, of = [], 0, sum(ledger.agreed.size for ledger in known)
    with Progress("verify") as progress:
        for ledger in known:
            report = _recheck(store, ledger, keys, _part_of(progress, done, of))
            checked.append((ledger, report))
            done += ledger.agreed.size
    _show(given, checked)
    verdicts = {report.verdict for _, report in checked}
    if Verdict.FAIL in verdicts:
        return EXIT_FAILED
    return EXIT_INCOMPLETE if Verdict.INCOMPLETE in verdicts or not checked else 0


def _part_of(whole: "Watcher", before: int, of: int) -> "Watcher":
    return lambda done, _of: whole(before + done, of)


def _recheck(store: "Store", ledger: "Ledger", keys: "Sequence[VerifierKey]", watch: "Watcher") -> "Report":
    from agent.fleet.recheck import recheck

    with store.reading():
        now = store.known_ledger(ledger.device, ledger.epoch)
        return recheck(store, now or ledger, keys, watch)


def _show(given: argparse.Namespace, checked: "Sequence[tuple[Ledger, Report]]") -> None:
    from agent.audit.verdict import Verdict
    from agent.fleet.table import printable, show

    if given.json:
        for ledger, report in checked:
            print(json.dumps({"device": ledger.device, "epoch": ledger.epoch, **report.as_json()}))
    else:
        rows = [_row(ledger, report) for ledger, report in checked]
        marked = [report.verdict is Verdict.FAIL for _, report in checked]
        headings = ("DEVICE", "EPOCH", "VERDICT", "ENTRIES", "HASHES", "CHECKPOINTS", "RECEIPT", "WHAT")
        show(headings, [tuple(map(printable, row)) for row in rows], marked=marked)
    count = [report.verdict for _, report in checked]
    told = ", ".join(f"{count.count(each)} {each}" for each in Verdict if each in count)
    print(f"{len(checked)} journals: {told or 'nothing to check: INCOMPLETE'}", file=sys.stderr)
    if not given.receipt_key:
        print("the fleet's signatures were not checked: no --receipt-key", file=sys.stderr)


def _row(ledger: "Ledger", report: "Report") -> tuple[str, ...]:
    failure = report.failure
    what = f"{failure.code}{failure.place}: {failure.detail}" if failure else "; ".join(report.incomplete)
    counts = (report.size, report.pruned, report.checkpoints, report.cosigned_to)
    return (ledger.device, ledger.epoch, report.verdict, *map(str, counts), what)
