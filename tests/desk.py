"""The fleet's books with nobody at the broker: a device's journal as the fleet sees it, and an auditor."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.fleet.audit import Auditor, Birth, Entries, Noted, Outcome, Work
from agent.fleet.device_log import DeviceLog, Duplicate, New
from agent.fleet.findings import Kind
from agent.fleet.store import Store
from agent.ledger import Frontier, leaf_hash
from agent.note import Checkpoint, SignerKey, open_checkpoint, sign
from agent.retention import losses, unwritten
from agent.workflow import Draft, Lane
from tests.test_collect import DEVICE, line

FLEET = SignerKey("fleet-main", Ed25519PrivateKey.from_private_bytes(b"f" * 32))
NOW = 1_800_000_000.0


class Journal:
    """A device's, as far as the fleet can see it: lines, and what is signed about them."""

    def __init__(self, epoch: str = "e1", secret: bytes = b"d" * 32, lines: Iterable[bytes] = ()) -> None:
        self.epoch = epoch
        self.signer = SignerKey(f"test/{DEVICE}/{epoch}", Ed25519PrivateKey.from_private_bytes(secret))
        self.lines = list(lines)
        self.gone: set[int] = set()
        """Sequences that the device has dropped unsent."""

    def grow(self, count: int, **changes: Any) -> "Journal":
        for sequence in range(len(self.lines) + 1, len(self.lines) + count + 1):
            self.lines.append(line(sequence, self.epoch, **changes))
        return self

    def lose(self, *sequences: int) -> "Journal":
        """Drop these, and declare it as a device does."""
        lost = {each: leaf_hash(self.lines[each - 1]) for each in sequences}
        self.gone.update(sequences)
        return self._declare(*losses(Lane.TELEMETRY, lost, DEVICE))

    def drop_unwritten(self, count: int) -> "Journal":
        return self._declare(unwritten(count, DEVICE))

    def _declare(self, *drafts: Draft) -> "Journal":
        for draft in drafts:
            changes = {"type": f"postern.{draft.type}", "data": draft.data, "lane": draft.lane.name.lower()}
            self.grow(1, **changes)
        return self

    def there(self) -> list[int]:
        """Sequences that can be sent."""
        return [each for each in range(1, len(self.lines) + 1) if each not in self.gone]

    def copy(self, size: int) -> "Journal":
        """As it was at a size."""
        other = Journal(self.epoch, lines=self.lines[:size])
        other.signer = self.signer
        return other

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        lines = self.lines[:size]
        root = Frontier().append(*map(leaf_hash, lines)).root()
        return Checkpoint(self.signer.name, len(lines), root)

    def noted(self, size: int | None = None) -> Noted:
        return Noted(DEVICE, sign(self.checkpoint(size).text, self.signer))

    def sent(self, *sequences: int) -> Entries:
        """These entries as a batch; all of them without any named."""
        return batch(*(self.lines[each - 1] for each in sequences or self.there()))

    def born(self) -> Birth:
        key = self.signer.verifier.text
        return Birth(DEVICE, {"online": True, "epoch": self.epoch, "key": key})


def batch(*lines: bytes) -> Entries:
    log = DeviceLog(DEVICE)
    taken = [log.take(each) for each in lines]
    return Entries(DEVICE, [each for each in taken if isinstance(each, New | Duplicate)])


class Desk:
    """An auditor, and all that it has told."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.auditor = Auditor(self.store, FLEET)
        self.told: list[tuple[Kind, str]] = []
        self.receipt: bytes | None = None

    def close(self) -> None:
        self.store.close()

    def take(self, *work: Work, now: float = NOW) -> Outcome:
        outcome = self.auditor.take(work, now)
        self.told += [(each.kind, each.text) for each in outcome.findings]
        self.receipt = outcome.receipts.get(DEVICE, self.receipt)
        return outcome

    @property
    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.told]

    def cosigned(self, journal: Journal) -> int:
        """The size of the newest receipt, checked as a device would."""
        if self.receipt is None:
            return 0
        checkpoint, signers = open_checkpoint(self.receipt, journal.signer.verifier, [FLEET.verifier])
        assert set(signers) == {journal.signer.verifier, FLEET.verifier}
        assert checkpoint == journal.checkpoint(checkpoint.size)
        return checkpoint.size
