"""What the courier's workflow knows: who is on duty, who is proving it, what lies on the table.

Everything here survives a restart in one small record; the parcels themselves have a record each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.clock import Moment
from agent.workflow import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Somebody has begun to prove who they are."""

    subject: str
    kinds: tuple[str, ...]
    """Of the factors shown so far, each once."""
    level: int
    """The best of them."""
    unit: str
    """Where the last factor was shown."""
    finger: tuple[str, int] | None
    """Module and slot that hold this subject's template."""
    boot: str
    mono_ns: int

    @classmethod
    def after(cls, before: Self | None, verdict: Verdict, subject: str, unit: str, at: Moment) -> Self:
        """The login with one more factor; another subject's begins anew."""
        if before is not None and before.subject != subject:
            before = None
        kinds = before.kinds if before else ()
        return cls(
            subject=subject,
            kinds=kinds if verdict.kind in kinds else (*kinds, verdict.kind),
            level=max(verdict.level, before.level if before else 0),
            unit=unit,
            finger=verdict.finger or (before.finger if before else None),
            boot=at.boot,
            mono_ns=at.mono_ns,
        )

    def awaits(self, slot: Verdict) -> bool:
        """Whether this is the finger that was asked for. Any other may be right, but is somebody else's."""
        return self.finger is not None and (self.subject, self.finger) == (slot.subject, slot.finger)

    def dump(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "kinds": list(self.kinds),
            "level": self.level,
            "unit": self.unit,
            "finger": self.finger and list(self.finger),
            "boot": self.boot,
            "mono_ns": self.mono_ns,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        finger = record["finger"] and (record["finger"][0], record["finger"][1])
        return cls(**{**record, "kinds": tuple(record["kinds"]), "finger": finger})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A driver on duty at this device."""

    driver: str
    kinds: tuple[str, ...]
    boot: str
    opened_ns: int
    active_ns: int
    """When there was last something to do, to a tenth of the idle time."""

    def dump(self) -> dict[str, Any]:
        return {
            "driver": self.driver,
            "kinds": list(self.kinds),
            "boot": self.boot,
            "opened_ns": self.opened_ns,
            "active_ns": self.active_ns,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, "kinds": tuple(record["kinds"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Parcels on the table, and to whom. Survives its session, for the same driver to take up again."""

    driver: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """Everything the workflow knows beside the parcels themselves."""

    login: Login | None = None
    session: Session | None = None
    handover: Handover | None = None
    exception: str | None = None
    """The next scan notes this exception."""
    held: int = 0
    """Parcels in custody here."""

    def receiving(self, subject: str) -> Handover | None:
        """The handover that `subject` is to receive, if it is for a driver other than the one on duty."""
        handover, session = self.handover, self.session
        if handover and session and handover.to == "driver" and subject != session.driver:
            return handover
        return None

    def dump(self) -> dict[str, Any]:
        """What must survive, as JSON has it. It stays the same from scan to scan, which spares the flash."""
        handover = self.handover
        return {
            "login": self.login and self.login.dump(),
            "session": self.session and self.session.dump(),
            "handover": handover and {"driver": handover.driver, "to": handover.to},
            "exception": self.exception,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any] | None, *, held: int) -> Self:
        """What was dumped, and the number of parcel records."""
        if record is None:
            return cls(held=held)
        login, session, handover = record["login"], record["session"], record["handover"]
        return cls(
            login=login and Login.load(login),
            session=session and Session.load(session),
            handover=handover and Handover(**handover),
            exception=record["exception"],
            held=held,
        )
