"""A bar on standard error for work that takes long, where somebody is watching."""

import sys
import time
from types import TracebackType
from typing import Self

PATIENCE_S = 1.0
"""Work that is done sooner shows no bar."""
EVERY_S = 0.1
WIDTH = 30


class Progress:
    """Call it with what is done, and of how many; as a context it wipes its line in the end."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._next = time.monotonic() + PATIENCE_S if sys.stderr.isatty() else float("inf")
        self._shown = False

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        self._shown = True
        part = min(1.0, done / of) if of else 1.0
        bar = "#" * round(WIDTH * part)
        sys.stderr.write(f"\r{self.what} [{bar:<{WIDTH}}] {part:4.0%}  {done:,} of {of:,}")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
