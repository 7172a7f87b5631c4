"""A GNSS receiver on a serial line: it says where it is once per epoch, whether anybody listens or not.

    with GnssReceiver(Path("gps")) as receiver:
        receiver.at(48.1173, 11.5167)
        receiver.drive_to(48.1201, 11.5203, over=60)
        receiver.lose_fix()

Sentences are NMEA 0183: `$`, talker and kind, fields, `*`, the XOR of what lies between as two hex
digits, CR LF. The receiver's own clock moves on by `step` at every epoch, so that a test may let a day
pass in a second; with `rate=0` an epoch passes only when `tick` is called.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from simulators.base import Faults, VirtualDevice

DEGREE_M = 111_195
"""Metres in one degree of a great circle."""
KNOT_MPS = 1852 / 3600


@dataclass
class Journey:
    """Where a van is: standing, or on a straight way at constant speed."""

    origin: tuple[float, float] = (48.1173, 11.516667)
    goal: tuple[float, float] = (48.1173, 11.516667)
    departed: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    lasts: float = 0.0

    def at(self, lat: float, lon: float) -> None:
        self.origin = self.goal = (lat, lon)
        self.lasts = 0.0

    def drive_to(self, lat: float, lon: float, *, over: float, now: datetime) -> None:
        self.origin, self.goal = self.position(now), (lat, lon)
        self.departed, self.lasts = now, over

    def position(self, now: datetime) -> tuple[float, float]:
        passed = (now - self.departed).total_seconds()
        share = min(1.0, passed / self.lasts) if self.lasts else 1.0
        (lat, lon), (goal_lat, goal_lon) = self.origin, self.goal
        return lat + (goal_lat - lat) * share, lon + (goal_lon - lon) * share

    def speed(self, now: datetime) -> float:
        """Metres per second."""
        if (now - self.departed).total_seconds() >= self.lasts:
            return 0.0
        north = self.goal[0] - self.origin[0]
        east = (self.goal[1] - self.origin[1]) * math.cos(math.radians(self.origin[0]))
        return math.hypot(north, east) * DEGREE_M / self.lasts


def sentence(body: str) -> bytes:
    """A whole sentence around what stands between `$` and `*`."""
    checksum = 0
    for character in body.encode("ascii"):
        checksum ^= character
    return f"${body}*{checksum:02X}\r\n".encode("ascii")


@dataclass
class Sky:
    """What the receiver makes of the satellites it sees."""

    has_fix: bool = True
    knows_time: bool = True
    hdop: float = 0.9
    satellites: int = 8
    altitude_m: float = 545.4


class GnssReceiver(VirtualDevice):
    """`kinds` are the sentences of one epoch, in their order: RMC, GGA, GNS, GLL, ZDA, GSV."""

    def __init__(
        self,
        name: Path,
        faults: Faults | None = None,
        *,
        talker: str = "GN",
        kinds: Sequence[str] = ("RMC", "GGA", "GSV"),
        rate: float = 1.0,
        step: float | None = None,
        start: datetime | None = None,
        weeks_back: int = 0,
    ) -> None:
        """`rate` is epochs per second, `start` the receiver's time at first (now, if not given)."""
        super().__init__(name, faults)
        self.talker = talker
        self.kinds = tuple(kinds)
        self.rate = rate
        self.now = start or datetime.now(UTC).replace(microsecond=0)
        self.weeks_back = weeks_back
        """So far behind is the date it tells: 1024 once its firmware has missed a rollover."""
        self.sky = Sky()
        self.journey = Journey()
        self._step = timedelta(seconds=step if step is not None else 1 / (rate or 1))
        self._next: asyncio.TimerHandle | None = None

    # -- hands ------------------------------------------------------------------------------------

    def at(self, lat: float, lon: float) -> None:
        """Stand there."""
        self.journey.at(lat, lon)

    def drive_to(self, lat: float, lon: float, *, over: float) -> None:
        """Leave now for a place, to arrive after `over` seconds of the receiver's time."""
        self.journey.drive_to(lat, lon, over=over, now=self.now)

    def lose_fix(self, *, forget_time: bool = False) -> None:
        """Go under a roof; a receiver started there does not know the time either."""
        self.sky.has_fix = False
        self.sky.knows_time = not forget_time

    def regain(self) -> None:
        """See the sky again."""
        self.sky.has_fix = self.sky.knows_time = True

    def say(self, body: str) -> None:
        """Send one sentence of your own. `send` takes bytes that need not be one."""
        self.send(sentence(body))

    def tick(self) -> None:
        """One epoch: say everything, then let the clock move on."""
        for kind in self.kinds:
            self.say(f"{self.talker}{kind},{self._fields(kind)}")
        self.now += self._step

    # -- the receiver -----------------------------------------------------------------------------

    def powered(self) -> None:
        if self.rate:
            self._schedule(asyncio.get_running_loop().time() + 1 / self.rate)

    def unplug(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        super().unplug()

    def _schedule(self, when: float) -> None:
        self._next = asyncio.get_running_loop().call_at(when, self._on_time, when)

    def _on_time(self, when: float) -> None:
        self.tick()
        # From when it was due, not from now: late wake-ups must not add up.
        self._schedule(when + 1 / self.rate)

    def _fields(self, kind: str) -> str:
        sky = self.sky
        time = (
            self.now.strftime("%H%M%S.") + f"{self.now.microsecond // 10_000:02d}" if sky.knows_time else ""
        )
        told = self.now - timedelta(weeks=self.weeks_back)
        date = told.strftime("%d%m%y") if sky.knows_time else ""
        place, used = self._place() if sky.has_fix else ",,,", f"{sky.satellites:02d}"
        above = f"{sky.altitude_m:.1f}"
        match kind, sky.has_fix:
            case "RMC", True:
                knots = self.journey.speed(self.now) / KNOT_MPS
                return f"{time},A,{place},{knots:.3f},,{date},,,A,V"
            case "RMC", False:
                return f"{time},V,{place},,,{date},,,N,V"
            case "GGA", True:
                return f"{time},{place},1,{used},{sky.hdop:.2f},{above},M,46.9,M,,"
            case "GGA", False:
                return f"{time},{place},0,00,99.99,,,,,,"
            case "GNS", True:
                return f"{time},{place},AAN,{used},{sky.hdop:.2f},{above},46.9,,,V"
            case "GNS", False:
                return f"{time},{place},NNN,00,99.99,,,,,V"
            case "GLL", has_fix:
                return f"{place},{time},{'A,A' if has_fix else 'V,N'}"
            case "ZDA", _:
                return f"{time},{told.strftime('%d,%m,%Y') if sky.knows_time else ',,'},00,00"
            case "GSV", _:
                return "1,1,02,05,41,083,46,12,57,279,39,1"
        raise ValueError(f"expected RMC, GGA, GNS, GLL, ZDA or GSV, got {kind!r}")

    def _place(self) -> str:
        lat, lon = self.journey.position(self.now)
        north, east = "N" if lat >= 0 else "S", "E" if lon >= 0 else "W"
        return f"{_angle(lat, 2)},{north},{_angle(lon, 3)},{east}"


def _angle(degrees: float, digits: int) -> str:
    """Degrees and minutes with five decimals, `4807.03800`."""
    in_minutes = round(abs(degrees) * 60, 5)
    whole, minutes = divmod(in_minutes, 60)
    return f"{int(whole):0{digits}d}{minutes:08.5f}"
