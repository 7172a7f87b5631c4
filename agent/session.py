"""Who is on duty: from factors to a login, from a login to a session, and how both end. Pure.

Workflows share this room. Each says what a person is proving themselves for, and what that asks of them;
what follows once they have proved it, and what the end of a session means, is the workflow's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from agent.clock import NS, Moment
from agent.freshness import Freshness
from agent.policy import Policy
from agent.stake import Asked
from agent.standing import Standing
from agent.workflow import Decision, Dismissed, Draft, FactorShown, Lane, Order, Outcome, Verdict, sound
from drivers.readings import CompareFinger, Tone

GRAIN = 0.1
"""Part of the idle time to which activity is noted, so that the state is not written anew with every scan."""
ANSWER_WITHIN = 0.9
"""Part of the login's time that the finger has: its absence shall be told before the login lapses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody is to prove themselves for, and what that asks of them now."""

    action: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Somebody has shown all that an action asks of one person."""

    subject: str
    kinds: tuple[str, ...]
    level: int
    role: str | None = None
    credentials: tuple[str, ...] = ()
    """Sealed names of what they have shown."""
    second: Self | None = None
    """Who stood by, where the action asks for two."""

    def told(self) -> dict[str, Any]:
        """The second person, as entries name them; nothing where there was none."""
        second = self.second
        return {"second_person": {"ref": second.subject, "factors": list(second.kinds)}} if second else {}

    def dump(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "kinds": list(self.kinds),
            "level": self.level,
            "role": self.role,
            "credentials": list(self.credentials),
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, **_tuples(record)})


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
    role: str | None = None
    action: str = "session"
    credentials: tuple[str, ...] = ()
    """Sealed names of what was shown so far."""
    first: Proven | None = None
    """Who has proved themselves for `action` already, where it asks for two."""

    @classmethod
    def after(
        cls, before: Self | None, verdict: Verdict, subject: str, unit: str, at: Moment, action: str
    ) -> Self:
        """The login with one more factor; another subject's begins anew."""
        first = before.first if before else None
        if before is not None and before.subject != subject:
            before = None
        kinds = before.kinds if before else ()
        credentials = before.credentials if before else ()
        return cls(
            subject=subject,
            kinds=kinds if verdict.kind in kinds else (*kinds, verdict.kind),
            level=max(verdict.level, before.level if before else 0),
            unit=unit,
            finger=verdict.finger or (before.finger if before else None),
            boot=at.boot,
            mono_ns=at.mono_ns,
            role=verdict.role or (before.role if before else None),
            action=action,
            credentials=(*credentials, *(each for each in verdict.credentials if each not in credentials)),
            first=first,
        )

    @property
    def proven(self) -> Proven:
        return Proven(
            subject=self.subject,
            kinds=self.kinds,
            level=self.level,
            role=self.role,
            credentials=self.credentials,
        )

    @property
    def people(self) -> tuple[str, ...]:
        """Who it is that proves themselves: one, or with the first of two another."""
        return (self.subject, self.first.subject) if self.first else (self.subject,)

    @property
    def shown(self) -> tuple[str, ...]:
        """Sealed names of what they have shown, both of them."""
        return (*self.credentials, *self.first.credentials) if self.first else self.credentials

    @property
    def waits(self) -> bool:
        """Whether this person has done their part, and somebody else is to come."""
        return self.first is not None and self.first.subject == self.subject

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
            "role": self.role,
            "action": self.action,
            "credentials": list(self.credentials),
            "first": self.first and self.first.dump(),
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        finger = record["finger"] and (record["finger"][0], record["finger"][1])
        first = record.get("first") and Proven.load(record["first"])
        return cls(**{**record, **_tuples(record), "finger": finger, "first": first})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A driver on duty at this device."""

    driver: str
    kinds: tuple[str, ...]
    boot: str
    opened_ns: int
    active_ns: int
    """When there was last something to do, to a tenth of the idle time."""
    role: str | None = None
    credentials: tuple[str, ...] = ()
    """Sealed names of what the driver has shown."""
    second: Proven | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """The same, and of who stood by."""
        return (*self.credentials, *self.second.credentials) if self.second else self.credentials

    @property
    def people(self) -> tuple[str, ...]:
        """The driver, and who stood by."""
        return (self.driver, self.second.subject) if self.second else (self.driver,)

    def meets(self, policy: Policy) -> bool:
        """Whether who is on duty has shown all that this asks for, and who stood by where it asks for two."""
        second = self.second
        beside = second is not None and policy.met_by(second.kinds)
        return policy.met_by(self.kinds) and (beside or not policy.second_person)

    @classmethod
    def opened(cls, proven: Proven, at: Moment) -> Self:
        """The session of somebody who has proved who they are."""
        return cls(
            driver=proven.subject,
            kinds=proven.kinds,
            boot=at.boot,
            opened_ns=at.mono_ns,
            active_ns=at.mono_ns,
            role=proven.role,
            credentials=proven.credentials,
            second=proven.second,
        )

    def dump(self) -> dict[str, Any]:
        return {
            "driver": self.driver,
            "kinds": list(self.kinds),
            "boot": self.boot,
            "opened_ns": self.opened_ns,
            "active_ns": self.active_ns,
            "role": self.role,
            "credentials": list(self.credentials),
            "second": self.second and self.second.dump(),
        }

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Self:
        second = record.get("second") and Proven.load(record["second"])
        return cls(**{**record, **_tuples(record), "second": second})


def _tuples(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What JSON has as lists. A record from before credentials were remembered has none."""
    return {"kinds": tuple(record["kinds"]), "credentials": tuple(record.get("credentials", ()))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocking:
    """A supervisor waits for the badge of somebody who is locked out."""

    boot: str
    mono_ns: int

    def dump(self) -> dict[str, Any]:
        return {"boot": self.boot, "mono_ns": self.mono_ns}


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Who has begun to prove who they are, and who has: the part of a state that all workflows share."""

    login: Login | None = None
    session: Session | None = None
    unlocking: Unlocking | None = None
    asked: Asked | None = None
    """What a fingerprint card was asked last, until it has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long logins and sessions last, in seconds."""

    idle: float = 300.0
    """A session ends this long after its last activity, or up to a tenth sooner."""
    longest: float = 1800.0
    login: float = 30.0
    """Time between one factor and the next."""


S = TypeVar("S", bound=Duty)


# -- time -----------------------------------------------------------------------------------------


def lapse(state: S, at: Moment, times: Times, standing: Standing) -> tuple[S, tuple[Draft, ...]]:
    """Drop what nobody completed in time, or whose boot is over, and the login of who is revoked."""
    entries: tuple[Draft, ...] = ()
    login, unlocking = state.login, state.unlocking
    if login is not None:
        revoked = standing.revokes(*login.people) or standing.withdrawn(login.shown)
        if revoked or _is_over(login.boot, login.mono_ns, at, times):
            why = {"reason": "revoked"} if revoked else {}
            data = {"unit": login.unit, "factors": list(login.kinds), **why}
            entries = (Draft("identity.login_lapsed", login.subject, data, Lane.STATE),)
            state = replace(state, login=None)
    if unlocking is not None and _is_over(unlocking.boot, unlocking.mono_ns, at, times):
        by = state.session.driver if state.session else ""
        entries += (Draft("identity.unlock_lapsed", by, {}, Lane.STATE),)
        state = replace(state, unlocking=None)
    return state, entries


def _is_over(boot: str, mono_ns: int, at: Moment, times: Times) -> bool:
    return boot != at.boot or at.since(mono_ns) >= times.login


def over(session: Session, at: Moment, times: Times) -> str | None:
    """Why the session has ended by now; None if it has not."""
    if session.boot != at.boot:
        return "reboot"  # Nobody knows how long the power was off.
    ends_ns, reason = _ends(session, times)
    return reason if at.mono_ns >= ends_ns else None


def dismiss(state: S, event: Dismissed) -> tuple[S, tuple[Draft, ...]]:
    """Drop the login of who may not be on duty any longer; what becomes of the session is the workflow's."""
    login = state.login
    if login is None or not any(map(event.concerns, login.people)):
        return state, ()
    data = {"unit": login.unit, "factors": list(login.kinds), "reason": event.reason}
    return replace(state, login=None), (Draft("identity.login_lapsed", login.subject, data, Lane.STATE),)


def unfit(session: Session, policy: Policy, standing: Standing) -> str | None:
    """Why a session that would last longer has to end; None if it may go on.

    What the fleet has said counts at once. As its word ages, a session that could not be opened any more
    does not go on either.
    """
    if standing.revokes(*session.people) or standing.withdrawn(session.shown):
        return "revoked"
    if standing.freshness in (None, Freshness.FRESH):
        return None
    return None if session.meets(policy) else "outdated"


def at_work(session: Session, at: Moment, times: Times) -> Session:
    """Put the end of the session off."""
    if at.since(session.active_ns) < times.idle * GRAIN:
        return session
    return replace(session, active_ns=at.mono_ns)


def wake_at(duty: Duty, times: Times) -> int | None:
    """When the next of these expires, on the monotonic clock of the session's boot; None if none will."""
    due = []
    if duty.login:
        due.append(duty.login.mono_ns + int(times.login * NS))
    if duty.unlocking:
        due.append(duty.unlocking.mono_ns + int(times.login * NS))
    if duty.session:
        due.append(_ends(duty.session, times)[0])
    return min(due, default=None)


def _ends(session: Session, times: Times) -> tuple[int, str]:
    idle = session.active_ns + int(times.idle * NS)
    longest = session.opened_ns + int(times.longest * NS)
    return (idle, "idle") if idle < longest else (longest, "too_long")


# -- people ---------------------------------------------------------------------------------------


def show(state: S, event: FactorShown, wanted: Wanted, times: Times) -> Decision[S] | Proven:
    """Add a factor to the login. Once all that the action asks for is there, who has proved themselves."""
    policy = wanted.policy
    verdict = _heard(state.login, event.verdict, policy)
    if not verdict.granted or verdict.subject is None:
        return Decision(
            state=state,
            entries=(told("identity.refused", event.unit, verdict, Lane.CUSTODY),),
            orders=(sound(event.unit, Tone.BAD), *_once_more(state.login, event, times)),
        )
    before = _still(state.login, wanted)
    login = Login.after(before, verdict, verdict.subject, event.unit, event.at, wanted.action)
    entry = told("identity.factor_shown", event.unit, verdict, Lane.STATE)
    if policy.met_by(login.kinds) and not login.waits:
        if not policy.second_person:
            return login.proven
        if login.first is not None:
            return replace(login.first, second=login.proven)
        login = replace(login, first=login.proven)
        data = {"unit": event.unit, "action": wanted.action, "factors": list(login.kinds)}
        entry = Draft("identity.second_person_awaited", login.subject, data, Lane.STATE)
    return Decision(
        state=replace(state, login=login),
        entries=(entry,),
        orders=asking(login, policy, event.at, times),
    )


def asking(login: Login, policy: Policy, at: Moment, times: Times) -> tuple[Order, ...]:
    """Ask for the rest: a tone where the last factor was shown, and the finger where one would do."""
    tone = sound(login.unit, Tone.ASK)
    wanted = not login.waits and any("slot" in factors for factors in policy.sets)
    if login.finger is None or "slot" in login.kinds or not wanted:
        return (tone,)
    return tone, _compare(login.finger, login, at, times)


def _heard(login: Login | None, verdict: Verdict, policy: Policy) -> Verdict:
    """The roster knows who it is; whether that helps here and now is another question."""
    if not verdict.granted:
        return verdict
    if not policy.sets:
        return replace(verdict, outcome=Outcome.OUTDATED)
    if verdict.kind == "slot" and not (login and login.awaits(verdict)):
        return replace(verdict, outcome=Outcome.UNASKED)
    return verdict


def _still(login: Login | None, wanted: Wanted) -> Login | None:
    """The login so far, without a first person who proved themselves for something else or less."""
    if login is None or login.first is None:
        return login
    policy = wanted.policy
    counts = policy.second_person and policy.met_by(login.first.kinds) and login.action == wanted.action
    return login if counts else replace(login, first=None)


def _once_more(login: Login | None, event: FactorShown, times: Times) -> tuple[Order, ...]:
    """A wrong finger may be followed by the right one, while the login lasts.

    A right one that a lock refuses is asked for again as well, or the module would show who is locked.
    """
    verdict = event.verdict
    if verdict.kind != "slot" or verdict.outcome in (Outcome.NO_TRY, Outcome.UNASKED):
        return ()
    if login is None or login.finger is None or login.finger[0] != event.unit:
        return ()
    if verdict.subject not in (login.subject, None):
        return ()
    return (_compare(login.finger, login, event.at, times),)


def _compare(finger: tuple[str, int], login: Login, at: Moment, times: Times) -> Order:
    left = times.login - at.since(login.mono_ns)
    return Order(finger[0], CompareFinger(slot=finger[1], within=left * ANSWER_WITHIN))


def told(type_: str, unit: str, verdict: Verdict, lane: Lane) -> Draft:
    """What the roster made of a factor, for the journal."""
    data = {
        "unit": unit,
        "kind": verdict.kind,
        "outcome": verdict.outcome,
        "subject_ref": verdict.subject,
        "knowledge_age_s": verdict.age_s,
    }
    if verdict.reader_paused:
        data["reader_paused"] = True
    if verdict.detail:
        data["detail"] = verdict.detail
    return Draft(type_, verdict.subject or unit, data, lane)
