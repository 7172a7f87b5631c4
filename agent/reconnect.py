"""Comes back to a broker for ever: connects, is lost, waits, and connects again.

    await forever(session, Backoff("van-0042"), told)

Thousands lose the same broker in the same moment. So each has a place of its own in every wait, which its
name decides, whatever its clock and its random numbers are; the other half of each wait is random.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from agent.mqtt import ConnectionLost

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
SPREAD_S = 2.0
"""Within so long comes back whoever lost a session that lasted."""
HEALTHY_S = 5.0
"""A session that lasted this long starts the backoff anew."""
STEP = 0.6180339887
"""From one try to the next everyone's place moves on by this, so that nobody is always the last."""

Told = Callable[[int, float], None]
"""Hears the number of tries that failed in a row, and how long the wait is now."""


class Backoff:
    """How long one of many waits. Pure, but for its random numbers."""

    def __init__(self, name: str, rng: random.Random | None = None) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        self._place = int.from_bytes(digest[:7], "big") / 256**7
        self._rng = rng or random.Random()

    def anew(self) -> float:
        """Seconds after a session that lasted."""
        return self._within(SPREAD_S, 0)

    def after(self, failed: int) -> float:
        """Seconds after so many tries that failed in a row."""
        return self._within(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failed - 1, 16)), failed)

    def _within(self, window: float, failed: int) -> float:
        place = (self._place + STEP * failed) % 1.0
        return place * window / 2 + self._rng.uniform(0, window / 2)


async def forever(session: Callable[[], Awaitable[None]], backoff: Backoff, told: Told) -> None:
    """Begin a session whenever the last has ended with ConnectionLost; whatever else it raises is raised."""

    def tell(state: RetryCallState) -> None:
        told(state.attempt_number, state.next_action.sleep if state.next_action else 0.0)

    while True:
        async for attempt in AsyncRetrying(
            wait=lambda state: backoff.after(state.attempt_number),
            retry=retry_if_exception_type(ConnectionLost),
            before_sleep=tell,
        ):
            with attempt:
                await _lasting(session)
        await asyncio.sleep(backoff.anew())


async def _lasting(session: Callable[[], Awaitable[None]]) -> None:
    """Raises ConnectionLost, except after a session that lasted."""
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        await session()
    except ConnectionLost:
        if clock() - began < HEALTHY_S:
            raise
