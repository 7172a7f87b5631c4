"""The fleet's keys: three roots, two of which say who may sign what, those that sign, and one that opens.

    keyring = Keyring.create(folder, "acme", passphrase)      # the ceremony
    keyring = Keyring(folder)
    keyring.signers(Role.BUNDLE)
    keyring.change(Role.HEAD, fresh=1, passphrase=passphrase)

A folder holds `<role>-<n>.key` (a line that names the key, then PEM, for its owner alone), the root that is
in force in `root.jws` and every root there was in `roots/`. Root keys are encrypted with a passphrase each,
and may be kept elsewhere: name their files where they are needed. A key that no root names any more is laid
in `retired/`.
"""

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import fingerprint, keyfile
from agent.documents import Document, Role, RoleKeys, Root, read
from agent.envelope import Envelope, Kind, Refused, issue
from agent.fleet.sealing import Epoch
from agent.jws import Signer, encoded

ROOT_S = 3650 * 86_400
CEREMONY = {
    Role.ROOT: 3,
    Role.HEAD: 1,
    Role.CONFIG: 1,
    Role.BUNDLE: 1,
    Role.REVOCATIONS: 1,
    Role.COMMAND: 3,
    Role.EMERGENCY: 1,
    Role.TIME: 1,
    Role.RECEIPT: 1,
    Role.GRANT: 1,
}
"""How many keys each role begins with. Commands that reach far take two of the three."""
THRESHOLDS = {Role.ROOT: 2}

EPOCH, SEAL = "epoch", "seal"
NUMBERED = (EPOCH, SEAL)
"""Keys that no root names. The newest is used; older ones still open what was sealed before."""
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8

Passphrase = Callable[[Path], bytes]
"""Asks for the passphrase of a key file."""


class KeyringError(Exception):
    """A key, or a folder of them, that cannot be used: place, expected and found."""


class Keyring:
    """The keys in one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises KeyringError."""
        self.folder = folder
        self.document = self._read_root()
        """The root in force."""

    @classmethod
    def create(cls, folder: Path, tenant: str, passphrase: Passphrase) -> Self:
        """The ceremony: all keys, the first root and the first epoch key. Raises KeyringError."""
        if folder.exists() and any(folder.iterdir()):
            raise KeyringError(f"{folder}: expected an empty folder, got one with files")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = {role: [_make(folder, role, passphrase) for _ in range(n)] for role, n in CEREMONY.items()}
        body = Root(
            epoch=1,
            keys={each.kid: encoded(each.public) for signers in made.values() for each in signers},
            roles={
                role.value: RoleKeys(kids=[each.kid for each in signers], threshold=THRESHOLDS.get(role, 1))
                for role, signers in made.items()
            },
        )
        _save_root(folder, tenant, 1, body, made[Role.ROOT])
        keyring = cls(folder)
        for name in NUMBERED:
            keyring.renew(name)
        return keyring

    @property
    def root(self) -> Root:
        return self.document.body

    @property
    def root_at(self) -> int:
        """When it was issued, in seconds since 1970: what its new keys sign must not be older."""
        return self.document.claims.iat

    @property
    def fingerprint(self) -> str:
        """Of the root in force: what an operator compares when a device is enrolled."""
        return fingerprint.of_root(self.document.raw)

    @property
    def tenant(self) -> str:
        return self.document.claims.aud.partition("/")[0]

    def roots(self) -> list[bytes]:
        """Every root there was, oldest first: a device that was away goes from one to the next."""
        found = sorted((self.folder / "roots").glob("*.jws"), key=lambda path: int(path.stem))
        return [path.read_bytes() for path in found]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time issues documents: two must not give the same version."""
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # -- signing ----------------------------------------------------------------------------------

    def signers(self, role: Role) -> list[Signer]:
        """The keys of a role that are here, the newest first. Raises KeyringError for none."""
        return [_load(path) for path in reversed(self._named(role, self._files(role)))]

    def root_signers(
        self, passphrase: Passphrase, elsewhere: Sequence[Path] = (), going: Collection[str] = ()
    ) -> list[Signer]:
        """As many root keys as it takes, of these files or those in the folder. Raises KeyringError.

        Those that stay are asked for before those that are `going`.
        """
        threshold = self.root.threshold(Role.ROOT)
        paths = self._named(Role.ROOT, elsewhere or self._files(Role.ROOT))
        paths.sort(key=lambda path: _kid(path) in going)
        if len(paths) < threshold:
            raise KeyringError(
                f"{self.folder}: expected {threshold} root keys to sign with, got {len(paths)}"
            )
        return [_load(path, passphrase) for path in paths[:threshold]]

    def _named(self, role: Role, paths: Sequence[Path]) -> list[Path]:
        """Those of the files whose keys the root names, in its order. Raises KeyringError for none."""
        found = {_kid(path): path for path in paths}
        ours = [found[kid] for kid in self.root.kids(role) if kid in found]
        if not ours:
            raise KeyringError(f"{self.folder}: expected a key of role {role} that the root names, got none")
        return ours

    def epoch(self) -> Epoch:
        """The newest epoch key. Raises KeyringError."""
        number = self._numbers(EPOCH)[-1]
        return Epoch(number, self._secret(EPOCH, number))

    def seals(self) -> list[X25519PrivateKey]:
        """What opens the codes that lockers have made, the newest first. Raises KeyringError."""
        numbers = reversed(self._numbers(SEAL))
        return [X25519PrivateKey.from_private_bytes(self._secret(SEAL, number)) for number in numbers]

    @property
    def seal_key(self) -> str | None:
        """What lockers seal their codes for, as their configs name it; None in a folder that has none yet."""
        return encoded(self.seals()[0].public_key().public_bytes_raw()) if self._found(SEAL) else None

    # -- changing ---------------------------------------------------------------------------------

    def renew(self, name: str) -> None:
        """A new epoch or seal key: it opens nothing that was sealed before."""
        number = max(self._found(name), default=0) + 1
        keyfile.write(self._file(name, number), os.urandom(keyfile.SIZE))

    def change(
        self,
        role: Role,
        *,
        fresh: int = 0,
        gone: Collection[str] = (),
        passphrase: Passphrase,
        elsewhere: Sequence[Path] = (),
    ) -> None:
        """So many new keys in a role, and these no more: a new root says so. Raises KeyringError.

        Two root keys that stay, or that go, have to sign it, and of a new root role two as well.
        """
        root = self.root
        kept = [kid for kid in root.kids(role) if kid not in gone]
        if len(kept) + fresh < root.threshold(role):
            raise KeyringError(
                f"{role}: expected at least {root.threshold(role)} keys to be left, got {len(kept) + fresh}"
            )
        old = self.root_signers(passphrase, elsewhere, gone)
        made = [_make(self.folder, role, passphrase) for _ in range(fresh)]
        kids = [*kept, *(each.kid for each in made)]
        roles = {**root.roles, role.value: RoleKeys(kids=kids, threshold=root.threshold(role))}
        named = {kid for keys in roles.values() for kid in keys.kids}
        known = {**root.keys, **{each.kid: encoded(each.public) for each in made}}
        body = Root(epoch=root.epoch, keys={kid: known[kid] for kid in sorted(named)}, roles=roles)
        self._replace_root(body, [*old, *(made if role is Role.ROOT else ())])
        self._retire(role)

    def restart(self, *, passphrase: Passphrase, elsewhere: Sequence[Path] = ()) -> None:
        """Have all versions start anew, for documents made from now on: the next epoch of the root.

        Raises KeyringError.
        """
        body = self.root.model_copy(update={"epoch": self.root.epoch + 1})
        self._replace_root(body, self.root_signers(passphrase, elsewhere))

    @property
    def restarted_at(self) -> int:
        """When versions last started anew, in seconds since 1970: older documents count no more. Raises
        KeyringError."""
        if self.root.epoch == 1:
            return 0
        epochs = [_opened(raw, self.folder / "roots") for raw in self.roots()]
        return min(each.claims.iat for each in epochs if each.body.epoch == self.root.epoch)

    def role_of(self, kid: str) -> Role:
        """Raises KeyringError for a key that the root does not name."""
        for role in Role:
            if kid in self.root.kids(role):
                return role
        raise KeyringError(f"{kid}: expected a key that the root names, got one that it does not")

    def _retire(self, role: Role) -> None:
        """Lay aside the files of keys that are in no root any more."""
        for path in self._files(role):
            if _kid(path) not in self.root.keys:
                (self.folder / "retired").mkdir(mode=0o700, exist_ok=True)
                path.replace(self.folder / "retired" / path.name)
        keyfile.sync_folder(self.folder)

    # -- files ------------------------------------------------------------------------------------

    def _files(self, role: Role) -> list[Path]:
        return sorted(self.folder.glob(f"{role}-*.key"), key=lambda path: int(path.stem.rpartition("-")[2]))

    def _found(self, name: str) -> list[int]:
        names = self.folder.glob(f"{name}-*.key")
        return sorted(int(path.stem.rpartition("-")[2]) for path in names)

    def _numbers(self, name: str) -> list[int]:
        """Raises KeyringError for none."""
        found = self._found(name)
        if not found:
            raise KeyringError(
                f"{self.folder}: expected {name}-<n>.key, got none; `keys rotate {name}` makes one"
            )
        return found

    def _secret(self, name: str, number: int) -> bytes:
        """Raises KeyringError."""
        try:
            return keyfile.load(self._file(name, number))
        except keyfile.BadKeyFile as bad:
            raise KeyringError(str(bad)) from bad

    def _file(self, name: str, number: int) -> Path:
        return self.folder / f"{name}-{number}.key"

    def _replace_root(self, body: Root, signers: Sequence[Signer]) -> None:
        _save_root(self.folder, self.tenant, self.document.ver + 1, body, signers)
        self.document = self._read_root()

    def _read_root(self) -> Document[Root]:
        path = self.folder / "root.jws"
        try:
            return _opened(path.read_bytes(), path)
        except OSError as error:
            raise KeyringError(f"{path}: {error.strerror}; `postern fleet keys init` makes one") from error


def _opened(raw: bytes, path: Path) -> Document[Root]:
    """A root that its own keys have signed. Raises KeyringError."""
    try:
        envelope = Envelope.parse(Kind.ROOT, raw)
        claims = envelope.claims(Kind.ROOT)
        signed_by = tuple(each.kid for each in envelope.jws.signatures)
        body: Root = read(Kind.ROOT, envelope, signed_by, claims).body
        signers = envelope.signers(body.public(Role.ROOT), body.threshold(Role.ROOT))
        return read(Kind.ROOT, envelope, signers, claims)
    except Refused as refused:
        raise KeyringError(f"{path}: {refused}") from refused


def _save_root(folder: Path, tenant: str, ver: int, body: Root, signers: Sequence[Signer]) -> None:
    now = int(time.time())
    raw = issue(Kind.ROOT, body, signers, aud=f"{tenant}/*", iat=now, exp=now + ROOT_S, ver=ver)
    keyfile.write(folder / "roots" / f"{ver}.jws", raw)
    keyfile.write(folder / "root.jws", raw)


def _make(folder: Path, role: Role, passphrase: Passphrase | None) -> Signer:
    """A new key of a role in a file of its own."""
    taken = [*folder.glob(f"{role}-*.key"), *(folder / "retired").glob(f"{role}-*.key")]
    number = max((int(path.stem.rpartition("-")[2]) for path in taken), default=0) + 1
    path = folder / f"{role}-{number}.key"
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if role is Role.ROOT:
        assert passphrase is not None
        encryption = serialization.BestAvailableEncryption(passphrase(path))
    signer = Signer(Ed25519PrivateKey.generate())
    keyfile.write(path, f"kid {signer.kid}\n".encode() + signer.private.private_bytes(PEM, PKCS8, encryption))
    return signer


def _kid(path: Path) -> str:
    """Which key is in a file, without its passphrase. Raises KeyringError."""
    try:
        first = path.read_bytes()[:21].decode("ascii")
    except OSError as error:
        raise KeyringError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        first = ""
    if not first.startswith("kid ") or not first.endswith("\n"):
        raise KeyringError(f"{path}: expected a line that names the key, got another")
    return first[4:20]


def _load(path: Path, passphrase: Passphrase | None = None) -> Signer:
    """Raises KeyringError."""
    try:
        content = path.read_bytes()
        secret = passphrase(path) if b"ENCRYPTED" in content and passphrase is not None else None
        key = serialization.load_pem_private_key(content, secret)
    except OSError as error:
        raise KeyringError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise KeyringError(f"{path}: expected a PEM key and its passphrase, got another") from error
    if not isinstance(key, Ed25519PrivateKey) or Signer(key).kid != _kid(path):
        raise KeyringError(f"{path}: expected the Ed25519 key {_kid(path)}, got another")
    return Signer(key)
