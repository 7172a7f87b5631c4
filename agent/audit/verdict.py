"""What an audit found: the codes of what can be wrong, and the report."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Why a journal fails. Codes are part of the command's contract."""

    UNREADABLE = "UNREADABLE"
    """The file cannot be read, here or at all."""
    ORIGIN = "ORIGIN"
    """Another device, epoch or key than the one asked for."""
    GAP = "GAP"
    """A sequence is not there, and nothing accounts for it."""
    DUPLICATE = "DUPLICATE"
    """A sequence is there twice, or after a later one."""
    MISSING = "MISSING"
    """A line that may have been pruned left no leaf hash behind."""
    MALFORMED = "MALFORMED"
    """Not a canonical CloudEvents line, or not a row or line of this format."""
    IDENTITY = "IDENTITY"
    """A line says that it is another entry than its place says."""
    LEAF = "LEAF"
    """A line is not the one whose hash was kept."""
    TILE = "TILE"
    """The stored root of a tile is missing or does not follow from its leaves."""
    SIGNATURE = "SIGNATURE"
    """A checkpoint is not signed by the device's key, or no longer as it was signed."""
    ROOT = "ROOT"
    """The entries are not those of a signed checkpoint."""
    FORK = "FORK"
    """The device's key signed two histories."""
    TRUNCATED = "TRUNCATED"
    """Entries that the file itself speaks of are gone from its end."""
    ROLLBACK = "ROLLBACK"
    """The fleet has seen more entries than there are."""
    REWRITTEN = "REWRITTEN"
    """The fleet has seen other entries: this history was signed anew."""
    RECEIPT = "RECEIPT"
    """What was given as a receipt is not signed by a key of the fleet."""


class Verdict(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing found wrong, and the sequences among which it is; None where it is not about any."""

    code: Code
    detail: str
    first: int | None = None
    last: int | None = None

    @property
    def place(self) -> str:
        if self.first is None:
            return ""
        return f" at {self.first}" if self.first == self.last else f" within {self.first}..{self.last}"


class Broken(Exception):
    """The audit ends here."""

    def __init__(self, code: Code, detail: str, first: int | None = None, last: int | None = None) -> None:
        super().__init__(detail)
        self.failure = Failure(code, detail, first, first if last is None else last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was checked and what came of it."""

    origin: str
    size: int = 0
    """Sequences looked at, from 1."""
    lines: int = 0
    pruned: int = 0
    """Sequences of which only the leaf hash is left."""
    tiles: int = 0
    checkpoints: int = 0
    signed_to: int = 0
    """The device vouches for entries up to here."""
    cosigned_to: int = 0
    """The fleet vouches for entries up to here."""
    previous: dict[str, Any] | None = None
    """What the first entry says of the epoch before this one."""
    failure: Failure | None = None
    incomplete: tuple[str, ...] = ()
    """Why there is no PASS although nothing is wrong."""

    @property
    def verdict(self) -> Verdict:
        if self.failure is not None:
            return Verdict.FAIL
        return Verdict.INCOMPLETE if self.incomplete else Verdict.PASS

    def as_json(self) -> dict[str, Any]:
        facts = asdict(self)
        return {"verdict": self.verdict, **facts}

    def as_text(self) -> str:
        lines = [self._headline()]
        lines += [f"  {reason}" for reason in self.incomplete]
        lines.append(f"  entries      {self.size}, of which {self.pruned} pruned to their hashes")
        lines.append(f"  checkpoints  {self.checkpoints}, signed by the device up to {self.signed_to}")
        if self.cosigned_to:
            lines.append(f"  fleet        vouches up to {self.cosigned_to}")
        if self.previous is not None:
            lines.append(f"  continues    epoch {self.previous.get('epoch')}")
        return "\n".join(lines)

    def _headline(self) -> str:
        if self.failure is None:
            return f"{self.verdict} {self.origin}"
        return f"FAIL {self.failure.code}{self.failure.place}: {self.failure.detail}"
