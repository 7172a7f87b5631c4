"""Whether a command may be carried out. Pure: a verified document, what is remembered and a time in, and
what must be remembered first out.

Each class has its signatures, its longest life and its budget. A command is admitted once: its sequence must
be above the last of its key, as far as any version may leap, or unseen among the 64 before it. What `admit`
gives is committed before anything is done; then its outcome is the acknowledgement. The same command again is
answered again, and done no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from agent import emergency
from agent.admission import FIRST, LEAP, Audience, check_time
from agent.budget import Budget, spent
from agent.clock import NS, Moment
from agent.documents import Body, BundleKind, Command, Digest, Document, Role, Root, Text, Version
from agent.envelope import Reason, Refused, told
from agent.receipts import ROLLED_BACK
from agent.signed_time import Asked

WINDOW = 64
"""Sequences below the last that may still come, out of order."""
SEQUENCE = "trust/seq/"
"""Of the records: one for each key that has commanded."""

LINES = 200
"""Of the log that diagnostics bring: as many as are kept."""
RESEND_MOST = 16_384
"""Entries that one command may have sent again."""

Rotated = Literal["certificate", "seal"]
"""Keys that a device can make anew by itself: towards the broker, and what pages are sealed to."""
Sequence = Annotated[int, Field(ge=1, le=2**63 - 1)]
UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What a class of commands asks for."""

    role: Role = Role.COMMAND
    signatures: int = 1
    longest_s: int
    budgets: tuple[Budget, ...] = ()
    answerable: bool = False
    """Reason and operator must be named, and it is for one device alone."""
    present: bool = False
    """Somebody in charge must be at the device: it waits for them, as long as it lives."""


RANKS: Mapping[str, Rank] = {
    "A": Rank(longest_s=3600, budgets=(Budget(60, 3600),)),
    "B": Rank(longest_s=86_400, budgets=(Budget(10, 3600),)),
    "C": Rank(longest_s=120, budgets=(Budget(3, 600), Budget(10, 86_400)), answerable=True),
    "D": Rank(signatures=2, longest_s=600, answerable=True, present=True),
    "E": Rank(role=Role.EMERGENCY, longest_s=3600),
}
"""A reads, B sets, C opens one door, D does what is many or irreversible, E locks and always may."""
OPENING = ("C", "D")
"""What opens doors: not under the emergency lock, and not from a journal that is an older copy."""


class Nothing(Body):
    """A command without arguments."""


class LogLevel(Body):
    level: Literal["debug", "info", "warning", "error"]


class Locate(Body):
    unit: UnitName


class Diagnostics(Body):
    """Say how the device is, in one message beside the entries."""

    lines: Annotated[int, Field(ge=0, le=LINES)] = LINES
    """Of the log, the latest; fewer where they would not fit."""


class ReloadBundle(Body):
    """Fetch everything of a bundle anew."""

    kind: BundleKind | None = None
    """All bundles where none is named."""


class UnlockSubject(Body):
    subject: Text


class ConfirmConfig(Body):
    """The config on trial may stay."""

    version: Version
    sha256: Digest
    """Of the envelope, as it was reported."""


class Resend(Body):
    """Entries that the fleet lacks are to be sent again."""

    first: Sequence
    last: Sequence | None = None
    """As many as one command may ask for, where it is not said."""
    epoch: Text | None = None
    """The journal that is meant, where it need not be the one in use."""

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if not self.first <= self.end < self.first + RESEND_MOST:
            raise ValueError(f"expected 1 to {RESEND_MOST} entries, got {self.end - self.first + 1}")
        return self

    @property
    def end(self) -> int:
        return self.first + RESEND_MOST - 1 if self.last is None else self.last


class RotateKeys(Body):
    """Make new keys, and ask the fleet to take them."""

    keys: Annotated[list[Rotated], Field(min_length=1, max_length=2)] | None = None
    """All that this device can make anew, where none are named."""


class ConfirmKeys(Body):
    """The fleet has taken the keys that were asked for."""

    UNTOLD: ClassVar = frozenset({"chain"})
    request: Version
    """Its number."""
    chain: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=2)]
    """Where a certificate was asked for: that, and the one of the authority that gives it, in PEM."""


class OpenOneDoor(Body):
    unit: UnitName
    door: Annotated[int, Field(ge=1, le=9999)]


def _once(doors: list[int]) -> list[int]:
    if len(set(doors)) != len(doors):
        raise ValueError("expected each door once")
    return doors


Doors = Annotated[
    list[Annotated[int, Field(ge=1, le=9999)]], Field(min_length=1, max_length=512), AfterValidator(_once)
]


class OpenManyDoors(Body):
    """Doors of one unit, by number, or all that there are. A locker with one unit need not name it."""

    unit: UnitName | None = None
    doors: Literal["all"] | Doors


COMMANDS: Mapping[str, tuple[str, type[Body]]] = {
    "status": ("A", Nothing),
    "checkpoint": ("A", Nothing),
    "locate": ("A", Locate),
    "log_level": ("A", LogLevel),
    "session_end": ("A", Nothing),
    "resend": ("A", Resend),
    "diagnostics": ("A", Diagnostics),
    "reload_bundle": ("B", ReloadBundle),
    "unlock_subject": ("B", UnlockSubject),
    "confirm_config": ("B", ConfirmConfig),
    "rotate_keys": ("B", RotateKeys),
    "confirm_keys": ("B", ConfirmKeys),
    "open_door": ("C", OpenOneDoor),
    "open_doors": ("D", OpenManyDoors),
    "emergency_lock": ("E", Nothing),
    "emergency_release": ("E", Nothing),
}
"""Class and arguments of every command there is."""


class Outcome(StrEnum):
    """What became of a command."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A command that may be carried out, once its records are committed."""

    id: str
    key: str
    seq: int
    command: Command
    args: Body
    until_ns: int
    """Nothing of it may begin later, by the monotonic clock."""
    records: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """What each entry about it says."""
        return {
            "command": self.id,
            "key": self.key,
            "sequence": str(self.seq),
            "class": self.command.rank,
            "name": self.command.name,
            "args": self.args.model_dump(exclude=getattr(self.args, "UNTOLD", None)),
            "operator": self.command.operator,
            "reason": self.command.reason,
        }


@dataclass(frozen=True, slots=True)
class Again:
    """A command that was admitted before: what its entry said."""

    told: Mapping[str, Any]
    outcome: Outcome | None
    """None while it is being carried out."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one key has commanded so far."""

    last: int = 0
    seen: Mapping[int, Mapping[str, Any]] | None = None
    """Of the newest 64 sequences those that came: what was told, and the outcome."""

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        if record is None:
            return cls()
        return cls(record["last"], {int(seq): each for seq, each in record["seen"].items()})

    def dump(self) -> dict[str, Any]:
        return {"last": self.last, "seen": {str(seq): each for seq, each in (self.seen or {}).items()}}

    def find(self, seq: int, id_: str) -> Again | None:
        """The same command, if it came before. Raises Refused for another one in its place."""
        before = (self.seen or {}).get(seq)
        if before is None:
            if seq <= self.last - WINDOW:
                detail = f"expected a sequence above {self.last - WINDOW}, got {seq}"
                raise Refused(Reason.REPLAYED, detail)
            most = self.last + LEAP if self.last else FIRST
            if seq > most:
                raise Refused(Reason.FAST_FORWARD, f"expected a sequence up to {most}, got {seq}")
            return None
        if before["told"]["command"] != id_:
            raise Refused(Reason.REPLAYED, f"expected sequence {seq} once, got it for another command")
        return Again(before["told"], before["outcome"] and Outcome(before["outcome"]))

    def noted(self, seq: int, told: Mapping[str, Any], outcome: Outcome | None) -> Self:
        last = max(self.last, seq)
        seen = {**(self.seen or {}), seq: {"told": dict(told), "outcome": outcome}}
        return type(self)(last, {each: what for each, what in seen.items() if each > last - WINDOW})


def admit(
    document: Document[Command],
    root: Root,
    audience: Audience,
    *,
    now: Moment,
    asked: Asked | None,
    records: Mapping[str, Any],
) -> Admitted | Again:
    """Raises Refused. Signature, type and audience have been verified; by whom it may come is seen here."""
    command, claims = document.body, document.claims
    rank = RANKS[command.rank]
    args = _permitted(document, rank, root, audience)
    until_ns = _check_time(document, rank, now, asked)
    key = next(each for each in document.signers if each in root.kids(rank.role))
    line = Line.load(records.get(f"{SEQUENCE}{key}"))
    again = line.find(document.ver, claims.jti)
    if again is not None:
        return again
    _allowed(command, now, records)
    budget = spent(command.rank, rank.budgets, now, records)
    admitted = Admitted(
        id=claims.jti, key=key, seq=document.ver, command=command, args=args, until_ns=until_ns
    )
    noted = line.noted(document.ver, admitted.told, None)
    return replace(admitted, records={f"{SEQUENCE}{key}": noted.dump(), **budget})


def settled(admitted: Mapping[str, Any], outcome: Outcome, records: Mapping[str, Any]) -> dict[str, Any]:
    """The record once a command, as it was told, has its outcome."""
    record = f"{SEQUENCE}{admitted['key']}"
    line = Line.load(records.get(record))
    return {record: line.noted(int(admitted["sequence"]), admitted, outcome).dump()}


def unsettled(records: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was admitted and has no outcome, as it was told: at a start nobody knows what became of it."""
    lines = [Line.load(each) for key, each in records.items() if key.startswith(SEQUENCE)]
    return [each["told"] for line in lines for each in (line.seen or {}).values() if each["outcome"] is None]


def _permitted(document: Document[Command], rank: Rank, root: Root, audience: Audience) -> Body:
    """The arguments of a command that its signers may give to this device."""
    command, claims = document.body, document.claims
    signers = set(document.signers) & set(root.kids(rank.role))
    if not signers:
        raise Refused(Reason.UNKNOWN_KEY, f"expected a key of {rank.role} for class {command.rank}")
    least = max(rank.signatures, root.threshold(rank.role))
    if len(signers) < least:
        raise Refused(Reason.BELOW_THRESHOLD, f"expected {least} signatures, got {len(signers)}")
    if rank.answerable and claims.aud != audience.name:
        raise Refused(Reason.WRONG_AUDIENCE, f"expected {audience.name} alone, got {claims.aud}")
    if rank.answerable and not (command.operator and command.reason):
        raise Refused(Reason.NOT_PERMITTED, f"expected an operator and a reason for class {command.rank}")
    if claims.exp - claims.iat > rank.longest_s:
        detail = f"expected class {command.rank} to live {rank.longest_s} s, got {claims.exp - claims.iat}"
        raise Refused(Reason.NOT_PERMITTED, detail)
    known = COMMANDS.get(command.name)
    if known is None or known[0] != command.rank:
        raise Refused(Reason.NOT_PERMITTED, f"expected a command of class {command.rank}, got {command.name}")
    try:
        return known[1].model_validate(command.args)
    except ValidationError as error:
        raise Refused(Reason.SCHEMA, told(error)) from error


def _check_time(document: Document[Command], rank: Rank, now: Moment, asked: Asked | None) -> int:
    """Until when it may begin. By the clock where it can be trusted; else only for this connection."""
    nonce = document.body.nonce
    if nonce is not None and (asked is None or nonce != asked.nonce):
        raise Refused(Reason.REPLAYED, "expected the nonce of this connection, got another")
    if now.assured:
        check_time(document.claims, now)
        return now.mono_ns + document.claims.exp * NS - now.utc_ns
    if nonce is None or asked is None:
        raise Refused(Reason.NOT_YET_VALID, "expected the nonce of this connection while time is not trusted")
    if now.since(asked.mono_ns) > rank.longest_s:
        raise Refused(Reason.EXPIRED, f"expected it within {rank.longest_s} s of the nonce, got it later")
    return asked.mono_ns + rank.longest_s * NS


def _allowed(command: Command, now: Moment, records: Mapping[str, Any]) -> None:
    """What this device's own state forbids."""
    if command.rank not in OPENING:
        return
    if emergency.in_force(records, now):
        raise Refused(Reason.NOT_PERMITTED, "expected no emergency lock, got one that is in force")
    if records.get(ROLLED_BACK) is not None:
        raise Refused(Reason.NOT_PERMITTED, "expected a journal that is no older copy")
