"""Holds a ledger to what its device has signed: which entries are the device's, and how far it is cosigned.

Entries carry no signature, and neither do the hashes that stand for those that will not come. Of everything
that is known under an id only what gives the signed root is the device's. The tree that is agreed in this
way only ever grows. A receipt follows it as far as every entry is here, or declared by an entry that is
itself agreed: whoever can forge a declaration cannot have an entry cosigned that has not come.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import Protocol

from agent.fleet.device_log import Entry
from agent.fleet.findings import Judged, Kind, Verdict, judge
from agent.fleet.ledger_key import opened
from agent.fleet.store import Ledger, Store
from agent.ledger import Frontier
from agent.note import BadNote, Checkpoint, SignerKey, cosign

TRIED = 1 << 20
"""Hashes computed at most to find the device's own among what is known under the same ids."""


class Tell(Protocol):
    """Report a finding: kind, device, epoch, what tells it from others of the kind, and words. One that is
    `settled` asks for nothing to be done.
    """

    def __call__(
        self, kind: Kind, device: str, epoch: str, about: str, text: str, *, settled: bool = False
    ) -> None: ...


class Settling:
    """Inside the store's transactions."""

    def __init__(self, store: Store, signer: SignerKey | None, tell: Tell) -> None:
        """Without a signer nothing is cosigned."""
        self._store, self._signer, self._tell = store, signer, tell

    def settle(self, ledger: Ledger, now: float) -> bool:
        """Judge the checkpoints whose entries are all known. Whether there is a new receipt."""
        store, before = self._store, ledger.agreed.size
        whole = store.extend(ledger)
        for size, root, note in store.notes.pending(ledger.id, whole):
            ledger = self._again(ledger)
            self._weigh(ledger, Checkpoint(ledger.origin, size, root), note)
        ledger = self._again(ledger)
        if ledger.agreed.size > before:
            self._acquit(ledger, now)
        for lie in store.claims.vouch(ledger.id, ledger.agreed.size):
            text = f"entry {lie.by} declares another hash for entry {lie.sequence} than was signed"
            store.bar(ledger.id)
            self._tell(Kind.FORK, ledger.device, ledger.epoch, f"declared by {lie.by}", text)
        accounted = store.account(ledger, ledger.agreed.size)
        return self._signer is not None and self._cosign(ledger, accounted, self._signer)

    def judge(
        self,
        ledger: Ledger,
        checkpoint: Checkpoint,
        note: bytes,
        *,
        rival: bytes | None = None,
        computed: bytes | None = None,
    ) -> bool:
        """Store what to think of a checkpoint, and tell what is wrong with it. Whether it is agreed."""
        agreed = ledger.agreed.size
        judged = judge(checkpoint, rival=rival, signed=ledger.signed, agreed=agreed, computed=computed)
        return self._enter(ledger, checkpoint, note, judged)

    def _acquit(self, ledger: Ledger, now: float) -> None:
        """A root that the entries received did not have is right after all: some of them were forged."""
        store = self._store
        for size, root, note in store.notes.refused(ledger.id, ledger.agreed.size):
            checkpoint = Checkpoint(ledger.origin, size, root)
            if store.root(ledger.id, size) == root and store.notes.rival(ledger.id, checkpoint) is None:
                store.notes.keep(ledger.id, checkpoint, note, Verdict.AGREED)
                about = _about(checkpoint)
                store.findings.settle(ledger.device, ledger.epoch, Kind.FORK, about, now)

    def _again(self, ledger: Ledger) -> Ledger:
        """As it is now."""
        return self._store.ledger(ledger.device, ledger.epoch, ledger.stirred)

    def _cosign(self, ledger: Ledger, accounted: int, signer: SignerKey) -> bool:
        found, last = (
            self._store.notes.largest_agreed(ledger.id, accounted),
            self._store.notes.receipt(ledger.id),
        )
        if found is None or self._again(ledger).barred or (last is not None and found[0] <= last[0]):
            return False
        self._store.notes.cosigned(ledger.id, found[0], cosign(found[1], signer))
        return True

    # -- one checkpoint ---------------------------------------------------------------------------

    def _weigh(self, ledger: Ledger, checkpoint: Checkpoint, note: bytes) -> None:
        agreed = ledger.agreed
        if checkpoint.size <= agreed.size:
            self.judge(ledger, checkpoint, note, computed=self._store.root(ledger.id, checkpoint.size))
            return
        leaves = self._store.leaves(ledger.id, agreed.size, checkpoint.size)
        grown = agreed.append(*leaves)
        if grown.root() != checkpoint.root:
            if self._branches_off(ledger, checkpoint):
                text = f"signed size {checkpoint.size}, which the agreed {agreed.size} entries do not begin"
                judged = Judged(Verdict.REFUSED, Kind.ROLLBACK, text, proven=True)
                self._enter(ledger, checkpoint, note, judged)
                return
            leaves, grown = self._device_s_own(ledger, checkpoint, leaves, grown)
        if self.judge(ledger, checkpoint, note, computed=grown.root()):
            self._store.agree(ledger, grown, leaves)
            if agreed.size == 0:
                self._opened_by(ledger)

    def _enter(self, ledger: Ledger, checkpoint: Checkpoint, note: bytes, judged: Judged) -> bool:
        self._store.notes.keep(ledger.id, checkpoint, note, judged.verdict)
        if judged.proven:
            self._store.bar(ledger.id)
        if judged.kind is not None:
            self._tell(judged.kind, ledger.device, ledger.epoch, _about(checkpoint), judged.text)
        return judged.verdict is Verdict.AGREED

    def _device_s_own(
        self, ledger: Ledger, checkpoint: Checkpoint, leaves: list[bytes], grown: Frontier
    ) -> tuple[list[bytes], Frontier]:
        """The leaves that the device has signed, if they are among all that is known."""
        start = ledger.agreed.size
        rivals = self._store.rivals(ledger.id, start, checkpoint.size)
        for picked in _choices(rivals, leaves, start):
            tree = ledger.agreed.append(*picked)
            if tree.root() == checkpoint.root:
                for index in rivals:
                    if picked[index - start] != leaves[index - start]:
                        self._store.swap(ledger.id, index, picked[index - start])
                return picked, tree
        return leaves, grown

    def _branches_off(self, ledger: Ledger, checkpoint: Checkpoint) -> bool:
        """Whether the device has signed other entries in place of agreed ones."""
        rivals = self._store.rivals(ledger.id, 0, ledger.agreed.size)
        if not rivals:
            return False
        start = min(rivals)
        before = self._store.frontier(ledger.id, start)
        rivals = self._store.rivals(ledger.id, start, checkpoint.size)
        leaves = self._store.leaves(ledger.id, start, checkpoint.size)
        picked = [rivals.get(start + number, [leaf])[-1] for number, leaf in enumerate(leaves)]
        return before.append(*picked).root() == checkpoint.root

    # -- a new journal ----------------------------------------------------------------------------

    def _opened_by(self, ledger: Ledger) -> None:
        """Tell of a journal that is not the device's first, and of what it names before it."""
        others = [each for each in self._store.ledgers(ledger.device) if each.id != ledger.id and each.signed]
        if not others:
            return
        device, epoch = ledger.device, ledger.epoch
        before = self._previous(ledger)
        if before is None:
            self._tell(Kind.NEW_EPOCH, device, epoch, "", "names no signed size of a journal before it")
            return
        checkpoint, followed = before
        text = f"follows {followed} at size {checkpoint.size}"
        self._tell(Kind.NEW_EPOCH, device, epoch, "", text, settled=True)
        for other in others:
            if other.epoch == followed and checkpoint.size < other.agreed.size:
                text = (
                    f"journal {epoch} follows size {checkpoint.size}; {other.agreed.size} were agreed before"
                )
                self._tell(Kind.ROLLBACK, device, followed, epoch, text)

    def _previous(self, ledger: Ledger) -> tuple[Checkpoint, str] | None:
        """The checkpoint that its first entry names, and the epoch it is of; only the device's own counts."""
        line, pinned = self._store.line(ledger.id, 1), self._store.pinned(ledger.device)
        entry: Entry = json.loads(line) if line else {}
        previous = entry["data"].get("previous") if entry.get("type") == "postern.journal.opened" else None
        note = previous.get("note") if isinstance(previous, dict) else None
        if not isinstance(note, str) or pinned is None:
            return None
        try:
            return opened(ledger.device, note.encode(errors="replace"), pinned)
        except BadNote:
            return None


def _about(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.size} {checkpoint.root.hex()}"


def _choices(rivals: dict[int, list[bytes]], leaves: Sequence[bytes], start: int) -> Iterator[list[bytes]]:
    """Ways to pick a leaf for every index: first what came last, then any other, as many as is bearable."""
    if not rivals:
        return
    options = [[leaves[index - start], *others] for index, others in rivals.items()]
    picks = [tuple(each[-1] for each in options)]
    for pick in (*picks, *islice(product(*options), 1, TRIED // len(leaves))):
        chosen = list(leaves)
        for index, leaf in zip(rivals, pick, strict=True):
            chosen[index - start] = leaf
        yield chosen
