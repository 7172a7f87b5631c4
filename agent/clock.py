"""What time it is, and how far that can be trusted.

A Pi has no clock at boot, so order and identity never come from wall time. Every moment carries three
things: `mono_ns` (CLOCK_BOOTTIME, which no one can set), the boot it belongs to, and `utc_ns`, the best
knowledge of civil time with the trust it deserves. When better knowledge arrives later in the same boot,
`observe` returns a `Correction`, from which the time of every earlier entry of that boot follows.

Civil time never goes below the floor: the build date, or the latest trusted time this device ever knew.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Protocol

NS = 1_000_000_000
BUILT_UTC_NS = 1_793_491_200 * NS
"""2026-11-01: no moment in this program's life lies before it."""

DRIFT = 5.0 / 86_400
"""Seconds per second that an undisciplined clock is allowed to wander: 5 s a day."""

STEP_S = 1.0
"""A change of offset below this is drift, above it a correction worth an entry."""


class Trust(StrEnum):
    """Where civil time comes from, best first."""

    GPS = "gps"
    NTP = "ntp"
    FLEET = "fleet"
    RTC = "rtc"
    NONE = "none"


_RANK = {Trust.GPS: 4, Trust.NTP: 4, Trust.FLEET: 3, Trust.RTC: 1, Trust.NONE: 0}
RTC_ERROR_S = 60.0


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant, as this device knows it."""

    boot: str
    mono_ns: int
    utc_ns: int
    trust: Trust = Trust.NONE
    error_s: float | None = None
    """Half-width of the interval that true time lies in; None when nothing is known."""

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


class SystemClock:
    """The clocks of this machine, disciplined by what receivers and servers tell."""

    def __init__(self, *, floor_ns: int = BUILT_UTC_NS, has_rtc: bool | None = None) -> None:
        self.boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.floor_ns = max(floor_ns, BUILT_UTC_NS)
        rtc = Path("/dev/rtc0").exists() if has_rtc is None else has_rtc
        self._trust = Trust.RTC if rtc else Trust.NONE
        self._error_s: float | None = RTC_ERROR_S if rtc else None
        self._heard_mono_ns = mono_ns()
        self._epoch_ns = self._wall_epoch_ns()
        if self._epoch_ns + self._heard_mono_ns < self.floor_ns:
            self._trust, self._error_s = Trust.NONE, None
            self._epoch_ns = self.floor_ns - self._heard_mono_ns

    def now(self) -> Moment:
        mono = mono_ns()
        error = self._error_s
        if error is not None:
            error = round(error + (mono - self._heard_mono_ns) / NS * DRIFT, 3)
        return Moment(self.boot, mono, self._epoch_ns + mono, self._trust, error)

    def observe(self, trust: Trust, utc_ns: int, at_mono_ns: int, error_s: float) -> Correction | None:
        """Learn what time it was at `at_mono_ns`. Worse knowledge than is held is ignored.

        Time below the floor is no knowledge at all.
        """
        if utc_ns < self.floor_ns or _RANK[trust] < _RANK[self._trust]:
            return None
        old_epoch, old_trust = self._epoch_ns, self._trust
        epoch = utc_ns - at_mono_ns
        # Within its error a steady source only jitters: keep the epoch, so that time does not wobble.
        if abs(epoch - old_epoch) / NS > max(error_s, 0.1) or old_trust is not trust:
            self._epoch_ns = epoch
        self._trust, self._error_s, self._heard_mono_ns = trust, error_s, at_mono_ns
        if abs(self._epoch_ns - old_epoch) / NS < STEP_S and _RANK[trust] == _RANK[old_trust]:
            return None
        return Correction(
            boot=self.boot,
            epoch_ns=self._epoch_ns,
            old_epoch_ns=old_epoch,
            trust=trust,
            old_trust=old_trust,
        )

    def observe_ntp(self) -> Correction | None:
        """Follow the system clock while the system says that it is synchronised."""
        if not ntp_synchronised():
            return None
        mono = mono_ns()
        return self.observe(Trust.NTP, self._wall_epoch_ns() + mono, mono, 0.1)

    @staticmethod
    def _wall_epoch_ns() -> int:
        return time.time_ns() - mono_ns()


def mono_ns() -> int:
    """Nanoseconds since boot, suspend included: a sleeping handheld's timers go on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ntp_synchronised() -> bool:
    """systemd-timesyncd's own sign; the kernel's flag cannot be read under `ProtectClock=yes`."""
    return Path("/run/systemd/timesync/synchronized").exists()


@lru_cache(maxsize=4)
def _to_the_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def rfc3339(utc_ns: int) -> str:
    """UTC with microseconds, e.g. `2026-11-24T08:15:30.123456Z`."""
    whole, rest = divmod(utc_ns, NS)
    return f"{_to_the_second(whole)}.{rest // 1000:06d}Z"
