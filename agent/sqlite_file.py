"""A database that is not opened: its file and its write-ahead log as pages.

Both are read only, and either may be missing. Only bytes are judged here, not what they mean.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from agent.sqlite_log import Frame, ReadAt, read_log
from agent.sqlite_pages import MAGIC, BadPage

DEFAULT_PAGE = 4096
PAGE_SIZES = [1 << bit for bit in range(9, 17)]
CHUNK = 64
"""Pages read at once when the whole file is gone through."""

_LOCK = 1 << 30
"""Where SQLite locks: a pending and a reserved byte, then 510 shared ones."""
_LOCKED = 512


class File:
    """The pages of a database, those of the log before those of the file. Close it."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for what is there and may not be read, or is no file."""
        self.path = path
        with contextlib.ExitStack() as stack:
            self._file = _opened(path, stack)
            self._log_file = _opened(log_of(path), stack)
            self._files = stack.pop_all()
        self.size, self.log_size = _size(self._file), _size(self._log_file)
        self.header = self._at(100, 0).ljust(100, b"\0")
        told = _page_size(self.header)
        self.log = read_log(_reader(self._log_file), self.log_size, told or DEFAULT_PAGE)
        self.page_size = self.log.page_size or told or DEFAULT_PAGE
        self._newest = self.log.pages()
        if 1 in self._newest:
            self.header = self._log_at(100, self._newest[1]).ljust(100, b"\0")
        reserved = self.header[20] if self.header.startswith(MAGIC) else 0
        self.usable = self.page_size - min(reserved, self.page_size - 480)
        self.pages = self.log.size or -(-self.size // self.page_size)
        """Pages in the database: as the log says, or as many as the file has."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()

    def lock(self) -> None:
        """Keep others from writing until this is closed. Raises BlockingIOError while another process may.

        Only for a file that this process has not opened with SQLite: closing ours would end its lock.
        """
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB, _LOCKED, _LOCK)

    def read(self, number: int) -> bytes:
        """The newest committed image of a page. Raises BadPage where there is none."""
        if number in self._newest:
            image = self._log_at(self.page_size, self._newest[number])
        elif number > 0:
            image = self._at(self.page_size, (number - 1) * self.page_size)
        else:
            raise BadPage("there is no page 0")
        if len(image) < self.page_size:
            raise BadPage(f"page {number} is beyond the end of the file")
        return image

    def missing(self) -> int | None:
        """The first page that is neither in the file nor in the log."""
        whole = self.size // self.page_size
        return next((n for n in range(whole + 1, self.pages + 1) if n not in self._newest), None)

    def older(self, number: int) -> Iterator[bytes]:
        """What a page was before, newest first."""
        frames = [frame for frame in self.log.frames if frame.page == number]
        current = sorted((f for f in frames if f.ours), key=lambda f: f.at, reverse=True)
        for frame in current:
            if frame.at != self._newest.get(number):
                yield self._whole(self._log_at(self.page_size, frame.at))
        if number in self._newest:
            yield self._whole(self._at(self.page_size, (number - 1) * self.page_size))
        for frame in frames:
            if not frame.ours:
                yield self._whole(self._log_at(self.page_size, frame.at))

    def suspects(self) -> list[bytes]:
        """The images in the log that do not fit their checksum, newest first."""
        return [self._whole(self._log_at(self.page_size, frame.at)) for frame in reversed(self.log.bad)]

    def stale(self) -> set[int]:
        """Pages whose newest image seems to be one of those."""
        return {frame.page for frame in self.log.bad if self._newest.get(frame.page, -1) < frame.at}

    def images(self) -> Iterator[list[bytes]]:
        """Every image but the suspects, newest first: the log's, the file's, the log's leftovers."""
        yield from self._frames([frame for frame in reversed(self.log.frames) if frame.sound])
        for at in range(0, self.size, CHUNK * self.page_size):
            chunk = self._chunk(at)
            yield [self._whole(chunk[n : n + self.page_size]) for n in range(0, len(chunk), self.page_size)]
        bad = {frame.at for frame in self.log.bad}
        yield from self._frames([f for f in self.log.frames if not f.ours and f.at not in bad])

    def _frames(self, frames: list[Frame]) -> Iterator[list[bytes]]:
        for n in range(0, len(frames), CHUNK):
            yield [self._whole(self._log_at(self.page_size, frame.at)) for frame in frames[n : n + CHUNK]]

    def _chunk(self, at: int) -> bytes:
        chunk = self._at(CHUNK * self.page_size, at)
        if chunk:
            return chunk
        # One bad sector spoils the whole read: page by page, then.
        places = range(at, min(at + CHUNK * self.page_size, self.size), self.page_size)
        return b"".join(self._whole(self._at(self.page_size, place)) for place in places)

    def _whole(self, image: bytes) -> bytes:
        return image.ljust(self.page_size, b"\0")

    def _at(self, size: int, offset: int) -> bytes:
        return _reader(self._file)(size, offset)

    def _log_at(self, size: int, offset: int) -> bytes:
        return _reader(self._log_file)(size, offset)


def log_of(path: Path) -> Path:
    """The write-ahead log that belongs to a database file."""
    return path.with_name(path.name + "-wal")


def _opened(path: Path, stack: contextlib.ExitStack) -> int | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    stack.callback(os.close, file)
    return file


def _size(file: int | None) -> int:
    return 0 if file is None else os.fstat(file).st_size


def _reader(file: int | None) -> ReadAt:
    def read(size: int, offset: int) -> bytes:
        if file is None:
            return b""
        try:
            return os.pread(file, size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""  # A sector that the medium lost: like a page that was never there.

    return read


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if header.startswith(MAGIC[:8]) and size in PAGE_SIZES else 0
