"""What time it is, and how far that can be trusted.

A Pi has no clock at boot, so order and identity never come from wall time. Every moment carries three
things: `mono_ns` (CLOCK_BOOTTIME, which no one can set), the boot it belongs to, and `utc_ns`, the best
knowledge of civil time with the trust it deserves. When better knowledge arrives later in the same boot,
`observe` returns a `Correction`, from which the time of every earlier entry of that boot follows.

Civil time never goes below the floor: the build date, or the latest trusted time this device ever knew. A
wall clock that somebody sets while the agent runs moves nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Protocol, Self

NS = 1_000_000_000
BUILT_UTC_NS = 1_793_491_200 * NS
"""2026-11-01: no moment in this program's life lies before it."""

DRIFT = 5.0 / 86_400
"""Seconds per second that an undisciplined clock is allowed to wander: 5 s a day."""

STEP_S = 1.0
"""A change of offset below this is drift, above it a correction worth an entry."""


class Trust(StrEnum):
    """Where civil time comes from, best first. GPS and NTP are equals."""

    GPS = "gps"
    NTP = "ntp"
    FLEET = "fleet"
    RTC = "rtc"
    NONE = "none"


_RANK = {Trust.GPS: 4, Trust.NTP: 4, Trust.FLEET: 3, Trust.RTC: 1, Trust.NONE: 0}
RTC_ERROR_S = 60.0
NTP_ERROR_S = 0.1
HOLDOVER_S = 86_400.0
"""A source silent for so long has no more say than an RTC."""

FLOOR_RISE_NS = 7 * 86_400 * NS
"""What others tell can raise the next run's floor by no more than this, beside the time since boot."""

FLEET_RISE_NS = 366 * 86_400 * NS
"""The same of what the fleet has signed for our own nonce: a device may wait long for its first day."""

FLOOR_PACE = 0.999
"""Time passes, whoever says what: the floor rises with it, slower by more than any crystal is wrong."""

_RAISES_FLOOR = (Trust.NTP, Trust.FLEET)
"""Satellites can be faked by anybody near: they are evidence, and raise no floor."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NTP_SIGN = Path("/run/systemd/timesync/synchronized")

Source = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant, as this device knows it."""

    boot: str
    mono_ns: int
    utc_ns: int
    trust: Trust = Trust.NONE
    error_s: float | None = None
    """Half-width of the interval that true time lies in; None when nothing is known."""
    vouched: bool = False
    """The fleet's signed time has agreed within the last day."""

    @property
    def assured(self) -> bool:
        """Whether a decision may stand on it. Satellites can be faked by anybody near: they are evidence."""
        return self.vouched or self.trust not in (Trust.GPS, Trust.NONE)

    def since(self, mono_ns: int) -> float:
        """Seconds since `mono_ns` of the same boot."""
        return (self.mono_ns - mono_ns) / NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Better time arrived: `utc = mono + epoch_ns` held to be true, where `old_epoch_ns` was used before."""

    boot: str
    epoch_ns: int
    old_epoch_ns: int
    trust: Trust
    old_trust: Trust

    @property
    def offset_s(self) -> float:
        return (self.epoch_ns - self.old_epoch_ns) / NS


class Clock(Protocol):
    """Time as an argument: what decisions are given, real or played."""

    def now(self) -> Moment: ...


@dataclass(frozen=True, slots=True)
class _Told:
    """A time that was told: `utc = mono + epoch_ns`, so far right to `error_s`."""

    epoch_ns: int
    error_s: float
    at_mono_ns: int

    def counts(self, mono: int) -> bool:
        return (mono - self.at_mono_ns) / NS <= HOLDOVER_S

    def contradicts(self, other: Self) -> bool:
        """Whether the two cannot both be right."""
        drift_s = abs(self.at_mono_ns - other.at_mono_ns) / NS * DRIFT
        return abs(self.epoch_ns - other.epoch_ns) / NS > self.error_s + other.error_s + drift_s


class SystemClock:
    """The clocks of this machine, disciplined by what receivers and servers tell."""

    def __init__(
        self,
        *,
        floor_ns: int = BUILT_UTC_NS,
        has_rtc: bool | None = None,
        boot: str | None = None,
        mono: Source | None = None,
        wall: Source | None = None,
        ntp_age: Callable[[], float | None] | None = None,
    ) -> None:
        """`mono` and `wall` are nanoseconds; `ntp_age` the seconds since the last synchronisation, if any."""
        self.boot = BOOT_ID.read_text().strip() if boot is None else boot
        self.floor_ns = max(floor_ns, BUILT_UTC_NS)
        self._mono = mono or mono_ns
        self._wall = wall or time.time_ns
        self._ntp_age = ntp_age or ntp_age_s
        rtc = Path("/dev/rtc0").exists() if has_rtc is None else has_rtc
        self._trust = Trust.RTC if rtc else Trust.NONE
        self._error_s: float | None = RTC_ERROR_S if rtc else None
        self._heard_ns = self._mono()
        self._epoch_ns = self._wall() - self._heard_ns
        self._told_epoch_ns = self._epoch_ns
        self._raised_to_ns, self._raised_at_ns = self.floor_ns, self._heard_ns
        """The next run's floor when it was last raised, and when that was."""
        self._told_ns, self._told_at_ns = self.floor_ns, self._heard_ns
        """What the fleet or a server has told last, and when."""
        self.disputed: Trust | None = None
        """A source that says another time than the fleet has signed."""
        self._vouched: _Told | None = None
        self._keep_above_floor()

    def now(self) -> Moment:
        mono = self._mono()
        error = self._error_at(mono)
        return Moment(
            self.boot,
            mono,
            self._epoch_ns + mono,
            self._trust,
            None if error is None else round(error, 3),
            self._vouched is not None and self._vouched.counts(mono),
        )

    def remember_floor(self, floor_ns: int) -> None:
        """Take up the floor of the last run: it only ever rises."""
        self.floor_ns = max(self.floor_ns, floor_ns)
        mono = self._mono()
        self._raise_floor(self.floor_ns, mono)
        self._told_ns, self._told_at_ns = max(self._told_ns, self.floor_ns), mono
        self._keep_above_floor()

    @property
    def next_floor_ns(self) -> int:
        """The floor to be remembered for the next run: no source of time is needed for it to rise."""
        return self._next_floor_at(self._mono())

    def observe(self, trust: Trust, utc_ns: int, at_mono_ns: int, error_s: float) -> Correction | None:
        """Learn what time it was at `at_mono_ns`. Worse knowledge than is held is ignored.

        Time below the floor is no knowledge at all. Nor are satellites that are behind what was told before:
        whoever fakes them would make the fleet's word young again. What the fleet has signed for this very
        device outweighs for a day whatever says otherwise: it can be neither faked by radio nor slipped in by
        a server.
        """
        if utc_ns < self.floor_ns:
            return None
        told = _Told(utc_ns - at_mono_ns, error_s, at_mono_ns)
        if trust is Trust.FLEET:
            self._vouched, self.disputed = told, None
            if not told.contradicts(self._held_by(at_mono_ns)) and not self._is_better(
                trust, at_mono_ns, error_s
            ):
                return None
        elif self._disputes(trust, told) or not self._is_better(trust, at_mono_ns, error_s):
            return None
        old_trust, new_epoch = self._trust, utc_ns - at_mono_ns
        off_s = abs(new_epoch - self._epoch_ns) / NS
        # Within its error a steady source only jitters: keep the epoch, so that time does not wobble.
        if old_trust is not trust or off_s > max(error_s, 0.1):
            self._epoch_ns, off_s = new_epoch, 0.0
        self._trust, self._error_s, self._heard_ns = trust, error_s + off_s, at_mono_ns
        if trust in _RAISES_FLOOR:
            self._told_ns, self._told_at_ns = utc_ns, at_mono_ns
            # One lie about the far future shall not make everything look expired for ever.
            rise_ns = FLEET_RISE_NS if trust is Trust.FLEET else FLOOR_RISE_NS
            limit_ns = self.floor_ns + rise_ns + at_mono_ns
            self._raise_floor(min(utc_ns, limit_ns), at_mono_ns)
        return self._correction(old_trust)

    def at_least(self, utc_ns: int) -> Correction | None:
        """Somebody whom we trust has signed something at this time: it cannot be earlier.

        It raises the floor, and moves the time of who knows none, but never further than seven days from
        where this run began: an old key must not make everything look expired.
        """
        mono = self._mono()
        utc_ns = min(utc_ns, self.floor_ns + FLOOR_RISE_NS + mono)
        self._raise_floor(utc_ns, mono)
        if self._trust is not Trust.NONE or utc_ns <= self._epoch_ns + mono:
            return None
        self._epoch_ns = utc_ns - mono
        return self._correction(self._trust)

    def observe_ntp(self) -> Correction | None:
        """Follow the system clock while the system says that it is synchronised."""
        age_s = self._ntp_age()
        if age_s is None or age_s > HOLDOVER_S:
            return None
        mono = self._mono()
        return self.observe(Trust.NTP, self._wall(), mono, NTP_ERROR_S + age_s * DRIFT)

    def _is_better(self, trust: Trust, at_mono_ns: int, error_s: float) -> bool:
        if trust is self._trust:
            return True
        held_rank, error = _RANK[self._trust], self._error_at(at_mono_ns)
        if (at_mono_ns - self._heard_ns) / NS > HOLDOVER_S:
            held_rank = min(held_rank, _RANK[Trust.RTC])
        # Of equals the one with the smaller error is right, and time does not jump to and fro between them.
        return _RANK[trust] > held_rank or (_RANK[trust] == held_rank and (error is None or error_s < error))

    def _held_by(self, at_mono_ns: int) -> "_Told":
        """What is held now, as if somebody had told it."""
        return _Told(self._epoch_ns, self._error_at(at_mono_ns) or 0.0, at_mono_ns)

    def _disputes(self, trust: Trust, told: "_Told") -> bool:
        """Whether this is not what the fleet said within the last day, or satellites set the clock back."""
        vouched = self._vouched
        disputes = vouched is not None and vouched.counts(told.at_mono_ns) and told.contradicts(vouched)
        disputes |= trust is Trust.GPS and told.epoch_ns + told.at_mono_ns < self._sure_at(told)
        if disputes:
            self.disputed = trust
        elif self.disputed is trust:
            self.disputed = None
        return disputes

    def _error_at(self, mono: int) -> float | None:
        if self._error_s is None:
            return None
        return self._error_s + max(0, mono - self._heard_ns) / NS * DRIFT

    def _correction(self, old_trust: Trust) -> Correction | None:
        """What is to be told, now or by the first of many small steps that adds up."""
        stepped = abs(self._epoch_ns - self._told_epoch_ns) / NS >= STEP_S
        if not stepped and _RANK[self._trust] == _RANK[old_trust]:
            return None
        told, self._told_epoch_ns = self._told_epoch_ns, self._epoch_ns
        return Correction(
            boot=self.boot,
            epoch_ns=self._epoch_ns,
            old_epoch_ns=told,
            trust=self._trust,
            old_trust=old_trust,
        )

    def _next_floor_at(self, mono: int) -> int:
        return self._raised_to_ns + int((mono - self._raised_at_ns) * FLOOR_PACE)

    def _sure_at(self, told: "_Told") -> int:
        """What it is at least when that is told, by what was told before and by what has passed since."""
        passed_ns = int((told.at_mono_ns - self._told_at_ns) * FLOOR_PACE)
        return self._told_ns + passed_ns - int((told.error_s + STEP_S) * NS)

    def _raise_floor(self, utc_ns: int, at_mono_ns: int) -> None:
        if utc_ns > self._next_floor_at(at_mono_ns):
            self._raised_to_ns, self._raised_at_ns = utc_ns, at_mono_ns

    def _keep_above_floor(self) -> None:
        mono = self._mono()
        if self._epoch_ns + mono < self.floor_ns:
            self._trust, self._error_s = Trust.NONE, None
            self._epoch_ns = self._told_epoch_ns = self.floor_ns - mono


def mono_ns() -> int:
    """Nanoseconds since boot, suspend included: a sleeping handheld's timers go on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ntp_age_s(sign: Path = NTP_SIGN) -> float | None:
    """Seconds since systemd-timesyncd last set the clock; None if it has not.

    Its sign is a file that it touches each time. The kernel's flag cannot be read under `ProtectClock=yes`.
    """
    try:
        return max(0.0, time.time() - sign.stat().st_mtime)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4)
def _to_the_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def rfc3339(utc_ns: int) -> str:
    """UTC with microseconds, e.g. `2026-11-24T08:15:30.123456Z`."""
    whole, rest = divmod(utc_ns, NS)
    return f"{_to_the_second(whole)}.{rest // 1000:06d}Z"
