"""What a scan or typed line at a locker is worth as a code, before anything is decided about it.

Three kinds, all of them good with no network: a QR code that carries the fleet's signature, a long code and a
PIN with its selector, whose rows open only by presentation. A code is looked at and forgotten: what comes
out names a grant, never the code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.admission import Audience
from agent.clock import Moment
from agent.documents import SignedGrant
from agent.envelope import CAPS, Kind, Reason, Refused
from agent.jws import BadJws, decoded
from agent.locker.events import GrantShown
from agent.locker.grants import Grant, Purpose, Refusal, Way
from agent.locker.turn import MINTED
from agent.row_seal import open_row, value_of
from agent.rows import Rows
from agent.trust import Trusted

LONG = b"PICKUP:"
"""What a long code begins with: 22 characters of base64url follow, 16 bytes."""
SIGNED = b"eyJ"
"""Every compact JWS begins so."""

_PIN = re.compile(rb"([0-9A-Za-z]{4})[ *#-]?([0-9]{6})[*#]?")


@dataclass(frozen=True, slots=True)
class Codes:
    """Reads codes. Holds nothing of its own."""

    rows: Rows
    audience: Audience
    trusted: Callable[[], Trusted | None]
    records: Callable[[], Mapping[str, Any]]

    def scanned(self, unit: str, data: bytes, at: Moment) -> GrantShown | None:
        """What a scanner read; None where that is no code at all but a label, say."""
        if data.startswith(LONG):
            return self._told(unit, at, Way.CODE, self._long(data))
        if data.startswith(SIGNED) or len(data) > CAPS[Kind.GRANT]:
            return self._told(unit, at, Way.QR, self._signed(data))
        return None

    def typed(self, unit: str, data: bytes, at: Moment) -> GrantShown:
        """What was typed at the locker while nobody was proving who they are."""
        match = _PIN.fullmatch(data.strip())
        if match is None:
            return self._told(unit, at, Way.PIN, Refusal.MALFORMED)
        selector, pin = match[1].upper(), match[2]
        found = self._row("grant_pin", pin_token(selector, pin), Way.PIN)
        digest = self.rows.keys.digest("selector", selector)
        return self._told(unit, at, Way.PIN, found, digest)

    def _told(
        self, unit: str, at: Moment, way: Way, found: Grant | Refusal, selector: str | None = None
    ) -> GrantShown:
        grant = found if isinstance(found, Grant) else None
        refusal = None if isinstance(found, Grant) else found
        return GrantShown(at=at, unit=unit, way=way, grant=grant, refusal=refusal, selector=selector)

    def _signed(self, data: bytes) -> Grant | Refusal:
        trusted = self.trusted()
        if trusted is None:
            return Refusal.UNKNOWN
        try:
            document = trusted.open(Kind.GRANT, data)
        except Refused as refused:
            return _REFUSALS.get(refused.reason, Refusal.UNKNOWN)
        if document.claims.aud != self.audience.name:
            # A grant for many lockers would open one door in each.
            return Refusal.OTHER_LOCKER
        body: SignedGrant = document.body
        return Grant(
            jti=document.claims.jti,
            way=Way.QR,
            purpose=Purpose(body.purpose),
            compartment=body.compartment,
            parcel=body.parcel,
            nbf=max(body.nbf, document.claims.iat - EARLY_S),
            exp=document.claims.exp,
            revoked=trusted.is_withdrawn(document.claims.jti),
        )

    def _long(self, data: bytes) -> Grant | Refusal:
        try:
            code = decoded(data.removeprefix(LONG).decode("ascii"))
        except (BadJws, UnicodeDecodeError):
            return Refusal.MALFORMED
        return self._row("grant", code, Way.CODE) if len(code) == 16 else Refusal.MALFORMED

    def _row(self, kind: str, token: bytes, way: Way) -> Grant | Refusal:
        body = self.rows.open("grants", kind, token) or self._minted(kind, token)
        if body is None:
            return Refusal.UNKNOWN
        if body.get("locker") not in (None, self.audience.device, self.audience.name):
            return Refusal.OTHER_LOCKER
        trusted = self.trusted()
        return Grant(
            jti=body["jti"],
            way=way,
            purpose=Purpose(body.get("purpose") or Purpose.PICKUP),
            compartment=body.get("compartment"),
            parcel=body.get("parcel"),
            nbf=body.get("nbf") or 0,
            exp=body["exp"],
            revoked=trusted is not None and trusted.is_withdrawn(body["jti"]),
        )

    def _minted(self, kind: str, token: bytes) -> dict[str, Any] | None:
        value = value_of(self.rows.keys.epoch, kind, token)
        lookup, _, _ = self.rows.keys.split(value)
        sealed = self.records().get(MINTED + lookup.hex())
        return None if sealed is None else open_row(self.rows.keys, value, decoded(sealed["row"]))


EARLY_S = 300
"""A grant whose signer's clock runs ahead of ours by so much is good at once all the same."""

_REFUSALS = {
    Reason.MALFORMED: Refusal.MALFORMED,
    Reason.OVERSIZED: Refusal.MALFORMED,
    Reason.SCHEMA: Refusal.MALFORMED,
    Reason.WRONG_AUDIENCE: Refusal.OTHER_LOCKER,
}


def pin_token(selector: bytes, pin: bytes) -> bytes:
    """What a PIN is worth: nothing without its selector."""
    return selector + b"\0" + pin
