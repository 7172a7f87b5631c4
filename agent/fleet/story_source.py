"""What the fleet's file has of one parcel: its entries from all devices, and what proves each. Blocking."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from agent.fleet.device_log import BadEntry, Entry, parse_entry
from agent.fleet.ledger_key import opened
from agent.fleet.store import Ledger, Store
from agent.fleet.story import Key, Proof, Step, Told
from agent.ledger import inclusion_proof, leaf_hash, verify_inclusion
from agent.note import BadNote, Note, VerifierKey, open_note

OPENING = "postern.locker.opening_intended"
OPENING_MOST = 256
"""Entries after the order to open a door among which its end is looked for, while it has none."""
CLOCK = '"postern.clock.corrected"'


class Source:
    """Within one reading transaction of the store."""

    def __init__(self, store: Store, fleet: Collection[VerifierKey] = ()) -> None:
        """`fleet` are the keys that receipts must be signed with, where they are known."""
        self._store, self._fleet = store, fleet
        self._ledgers = {ledger.id: ledger for name, _ in store.devices() for ledger in store.ledgers(name)}

    def entries(self, parcel: str) -> list[Told]:
        """Everything about the parcel, and the corrections of clocks."""
        about, clocks = list[Told](), list[Told]()
        for kept in self._store.lines.with_any([json.dumps(parcel, ensure_ascii=False), CLOCK]):
            told = self._told(kept.ledger, kept.sequence, kept.line)
            if told is not None and told.entry["type"] == CLOCK[1:-1]:
                clocks.append(told)
            elif told is not None and _is_about(told.entry, parcel):
                about.append(told)
        doors = [each for told in about if told.entry["type"] == OPENING for each in self._doors(told, about)]
        known = {each.key: each for each in (*about, *doors)}
        return [*known.values(), *(clocks if known else ())]

    def find(self, source: str, name: str) -> Entry | None:
        """The entry of this source with this id."""
        device, (epoch, _, number) = source.rpartition("/")[2], name.rpartition("-")
        ledger = self._store.known_ledger(device, epoch) if number.isdecimal() else None
        line = self._store.line(ledger.id, int(number)) if ledger else None
        told = self._told(ledger.id, int(number), line) if ledger and line else None
        return told.entry if told and told.entry["source"] == source else None

    def proofs(self, steps: Sequence[Step]) -> Mapping[Key, Proof]:
        return {step.told.key: self._proof(step.told) for step in steps}

    def ledgers(self, steps: Sequence[Step]) -> list[Ledger]:
        """The journals that the story rests on."""
        return [self._ledgers[number] for number in sorted({step.told.ledger for step in steps})]

    def _told(self, ledger: int, sequence: int, line: bytes) -> Told | None:
        device = self._ledgers[ledger].device
        try:
            entry, _, _ = parse_entry(line, device)
        except BadEntry:
            return None
        return Told(device=device, ledger=ledger, sequence=sequence, entry=entry)

    def _doors(self, opening: Told, about: Sequence[Told]) -> Iterator[Told]:
        """What the door did from the order to open it to what became of the parcel."""
        compartment, ledger = opening.entry.get("subject"), opening.ledger
        later = [
            each.sequence
            for each in about
            if each.ledger == ledger
            and each.sequence > opening.sequence
            and each.entry["type"].startswith("postern.locker.")
        ]
        upto = min(later, default=opening.sequence + OPENING_MOST)
        for leaf in self._store.lines.leaves(ledger, opening.sequence, upto):
            told = self._told(ledger, leaf.sequence, leaf.line) if leaf.line else None
            if told and _is_of_door(told.entry, compartment):
                yield told

    # -- proofs -----------------------------------------------------------------------------------

    def _proof(self, told: Told) -> Proof:
        store, ledger = self._store, self._ledgers[told.ledger]
        line, found = store.line(ledger.id, told.sequence), store.notes.covering(ledger.id, told.sequence)
        if line is None or found is None or told.sequence > ledger.agreed.size:
            return Proof()
        receipt = store.notes.receipt_covering(ledger.id, told.sequence)
        try:
            self._check(ledger, told.sequence, line, found[1])
            if receipt is None:
                return Proof(checkpoint=found[0])
            self._check(ledger, told.sequence, line, receipt[1])
            signers = self._signers(receipt[1])
        except (BadNote, ValueError) as bad:
            return Proof(failure=str(bad))
        return Proof(checkpoint=found[0], receipt=receipt[0], signers=signers)

    def _check(self, ledger: Ledger, sequence: int, line: bytes, note: bytes) -> None:
        """Raises BadNote or ValueError unless the device has signed for this line in this place."""
        store, pinned = self._store, self._store.pinned(ledger.device)
        if pinned is None:
            raise BadNote("the device's key is not known")
        checkpoint, _ = opened(ledger.device, note, pinned)
        path = inclusion_proof(
            sequence - 1,
            checkpoint.size,
            lambda start, end: store.leaves(ledger.id, start, end),
            lambda start, end: store.tiles(ledger.id, start, end),
        )
        if not verify_inclusion(leaf_hash(line), sequence - 1, checkpoint.size, path, checkpoint.root):
            raise ValueError("the line is not the one that was signed")

    def _signers(self, note: bytes) -> tuple[str, ...]:
        """Names under a receipt beside the device's; checked where the fleet's keys are known."""
        if not self._fleet:
            return tuple(each.name for each in Note.parse(note).signatures[1:])
        return tuple(each.name for each in open_note(note, self._fleet).signers)


def _is_about(entry: Entry, parcel: str) -> bool:
    return parcel in (entry.get("subject"), entry["data"].get("parcel"))


def _is_of_door(entry: Entry, compartment: object) -> bool:
    return entry["type"].startswith("postern.door.") and entry.get("subject") == compartment
