"""Who holds this credential? The identity cache, and the only room that sees what a person presented.

The rows are sealed (`agent.rows`): what the fleet's roster says comes first, then what was added here.
Counters that must never roll back live with the journal's records. A verdict is pure data; what it changes
comes back beside it and is committed with the entry that tells of it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.clock import NS, Moment
from agent.documents import ROSTER_S
from agent.lockout import (
    DECIDED,
    Burst,
    Limits,
    Tries,
    reader_failed,
    reader_may_try,
    subject_failed,
    subject_may_try,
    subject_pardoned,
)
from agent.policy import LEVELS
from agent.row_seal import Keys
from agent.rows import LOCAL, Rows
from agent.signed import Seen, evidence, unfit, weigh
from agent.stake import Asked
from agent.standing import Authority, Standing, age
from agent.withdrawn import Withdrawn
from agent.workflow import Outcome, Pardon, Verdict
from drivers.readings import CardAsserted, CardFailed, CardFailure, CompareResult, FingerCompared

PRESENTED = ("badge", "static", "pin", "fido2")
"""Kinds whose row is opened by what is presented to us: of a fingerprint card, the id of its credential. A
slot is compared by the fingerprint module."""

MIN_TOKEN_BITS = 128
"""A static token below this could be guessed."""

_ALPHABETS = (
    (frozenset(b"0123456789"), 3.32),
    (frozenset(b"0123456789abcdefABCDEF"), 4.0),
    (frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/-_="), 6.0),
)
"""Bits that a character can hold at most, by the smallest alphabet that the whole token keeps to."""

CREDENTIAL = 16
"""Bytes of a row's `v` that a revocation names it by."""

BUNDLE = "roster"
"""The fleet's rows, by the name of the bundle that brings them."""


class RosterError(Exception):
    """A roster operation that makes no sense, in words for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a credential says about the person who presents it."""

    subject: str
    """Random driver reference; the name behind it is known to the fleet alone."""
    kind: str
    finger: tuple[str, int] | None = None
    """Fingerprint module (unit name) and slot of this subject's template."""
    until: int | None = None
    """Seconds since 1970 UTC after which the row is void."""
    revoked: bool = False
    role: str | None = None
    """`driver`, `supervisor` or `technician`."""
    public_key: str | None = None
    """Of a fingerprint card: its COSE key, in base64url without padding."""
    name: bytes = b""
    """What a revocation may call the credential: the first half of its `v`. Empty in one to be put."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the counters it changes."""

    verdict: Verdict
    records: Mapping[str, Any]


class Roster:
    """The sealed rows and the counters of one device."""

    def __init__(
        self, path: Path, keys: Keys, *, authority: Authority | None = None, limits: Limits = DECIDED
    ) -> None:
        self.keys = keys
        self.limits = limits
        self.authority = authority or Authority()
        self.rows = Rows(path, keys)
        self._withdrawn = Withdrawn()

    def close(self) -> None:
        self.rows.close()

    # -- provisioning -----------------------------------------------------------------------------

    def put(self, row: Row, token: bytes, *, as_of: int) -> None:
        """Seal a row under the secret that opens it. Raises RosterError for what could be guessed."""
        if row.kind not in PRESENTED:
            raise RosterError(f"expected one of {', '.join(PRESENTED)}, got {row.kind!r}")
        if row.kind == "static" and (bits := token_bits(token)) < MIN_TOKEN_BITS:
            raise RosterError(f"expected a token of at least {MIN_TOKEN_BITS} bits, got at most {bits}")
        if (row.kind == "fido2") != (row.public_key is not None):
            raise RosterError(f"expected a public key for fido2 and for nothing else, got {row.kind}")
        if row.public_key is not None and (wrong := unfit(token, row.public_key)):
            raise RosterError(wrong)
        body = {
            "subject": row.subject,
            "finger": row.finger,
            "until": row.until,
            "revoked": row.revoked,
            "role": row.role,
            "public_key": row.public_key,
        }
        self.rows.put(row.kind, token, {key: said for key, said in body.items() if said}, as_of=as_of)

    def forget(self, kind: str, token: bytes) -> bool:
        """Delete the row this secret opens, if it was added here; False if there is none."""
        return self.rows.forget(kind, token)

    def wipe(self) -> int:
        """Nothing opens from now on, and every row is deleted. How many there were. For a thread."""
        self.keys = Keys.none()
        return self.rows.wipe()

    def __len__(self) -> int:
        return len(self.rows)

    def listed_until(self) -> int | None:
        """Seconds since 1970 at which the fleet's rows end at the latest, be they forgotten there or not."""
        listed_at = self.authority.listed_at()
        return None if listed_at is None else int(listed_at) + ROSTER_S

    def standing(self, now: Moment) -> Standing:
        """What a decision may rest on."""
        return replace(self.authority.standing(now), withdrawn=self._are_withdrawn)

    def _are_withdrawn(self, shown: Collection[str]) -> bool:
        return self._withdrawn.any_of(shown, self.authority.revoked_credentials(), self.keys)

    # -- judging ----------------------------------------------------------------------------------

    def present(
        self,
        kind: str,
        token: bytes,
        *,
        reader: str,
        claim: str | None,
        now: Moment,
        records: Mapping[str, Any],
    ) -> Judgement:
        """Judge a badge, static token or PIN.

        A PIN counts only for the subject that `claim` names, and fails against that subject. Everything
        else that is unknown fails against the reader.
        """
        if not self._listening(reader, now, records):
            return self._paused(kind, now)
        row, subject = self._whose(kind, token, claim)
        if subject and (barred := self._barred(subject, now, records)):
            return self._failed(barred, kind, subject, reader, now, records, held_against=False)
        if row is None:
            outcome = Outcome.MISMATCH if subject else Outcome.UNKNOWN
            return self._failed(outcome, kind, subject, reader, now, records)
        if wrong := self._void(row, now):
            return self._failed(wrong, kind, subject, reader, now, records, held_against=False)
        return self._granted(kind, row.subject, row.finger, now, records, row)

    def compared(
        self, reading: FingerCompared, *, module: str, subject: str, now: Moment, records: Mapping[str, Any]
    ) -> Judgement:
        """Judge what the fingerprint module said about the slot that `subject` claims."""
        finger = (module, reading.slot)
        if not self._listening(module, now, records):
            return self._paused("slot", now)
        if barred := self._barred(subject, now, records):
            return self._failed(barred, "slot", subject, module, now, records, held_against=False)
        match reading.result:
            case CompareResult.MATCHED:
                return self._granted("slot", subject, finger, now, records)
            case CompareResult.NOT_MATCHED | CompareResult.EMPTY_SLOT:
                return self._failed(Outcome.MISMATCH, "slot", subject, module, now, records)
            case CompareResult.NO_FINGER | CompareResult.POOR_IMAGE:
                return Judgement(self.unjudged(Outcome.NO_TRY, "slot", subject, now), {})

    def pardon(self, pardon: Pardon, records: Mapping[str, Any]) -> dict[str, Any]:
        """The records of those whose wait a supervisor has ended."""
        changes: dict[str, Any] = {}
        if pardon.subject:
            tries = _tries(records, pardon.subject)
            changes[subject_key(pardon.subject)] = subject_pardoned(tries).dump()
        if pardon.reader:
            changes[_reader_key(pardon.reader)] = None
        return changes

    def reinstate(self, subject: str, records: Mapping[str, Any]) -> dict[str, Any]:
        """The records once the fleet has said that somebody may try again, however often they failed."""
        key = subject_key(subject)
        return {key: None} if key in records else {}

    def answered(
        self,
        said: CardAsserted | CardFailed,
        asked: Asked,
        *,
        reader: str,
        now: Moment,
        records: Mapping[str, Any],
    ) -> Judgement:
        """Judge what a fingerprint card said to what it was `asked`.

        Whatever is wrong is held against the reader: a forged answer says nothing about the holder whose
        credential it names.
        """
        if not self._listening(reader, now, records):
            return self._paused("fido2", now)
        if isinstance(said, CardFailed):
            return self._card_failed(said.failure, reader, now, records)
        row = self._open("fido2", said.credential_id)
        if row is None:
            return self._failed(Outcome.UNKNOWN, "fido2", None, reader, now, records)
        key = f"card/{self.keys.digest('card', said.credential_id)}"
        weighed = weigh(said, row.public_key or "", asked, Seen.load(records.get(key)))
        kept = {} if weighed.seen is None else {key: weighed.seen.dump()}
        outcome = weighed.outcome
        if outcome is Outcome.GRANTED:
            # Whether the holder of a card that has proved itself may do anything with it.
            outcome = self._barred(row.subject, now, records) or self._void(row, now) or outcome
        if outcome is not Outcome.GRANTED:
            failed = self._failed(outcome, "fido2", row.subject, reader, now, records, held_against=False)
            verdict = replace(failed.verdict, detail=weighed.detail, counters=weighed.counters)
            return Judgement(verdict, {**failed.records, **kept})
        granted = self._granted("fido2", row.subject, None, now, records, row)
        return Judgement(replace(granted.verdict, assertion=evidence(said)), {**granted.records, **kept})

    def _card_failed(
        self, failure: CardFailure, reader: str, now: Moment, records: Mapping[str, Any]
    ) -> Judgement:
        match failure:
            case CardFailure.WRONG_FINGER | CardFailure.BLOCKED:
                outcome = Outcome.MISMATCH
            case CardFailure.NO_CREDENTIAL:
                outcome = Outcome.UNKNOWN
            case _:
                # Nothing was compared.
                told = replace(self.unjudged(Outcome.NO_TRY, "fido2", None, now), detail=failure.value)
                return Judgement(told, {})
        failed = self._failed(outcome, "fido2", None, reader, now, records)
        return replace(failed, verdict=replace(failed.verdict, detail=failure.value))

    def age_s(self, now: Moment) -> float | None:
        """Seconds since the fleet was last heard of. Where it is not the authority, since the rows were
        last known to be right; None for an empty roster."""
        if (heard_at := self.authority.knowledge_at()) is not None:
            return age(heard_at, now)
        known = [as_of for as_of in map(self.rows.as_of, (BUNDLE, LOCAL)) if as_of is not None]
        return age(max(known), now) if known else None

    def _listening(self, reader: str, now: Moment, records: Mapping[str, Any]) -> bool:
        return reader_may_try(_burst(records, reader), now, self.limits)

    def _barred(self, subject: str, now: Moment, records: Mapping[str, Any]) -> Outcome | None:
        """Why nothing that this subject shows is even compared; None if it is."""
        if self.authority.is_revoked(subject, None):
            return Outcome.REVOKED
        tries = _tries(records, subject)
        if subject_may_try(tries, now, self.limits):
            return None
        return Outcome.DISABLED if tries.spent(self.limits) else Outcome.LOCKED

    def _void(self, row: Row, now: Moment) -> Outcome | None:
        """Why a credential that is known opens nothing, wherever its row came from; None if it does."""
        if row.revoked or self.authority.is_revoked(None, row.name):
            return Outcome.REVOKED
        return Outcome.EXPIRED if row.until is not None and now.utc_ns > row.until * NS else None

    def _paused(self, kind: str, now: Moment) -> Judgement:
        """Nothing is looked up, so that the answer to what is right is the answer to what is wrong."""
        return Judgement(self.unjudged(Outcome.PAUSED, kind, None, now), {})

    def _whose(self, kind: str, token: bytes, claim: str | None) -> tuple[Row | None, str | None]:
        """The row that opens, and the subject whom a failure is held against."""
        if kind != "pin":
            row = self._open(kind, token)
            return row, row.subject if row else None
        row = self._open(kind, pin_token(claim, token)) if claim else None
        return row if row and row.subject == claim else None, claim

    def _open(self, kind: str, token: bytes) -> Row | None:
        """The row that a secret opens. It has the name that the fleet would give it, whoever has added it."""
        name = b""
        for bundle, last in ((BUNDLE, self.listed_until()), (LOCAL, None)):
            value = self.rows.value(bundle, kind, token)
            if value is not None:
                name = name or value[:CREDENTIAL]
                body = self.rows.opened(bundle, value)
                if body:
                    return _row(kind, body, name, last)
        return None

    def _granted(
        self,
        kind: str,
        subject: str,
        finger: tuple[str, int] | None,
        now: Moment,
        records: Mapping[str, Any],
        row: Row | None = None,
    ) -> Judgement:
        """The credential of the row is remembered with whoever comes on duty by it."""
        verdict = Verdict(
            outcome=Outcome.GRANTED,
            kind=kind,
            subject=subject,
            level=LEVELS[kind],
            finger=finger,
            age_s=self.age_s(now),
            role=row.role if row else None,
            credentials=self._withdrawn.sealed((row.name,), self.keys) if row else (),
        )
        # A badge proves nothing, so showing it forgives nothing.
        key = subject_key(subject)
        return Judgement(verdict, {key: None} if kind != "badge" and key in records else {})

    def _failed(
        self,
        outcome: Outcome,
        kind: str,
        subject: str | None,
        reader: str,
        now: Moment,
        records: Mapping[str, Any],
        *,
        held_against: bool = True,
    ) -> Judgement:
        burst = reader_failed(_burst(records, reader), now, self.limits)
        changes = {_reader_key(reader): burst.dump()}
        if subject and held_against:
            changes[subject_key(subject)] = subject_failed(_tries(records, subject), now, self.limits).dump()
        verdict = self.unjudged(outcome, kind, subject, now)
        return Judgement(replace(verdict, reader_paused=burst.paused), changes)

    def unjudged(self, outcome: Outcome, kind: str, subject: str | None, now: Moment) -> Verdict:
        """An outcome with nothing but the age of what is known: no factor has proved anything."""
        return Verdict(outcome=outcome, kind=kind, subject=subject, age_s=self.age_s(now))


def _row(kind: str, body: Mapping[str, Any], name: bytes, last: int | None) -> Row:
    """What a body says, good until `last` at the latest."""
    finger, until = body.get("finger"), body.get("until")
    if last is not None:
        until = last if until is None else min(until, last)
    return Row(
        subject=body["subject"],
        kind=kind,
        finger=(finger[0], finger[1]) if finger else None,
        until=until,
        revoked=body.get("revoked", False),
        role=body.get("role"),
        public_key=body.get("public_key"),
        name=name,
    )


def pin_token(subject: str, pin: bytes) -> bytes:
    """A PIN is worth something only together with the subject whose badge was shown."""
    return subject.encode() + b"\0" + pin


def token_bits(token: bytes) -> int:
    """What a token can be worth at most. What only repeats itself adds nothing."""
    each = next((bits for alphabet, bits in _ALPHABETS if alphabet.issuperset(token)), 8.0)
    return int((token + token).find(token, 1) * each) if token else 0


def _reader_key(reader: str) -> str:
    return f"reader/{reader}"


def subject_key(subject: str) -> str:
    return f"subject/{subject}"


def _burst(records: Mapping[str, Any], reader: str) -> Burst:
    return Burst.load(records.get(_reader_key(reader)))


def _tries(records: Mapping[str, Any], subject: str) -> Tries:
    return Tries.load(records.get(subject_key(subject)))
