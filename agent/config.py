"""The config file: one TOML file, strict models, and every mistake named at once.

A mistake is a path, what was expected there and what was found. Nothing starts while there is one.
"""

import ssl
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from agent.admission import Audience
from agent.config_file import File, Tls, UnitSection
from agent.custody import Rules
from agent.intake import ROLES, Role
from agent.jws import decoded
from agent.kiosk.config import KioskSection
from agent.kiosk.config import meaning as kiosk_meaning
from agent.locker.config import meaning as locker_meaning
from agent.locker.turn import Rules as LockerRules
from agent.mistakes import BadConfig, Mistake, dotted, reason, shown, validate
from agent.mqtt import Server
from agent.mqtt_words import node
from agent.note import VerifierKey
from agent.policy import Policy
from agent.retention import MIB, Limits
from agent.rights import Sets, mistakes, policies
from agent.session import Times
from agent.tamper import Switch
from agent.tls_files import tls_files
from agent.units import UnitSpec
from agent.workflow import Lane
from drivers import KINDS, driver_for
from drivers.port import Address

FILE_LIMIT = 256 * 1024
STATE_LIMIT = 90
"""Bytes of the state folder's path: a local socket in it may have a path of 107."""


@dataclass(frozen=True, slots=True)
class Config:
    """A file that has been checked, with its units ready to be opened."""

    file: File
    units: tuple[UnitSpec, ...]
    origin: str = "config"
    """Where it was read from, for messages."""

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

    @property
    def fleet_keys(self) -> tuple[VerifierKey, ...]:
        return tuple(VerifierKey.parse(text) for text in self.file.fleet.keys)

    @property
    def root(self) -> Path:
        """Where the first root of the fleet is, if one was put here."""
        return Path(self.file.trust.root) if self.file.trust.root else self.state / "root.jws"

    @property
    def audience(self) -> Audience:
        device = self.file.device
        return Audience(tenant=device.tenant, device=device.id, groups=frozenset(self.file.fleet.groups))

    def limits(self) -> Limits:
        journal = self.file.journal
        days = {
            Lane.CUSTODY: journal.custody_days,
            Lane.STATE: journal.state_days,
            Lane.TELEMETRY: journal.telemetry_days,
        }
        return Limits(size=journal.size_mib * MIB, days=days)

    def rules(self) -> Rules:
        custody = self.file.custody
        policies = self.policies()
        return Rules(
            session=policies["session"],
            handover=policies["handover"],
            attended=custody.attended,
            idle=custody.idle,
            longest=custody.longest,
            login=custody.login,
            window=custody.window,
            source=self.source,
        )

    def locker_rules(self) -> LockerRules | None:
        """What a locker goes by; None where this is none."""
        custody, locker = self.file.custody, self.file.locker
        if locker is None:
            return None
        times = Times(idle=custody.idle, longest=custody.longest, login=custody.login)
        return locker.rules(self.policies(), self.source, times)

    def with_kiosk(self) -> Self:
        """With a page for the locker's screen, as if the file had a table for it. Raises BadConfig."""
        if self.file.kiosk is not None:
            return self
        file = self.file.model_copy(update={"kiosk": KioskSection()})
        if mistakes := [*_meaning(file, self.units)]:
            raise BadConfig(self.origin, mistakes)
        return replace(self, file=file)

    @property
    def seal_key(self) -> X25519PublicKey | None:
        """Whom pickup codes that are made here are sealed for."""
        text = self.file.fleet.seal_key
        return None if text is None else X25519PublicKey.from_public_bytes(decoded(text))

    def policies(self) -> Mapping[str, Policy]:
        """What each action asks of people."""
        return policies(self.file.policy, _short(self.file))

    @property
    def switch(self) -> Switch | None:
        """The switch at the case, where there is one."""
        tamper = self.file.tamper
        return None if tamper is None else Switch(**tamper.model_dump())

    @property
    def asks_cards(self) -> bool:
        """Whether a fingerprint card counts as one; where it does not, it is a badge like any other."""
        policies = self.policies()
        return any("fido2" in kinds for action in self.actions for kinds in policies[action].sets)

    @property
    def actions(self) -> tuple[str, ...]:
        """What people prove themselves for at this device."""
        return ("session", "handover") if self.file.locker is None else ("deposit", "retrieve", "technician")

    def server(self, pair: Path | None = None) -> Server:
        """Reads the password and the certificates. Raises BadConfig when they cannot be used."""
        broker = self.file.broker
        mistakes: list[Mistake] = []
        password = _password(broker.password_file, mistakes) if broker.password_file else None
        tls = None if broker.plain else _tls(self.tls(pair), mistakes)
        if mistakes:
            raise BadConfig(self.origin, mistakes)
        return Server(
            host=broker.host,
            port=broker.port,
            client_id=self.file.device.id,
            username=broker.username or (self.file.device.id if password else None),
            password=password,
            tls=tls,
            keepalive=broker.keepalive,
            others=tuple(node(text, broker.port) for text in broker.others),
        )

    def tls(self, pair: Path | None = None) -> Tls:
        """What the config says; where it says nothing, what enrolment put in place, or `pair` instead."""
        if self.file.broker.tls != Tls():
            return self.file.broker.tls
        there = tls_files(self.state)
        names = {"ca": there.ca, "certificate": pair or there.certificate, "key": pair or there.key}
        return Tls(**{name: str(path) for name, path in names.items() if path is not None})


def load(path: Path) -> Config:
    """Read and check a file. Raises BadConfig."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise BadConfig(str(path), [Mistake("file", f"at most {FILE_LIMIT} bytes", "more")])
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), [Mistake("file", "a readable file", reason(error))]) from error
    return parse(text, str(path))


def parse(text: str, origin: str = "config") -> Config:
    """Check the text of a config file. Raises BadConfig with every mistake that can be told."""
    return check(tree_of(text, origin), origin)


def tree_of(text: str, origin: str = "config") -> dict[str, Any]:
    """The tables of a text, of which nothing is checked. Raises BadConfig for what is no TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise BadConfig(origin, [Mistake("syntax", "TOML", "tables nested too deeply")]) from error
    except ValueError as error:
        # Not only TOMLDecodeError: a number of thousands of digits is refused by `int` itself.
        raise BadConfig(origin, [Mistake("syntax", "TOML", str(error))]) from error


def check(tree: Mapping[str, Any], origin: str = "config") -> Config:
    """The config in a tree of tables. Raises BadConfig with every mistake that can be told."""
    mistakes: list[Mistake] = []
    file = validate(File, tree, (), mistakes)
    tables = tree.get("unit", {})
    named = tables.items() if isinstance(tables, dict) else ()
    units = [_unit(name, table, mistakes) for name, table in named if isinstance(table, dict)]
    specs = tuple(unit for unit in units if unit is not None)
    if file is not None:
        mistakes += _meaning(file, specs)
    if mistakes or file is None:
        raise BadConfig(origin, mistakes)
    return Config(file, specs, origin)


def _unit(name: str, table: Mapping[str, Any], mistakes: list[Mistake]) -> UnitSpec | None:
    where = ("unit", name)
    section = validate(UnitSection, table, where, mistakes)
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    # One mistake in what all units have must not hide those in what is the driver's.
    driver = driver_for(kind)
    own = {key: value for key, value in table.items() if key not in UnitSection.model_fields}
    options = validate(driver.OptionsType, own, where, mistakes, UnitSection.model_fields)
    role = _role(dotted(where), kind, table.get("role"), mistakes)
    if section is None or options is None or role is None:
        return None
    return UnitSpec(
        name=name,
        kind=kind,
        role=role,
        address=Address.parse(section.port),
        baud=section.baud or driver.BAUD,
        options=options,
        expect=section.expect,
    )


def _role(path: str, kind: str, given: object, mistakes: list[Mistake]) -> Role | None:
    allowed = ROLES[kind]
    if given is None:
        return allowed[0]
    for role in allowed:
        if given == role:
            return role
    if isinstance(given, str):
        mistakes.append(Mistake(f"{path}.role", f"one of {', '.join(allowed)}", shown("role", given)))
    return None


def _meaning(file: File, units: tuple[UnitSpec, ...]) -> Iterable[Mistake]:
    """What no schema can tell."""
    names = set(file.unit)
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
    yield from mistakes(file.policy, _short(file), file.identity, file.custody.attended)
    if file.tamper is not None and file.tamper.unit not in names:
        yield Mistake(
            "tamper.unit", f"one of the units {', '.join(sorted(names)) or '(none)'}", repr(file.tamper.unit)
        )
    if file.locker is not None:
        yield from locker_meaning(file.locker, units)
    if file.kiosk is not None:
        yield from kiosk_meaning(locker=file.locker is not None, units=names)
    if len(file.device.state.encode()) > STATE_LIMIT:
        yield Mistake(
            "device.state", f"a path of at most {STATE_LIMIT} bytes", shown("state", file.device.state)
        )
    broker = file.broker
    if (broker.tls.certificate is None) != (broker.tls.key is None):
        yield Mistake("broker.tls", "certificate and key together", "only one of them")
    if broker.plain and broker.tls != Tls():
        yield Mistake("broker.plain", "either TLS or plain", "both")


def _short(file: File) -> Mapping[str, Sets | None]:
    """Sets of factors that stand in the workflow's own table."""
    return {"session": file.custody.session, "handover": file.custody.handover}


def _password(path: str, mistakes: list[Mistake]) -> str | None:
    try:
        with Path(path).open(encoding="utf-8") as file:
            password = file.readline(1024).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(Mistake("broker.password_file", "a readable file", reason(error)))
        return None
    if not password:
        mistakes.append(Mistake("broker.password_file", "a password on the first line", "an empty line"))
    return password


def _tls(tls: Tls, mistakes: list[Mistake]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls.ca:
        # Only the named authorities may vouch for the broker, not the system's hundred others as well.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
    except OSError as error:
        mistakes.append(Mistake("broker.tls.ca", "a file of PEM certificates", _found(tls.ca, error)))
    try:
        if tls.certificate:
            # With a password given, though none, OpenSSL does not stop to ask the terminal for one.
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as error:
        expected = "a PEM certificate, its key in broker.tls.key and not encrypted"
        mistakes.append(Mistake("broker.tls.certificate", expected, _found(tls.certificate, error)))
    return context


def _found(path: str | None, error: OSError) -> str:
    return f"{path} ({reason(error)})"
