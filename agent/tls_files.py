"""What enrolment put in the state folder for TLS, found by itself where the config says nothing of it."""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.keystore import PREFIX

TLS = "tls"
CA, CERTIFICATE, KEY = "ca.pem", "client.pem", "client.key"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; None for what is not there."""

    ca: Path | None
    certificate: Path | None
    key: Path | None


def tls_files(state: Path) -> TlsFiles:
    """Certificate and key only together."""
    ca, certificate, key = state / TLS / CA, state / TLS / CERTIFICATE, tls_key(state)
    both = certificate.exists() and key.exists()
    return TlsFiles(ca if ca.exists() else None, certificate if both else None, key if both else None)


def tls_key(state: Path) -> Path:
    """Where the key is: what systemd handed over, or the file."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    handed = Path(folder) / f"{PREFIX}{TLS}" if folder else None
    return handed if handed is not None and handed.exists() else state / TLS / KEY
