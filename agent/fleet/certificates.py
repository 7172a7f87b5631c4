"""Certificates for the broker: who gives them, to whom they were given, and which of them count no more.

    made = issue(folder, csr.public_key(), "van-0042")
    revoke(folder, "van-0042")
    (broker / "crl.pem").write_bytes(crl(folder))

`ca.pem` vouches for devices to the broker, and for those of the fleet's own tools, whose names no device can
have. `certificates.json` notes serial numbers, names and dates: nothing secret. A list of those revoked ends
with the authority itself: one that ran out would lock out everybody.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent import keyfile
from agent.fleet import registers
from agent.fleet.keyring import PEM, PKCS8, KeyringError

CERTIFICATE_DAYS = 825
AUTHORITY_DAYS = 3650
TOOL = re.compile(r"fleet\.[a-z0-9][a-z0-9-]{0,30}")
"""A tool of the fleet: no device has a dot in its name, and a dot means nothing in a topic."""
RECORD = "certificates.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A certificate that was given. Dates are RFC 3339."""

    name: str
    until: str
    revoked: str | None = None


def make_authority(folder: Path, tenant: str) -> None:
    """`ca.key` and `ca.pem`: who vouches for devices to the broker, and for nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{tenant} devices")])
    public = key.public_key()
    certificate = (
        _dated(AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    keyfile.write(folder / "ca.key", key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    keyfile.write(folder / "ca.pem", certificate.public_bytes(PEM))


def issue(folder: Path, public: Any, name: str) -> str:
    """A client certificate for a key, under this name alone; it is noted first. Raises KeyringError."""
    authority, key = _authority(folder)
    made = (
        _dated(CERTIFICATE_DAYS)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    until = made.not_valid_after_utc.isoformat()
    _save(folder, {**given(folder), f"{made.serial_number:x}": Given(name=name, until=until)})
    return made.public_bytes(PEM).decode()


def issue_tool(folder: Path, name: str, out: Path) -> tuple[Path, Path]:
    """Certificate and key of a tool of the fleet, as files. Raises KeyringError."""
    if not TOOL.fullmatch(name):
        raise KeyringError(f"expected fleet. and a name of a-z, 0-9 and -, got {name!r}")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = issue(folder, key.public_key(), name)
    out.mkdir(parents=True, exist_ok=True)
    paths = out / f"{name}.pem", out / f"{name}.key"
    keyfile.write(paths[1], key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    keyfile.write(paths[0], certificate.encode())
    return paths


def given(folder: Path) -> dict[str, Given]:
    """All that were given, by serial number in hex. Raises KeyringError."""
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        return {serial: Given(**each) for serial, each in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise KeyringError(f"{path}: expected certificates, got {error}") from error


def revoke(folder: Path, name: str) -> int:
    """All of one name count no more; how many. Raises KeyringError where there is none that does."""
    known = given(folder)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    gone = {
        serial: replace(each, revoked=now)
        for serial, each in known.items()
        if each.name == name and each.revoked is None
    }
    if not gone:
        raise KeyringError(f"expected somebody who has a certificate, got {name!r}")
    _save(folder, {**known, **gone})
    return len(gone)


def crl(folder: Path) -> bytes:
    """The list of those that count no more, in PEM. Raises KeyringError."""
    authority, key = _authority(folder)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(datetime.now(UTC) - timedelta(days=1))
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial, each in sorted(given(folder).items()):
        if each.revoked is not None:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(
                revoked.revocation_date(datetime.fromisoformat(each.revoked)).build()
            )
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM)


def _save(folder: Path, known: Mapping[str, Given]) -> None:
    registers.save(folder / RECORD, known)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError) as error:
        raise KeyringError(f"{folder}: expected ca.pem and ca.key, got {error}") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return authority, key


def _dated(days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    # A device's clock may be a little behind.
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
