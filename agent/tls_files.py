"""Key and certificate towards the broker in the state folder, found by itself where the config says nothing.

    tls/client.key, client.pem    from enrolment; the key maybe handed over by systemd
    tls/pair.pem                  key and certificate of the last renewal, in force where there is one
    tls/next.key                  a key that a certificate has been asked for
    tls/next.pem                  that key and its certificate, on trial

What was renewed is one file, so that there is no moment at which key and certificate are of two pairs. What
was in force before is taken away only once the new pair stands in its place.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from agent import keyfile
from agent.keystore import PREFIX, SEALED, Level, needs_tpm, overwrite

TLS = "tls"
CA, CERTIFICATE, KEY = "ca.pem", "client.pem", "client.key"
PAIR, NEXT_KEY, NEXT = "pair.pem", "next.key", "next.pem"
GONE = ".gone"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; None for what is not there."""

    ca: Path | None
    certificate: Path | None
    key: Path | None


def tls_files(state: Path) -> TlsFiles:
    """Certificate and key only together; of a renewed pair they are one file."""
    folder = state / TLS
    ca, certificate, key = folder / CA, folder / CERTIFICATE, tls_key(state)
    if (folder / PAIR).exists():
        certificate = key = folder / PAIR
    both = certificate.exists() and key.exists()
    return TlsFiles(ca if ca.exists() else None, certificate if both else None, key if both else None)


def tls_key(state: Path) -> Path:
    """Where the key of enrolment is: what systemd handed over, or the file."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    handed = Path(folder) / f"{PREFIX}{TLS}" if folder else None
    return handed if handed is not None and handed.exists() else state / TLS / KEY


def tls_level(state: Path, sealed: Path = SEALED) -> Level | None:
    """How well the key in force is kept; None where there is none."""
    key = tls_files(state).key
    if key is None:
        return None
    if key.is_relative_to(state):
        return Level.FILE
    return Level.TPM if needs_tpm(sealed / f"{PREFIX}{TLS}") else Level.CREDENTIAL


class NextPair:
    """The pair that is to be, step by step. A power cut between two of them leaves the one in force."""

    def __init__(self, state: Path) -> None:
        self._folder = state / TLS
        self.path = self._folder / NEXT
        """Key and certificate in one file, where they are on trial."""

    @property
    def on_trial(self) -> bool:
        return self.path.exists()

    @property
    def in_force(self) -> bool:
        """Whether it has taken its place already, and only what was before is still to go."""
        pair = self._folder / PAIR
        return self.on_trial and pair.exists() and pair.read_bytes() == self.path.read_bytes()

    def key(self) -> bytes | None:
        """The key that a certificate is asked for."""
        path = self._folder / NEXT_KEY
        return path.read_bytes() if path.exists() else None

    def keep_key(self, pem: bytes) -> None:
        keyfile.write(self._folder / NEXT_KEY, pem)

    def try_out(self, certificate: bytes) -> None:
        """There is a certificate for the key: both are on trial."""
        keyfile.write(self.path, (self.key() or b"") + certificate)

    def put_in_force(self) -> None:
        keyfile.write(self._folder / PAIR, self.path.read_bytes())

    def done(self) -> None:
        """What is in force needs neither the steps to it nor what was before."""
        if (self._folder / PAIR).exists():
            for name in (KEY, CERTIFICATE):
                _take_away(self._folder / name)
        self.drop()

    def drop(self) -> None:
        """It comes to nothing."""
        for name in (NEXT, NEXT_KEY):
            _take_away(self._folder / name)


def lay_out(state: Path) -> None:
    """The renewed pair as a key of its own beside it, for who wants to seal that."""
    pair = state / TLS / PAIR
    if pair.exists():
        key, _ = _divided(pair.read_bytes())
        keyfile.write(state / TLS / KEY, key)


def fold(state: Path) -> None:
    """The key of the renewed pair is where keys of enrolment are: so is its certificate from now on."""
    pair = state / TLS / PAIR
    if pair.exists():
        _, certificate = _divided(pair.read_bytes())
        keyfile.write(state / TLS / CERTIFICATE, certificate)
        discard_pair(state)


def discard_pair(state: Path) -> None:
    """What enrolment has put in place counts again."""
    _take_away(state / TLS / PAIR)


def _take_away(path: Path) -> None:
    """Under its name there is nothing any more before its content is overwritten: half a key is no key."""
    gone = path.with_name(path.name + GONE)
    if path.exists():
        path.replace(gone)
        keyfile.sync_folder(path.parent)
    overwrite(gone)


def _divided(pair: bytes) -> tuple[bytes, bytes]:
    key, begin, certificate = pair.partition(b"-----BEGIN CERTIFICATE-----")
    return key, begin + certificate
