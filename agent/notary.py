"""Signs what the journal has become: a checkpoint over the tree of all its entries.

Never two histories: a checkpoint is signed only if it continues the one signed before, which is read from
the file itself. The device key serves every epoch; its name is the epoch's origin, as C2SP wants it.
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.ledger import Frontier
from agent.note import Checkpoint, SignerKey, TwoHistories, VerifierKey, sign

EVERY = 64
"""Entries between two checkpoints."""


class Notary:
    """Signs for one epoch. Knows what was signed last, and is told when that is durable."""

    def __init__(self, key: bytes, origin: str, last: Checkpoint | None, note: bytes | None) -> None:
        self._signer = SignerKey(origin, Ed25519PrivateKey.from_private_bytes(key))
        self.last = last
        self.note = note
        """The last checkpoint as it was signed, once it is durable."""

    @property
    def verifier(self) -> VerifierKey:
        """What a stranger needs to check this epoch."""
        return self._signer.verifier

    def news(self, size: int) -> bool:
        """Whether there is anything that the last checkpoint does not cover."""
        return size > (self.last.size if self.last else 0)

    def due(self, size: int) -> bool:
        """Whether so many entries are a reason to sign by themselves."""
        return size - (self.last.size if self.last else 0) >= EVERY

    def sign(self, frontier: Frontier) -> tuple[Checkpoint, bytes]:
        """A checkpoint of the tree, and its note, not to leave before it is durable. Raises TwoHistories.

        The tree only ever grows by appending, from the frontier that was checked against the last
        checkpoint at opening; so a larger one continues it.
        """
        checkpoint = Checkpoint(self._signer.name, frontier.size, frontier.root())
        last = self.last
        if last and (checkpoint.size < last.size or (checkpoint.size == last.size and checkpoint != last)):
            raise TwoHistories(f"signed size {last.size} before, asked to sign size {checkpoint.size}")
        return checkpoint, sign(checkpoint.text, self._signer)

    def signed(self, checkpoint: Checkpoint, note: bytes) -> None:
        """What `sign` returned is on stable storage."""
        self.last, self.note = checkpoint, note
