"""What devices say, and what they can be asked to do.

A reading is a frozen fact that one device reported: it says what happened, never what it means. The
unit that reported it and the moment it arrived are added by whoever received it. Readings are edges:
a tag left in the field, a finger left on the glass, make one reading each.

Bytes a person presented may be a secret (a PIN typed on a keypad, a badge number), and no driver can
know which. So content fields are kept out of every `repr`, and with that out of every log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """One complete decode or text line, without framing: a barcode, typed keys, a badge or token string."""

    data: bytes = field(repr=False)
    """The bytes between prefix and suffix as the device sent them, AIM identifier included.

    Where the config names a substitute for GS, it has been turned back into GS (0x1D)."""
    symbology: str | None = None
    """AIM symbology identifier such as `]C1` (ISO/IEC 15424), where the device told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagArrived:
    """A tag entered the field."""

    uid: bytes = field(repr=False)
    """EPC bytes for UHF tags, chip or card number for LF and HF."""
    technology: str
    """`em4100`, `epc-gen2`, `iso14443`."""
    rssi_dbm: int | None = None
    pc: int | None = None
    """Gen2 protocol-control word, where the reader gives it."""
    applets: tuple[str, ...] = ()
    """What the card said when it was asked for its FIDO applet: `U2F_V2` or `FIDO_2_0`; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLeft:
    """A tag reported earlier has not been seen for the reader's presence time."""

    uid: bytes = field(repr=False)
    technology: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A position the receiver vouches for. Degrees on WGS 84."""

    lat: float
    lon: float
    utc: float | None
    """Seconds since 1970 UTC as the receiver tells them, week rollover corrected; None without a date."""
    hdop: float | None = None
    altitude_m: float | None = None
    speed_mps: float | None = None
    satellites: int | None = None
    source: str = "gnss"
    """`gnss` for a receiver read directly, `gpsd` for a fix gpsd passed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixLost:
    """The receiver speaks but has no position any more."""

    reason: str


class CompareResult(StrEnum):
    MATCHED = "matched"
    NOT_MATCHED = "not_matched"
    NO_FINGER = "no_finger"
    """Nobody touched the glass in time."""
    POOR_IMAGE = "poor_image"
    EMPTY_SLOT = "empty_slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerCompared:
    """Outcome of comparing a live finger with one claimed slot (1:1)."""

    slot: int
    result: CompareResult
    score: int = 0
    """The module's own scale; comparable only with the same model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerEnrolled:
    """Outcome of teaching the module a finger."""

    slot: int
    ok: bool
    reason: str = ""


class CardFailure(StrEnum):
    """Why a fingerprint card signed nothing."""

    NO_FINGER = "no_finger"
    """Nobody touched its sensor in time."""
    WRONG_FINGER = "wrong_finger"
    BLOCKED = "blocked"
    """Too many wrong fingers: the card no longer tries."""
    NO_CREDENTIAL = "no_credential"
    """It holds nothing for this tenant, or no room for it."""
    GONE = "gone"
    """It left the field, or was not there any more."""
    UNFIT = "unfit"
    """It cannot verify its holder, or answered nonsense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsListed:
    """Which slots of a fingerprint module hold a template. Sent once after every (re)open, by modules that
    can tell.
    """

    slots: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardAsserted:
    """A fingerprint card has verified its holder and signed: WebAuthn authenticator data and signature."""

    credential_id: bytes = field(repr=False)
    auth_data: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    """Over `auth_data` and the client data hash that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialMade:
    """A fingerprint card has made a discoverable credential."""

    credential_id: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    """COSE key, as CBOR."""
    aaguid: str
    """Model of the card, as a UUID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFailed:
    """A fingerprint card was asked for a signature or a credential and gave none."""

    failure: CardFailure


class DoorState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class DoorSource(StrEnum):
    """What a door's state was read from: two facts that may well disagree."""

    HOOK = "hook"
    """The lock's hook or tongue: closed means that it holds the door."""
    CONTACT = "contact"
    """A switch at the door itself: closed means that the door is in its frame, latched or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorChanged:
    """The door of a compartment, as one sensor sees it. Doors count from 1 through the boards of the unit."""

    door: int
    state: DoorState
    source: DoorSource
    first: bool = False
    """Not a change: how it was found after the unit was opened, or after its board was silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentChanged:
    """An infrared or other sensor in the compartment sees something, or nothing any more."""

    door: int
    occupied: bool
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SolenoidChanged:
    """A relay feeds the solenoid of a door, or does no more. It tells nothing of the door."""

    door: int
    energised: bool
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChanged:
    """A digital input that is no door's, such as a tamper switch. Inputs count from 1 through the unit."""

    input: int
    closed: bool
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardChanged:
    """One board on a bus of several has fallen silent, or answers again. Its doors' states follow anew."""

    board: int
    """Address on the bus."""
    first_door: int
    last_door: int
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSaid:
    """A frame from another agent at the other end of a line."""

    kind: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReady:
    """The unit is open and answers. Sent once after every (re)open."""

    port: str
    """The path that was opened, after links were followed."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the device told about itself: model, firmware, capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLost:
    """The unit cannot be used: gone, deaf, misbehaving. Sent on the change only."""

    reason: str
    """`gone`, `deaf`, `busy` (held by another program), `denied`, `absent`, `unusable`."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseCounted:
    """What a codec threw away since the last count, by reason. Nothing is dropped without being counted."""

    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDone:
    """The outcome of an action, on the same road as everything else."""

    action: "Action"
    ok: bool
    """It was done: the device said so, or the effect was seen."""
    reason: str = ""
    unknown: bool = False
    """Nobody knows whether it was done. Without this and `ok`, it certainly was not."""


Reading = (
    Scanned
    | TagArrived
    | TagLeft
    | Fix
    | FixLost
    | FingerCompared
    | FingerEnrolled
    | SlotsListed
    | CardAsserted
    | CredentialMade
    | CardFailed
    | DoorChanged
    | ContentChanged
    | SolenoidChanged
    | InputChanged
    | BoardChanged
    | PeerSaid
    | DeviceReady
    | DeviceLost
    | NoiseCounted
    | ActionDone
)


class Tone(StrEnum):
    GOOD = "good"
    """One short high beep: it is on stable storage."""
    BAD = "bad"
    """Unmistakably different: not accepted."""
    ASK = "ask"
    """Something more is wanted from the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Sound and light one tone."""

    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableScanning:
    """Let the scanner read, or stop it."""

    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Start or stop one decode, as if the trigger were pulled."""

    pulled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareFinger:
    """Wait for a finger and compare it with one slot. Answered by `FingerCompared`."""

    slot: int
    within: float = 10.0
    """Seconds to wait for a finger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolFinger:
    """Teach a finger to one slot. Answered by `FingerEnrolled`."""

    slot: int
    within: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFinger:
    """Forget the template in one slot."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTemplate:
    """Put a template that was made elsewhere into a free slot. Done means that the module gave it back as it
    was sent, and then stored it.
    """

    slot: int
    template: bytes = field(repr=False)
    """In the module family's own format, which nobody outside of it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertCard:
    """Have the fingerprint card in the field verify its holder and sign `client_data_hash`.

    Answered by `CardAsserted` or `CardFailed`.
    """

    rp_id: str
    """Whom the credential was made for (WebAuthn relying party id)."""
    client_data_hash: bytes
    within: float = 20.0
    """Seconds the holder has to lay a finger on the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeCredential:
    """Have the fingerprint card in the field make a discoverable credential for one person.

    Answered by `CredentialMade` or `CardFailed`. A person's earlier credential on that card is replaced.
    """

    rp_id: str
    client_data_hash: bytes
    person: bytes = field(repr=False)
    """WebAuthn user id: at most 64 bytes, and never a name."""
    within: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPower:
    """Transmit power of an RFID reader."""

    dbm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDoor:
    """Give the lock of one door one pulse. It is never repeated by a driver, and expires if it has to wait.

    Done means that a pulse was accepted, not that the door is open: that, `DoorChanged` tells.
    """

    door: int
    pulse_ms: int | None = None
    """How long the solenoid is fed, for boards that can be told; None for what the unit is set to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TellPeer:
    """Send a frame to the agent at the other end. Whether it arrived shows in what that one says."""

    kind: int
    body: bytes = field(repr=False)


Action = (
    Signal
    | EnableScanning
    | Trigger
    | CompareFinger
    | EnrolFinger
    | DeleteFinger
    | StoreTemplate
    | AssertCard
    | MakeCredential
    | SetPower
    | OpenDoor
    | TellPeer
)
