"""The frames of an SQLite write-ahead log, those behind a bad one too.

SQLite ends the log at the first frame that does not fit its checksum, as it must: what was being written
when the power went looks like that. Here each frame is judged by itself, so that one bad frame in the middle
costs one page, and so that damage can be told from a torn end: when something was written after a
transaction, that transaction had been synced, and nothing in it can be torn.
"""

import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass

HEADER = 32
FRAME = 24
"""Bytes before each page image."""
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_VERSION = 3_007_000
_MASK = 0xFFFFFFFF

ReadAt = Callable[[int, int], bytes]
"""Size and offset, as `os.pread`."""
Sum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One page image in the log."""

    page: int
    commit: int
    """Pages in the database after this commit; 0 in the midst of a transaction."""
    at: int
    """Where the image begins."""
    ours: bool
    """Written since the log was last begun anew; others are left over from before."""
    sound: bool
    """Ours, and its image is right beyond doubt."""
    whole: bool
    """All of it is as it was written: SQLite reads no further than this holds."""


@dataclass(frozen=True, slots=True)
class Log:
    """All frames in order."""

    page_size: int
    """0 when the header does not say."""
    frames: tuple[Frame, ...]
    committed: int
    """How many frames there are up to the last sound commit."""
    damage: str | None
    """Why something that was once synced cannot be read."""

    def pages(self) -> dict[int, int]:
        """Where the newest committed image of each page is."""
        return {frame.page: frame.at for frame in self.frames[: self.committed] if frame.sound}

    @property
    def size(self) -> int:
        """Pages in the database after the last commit; 0 when there was none."""
        return self.frames[self.committed - 1].commit if self.committed else 0

    @property
    def torn(self) -> bool:
        """It ends within a transaction. Nobody knows whether that was ever complete."""
        return any(frame.ours for frame in self.frames[self.committed :])

    @property
    def bad(self) -> list[Frame]:
        """Frames of this log that do not fit, oldest first: nobody knows which pages they were."""
        newest = max((n for n, frame in enumerate(self.frames) if frame.ours), default=-1)
        return [frame for frame in self.frames[: newest + 1] if not frame.sound]


def checksum(data: bytes, start: Sum, order: str) -> Sum:
    """SQLite's running checksum over 32-bit words, a multiple of two."""
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    one, two = start
    pairs = iter(words)
    for word in pairs:
        one = (one + word + two) & _MASK
        two = (two + next(pairs) + one) & _MASK
    return one, two


def read_log(read: ReadAt, size: int, page_size: int) -> Log:
    """Read a log of `size` bytes. `page_size` is used when the header of the log is of no help."""
    if size <= HEADER:
        return Log(0, (), 0, None)
    header = read(HEADER, 0).ljust(HEADER, b"\0")
    order = "big" if _word(header, 0) == _BIG else "little"
    valid = (
        _word(header, 0) in (_LITTLE, _BIG)
        and _word(header, 4) == _VERSION
        and checksum(header[:24], (0, 0), order) == _sum(header, 24)
    )
    told = _word(header, 8) if valid else 0
    frames = _Frames(read, size, told or page_size, order).judged(header, valid=valid)
    return _log(told, frames, header_valid=valid)


def _log(page_size: int, frames: tuple[Frame, ...], *, header_valid: bool) -> Log:
    commits = [n for n, frame in enumerate(frames) if frame.sound and frame.commit]
    newest = max((n for n, frame in enumerate(frames) if frame.ours), default=-1)
    bad = -1 if not header_valid else next((n for n in range(newest) if not frames[n].whole), newest)
    # The transaction that holds the bad frame ends here. With anything behind it, it had been synced.
    end = next((n for n in range(max(bad, 0), newest) if frames[n].ours and frames[n].commit), None)
    damage = None
    if end is not None:
        damage = "header" if bad < 0 else f"frame {bad + 1}"
        damage = f"{damage} of the write-ahead log does not fit its checksum"
    return Log(page_size, frames, commits[-1] + 1 if commits else 0, damage)


class _Frames:
    """Judges frame after frame: does it continue the one before?"""

    def __init__(self, read: ReadAt, size: int, page_size: int, order: str) -> None:
        self._read, self._size, self._page_size, self._order = read, size, page_size, order

    def judged(self, header: bytes, *, valid: bool) -> tuple[Frame, ...]:
        count = -(-(self._size - HEADER) // (FRAME + self._page_size))
        salt = header[16:24] if valid else self._salt(count)
        starts: list[Sum] = [_sum(header, 24)]
        before, fitted, whole = True, [False] * count, [False] * count
        found: list[tuple[int, int, bool]] = []
        for n in range(count):
            frame = self._frame(n)
            cut = before and self._at(n + 1) > self._size
            salted = cut or (frame[8:16] == salt and any(salt))
            if not salted and not before:
                starts = [_sum(frame, 16)]
                found.append((_word(frame, 0), _word(frame, 4), False))
                continue
            computed = [self._computed(frame, start) for start in starts]
            stored = _sum(frame, 16)
            fitted[n] = stored in computed
            whole[n] = salted and stored == computed[0]
            # Its predecessor was right after all: only the sum that it stored was not.
            if fitted[n] and n and not fitted[n - 1] and len(starts) == 2 and computed[1] == stored:
                fitted[n - 1] = True
            before = salted or fitted[n]
            starts = [stored] if fitted[n] else [stored, computed[-1]]
            found.append((_word(frame, 0), _word(frame, 4), before))
        return tuple(
            Frame(page, commit, self._at(n) + FRAME, ours or fitted[n], fitted[n], whole[n])
            for n, (page, commit, ours) in enumerate(found)
        )

    def _at(self, n: int) -> int:
        return HEADER + n * (FRAME + self._page_size)

    def _frame(self, n: int) -> bytes:
        return self._read(FRAME + self._page_size, self._at(n)).ljust(FRAME + self._page_size, b"\0")

    def _computed(self, frame: bytes, start: Sum) -> Sum:
        return checksum(frame[FRAME:], checksum(frame[:8], start, self._order), self._order)

    def _salt(self, count: int) -> bytes:
        """What marks the frames of this log, where its header cannot say: the first that fits tells."""
        before = _sum(self._read(HEADER, 0).ljust(HEADER, b"\0"), 24)
        for n in range(count):
            frame = self._frame(n)
            if any(frame[8:16]) and self._computed(frame, before) == _sum(frame, 16):
                return frame[8:16]
            before = _sum(frame, 16)
        return bytes(8)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _sum(data: bytes, at: int) -> Sum:
    return _word(data, at), _word(data, at + 4)
