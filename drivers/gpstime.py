"""Civil time out of what GNSS receivers tell: the week rollover, and times of day without a date.

GPS counts weeks in ten bits, so that a receiver cannot tell a date from one 1024 weeks away. Old firmware
takes a fixed base and, once that has expired, reports dates 1024 or 2048 weeks early, while time of day
and position stay right. Nothing here reads a clock.

>>> unroll(date(2007, 4, 10), reference=date(2026, 12, 1))
datetime.date(2026, 11, 24)
"""

from datetime import date, timedelta

RELEASED = date(2026, 11, 1)
"""This program meets no receiver earlier: the reference while the system clock is behind it."""

ROLLOVER = timedelta(weeks=1024)
DAY = 86400.0
EPOCH_1970 = date(1970, 1, 1)


def unroll(told: date, reference: date) -> date:
    """The date a whole number of rollovers from `told` that lies nearest to the reference or the release.

    Right from 9.8 years before the later of the two to 9.8 years after it.
    """
    missed = round((max(reference, RELEASED) - told) / ROLLOVER)
    return told + missed * ROLLOVER


def seconds_since_1970(day: date, time: float) -> float:
    """UTC as POSIX counts it: the leap second 23:59:60 is the same second as the midnight after it."""
    return (day - EPOCH_1970).days * DAY + time


class Calendar:
    """Puts a date to times of day. A receiver tells the date in some sentences, or only now and then.

    The date is carried on over midnight, forwards and backwards, as long as some time of day comes at
    least every twelve hours.
    """

    def __init__(self) -> None:
        self._day: date | None = None
        self._time = 0.0

    def told(self, day: date, time: float) -> None:
        """The receiver said both; `time` is seconds since midnight UTC."""
        self._day, self._time = day, time

    def utc(self, time: float | None) -> float | None:
        """Seconds since 1970 of the moment nearest to the last one with this time of day; None if unknown."""
        if self._day is None or time is None:
            return None
        if self._time - time > DAY / 2:
            self._day += timedelta(days=1)
        elif time - self._time > DAY / 2:
            self._day -= timedelta(days=1)
        self._time = time
        return seconds_since_1970(self._day, time)
