"""One fix out of the several sentences in which a receiver tells it.

A receiver computes a position once per epoch and says it in a burst: RMC has date and speed, GGA or GNS
the quality, in any order. What belongs together has the same time of day. Pure: no clock, no bytes.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from drivers.readings import Fix, FixLost

T = TypeVar("T")

REMEMBERED = 3
"""Epochs whose kinds of sentence are expected again. More than one, as a sentence is lost now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one sentence, or a whole epoch, says. None where it says nothing."""

    time: float | None
    """Seconds since midnight UTC; 86400 and above within a leap second."""
    day: date | None = None
    position: tuple[float, float] | None = None
    """Latitude and longitude in degrees, only where the receiver vouches for them."""
    refused: str | None = None
    """Why there is no position: the reason of a `FixLost`."""
    hdop: float | None = None
    altitude_m: float | None = None
    speed_mps: float | None = None
    satellites: int | None = None


def merge(seen: Iterable[Observation]) -> Observation:
    """The epoch that these sentences tell: of each fact the first word, and one refusal refuses it all."""
    burst = list(seen)
    return Observation(
        time=burst[0].time,
        day=_first(one.day for one in burst),
        position=_first(one.position for one in burst),
        refused=_first(one.refused for one in burst),
        hdop=_first(one.hdop for one in burst),
        altitude_m=_first(one.altitude_m for one in burst),
        speed_mps=_first(one.speed_mps for one in burst),
        satellites=_first(one.satellites for one in burst),
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def judge(epoch: Observation, utc: float | None, *, max_hdop: float, source: str = "gnss") -> Fix | FixLost:
    """Whether the epoch has a fix that is good enough."""
    if epoch.refused is not None or epoch.position is None:
        return FixLost(reason=epoch.refused or "no_fix")
    if epoch.hdop is not None and epoch.hdop > max_hdop:
        return FixLost(reason="hdop")
    lat, lon = epoch.position
    return Fix(
        lat=lat,
        lon=lon,
        utc=utc,
        hdop=epoch.hdop,
        altitude_m=epoch.altitude_m,
        speed_mps=epoch.speed_mps,
        satellites=epoch.satellites,
        source=source,
    )


class Epochs:
    """Sorts observations into epochs.

    An epoch is complete with the last kind of sentence that the epochs before it had, and is told at once;
    if one is missing, or nothing is known yet, when the next epoch begins. What comes for an epoch after it
    was told is dropped.
    """

    def __init__(self) -> None:
        self._current: dict[str, Observation] = {}
        self._told = False
        self._before: deque[frozenset[str]] = deque(maxlen=REMEMBERED)

    def take(self, kind: str, seen: Observation) -> list[Observation]:
        """The epochs that this sentence completes: the one before it, its own, both or none."""
        complete: list[Observation] = []
        if self._starts_the_next(kind, seen):
            if not self._told:
                complete.append(merge(self._current.values()))
            self._before.append(frozenset(self._current))
            self._current, self._told = {}, False
        self._current.setdefault(kind, seen)
        if not self._told and self._has_all_kinds():
            self._told = True
            complete.append(merge(self._current.values()))
        return complete

    def _starts_the_next(self, kind: str, seen: Observation) -> bool:
        if not self._current:
            return False
        current = next(iter(self._current.values()))
        # A cold receiver has no time to tell epochs by: then they begin with the same kind again.
        return seen.time != current.time or (seen.time is None and kind in self._current)

    def _has_all_kinds(self) -> bool:
        expected = frozenset[str]().union(*self._before)
        return bool(expected) and expected <= self._current.keys()
