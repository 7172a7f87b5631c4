"""What a pickup code is worth: one opening, in its window, here. And what wrong codes cost. Pure.

A grant is spent when its opening is intended, before any pulse. It may be tried once more, within five
minutes, only while nothing has shown that the door was open. What has been spent stays spent: the records
here only ever go one way, and outlive the grant by a week.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from agent.clock import NS, Moment, Trust

PULSES_MOST = 2
"""For one grant, in all."""
AGAIN_WITHIN_S = 300.0
KEEP_S = 7 * 86_400
"""What has happened to a code is remembered for so long after it can be of use to anybody."""

_TELLS = (Trust.NTP, Trust.FLEET)
"""Satellites can be faked by anybody near: they are evidence, and open nothing."""

WRONG_IN_A_ROW = 3
COOL_DOWN_S = 300.0
COOL_DOWN_MOST_S = 3600.0
WRONG_A_DAY = 30
"""Then PINs are off until the fleet or a technician says otherwise."""
WRONG_FOR_ONE = 5
"""Wrong PINs for one parcel: its PIN is dead, its QR code is not."""


class Way(StrEnum):
    """How a grant was shown."""

    QR = "qr"
    CODE = "code"
    PIN = "pin"
    LEASE = "lease"
    """A signed command of the fleet."""


class Purpose(StrEnum):
    PICKUP = "pickup"
    RETURN = "return"


class Refusal(StrEnum):
    """Why a code opens nothing. The person at the locker hears the same for all of them."""

    UNKNOWN = "unknown"
    OTHER_LOCKER = "other_locker"
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SPENT = "spent"
    PAUSED = "paused"
    """Codes are not looked at for a while: too many were wrong."""
    PIN_OFF = "pin_off"
    NOTHING_HERE = "nothing_here"
    """The grant is good, but no compartment holds what it is for."""
    OUT_OF_SERVICE = "out_of_service"
    LOCKED_DOWN = "locked_down"
    BUSY = "busy"
    """That door is being opened already."""
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A right to open one compartment once, already verified: by signature, or by a row that opened."""

    jti: str
    way: Way
    purpose: Purpose = Purpose.PICKUP
    compartment: str | None = None
    parcel: str | None = None
    """Label of the parcel; its compartment is where it lies."""
    nbf: int = 0
    exp: int
    """Seconds since 1970 UTC."""
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What has become of a grant so far."""

    pulses: int
    boot: str
    first_ns: int
    """Of the first pulse, on the monotonic clock of `boot`."""
    first_utc_s: int | None
    """The same as civil time; None if no trusted clock told it."""
    opened: bool
    exp: int
    compartment: str
    """The last one that was to be opened for it."""

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        return cls(**record)

    def dump(self) -> dict[str, Any]:
        return {
            "pulses": self.pulses,
            "boot": self.boot,
            "first_ns": self.first_ns,
            "first_utc_s": self.first_utc_s,
            "opened": self.opened,
            "exp": self.exp,
            "compartment": self.compartment,
        }

    def late(self, at: Moment) -> bool:
        """Whether the time to try again is over, or may be."""
        if self.boot == at.boot:
            return at.since(self.first_ns) > AGAIN_WITHIN_S
        if self.first_utc_s is None or at.trust not in _TELLS:
            return True  # Nobody knows how long the power was off.
        return at.utc_ns / NS - self.first_utc_s > AGAIN_WITHIN_S


def past(exp: float, at: Moment) -> bool:
    """Whether it is so long expired that nothing could be shown for it any more.

    A clock that nobody answers for forgets nothing: set right again, it would revive what is spent.
    """
    return at.assured and at.utc_ns > (exp + KEEP_S) * NS


def may_open(grant: Grant, use: Use | None, at: Moment) -> Refusal | None:
    """Why a grant cannot be used now, or None."""
    if grant.revoked:
        return Refusal.REVOKED
    if at.utc_ns < grant.nbf * NS:
        return Refusal.NOT_YET
    if at.utc_ns >= grant.exp * NS:
        return Refusal.EXPIRED
    if use is None:
        return None
    return Refusal.SPENT if use.opened or use.pulses >= PULSES_MOST or use.late(at) else None


def spend(grant: Grant, use: Use | None, at: Moment, compartment: str) -> Use:
    """The grant's record once the opening of this compartment is intended."""
    if use is None:
        first_utc_s = at.utc_ns // NS if at.trust in _TELLS else None
        return Use(
            pulses=1,
            boot=at.boot,
            first_ns=at.mono_ns,
            first_utc_s=first_utc_s,
            opened=False,
            exp=grant.exp,
            compartment=compartment,
        )
    return replace(use, pulses=use.pulses + 1, compartment=compartment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Wrong PINs for one selector."""

    count: int = 0
    last_s: int = 0
    """When the last one was typed, seconds since 1970 UTC."""

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def dump(self) -> dict[str, Any]:
        return {"count": self.count, "last_s": self.last_s}

    @property
    def dead(self) -> bool:
        """Whether no PIN is good any more with this selector."""
        return self.count >= WRONG_FOR_ONE

    def more(self, at: Moment) -> Self:
        return replace(self, count=self.count + 1, last_s=max(self.last_s, at.utc_ns // NS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Wrong codes at this locker, and what follows from them."""

    row: int = 0
    """Wrong ones in a row."""
    pauses: int = 0
    """Cool-downs since the last right one: each is twice as long."""
    boot: str = ""
    paused_ns: int | None = None
    """When the last cool-down began."""
    day: str = ""
    wrong: int = 0
    """Wrong ones on `day`."""
    pin_off: bool = False

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def dump(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "pauses": self.pauses,
            "boot": self.boot,
            "paused_ns": self.paused_ns,
            "day": self.day,
            "wrong": self.wrong,
            "pin_off": self.pin_off,
        }

    def paused(self, at: Moment) -> bool:
        """Whether codes are not looked at now. After a reboot a cool-down begins again."""
        if self.paused_ns is None:
            return False
        began_ns = self.paused_ns if self.boot == at.boot else 0
        return at.since(began_ns) < self.pause_s

    @property
    def pause_s(self) -> float:
        """How long the cool-down lasts that began last."""
        doublings: int = min(max(0, self.pauses - 1), 10)
        return min(COOL_DOWN_S * (1 << doublings), COOL_DOWN_MOST_S)

    def refuses(self, way: Way, at: Moment) -> Refusal | None:
        """Why a code is not looked at, or None. A QR code or a long code cannot be guessed."""
        if way is not Way.PIN:
            return None
        if self.pin_off:
            return Refusal.PIN_OFF
        return Refusal.PAUSED if self.paused(at) else None

    def failed(self, at: Moment) -> Self:
        """After a wrong PIN."""
        day = datetime.fromtimestamp(at.utc_ns / NS, UTC).date().isoformat()
        # A day never goes back: a clock that is set back gives no new tries.
        wrong = 1 + (self.wrong if day <= self.day else 0)
        after = replace(self, row=self.row + 1, day=max(day, self.day), wrong=wrong)
        if after.row % WRONG_IN_A_ROW == 0:
            after = replace(after, pauses=after.pauses + 1, boot=at.boot, paused_ns=at.mono_ns)
        return replace(after, pin_off=after.pin_off or after.wrong >= WRONG_A_DAY)

    def succeeded(self) -> Self:
        """After a right one. What was counted today stays counted."""
        return replace(self, row=0, pauses=0, paused_ns=None)
