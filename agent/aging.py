"""Tells that the fleet's word grows old, before somebody finds the door shut.

Whoever keeps new documents from a device brings it nothing that could be refused: the only sign is that the
newest head of which everything is here ages. Each step down the ladder is an entry, and so is the way back.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.clock import Moment
from agent.freshness import Freshness
from agent.journal import Journal
from agent.standing import Authority
from agent.workflow import Draft, Lane

EVERY_S = 60.0
RECORD = "knowledge"
"""The step that was told last; none while knowledge is fresh."""
STEPS = list(Freshness)

log = structlog.get_logger("fleet")


class Aging:
    """Watches the age of knowledge."""

    def __init__(
        self,
        journal: Journal,
        device: str,
        authority: Callable[[], Authority],
        stamp: Callable[[], tuple[Moment, Mapping[str, Any]]],
    ) -> None:
        self._journal, self._device, self._authority, self._stamp = journal, device, authority, stamp

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        """By age alone: that a clock is not trusted yet is no sign that anybody keeps something back."""
        now, position = self._stamp()
        authority = self._authority()
        age_s = authority.standing(now).age_s
        if age_s is None:
            return
        step = authority.ladder.judge(age_s, assured=True)
        before = Freshness(self._journal.records.get(RECORD, Freshness.FRESH))
        # Where the time is not known, knowledge is at least this old: that it is no older is not known.
        if step is before or (STEPS.index(step) < STEPS.index(before) and not now.assured):
            return
        data: dict[str, Any] = {"knowledge_age_s": age_s}
        if step is Freshness.FRESH:
            draft = Draft("fleet.knowledge_renewed", self._device, data, Lane.STATE)
        else:
            log.warning("the fleet's word grows old", age_s=age_s, step=step)
            draft = Draft("fleet.knowledge_aged", self._device, {**data, "freshness": step}, Lane.STATE)
        self._journal.append([draft], now, position, {RECORD: None if step is Freshness.FRESH else str(step)})
