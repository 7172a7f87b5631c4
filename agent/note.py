"""Signed notes and the checkpoints of the ledger that they carry (C2SP signed-note, C2SP tlog-checkpoint).

A note is text that ends in a newline, an empty line, and one line for each signature:

    acme/locker-17/5f1e0c9a77b2
    128
    qqjz2oKJmBtD9pPvIgiX9UYH3VNT+b9WR9qAgeXt/6E=

    — acme/locker-17/5f1e0c9a77b2 <base64 of the key id, then the signature>

Every signature is Ed25519 over the text. A `Note` is what arrived; only `open_note` gives an `Opened` one.
The fleet cosigns by adding a line of its own, so that one note names everyone who vouches for the text.

A checkpoint is a promise: every later one continues it. Sign one only through `promise`, and cosign one only
after `check_continues`: neither lets two histories be vouched for.
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.ledger import EMPTY_ROOT, HASH, verify_consistency

CAP = 128 * 1024
"""Bytes in a note. Signature lines may be of kinds unknown here, up to nearly 7 kB each."""
SIGNATURES = 16
"""Signature lines in a note: what the standard says every verifier takes, and no more."""
LARGEST = 2**63 - 1

_ED25519 = b"\x01"
_KEY_ID = 4
_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NOT_IN_NAMES = re.compile(r"[\x00-\x20+\s]")
_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


class BadNote(Exception):
    """Malformed, badly signed or not signed by anyone known: the text means nothing."""


class TwoHistories(Exception):
    """The new checkpoint does not continue the last one: signing it would vouch for two histories."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and the Ed25519 public key that signs under it."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public) != 32:
            raise BadNote(f"expected a public key of 32 bytes, got {len(self.public)}")

    @property
    def id(self) -> bytes:
        """Four bytes that find the key; they prove nothing."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID]

    @property
    def text(self) -> str:
        """As it is configured and published: name, key id and key."""
        return f"{self.name}+{self.id.hex()}+{_encoded(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadNote."""
        parts = text.split("+", 2)  # the key itself may hold a plus
        if len(parts) != 3:
            raise BadNote("expected a verifier key as name+id+key")
        material = _decoded(parts[2])
        if material[:1] != _ED25519:
            raise BadNote(f"expected an Ed25519 key (01), got {material[:1].hex()}")
        key = cls(parts[0], material[1:])
        if parts[1] != key.id.hex():
            raise BadNote(f"expected key id {key.id.hex()}, got {parts[1]!r}")
        return key

    def verifies(self, text: str, signature: bytes) -> bool:
        try:
            _public_key(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A name and the private key that signs under it."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, text: str) -> "Signature":
        return Signature(self.name, self.verifier.id, self.private.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: whose it claims to be, and its bytes."""

    name: str
    key_id: bytes
    value: bytes

    @classmethod
    def parse(cls, line: str) -> Self:
        """Raises BadNote."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH):
            raise BadNote(f"expected a signature line, got {line[:40]!r}")
        _check_name(name)
        value = _decoded(encoded)
        if len(value) <= _KEY_ID:
            raise BadNote(f"expected a signature after the key id of {name}, got {len(value)} bytes")
        return cls(name, value[:_KEY_ID], value[_KEY_ID:])

    @property
    def line(self) -> str:
        return f"{_DASH}{self.name} {_encoded(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A well-formed note of which nothing has been verified."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises BadNote."""
        if len(raw) > CAP:
            raise BadNote(f"expected a note of at most {CAP} bytes, got {len(raw)}")
        try:
            whole = raw.decode()
        except UnicodeDecodeError as error:
            raise BadNote("expected UTF-8") from error
        if _CONTROL.search(whole):
            raise BadNote("expected no control characters but newlines")
        text, empty_line, lines = whole.rpartition("\n\n")
        if not empty_line or not lines.endswith("\n"):
            raise BadNote("expected a text, an empty line, and signature lines up to the last newline")
        found = lines[:-1].split("\n")
        if len(found) > SIGNATURES:
            raise BadNote(f"expected at most {SIGNATURES} signatures, got {len(found)}")
        return cls(text + "\n", tuple(Signature.parse(line) for line in found))

    @property
    def raw(self) -> bytes:
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class Opened:
    """A text, and the keys whose signatures on it were verified: at least one."""

    text: str
    signers: tuple[VerifierKey, ...]


def open_note(raw: bytes, keys: Collection[VerifierKey]) -> Opened:
    """Raises BadNote unless a known key signed it, and every signature that names a known key is good.

    Signatures of others are ignored.
    """
    note = Note.parse(raw)
    known = _by_name_and_id(keys)
    signers: list[VerifierKey] = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.verifies(note.text, signature.value):
            raise BadNote(f"bad signature of {key.name}+{key.id.hex()}")
        if key not in signers:
            signers.append(key)
    if not signers:
        raise BadNote("expected a signature of a known key, got none")
    return Opened(note.text, tuple(signers))


def sign(text: str, *signers: SignerKey) -> bytes:
    """A note with a signature of each. Raises BadNote for a text that no note can carry."""
    return _checked(Note(text, tuple(signer.sign(text) for signer in signers)))


def cosign(raw: bytes, signer: SignerKey) -> bytes:
    """The same note with this signature after the others; an earlier one of the same key is replaced.

    Nothing is verified here: open the note, and check what it says, first. Raises BadNote.
    """
    note = Note.parse(raw)
    own = signer.sign(note.text)
    others = (s for s in note.signatures if (s.name, s.key_id) != (own.name, own.key_id))
    return _checked(Note(note.text, (*others, own)))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of one ledger. Its origin is `<tenant>/<device>/<epoch>`: a new epoch is another ledger."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        _check_name(self.origin)
        if not 0 <= self.size <= LARGEST:
            raise BadNote(f"expected a size from 0 to {LARGEST}, got {self.size}")
        if len(self.root) != HASH:
            raise BadNote(f"expected a root of {HASH} bytes, got {len(self.root)}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise BadNote("expected the root of the empty tree with size 0")

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_encoded(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadNote. Extension lines are allowed and say nothing to us."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise BadNote("expected origin, size and root, each on a line, and no empty line")
        origin, size, root = lines[:3]
        if not _DECIMAL.fullmatch(size):
            raise BadNote(f"expected a decimal size, got {size[:20]!r}")
        return cls(origin, int(size), _decoded(root))


def open_checkpoint(
    raw: bytes, ledger: VerifierKey, others: Collection[VerifierKey] = ()
) -> tuple[Checkpoint, tuple[VerifierKey, ...]]:
    """What `ledger` signed about itself, and all of these keys that signed it. Raises BadNote."""
    opened = open_note(raw, [ledger, *others])
    if ledger not in opened.signers:
        raise BadNote(f"expected a signature of {ledger.name}, got none")
    checkpoint = Checkpoint.parse(opened.text)
    if checkpoint.origin != ledger.name:
        raise BadNote(f"expected a checkpoint of {ledger.name}, got one of {checkpoint.origin}")
    return checkpoint, opened.signers


def check_continues(last: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Raises TwoHistories unless `proof` shows that `new` begins with all of `last`.

    `last` is the newest checkpoint signed or cosigned for this origin; None only when there is none yet.
    """
    if last is None:
        return
    if new.origin != last.origin:
        raise TwoHistories(f"expected a checkpoint of {last.origin}, got one of {new.origin}")
    if new.size < last.size:
        raise TwoHistories(f"expected at least the {last.size} leaves already signed, got {new.size}")
    if not verify_consistency(last.size, last.root, new.size, new.root, proof):
        raise TwoHistories(f"expected size {new.size} to continue the signed size {last.size}: it does not")


def promise(new: Checkpoint, signer: SignerKey, *, last: Checkpoint | None, proof: Sequence[bytes]) -> bytes:
    """The signed note of `new`. Make it durable as the last one before it leaves. Raises TwoHistories."""
    check_continues(last, new, proof)
    return sign(new.text, signer)


@lru_cache(maxsize=32)
def _public_key(raw: bytes) -> Ed25519PublicKey:
    """Thousands of checkpoints are of one key."""
    return Ed25519PublicKey.from_public_bytes(raw)


def _by_name_and_id(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise ValueError(f"two keys share the name and id {key.name}+{key.id.hex()}")
    return known


def _checked(note: Note) -> bytes:
    """What is written must be read back as the same note."""
    raw = note.raw
    if Note.parse(raw) != note:
        raise BadNote("expected a text that ends in a newline")
    return raw


def _check_name(name: str) -> None:
    if not name or _NOT_IN_NAMES.search(name):
        raise BadNote(f"expected a name without spaces and plus signs, got {name[:80]!r}")


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decoded(text: str) -> bytes:
    """Canonical base64 only: one text for each value."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadNote(f"expected base64, got {text[:40]!r}") from error
    if _encoded(value) != text:
        raise BadNote(f"expected canonical base64, got {text[:40]!r}")
    return value
