"""The words that workflows, journal and app share: events in, decisions out.

A workflow is a pure function: state and event in, decision out. It reads no clock, asks nobody and does
nothing; what must be done, it returns. The app commits a decision's entries, state and records in one
transaction, and only then performs its orders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Generic, TypeVar

from agent.clock import Moment
from drivers.readings import Action, Signal, Tone

S = TypeVar("S")


class Lane(IntEnum):
    """How dearly an entry is kept and how soon it is sent."""

    CUSTODY = 0
    """Custody and doors: never dropped, first to leave."""
    STATE = 1
    TELEMETRY = 2


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before the journal gives it sequence, time and place."""

    type: str
    """`<room>.<past tense>`; `postern.` is put before it."""
    subject: str
    """Parcel, door or device id."""
    data: Mapping[str, Any] = field(default_factory=dict)
    lane: Lane = Lane.CUSTODY


@dataclass(frozen=True, slots=True)
class Order:
    """An action for one unit. An empty unit means: whoever sounds the tones."""

    unit: str
    action: Action


def sound(unit: str, tone: Tone) -> Order:
    """A tone where somebody waits for it."""
    return Order(unit, Signal(tone=tone))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[S]):
    """What a workflow wants remembered and then done."""

    state: S
    entries: tuple[Draft, ...] = ()
    records: Mapping[str, "Parcel | None"] = field(default_factory=dict)
    """Parcels that changed hands: the new record, or None for one that is no longer here."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """The workflow's other records by their full key: the new value, or None to drop it."""
    orders: tuple[Order, ...] = ()
    dropped: tuple[Order, ...] = ()
    """Orders that somebody waits for and that will not be given."""
    pardon: "Pardon | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pardon:
    """Waits that a supervisor lifts. What fifty failures disabled stays so."""

    subject: str | None = None
    reader: str | None = None
    """Name of a unit that rests after a burst of failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A parcel in somebody's custody at this device."""

    holder: str
    """Reference of the driver who holds it."""
    since: str
    """RFC 3339 UTC, best knowledge."""
    offered: bool = False
    """It is on the table of the handover that is going on."""


class Outcome(StrEnum):
    """What the roster made of a factor. The person at the reader sees only granted or not."""

    GRANTED = "granted"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    LOCKED = "locked"
    """Too many failures: a wait before each further try."""
    DISABLED = "disabled"
    """Fifty failures: only the fleet lifts that."""
    PAUSED = "paused"
    """The reader is resting after a burst of failures."""
    MISMATCH = "mismatch"
    """Known subject, wrong finger or PIN."""
    NO_TRY = "no_try"
    """Nothing was compared: no finger in time, no usable image. Not held against anyone."""
    UNASKED = "unasked"
    """A finger matched, but nobody who is proving who they are was asked for that one; or a card signed for
    something else than what is to be decided now."""
    OUTDATED = "outdated"
    """Right, but what the fleet has told is too old for anybody to do this."""
    DOUBTED = "doubted"
    """The unit that says so is not the one that was there before."""
    FORGED = "forged"
    """A card's answer that is not its key's signature over our question."""
    CLONED = "cloned"
    """A right signature whose counter has not grown: two cards hold this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The roster's answer about one factor."""

    outcome: Outcome
    kind: str
    """`badge`, `fido2`, `pin`, `slot`, `static`."""
    subject: str | None = None
    """Reference of the driver the factor belongs to, where that is known."""
    level: int = 0
    finger: tuple[str, int] | None = None
    """Module and slot that hold this subject's template; of a `slot` factor, those that were compared."""
    age_s: float | None = None
    """How old the knowledge behind this answer is."""
    role: str | None = None
    """What the row says its subject is: `driver`, `supervisor`, `technician`."""
    reader_paused: bool = False
    """This failure was one too many for the reader: it rests now."""
    detail: str = ""
    """Of a fingerprint card: what was not as it should be."""
    counters: tuple[int, int] | None = None
    """Of a card that may be a copy: the signature counter it had to be above, and the one it showed."""
    credentials: tuple[str, ...] = field(default=(), repr=False)
    """Sealed names of what was shown, by which a session knows that it was revoked (`agent.withdrawn`)."""
    assertion: Mapping[str, str] | None = field(default=None, repr=False)
    """Of a fingerprint card: what it signed, for whoever wants to check it again."""

    @property
    def granted(self) -> bool:
        return self.outcome is Outcome.GRANTED


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRead:
    """A parcel's label or tag was read by a unit whose role that is."""

    unit: str
    at: Moment
    label: str
    """Canonical id of the most likely reading."""
    evidence: Mapping[str, Any]
    """Raw bytes, symbology, candidates, driver: what the entry keeps of the scan."""
    repeated_after: float | None
    """Seconds since this unit last read the same content in the same symbology; None if it did not lately."""
    full: bool = False
    """The journal has no room for what would follow from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorShown:
    """Somebody showed a badge, token, PIN or finger, and the roster has judged it."""

    unit: str
    at: Moment
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CardShown:
    """A fingerprint card has come into a reader's field and can be asked who holds it."""

    unit: str
    at: Moment
    challenge: bytes = field(repr=False)
    """32 random bytes made for this arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlScanned:
    """A control code of the workflow's own sheet."""

    unit: str
    at: Moment
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeEntered:
    """Something typed or shown that is no PIN of a login: a recipient's code. Only its digest is kept."""

    unit: str
    at: Moment
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """The time a decision asked to be woken at has come, or the agent has just started."""

    at: Moment
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissed:
    """Nobody, or one driver, may be on duty here any longer."""

    at: Moment
    reason: str
    subject: str | None = None
    """Whose session, login and handover end; None: everybody's."""
    forget: bool = False
    """What they hold is not kept track of any longer either."""

    def concerns(self, subject: str) -> bool:
        return self.subject is None or self.subject == subject


Event = LabelRead | FactorShown | CardShown | ControlScanned | CodeEntered | Woken | Dismissed
