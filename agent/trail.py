"""How far the broker's acknowledgements are believed. Pure: time is an argument, in seconds of any one clock.

    trail = Trail(records)
    place = trail.begin(receipt)        # a connection begins: send what comes after
    trail.moved(place, now)             # acknowledged up to there
    trail.lost(heard)                   # the connection has ended; the broker was heard last then

A broker has acknowledged what it holds in memory, perhaps, and one that is killed takes it along before the
fleet has heard of it. So the next connection brings again what was acknowledged in the last seconds of the
one before. What was acknowledged over two connections is not brought a third time: a way that is never
there for long would else carry the same for ever. What the fleet's receipt covers is never brought again.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from agent.cursors import AGAIN, Cursors

DOUBT_S = 10.0
"""An acknowledgement is believed once the broker was heard for so long after it. A broker at work delivers
what it has in milliseconds; to a fleet that is slow, in seconds. Bringing it again takes no longer either."""
GRAIN_S = 0.5
"""How exactly is remembered when something was acknowledged."""


class Trail:
    """One device's, connection after connection."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        self.cursors = Cursors.load(records)
        """What the broker has acknowledged, over any connection. Never back."""
        self.place = self.cursors.capped(records.get(AGAIN))
        """What it has acknowledged over this connection, and what is believed from before."""
        self._known = self.cursors
        """What it had acknowledged before this connection."""
        self._steps = deque([(float("-inf"), self.cursors)])
        """When the cursors were where."""

    def begin(self, receipt: int) -> Cursors:
        """Where a connection begins, with a receipt for so many entries."""
        self.place = self.place.joined(self.cursors.met(Cursors().all_moved(receipt)))
        self._known = self.cursors
        return self.place

    def moved(self, to: Cursors, now: float) -> None:
        """Everything up to there is dealt with."""
        self.place = to
        grown = self.cursors.joined(to)
        if grown != self.cursors:
            self.cursors = grown
            self._step(now)

    def believed(self, heard: float) -> Cursors:
        """Where the next connection begins, if the broker is never heard again after this moment."""
        return self.place.met(self._at(heard - DOUBT_S).joined(self._known))

    def lost(self, heard: float) -> None:
        """The connection has ended."""
        self.place = self.believed(heard)

    def believe(self) -> None:
        """What was left behind as never to be taken is not to be tried again."""
        self._known = self.cursors

    def _step(self, now: float) -> None:
        steps = self._steps
        if len(steps) > 1 and now - steps[-2][0] < GRAIN_S:
            steps.pop()
        steps.append((now, self.cursors))
        while len(steps) > 1 and steps[1][0] <= now - DOUBT_S:
            steps.popleft()

    def _at(self, time: float) -> Cursors:
        """Where the cursors were then, or a little before."""
        return next((cursors for at, cursors in reversed(self._steps) if at <= time), self._steps[0][1])
