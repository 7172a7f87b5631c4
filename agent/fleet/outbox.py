"""What a collector has to say to devices, said while it goes on listening.

Whoever waits for an acknowledgement before taking the next message may wait for ever: while too many messages
stand in the inbox nothing more is read, and behind them is the acknowledgement.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from agent.mqtt import REFUSED, Connection, ConnectionLost

log = structlog.get_logger("collector")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message."""

    topic: str
    payload: bytes
    content_type: str | None = None


class Outbox:
    """Of one connection; what it has not said when that is lost is forgotten."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._urgent: deque[Letter] = deque()
        self._newest: dict[str, Letter] = {}
        self._more = asyncio.Event()

    def say(self, letters: Iterable[Letter]) -> None:
        """All of them, in their order, before anything else."""
        self._urgent.extend(letters)
        self._more.set()

    def say_newest(self, letters: Mapping[str, Letter]) -> None:
        """What takes the place of an older one, by key, that was not said yet."""
        self._newest.update(letters)
        self._more.set()

    async def run(self) -> None:
        """Until the connection is lost. What the broker refuses is only told."""
        flying: deque[asyncio.Future[int]] = deque()
        try:
            while True:
                while (letter := self._next()) is not None:
                    while flying and (flying[0].done() or not self._connection.room):
                        _heard(await flying.popleft())
                    made = self._connection.publish(
                        letter.topic, letter.payload, content_type=letter.content_type
                    )
                    flying.append(made)
                while flying and flying[0].done():
                    _heard(flying.popleft().result())
                self._more.clear()
                await self._more.wait()
        except ConnectionLost:
            return

    def _next(self) -> Letter | None:
        if self._urgent:
            return self._urgent.popleft()
        return self._newest.pop(next(iter(self._newest))) if self._newest else None


def _heard(code: int) -> None:
    if code >= REFUSED:
        log.warning("answer refused by the broker", code=f"{code:#04x}")
