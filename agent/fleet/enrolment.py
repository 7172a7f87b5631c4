"""Bringing a device in: what it asks with, who it is from then on, and what it is answered.

    request = read_request(raw, tenant)      # signed by the device's own key
    print(request.fingerprint)               # compared with what the device shows
    welcome = enrol(keyring, request, groups=["depot-7"])

`devices.json` holds what the fleet knows of its devices: public keys and groups, nothing secret. Certificates
for the broker are given by the fleet's own authority, `ca.pem`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from agent.enrolment import EnrolmentError
from agent.envelope import Envelope, Kind, Refused, told
from agent.fingerprint import of_device
from agent.fleet import registers
from agent.fleet.certificates import issue
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.sealing import Recipient
from agent.jws import decoded, encoded, kid_of
from agent.page import Secret

DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,39}")
"""No `+`, `#`, `/` or `$`: a broker puts the name into its topic patterns."""


def _device_id(text: str) -> str:
    if not DEVICE_ID.fullmatch(text):
        raise ValueError("expected 3 to 40 of a-z, 0-9 and -, not beginning with -")
    return text


class RequestBody(BaseModel):
    """What a device asks with."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    device: Annotated[str, AfterValidator(_device_id)]
    tenant: Annotated[str, AfterValidator(_device_id)]
    sign_key: Secret
    seal_key: Secret
    csr: Annotated[str, StringConstraints(max_length=4096)] | None = None
    claim: Annotated[str, StringConstraints(max_length=64)] | None = None
    levels: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A device that wants to be known, as it signed it."""

    device: str
    sign_key: bytes
    seal_key: bytes
    csr: x509.CertificateSigningRequest | None
    claim: str | None
    levels: Mapping[str, str]
    """How well it keeps each of its keys: `file`, `credential` or `tpm`, by its own account."""

    @property
    def fingerprint(self) -> str:
        return of_device(self.sign_key, self.seal_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What is known of a device."""

    sign_key: str
    seal_key: str
    groups: list[str]
    at: str
    """When, RFC 3339."""
    levels: Mapping[str, str]


def read_request(raw: bytes, tenant: str) -> Request:
    """Raises EnrolmentError for one that is not signed by the key it names, or not for this tenant."""
    try:
        envelope = Envelope.parse(Kind.ENROLMENT, raw)
        claims = envelope.claims(Kind.ENROLMENT)
        body = RequestBody.model_validate(claims.body)
        sign_key = decoded(body.sign_key)
        envelope.signers({kid_of(sign_key): sign_key})
    except Refused as refused:
        raise EnrolmentError(str(refused)) from refused
    except ValidationError as error:
        raise EnrolmentError(told(error)) from error
    if body.tenant != tenant or claims.aud != f"{tenant}/*":
        raise EnrolmentError(f"expected a request to {tenant}, got one to {body.tenant}")
    return Request(
        device=body.device,
        sign_key=sign_key,
        seal_key=decoded(body.seal_key),
        csr=csr_of(body.csr, body.device) if body.csr else None,
        claim=body.claim,
        levels=body.levels,
    )


def csr_of(text: str, device: str) -> x509.CertificateSigningRequest:
    """A certificate request under this name alone. Raises EnrolmentError."""
    try:
        csr = x509.load_pem_x509_csr(text.encode())
        named = [attribute.value for attribute in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        good = csr.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise EnrolmentError("csr: expected a PEM certificate request, got another") from error
    if not good or named != [device]:
        raise EnrolmentError(f"csr: expected one for {device} with a good signature, got another")
    return csr


def enrol(
    keyring: Keyring, request: Request, groups: Sequence[str] = (), broker_ca: str | None = None
) -> dict[str, Any]:
    """Note the device, and what it is answered: the root, a certificate if it asked for one, and who vouches
    for the broker. Raises EnrolmentError.

    A device that is known already must come with the same signing key: another one is another device.
    """
    known = devices(keyring.folder)
    before = known.get(request.device)
    now = Enrolled(
        sign_key=encoded(request.sign_key),
        seal_key=encoded(request.seal_key),
        groups=sorted({*groups, *(before.groups if before else ())}),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        levels=dict(request.levels),
    )
    if before is not None and before.sign_key != now.sign_key:
        raise EnrolmentError(f"{request.device}: expected the signing key that it is known by, got another")
    certificate = issue(keyring.folder, request.csr.public_key(), request.device) if request.csr else None
    _save(keyring.folder, {**known, request.device: now})
    return {
        "root": keyring.document.raw.decode("ascii"),
        "certificate": certificate,
        "ca": broker_ca,
    }


def rekey(keyring: Keyring, device: str, seal_key: bytes) -> None:
    """From now on pages for a device that is known are sealed to another key."""
    known = devices(keyring.folder)
    now = replace(known[device], seal_key=encoded(seal_key))
    _save(keyring.folder, {**known, device: now})


def devices(folder: Path) -> Mapping[str, Enrolled]:
    """Who has been enrolled, by name. Raises KeyringError."""
    path = folder / "devices.json"
    try:
        about = path.stat()
    except FileNotFoundError:
        return {}
    return _read(path, about.st_ino, about.st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, _inode: int, _mtime_ns: int) -> Mapping[str, Enrolled]:
    """Once for each file that is put in place: work for a whole fleet asks for each of its devices."""
    try:
        return {name: Enrolled(**each) for name, each in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise KeyringError(f"{path}: expected enrolled devices, got {error}") from error


def recipient(keyring: Keyring, device: str) -> Recipient:
    """Whom pages for this device are sealed to. Raises KeyringError."""
    known = devices(keyring.folder)
    if device not in known:
        listed = ", ".join(sorted(known)) or "(none)"
        raise KeyringError(f"expected one of the enrolled devices {listed}, got {device!r}")
    public = X25519PublicKey.from_public_bytes(decoded(known[device].seal_key))
    return Recipient(f"{keyring.tenant}/{device}", public)


def _save(folder: Path, known: Mapping[str, Enrolled]) -> None:
    registers.save(folder / "devices.json", known)
