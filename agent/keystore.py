"""Where the keys of this device are, how well each is kept, and how they go.

A key is a credential that systemd hands over in memory (`$CREDENTIALS_DIRECTORY/postern.<name>`), or a file
of 32 bytes in `state/keys`. What a level says is what can be found out here, never what was intended:

- `file`: whoever has the disk has the key. Also said of a credential whose file is still there as well.
- `credential`: systemd handed it over, and what it was decrypted with may lie on the same disk.
- `tpm`: systemd handed it over, and the sealed blob of that name says in its header that a TPM is needed.

After a wipe the keys that open pages and rows are gone, and none is made again before
`postern enrol --renew`. The device key stays: it signs the record, which is evidence.
"""

import binascii
import contextlib
import os
from enum import StrEnum
from pathlib import Path

from agent.keyfile import FRESH, SIZE, BadKeyFile, sync_folder, write
from agent.secret import Secret

NAMES = ("device", "seal", "pepper", "epoch")
OPENING = ("seal", "pepper", "epoch")
"""Keys that open pages and rows: without them everything that is known about people is noise."""
NEXT_SEAL = "seal-next"
"""What takes the place of `seal` once every page is sealed to it."""
GONE = "seal.gone"

FOLDER = "keys"
MARKER = "wiped"
PREFIX = "postern."
SEALED = Path("/etc/credstore.encrypted")
"""Where systemd looks for encrypted credentials, and where ours are put."""
BLOB_LIMIT = 64 * 1024
OVERWRITES = 1
"""On flash no number would be enough: the controller writes elsewhere. One is for disks and for backups."""

STRETCH = 64 * 1024
"""Bytes that are overwritten in one go: a file may be larger than the memory we may use."""

TPM_IDS = frozenset(
    bytes.fromhex(text)
    for text in (
        "0c7cc07b117645919c4b0bea08bc20fe",  # TPM2
        "faf7eb9341e3412ca1a436f95a29362f",  # TPM2 with a signed policy
        "93a894094874449090caf2fc93cab553",  # host key and TPM2
        "af4950a849134eb1a73846304ff30c05",  # host key and TPM2 with a signed policy
    )
)
"""The first 16 bytes of systemd's encrypted credentials tell what they need (systemd, `creds-util.h`)."""


class Level(StrEnum):
    """How well a key is kept, the weakest copy of it."""

    FILE = "file"
    CREDENTIAL = "credential"
    TPM = "tpm"


class Keystore:
    """The keys of one device."""

    def __init__(self, folder: Path, credentials: Path | None = None, sealed: Path = SEALED) -> None:
        self._folder = folder
        self._credentials = credentials
        self._sealed = sealed

    @classmethod
    def of(cls, state: Path) -> "Keystore":
        """Of the device whose state folder this is, with what systemd has handed to this process."""
        return cls.at(state / FOLDER)

    @classmethod
    def at(cls, folder: Path) -> "Keystore":
        """With the key files in this folder."""
        handed = os.environ.get("CREDENTIALS_DIRECTORY")
        return cls(folder, Path(handed) if handed else None)

    def __repr__(self) -> str:
        return f"Keystore({str(self._folder)!r})"

    # -- keys -------------------------------------------------------------------------------------

    def load(self, name: str) -> Secret:
        """A key, made where there is none yet. Raises BadKeyFile, also for what a wipe took."""
        found = self.find(name)
        if found is None and name in OPENING and self.wiped:
            raise BadKeyFile(f"{self._folder / name}: wiped; `postern enrol --renew` makes a new one")
        if found is None:
            check_not_sealed(name, self._sealed)
        return found or self._make(name)

    def find(self, name: str) -> Secret | None:
        """A key that is there, or None. Raises BadKeyFile for one that cannot be used."""
        if name in (*OPENING, NEXT_SEAL) and self.wiped:
            # A credential outlives the wipe of which the marker tells: it is not to be used any more.
            return None
        handed, file = self._read(self._credential(name)), self._read(self._folder / name)
        if handed and file and handed != file:
            raise BadKeyFile(f"{self._folder / name}: expected the key that systemd handed over, got another")
        return handed or file

    def level(self, name: str) -> Level | None:
        """How well a key is kept; None where there is none."""
        if (self._folder / name).exists():
            return Level.FILE
        credential = self._credential(name)
        if credential is None or not credential.exists():
            return None
        return Level.TPM if needs_tpm(self._sealed / f"{PREFIX}{name}") else Level.CREDENTIAL

    def levels(self) -> dict[str, str]:
        """Of every key that is there, for people to see."""
        return {name: level for name in NAMES if (level := self.level(name)) is not None}

    # -- another seal key -------------------------------------------------------------------------

    def seals(self) -> list[Secret]:
        """What pages may be sealed to: the key in force, and the next one where there is one."""
        following = self.find(NEXT_SEAL)
        return [self.load("seal"), *([following] if following else [])]

    def prepare_seal(self) -> None:
        """A next seal key, in place of one that came to nothing. Raises BadKeyFile."""
        self._make(NEXT_SEAL)

    def change_seal(self) -> bool:
        """The next seal key is the one in force from now on, and the one before is gone; whether there was
        one to take its place. Not where systemd hands over the one in force: that is not ours to replace.
        """
        seal, following, gone = (self._folder / name for name in ("seal", NEXT_SEAL, GONE))
        changes = following.exists() and not self._credential_there("seal")
        if changes:
            gone.unlink(missing_ok=True)
            gone.hardlink_to(seal)
            following.replace(seal)
            sync_folder(self._folder)
        overwrite(gone)
        return changes

    # -- going ------------------------------------------------------------------------------------

    @property
    def wiped(self) -> bool:
        """Whether the keys that open rows were taken away, and none has been made since."""
        return (self._folder / MARKER).exists()

    def erase(self, by: str) -> tuple[str, ...]:
        """Take the opening keys away for good: marked first, so that a power cut leaves none in use.

        Returns those of them that are credentials: what they were sealed from is not ours to unlink.
        """
        write(self._folder / MARKER, by.encode())
        for name in (*OPENING, NEXT_SEAL, GONE):
            overwrite(self._folder / name)
            overwrite(self._folder / f"{name}{FRESH}")
        sync_folder(self._folder)
        return tuple(name for name in OPENING if self._credential_there(name))

    def wiped_by(self) -> str | None:
        """Who had them taken away; None where nobody has."""
        try:
            return (self._folder / MARKER).read_text(errors="replace")[:40]
        except OSError:
            return None

    def renew(self) -> None:
        """New opening keys after a wipe. Raises BadKeyFile where systemd still hands over the old ones."""
        if left := [name for name in OPENING if self._credential_there(name)]:
            raise BadKeyFile(f"credentials {', '.join(left)}: expected none from before the wipe, got them")
        (self._folder / MARKER).unlink(missing_ok=True)
        sync_folder(self._folder)
        for name in OPENING:
            self.load(name)

    def _make(self, name: str) -> Secret:
        secret = Secret(os.urandom(SIZE))
        try:
            write(self._folder / name, secret.reveal())
        except OSError as error:
            raise BadKeyFile(f"{self._folder / name}: {error.strerror}") from error
        return secret

    def _credential(self, name: str) -> Path | None:
        return self._credentials and self._credentials / f"{PREFIX}{name}"

    def _credential_there(self, name: str) -> bool:
        credential = self._credential(name)
        return credential is not None and credential.exists()

    def _read(self, path: Path | None) -> Secret | None:
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadKeyFile(f"{path}: {error.strerror}") from error
        if len(content) != SIZE:
            raise BadKeyFile(f"{path}: expected a key of {SIZE} bytes, got {len(content)}")
        return Secret(content)


def check_not_sealed(name: str, sealed: Path = SEALED) -> None:
    """Raises BadKeyFile where the key exists and was only not handed over: another would be in its way."""
    blob = sealed / f"{PREFIX}{name}"
    with contextlib.suppress(PermissionError):
        if blob.exists():
            raise BadKeyFile(f"{blob}: expected systemd to hand it over, as `systemd-run -p` does")


def needs_tpm(blob: Path) -> bool:
    """Whether an encrypted credential says that it opens only with this machine's TPM."""
    try:
        with blob.open("rb") as file:
            text = file.read(BLOB_LIMIT)
        header = binascii.a2b_base64(text)[:16]
    except (OSError, binascii.Error):
        return False
    return header in TPM_IDS


def overwrite(path: Path) -> None:
    """Write zeros over a file where it lies, as far as the medium lets us, and unlink it."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        for _ in range(OVERWRITES):
            file.seek(0)
            size = path.stat().st_size
            for start in range(0, size, STRETCH):
                file.write(bytes(min(STRETCH, size - start)))
            file.flush()
            os.fsync(file.fileno())
    path.unlink(missing_ok=True)
