"""Verifies a journal offline: every line against every kept leaf, tile, signed checkpoint and receipt.

    report = verify(archive, VerifierKey.parse(text), receipt_keys, receipts)
    report.verdict  # PASS, FAIL with a code and a place, or INCOMPLETE

The tree is grown from the lines alone; whatever was stored or signed about it has to agree. What the device
itself vouches for can still have been signed anew by whoever has its key: only the fleet's receipts show
that. Memory does not grow with the journal.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge

from agent.audit.archive import Archive, Tile, Unreadable
from agent.audit.line import Entry, check_line
from agent.audit.losses import Losses
from agent.audit.shape import Shapes
from agent.audit.tree import Tree
from agent.audit.verdict import Broken, Code, Failure, Report
from agent.ledger import TILE, leaf_hash
from agent.note import BadNote, Checkpoint, Note, VerifierKey, open_checkpoint

LOSS = "postern.journal.declared_loss"
OPENED = "postern.journal.opened"

Watcher = Callable[[int, int], None]
"""Told how many sequences are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that the tree of this size has this root."""

    size: int
    root: bytes
    receipt: bool = False
    """The fleet's, and not found among the device's own checkpoints."""
    cosigned: bool = False


def verify(
    archive: Archive,
    key: VerifierKey,
    receipt_keys: Collection[VerifierKey] = (),
    receipts: Sequence[bytes] = (),
    watch: Watcher = lambda _done, _of: None,
) -> Report:
    """`key` is named for the origin, `<tenant>/<device>/<epoch>`. Raises ValueError for one that is not."""
    audit = _Audit(archive, key, receipt_keys, watch)
    try:
        audit.run(receipts)
    except Broken as broken:
        return audit.report(broken.failure)
    except Unreadable as unreadable:
        return audit.report(Failure(Code.UNREADABLE, str(unreadable), audit.tree.size + 1))
    return audit.report(None)


def open_own(
    raw: bytes, key: VerifierKey, others: Collection[VerifierKey] = (), filed: int | None = None
) -> tuple[Checkpoint, tuple[VerifierKey, ...]]:
    """A checkpoint of this key about itself, and all who signed it. Raises Broken, ORIGIN or SIGNATURE.

    `filed` is the size that its place says, for the words of a failure.
    """
    try:
        return open_checkpoint(raw, key, others)
    except BadNote as bad:
        code = Code.ORIGIN if _is_of_another(raw, key) else Code.SIGNATURE
        raise Broken(code, f"checkpoint: {bad}", filed) from bad


class _Audit:
    """One run over one archive. `astray` is the first claim that the entries contradict."""

    def __init__(
        self, archive: Archive, key: VerifierKey, receipt_keys: Collection[VerifierKey], watch: Watcher
    ) -> None:
        parts = key.name.split("/")
        if len(parts) != 3:
            raise ValueError(f"expected a key named <tenant>/<device>/<epoch>, got {key.name}")
        self.archive, self.key, self.receipt_keys, self.watch = archive, key, receipt_keys, watch
        self.source, self.epoch = f"/postern/{parts[0]}/{parts[1]}", parts[2]
        self.shapes = Shapes(self.epoch, self.source)
        self.tree = Tree()
        self.losses = Losses(0)
        self.astray: Failure | None = None
        self.lines = self.pruned = self.tiles = self.checkpoints = 0
        self.signed_to = self.cosigned_to = 0
        self.previous: Entry | None = None
        self.claims: Iterator[Claim] = iter(())
        self.claim: Claim | None = None
        """The next one to judge."""

    def run(self, receipts: Sequence[bytes]) -> None:
        """Raises Broken at the first thing wrong that is not a contradicted claim."""
        found, expected = self.archive.origin, self.key.name
        if found not in (None, expected):
            raise Broken(Code.ORIGIN, f"expected the journal of {expected}, got that of {found}")
        told = self._receipts(receipts)
        self.losses = Losses(max((claim.size for claim in told), default=0))
        self.claims = merge(self._checkpoints(), told, key=lambda claim: claim.size)
        self._next_claim()
        self._judge()
        for tile in self.archive.tiles():
            self._take(tile)
            self.watch(self.tree.size, self.archive.size)
        self._check_end()

    def report(self, failure: Failure | None) -> Report:
        failure = self.astray or failure
        return Report(
            origin=self.key.name,
            size=self.tree.size,
            lines=self.lines,
            pruned=self.pruned,
            tiles=self.tiles,
            checkpoints=self.checkpoints,
            signed_to=self.signed_to,
            cosigned_to=self.cosigned_to,
            previous=self.previous,
            failure=failure,
            incomplete=() if failure else tuple(self._gaps_in_evidence()),
        )

    # -- what was claimed -------------------------------------------------------------------------

    def _receipts(self, receipts: Sequence[bytes]) -> list[Claim]:
        """Those given; without keys to open any, what the file says that the fleet has seen."""
        if self.receipt_keys:
            return sorted((self._receipt(raw) for raw in receipts), key=lambda claim: claim.size)
        seen = self.archive.seen
        return [Claim(seen.size, seen.root, receipt=True)] if seen else []

    def _receipt(self, raw: bytes) -> Claim:
        checkpoint, signers = open_own(raw, self.key, self.receipt_keys)
        if not set(signers) & set(self.receipt_keys):
            raise Broken(Code.RECEIPT, f"size {checkpoint.size}: expected a signature of the fleet, got none")
        return Claim(checkpoint.size, checkpoint.root, receipt=True, cosigned=True)

    def _checkpoints(self) -> Iterator[Claim]:
        latest = 0
        for filed, raw in self.archive.checkpoints():
            checkpoint, signers = open_own(raw, self.key, self.receipt_keys, filed)
            size = checkpoint.size
            if size < latest or filed not in (None, size):
                raise Broken(Code.MALFORMED, f"checkpoint of size {size}: not in its place", filed or size)
            latest = size
            self.checkpoints += 1
            yield Claim(size, checkpoint.root, cosigned=bool(set(signers) & set(self.receipt_keys)))

    def _next_claim(self) -> None:
        self.claim = next(self.claims, None)

    # -- what is there ----------------------------------------------------------------------------

    def _take(self, tile: Tile) -> None:
        leaves: list[bytes] = []
        fit = self.shapes.fit
        for sequence, (line, kept) in enumerate(zip(tile.lines, tile.leaves, strict=False), tile.first):
            if line is None:
                leaves.append(self._pruned(sequence, kept))
                continue
            if not fit(line, sequence):
                self._read(check_line(line, sequence, self.epoch, self.source), sequence)
            self.lines += 1
            leaf = leaf_hash(line)
            if kept is not None and kept != leaf:
                raise Broken(Code.LEAF, "the line is not the one whose hash was kept", sequence)
            leaves.append(leaf)
        self._grow(leaves)
        if self.archive.stores_tiles and len(leaves) == TILE:
            self._check_tile(tile)

    def _read(self, entry: Entry, sequence: int) -> None:
        """Of most lines it is enough that they are right; these say something to the audit."""
        if entry["type"] == LOSS:
            self.losses.declare(entry["data"])
        elif entry["type"] == OPENED:
            previous = entry["data"].get("previous") if sequence == 1 else None
            self.previous = previous if isinstance(previous, dict) else self.previous
        else:
            self.shapes.learn(entry)

    def _pruned(self, sequence: int, kept: bytes | None) -> bytes:
        if kept is not None:
            self.pruned += 1
            self.losses.lose(sequence)
            return kept
        if sequence <= self.losses.seen:
            raise Broken(Code.MISSING, "no line, and no hash of one that was pruned", sequence)
        raise Broken(Code.GAP, "no entry with this sequence", sequence)

    def _grow(self, leaves: Sequence[bytes]) -> None:
        """Add the leaves, and judge every claim about a size on the way."""
        start = self.tree.size
        while (done := self.tree.size - start) < len(leaves):
            stop = self.claim.size - start if self.claim else len(leaves)
            self.tree.add(leaves[done:stop])
            self._judge()

    def _judge(self) -> None:
        while self.claim and self.claim.size <= self.tree.size:
            if self.claim.root == self.tree.root():
                self._agree(self.claim)
            elif self.astray is None:
                self.astray = self._contradict(self.claim)
            self._next_claim()

    def _agree(self, claim: Claim) -> None:
        if self.astray is None:
            self.signed_to = claim.size
            self.cosigned_to = claim.size if claim.cosigned else self.cosigned_to
        elif self.astray.code is Code.ROOT:
            # An edit spoils every later root. This one does not: both were signed, for two histories.
            detail = f"two histories: {self.astray.detail}, but a signed one of size {claim.size} does"
            self.astray = replace(self.astray, code=Code.FORK, detail=detail)

    def _contradict(self, claim: Claim) -> Failure:
        if claim.receipt:
            detail = f"the fleet has seen other entries up to {claim.size}"
            return Failure(Code.REWRITTEN, detail, self.cosigned_to + 1, claim.size)
        if claim.size <= self.signed_to:
            detail = f"two signed checkpoints of size {claim.size}"
            return Failure(Code.FORK, detail, claim.size, claim.size)
        detail = f"the signed checkpoint of size {claim.size} does not hold for these entries"
        return Failure(Code.ROOT, detail, self.signed_to + 1, claim.size)

    def _check_tile(self, tile: Tile) -> None:
        self.tiles += 1
        if tile.root == self.tree.last_tile:
            return
        last = tile.first + TILE - 1
        # What a checkpoint has just proved is right: then it is the stored root that is wrong.
        first = max(tile.first, self.signed_to + 1) if self.signed_to < last else tile.first
        problem = "is missing" if tile.root is None else "does not follow from its leaves"
        raise Broken(Code.TILE, f"the root of tile {tile.first // TILE} {problem}", first, last)

    # -- the end ----------------------------------------------------------------------------------

    def _check_end(self) -> None:
        size = self.tree.size
        if self.claim is not None:
            code = Code.ROLLBACK if self.claim.receipt else Code.TRUNCATED
            whose = "the fleet has seen" if self.claim.receipt else "a checkpoint was signed for"
            raise Broken(code, f"{whose} {self.claim.size} entries, got {size}", size + 1, self.claim.size)
        if self.archive.promised > size:
            promised = self.archive.promised
            raise Broken(Code.TRUNCATED, f"expected {promised} entries, got {size}", size + 1, promised)

    def _gaps_in_evidence(self) -> Iterator[str]:
        size = self.tree.size
        if not self.checkpoints:
            yield "no checkpoint: nothing here is signed"
        elif self.signed_to < size:
            yield f"entries {self.signed_to + 1}..{size} come after the last checkpoint"
        if self.receipt_keys and self.cosigned_to < size:
            yield f"entries {self.cosigned_to + 1}..{size} are not vouched for by the fleet"
        if self.losses.undeclared:
            first = self.losses.first_undeclared
            yield (
                f"{self.losses.undeclared} lines from {first} on are gone that neither a receipt covers nor"
                " an entry declares lost"
            )


def _is_of_another(raw: bytes, key: VerifierKey) -> bool:
    """Is it about another origin, or signed under this name by another key?"""
    try:
        note = Note.parse(raw)
    except BadNote:
        return False
    signed_by = {signature.key_id for signature in note.signatures if signature.name == key.name}
    other_key = bool(signed_by) and key.id not in signed_by
    return note.text.partition("\n")[0] != key.name or other_key
