"""How many entries of each lane the broker does not have yet.

What was made since the journal was opened is counted as it comes and goes. What an earlier run left behind
is counted once, a stretch at a time, between the commits of others.
"""

import asyncio
from collections.abc import Sequence

from agent.cursors import Cursors
from agent.journal import STRIDE, Journal
from agent.workflow import Lane

GENTLY_S = 0.05
"""Between two stretches: whoever sends or commits meanwhile should not notice."""


class Backlog:
    """Counts, by lane."""

    def __init__(self, journal: Journal, cursors: Cursors) -> None:
        self._journal = journal
        self._began = cursors
        self._left = [0] * len(Lane)
        self._gone = [0] * len(Lane)
        self._counted = cursors.floor >= journal.opened_at

    async def count(self) -> None:
        """Look through what an earlier run left behind, once."""
        if self._counted:
            return
        left, end = [0] * len(Lane), self._journal.opened_at
        for start in range(self._began.floor, end, STRIDE):
            await asyncio.sleep(GENTLY_S)
            found = await self._journal.count(start, min(start + STRIDE, end), self._began.places)
            left = [sum(pair) for pair in zip(left, found, strict=True)]
        self._left, self._counted = left, True

    def gone(self, counts: Sequence[int]) -> None:
        """So many of each lane are with the broker, or were passed over."""
        self._gone = [sum(pair) for pair in zip(self._gone, counts, strict=True)]

    def by_lane(self) -> dict[str, int] | None:
        """None until all of it is counted."""
        if not self._counted:
            return None
        return {
            lane.name.lower(): max(0, self._left[lane] + self._journal.made[lane] - self._gone[lane])
            for lane in Lane
        }
