"""The switch that tells that the case is being opened, and what follows.

It is armed when it is first seen at rest, and stays armed over restarts: a case that is open while the
device is being fitted wipes nothing, a case that was opened while the power was off does. A board that falls
silent is no alarm; wire the switch so that a cut wire reads like an open case.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drivers.readings import InputChanged

RECORD = "tamper_armed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Where it is wired, and how it reads when somebody is inside."""

    unit: str
    input: int
    closed: bool
    hold: float
    """Seconds for which it must read so: a slammed door rattles."""


class Tamper:
    """Watches one switch."""

    def __init__(
        self,
        switch: Switch,
        *,
        armed: Callable[[], bool],
        arm: Callable[[], object],
        alarm: Callable[[], Awaitable[object]],
    ) -> None:
        """`armed` and `arm` read and remember that it was seen at rest; `alarm` is awaited, once a time."""
        self._switch = switch
        self._armed, self._arm, self._alarm = armed, arm, alarm
        self._closed: bool | None = None
        self._news = asyncio.Event()

    def saw(self, unit: str, reading: InputChanged) -> None:
        """A reading of any input of any unit."""
        if (unit, reading.input) == (self._switch.unit, self._switch.input):
            self._closed = reading.closed
            self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._closed is not self._switch.closed:
                if not self._armed():
                    self._arm()
            elif self._armed() and await self._holds():
                await self._alarm()

    async def _holds(self) -> bool:
        """Whether it goes on reading so. What it reads next is looked at anew."""
        try:
            async with asyncio.timeout(self._switch.hold):
                await self._news.wait()
        except TimeoutError:
            return True
        return False
