"""What every document has to pass, whatever it says: addressed to this device, of the present, and newer.

Each check raises Refused with its own reason, or lets pass.
"""

from dataclasses import dataclass
from typing import Any

from agent.clock import NS, Moment
from agent.documents import Document, Pin
from agent.envelope import Claims, Envelope, Reason, Refused

LEAP = 10_000
"""How far a version may be above the last. More is somebody who wants no later one to be possible."""
FIRST = 1_000_000_000
"""The highest version without one before it: one a second for thirty years."""
AHEAD_S = 300
"""Seconds that a document may be of the future, by a clock that can be trusted."""
AHEAD_UNSURE_S = 7 * 86_400
"""The same where nobody knows what time it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who this device is to the fleet."""

    tenant: str
    device: str
    groups: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What addresses this device alone."""
        return f"{self.tenant}/{self.device}"

    def check(self, claims: Claims) -> None:
        """Raises Refused for what is addressed to others."""
        ours = {self.name, f"{self.tenant}/*", *(f"{self.tenant}/@{group}" for group in self.groups)}
        if claims.aud not in ours:
            raise Refused(Reason.WRONG_AUDIENCE, f"expected {self.name} or a group of it, got {claims.aud}")


def check_time(claims: Claims, now: Moment) -> None:
    """Raises Refused for what has expired or is of the future."""
    if claims.exp <= now.utc_ns // NS:
        raise Refused(Reason.EXPIRED, f"expected an end after {now.utc_ns // NS}, got {claims.exp}")
    check_begun(claims, now)


def check_begun(claims: Claims, now: Moment) -> None:
    """Raises Refused for what is of the future."""
    latest = now.utc_ns // NS + (AHEAD_S if now.assured else AHEAD_UNSURE_S)
    if claims.iat > latest:
        raise Refused(Reason.NOT_YET_VALID, f"expected a beginning by {latest}, got {claims.iat}")


def check_version(name: str, claims: Claims, envelope: Envelope, last: Document[Any] | None) -> None:
    """Raises Refused unless this is the last one or a later one."""
    if last is not None:
        check_pin(name, last.pin, Pin(ver=claims.ver, sha256=envelope.sha256))
    elif claims.ver > FIRST:
        raise Refused(Reason.FAST_FORWARD, f"expected a {name} up to {FIRST}, got {claims.ver}")


def check_pin(name: str, last: Pin, new: Pin) -> None:
    """Raises Refused unless `new` is the same or a later one."""
    if new.ver < last.ver:
        raise Refused(Reason.ROLLED_BACK, f"expected {name} {last.ver} or later, got {new.ver}")
    if new.ver == last.ver and new.sha256 != last.sha256:
        raise Refused(Reason.MIXED, f"expected the {name} {last.ver} that is known, got another")
    if new.ver > last.ver + LEAP:
        raise Refused(Reason.FAST_FORWARD, f"expected {name} up to {last.ver + LEAP}, got {new.ver}")
