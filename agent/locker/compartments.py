"""What a locker is made of: compartments, what each holds, and which one a parcel gets. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Self

from agent.locker.doors import Opening


class Size(IntEnum):
    """Of a compartment, or of the parcel that needs one."""

    S = 1
    M = 2
    L = 3
    XL = 4

    @classmethod
    def named(cls, text: str) -> Self | None:
        """The size of that name, in either case."""
        return cls.__members__.get(text.upper())


@dataclass(frozen=True, slots=True, kw_only=True)
class Compartment:
    """One compartment as it is built and wired. `unit` and `door` say which lock opens it."""

    name: str
    unit: str
    door: int
    size: Size = Size.M
    supply: str = "main"
    """The power supply that its solenoid hangs on: one pulse at a time each."""
    pulse: float = 0.5
    """Seconds that a pulse feeds the solenoid, as its board is set."""
    neighbours: frozenset[str] = frozenset()


class For(StrEnum):
    """What a door is opened for."""

    PICKUP = "pickup"
    RETURN = "return"
    """Somebody puts a parcel in for the courier."""
    DEPOSIT = "deposit"
    RETRIEVE = "retrieve"
    """A courier takes out what was not collected in time, or came back."""
    LEASE = "lease"
    """The fleet said so."""
    SERVICE = "service"
    """A technician at the locker."""
    MANY = "many"
    """One of many doors: the fleet said so, and a technician is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Why a door is being opened, and how far that has come."""

    what: For
    opening: Opening
    by: str | None = None
    """Reference of the driver, or key id of who signed; None for a recipient."""
    unit: str = ""
    """Where the code was shown, and the tone is due."""
    grant: str | None = None
    parcel: str | None = None
    until: int | None = None
    """Of a deposit: when the parcel has to be collected, seconds since 1970 UTC."""

    def dump(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "opening": self.opening.dump(),
            "by": self.by,
            "unit": self.unit,
            "grant": self.grant,
            "parcel": self.parcel,
            "until": self.until,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        opening = Opening.load(record["opening"])
        return cls(**{**record, "what": For(record["what"]), "opening": opening})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a compartment holds, and what is wrong with it. Survives in one record each."""

    parcel: str | None = None
    returned: bool = False
    """The parcel waits for a courier, not for its recipient."""
    until: int | None = None
    expired: bool = False
    """It was said that the parcel was not collected in time."""
    quarantine: str | None = None
    """Why nobody gets this compartment until a person has looked at it."""
    doubt: str | None = None
    """The grant whose opening nobody saw the end of: it alone may try this compartment again."""
    job: Job | None = None
    since: int | None = None
    """When its word was last another, seconds since 1970 UTC."""

    @property
    def word(self) -> str:
        """One word for how it is."""
        if self.job is not None:
            return str(self.job.opening.phase)
        if self.quarantine is not None:
            return "quarantined"
        if self.parcel is None:
            return "free"
        return "expired" if self.expired else "returned" if self.returned else "occupied"

    @property
    def free(self) -> bool:
        return self.parcel is None and self.quarantine is None and self.job is None

    def dump(self) -> dict[str, Any]:
        return {
            "parcel": self.parcel,
            "returned": self.returned,
            "until": self.until,
            "expired": self.expired,
            "quarantine": self.quarantine,
            "doubt": self.doubt,
            "job": self.job and self.job.dump(),
            "since": self.since,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        job = record["job"] and Job.load(record["job"])
        return cls(**{**record, "job": job})

    def emptied(self) -> Self:
        """Nothing in it, nothing wrong with it."""
        return type(self)()

    def quarantined(self, reason: str, doubt: str | None = None) -> Self:
        """Out of use, with what it held."""
        return replace(self, quarantine=reason, doubt=doubt, job=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """All compartments of one locker, as built."""

    compartments: Mapping[str, Compartment] = field(default_factory=dict)

    def of(self, unit: str, door: int) -> Compartment | None:
        """The compartment behind a lock."""
        return next(
            (each for each in self.compartments.values() if (each.unit, each.door) == (unit, door)), None
        )

    def behind(self, unit: str, doors: Collection[int] | None = None) -> list[str]:
        """Names of the compartments of a unit, or of some of its doors."""
        return [
            each.name
            for each in self.compartments.values()
            if each.unit == unit and (doors is None or each.door in doors)
        ]


def choose(
    wall: Wall,
    statuses: Mapping[str, Status],
    unusable: Collection[str],
    size: Size,
    busy: Iterable[str] = (),
) -> Compartment | None:
    """Where a parcel of this size goes: the smallest compartment that takes it, away from open doors.

    `unusable` are out of service, at the doors of `busy` somebody stands. None when all are taken.
    """
    crowded = {near for name in busy for near in wall.compartments[name].neighbours}
    fits = [
        each
        for each in wall.compartments.values()
        if each.size >= size and each.name not in unusable and statuses.get(each.name, Status()).free
    ]
    return min(fits, key=lambda each: (each.size, each.name in crowded, each.name), default=None)
