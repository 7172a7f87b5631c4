"""Certificates towards the broker: a key, what asks for one, and whether an answer is what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class BadCertificate(Exception):
    """Not what was asked for: expected and found."""


@dataclass(frozen=True, slots=True)
class Life:
    """From when until when a certificate is good."""

    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        return cls(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def left(self, now_s: float) -> float:
        """The share of it that is still to come; below 0 once it is over."""
        whole = (self.ends - self.begins).total_seconds()
        return (self.ends.timestamp() - now_s) / max(1.0, whole)


def make_key() -> bytes:
    """EC P-256, in PEM."""
    fresh = ec.generate_private_key(ec.SECP256R1())
    return fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_of(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Raises BadCertificate."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"{where}: expected a private key in PEM, got something else") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate(f"{where}: expected an elliptic curve key, got {type(key).__name__}")
    return key


def csr(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    """What asks for a certificate under this name, in PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    """Raises BadCertificate."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise BadCertificate(f"{where}: expected certificates in PEM, got something else") from error


def in_file(path: Path) -> x509.Certificate:
    """The first in a file. Raises BadCertificate."""
    try:
        return certificates(path.read_bytes(), str(path))[0]
    except OSError as error:
        raise BadCertificate(f"{path}: {error.strerror}") from error


def check_owner(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, device: str) -> None:
    """Raises BadCertificate unless it is for this key, and under this name alone."""
    if certificate.public_key().public_bytes(*PUBLIC) != key.public_key().public_bytes(*PUBLIC):
        raise BadCertificate("certificate: expected one for this device's TLS key, got one for another")
    names: list[Any] = [
        each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    if names != [device]:
        raise BadCertificate(f"certificate: expected the name {device}, got {', '.join(map(str, names))}")


def check_renewed(
    chain: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    device: str,
    *,
    before: x509.Certificate,
    now_s: float,
) -> bytes:
    """The new certificate in PEM. Raises BadCertificate.

    `chain` is that certificate and the authority's own. The authority to believe is the one that has issued
    the certificate in force: enrolment brought that.
    """
    if len(chain) != 2:
        raise BadCertificate(f"chain: expected a certificate and its authority's, got {len(chain)}")
    (new, *_), (authority, *_) = (certificates(each.encode(), "chain") for each in chain)
    check_owner(new, key, device)
    for each, what in ((before, "the one in force"), (new, "the new one")):
        try:
            each.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise BadCertificate(f"authority: expected the one that issued {what}, got another") from error
    life = Life.of(new)
    if not life.begins.timestamp() <= now_s < life.ends.timestamp():
        raise BadCertificate(f"certificate: expected one for now, got {life.begins} to {life.ends}")
    if life.ends < before.not_valid_after_utc:
        raise BadCertificate(
            f"certificate: expected one until {before.not_valid_after_utc} at least, got {life.ends}"
        )
    return new.public_bytes(Encoding.PEM)
