"""Gives a rollout out: looks at what devices show, takes the steps that follow, and leaves documents.

Whatever happens is in the file before anything is sent, so that a rollout which was interrupted goes on
where it was: what may not have been left at the broker is left there again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from agent.fleet.rollout import Outcome, Rollout, Seen, State, given, step, uncertain
from agent.fleet.rollout_file import RolloutFile
from agent.fleet.rollout_sight import Heard, seen
from agent.fleet.sight import Change, Watch
from agent.mqtt import ConnectionLost

AT_ONCE = 50
"""Documents left at the broker between two times that the file is written."""
TICK_S = 1.0
AGAIN_S = 5.0
"""Before a broker is tried again that was lost."""

Answer = Callable[[Mapping[str, Mapping[str, Any]]], Awaitable[None]]
"""Say what is to be said to devices that have it and show these birth messages. Raises ConnectionLost."""
Give = Callable[[Sequence[str]], Awaitable[dict[str, int]]]
"""Leave the document for these devices; the version that each has got. Raises ConnectionLost."""

log = structlog.get_logger("rollout")


class Conductor:
    """One process at a time, for as long as the rollout runs."""

    def __init__(
        self,
        file: RolloutFile,
        watch: Watch,
        give: Give,
        answer: Answer,
        told: Callable[[Rollout, Rollout], object],
    ) -> None:
        """`told` hears of the rollout as it was and as it is, whenever it has changed."""
        self._file, self._watch = file, watch
        self._give, self._answer, self._told = give, answer, told
        self._heard: dict[str, Heard] = {}
        self._news = asyncio.Event()

    def hear(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for entry in change.entries:
                self._heard.setdefault(change.device, Heard()).take(entry)
        self._news.set()

    async def run(self) -> Rollout:
        """Until it is done, halted or aborted. Raises BadRollout, and what `give` raises of our own."""
        while True:
            rollout = await self._step()
            if rollout.state is not State.RUNNING:
                return rollout
            self._news.clear()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _step(self) -> Rollout:
        with self._file.changing() as change:
            before = change.rollout
            again = uncertain(before) if before.state is State.RUNNING else ()
            change.rollout, due = step(before, self._seen(before), time.time())
            rollout = change.rollout
        self._tell(before, rollout)
        if rollout.state is not State.RUNNING:
            return rollout
        waiting = list(dict.fromkeys((*again, *due)))
        for start in range(0, len(waiting), AT_ONCE):
            if not await self._leave(waiting[start : start + AT_ONCE]):
                break
        await self._answer_births(rollout)
        return rollout

    async def _answer_births(self, rollout: Rollout) -> None:
        """An answer that is lost is given again at the next step."""
        births = {
            name: self._watch.devices[name].birth
            for name, each in rollout.members.items()
            if each.outcome is Outcome.GIVEN and name in self._watch.devices
        }
        try:
            await self._answer(births)
        except ConnectionLost as lost:
            log.warning("not answered", reason=str(lost))

    async def _leave(self, devices: Sequence[str]) -> bool:
        """Whether the broker has it for all of these, and the rollout still runs."""
        try:
            versions = await self._give(devices)
        except ConnectionLost as lost:
            # They stay uncertain, and their turn comes again.
            log.warning("not given", devices=len(devices), reason=str(lost))
            await asyncio.sleep(AGAIN_S)
            return False
        with self._file.changing() as change:
            before = change.rollout
            change.rollout = given(before, versions, time.time())
            rollout = change.rollout
        self._tell(before, rollout)
        return rollout.state is State.RUNNING

    def _seen(self, rollout: Rollout) -> dict[str, Seen]:
        return {
            name: seen(rollout.what, member, self._watch.devices[name], self._heard.get(name, Heard()))
            for name, member in rollout.members.items()
            if name in self._watch.devices
        }

    def _tell(self, before: Rollout, now: Rollout) -> None:
        if before != now:
            self._told(before, now)
