"""New keys of devices that are known: whether a request is theirs, what it is given, and what is noted of it.

    raw = answer(keyring, "van-0042", request, nonce)      # a command: confirm_keys

A request counts by the signature of the key that the device was enrolled with, and by its number, which only
rises: whoever carries an old one brings back no old key. The same request gets the same certificate however
often it comes. By themselves the fleet's tools give a device a few in a week; more is for somebody to decide.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from cryptography import x509
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from agent import keyfile
from agent.certificate import PUBLIC
from agent.commands import RANKS
from agent.enrolment import EnrolmentError
from agent.envelope import Envelope, Kind, Refused, told
from agent.fleet import certificates
from agent.fleet.enrolment import csr_of, devices, rekey
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.signing import Desk, Order
from agent.jws import decoded, kid_of
from agent.page import Secret

CONFIRM = "confirm_keys"
BY_ITSELF, WITHIN = 3, timedelta(days=7)
"""Certificates that a device gets in so long without anybody deciding."""


class RenewalError(Exception):
    """A request that is given nothing: expected and found."""


class RenewalBody(BaseModel):
    """What a device asks for: each key that it has made anew, and no other."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    device: str
    tenant: str
    csr: Annotated[str, StringConstraints(max_length=4096)] | None = None
    seal_key: Secret | None = None
    levels: dict[str, str] = {}
    """How well each key is kept: `file`, `credential` or `tpm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A request of a device, as it signed it."""

    device: str
    number: int
    csr: x509.CertificateSigningRequest | None
    seal_key: bytes | None
    digest: str
    """Of what it asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The last request of a device, and what it was given."""

    number: int
    digest: str
    chain: Sequence[str]


def read(keyring: Keyring, device: str, raw: bytes) -> Renewal:
    """Raises RenewalError for what this device has not signed, or for another one."""
    known = devices(keyring.folder).get(device)
    if known is None:
        raise RenewalError(f"{device}: expected an enrolled device, got another")
    key = decoded(known.sign_key)
    try:
        envelope = Envelope.parse(Kind.RENEWAL, raw)
        envelope.signers({kid_of(key): key})
        claims = envelope.claims(Kind.RENEWAL)
        body = RenewalBody.model_validate(claims.body)
        csr = csr_of(body.csr, device) if body.csr else None
    except Refused as refused:
        raise RenewalError(f"{device}: {refused}") from refused
    except ValidationError as error:
        raise RenewalError(f"{device}: {told(error)}") from error
    except EnrolmentError as error:
        raise RenewalError(f"{device}: {error}") from error
    if (body.device, body.tenant, claims.aud) != (device, keyring.tenant, f"{keyring.tenant}/*"):
        raise RenewalError(
            f"expected a request of {keyring.tenant}/{device}, got {body.tenant}/{body.device}"
        )
    # A request that is signed anew is the same: it is the keys that count.
    public = csr.public_key().public_bytes(*PUBLIC) if csr else b""
    digest = sha256(public + (body.seal_key or "").encode()).hexdigest()
    seal = decoded(body.seal_key) if body.seal_key else None
    return Renewal(device=device, number=claims.ver, csr=csr, seal_key=seal, digest=digest)


def answer(keyring: Keyring, device: str, raw: bytes, nonce: object, *, operator: str | None = None) -> bytes:
    """The command that confirms what was asked for. Raises RenewalError or KeyringError.

    `nonce` is the device's own of now, where it is known. Without an `operator` only what needs nobody's
    decision is given.
    """
    with keyring.locked():
        renewal = read(keyring, device, raw)
        before = _answered(keyring.folder, device)
        given = before if before is not None and _same(before, renewal) else None
        if given is None:
            given = _give(keyring, renewal, by_itself=operator is None)
        order = Order(
            rank="B",
            name=CONFIRM,
            args={"request": renewal.number, "chain": list(given.chain)},
            operator=operator or "fleet",
            reason="keys asked for",
            nonce=nonce,
        )
        return Desk(keyring, int(time.time())).command(device, order, lasts=RANKS["B"].longest_s)


def _same(before: Answered, renewal: Renewal) -> bool:
    """Raises RenewalError for one that is not newer than the last."""
    if renewal.number == before.number and renewal.digest == before.digest:
        return True
    if renewal.number <= before.number:
        raise RenewalError(
            f"{renewal.device}: expected a request after {before.number}, got {renewal.number}"
        )
    return False


def _give(keyring: Keyring, renewal: Renewal, *, by_itself: bool) -> Answered:
    chain: Sequence[str] = ()
    if renewal.csr is not None:
        _check_given(certificates.given(keyring.folder), renewal.device, by_itself=by_itself)
        issued = certificates.issue(keyring.folder, renewal.csr.public_key(), renewal.device)
        chain = (issued, (keyring.folder / "ca.pem").read_text())
    if renewal.seal_key is not None:
        rekey(keyring, renewal.device, renewal.seal_key)
    given = Answered(number=renewal.number, digest=renewal.digest, chain=chain)
    keyfile.write(_path(keyring.folder, renewal.device), json.dumps(asdict(given)).encode())
    return given


def _check_given(known: Mapping[str, certificates.Given], device: str, *, by_itself: bool) -> None:
    """Raises RenewalError for a device that gets no more certificates."""
    own = [each for each in known.values() if each.name == device]
    if own and all(each.revoked for each in own):
        raise RenewalError(f"{device}: its certificates are revoked; enrol it anew")
    since = datetime.now(UTC) + timedelta(days=certificates.CERTIFICATE_DAYS) - WITHIN
    lately = [each for each in own if datetime.fromisoformat(each.until) > since]
    if by_itself and len(lately) >= BY_ITSELF:
        raise RenewalError(
            f"{device}: {len(lately)} certificates in {WITHIN.days} days; `postern fleet certificates renew`"
            " gives another"
        )


def _answered(folder: Path, device: str) -> Answered | None:
    """Raises KeyringError."""
    path = _path(folder, device)
    if not path.exists():
        return None
    try:
        return Answered(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise KeyringError(f"{path}: expected the last renewal, got {error}") from error


def _path(folder: Path, device: str) -> Path:
    return folder / "issued" / device / "renewal.json"
