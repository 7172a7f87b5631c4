"""The kiosk as the agent runs it: the screen, its pages, and the rim around them."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from agent.clock import Clock
from agent.kiosk.config import UNIT, KioskSection
from agent.kiosk.counter import Counter
from agent.kiosk.http import Rim
from agent.kiosk.routes import Routes
from agent.locker.compartments import Wall
from agent.locker.turn import Locker
from agent.units import Deliver
from agent.workflow import Decision

log = structlog.get_logger("kiosk")


class Kiosk:
    """One page for one locker. `state` is the workflow's, as it stands when the agent starts."""

    def __init__(
        self,
        section: KioskSection,
        wall: Wall,
        *,
        state: Callable[[], Locker],
        clock: Clock,
        deliver: Deliver,
    ) -> None:
        self._port = section.port
        self._counter = Counter(section, wall, state=state, clock=clock, deliver=deliver)
        self._rim = Rim(Routes(self._counter, section.port))

    async def run(self) -> None:
        """For ever. Raises OSError when the port cannot be had."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._counter.follow(), name="kiosk: screen")
                group.create_task(self._counter.count(self._rim.noise), name="kiosk: noise")
                group.create_task(self._rim.serve(self._port, self._ready), name="kiosk: http")
        except* OSError as group_of:
            raise group_of.exceptions[0] from None

    def saw(self, decision: Decision[Any]) -> None:
        """A decision is on stable storage, and its answer due."""
        self._counter.saw(decision)

    def trouble(self, *, there: bool) -> None:
        """The journal cannot remember anything now, or can again."""
        self._counter.trouble(there=there)

    def status(self) -> dict[str, Any]:
        """What `postern status` shows."""
        return {"port": self._port, "screens": self._counter.screens}

    def _ready(self) -> None:
        log.info("ready", unit=UNIT, port=self._port)
