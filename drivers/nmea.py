"""NMEA 0183 receivers: `$TTSSS,field,..*HH` CR LF, two letters of talker, three of sentence kind.

The framer is ours, as a lost byte must not cost the next sentence: each `$` or `!` begins anew. The
checksum, which the standard leaves optional, is required. Fields are read by pynmeagps, which takes any
latitude, any minutes and no leap second: time and ranges are checked here.
"""

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pynmeagps import GET, NMEAMessage
from pynmeagps.exceptions import NMEAMessageError, NMEAParseError, NMEATypeError

from drivers.base import BadFrame, Codec, Emit, Link
from drivers.checksums import xor8
from drivers.epoch import Epochs, Observation, judge
from drivers.fixes import FixOptions, PositionDriver, plausible
from drivers.gpstime import Calendar, unroll

LIMIT = 256
"""The standard says 82 characters; receivers with many satellites or digits send more."""

STARTS = frozenset(b"$!")
ENDS = frozenset(b"\r\n")

_SENTENCE = re.compile(rb"[$!]([A-Z][A-Z0-9]{2,}(?:,[\x20-\x7e]*)?)\*([0-9A-Fa-f]{2})")
_TIME = re.compile(r"(\d\d)(\d\d)(\d\d(?:\.\d*)?)")
_LATITUDE = re.compile(r"\d\d[0-5]\d\.\d+")
_LONGITUDE = re.compile(r"\d\d\d[0-5]\d\.\d+")

TIME_AND_LATITUDE = {"GGA": (0, 1), "GNS": (0, 1), "RMC": (0, 2), "GLL": (4, 0)}
"""Where the kinds of sentence with a position have their time and latitude among the fields."""

KNOT = 1852 / 3600
"""Metres per second."""

ESTIMATED_QUALITIES = (6, 7, 8)
"""GGA: dead reckoning, manual input, simulator."""
MEASURED_MODES = frozenset("ADFPR")
"""Autonomous, differential, float RTK, precise, RTK. Not: E estimated, M manual, S simulator, N not valid."""
ESTIMATED_MODES = frozenset("EMS")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence whose checksum was right."""

    address: str
    """Talker and kind, as in `GNRMC`; proprietary ones begin with P and the maker's three letters."""
    fields: tuple[str, ...]

    @property
    def talker(self) -> str:
        return self.address[:4] if self.address.startswith("P") else self.address[:2]

    @property
    def kind(self) -> str:
        """`RMC`, `GGA`, ...; of a proprietary sentence nothing that any standard kind is called."""
        return "" if self.address.startswith("P") else self.address[2:]

    def field(self, index: int) -> str:
        """Older receivers send fewer fields: those are empty."""
        return self.fields[index] if index < len(self.fields) else ""


class NmeaCodec(Codec[Sentence]):
    """Sentences of any talker and kind. Line ends of CR, LF or both are taken.

    No idle gap resets it: half a sentence is ended by the next one's `$`, and counted.
    """

    def feed(self, data: bytes) -> list[Sentence]:
        sentences: list[Sentence] = []
        for byte in data:
            if byte in STARTS:
                self.reset()
                self._buffer.append(byte)
            elif byte in ENDS:
                sentences += self._end()
            elif not self._buffer:
                self.noise["skipped_bytes"] += 1
            elif len(self._buffer) == LIMIT:
                self.noise["too_long"] += 1
                self._buffer.clear()
            else:
                self._buffer.append(byte)
        return sentences

    def _end(self) -> list[Sentence]:
        if not self._buffer:
            return []
        try:
            return [_decode(bytes(self._buffer))]
        except BadFrame as bad:
            self.noise[str(bad)] += 1
            return []
        finally:
            self._buffer.clear()


def _decode(raw: bytes) -> Sentence:
    if raw[-3:-2] != b"*":
        raise BadFrame("no_checksum")
    match = _SENTENCE.fullmatch(raw)
    if match is None:
        raise BadFrame("malformed")
    if xor8(match[1]) != int(match[2], 16):
        raise BadFrame("checksum")
    address, *fields = match[1].decode("ascii").split(",")
    return Sentence(address, tuple(fields))


# -- what a sentence says -------------------------------------------------------------------------


def observe(sentence: Sentence) -> Observation | None:
    """What a sentence says about its epoch; None for a kind that says nothing we need.

    Raises BadFrame where a field cannot be what it should be.
    """
    if sentence.kind == "ZDA":
        return _observe_date(sentence)
    if sentence.kind not in TIME_AND_LATITUDE:
        return None
    time_at, latitude_at = TIME_AND_LATITUDE[sentence.kind]
    time_of_day = _time_of_day(sentence.field(time_at))
    message = _parse(sentence)
    day = _date(sentence, message)
    if refused := _refusal(sentence, message):
        return Observation(time=time_of_day, day=day, refused=refused)
    position = _position(sentence, message, latitude_at)
    if position is None:
        return Observation(time=time_of_day, day=day, refused="implausible")
    knots, satellites = _number(message, "spd"), _number(message, "numSV")
    return Observation(
        time=time_of_day,
        day=day,
        position=position,
        hdop=_number(message, "HDOP"),
        altitude_m=_number(message, "alt"),
        speed_mps=None if knots is None else knots * KNOT,
        satellites=None if satellites is None else int(satellites),
    )


def _observe_date(sentence: Sentence) -> Observation:
    message = _parse(sentence)
    time_of_day = _time_of_day(sentence.field(0))
    if not sentence.field(1):
        return Observation(time=time_of_day)
    try:
        return Observation(time=time_of_day, day=date(message.year, message.month, message.day))
    except (AttributeError, TypeError, ValueError):
        raise BadFrame("date") from None


def _parse(sentence: Sentence) -> Any:
    try:
        return NMEAMessage(sentence.talker, sentence.kind, GET, payload=list(sentence.fields))
    except (NMEAMessageError, NMEAParseError, NMEATypeError):
        raise BadFrame("field") from None


def _time_of_day(text: str) -> float | None:
    if not text:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadFrame("time")
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3])
    longest_minute = 61 if (hours, minutes) == (23, 59) else 60
    if hours > 23 or minutes > 59 or seconds >= longest_minute:
        raise BadFrame("time")
    return hours * 3600 + minutes * 60 + seconds


def _date(sentence: Sentence, message: Any) -> date | None:
    """The date of an RMC. The parser gives "" for none, and would read `1123` as 1 January 2023."""
    if sentence.kind != "RMC" or not sentence.field(8):
        return None
    if len(sentence.field(8)) != 6 or not isinstance(message.date, date):
        raise BadFrame("date")
    return message.date


def _refusal(sentence: Sentence, message: Any) -> str | None:
    """Why the receiver does not vouch for a position, or None if it does."""
    if sentence.kind == "GGA":
        quality = _number(message, "quality")
        if quality in ESTIMATED_QUALITIES:
            return "estimated"
        return None if quality else "no_fix"
    modes = getattr(message, "posMode", "")
    if sentence.kind == "GNS":
        # One letter for each satellite system; one that measures is enough.
        return _refusal_of_modes(modes)
    if getattr(message, "status", "") != "A":
        return "no_fix"
    # The mode came with NMEA 2.3: older receivers have the status alone.
    return _refusal_of_modes(modes) if modes else None


def _refusal_of_modes(modes: str) -> str | None:
    if MEASURED_MODES.intersection(modes):
        return None
    return "estimated" if ESTIMATED_MODES.intersection(modes) else "no_fix"


def _position(sentence: Sentence, message: Any, latitude_at: int) -> tuple[float, float] | None:
    """Signed degrees, if there is such a place."""
    latitude, north, longitude, east = (sentence.field(latitude_at + n) for n in range(4))
    if not _LATITUDE.fullmatch(latitude) or north not in ("N", "S"):
        return None
    if not _LONGITUDE.fullmatch(longitude) or east not in ("E", "W"):
        return None
    lat, lon = message.lat, message.lon
    return (lat, lon) if plausible(lat, lon) else None


def _number(message: Any, name: str) -> float | None:
    """A field as a number; None if it is empty or missing, or reads as no number at all (`nan`, `inf`)."""
    value: Any = getattr(message, name, "")
    return value if value != "" and math.isfinite(value) else None


# -- the driver -----------------------------------------------------------------------------------


class NmeaDriver(PositionDriver[Sentence]):
    """One fix per interval while the receiver has one, and once that it has lost it."""

    kind = "nmea"
    ANSWERS = True
    BAUD = 9600

    def __init__(
        self, link: Link, emit: Emit, options: FixOptions, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`wall_clock` need only be right to some years: it tells one week rollover from the next."""
        super().__init__(link, emit, options)
        self.epochs = Epochs()
        self.calendar = Calendar()
        self._wall_clock = wall_clock

    def make_codec(self) -> NmeaCodec:
        return NmeaCodec()

    async def identify(self) -> Mapping[str, str]:
        """The talker: GP a GPS receiver, GN one of several systems, and so on."""
        return {"talker": (await self.first_word()).talker}

    async def run(self) -> None:
        while True:
            sentence = await self.next_word()
            for epoch in self._epochs_completed_by(sentence):
                utc = self.calendar.utc(epoch.time)
                verdict = judge(epoch, utc, max_hdop=self.options.max_hdop)
                await self.tell(verdict, at=epoch.time if utc is None else utc)

    def _epochs_completed_by(self, sentence: Sentence) -> list[Observation]:
        try:
            seen = observe(sentence)
        except BadFrame as bad:
            self.noise[str(bad)] += 1
            return []
        if seen is None:
            return []
        if seen.refused == "implausible":
            self.noise["implausible"] += 1
        if seen.day is not None and seen.time is not None:
            today = datetime.fromtimestamp(self._wall_clock(), UTC).date()
            self.calendar.told(unroll(seen.day, today), seen.time)
        return self.epochs.take(sentence.kind, seen) if sentence.kind in TIME_AND_LATITUDE else []
