"""Keeps the books on every device: stores what it sends, holds it to what it has signed, and cosigns.

    auditor = Auditor(store, signer)
    outcome = auditor.take([Entries(...), Birth(...), Noted(...)], now)

One transaction for each `take`; when it returns, everything is on stable storage and the messages may be
acknowledged. Order and duplicates do not matter: a checkpoint waits until the entries it covers are here.
Two cosigned sizes of one ledger are consistent by construction: the agreed tree only ever grows by leaves.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.fleet.device_log import EPOCH, Duplicate, Entry, New
from agent.fleet.findings import Finding, Kind, Verdict, judge, ranges_in_words
from agent.fleet.store import Kept, Ledger, Pinned, Store, Trust
from agent.ledger import Frontier, leaf_hash
from agent.note import BadNote, Checkpoint, Note, SignerKey, VerifierKey, cosign, open_checkpoint

GRACE_S = 300.0
"""A ledger that misses entries and gets none for so long has a gap."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Well-formed lines of a batch."""

    device: str
    lines: Sequence[New | Duplicate]


@dataclass(frozen=True, slots=True)
class Birth:
    """A device's state message."""

    device: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Noted:
    """What claims to be a checkpoint of this device."""

    device: str
    note: bytes


Work = Entries | Birth | Noted


@dataclass(slots=True)
class Outcome:
    """What is to be told, now that it is stored."""

    entries: list[Entry] = field(default_factory=list)
    """Those that were not here before."""
    findings: list[Finding] = field(default_factory=list)
    receipts: dict[str, bytes] = field(default_factory=dict)
    """The newest receipt by device id, to be published."""


class Auditor:
    """Blocking; used by one thread."""

    def __init__(self, store: Store, signer: SignerKey | None = None, *, grace: float = GRACE_S) -> None:
        """Without a signer nothing is cosigned."""
        self.store = store
        self._signer = signer
        self._grace = grace
        self._now = 0.0
        self._outcome = Outcome()

    def trust(self, key: VerifierKey) -> None:
        """The operator names a device's key, as the device shows it. Raises BadNote."""
        tenant, device, _ = _parts(key.name)
        with self.store.transaction():
            self.store.pin(device, Pinned(tenant, key.public, Trust.GIVEN))

    def take(self, work: Sequence[Work], now: float) -> Outcome:
        """Store and check. With no work it only looks for what is overdue. Raises StoreFailed."""
        self._now, self._outcome = now, Outcome()
        stirred: dict[tuple[str, str], None] = {}
        with self.store.transaction():
            for each in work:
                match each:
                    case Entries(device, lines):
                        stirred.update(dict.fromkeys(self._keep(device, lines)))
                    case Birth(device, state):
                        stirred.update(dict.fromkeys(self._born(device, state)))
                    case Noted(device, note):
                        stirred.update(dict.fromkeys(self._noted(device, note)))
            for device, epoch in stirred:
                self._settle(device, epoch)
            if not work:
                self._look_for_gaps()
        return self._outcome

    # -- entries ----------------------------------------------------------------------------------

    def _keep(self, device: str, lines: Sequence[New | Duplicate]) -> list[tuple[str, str]]:
        """The ledgers that have grown."""
        ledgers: dict[str, int] = {}
        grown: dict[str, None] = {}
        for line in lines:
            if line.epoch not in ledgers:
                ledgers[line.epoch] = self.store.ledger(device, line.epoch, self._now).id
            ledger = ledgers[line.epoch]
            match self.store.keep(ledger, line.sequence, leaf_hash(line.line), line.line):
                case Kept.NEW:
                    self._outcome.entries.append(line.entry)
                    grown[line.epoch] = None
                case Kept.OTHER:
                    # It may be what a checkpoint waits for.
                    grown[line.epoch] = None
                    text = f"entry {line.sequence} came with two contents"
                    self._found(Kind.CONTRADICTION, device, line.epoch, "", text)
        for epoch in grown:
            self.store.stir(ledgers[epoch], self._now)
        return [(device, epoch) for epoch in grown]

    # -- the device's key -------------------------------------------------------------------------

    def _born(self, device: str, state: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Learn the key of a device that is new, and answer one that has come back."""
        if state.get("online") is not True:
            return []
        self._learn(device, state.get("key"))
        epoch = str(state.get("epoch"))
        ledger = self.store.known_ledger(device, epoch) if EPOCH.fullmatch(epoch) else None
        if ledger is not None:
            self._answer(ledger)
        aside = self.store.aside(device)
        if aside is None or self.store.pinned(device) is None:
            return []
        self.store.put_aside(device, None)
        return self._noted(device, aside)

    def _learn(self, device: str, text: object) -> None:
        """Trust on first use. Another key later is a finding, and changes nothing."""
        if not isinstance(text, str) or not text.isascii():
            return
        try:
            key = VerifierKey.parse(text)
            tenant, named, _ = _parts(key.name)
            if named != device:
                raise BadNote(f"expected a key of {device}, got one of {named}")
        except BadNote as bad:
            self._bad_signature(device, "birth", f"the birth message names no key: {bad}")
            return
        pinned = self.store.pinned(device)
        if pinned is None:
            self.store.pin(device, Pinned(tenant, key.public, Trust.FIRST_SIGHT))
        elif (pinned.tenant, pinned.public) != (tenant, key.public):
            self._bad_signature(device, "key", "the birth message names another key than the one pinned")

    # -- checkpoints ------------------------------------------------------------------------------

    def _noted(self, device: str, note: bytes) -> list[tuple[str, str]]:
        """The ledger that the checkpoint is of, where it has to be looked at again."""
        pinned = self.store.pinned(device)
        if pinned is None:
            self.store.put_aside(device, note)
            return []
        try:
            checkpoint, epoch = _opened(device, note, pinned)
        except BadNote as bad:
            self._bad_signature(device, "checkpoint", str(bad))
            return []
        ledger = self.store.ledger(device, epoch, self._now)
        if self.store.verdict(ledger.id, checkpoint) is Verdict.AGREED:
            self._answer(ledger)
        elif self.store.verdict(ledger.id, checkpoint) is None:
            self._new_checkpoint(ledger, checkpoint, note)
        return [(device, epoch)]

    def _new_checkpoint(self, ledger: Ledger, checkpoint: Checkpoint, note: bytes) -> None:
        if checkpoint.size > ledger.signed:
            self._look_for_holes(ledger)
            if ledger.signed <= ledger.whole:
                self.store.stir(ledger.id, self._now)
        self.store.signed(ledger.id, checkpoint, note, Verdict.PENDING)
        rival = self.store.rival(ledger.id, checkpoint)
        if rival is not None:
            self._judge(ledger, checkpoint, note, rival, None)

    def _settle(self, device: str, epoch: str) -> None:
        """Judge the checkpoints whose entries are all here, and cosign the largest that agrees."""
        ledger = self.store.ledger(device, epoch, self._now)
        whole = self.store.extend(ledger)
        best: tuple[int, bytes] | None = None
        for size, root, note in self.store.pending(ledger.id, whole):
            ledger = self.store.ledger(device, epoch, self._now)
            checkpoint = Checkpoint(f"{device}/{epoch}", size, root)
            if self._agrees(ledger, checkpoint, note) and not ledger.barred:
                best = (size, note)
        if best is not None and self._signer is not None:
            self.store.cosigned(ledger.id, best[0], cosign(best[1], self._signer))
            self._answer(ledger)

    def _agrees(self, ledger: Ledger, checkpoint: Checkpoint, note: bytes) -> bool:
        agreed = ledger.agreed
        if checkpoint.size <= agreed.size:
            computed = self.store.root(ledger.id, checkpoint.size)
            return self._judge(ledger, checkpoint, note, None, computed)
        leaves = self.store.leaves(ledger.id, agreed.size, checkpoint.size)
        grown = agreed.append(*leaves)
        if grown.root() != checkpoint.root:
            leaves, grown = self._with_contested(ledger, checkpoint, leaves, grown)
        if not self._judge(ledger, checkpoint, note, None, grown.root()):
            return False
        self.store.agree(ledger, grown, leaves)
        if agreed.size == 0:
            self._opened_by(ledger)
        return True

    def _with_contested(
        self, ledger: Ledger, checkpoint: Checkpoint, leaves: list[bytes], grown: Frontier
    ) -> tuple[list[bytes], Frontier]:
        """The leaves that the device has signed, if they are those that came second."""
        start = ledger.agreed.size
        others = self.store.contested(ledger.id, start, checkpoint.size)
        second = [others.get(start + number, leaf) for number, leaf in enumerate(leaves)]
        tree = ledger.agreed.append(*second)
        if tree.root() != checkpoint.root:
            return leaves, grown
        for index in others:
            self.store.swap(ledger.id, index)
        return second, tree

    def _judge(
        self,
        ledger: Ledger,
        checkpoint: Checkpoint,
        note: bytes,
        rival: bytes | None,
        computed: bytes | None,
    ) -> bool:
        judged = judge(
            checkpoint, rival=rival, signed=ledger.signed, agreed=ledger.agreed.size, computed=computed
        )
        self.store.signed(ledger.id, checkpoint, note, judged.verdict)
        if judged.proven:
            self.store.bar(ledger.id)
        if judged.kind is not None:
            about = f"{checkpoint.size} {checkpoint.root.hex()}"
            self._found(judged.kind, ledger.device, ledger.epoch, about, judged.text)
        return judged.verdict is Verdict.AGREED

    def _answer(self, ledger: Ledger) -> None:
        receipt = self.store.receipt(ledger.id)
        if receipt is not None:
            self._outcome.receipts[ledger.device] = receipt[1]

    # -- a new journal ----------------------------------------------------------------------------

    def _opened_by(self, ledger: Ledger) -> None:
        """Tell of a journal that is not the device's first, and of what it names before it."""
        others = [each for each in self.store.ledgers(ledger.device) if each.id != ledger.id and each.signed]
        if not others:
            return
        line = self.store.line(ledger.id, 1)
        entry: Entry = json.loads(line) if line else {}
        previous = entry["data"].get("previous") if entry.get("type") == "postern.journal.opened" else None
        if not isinstance(previous, dict):
            self._found(Kind.NEW_EPOCH, ledger.device, ledger.epoch, "", "names no journal before it")
            return
        epoch, size = previous.get("epoch"), previous.get("size")
        text = f"follows {str(epoch)[:80]!r} at size {str(size)[:20]!r}"
        self._found(Kind.NEW_EPOCH, ledger.device, ledger.epoch, "", text)
        for other in others:
            if other.epoch == epoch and isinstance(size, int) and size < other.agreed.size:
                text = f"journal {ledger.epoch} follows size {size}; {other.agreed.size} were agreed before"
                self._found(Kind.ROLLBACK, ledger.device, other.epoch, ledger.epoch, text)

    # -- gaps -------------------------------------------------------------------------------------

    def _look_for_holes(self, ledger: Ledger) -> None:
        """At a later checkpoint: what the device has gone on without is missing, not late."""
        if ledger.whole < ledger.signed and self.store.beyond(ledger.id, ledger.signed):
            self._gap(ledger)

    def _look_for_gaps(self) -> None:
        for ledger in self.store.overdue(self._now - self._grace):
            self._gap(ledger)

    def _gap(self, ledger: Ledger) -> None:
        missing = self.store.missing(ledger, ledger.signed)
        if missing:
            text = f"of the {ledger.signed} entries signed, {ranges_in_words(missing)}"
            self._found(Kind.GAP, ledger.device, ledger.epoch, str(missing[0][0]), text)

    # -- findings ---------------------------------------------------------------------------------

    def _bad_signature(self, device: str, about: str, text: str) -> None:
        """Once a day: whoever can publish could otherwise fill the file with them."""
        today = time.strftime("%Y-%m-%d", time.gmtime(self._now))
        self._found(Kind.BAD_SIGNATURE, device, "", f"{about} {today}", text)

    def _found(self, kind: Kind, device: str, epoch: str, about: str, text: str) -> None:
        finding = Finding(kind=kind, device=device, epoch=epoch, about=about, text=text)
        if self.store.found(finding, self._now):
            self._outcome.findings.append(finding)


def _opened(device: str, note: bytes, pinned: Pinned) -> tuple[Checkpoint, str]:
    """The checkpoint, and the epoch it is of. Raises BadNote."""
    origin = Checkpoint.parse(Note.parse(note).text).origin
    tenant, named, epoch = _parts(origin)
    if (tenant, named) != (pinned.tenant, device):
        raise BadNote(f"expected a checkpoint of {pinned.tenant}/{device}, got one of {tenant}/{named}")
    checkpoint, _ = open_checkpoint(note, VerifierKey(origin, pinned.public))
    return checkpoint, epoch


def _parts(origin: str) -> tuple[str, str, str]:
    """Tenant, device and epoch. Raises BadNote."""
    parts = origin.split("/")
    if len(parts) != 3 or not all(parts):
        raise BadNote(f"expected tenant/device/epoch, got {origin[:80]!r}")
    return parts[0], parts[1], parts[2]
