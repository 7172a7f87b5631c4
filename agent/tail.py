"""The newest durable entries in memory, so that a live uplink never reads the file.

tail.add(entries)
tail.after(100)      # those after 100, or None where older ones would be missing
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from agent.store import Stored

ENTRIES = 4096
BYTES = 4 * 1024 * 1024
"""A QR code of the longest kind makes an entry of 10 KB."""


class Tail:
    """A run of entries without a gap, as many and as long as the bounds allow."""

    def __init__(self) -> None:
        self._entries: deque[Stored] = deque()
        self._bytes = 0

    def add(self, entries: Iterable[Stored]) -> None:
        """They follow what is here."""
        for stored in entries:
            self._entries.append(stored)
            self._bytes += len(stored.line)
        while len(self._entries) > ENTRIES or self._bytes > BYTES:
            self._drop()

    def forget(self, sequence: int) -> None:
        """Everything up to here."""
        while self._entries and self._entries[0].sequence <= sequence:
            self._drop()

    def after(self, sequence: int) -> Iterator[Stored] | None:
        """Those after a sequence; None where some of them are not here any more."""
        if not self._entries or self._entries[0].sequence > sequence + 1:
            return None
        return islice(self._entries, sequence + 1 - self._entries[0].sequence, None)

    def _drop(self) -> None:
        self._bytes -= len(self._entries.popleft().line)
