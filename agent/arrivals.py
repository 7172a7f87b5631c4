"""Messages that have come and wait to be taken: a bounded few.

One that may be lost is dropped when there are too many. One that may not is kept, and whoever reads the
connection is told to read no more until there is room again.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Arrivals(Generic[T]):
    """In the order in which they came."""

    def __init__(self, most: int) -> None:
        self.dropped = 0
        """Messages that came faster than they were taken, and could be done without."""
        self._most = most
        self._messages: deque[T] = deque()
        self._news = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the other side has to wait."""
        return len(self._messages) > self._most

    def put(self, message: T, *, droppable: bool) -> bool:
        """Whether it was kept."""
        if droppable and len(self._messages) >= self._most:
            self.dropped += 1
            return False
        self._messages.append(message)
        self._news.set()
        return True

    def take(self) -> T | None:
        """The oldest, if there is one."""
        return self._messages.popleft() if self._messages else None

    def take_all(self) -> list[T]:
        """Everything, without waiting for more."""
        taken, self._messages = list(self._messages), deque()
        return taken

    def end(self) -> None:
        """Nothing more comes: forget what is left, and wake whoever waits."""
        self._messages.clear()
        self._news.set()

    async def more(self) -> None:
        """Wait until something comes, or the end does."""
        self._news.clear()
        await self._news.wait()
