"""How far what the fleet told can still be trusted, by its age alone. Pure.

    Ladder().judge(90_000.0, assured=True)   # Freshness.GRACE

Whoever cuts the network keeps a device on what it knew. So rights shrink while nothing new is heard, on a
schedule that nobody near the device can put off.
"""

from dataclasses import dataclass
from enum import StrEnum

HOUR_S = 3600.0


class Freshness(StrEnum):
    """What the age of the fleet's knowledge still allows, best first."""

    FRESH = "fresh"
    GRACE = "grace"
    """A body is asked for, not only a PIN; every act is flagged."""
    STALE = "stale"
    """Level 3 and a second person; nothing that was not announced is taken."""
    CLOSED = "closed"
    """Nobody comes on duty any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Age in seconds up to which each step lasts."""

    fresh: float = 24 * HOUR_S
    grace: float = 72 * HOUR_S
    stale: float = 168 * HOUR_S

    def judge(self, age_s: float | None, *, assured: bool) -> Freshness:
        """The step that knowledge of this age is on; None is knowledge that never came.

        `assured` says whether the clock that told the age can be relied on.
        """
        if age_s is None or age_s > self.stale:
            return Freshness.CLOSED
        if age_s > self.grace:
            return Freshness.STALE
        # A device that woke without a clock, or knows the time from satellites alone, knows only how old its
        # knowledge is at least.
        if age_s > self.fresh or not assured:
            return Freshness.GRACE
        return Freshness.FRESH
