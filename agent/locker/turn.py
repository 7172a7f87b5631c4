"""One turn of a locker's workflow: the state as it has become so far, and what is to be remembered and done.

A turn lives as long as one decision and is seen by nobody else: what comes out of it is a Decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.clock import NS, Moment
from agent.locker.compartments import Compartment, For, Size, Status, Wall
from agent.locker.doors import Door, End, Timing
from agent.locker.governor import Bounds, Governor
from agent.locker.grants import Guard, Use, Wrong
from agent.locker.rounds import Round
from agent.policy import Policy
from agent.session import Duty, Times
from agent.standing import ALONE, Standing
from agent.workflow import Decision, Draft, Order, Pardon, sound
from drivers.readings import Tone

COMPARTMENT, GRANT, WRONG, MINTED = "compartment/", "grant/", "wrong/", "minted/"
CODES, DESK, PULSES, ROUND = "codes", "locker", "pulses", "round"
"""The journal's records of a locker. `minted/` has rows that were made here, by lookup id."""
NOT_SEEN = "not_seen_yet"
"""Why a compartment is out of service until its board has spoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Times):
    """What the config says about a locker. Durations in seconds."""

    wall: Wall
    deposit: Policy
    retrieve: Policy
    technician: Policy
    timing: Timing = field(default_factory=Timing)
    bounds: Bounds = field(default_factory=Bounds)
    patience: float = 10.0
    """An opening whose pulse could not be given for so long is given up."""
    source: str = "/postern/nobody/nothing"
    """CloudEvents source of this device: a fingerprint card signs for it alone."""
    hold: float = 7 * 86_400.0
    """How long a deposited parcel waits for its recipient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A parcel in a courier's hands that has no compartment yet."""

    label: str
    unit: str
    """Where it was scanned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """A door that stands open though nobody was to open it."""

    due_ns: int
    """When that is an alarm: at once, or after a moment for a door that was just slammed."""
    told: bool = False
    beside: str | None = None
    """A compartment whose pulse may have opened it: the wiring is wrong then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locker(Duty):
    """Everything the workflow knows. Doors, and what is out of service, are seen anew at each start."""

    statuses: Mapping[str, Status] = field(default_factory=dict)
    guard: Guard = field(default_factory=Guard)
    pending: Pending | None = None
    size: Size | None = None
    """What the courier has chosen for the parcels to come."""
    governor: Governor = field(default_factory=lambda: Governor(unknown_ns=0))
    doors: Mapping[str, Door] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    """Compartment to why it is out of service."""
    loose: Mapping[str, Loose] = field(default_factory=dict)
    settled_ns: Mapping[str, int] = field(default_factory=dict)
    """When a door was last shut at the end of an opening."""
    looked: Moment | None = None
    round: Round | None = None
    """Doors that the fleet wants open, one after the other."""

    def status(self, name: str) -> Status:
        return self.statuses.get(name, Status())

    def door(self, name: str) -> Door:
        return self.doors.get(name, Door())

    def holding(self, label: str) -> str | None:
        """The compartment that a parcel lies in."""
        return next((name for name, status in self.statuses.items() if status.parcel == label), None)

    def taking_in(self, label: str) -> str | None:
        """The compartment whose door is open for a parcel to be put in."""
        into = (For.DEPOSIT, For.RETURN)
        return next(
            (
                name
                for name, status in self.statuses.items()
                if status.job is not None and status.job.what in into and status.job.parcel == label
            ),
            None,
        )

    def to_retrieve(self) -> list[str]:
        """Compartments whose parcel a courier is to take away."""
        return [
            name
            for name, status in sorted(self.statuses.items())
            if status.parcel and (status.expired or status.returned) and not status.job
        ]

    @property
    def busy(self) -> list[str]:
        """Compartments whose door is being opened or stands open."""
        return [name for name, status in self.statuses.items() if status.job is not None]

    def unusable(self) -> set[str]:
        return {*self.out, *(name for name, status in self.statuses.items() if status.quarantine)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A grant to collect a parcel, made here."""

    grant: str
    """Its id."""
    sealed: str | None
    """Its codes, sealed for the fleet, which passes them on; None where no key of the fleet is known."""
    records: Mapping[str, Any]
    """The rows that its codes open."""


class Office(Protocol):
    """What a deposit needs of the keys of this device."""

    def mint(self, label: str, compartment: str, until: int) -> Minted | None:
        """A grant until then (seconds since 1970 UTC); None where it could not be passed on."""
        ...

    def receipt(self, label: str, compartment: str, by: str, at: Moment) -> str | None:
        """What the courier gets: a statement signed by this device."""
        ...


class NoOffice:
    """Neither codes nor receipts: the fleet makes both when it hears of the deposit."""

    def mint(self, label: str, compartment: str, until: int) -> None:
        return None

    def receipt(self, label: str, compartment: str, by: str, at: Moment) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a decision rests on, beside state and event."""

    standing: Standing = ALONE
    records: Mapping[str, Any] = field(default_factory=dict)
    """What the journal remembers of grants and wrong codes, as it was before this turn."""
    locked_down: bool = False
    """All openings are disabled: by the fleet, or because this journal is an older copy of itself."""
    office: Office = field(default_factory=NoOffice)


@dataclass(slots=True, kw_only=True)
class Turn:
    """What one event has come to so far."""

    state: Locker
    at: Moment
    rules: Rules
    known: Known = field(default_factory=Known)
    entries: list[Draft] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    dropped: list[Order] = field(default_factory=list)
    pardon: Pardon | None = None
    ends: dict[str, End] = field(default_factory=dict)
    """Openings that came to their end in this turn."""

    def say(self, type_: str, subject: str, **data: Any) -> None:
        """One more entry. Whatever happens at a locker is kept as dearly as custody is."""
        self.entries.append(Draft(type_, subject, data))

    def tone(self, unit: str, tone: Tone) -> None:
        self.orders.append(sound(unit, tone))

    def refuse(self, unit: str, label: str, reason: str, **data: Any) -> None:
        """Say no to who is at the desk."""
        self.say("locker.refused", label or unit, unit=unit, reason=reason, **data)
        self.tone(unit, Tone.BAD)

    def become(self, **changes: Any) -> None:
        """Change the state's own fields."""
        self.state = replace(self.state, **changes)

    def put(self, name: str, status: Status) -> None:
        """A compartment's new status, remembered."""
        before = self.state.status(name)
        if replace(status, since=before.since) == before:
            return
        same = (status.word, status.parcel) == (before.word, before.parcel)
        status = replace(status, since=before.since if same else self.at.utc_ns // NS)
        self.state = replace(self.state, statuses={**self.state.statuses, name: status})
        self.notes[COMPARTMENT + name] = status.dump()

    def quarantine(self, name: str, reason: str, doubt: str | None = None) -> None:
        """Nobody gets this compartment until a person has looked at it."""
        self.put(name, self.state.status(name).quarantined(reason, doubt))
        self.say("locker.compartment_quarantined", name, reason=reason)

    def known_use(self, grant: str) -> Use | None:
        """What has become of a grant so far, this turn included."""
        key = GRANT + grant
        record = self.notes[key] if key in self.notes else self.known.records.get(key)
        return Use.load(record) if record else None

    def wrong(self, selector: str) -> Wrong:
        """Wrong PINs for a selector so far."""
        return Wrong.load(self.known.records.get(WRONG + selector))

    def compartment(self, name: str) -> Compartment:
        return self.rules.wall.compartments[name]

    def since(self, mono_ns: int) -> float:
        return (self.at.mono_ns - mono_ns) / NS

    def decision(self) -> Decision[Locker]:
        return Decision(
            state=replace(self.state, looked=self.at),
            entries=tuple(self.entries),
            notes=self.notes,
            orders=tuple(self.orders),
            dropped=tuple(self.dropped),
            pardon=self.pardon,
        )
