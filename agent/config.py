"""The config file: one TOML file, strict models, and every mistake named at once.

A mistake is a path, what was expected there and what was found. Nothing starts while there is one.
"""

import ssl
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agent.custody import Rules
from agent.intake import ROLES, Role
from agent.mqtt import Server
from agent.roster import LEVELS
from agent.units import UnitSpec
from drivers import KINDS, driver_for
from drivers.port import Address, BadAddress

DEVICE_ID = r"^[a-z0-9][a-z0-9-]{2,39}$"
UNIT_NAME = r"^[a-z][a-z0-9_-]{0,31}$"

M = TypeVar("M", bound=BaseModel)
FactorKind = Literal["badge", "pin", "slot", "static"]
Factors = Annotated[list[FactorKind], Field(min_length=2)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Strict, closed and frozen, as every table of the file is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Device(Section):
    """Who this device is and where it keeps its state."""

    id: Annotated[str, StringConstraints(pattern=DEVICE_ID)]
    tenant: Annotated[str, StringConstraints(pattern=DEVICE_ID)]
    state: str = "/var/lib/postern"


class Tls(Section):
    """TLS towards the broker. Paths of PEM files; `certificate` and `key` go together."""

    ca: str | None = None
    """Certificates that may vouch for the broker; the system's own without it."""
    certificate: str | None = None
    key: str | None = None


class Broker(Section):
    """The MQTT 5 broker."""

    host: str
    port: Annotated[int, Field(ge=1, le=65_535)] = 8883
    username: str | None = None
    password_file: str | None = None
    """File whose first line is the password: no secret stands in the config itself."""
    keepalive: Annotated[int, Field(ge=5, le=600)] = 25
    plain: bool = False
    """True turns TLS off, for a broker on this machine or in a laboratory."""
    tls: Tls = Tls()


class CustodySection(Section):
    """How custody works here."""

    attended: bool = True
    session: list[Factors] = [["badge", "slot"], ["badge", "pin"], ["badge", "static"]]
    handover: list[Factors] = [["badge", "slot"], ["badge", "pin"], ["badge", "static"]]
    idle: Annotated[float, Field(gt=0, le=3600)] = 300.0
    longest: Annotated[float, Field(gt=0, le=3600)] = 1800.0
    login: Annotated[float, Field(gt=0, le=120)] = 30.0
    window: Annotated[float, Field(ge=0, le=60)] = 3.0
    tones: str | None = None
    """Unit that sounds the tones for units that cannot."""


class PositionSection(Section):
    """What a fix is worth."""

    fresh: Seconds = 10.0
    """Older than this, a fix is no longer the position but the last known one."""
    track_every: Annotated[float, Field(ge=1)] = 60.0
    """Seconds between two `position.tracked` entries while moving."""
    track_beyond: Annotated[float, Field(ge=1)] = 50.0
    """Metres that count as moving."""


class UnitSection(BaseModel):
    """What every unit has; the rest of its table belongs to its driver."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    kind: str
    port: str
    role: str | None = None
    baud: Annotated[int, Field(ge=300, le=4_000_000)] | None = None


class File(Section):
    """The whole file."""

    device: Device
    broker: Broker
    custody: CustodySection = CustodySection()
    position: PositionSection = PositionSection()
    unit: dict[Annotated[str, StringConstraints(pattern=UNIT_NAME)], dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in the file."""

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


class BadConfig(Exception):
    """The file cannot be used. `mistakes` names every reason."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Config:
    """A file that has been checked, with its units ready to be opened."""

    file: File
    units: tuple[UnitSpec, ...]

    @property
    def state(self) -> Path:
        return Path(self.file.device.state)

    @property
    def source(self) -> str:
        """CloudEvents `source` of every entry."""
        return f"/postern/{self.file.device.tenant}/{self.file.device.id}"

    @property
    def topic(self) -> str:
        return f"postern/v1/{self.file.device.id}"

    def rules(self) -> Rules:
        custody = self.file.custody
        return Rules(
            session=tuple(frozenset(factors) for factors in custody.session),
            handover=tuple(frozenset(factors) for factors in custody.handover),
            attended=custody.attended,
            idle=custody.idle,
            longest=custody.longest,
            login=custody.login,
            window=custody.window,
        )

    def server(self) -> Server:
        """Reads the password and the certificates. Raises BadConfig when they cannot be used."""
        broker = self.file.broker
        password = None
        try:
            if broker.password_file:
                password = Path(broker.password_file).read_text().splitlines()[0]
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise BadConfig(
                "config", [_unreadable("broker.password_file", broker.password_file, error)]
            ) from error
        return Server(
            host=broker.host,
            port=broker.port,
            client_id=self.file.device.id,
            username=broker.username or (self.file.device.id if password else None),
            password=password,
            tls=None if broker.plain else _tls(broker.tls),
            keepalive=broker.keepalive,
        )


def load(path: Path) -> Config:
    """Read and check a file. Raises BadConfig."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), [_unreadable("file", str(path), error)]) from error
    return parse(text, str(path))


def parse(text: str, source: str = "config") -> Config:
    """Check the text of a config file. Raises BadConfig with every mistake that can be told."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(source, [Mistake("syntax", "TOML", str(error))]) from error
    mistakes: list[Mistake] = []
    file = _validate(File, tree, (), mistakes)
    tables = tree.get("unit", {})
    named = tables.items() if isinstance(tables, dict) else ()
    units = [_unit(name, table, mistakes) for name, table in named if isinstance(table, dict)]
    specs = tuple(unit for unit in units if unit is not None)
    if file is not None:
        mistakes += _meaning(file, specs)
    if mistakes or file is None:
        raise BadConfig(source, mistakes)
    return Config(file, specs)


def _unit(name: str, table: Mapping[str, Any], mistakes: list[Mistake]) -> UnitSpec | None:
    where = ("unit", name)
    section = _validate(UnitSection, table, where, mistakes)
    if section is None:
        return None
    if section.kind not in KINDS:
        mistakes.append(Mistake(f"unit.{name}.kind", f"one of {', '.join(KINDS)}", repr(section.kind)))
        return None
    driver = driver_for(section.kind)
    before = len(mistakes)
    options = _validate(
        driver.OptionsType, section.model_extra or {}, where, mistakes, UnitSection.model_fields
    )
    role = _role(name, section, mistakes)
    try:
        address = Address.parse(section.port)
    except BadAddress as error:
        expected, _, got = str(error).removeprefix("expected ").rpartition(", got ")
        mistakes.append(Mistake(f"unit.{name}.port", expected, got))
        return None
    if options is None or role is None or len(mistakes) > before:
        return None
    return UnitSpec(
        name=name,
        kind=section.kind,
        role=role,
        address=address,
        baud=section.baud or driver.BAUD,
        options=options,
    )


def _role(name: str, section: UnitSection, mistakes: list[Mistake]) -> Role | None:
    allowed = ROLES[section.kind]
    if section.role is None:
        return allowed[0]
    if section.role not in allowed:
        mistakes.append(Mistake(f"unit.{name}.role", f"one of {', '.join(allowed)}", repr(section.role)))
        return None
    return Role(section.role)


def _meaning(file: File, units: tuple[UnitSpec, ...]) -> Iterable[Mistake]:
    """What no schema can tell."""
    names = {unit.name for unit in units}
    ports: dict[str, str] = {}
    for unit in units:
        first = ports.setdefault(unit.address.text, unit.name)
        if first != unit.name:
            yield Mistake(f"unit.{unit.name}.port", "a port of its own", f"the port of unit.{first}")
    tones = file.custody.tones
    if tones is not None and tones not in names:
        yield Mistake(
            "custody.tones", f"one of the units {', '.join(sorted(names)) or '(none)'}", repr(tones)
        )
    for action in ("session", "handover"):
        sets = getattr(file.custody, action)
        if file.custody.attended and not sets:
            yield Mistake(f"custody.{action}", "at least one set of factors", "none: nobody could ever do it")
        for at, factors in enumerate(sets):
            # A badge can be cloned and a biometric below level 3 is never enough alone.
            if len(set(factors)) < 2 or max(LEVELS[kind] for kind in factors) < 1:
                path = f"custody.{action}[{at}]"
                yield Mistake(path, "two different factors, one of them more than a badge", str(factors))
    broker = file.broker
    if (broker.tls.certificate is None) != (broker.tls.key is None):
        yield Mistake("broker.tls", "certificate and key together", "only one of them")
    if broker.plain and broker.tls != Tls():
        yield Mistake("broker.plain", "either TLS or plain", "both")


def _validate(
    model: type[M],
    tree: Any,
    where: tuple[str, ...],
    mistakes: list[Mistake],
    siblings: Iterable[str] = (),
) -> M | None:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        mistakes += [_mistake(model, each, where, siblings) for each in error.errors(include_url=False)]
        return None


def _mistake(model: type[BaseModel], error: Any, where: tuple[str, ...], siblings: Iterable[str]) -> Mistake:
    path = _dotted((*where, *error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            known = sorted((*siblings, *_fields(model, error["loc"][:-1])))
            return Mistake(path, f"one of the settings {', '.join(known)}", "an unknown one")
        case "missing":
            return Mistake(path, "a value", "nothing")
        case "model_type" | "dict_type":
            return Mistake(path, "a table", _shown(path, error["input"]))
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("String should match pattern", "text that matches")
    return Mistake(path, expected[:1].lower() + expected[1:], _shown(path, error["input"]))


def _fields(model: type[BaseModel], loc: Iterable[str | int]) -> Iterable[str]:
    for step in loc:
        field = model.model_fields.get(str(step))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return ()
        model = field.annotation
    return model.model_fields


def _dotted(loc: Iterable[str | int]) -> str:
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "file"


def _shown(path: str, value: Any) -> str:
    """What was found, short, and never a secret."""
    if "password" in path:
        return "something else (not shown)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unreadable(path: str, found: str | None, error: Exception) -> Mistake:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Mistake(path, "a readable file", f"{found} ({reason})")


def _tls(tls: Tls) -> ssl.SSLContext:
    """Raises BadConfig naming the file that cannot be used."""
    context = ssl.create_default_context()
    if tls.ca:
        # Only the named authorities may vouch for the broker, not the system's hundred others as well.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig("config", [_unreadable("broker.tls.ca", tls.ca, error)]) from error
    try:
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig("config", [_unreadable("broker.tls.certificate", tls.certificate, error)]) from error
    return context
