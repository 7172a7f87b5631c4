"""gpsd as a source of positions, where it holds the receiver: JSON objects, one a line, over TCP.

gpsd says VERSION when we connect, and after `?WATCH` for ever TPV (time, position, velocity) and SKY
(dilution of precision, satellites) of each receiver it has. Address it as `tcp:HOST:2947`.
"""

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from drivers.base import BadFrame, Codec, Emit, Link, NoReply
from drivers.epoch import Observation, judge
from drivers.fixes import FixOptions, PositionDriver, plausible
from drivers.gpstime import seconds_since_1970, unroll

WATCH = b'?WATCH={"enable":true,"json":true};\n'

LIMIT = 10240
"""gpsd's own `GPS_JSON_RESPONSE_MAX`: no line it sends is longer. A SKY of 100 satellites has some 8 KiB."""
DEPTH = 8
"""Deeper nesting is not gpsd: a SKY has three levels."""

MODES_WITH_FIX = (2, 3)
"""TPV `mode`: 0 unknown, 1 no fix, 2 without altitude, 3 with altitude."""
ESTIMATED_STATUSES = (5, 8)
"""TPV `status`: dead reckoning, simulated."""

Report = Mapping[str, object]
"""One JSON object; `class` is a string that says what it is."""


class GpsdCodec(Codec[Report]):
    """Objects with a class, whichever. Bad JSON is counted; a line over the limit yields nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._overlong = False

    def feed(self, data: bytes) -> list[Report]:
        *ends, rest = data.split(b"\n")
        reports: list[Report] = []
        for end in ends:
            self._hold(end)
            reports += self._end_of_line()
        self._hold(rest)
        return reports

    def reset(self) -> None:
        super().reset()
        self._overlong = False

    def _hold(self, part: bytes) -> None:
        if self._overlong:
            return
        self._buffer += part
        if len(self._buffer) > LIMIT:
            self.noise["too_long"] += 1
            self._buffer.clear()
            self._overlong = True

    def _end_of_line(self) -> list[Report]:
        line = bytes(self._buffer).strip()
        self._buffer.clear()
        self._overlong = False
        if not line:
            return []
        try:
            return [_decode(line)]
        except BadFrame as bad:
            self.noise[str(bad)] += 1
            return []


def _decode(line: bytes) -> Report:
    if _depth(line) > DEPTH:
        raise BadFrame("too_deep")
    try:
        report = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadFrame("not_json") from None
    if not isinstance(report, dict) or not isinstance(report.get("class"), str):
        raise BadFrame("not_a_report")
    return report


def _depth(line: bytes) -> int:
    """How deep brackets open. Those within strings count too: gpsd sends none there that would matter."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[{}\]]", line):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_constant(name: str) -> object:
    """NaN and Infinity, which Python takes and JSON does not have."""
    raise ValueError(name)


# -- what a report says ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """What the last SKY reports said of one receiver."""

    device: object = None
    hdop: float | None = None
    satellites: int | None = None

    def updated(self, report: Report) -> "Sky":
        """After one more report. Some carry only one of the two facts: the other holds on."""
        device = report.get("device")
        before = self if device == self.device else Sky()
        hdop, satellites = _number(report, "hdop"), _satellites_used(report)
        return Sky(
            device=device,
            hdop=before.hdop if hdop is None else hdop,
            satellites=before.satellites if satellites is None else satellites,
        )


def _satellites_used(report: Report) -> int | None:
    used = _number(report, "uSat")
    if used is not None:
        return int(used)
    # gpsd before 3.22 does not count them itself.
    listed = report.get("satellites")
    if not isinstance(listed, list):
        return None
    return sum(isinstance(one, dict) and one.get("used") is True for one in listed)


def observe(tpv: Report, sky: Sky, today: date) -> tuple[Observation, float | None]:
    """What a TPV says, and its UTC, week rollover corrected. Raises BadFrame if its time cannot be read."""
    utc = _utc(tpv.get("time"), today)
    if tpv.get("mode") not in MODES_WITH_FIX:
        return Observation(time=None, refused="no_fix"), utc
    if tpv.get("status") in ESTIMATED_STATUSES:
        return Observation(time=None, refused="estimated"), utc
    lat, lon = _number(tpv, "lat"), _number(tpv, "lon")
    if lat is None or lon is None or not plausible(lat, lon):
        return Observation(time=None, refused="implausible"), utc
    of_same_device = sky if sky.device == tpv.get("device") else Sky()
    above_sea = _number(tpv, "altMSL")
    observation = Observation(
        time=None,
        position=(lat, lon),
        hdop=of_same_device.hdop,
        # `alt`, of gpsd before 3.20, is above mean sea level too.
        altitude_m=_number(tpv, "alt") if above_sea is None else above_sea,
        speed_mps=_number(tpv, "speed"),
        satellites=of_same_device.satellites,
    )
    return observation, utc


def _utc(text: object, today: date) -> float | None:
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(str(text))
    except ValueError:
        raise BadFrame("time") from None
    # The manual promises UTC, with a Z.
    if told.utcoffset() != timedelta(0):
        raise BadFrame("time")
    midnight = datetime.combine(told.date(), datetime.min.time(), told.tzinfo)
    return seconds_since_1970(unroll(told.date(), today), (told - midnight).total_seconds())


def _number(report: Report, name: str) -> float | None:
    """A finite number; None where there is none, or something else (`1e999` reads as infinite)."""
    value = report.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # whole numbers have no bound in Python
        return None


# -- the driver -----------------------------------------------------------------------------------


class GpsdDriver(PositionDriver[Report]):
    """One fix per interval while gpsd has one, and once that it has lost it."""

    kind = "gpsd"

    def __init__(
        self, link: Link, emit: Emit, options: FixOptions, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`wall_clock` need only be right to some years: it tells one week rollover from the next."""
        super().__init__(link, emit, options)
        self._sky = Sky()
        self._wall_clock = wall_clock

    def make_codec(self) -> GpsdCodec:
        return GpsdCodec()

    async def identify(self) -> Mapping[str, str]:
        """The release and protocol of gpsd, from the VERSION with which it greets."""
        version = await self.first_word()
        if version["class"] != "VERSION":
            raise NoReply(f"expected VERSION, got {version['class']!r:.40}")
        protocol = f"{version.get('proto_major', '?')}.{version.get('proto_minor', '?')}"
        return {"release": str(version.get("release", "?")), "protocol": protocol}

    async def run(self) -> None:
        await self.link.write(WATCH)
        while True:
            report = await self.next_word()
            match report["class"]:
                case "TPV":
                    await self._take_position(report)
                case "SKY":
                    self._sky = self._sky.updated(report)
                case "ERROR":
                    self.noise["refused_by_gpsd"] += 1

    async def _take_position(self, tpv: Report) -> None:
        today = datetime.fromtimestamp(self._wall_clock(), UTC).date()
        try:
            seen, utc = observe(tpv, self._sky, today)
        except BadFrame as bad:
            self.noise[str(bad)] += 1
            return
        if seen.refused == "implausible":
            self.noise["implausible"] += 1
        await self.tell(judge(seen, utc, max_hdop=self.options.max_hdop, source="gpsd"), at=utc)
