"""Who is on duty: from factors to a login, from a login to a session, and how both end. Pure.

Workflows share this room. Each says what a person is proving themselves for, and which sets of factors
that needs; what follows once they have proved it, and what the end of a session means, is the workflow's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from agent.clock import NS, Moment
from agent.workflow import Decision, Dismissed, Draft, FactorShown, Lane, Order, Outcome, Verdict, sound
from drivers.readings import CompareFinger, Tone

FactorSets = tuple[frozenset[str], ...]
"""Each set is enough."""

GRAIN = 0.1
"""Part of the idle time to which activity is noted, so that the state is not written anew with every scan."""
ANSWER_WITHIN = 0.9
"""Part of the login's time that the finger has: its absence shall be told before the login lapses."""


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

    @classmethod
    def opened(cls, login: Login, at: Moment) -> Self:
        """The session of somebody who has proved who they are."""
        return cls(
            driver=login.subject,
            kinds=login.kinds,
            boot=at.boot,
            opened_ns=at.mono_ns,
            active_ns=at.mono_ns,
        )

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
class Duty:
    """Who has begun to prove who they are, and who has: the part of a state that all workflows share."""

    login: Login | None = None
    session: Session | None = None


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


def lapse(state: S, at: Moment, times: Times) -> tuple[S, tuple[Draft, ...]]:
    """Drop the login that nobody completed in time, or whose boot is over."""
    login = state.login
    if login is None or (login.boot == at.boot and at.since(login.mono_ns) < times.login):
        return state, ()
    data = {"unit": login.unit, "factors": list(login.kinds)}
    return replace(state, login=None), (Draft("identity.login_lapsed", login.subject, data, Lane.STATE),)


def over(session: Session, at: Moment, times: Times) -> str | None:
    """Why the session has ended by now; None if it has not."""
    if session.boot != at.boot:
        return "reboot"  # Nobody knows how long the power was off.
    ends_ns, reason = _ends(session, times)
    return reason if at.mono_ns >= ends_ns else None


def dismiss(state: S, event: Dismissed) -> tuple[S, tuple[Draft, ...]]:
    """Drop the login of who may not be on duty any longer; what becomes of the session is the workflow's."""
    login = state.login
    if login is None or not event.concerns(login.subject):
        return state, ()
    data = {"unit": login.unit, "factors": list(login.kinds), "reason": event.reason}
    return replace(state, login=None), (Draft("identity.login_lapsed", login.subject, data, Lane.STATE),)


def at_work(session: Session, at: Moment, times: Times) -> Session:
    """Put the end of the session off."""
    if at.since(session.active_ns) < times.idle * GRAIN:
        return session
    return replace(session, active_ns=at.mono_ns)


def wake_at(duty: Duty, times: Times) -> int | None:
    """When the next of both expires, on the monotonic clock of the session's boot; None if neither will."""
    due = []
    if duty.login:
        due.append(duty.login.mono_ns + int(times.login * NS))
    if duty.session:
        due.append(_ends(duty.session, times)[0])
    return min(due, default=None)


def _ends(session: Session, times: Times) -> tuple[int, str]:
    idle = session.active_ns + int(times.idle * NS)
    longest = session.opened_ns + int(times.longest * NS)
    return (idle, "idle") if idle < longest else (longest, "too_long")


# -- people ---------------------------------------------------------------------------------------


def show(state: S, event: FactorShown, sets: FactorSets, times: Times) -> Decision[S] | Login:
    """Add a factor to the login. The login itself comes back once it has all that one of `sets` asks for."""
    verdict = event.verdict
    if verdict.granted and verdict.kind == "slot" and not (state.login and state.login.awaits(verdict)):
        verdict = replace(verdict, outcome=Outcome.UNASKED)
    if not verdict.granted or verdict.subject is None:
        return Decision(
            state=state,
            entries=(_entry("identity.refused", event.unit, verdict, Lane.CUSTODY),),
            orders=(sound(event.unit, Tone.BAD), *_once_more(state.login, event, times)),
        )
    login = Login.after(state.login, verdict, verdict.subject, event.unit, event.at)
    if any(wanted <= set(login.kinds) for wanted in sets):
        return login
    return Decision(
        state=replace(state, login=login),
        entries=(_entry("identity.factor_shown", event.unit, verdict, Lane.STATE),),
        orders=asking(login, sets, event.at, times),
    )


def asking(login: Login, sets: FactorSets, at: Moment, times: Times) -> tuple[Order, ...]:
    """Ask for the rest: a tone where the last factor was shown, and the finger where one would do."""
    tone = sound(login.unit, Tone.ASK)
    wanted = any("slot" in factors for factors in sets)
    if login.finger is None or "slot" in login.kinds or not wanted:
        return (tone,)
    return tone, _compare(login.finger, login, at, times)


def _once_more(login: Login | None, event: FactorShown, times: Times) -> tuple[Order, ...]:
    """A wrong finger may be followed by the right one, while the login lasts and no lock says no."""
    verdict = event.verdict
    if verdict.outcome is not Outcome.MISMATCH or verdict.kind != "slot":
        return ()
    if login is None or login.finger is None or verdict.subject != login.subject:
        return ()
    return (_compare(login.finger, login, event.at, times),)


def _compare(finger: tuple[str, int], login: Login, at: Moment, times: Times) -> Order:
    module, slot = finger
    left = times.login - at.since(login.mono_ns)
    return Order(module, CompareFinger(slot=slot, within=left * ANSWER_WITHIN))


def _entry(type_: str, unit: str, verdict: Verdict, lane: Lane) -> Draft:
    data = {
        "unit": unit,
        "kind": verdict.kind,
        "outcome": verdict.outcome,
        "subject_ref": verdict.subject,
        "knowledge_age_s": verdict.age_s,
    }
    if verdict.reader_paused:
        data["reader_paused"] = True
    return Draft(type_, verdict.subject or unit, data, lane)
