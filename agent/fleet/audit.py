"""Keeps the books on every device: stores what it sends, holds it to what it has signed, and cosigns.

    auditor = Auditor(store, signer)
    outcome = auditor.take([Entries(...), Birth(...), Noted(...)], now)

One transaction for each `take`; when it returns, everything is on stable storage and the messages may be
acknowledged. Order and duplicates do not matter: a checkpoint waits until the entries it covers are here.
Two cosigned sizes of one ledger are consistent by construction: the agreed tree only ever grows by leaves.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.fleet.claims import declaration
from agent.fleet.device_log import EPOCH, LARGEST, BadEntry, Duplicate, Entry, New
from agent.fleet.findings import Finding, Kind, Range, Verdict, ranges_in_words
from agent.fleet.gaps import Gap
from agent.fleet.ledger_key import opened, parts
from agent.fleet.settling import Settling
from agent.fleet.store import Arrived, Kept, Ledger, Pinned, Store, Trust, lane_of
from agent.ledger import leaf_hash
from agent.note import BadNote, Checkpoint, SignerKey, VerifierKey

GRACE_S = 300.0
"""A ledger that misses entries and gets none for so long has a gap."""
LIVE = 256
"""Entries this close to the newest checkpoint are made now, and do not tell that a backlog is still coming:
custody leaves a device before the rest, so that what comes is not always what was missing."""


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
    gaps: list[Gap] = field(default_factory=list)
    """What has been missing for a while, each time that there was a look for it."""


class Auditor:
    """Blocking; used by one thread."""

    def __init__(self, store: Store, signer: SignerKey | None = None, *, grace: float = GRACE_S) -> None:
        """Without a signer nothing is cosigned."""
        self.store = store
        self._grace = grace
        self._now = 0.0
        self._outcome = Outcome()
        self._settling = Settling(store, signer, self._found)

    def trust(self, key: VerifierKey) -> None:
        """The operator names a device's key, as the device shows it. Raises BadNote."""
        tenant, device, _ = parts(key.name)
        with self.store.transaction():
            self.store.pin(device, Pinned(tenant, key.public, Trust.GIVEN))

    def take(self, work: Sequence[Work], now: float) -> Outcome:
        """Store and check. With no work it only looks for what is overdue. Raises StoreFailed."""
        self._now, self._outcome = now, Outcome()
        stirred: dict[tuple[str, str], None] = {}
        with self.store.transaction():
            for device in dict.fromkeys(each.device for each in work):
                self.store.hear(device, now)
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
        journals: dict[str, list[New | Duplicate]] = {}
        for line in lines:
            journals.setdefault(line.epoch, []).append(line)
        return [
            (device, epoch)
            for epoch, theirs in journals.items()
            if self._keep_lines(self.store.ledger(device, epoch, self._now), theirs)
        ]

    def _keep_lines(self, ledger: Ledger, lines: Sequence[New | Duplicate]) -> bool:
        """Whether the ledger has grown."""
        arrived = [
            Arrived(each.sequence, leaf_hash(each.line), each.line, lane_of(each.entry)) for each in lines
        ]
        kept = self.store.keep_all(ledger.id, arrived, ledger.agreed.size)
        grown = [
            line.sequence
            for line, there, how in zip(lines, arrived, kept, strict=True)
            if self._take_line(ledger, line, there.leaf, how)
        ]
        # By what a checkpoint has been waiting for, or by the last that one waits for.
        awaited = any(sequence <= ledger.signed - LIVE for sequence in grown)
        if grown and (awaited or ledger.whole >= ledger.signed):
            self.store.stir(ledger.id, self._now)
        return bool(grown)

    def _take_line(self, ledger: Ledger, line: New | Duplicate, leaf: bytes, kept: Kept) -> bool:
        """Whether there is news: even a second content may be what a checkpoint waits for."""
        sequence = line.sequence
        if kept is Kept.SAME:
            return False
        if kept in (Kept.NEW, Kept.RIVAL):
            self._outcome.entries.append(line.entry)
        if kept in (Kept.OTHER, Kept.RIVAL):
            text = f"entry {sequence} came with two contents"
            self._contradicted(ledger, text, settled=sequence <= ledger.agreed.size)
        try:
            told = declaration(line.entry, sequence)
        except BadEntry as bad:
            self._contradicted(ledger, f"entry {sequence} declares what does not add up: {bad}")
            return True
        if told is not None:
            self.store.claims.add(ledger.id, sequence, leaf, told)
        return True

    def _contradicted(self, ledger: Ledger, text: str, *, settled: bool = False) -> None:
        """`settled` where the signed root has decided before."""
        self._found(Kind.CONTRADICTION, ledger.device, ledger.epoch, "", text, settled=settled)

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
            tenant, named, _ = parts(key.name)
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
            checkpoint, epoch = opened(device, note, pinned)
        except BadNote as bad:
            self._bad_signature(device, "checkpoint", str(bad))
            return []
        ledger = self.store.ledger(device, epoch, self._now)
        if self.store.notes.verdict(ledger.id, checkpoint) is Verdict.AGREED:
            self._answer(ledger)
        elif self.store.notes.verdict(ledger.id, checkpoint) is None:
            self._new_checkpoint(ledger, checkpoint, note)
        return [(device, epoch)]

    def _new_checkpoint(self, ledger: Ledger, checkpoint: Checkpoint, note: bytes) -> None:
        if checkpoint.size > ledger.signed and ledger.signed <= ledger.whole:
            self.store.stir(ledger.id, self._now)
        self.store.notes.keep(ledger.id, checkpoint, note, Verdict.PENDING)
        rival = self.store.notes.rival(ledger.id, checkpoint)
        if rival is not None:
            self._settling.judge(ledger, checkpoint, note, rival=rival)

    def _settle(self, device: str, epoch: str) -> None:
        """Look at a ledger again, and answer its device if there is more to vouch for."""
        ledger = self.store.ledger(device, epoch, self._now)
        if self._settling.settle(ledger, self._now):
            self._answer(ledger)
        now = self.store.ledger(device, epoch, self._now)
        for about in self.store.findings.open_about(device, epoch, Kind.GAP):
            if self.store.claims.is_spoken_for(now.id, int(about)):
                self.store.findings.settle(device, epoch, Kind.GAP, about, self._now)
        if now.agreed.size > ledger.agreed.size and not self.store.rivals(now.id, now.agreed.size, LARGEST):
            self.store.findings.settle(device, epoch, Kind.CONTRADICTION, "", self._now)

    def _answer(self, ledger: Ledger) -> None:
        receipt = self.store.notes.receipt(ledger.id)
        if receipt is not None:
            self._outcome.receipts[ledger.device] = receipt[1]

    # -- gaps -------------------------------------------------------------------------------------

    def _look_for_gaps(self) -> None:
        """A hash that somebody claimed fills none: by now the device has signed for what it declared."""
        for ledger in self.store.overdue(self._now - self._grace):
            unspoken = self.store.claims.unspoken(ledger.id, ledger.accounted, ledger.signed)
            self._gap(ledger, [(each, each) for each in unspoken])

    def _gap(self, ledger: Ledger, claimed: Sequence[Range] = ()) -> None:
        missing = sorted([*claimed, *self.store.missing(ledger, ledger.signed)])
        if missing:
            if not ledger.barred:
                receipt = self.store.notes.receipt(ledger.id)
                ends = missing[0][0], missing[-1][1]
                self._outcome.gaps.append(
                    Gap(ledger.device, ledger.epoch, *ends, receipt[1] if receipt else None)
                )
            text = f"of the {ledger.signed} entries signed, {ranges_in_words(missing)}"
            self._found(Kind.GAP, ledger.device, ledger.epoch, str(missing[0][0]), text)

    # -- findings ---------------------------------------------------------------------------------

    def _bad_signature(self, device: str, about: str, text: str) -> None:
        """Once a day: whoever can publish could otherwise fill the file with them."""
        today = time.strftime("%Y-%m-%d", time.gmtime(self._now))
        self._found(Kind.BAD_SIGNATURE, device, "", f"{about} {today}", text)

    def _found(
        self, kind: Kind, device: str, epoch: str, about: str, text: str, *, settled: bool = False
    ) -> None:
        finding = Finding(kind=kind, device=device, epoch=epoch, about=about, text=text)
        if self.store.findings.add(finding, self._now, settled=settled):
            self._outcome.findings.append(finding)
