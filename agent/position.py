"""Where this device is, and how old that knowledge is.

A last-known fix is never passed as live: beyond `fresh` seconds the position is null, with the reason and,
apart from it, where the device was last known to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Any

from agent.clock import NS, Moment
from drivers.readings import Fix, FixLost

EARTH_M = 6_371_000.0
AGREEING = 3
"""Fixes in a row whose time must agree before the clock believes them."""


def distance_m(a: Fix, b: Fix) -> float:
    """Great-circle distance in metres."""
    lat1, lat2 = radians(a.lat), radians(b.lat)
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin(radians(b.lon - a.lon) / 2) ** 2
    return 2 * EARTH_M * asin(sqrt(min(1.0, half)))  # Rounding can pass 1 at the antipodes.


@dataclass(slots=True)
class Position:
    """The newest fix of whichever receiver speaks."""

    fresh: float
    track_every: float
    track_beyond: float
    fix: Fix | None = None
    missing: str = "no_receiver"
    """Why there is no fix."""
    _heard_ns: int = 0
    _tracked: Fix | None = None
    _tracked_ns: int = 0
    _epochs: tuple[int, ...] = ()

    def stamp(self, now: Moment) -> Mapping[str, Any]:
        """What an entry says of where it was made: `position`, or null with a reason."""
        if self.fix is None:
            return {"position": None, "position_missing": self.missing}
        age_s = now.since(self._heard_ns)
        told = self._told(self.fix, age_s)
        if not self.missing and age_s <= self.fresh:
            return {"position": told}
        return {"position": None, "position_missing": self.missing or "stale", "last_known": told}

    def moved(self, fix: Fix, now: Moment) -> bool:
        """Take a fix; True when it is time for an entry of its own."""
        self.fix, self.missing, self._heard_ns = fix, "", now.mono_ns
        if self._tracked is not None:
            too_soon = now.since(self._tracked_ns) < self.track_every
            if too_soon or distance_m(self._tracked, fix) < self.track_beyond:
                return False
        self._tracked, self._tracked_ns = fix, now.mono_ns
        return True

    def lost(self, reading: FixLost) -> None:
        self.missing = reading.reason

    def agreed_utc_ns(self, fix: Fix, now: Moment) -> int | None:
        """The receiver's time, once several fixes in a row agree with this device's own seconds."""
        if fix.utc is None:
            self._epochs = ()
            return None
        utc_ns = int(fix.utc * NS)
        self._epochs = (*self._epochs, utc_ns - now.mono_ns)[-AGREEING:]
        steady = max(self._epochs) - min(self._epochs) < NS
        return utc_ns if len(self._epochs) == AGREEING and steady else None

    def _told(self, fix: Fix, age_s: float) -> dict[str, Any]:
        return {
            "lat": round(fix.lat, 6),
            "lon": round(fix.lon, 6),
            "age_s": round(age_s, 1),
            "hdop": fix.hdop,
            "source": fix.source,
        }
