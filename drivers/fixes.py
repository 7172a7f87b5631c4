"""What every source of positions shares: what can be true, what is news, and when it has gone deaf."""

import asyncio
from abc import abstractmethod
from collections import Counter, deque
from typing import Generic, TypeVar

from pydantic import Field

from drivers.base import Codec, Driver, Emit, Link, NoReply, Options
from drivers.readings import Fix, FixLost

F = TypeVar("F")

CLOCK_GRAIN = 0.001
"""Seconds. Receivers tell time in hundredths; sums of such numbers are not exact."""


def plausible(lat: float, lon: float) -> bool:
    """Whether there is such a place on Earth."""
    return abs(lat) <= 90 and abs(lon) <= 180


class FixNews:
    """Edges out of repeated verdicts: a fix once per interval, its loss once.

    Seconds are those of the receiver, so that an interval of one second is every epoch of a 1 Hz receiver
    however unevenly they arrive.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._has_fix: bool | None = None
        self._told_at = 0.0

    def is_news(self, verdict: Fix | FixLost, at: float) -> bool:
        """Whether to tell this verdict of the moment `at`. A clock that jumps, either way, makes news."""
        if isinstance(verdict, FixLost):
            had_fix, self._has_fix = self._has_fix, False
            return had_fix is not False
        if self._has_fix and abs(at - self._told_at) < self.interval - CLOCK_GRAIN:
            return False
        self._has_fix, self._told_at = True, at
        return True


class FixOptions(Options):
    max_hdop: float = Field(default=20.0, gt=0, le=100, allow_inf_nan=False)
    """Above this dilution of precision a position is worth nothing. Receivers say 99.99 for none."""
    interval_ms: int = Field(default=1000, ge=0, le=3_600_000)
    """At most one fix in so long."""
    silence: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False)
    """Seconds without a sensible word after which the source is deaf: it talks with or without a fix."""


class PositionDriver(Driver, Generic[F]):
    """Listens to a source that talks by itself, and tells what is news."""

    OptionsType = FixOptions

    FIRST_WORD = 10.0
    """Seconds to wait for the first word; receivers talk every second, or every few."""

    def __init__(self, link: Link, emit: Emit, options: FixOptions) -> None:
        super().__init__(link, emit, options)
        self.codec = self.make_codec()
        self.news = FixNews(options.interval_ms / 1000)
        self._heard: deque[F] = deque()

    @abstractmethod
    def make_codec(self) -> Codec[F]: ...

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def first_word(self) -> F:
        """The next frame; `run` will not see it. Raises NoReply."""
        return await self._next(min(self.FIRST_WORD, self.options.silence))

    async def next_word(self) -> F:
        """The next frame. Raises NoReply when the source has fallen silent."""
        return await self._next(self.options.silence)

    async def tell(self, verdict: Fix | FixLost, at: float | None) -> None:
        """Emit if it is news. Where the receiver gives no time, the moment of arrival has to do."""
        if self.news.is_news(verdict, asyncio.get_running_loop().time() if at is None else at):
            await self.emit(verdict)

    async def _next(self, within: float) -> F:
        try:
            async with asyncio.timeout(within):
                while not self._heard:
                    self._heard.extend(self.codec.feed(await self.link.read()))
        except TimeoutError:
            raise NoReply(f"nothing sensible for {within:g} s") from None
        return self._heard.popleft()
