"""What the sources of time have said: taken by the clock, told in entries, and never forgotten.

Every source comes here: satellites, the kernel's NTP, the fleet's signed word. The floor below which time
never falls again rides along with the journal's records.
"""

from collections.abc import Callable
from dataclasses import asdict

import structlog

from agent.clock import NS, Clock, Correction, Moment, SystemClock, Trust
from agent.journal import Journal
from agent.workflow import Draft, Lane

FLOOR = "floor_ns"
FLOOR_STEP_NS = 600 * NS
"""How far the time floor rises before it rides along with the next entry."""
FLOOR_LATEST_NS = 3600 * NS
"""... and before it is written though there is none."""
GPS_ERROR_S = 0.5

log = structlog.get_logger("agent")


class Timekeeper:
    """Any clock may be given; only a SystemClock learns from anybody."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        device: str,
        *,
        report: Callable[[Draft], object],
        heed: Callable[[], None],
    ) -> None:
        """`heed` has everything that hangs on the time looked at again."""
        self._clock = clock if isinstance(clock, SystemClock) else None
        self._journal, self._device, self._report, self._heed = journal, device, report, heed
        self._disputed: Trust | None = None
        self._saved_ns = 0
        """The floor when it was last written for its own sake."""

    def restore(self) -> None:
        """Take up the floor where the last run left it."""
        if self._clock is not None:
            self._clock.remember_floor(self._journal.records.get(FLOOR, 0))
            self._saved_ns = self._clock.next_floor_ns

    def fixed(self, utc_ns: int, now: Moment) -> None:
        """Satellites have said the same time often enough."""
        if self._clock is not None:
            self.corrected(self._clock.observe(Trust.GPS, utc_ns, now.mono_ns, GPS_ERROR_S))

    def look(self) -> None:
        """What NTP has done to the kernel's clock; and whether the floor has risen far enough."""
        if self._clock is None:
            return
        self.corrected(self._clock.observe_ntp())
        floor_ns = self._clock.next_floor_ns
        if floor_ns >= self._journal.records.get(FLOOR, 0) + FLOOR_STEP_NS:
            self.ride()
        if floor_ns >= self._saved_ns + FLOOR_LATEST_NS:
            self._saved_ns = floor_ns
            self._journal.save()

    def ride(self) -> None:
        """The floor as it is now goes with what is written next: the power may be cut at any time."""
        if self._clock is not None:
            self._journal.ride({FLOOR: self._clock.next_floor_ns})

    def corrected(self, correction: Correction | None) -> None:
        """What a source of time has said is known to the clock, and has maybe set it."""
        disputed = self._clock.disputed if self._clock is not None else None
        if disputed is not self._disputed:
            self._disputed = disputed
            self._report(Draft("clock.disputed", self._device, {"source": disputed}, Lane.STATE))
        if correction is None:
            return
        data = {**asdict(correction), "offset_s": round(correction.offset_s, 3)}
        log.info("clock corrected", offset_s=data["offset_s"], trust=correction.trust)
        self._report(Draft("clock.corrected", self._device, data, Lane.STATE))
        self._heed()
