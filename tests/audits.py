"""Audits of the journals that `tests.journals` writes."""

from collections.abc import Sequence
from pathlib import Path

from agent.audit.reader import open_archive
from agent.audit.verdict import Code, Report, Verdict
from agent.audit.verify import verify
from agent.note import VerifierKey
from tests.journals import Made, Signer


def audit(made: Made, *, receipts: Sequence[bytes] = (), fleet: Signer | None = None) -> Report:
    return audit_file(made.path, made.vkey, receipts=receipts, fleet=fleet)


def audit_file(
    path: Path, vkey: str, *, receipts: Sequence[bytes] = (), fleet: Signer | None = None
) -> Report:
    keys = [VerifierKey.parse(fleet.vkey)] if fleet else []
    with open_archive(path) as archive:
        return verify(archive, VerifierKey.parse(vkey), keys, receipts)


def found(report: Report) -> tuple[Code, int | None, int | None]:
    assert report.verdict is Verdict.FAIL
    assert report.failure is not None
    return report.failure.code, report.failure.first, report.failure.last
