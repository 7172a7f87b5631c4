"""`postern fleet report`: the custody of one parcel over all devices, as text, a page or EPCIS events.

Exit codes: 0 done, 1 nothing is known of the parcel, 2 a mistake in what was typed, 3 a step is not what its
device has signed, 74 the fleet's file cannot be read, or a file cannot be written.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import records

if TYPE_CHECKING:
    from agent.fleet.store import Store
    from agent.fleet.story import Step, Told
    from agent.fleet.story_page import Record
    from agent.fleet.story_source import Source
    from agent.note import VerifierKey

COMMAND = "postern fleet report"
EXIT_UNKNOWN, EXIT_BROKEN = 1, 3


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "one parcel's custody over all devices, in the order in which it happened"
    report = actions.add_parser("report", help="tell one parcel's story", description=about)
    report.add_argument("parcel", help="its label's id, such as sscc:106141412345678908")
    records.add_store(report)
    report.add_argument("--html", type=Path, metavar="FILE", help="write it as one page")
    report.add_argument("--epcis", type=Path, metavar="FILE", help="write it as an EPCIS 2.0 document")
    records.add_receipt_key(report)
    report.add_argument("--json", action="store_true", help="one object for each step")
    report.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    def look(store: "Store", keys: "Sequence[VerifierKey]") -> int:
        with store.reading():
            return _report(given, store, keys)

    return records.checked(given, COMMAND, look)


def _report(given: argparse.Namespace, store: "Store", keys: "Sequence[VerifierKey]") -> int:
    from agent.fleet.story import proven, tell
    from agent.fleet.story_source import Source

    source = Source(store, keys)
    told = source.entries(given.parcel)
    steps = tell(told)
    if not steps:
        return records.failed(COMMAND, f"{given.parcel}: expected entries about it, got none", EXIT_UNKNOWN)
    steps = proven(steps, source.proofs(steps))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        document = _epcis(steps, told, source, now) if given.epcis is not None else None
    except LookupError as error:
        return records.failed(COMMAND, error, EXIT_UNKNOWN)
    try:
        if given.html is not None:
            from agent.fleet.story_page import page

            given.html.write_text(page(given.parcel, steps, _records(store, source, steps), now), "utf-8")
        if document is not None:
            given.epcis.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
    except OSError as error:
        return records.failed(COMMAND, error, records.EXIT_STORE)
    _show(given, steps)
    return EXIT_BROKEN if any(step.proof.failure for step in steps) else 0


def _epcis(steps: "Sequence[Step]", told: "Sequence[Told]", source: "Source", now: str) -> dict[str, Any]:
    """The events in the story's order. Raises LookupError for a correction of what is not here."""
    from agent import epcis

    clocks = [each.entry for each in told if each.entry["type"] == "postern.clock.corrected"]
    return epcis.document([*clocks, *(step.told.entry for step in steps)], now, source.find)


def _records(store: "Store", source: "Source", steps: "Sequence[Step]") -> "list[Record]":
    from agent.fleet.story_page import Record
    from agent.note import VerifierKey

    found = []
    for ledger in source.ledgers(steps):
        pinned, receipt = store.pinned(ledger.device), store.notes.receipt(ledger.id)
        key = VerifierKey(f"{pinned.tenant}/{ledger.origin}", pinned.public).text if pinned else "unknown"
        found.append(
            Record(
                device=ledger.device,
                epoch=ledger.epoch,
                agreed=ledger.agreed.size,
                receipt=receipt[0] if receipt else 0,
                key=key,
                trust=pinned.trust.value if pinned else "-",
                barred=ledger.barred,
            )
        )
    return found


def _show(given: argparse.Namespace, steps: "Sequence[Step]") -> None:
    from agent.fleet.story import holder
    from agent.fleet.table import printable, show

    if given.json:
        for step in steps:
            print(json.dumps(_step_json(step), ensure_ascii=False))
        return
    print(printable(f"{given.parcel}: {holder(steps, given.parcel)}"))
    rows = [_row(step) for step in steps]
    show(
        ("TIME", "BY", "DEVICE", "WHERE", "PROOF", "WHAT"),
        rows,
        marked=[step.proof.failure is not None for step in steps],
    )


def _row(step: "Step") -> tuple[str, ...]:
    from agent.fleet.table import printable

    trust = step.trust + ("*" if step.corrected else "") if step.ordered else f"({step.trust})"
    time = f"{step.time[:19]}Z"
    return tuple(map(printable, (time, trust, step.told.device, step.where, step.proof.words, step.what)))


def _step_json(step: "Step") -> dict[str, Any]:
    proof = step.proof
    return {
        "time": step.time,
        "recorded": step.recorded,
        "trust": step.trust,
        "error_s": step.error_s,
        "ordered": step.ordered,
        "device": step.told.device,
        "id": step.told.entry["id"],
        "type": step.told.entry["type"],
        "subject": step.told.entry.get("subject"),
        "what": step.what,
        "where": step.where,
        "position": step.position,
        "proof": {
            "checkpoint": proof.checkpoint,
            "receipt": proof.receipt,
            "signers": list(proof.signers),
            "failure": proof.failure,
        },
    }
