"""A fleet's keys and its devices' requests, made while a test runs."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from agent.documents import Role
from agent.envelope import Kind, issue
from agent.fleet.certificates import make_authority
from agent.fleet.enrolment import enrol, read_request
from agent.fleet.keyring import PEM, Keyring
from agent.jws import Signer, encoded

TENANT, DEVICE = "acme", "van-0042"


def passphrase(path: Path) -> bytes:
    """Another one for each key file."""
    return f"correct horse {path.stem}".encode()


def ceremony(folder: Path) -> Keyring:
    keyring = Keyring.create(folder, TENANT, passphrase)
    make_authority(folder, TENANT)
    return keyring


def replaced(keyring: Keyring, role: Role, kids: Collection[str], elsewhere: Sequence[Path] = ()) -> None:
    """New keys in place of these, at once."""
    keyring.change(role, fresh=len(kids), gone=kids, passphrase=passphrase, elsewhere=elsewhere)


def csr(device: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(PEM).decode()


def request(
    device: str = DEVICE,
    *,
    sign: Signer | None = None,
    seal: X25519PrivateKey | None = None,
    by: Signer | None = None,
    aud: str = f"{TENANT}/*",
    **body: Any,
) -> bytes:
    """As the device writes it; `by` another key than it names."""
    sign = sign or Signer(Ed25519PrivateKey.generate())
    seal = seal or X25519PrivateKey.generate()
    told = {
        "device": device,
        "tenant": TENANT,
        "sign_key": encoded(sign.public),
        "seal_key": encoded(seal.public_key().public_bytes_raw()),
        "csr": None,
        "claim": None,
        "levels": {"device": "file", "seal": "file"},
    }
    return issue(Kind.ENROLMENT, {**told, **body}, [by or sign], aud=aud, iat=1, exp=2**37, ver=1)


def enrolled(keyring: Keyring, device: str = DEVICE, **values: Any) -> dict[str, Any]:
    return enrol(keyring, read_request(request(device, **values), TENANT))
