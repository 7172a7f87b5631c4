"""`postern journal`: what an auditor asks of a journal that no agent holds, or of an export."""

import argparse
from collections.abc import Callable
from pathlib import Path

from agent.audit import actions
from agent.audit.actions import EXIT_FAILED, EXIT_INCOMPLETE, PLAIN_PORT, PORT, SHOWN, Mistake, complain
from agent.audit.archive import Held, Unreadable
from agent.audit.verdict import Broken

EXIT_HELD = 75
EXITS = """\
exit codes:
  0   PASS, or done
  1   FAIL: something is wrong with what was read, or it could not be done
  2   INCOMPLETE: nothing is wrong, but not everything is vouched for; also a mistake in what was typed
  75  an agent holds the journal: stop the agent, or audit an export or a copy
  130 interrupted
"""
Run = Callable[[argparse.Namespace], int]


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `journal` to the `postern` command; each action sets `run`."""
    journal = subparsers.add_parser(
        "journal", help="verify, look into, prove, export, replay and salvage a journal"
    )
    parsers = journal.add_subparsers(required=True, metavar="ACTION")

    verify = _action(parsers, "verify", "check everything against every signature, offline", actions.verify)
    verify.add_argument("--key", required=True, metavar="VKEY", help="the device's verifier key")
    _many(verify, "--receipt-key", "VKEY", "a key of the fleet; then only what the fleet vouches for passes")
    _many(verify, "--receipt", "NOTEFILE", "a receipt that the fleet kept: shows a history signed anew")
    verify.add_argument("--json", action="store_true")

    inspect = _action(parsers, "inspect", "list entries, the newest at the bottom", actions.inspect)
    _filters(inspect)
    inspect.add_argument("--last", type=int, metavar="N", help=f"only the newest; 0 for all ({SHOWN})")
    inspect.add_argument("--json", action="store_true", help="one entry a line, all unless --last says else")

    prove = _action(
        parsers, "prove", "write one parcel's custody as a file that proves itself", actions.prove
    )
    prove.add_argument("parcel", metavar="PARCEL", help="as entries name it, e.g. sscc:106141412345678908")
    prove.add_argument("--out", "-o", type=Path, help="instead of standard output")

    check = _action(
        parsers, "check-proof", "check such a file with the device's key alone", actions.check, "PROOF"
    )
    check.add_argument("--key", required=True, metavar="VKEY", help="the device's verifier key")
    check.add_argument("--json", action="store_true")

    export = _action(parsers, "export", "write entries as NDJSON that verifies, or as EPCIS", actions.export)
    export.add_argument("--format", choices=("ndjson", "epcis"), default="ndjson")
    export.add_argument("--out", "-o", type=Path, help="instead of standard output")
    _filters(export)

    _replay_options(_action(parsers, "replay", "publish entries to another broker", actions.replay))

    salvage = _action(
        parsers,
        "salvage",
        "read what a damaged journal still holds of what the fleet may not have; work on a copy",
        actions.salvage,
    )
    salvage.add_argument("--out", "-o", type=Path, required=True, help="the entries, as lines, go there")
    salvage.add_argument("--json", action="store_true", help="say what was saved and what was not as JSON")

    key = _action(parsers, "key", "print the device's verifier key", actions.key, "STATE_DIR")
    key.add_argument("--origin", help="<tenant>/<device>/<epoch>; otherwise the journal's")


def _action(
    parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    run: Run,
    what: str = "FILE",
) -> argparse.ArgumentParser:
    parser = parsers.add_parser(
        name,
        help=about,
        description=about,
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar=what)
    parser.set_defaults(run=lambda given: _guarded(run, given))
    return parser


def _many(parser: argparse.ArgumentParser, name: str, metavar: str, about: str) -> None:
    parser.add_argument(name, action="append", default=[], metavar=metavar, help=f"{about}; may be repeated")


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parcel", metavar="ID", help="as entries name it")
    parser.add_argument("--driver", metavar="REF", help="the driver's reference")
    parser.add_argument("--type", metavar="T", help="e.g. custody, or custody.handed_over")
    parser.add_argument("--since", metavar="TIME", help="ISO 8601; UTC unless it says otherwise")
    parser.add_argument("--until", metavar="TIME")


def _replay_options(replay: argparse.ArgumentParser) -> None:
    replay.add_argument("--host", required=True)
    replay.add_argument("--port", type=int, help=f"{PORT}, or {PLAIN_PORT} with --plain")
    replay.add_argument("--plain", action="store_true", help="without TLS")
    replay.add_argument("--ca", type=Path, help="certificates that may vouch for the broker (the system's)")
    replay.add_argument("--certificate", type=Path, help="our own certificate, with --key")
    replay.add_argument("--key", type=Path)
    replay.add_argument("--username")
    replay.add_argument("--password-file", type=Path, help="its first line is the password")
    replay.add_argument("--topic", help="instead of postern/v1/<device>/up/entries")
    replay.add_argument("--after", type=int, default=0, metavar="SEQ", help="go on after this sequence")


def _guarded(run: Run, given: argparse.Namespace) -> int:
    """Run, and say in one line why it cannot be done."""
    try:
        return run(given)
    except Held as held:
        return complain(held, EXIT_HELD)
    except Mistake as mistake:
        return complain(mistake, EXIT_INCOMPLETE)
    except Broken as broken:
        failure = broken.failure
        return complain(f"FAIL {failure.code}{failure.place}: {failure.detail}", EXIT_FAILED)
    except Unreadable as unreadable:
        return complain(unreadable, EXIT_FAILED)
