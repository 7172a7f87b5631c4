"""Checks a journal as the fleet has it: every line, leaf, tile, checkpoint and receipt, all over again.

    report = recheck(store, ledger, receipt_keys)

What the device's signature and the entries were found to agree on must still do. What is not agreed yet is
nobody's word: that makes a check incomplete, never a failure. Blocking; in a reading transaction.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Self

from agent.audit.archive import Seen, Tile
from agent.audit.verdict import Broken, Code, Failure, Report
from agent.audit.verify import Watcher, verify
from agent.fleet.findings import Verdict
from agent.fleet.store import Ledger, Store
from agent.ledger import TILE
from agent.note import BadNote, Checkpoint, Note, VerifierKey


class Shelf:
    """The agreed part of one journal, as an audit reads it."""

    def __init__(self, store: Store, ledger: Ledger, origin: str) -> None:
        self.origin: str | None = origin
        self.size = self.promised = ledger.agreed.size
        self.stores_tiles = True
        self.seen: Seen | None = None
        self._store, self._ledger = store, ledger
        self.receipts = [note for _, note in store.notes.receipts(ledger.id)]
        if (last := store.notes.receipt(ledger.id)) is not None and last[0] <= self.size:
            self.seen = Seen(last[0], _parsed(last[1]).root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def tiles(self, after: int = 0) -> Iterator[Tile]:
        """What is not here is a gap, wherever it is."""
        for start in range(after // TILE * TILE, self.size, TILE):
            end = min(start + TILE, self.size)
            lines: list[bytes | None] = [None] * (end - start)
            leaves: list[bytes | None] = [None] * (end - start)
            for each in self._store.lines.leaves(self._ledger.id, start, end):
                lines[each.sequence - 1 - start] = each.line
                leaves[each.sequence - 1 - start] = each.hash
            number = start // TILE
            roots = self._store.tiles(self._ledger.id, number, number + 1)
            yield Tile(start + 1, lines, leaves, roots[0] if roots else None)

    def checkpoints(self) -> Iterator[tuple[int | None, bytes]]:
        """What the device has signed up to the agreed size, and the same notes as the fleet signed them."""
        signed = [(size, note) for size, _, note, _ in self._store.notes.all(self._ledger.id)]
        cosigned = self._store.notes.receipts(self._ledger.id)
        return iter(sorted(each for each in (*signed, *cosigned) if each[0] <= self.size))


def recheck(
    store: Store,
    ledger: Ledger,
    receipt_keys: Collection[VerifierKey] = (),
    watch: Watcher = lambda _done, _of: None,
) -> Report:
    """PASS, FAIL with a code and a place, or INCOMPLETE with what is missing."""
    pinned = store.pinned(ledger.device)
    if pinned is None:
        why = "the device's key is not known: nothing can be checked against its signature"
        return Report(origin=ledger.origin, incomplete=(why,))
    origin = f"{pinned.tenant}/{ledger.origin}"
    try:
        shelf = Shelf(store, ledger, origin)
        _check_receipts(shelf, receipt_keys)
        report = verify(shelf, VerifierKey(origin, pinned.public), receipt_keys, (), watch)
    except Broken as broken:
        return Report(origin=origin, failure=broken.failure)
    # A receipt is the device's note as well: it was read as one more.
    own = max(0, report.checkpoints - len(shelf.receipts))
    report = replace(report, checkpoints=own, failure=report.failure or _against_itself(store, ledger))
    open_ends = () if report.failure else tuple(_open_ends(store, ledger))
    return replace(report, incomplete=(*report.incomplete, *open_ends))


def _check_receipts(shelf: Shelf, keys: Collection[VerifierKey]) -> None:
    """Raises Broken for one that the fleet has not signed, where its keys are known."""
    for note in shelf.receipts:
        size = _parsed(note).size
        if size > shelf.size:
            detail = f"a receipt was given for {size} entries, and {shelf.size} are agreed"
            raise Broken(Code.TRUNCATED, detail, shelf.size + 1, size)
        if keys and not any(_signed(note, key) for key in keys):
            raise Broken(Code.RECEIPT, f"size {size}: expected a signature of the fleet, got none", size)


def _signed(note: bytes, key: VerifierKey) -> bool:
    parsed = Note.parse(note)
    return any(
        each.name == key.name and each.key_id == key.id and key.verifies(parsed.text, each.value)
        for each in parsed.signatures
    )


def _parsed(note: bytes) -> Checkpoint:
    """Raises Broken."""
    try:
        return Checkpoint.parse(Note.parse(note).text)
    except BadNote as bad:
        raise Broken(Code.RECEIPT, f"a receipt: {bad}") from bad


def _against_itself(store: Store, ledger: Ledger) -> Failure | None:
    """What the device has signed against its own record, and a tree that is not the one kept."""
    last = store.notes.largest_agreed(ledger.id, ledger.agreed.size)
    if last is None and ledger.agreed.size:
        return Failure(Code.SIGNATURE, "the agreed size is that of no checkpoint", ledger.agreed.size)
    if last is not None and _parsed(last[1]).root != ledger.agreed.root():
        return Failure(
            Code.ROOT, "the tree that is kept is not that of the last checkpoint", last[0], last[0]
        )
    for size, _, _, verdict in store.notes.all(ledger.id):
        if verdict is Verdict.REFUSED:
            return Failure(Code.FORK, f"a checkpoint of size {size} contradicts the record", size, size)
    return Failure(Code.FORK, "the device has signed two histories") if ledger.barred else None


def _open_ends(store: Store, ledger: Ledger) -> Iterator[str]:
    agreed, highest = ledger.agreed.size, store.lines.highest(ledger.id)
    missing = sum(last - first + 1 for first, last in store.missing(ledger, ledger.signed))
    if missing:
        yield f"{missing} of the {ledger.signed} entries signed are not here"
    if highest > agreed:
        yield f"entries {agreed + 1}..{highest} are not vouched for yet"
    if ledger.accounted < agreed:
        first = ledger.accounted + 1
        yield f"entries {first}..{agreed}: of some there is only a hash that nobody vouches for"
