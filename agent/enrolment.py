"""How a device comes to be known, its half of it: what it asks with, and what it takes for an answer.

The keys are made here and stay here. The request is signed by the device key and names both public keys; two
people compare its fingerprint. The answer brings the first root, whose fingerprint is compared as well, and
what the broker wants to see. Everything lies in the state folder, where the config finds it by itself:

    keys/...                      device, seal, pepper, epoch
    tls/client.key                for the broker (EC P-256), unless systemd hands over `postern.tls`
    tls/client.pem, tls/ca.pem    from the welcome; `agent.tls_files` tells what a renewal makes of them
    root.jws                      from the welcome: what all trust follows from
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from agent import keyfile
from agent.admission import Audience
from agent.certificate import BadCertificate, certificates, check_owner, csr, key_of, make_key
from agent.envelope import Kind, Refused, issue, told
from agent.fingerprint import groups, of_device, of_root
from agent.jws import Signer, encoded
from agent.keystore import NAMES, Keystore, check_not_sealed
from agent.tls_files import CA, CERTIFICATE, TLS, discard_pair, tls_key
from agent.trust import Trusted

ROOT = "root.jws"
VALID_S = 30 * 86_400
"""How long a request may lie about."""
LIMIT = 128 * 1024
"""Bytes of a welcome."""


class EnrolmentError(Exception):
    """An answer that is not for this device, or not what was compared: expected and found."""


class WelcomeFile(BaseModel):
    """What the fleet answers with."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    root: Annotated[str, StringConstraints(max_length=32 * 1024)]
    certificate: Annotated[str, StringConstraints(max_length=16 * 1024)] | None = None
    ca: Annotated[str, StringConstraints(max_length=64 * 1024)] | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """An answer that was read; nothing in it is believed before `fingerprint` has been compared."""

    root: bytes
    certificate: bytes | None
    ca: bytes | None

    @property
    def fingerprint(self) -> str:
        return of_root(self.root)


@dataclass(frozen=True, slots=True)
class Request:
    """What the device asks with, and what is read out of it to be compared."""

    raw: bytes
    fingerprint: str
    levels: Mapping[str, str]


def request(state: Path, keystore: Keystore, audience: Audience, *, now: int, claim: str | None) -> Request:
    """Ask to be known, with keys that are made where there are none yet. Raises BadKeyFile."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = {name: keystore.load(name).reveal() for name in NAMES}
    signer = Signer(Ed25519PrivateKey.from_private_bytes(keys["device"]))
    seal_key = X25519PrivateKey.from_private_bytes(keys["seal"]).public_key().public_bytes_raw()
    body = {
        "device": audience.device,
        "tenant": audience.tenant,
        "sign_key": encoded(signer.public),
        "seal_key": encoded(seal_key),
        "csr": csr(_tls_key(state), audience.device),
        "claim": claim,
        "levels": keystore.levels(),
    }
    raw = issue(Kind.ENROLMENT, body, [signer], aud=f"{audience.tenant}/*", iat=now, exp=now + VALID_S, ver=1)
    return Request(raw, of_device(signer.public, seal_key), keystore.levels())


def read_welcome(raw: bytes) -> Welcome:
    """Raises EnrolmentError for what is no welcome."""
    if len(raw) > LIMIT:
        raise EnrolmentError(f"expected a welcome of at most {LIMIT} bytes, got {len(raw)}")
    try:
        read = WelcomeFile.model_validate(json.loads(raw))
    except ValidationError as error:
        raise EnrolmentError(f"no welcome: {told(error)}") from error
    except (ValueError, RecursionError) as error:
        raise EnrolmentError("expected a welcome in JSON, got something else") from error
    certificate, ca = (text and text.encode() for text in (read.certificate, read.ca))
    return Welcome(read.root.encode(), certificate or None, ca or None)


def accept(state: Path, welcome: Welcome, audience: Audience, compared: str) -> None:
    """Put everything in place, the root last: without it nothing is in force. Raises EnrolmentError.

    `compared` is the root's fingerprint as it came another way than the welcome.
    """
    if groups(compared) != welcome.fingerprint:
        raise EnrolmentError(f"root: expected fingerprint {welcome.fingerprint}, got {groups(compared)}")
    try:
        Trusted.pin(welcome.root, audience)
    except Refused as refused:
        raise EnrolmentError(f"root: {refused}") from refused
    if welcome.certificate is not None:
        _check_certificate(welcome.certificate, _tls_key(state), audience.device)
        keyfile.write(state / TLS / CERTIFICATE, welcome.certificate)
        discard_pair(state)
    if welcome.ca is not None:
        _check_ca(welcome.ca)
        keyfile.write(state / TLS / CA, welcome.ca)
    keyfile.write(state / ROOT, welcome.root)


def _tls_key(state: Path) -> ec.EllipticCurvePrivateKey:
    path = tls_key(state)
    try:
        if not path.exists():
            check_not_sealed(TLS)
            keyfile.write(path, make_key())
        return key_of(path.read_bytes(), str(path))
    except OSError as error:
        raise keyfile.BadKeyFile(f"{path}: {error.strerror}") from error
    except BadCertificate as bad:
        raise keyfile.BadKeyFile(str(bad)) from bad


def _check_certificate(pem: bytes, key: ec.EllipticCurvePrivateKey, device: str) -> None:
    try:
        check_owner(certificates(pem, "certificate")[0], key, device)
    except BadCertificate as bad:
        raise EnrolmentError(str(bad)) from bad


def _check_ca(pem: bytes) -> None:
    try:
        certificates(pem, "ca")
    except BadCertificate as bad:
        raise EnrolmentError(str(bad)) from bad
