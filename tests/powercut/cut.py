"""What a drive holds when the power goes: everything flushed, and of the later writes nobody knows what.

A drive may keep what it was given in its cache until it is told to flush, and write it down in any order, a
block of 4 KiB at a time. `images` plays a log and yields the medium at each cut. Whatever a run has promised
at one length of the log must be there in every image that was cut at that length or later.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from tests.powercut.disk import BLOCK, Flush, Log, Write


class Kept(Enum):
    """Which of the writes after the last flush had reached the medium."""

    NONE = "none"
    ALL = "all"
    FIRST = "the first ones"
    SOME = "some"
    TORN = "some, in blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One moment without power. The same cut of the same log leaves the same image."""

    at: int
    """Length of the log: what is not wholly within it had not reached the drive."""
    kept: Kept
    seed: int

    def __str__(self) -> str:
        return f"cut at {self.at}, kept {self.kept.value} (seed {self.seed})"


@dataclass(frozen=True, slots=True)
class Image:
    cut: Cut
    content: bytes
    at_risk: int
    """Writes after the last flush."""


def images(log: Sequence[Write | Flush], cuts: Iterable[Cut], size: int) -> Iterator[Image]:
    """The medium at each cut, in the order of the log."""
    flushed, pending = bytearray(size), list[Write]()
    at = 0
    for cut in sorted(cuts, key=lambda cut: cut.at):
        while at < len(log) and log[at].at <= cut.at:
            match log[at]:
                case Write() as write:
                    pending.append(write)
                case Flush():
                    _put(flushed, pending)
                    pending = []
            at += 1
        content = bytearray(flushed)
        _put(content, _survivors(pending, cut))
        yield Image(cut, bytes(content), len(pending))


def _put(medium: bytearray, writes: Iterable[Write]) -> None:
    for write in writes:
        medium[write.offset : write.offset + len(write.data)] = write.data


def _survivors(pending: list[Write], cut: Cut) -> Iterable[Write]:
    chance = random.Random(cut.seed)
    match cut.kept:
        case Kept.NONE:
            return []
        case Kept.ALL:
            return pending
        case Kept.FIRST:
            return pending[: chance.randrange(len(pending) + 1)]
        case Kept.SOME:
            return [write for write in pending if chance.random() < 0.5]
        case Kept.TORN:
            return [block for write in pending for block in _blocks(write) if chance.random() < 0.5]


def _blocks(write: Write) -> Iterator[Write]:
    """Up to the next multiple of a block on the medium, and from there on whole ones."""
    start = 0
    while start < len(write.data):
        offset = write.offset + start
        end = start + BLOCK - offset % BLOCK
        yield Write(write.at, offset, write.data[start:end])
        start = end


def choose(
    log: Log, moments: list[int], count: int, chance: random.Random, *, first: int, last: int
) -> list[Cut]:
    """Cuts from `first` to `last`: at the moments when most is promised, when most is at risk, and at any."""
    at_risk = [earlier.at for earlier, later in pairwise(log) if isinstance(later, Flush)]
    groups = [
        [at for at in group if first <= at <= last]
        for group in (moments, at_risk, [entry.at for entry in log])
    ]
    groups = [group for group in groups if group]
    return [
        Cut(
            at=chance.choice(groups[number % len(groups)]),
            kept=chance.choice(list(Kept)),
            seed=chance.randrange(2**32),
        )
        for number in range(count)
    ]
