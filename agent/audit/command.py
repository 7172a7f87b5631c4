"""`postern journal`: what an auditor asks of a journal that no agent holds, or of an export."""

import argparse
import contextlib
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agent.audit.archive import Held, Unreadable
from agent.audit.verdict import Broken, Code, Failure, Report, Verdict

if TYPE_CHECKING:
    from agent.audit.inspect import Filter
    from agent.mqtt import Server
    from agent.note import VerifierKey

EXIT_FAILED, EXIT_INCOMPLETE, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 75, 130
EXITS = """\
exit codes:
  0   PASS, or done
  1   FAIL: something is wrong with what was read, or it could not be done
  2   INCOMPLETE: nothing is wrong, but not everything is vouched for; also a mistake in what was typed
  75  an agent holds the journal: stop the agent, or audit an export or a copy
  130 interrupted
"""
PORT, PLAIN_PORT = 8883, 1883
SHOWN = 100
"""Rows of a table unless more are asked for."""

Run = Callable[[argparse.Namespace], int]
_VERDICTS = {Verdict.PASS: 0, Verdict.FAIL: EXIT_FAILED, Verdict.INCOMPLETE: EXIT_INCOMPLETE}


class _Mistake(Exception):
    """Something typed that cannot be done, in words for who typed it."""


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `journal` to the `postern` command; each action sets `run`."""
    journal = subparsers.add_parser("journal", help="verify, look into, prove, export and replay a journal")
    actions = journal.add_subparsers(required=True, metavar="ACTION")

    verify = _action(actions, "verify", "check everything against every signature, offline", _verify)
    verify.add_argument("--key", required=True, metavar="VKEY", help="the device's verifier key")
    _many(verify, "--receipt-key", "VKEY", "a key of the fleet; then only what the fleet vouches for passes")
    _many(verify, "--receipt", "NOTEFILE", "a receipt that the fleet kept: shows a history signed anew")
    verify.add_argument("--json", action="store_true")

    inspect = _action(actions, "inspect", "list entries, the newest at the bottom", _inspect)
    _filters(inspect)
    inspect.add_argument("--last", type=int, metavar="N", help=f"only the newest; 0 for all ({SHOWN})")
    inspect.add_argument("--json", action="store_true", help="one entry a line, all unless --last says else")

    prove = _action(actions, "prove", "write one parcel's custody as a file that proves itself", _prove)
    prove.add_argument("parcel", metavar="PARCEL", help="as entries name it, e.g. sscc:106141412345678908")
    prove.add_argument("--out", "-o", type=Path, help="instead of standard output")

    check = _action(actions, "check-proof", "check such a file with the device's key alone", _check, "PROOF")
    check.add_argument("--key", required=True, metavar="VKEY", help="the device's verifier key")
    check.add_argument("--json", action="store_true")

    export = _action(actions, "export", "write entries as NDJSON that verifies, or as EPCIS", _export)
    export.add_argument("--format", choices=("ndjson", "epcis"), default="ndjson")
    export.add_argument("--out", "-o", type=Path, help="instead of standard output")
    _filters(export)

    _replay_options(_action(actions, "replay", "publish entries to another broker", _replay))

    key = _action(actions, "key", "print the device's verifier key", _key, "STATE_DIR")
    key.add_argument("--origin", help="<tenant>/<device>/<epoch>; otherwise the journal's")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    run: Run,
    what: str = "FILE",
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
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
        return _complain(held, EXIT_HELD)
    except _Mistake as mistake:
        return _complain(mistake, EXIT_INCOMPLETE)
    except Broken as broken:
        failure = broken.failure
        return _complain(f"FAIL {failure.code}{failure.place}: {failure.detail}", EXIT_FAILED)
    except Unreadable as unreadable:
        return _complain(unreadable, EXIT_FAILED)


def _complain(what: object, code: int) -> int:
    print(what, file=sys.stderr)
    return code


# Each action imports what it needs.


def _verify(given: argparse.Namespace) -> int:
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive
    from agent.audit.verify import verify

    key, fleet = _vkey(given.key), [_vkey(text) for text in given.receipt_key]
    if given.receipt and not fleet:
        raise _Mistake("--receipt: expected the fleet's key as --receipt-key beside it")
    receipts = [_read(Path(name)) for name in given.receipt]
    try:
        with open_archive(given.file) as archive, Progress("verify") as progress:
            report = verify(archive, key, fleet, receipts, progress)
    except Held:
        raise
    except Unreadable as unreadable:
        report = Report(origin=key.name, failure=Failure(Code.UNREADABLE, str(unreadable)))
    print(json.dumps(report.as_json()) if given.json else report.as_text())
    return _VERDICTS[report.verdict]


def _inspect(given: argparse.Namespace) -> int:
    from agent.audit import show
    from agent.audit.inspect import select
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive

    chosen = _filter(given)
    if given.last is not None and given.last < 0:
        raise _Mistake(f"--last: expected 0 or more, got {given.last}")
    last = (0 if given.json else SHOWN) if given.last is None else given.last
    # A table is laid out when all of it is known; without a limit the rows are shown as they come.
    show_rows = show.show_json if given.json else show.show_table if last else show.show_columns
    with open_archive(given.file) as archive:
        with Progress("inspect") as progress:
            selected = select(archive, chosen, last, progress if last else lambda _done, _of: None)
        count = show_rows(selected)
    if given.last is None and count == last:
        print(f"the newest {last}; --last 0 shows all", file=sys.stderr)
    return 0


def _prove(given: argparse.Namespace) -> int:
    from agent.audit.progress import Progress
    from agent.audit.prove import Unprovable, prove
    from agent.audit.reader import open_archive

    try:
        with open_archive(given.file) as archive, Progress("prove") as progress:
            proof, later = prove(archive, given.parcel, progress)
    except Unprovable as unprovable:
        return _complain(unprovable, EXIT_FAILED)
    with _output(given.out) as out:
        out.write(json.dumps(proof, ensure_ascii=False, indent=1).encode() + b"\n")
    print(f"{given.parcel}: {len(proof['entries'])} entries proven", file=sys.stderr)
    if later:
        return _complain(f"{later} too new for the latest checkpoint are not in it", EXIT_INCOMPLETE)
    return 0


def _check(given: argparse.Namespace) -> int:
    from agent.audit import show
    from agent.audit.prove import check_proof

    key = _vkey(given.key)
    try:
        proof = json.loads(_read(given.file))
    except (ValueError, RecursionError):
        proof = None
    checkpoint, judged = check_proof(proof, key)
    good = all(proven.failure is None for proven in judged)
    if given.json:
        facts = {"origin": checkpoint.origin, "size": checkpoint.size, "parcel": proof["parcel"]}
        verdict = "PASS" if good else "FAIL"
        print(json.dumps({"verdict": verdict, **facts, "entries": show.custody_json(judged)}))
    else:
        print(f"{proof['parcel']} in the record of {checkpoint.origin}, {checkpoint.size} entries signed")
        show.show_custody(judged)
    return 0 if good else EXIT_FAILED


def _export(given: argparse.Namespace) -> int:
    from agent.audit import ndjson
    from agent.audit.export import as_epcis, now
    from agent.audit.inspect import parse
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive

    chosen = _filter(given)

    def wanted(line: bytes) -> bool:
        return chosen.is_open or (chosen.may_want(line) and chosen.wants(parse(line)))

    with open_archive(given.file) as archive, Progress("export") as progress:
        if given.format == "epcis":
            try:
                document = as_epcis(archive, chosen, now(), progress)
            except LookupError as error:
                raise _Mistake(str(error)) from error
            count = len(document["epcisBody"]["eventList"])
            with _output(given.out) as out:
                out.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
        else:
            with _output(given.out) as out:
                count = ndjson.write(archive, out, wanted, progress)
    print(f"{count} {'events' if given.format == 'epcis' else 'entries'} exported", file=sys.stderr)
    return 0


def _replay(given: argparse.Namespace) -> int:
    import asyncio

    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive
    from agent.audit.replay import replay

    try:
        server = _server(given)
    except (OSError, IndexError, ValueError) as error:
        raise _Mistake(str(error)) from error
    with open_archive(given.file) as archive, Progress("replay") as progress:
        topic = given.topic or _topic(archive.origin)
        sent = asyncio.run(replay(archive, server, topic, after=given.after, watch=progress))
    print(f"{sent.entries} entries sent to {topic}, up to {sent.to}", file=sys.stderr)
    if sent.problem is not None:
        return _complain(f"{sent.problem}; go on with --after {sent.to}", EXIT_FAILED)
    return 0


def _key(given: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agent.audit.reader import open_archive
    from agent.note import BadNote, SignerKey

    raw = _read(given.file / "keys" / "device")
    if len(raw) != 32:
        raise Unreadable(f"{given.file / 'keys' / 'device'}: expected a key of 32 bytes, got {len(raw)}")
    origin = given.origin
    if origin is None:
        with open_archive(given.file / "journal.db") as archive:
            origin = archive.origin
    if origin is None:
        raise _Mistake("the journal is empty and has no name yet: expected --origin")
    try:
        print(SignerKey(origin, Ed25519PrivateKey.from_private_bytes(raw)).verifier.text)
    except BadNote as bad:
        raise _Mistake(f"--origin: {bad}") from bad
    return 0


# -- what was typed -------------------------------------------------------------------------------


def _vkey(text: str) -> "VerifierKey":
    from agent.note import BadNote, VerifierKey

    try:
        return VerifierKey.parse(text.strip())
    except BadNote as bad:
        raise _Mistake(f"{text[:80]}: {bad}") from bad


def _filter(given: argparse.Namespace) -> "Filter":
    from agent.audit.inspect import Filter, moment

    try:
        since, until = (text and moment(text) for text in (given.since, given.until))
    except ValueError as error:
        raise _Mistake(f"--since, --until: {error}") from error
    return Filter(parcel=given.parcel, driver=given.driver, type=given.type, since=since, until=until)


def _topic(origin: str | None) -> str:
    parts = (origin or "").split("/")
    if len(parts) != 3:
        raise _Mistake("the journal does not say which device it is of: expected --topic")
    return f"postern/v1/{parts[1]}/up/entries"


def _server(given: argparse.Namespace) -> "Server":
    """Raises OSError, ValueError or IndexError for files that cannot be used."""
    import secrets

    from agent.mqtt import Server

    return Server(
        host=given.host,
        port=given.port or (PLAIN_PORT if given.plain else PORT),
        client_id=f"postern-replay-{secrets.token_hex(4)}",
        username=given.username,
        password=given.password_file.read_text().splitlines()[0] if given.password_file else None,
        tls=None if given.plain else _tls(given),
    )


def _tls(given: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=given.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if given.certificate:
        context.load_cert_chain(given.certificate, given.key)
    return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
