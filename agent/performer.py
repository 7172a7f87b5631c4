"""Actions out: remember, then act.

Waits for each decision's commit, in order, and only then passes its orders to the units. A commit that
fails takes its orders with it. One that took long takes the pulses: a door that opens late opens for nobody.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import NS, Clock, Moment
from agent.units import STALE_PULSE_S, Unit, outcome_of
from agent.workflow import Decision, Draft, Order
from drivers.readings import ActionDone, OpenDoor, Signal

UNCOMMITTED = 1024
"""Decisions that wait for their commit; over it the decider waits."""
GRID_NS = 150_000_000
"""Answers about identity and codes leave on this grid, so that their timing tells nothing."""


@dataclass(slots=True)
class _Later:
    done: asyncio.Future[None] | None
    orders: tuple[Order, ...]
    answers_from: Moment | None
    decision: Decision[Any] | None
    asked_ns: int
    ready_ns: int
    """When it was committed."""


class Performer:
    """Does what was decided, once it is on stable storage."""

    def __init__(
        self,
        units: Mapping[str, Unit],
        tones: str | None,
        clock: Clock,
        report: Callable[[Draft], object],
        undone: Callable[[str, ActionDone], bool] = lambda _unit, _done: False,
    ) -> None:
        """`undone` hears of orders that no unit took, and says whether somebody waits for them."""
        self._units = units
        self._tones = tones
        self._clock = clock
        self._report, self._undone = report, undone
        self.shows: Callable[[Decision[Any]], None] | None = None
        """A screen: it hears of each decision when its orders are due."""
        self._waiting: asyncio.Queue[_Later] = asyncio.Queue()
        self._room = asyncio.Event()

    def later(
        self,
        done: asyncio.Future[None] | None,
        orders: tuple[Order, ...],
        answers_from: Moment | None,
        decision: Decision[Any] | None = None,
    ) -> None:
        """Have orders done after `done`; answers about identity on the grid that starts at `answers_from`."""
        now_ns = self._clock.now().mono_ns
        later = _Later(done, orders, answers_from, decision, now_ns, now_ns)
        if done is not None and answers_from is not None:
            done.add_done_callback(lambda _: self._committed(later))
        self._waiting.put_nowait(later)

    def _committed(self, later: _Later) -> None:
        later.ready_ns = self._clock.now().mono_ns

    async def room(self) -> None:
        """Wait while too many decisions are not committed yet."""
        while self._waiting.qsize() >= UNCOMMITTED:
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """For ever. Raises JournalFailed with the first commit that does."""
        while True:
            later = await self._waiting.get()
            self._room.set()
            if later.done is not None:
                await asyncio.shield(later.done)
            if later.answers_from is not None:
                await self._on_grid(later.answers_from.mono_ns, later.ready_ns)
            late = self._clock.now().since(later.asked_ns) > STALE_PULSE_S
            for order in later.orders:
                self.order(order, late=late)
            if self.shows is not None and later.decision is not None:
                self.shows(later.decision)

    def order(self, order: Order, *, late: bool = False) -> None:
        """Pass an action to its unit. One that cannot be done is recorded, a tone nobody can sound is not."""
        unit = self._unit_for(order)
        if late and isinstance(order.action, OpenDoor):
            name, reason = order.unit, "expired"
        elif unit is not None:
            name, reason = unit.name, unit.order(order.action)
        else:
            name, reason = order.unit, "" if isinstance(order.action, Signal) else "unknown_unit"
        if not reason:
            return
        done = ActionDone(action=order.action, ok=False, reason=reason)
        if not self._undone(name, done):
            self._report(outcome_of(name, done))

    async def _on_grid(self, start_ns: int, ready_ns: int) -> None:
        """Until the first point of the grid at which the answer was ready.

        One that was ready and stood behind others leaves with them: their time says nothing of it.
        """
        point_ns = ready_ns + GRID_NS - (ready_ns - start_ns) % GRID_NS
        await asyncio.sleep((point_ns - self._clock.now().mono_ns) / NS)

    def _unit_for(self, order: Order) -> Unit | None:
        """The unit itself, or for tones it cannot sound the one that the config names for them."""
        unit = self._units.get(order.unit)
        if isinstance(order.action, Signal) and (unit is None or not unit.can(order.action)):
            tones = self._units.get(self._tones or "")
            return tones if tones is not None and tones.can(order.action) else None
        return unit
