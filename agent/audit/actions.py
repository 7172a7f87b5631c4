"""What each action of `postern journal` does. Each imports what it needs, and returns its exit code."""

import argparse
import contextlib
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from agent.audit.archive import Held, Unreadable
from agent.audit.verdict import Code, Failure, Report, Verdict

if TYPE_CHECKING:
    from agent.audit.inspect import Filter
    from agent.mqtt import Server
    from agent.note import VerifierKey

EXIT_FAILED, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 1, 2, 130
PORT, PLAIN_PORT = 8883, 1883
SHOWN = 100
"""Rows of a table unless more are asked for."""

_VERDICTS = {Verdict.PASS: 0, Verdict.FAIL: EXIT_FAILED, Verdict.INCOMPLETE: EXIT_INCOMPLETE}


class Mistake(Exception):
    """Something typed that cannot be done, in words for who typed it."""


def complain(what: object, code: int) -> int:
    print(what, file=sys.stderr)
    return code


def verify(given: argparse.Namespace) -> int:
    from agent.audit import verify as auditor
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive

    key, fleet = _origin_key(given.key), [_vkey(text) for text in given.receipt_key]
    if given.receipt and not fleet:
        raise Mistake("--receipt: expected the fleet's key as --receipt-key beside it")
    receipts = [_read(Path(name)) for name in given.receipt]
    try:
        with open_archive(given.file) as archive, Progress("verify") as progress:
            report = auditor.verify(archive, key, fleet, receipts, progress)
    except Held:
        raise
    except Unreadable as unreadable:
        report = Report(origin=key.name, failure=Failure(Code.UNREADABLE, str(unreadable)))
    print(json.dumps(report.as_json()) if given.json else report.as_text())
    return _VERDICTS[report.verdict]


def inspect(given: argparse.Namespace) -> int:
    from agent.audit import show
    from agent.audit.inspect import select
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive

    chosen = _filter(given)
    if given.last is not None and given.last < 0:
        raise Mistake(f"--last: expected 0 or more, got {given.last}")
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


def prove(given: argparse.Namespace) -> int:
    from agent.audit import prove as prover
    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive

    try:
        with open_archive(given.file) as archive, Progress("prove") as progress:
            proof, later = prover.prove(archive, given.parcel, progress)
    except prover.Unprovable as unprovable:
        return complain(unprovable, EXIT_FAILED)
    with _output(given.out) as out:
        out.write(json.dumps(proof, ensure_ascii=False, indent=1).encode() + b"\n")
    print(f"{given.parcel}: {len(proof['entries'])} entries proven", file=sys.stderr)
    if later:
        return complain(f"{later} too new for the latest checkpoint are not in it", EXIT_INCOMPLETE)
    return 0


def check(given: argparse.Namespace) -> int:
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


def export(given: argparse.Namespace) -> int:
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
                raise Mistake(str(error)) from error
            count = len(document["epcisBody"]["eventList"])
            with _output(given.out) as out:
                out.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
        else:
            with _output(given.out) as out:
                count = ndjson.write(archive, out, wanted, progress)
    print(f"{count} {'events' if given.format == 'epcis' else 'entries'} exported", file=sys.stderr)
    return 0


def replay(given: argparse.Namespace) -> int:
    import asyncio

    from agent.audit.progress import Progress
    from agent.audit.reader import open_archive
    from agent.audit.replay import Sent
    from agent.audit.replay import replay as send

    try:
        server = _server(given)
    except (OSError, IndexError, ValueError) as error:
        raise Mistake(str(error)) from error
    code = EXIT_FAILED
    with open_archive(given.file) as archive, Progress("replay") as progress:
        topic, sent = given.topic or _topic(archive.origin), Sent(given.after)
        try:
            asyncio.run(send(archive, server, topic, sent, progress))
        except KeyboardInterrupt:
            sent.problem, code = "interrupted", EXIT_INTERRUPTED
    print(f"{sent.entries} entries sent to {topic}, up to {sent.to}", file=sys.stderr)
    if sent.problem is not None:
        return complain(f"{sent.problem}; go on with --after {sent.to}", code)
    return 0


def salvage(given: argparse.Namespace) -> int:
    from agent.audit.progress import Progress
    from agent.salvage import Salvage

    if not given.file.is_file():
        raise Mistake(f"{given.file}: expected a file")
    work = Salvage(given.file, "salvaged by hand")
    with _output(given.out) as out, Progress("salvage") as progress:
        for lines in work.lines():
            out.writelines(line + b"\n" for _, line in lines)
            progress(round(1000 * work.progress), 1000)
    saved = work.result()
    lost = saved.lost or saved.open_end or saved.older_lost or saved.lost_records
    whole = saved.records_complete and not (lost or saved.doubtful)
    facts = {
        "epoch": saved.epoch,
        "last": saved.last,
        "kept": saved.kept,
        "copied": saved.copied,
        "lost": saved.lost,
        "lost_or_pruned": saved.lost_or_pruned,
        "more_may_be_lost_above": saved.last if saved.open_end else None,
        "doubtful": saved.doubtful,
        "records_lost": list(saved.lost_records),
        "records_doubtful": list(saved.doubtful_records),
    }
    if given.json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):24} {value if value not in (None, []) else '-'}")
    return 0 if whole else EXIT_INCOMPLETE


def key(given: argparse.Namespace) -> int:
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
        raise Mistake("the journal is empty and has no name yet: expected --origin")
    try:
        print(SignerKey(origin, Ed25519PrivateKey.from_private_bytes(raw)).verifier.text)
    except BadNote as bad:
        raise Mistake(f"--origin: {bad}") from bad
    return 0


# -- what was typed -------------------------------------------------------------------------------


def _vkey(text: str) -> "VerifierKey":
    from agent.note import BadNote, VerifierKey

    try:
        return VerifierKey.parse(text.strip())
    except BadNote as bad:
        raise Mistake(f"{text[:80]}: {bad}") from bad


def _origin_key(text: str) -> "VerifierKey":
    """A device's key, which is named for the ledger that it signs."""
    key = _vkey(text)
    if key.name.count("/") != 2:
        raise Mistake(f"--key: expected one named <tenant>/<device>/<epoch>, got {key.name}")
    return key


def _filter(given: argparse.Namespace) -> "Filter":
    from agent.audit.inspect import Filter, moment

    try:
        since, until = (text and moment(text) for text in (given.since, given.until))
    except ValueError as error:
        raise Mistake(f"--since, --until: {error}") from error
    return Filter(parcel=given.parcel, driver=given.driver, type=given.type, since=since, until=until)


def _topic(origin: str | None) -> str:
    parts = (origin or "").split("/")
    if len(parts) != 3:
        raise Mistake("the journal does not say which device it is of: expected --topic")
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
