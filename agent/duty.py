"""What the courier's workflow knows: who is on duty, who is proving it, what lies on the table.

Everything here survives a restart in one small record; the parcels themselves have a record each.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Somebody has begun to prove who they are."""

    subject: str
    kinds: tuple[str, ...]
    unit: str
    """Where the last factor was shown."""
    finger: tuple[str, int] | None
    boot: str
    mono_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A driver on duty at this device."""

    driver: str
    kinds: tuple[str, ...]
    boot: str
    opened_ns: int
    active_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Parcels on the table, and to whom. Survives its session, for the same driver to take up again."""

    driver: str
    to: str
    count: int = 0


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

    def dump(self) -> dict[str, Any]:
        """What must survive. The time of the last activity is that of the newest entry."""
        session = self.session and {**asdict(self.session), "active_ns": 0}
        return {
            "login": self.login and asdict(self.login),
            "session": session,
            "handover": self.handover and asdict(self.handover),
            "exception": self.exception,
        }

    @classmethod
    def load(cls, record: Mapping[str, Any] | None, *, active_ns: int, held: int) -> Self:
        if record is None:
            return cls(held=held)
        login, session, handover = record["login"], record["session"], record["handover"]
        return cls(
            login=login
            and Login(
                **{
                    **login,
                    "kinds": tuple(login["kinds"]),
                    "finger": login["finger"] and tuple(login["finger"]),
                }
            ),
            session=session
            and Session(**{**session, "kinds": tuple(session["kinds"]), "active_ns": active_ns}),
            handover=handover and Handover(**handover),
            exception=record["exception"],
            held=held,
        )
