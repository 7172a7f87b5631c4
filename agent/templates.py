"""Which templates a fingerprint module is to hold, and what is to be done about it. Pure.

The fleet says which slot holds whose finger; the module lists which slots are taken; and of each template
that was put there by us a record is kept. From these three follows what to delete, what to store, and what
nobody here has put there. A module tells only that a slot is taken, never by what.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

KIND = "template"
"""Of the rows that bring one."""
Finger = tuple[str, int]
"""Fingerprint module (unit name) and slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One as a page brings it. It goes to its module and is written nowhere else."""

    value: bytes
    """`v` of its row."""
    subject: str
    unit: str
    slot: int
    until: int | None = None
    """Seconds since 1970 UTC after which the slot is to be empty."""
    content: bytes = field(repr=False)

    @property
    def token(self) -> bytes:
        return token(self.subject, self.unit, self.slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one slot is to hold, as far as it is kept: no template, and no name."""

    value: bytes
    """First half of the row's `v`: what a revocation names it by, and what leads to its page."""
    owner: str
    """Keyed digest of the subject."""
    digest: str
    """Keyed digest of the template."""
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A template that we have put into a slot, or may have."""

    owner: str
    digest: str
    stored: bool
    """False from before it is sent until the module has said yes."""

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> "Ours":
        return cls(owner=record["owner"], digest=record["digest"], stored=record["stored"])

    def dump(self) -> dict[str, Any]:
        return {"owner": self.owner, "digest": self.digest, "stored": self.stored}

    def is_right(self, wanted: Wanted | None) -> bool:
        """Whether what is there, if anything is, is certainly what is wanted."""
        return wanted is not None and self.stored and self.fits(wanted)

    def fits(self, wanted: Wanted) -> bool:
        return (self.owner, self.digest) == (wanted.owner, wanted.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the difference between a module and what it should hold comes to. Slots in ascending order."""

    delete: tuple[int, ...] = ()
    store: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()
    """Taken, and nobody here knows by what."""
    missing: tuple[int, ...] = ()
    """Taught on the device itself once, and gone."""
    kept: tuple[int, ...] = ()
    """Wanted, and not stored: what was taught there on the device itself is somebody else's to give up."""

    @property
    def is_believed(self) -> bool:
        """Whether the module can be the one that was here before."""
        return not self.foreign and not self.missing


def plan(
    wanted: Mapping[int, Wanted],
    ours: Mapping[int, Ours],
    local: frozenset[int],
    present: frozenset[int],
) -> Plan:
    """`wanted` without who is revoked or expired; `local` slots were taught on the device itself.

    What is wanted in a slot that is taken by something else is stored once that has been deleted. A template
    of ours that is not there and not wanted keeps its record: the module that holds it may come back.
    """
    found: dict[str, list[int]] = {what.name: [] for what in fields(Plan)}
    for slot in sorted({*wanted, *ours, *local, *present}):
        what = _judge(wanted.get(slot), ours.get(slot), slot in local, slot in present)
        if what is not None:
            found[what].append(slot)
    return Plan(**{what: tuple(slots) for what, slots in found.items()})


def _judge(want: Wanted | None, have: Ours | None, local: bool, there: bool) -> str | None:
    if have is not None and there:
        return None if have.is_right(want) else "delete"
    if local:
        return "missing" if not there else None if want is None else "kept"
    if there:
        return "foreign"
    return None if want is None else "store"


def token(subject: str, unit: str, slot: int) -> bytes:
    """What the row of a template is found by: whose finger, and where."""
    return b"\0".join((subject.encode(), unit.encode(), str(slot).encode()))
