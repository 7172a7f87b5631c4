"""From a reading to an event: what does it mean here, who is it, has it been seen before?

A driver says what happened; the role that the config gives its unit says what that means. This is the step
between the two: labels are ranked, credentials judged by the roster and forgotten, control codes taken
apart. What comes out holds no secret.
"""

import os
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.clock import Moment
from agent.inventory import Inventory
from agent.labels import Confidence, Label, read_epc, read_label
from agent.locker.codes import LONG, SIGNED
from agent.roster import Roster
from agent.session import Login
from agent.stake import CHALLENGE_BYTES, Asked
from agent.workflow import CardShown, CodeEntered, ControlScanned, Event, FactorShown, LabelRead, Outcome
from drivers.readings import CardAsserted, CardFailed, FingerCompared, Reading, Scanned, TagArrived

CONTROL = b"POSTERN:"
"""Control codes on the workflow's own sheet, e.g. `POSTERN:HANDOVER:RECIPIENT`."""

PICKUP_CODE = "pickup_code"
"""Stands for a recipient's code that was held before a scanner for parcels: no workflow has a use for it."""

AIM_LENGTH = 3
"""Characters of an AIM identifier, e.g. `]C0`."""

SEEN_LIMIT = 4096
"""Contents remembered for the duplicate check; over it the oldest is forgotten."""

CANDIDATES = 3
"""Readings of an ambiguous label kept in the entry, the chosen one included."""


class Role(StrEnum):
    """What a unit is there for."""

    PARCEL = "parcel"
    BADGE = "badge"
    TOKEN = "token"
    KEYPAD = "keypad"
    POSITION = "position"
    FINGER = "finger"
    DOORS = "doors"
    FERRY = "ferry"


WHO = (Role.BADGE, Role.TOKEN, Role.KEYPAD, Role.FINGER)
"""Roles whose readings say who somebody is."""


ROLES: Mapping[str, tuple[Role, ...]] = {
    "line": (Role.PARCEL, Role.BADGE, Role.TOKEN, Role.KEYPAD),
    "ssi": (Role.PARCEL, Role.BADGE),
    "em4100": (Role.BADGE, Role.PARCEL),
    "m100": (Role.PARCEL, Role.BADGE),
    "nmea": (Role.POSITION,),
    "gpsd": (Role.POSITION,),
    "r503": (Role.FINGER,),
    "pn532": (Role.BADGE, Role.PARCEL),
    "osdp": (Role.BADGE,),
    "cu16": (Role.DOORS,),
    "cu48": (Role.DOORS,),
    "cu12": (Role.DOORS,),
    "bcc": (Role.DOORS,),
    "wkly": (Role.DOORS,),
    "winnsen": (Role.DOORS,),
    "modbus_relay": (Role.DOORS,),
    "ferry": (Role.FERRY,),
}
"""Roles each kind of device can have; the first is the one it has when the config is silent."""


Interpreted = Scanned | TagArrived | FingerCompared | CardAsserted | CardFailed
"""Readings that become events; the others tell of the devices themselves."""


def role_of(kind: str, role: Role, reading: Reading) -> Role:
    """What a reading is there for: an OSDP reader is two units in one case, for badges and for keys."""
    return Role.KEYPAD if kind == "osdp" and isinstance(reading, Scanned) else role


@dataclass(frozen=True, slots=True)
class Taken:
    """An event, and the roster's counters that must be committed with it."""

    event: Event
    records: Mapping[str, Any]


class Intake:
    """Keeps only what a duplicate check needs."""

    def __init__(
        self, roster: Roster, inventory: Inventory | None = None, *, asks_cards: bool = False
    ) -> None:
        self.roster = roster
        self.inventory = inventory or Inventory()
        self._asks_cards = asks_cards
        self._seen: OrderedDict[tuple[str, str, bytes], int] = OrderedDict()

    def take(
        self,
        unit: str,
        kind: str,
        role: Role,
        reading: Interpreted,
        at: Moment,
        claim: Login | None,
        records: Mapping[str, Any],
        asked: Asked | None = None,
    ) -> Taken | None:
        """The event that a reading makes, or None for one that means nothing in this role.

        `claim` is who has begun to prove who they are: a PIN is judged against it, and so is the finger it
        names. Any other comparison is nobody's answer: it was asked for somebody else, or is too late. The
        same is true of a fingerprint card and what it was `asked`.
        """
        subject = claim.subject if claim else None
        match reading:
            case FingerCompared(slot=slot):
                if claim is None or claim.finger != (unit, slot):
                    return None
                if self.inventory.doubts(unit):
                    return self._doubted(unit, "slot", claim.subject, at)
                judged = self.roster.compared(
                    reading, module=unit, subject=claim.subject, now=at, records=records
                )
                return Taken(FactorShown(unit=unit, at=at, verdict=judged.verdict), judged.records)
            case Scanned(data=data, symbology=symbology) if role is Role.PARCEL:
                if (words := _control_words(data)) is not None:
                    return Taken(ControlScanned(unit=unit, at=at, words=words), {})
                labels = read_label(data, symbology)
                return self._label(unit, kind, data, symbology, labels, {}, at)
            case TagArrived(uid=uid) if role is Role.PARCEL:
                labels = _tag_labels(reading)
                radio = {} if reading.rssi_dbm is None else {"rssi_dbm": reading.rssi_dbm}
                return self._label(unit, kind, uid, reading.technology, labels, radio, at)
            case CardAsserted() | CardFailed():
                if asked is None or not asked.awaited(unit, at):
                    return None
                judged = self.roster.answered(reading, asked, reader=unit, now=at, records=records)
                return Taken(FactorShown(unit=unit, at=at, verdict=judged.verdict), judged.records)
            case Scanned(data=data):
                return self._credential(unit, role, data, at, subject, records)
            case TagArrived(applets=(_, *_)) if self._asks_cards:
                # Its number is no credential: many such cards make up another one each time.
                return Taken(CardShown(unit=unit, at=at, challenge=os.urandom(CHALLENGE_BYTES)), {})
            case TagArrived(uid=uid):
                return self._credential(unit, role, uid.hex().encode(), at, subject, records)

    def _credential(
        self, unit: str, role: Role, data: bytes, at: Moment, claim: str | None, records: Mapping[str, Any]
    ) -> Taken:
        if role is Role.KEYPAD and claim is None:
            return Taken(CodeEntered(unit=unit, at=at, digest=self.roster.keys.digest("code", data)), {})
        kind = {Role.KEYPAD: "pin", Role.TOKEN: "static"}.get(role, "badge")
        if self.inventory.doubts(unit):
            return self._doubted(unit, kind, claim if kind == "pin" else None, at)
        judged = self.roster.present(kind, data, reader=unit, claim=claim, now=at, records=records)
        return Taken(FactorShown(unit=unit, at=at, verdict=judged.verdict), judged.records)

    def _doubted(self, unit: str, kind: str, subject: str | None, at: Moment) -> Taken:
        """Nothing is looked up, and nobody is to blame."""
        verdict = self.roster.unjudged(Outcome.DOUBTED, kind, subject, at)
        return Taken(FactorShown(unit=unit, at=at, verdict=verdict), {})

    def _label(
        self,
        unit: str,
        kind: str,
        raw: bytes,
        symbology: str | None,
        labels: tuple[Label, ...],
        more: Mapping[str, Any],
        at: Moment,
    ) -> Taken | None:
        if not labels:
            return None
        best = labels[0]
        evidence: dict[str, Any] = {
            "raw": b64encode(raw).decode(),
            "symbology": symbology,
            "driver": kind,
            "scheme": best.scheme,
            **more,
        }
        if best.fields:
            evidence["fields"] = dict(best.fields)
        if len(labels) > 1:
            evidence["candidates"] = [label.id for label in labels[:CANDIDATES]]
        event = LabelRead(
            unit=unit,
            at=at,
            label=best.id,
            evidence=evidence,
            repeated_after=self._repeated((unit, symbology or "", raw), at),
        )
        return Taken(event, {})

    def _repeated(self, key: tuple[str, str, bytes], at: Moment) -> float | None:
        before = self._seen.pop(key, None)
        self._seen[key] = at.mono_ns
        if len(self._seen) > SEEN_LIMIT:
            self._seen.popitem(last=False)
        return None if before is None else at.since(before)


def _control_words(data: bytes) -> tuple[str, ...] | None:
    """`HANDOVER:DRIVER` as two words, after an AIM identifier or not; None for anything else.

    A code that opens a compartment is no label, and would open it for whoever reads the record.
    """
    text = data[AIM_LENGTH:] if data.startswith(b"]") else data
    if text.startswith(LONG) or (text.startswith(SIGNED) and text.count(b".") == 2):
        return (PICKUP_CODE,)
    if not text.startswith(CONTROL):
        return None
    return tuple(text.removeprefix(CONTROL).decode("ascii", "replace").lower().split(":"))


def _tag_labels(tag: TagArrived) -> tuple[Label, ...]:
    if tag.technology == "epc-gen2":
        return read_epc(tag.uid, tag.pc)
    # A chip's own number is nobody's parcel number, however much it may look like one.
    uid = tag.uid.hex()
    return (Label(scheme=tag.technology, id=f"uid:{uid}", fields={}, confidence=Confidence.TEXT),)
