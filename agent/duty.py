"""What the courier's workflow knows beside who is on duty: what lies on the table, and for whom.

Everything here survives a restart in one small record; the parcels themselves have a record each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.correction import Correcting
from agent.session import Duty, Login, Session, Unlocking

HELD_LIMIT = 5000
"""Parcels one device keeps track of; more than any van carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Parcels on the table, and to whom. Survives its session, for the same driver to take up again."""

    driver: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody(Duty):
    """Everything the workflow knows beside the parcels themselves."""

    handover: Handover | None = None
    exception: str | None = None
    """The next scan notes this exception."""
    correcting: Correcting | None = None
    """The next scan takes back the last entry about that parcel."""
    held: int = 0
    """Parcels in custody here."""

    @property
    def to_driver(self) -> Handover | None:
        """The handover that another driver is to receive, if there is one now."""
        return self.handover if self.session and self.handover and self.handover.to == "driver" else None

    def receiving(self, subject: str | None) -> Handover | None:
        """The handover that `subject` is to receive, if it is for a driver other than the one on duty."""
        if subject and self.session and subject != self.session.driver:
            return self.to_driver
        return None

    def dump(self) -> dict[str, Any]:
        """What must survive, as JSON has it. It stays the same from scan to scan, which spares the flash."""
        handover = self.handover
        return {
            "login": self.login and self.login.dump(),
            "session": self.session and self.session.dump(),
            "handover": handover and {"driver": handover.driver, "to": handover.to},
            "exception": self.exception,
            "unlocking": self.unlocking and self.unlocking.dump(),
            "correcting": self.correcting and self.correcting.dump(),
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
            unlocking=Unlocking(**record["unlocking"]) if record.get("unlocking") else None,
            correcting=Correcting(**record["correcting"]) if record.get("correcting") else None,
            held=held,
        )
