"""The tables of the config file, as models: what each may say, and what it says without.

What a table means together with others, or with this machine, is checked in `agent.config`.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from agent.jws import BadJws, decoded
from agent.kiosk.config import KioskSection
from agent.locker.config import LockerSection
from agent.mistakes import ABSOLUTE, HOST, STRICT
from agent.mqtt_words import node
from agent.note import BadNote, VerifierKey
from agent.rights import IdentitySection, PoliciesSection, Sets
from drivers import KINDS
from drivers.port import Address, BadAddress

DEVICE_ID = r"^[a-z0-9][a-z0-9-]{2,39}$"
UNIT_NAME = r"^[a-z][a-z0-9_-]{0,31}$"

Seconds = Annotated[float, Field(gt=0)]
FilePath = Annotated[str, StringConstraints(pattern=ABSOLUTE)]


class Section(BaseModel):
    """What every table of the file is."""

    model_config = STRICT


def _node(text: str) -> str:
    try:
        node(text, 1)
    except ValueError as bad:
        raise ValueError("a host, with :PORT where it is another port") from bad
    return text


class Device(Section):
    """Who this device is and where it keeps its state."""

    id: Annotated[str, StringConstraints(pattern=DEVICE_ID)]
    tenant: Annotated[str, StringConstraints(pattern=DEVICE_ID)]
    state: FilePath = "/var/lib/postern"


class Tls(Section):
    """TLS towards the broker. Paths of PEM files; `certificate` and `key` go together."""

    ca: FilePath | None = None
    """Certificates that may vouch for the broker; the system's own without it."""
    certificate: FilePath | None = None
    key: FilePath | None = None


class Broker(Section):
    """The MQTT 5 broker."""

    host: Annotated[str, StringConstraints(pattern=HOST)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 8883
    others: Annotated[list[Annotated[str, AfterValidator(_node)]], Field(max_length=16)] = []
    """More nodes of the same broker, as HOST or HOST:PORT: whichever is there will do."""
    username: str | None = None
    password_file: FilePath | None = None
    """File whose first line is the password: no secret stands in the config itself."""
    keepalive: Annotated[int, Field(ge=5, le=600)] = 25
    plain: bool = False
    """True turns TLS off, for a broker on this machine or in a laboratory."""
    tls: Tls = Tls()


class CustodySection(Section):
    """How custody works here."""

    attended: bool = True
    """False for a gate or belt that nobody stands at: every scan is recorded as seen."""
    session: Sets | None = None
    """Sets of factors that open a session: a short way to write `[policy.session] sets`."""
    handover: Sets | None = None
    """The same of `[policy.handover] sets`."""
    idle: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Seconds without anything to do after which a session ends."""
    longest: Annotated[float, Field(gt=0, le=3600)] = 1800.0
    """Seconds after which it ends whatever there is to do; at a locker 600 at most."""
    login: Annotated[float, Field(gt=0, le=120)] = 30.0
    """Seconds between one factor and the next."""
    window: Annotated[float, Field(ge=0, le=60)] = 3.0
    """Seconds within which the same label on the same unit is a duplicate."""
    tones: str | None = None
    """Unit that sounds the tones for units that cannot."""


def _verifier_key(text: str) -> str:
    try:
        VerifierKey.parse(text)
    except BadNote as bad:
        raise ValueError(str(bad).removeprefix("expected ").partition(", got ")[0]) from bad
    return text


def _seal_key(text: str) -> str:
    try:
        size = len(decoded(text))
    except BadJws as bad:
        raise ValueError("a key of 32 bytes in base64url") from bad
    if size != 32:
        raise ValueError("a key of 32 bytes in base64url")
    return text


class FleetSection(Section):
    """Whom this device believes that the fleet has its entries."""

    keys: list[Annotated[str, AfterValidator(_verifier_key)]] = []
    """Verifier keys (name+id+key) of those who give receipts; without any, none are asked for."""
    groups: list[Annotated[str, StringConstraints(pattern=DEVICE_ID)]] = []
    """What of the fleet this device belongs to: documents may be addressed to all of a group."""
    seal_key: Annotated[str, AfterValidator(_seal_key)] | None = None
    """The fleet's X25519 key (base64url) that a locker seals pickup codes for; without it, it makes none."""


class TrustSection(Section):
    """From where all trust in the fleet follows."""

    root: FilePath | None = None
    """The first root, put here by hand; `root.jws` in the state folder without it."""


class PositionSection(Section):
    """What a fix is worth."""

    fresh: Seconds = 10.0
    """Older than this, a fix is no longer the position but the last known one."""
    track_every: Annotated[float, Field(ge=1)] = 60.0
    """Seconds between two `position.tracked` entries while moving."""
    track_beyond: Annotated[float, Field(ge=1)] = 50.0
    """Metres that count as moving."""


class JournalSection(Section):
    """How much the journal may hold, and how long it keeps what the fleet has as well."""

    size_mib: Annotated[int, Field(ge=64, le=65_536)] = 2048
    """Of the file; its log beside it takes a few more. An entry takes about 1 KiB."""
    custody_days: Annotated[int, Field(ge=7, le=3650)] = 30
    """Entries about custody, identity and doors."""
    state_days: Annotated[int, Field(ge=1, le=3650)] = 7
    telemetry_days: Annotated[int, Field(ge=1, le=3650)] = 1


class FerrySection(Section):
    """What this device carries for others that have no network."""

    carry_mib: Annotated[int, Field(ge=0, le=1024)] = 64
    """The most that is kept on board for others; 0 for nothing."""


class TamperSection(Section):
    """The switch at the case: when it reads so for a moment, this device wipes itself."""

    unit: Annotated[str, StringConstraints(pattern=UNIT_NAME)]
    """A unit that reports inputs."""
    input: Annotated[int, Field(ge=1, le=64)]
    """Its number, as the unit's entries tell it."""
    closed: bool
    """How the input reads when the case is open."""
    hold: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Seconds for which it must read so."""


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"one of {', '.join(KINDS)}")
    return text


def _port(text: str) -> str:
    try:
        Address.parse(text)
    except BadAddress as bad:
        raise ValueError(str(bad).removeprefix("expected ").partition(", got ")[0]) from bad
    return text


class UnitSection(BaseModel):
    """What every unit has; the rest of its table belongs to its driver."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    kind: Annotated[str, AfterValidator(_kind)]
    port: Annotated[str, AfterValidator(_port)]
    role: str | None = None
    baud: Annotated[int, Field(ge=300, le=4_000_000)] | None = None
    expect: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """What the device tells of itself, by the keys of its `device.ready` entry: the unit that is meant."""


class File(Section):
    """The whole file."""

    device: Device
    broker: Broker
    custody: CustodySection = CustodySection()
    identity: IdentitySection = IdentitySection()
    policy: PoliciesSection = PoliciesSection()
    journal: JournalSection = JournalSection()
    position: PositionSection = PositionSection()
    fleet: FleetSection = FleetSection()
    trust: TrustSection = TrustSection()
    locker: LockerSection | None = None
    kiosk: KioskSection | None = None
    tamper: TamperSection | None = None
    ferry: FerrySection = FerrySection()
    unit: dict[Annotated[str, StringConstraints(pattern=UNIT_NAME)], dict[str, Any]] = {}
