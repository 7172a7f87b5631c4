"""The courier's workflow: who is on duty, what they hold, and how it leaves their hands. Pure.

A session opens when the factors shown satisfy one of the policy's sets for `session`. In it, every parcel
scanned is accepted into the courier's custody. A control code from the printed sheet opens a handover;
what is scanned then is laid on the table, and the handover closes in one decision: with the factors of
the receiving driver, with a recipient's code or the courier's statement, or with a locker's door label.

Every decision about a parcel is one entry whose subject is the parcel. Refusals are entries too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.clock import NS, Moment, rfc3339
from agent.duty import Custody, Handover, Login, Session
from agent.workflow import (
    CodeEntered,
    ControlScanned,
    Decision,
    Draft,
    Event,
    FactorShown,
    LabelRead,
    Lane,
    Order,
    Outcome,
    Parcel,
    Verdict,
    Woken,
)
from drivers.readings import CompareFinger, Signal, Tone

FactorSets = tuple[frozenset[str], ...]

TO = ("driver", "recipient", "locker")
EXCEPTIONS = ("damaged", "refused", "absent", "wrong_address", "held")
HELD_LIMIT = 5000
"""Parcels one device keeps track of; more than any van carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the config says about custody. Durations in seconds."""

    session: FactorSets
    handover: FactorSets
    attended: bool = True
    """False for a gate or belt that nobody stands at: every scan is recorded as seen."""
    idle: float = 300.0
    longest: float = 1800.0
    login: float = 30.0
    """Time between one factor and the next."""
    window: float = 3.0
    """The same label on the same unit within this time is a duplicate."""


_Parcels = Mapping[str, Parcel]


@dataclass(frozen=True, slots=True)
class Workflow:
    """`decide` is the workflow; the rest is its shape in Python."""

    rules: Rules

    def decide(self, state: Custody, event: Event, parcels: _Parcels) -> Decision[Custody]:
        """What to remember and to do. `parcels` holds those in custody here."""
        state, expired = self._expire(state, event.at)
        decision = self._respond(state, event, parcels)
        return replace(decision, entries=expired + decision.entries)

    def _respond(self, state: Custody, event: Event, parcels: _Parcels) -> Decision[Custody]:
        match event:
            case LabelRead():
                return self._label(state, event, parcels)
            case FactorShown():
                return self._factor(state, event, parcels)
            case ControlScanned():
                return self._control(state, event, parcels)
            case CodeEntered():
                return self._code(state, event, parcels)
            case Woken(started=True) if state.login:
                return Decision(state=state, orders=self._asking(state.login))
            case Woken():
                return Decision(state=state)

    def wake_at(self, state: Custody) -> int | None:
        """When the next thing expires, on the monotonic clock of the session's boot; None if nothing will."""
        times = []
        if state.login:
            times.append(state.login.mono_ns + int(self.rules.login * NS))
        if state.session:
            times.append(self._ends(state.session)[0])
        return min(times, default=None)

    # -- time -------------------------------------------------------------------------------------

    def _expire(self, state: Custody, at: Moment) -> tuple[Custody, tuple[Draft, ...]]:
        login, session = state.login, state.session
        if login and (login.boot != at.boot or at.since(login.mono_ns) >= self.rules.login):
            state = replace(state, login=None)
        if session is None:
            return state, ()
        ends, reason = self._ends(session)
        if session.boot != at.boot:
            # Nobody knows how long the power was off: the session is over, the handover is not.
            return _closed(state, "reboot")
        return _closed(state, reason) if at.mono_ns >= ends else (state, ())

    def _ends(self, session: Session) -> tuple[int, str]:
        idle = session.active_ns + int(self.rules.idle * NS)
        longest = session.opened_ns + int(self.rules.longest * NS)
        return min((idle, "idle"), (longest, "too_long"))

    # -- labels -----------------------------------------------------------------------------------

    def _label(self, state: Custody, event: LabelRead, parcels: _Parcels) -> Decision[Custody]:
        if event.repeated_after is not None and event.repeated_after < self.rules.window:
            return _refuse(state, event, "duplicate", after_s=round(event.repeated_after, 3))
        if not self.rules.attended:
            return _accept(state, event, "custody.seen", {})
        if state.session is None:
            return _refuse(state, event, "no_session")
        driver = state.session.driver
        state = replace(state, session=replace(state.session, active_ns=event.at.mono_ns))
        if state.exception:
            noted = {"by": driver, "exception": state.exception}
            return _accept(replace(state, exception=None), event, "custody.exception_noted", noted)
        if state.handover:
            return self._offer(state, state.handover, event, parcels.get(event.label))
        return self._take(state, driver, event, parcels.get(event.label))

    def _take(
        self, state: Custody, driver: str, event: LabelRead, parcel: Parcel | None
    ) -> Decision[Custody]:
        if parcel is not None:
            reason = "already_held" if parcel.holder == driver else "held_by_other"
            return _refuse(state, event, reason, holder=parcel.holder)
        if state.held >= HELD_LIMIT:
            return _refuse(state, event, "too_many", limit=HELD_LIMIT)
        taken = Parcel(holder=driver, since=rfc3339(event.at.utc_ns))
        state = replace(state, held=state.held + 1)
        return _accept(state, event, "custody.accepted", {"by": driver}, {event.label: taken})

    def _offer(
        self, state: Custody, handover: Handover, event: LabelRead, parcel: Parcel | None
    ) -> Decision[Custody]:
        if parcel is None:
            return _refuse(state, event, "not_held")
        if parcel.offered:
            return _refuse(state, event, "already_offered")
        state = replace(state, handover=replace(handover, count=handover.count + 1))
        data = {"by": handover.driver, "to": handover.to}
        return _accept(state, event, "custody.offered", data, {event.label: replace(parcel, offered=True)})

    # -- people -----------------------------------------------------------------------------------

    def _factor(self, state: Custody, event: FactorShown, parcels: _Parcels) -> Decision[Custody]:
        verdict = event.verdict
        if not verdict.granted or verdict.subject is None:
            return self._not_granted(state, event, verdict)
        login = _shown(state.login, event, verdict.subject)
        receiving = (
            state.handover is not None
            and state.session is not None
            and state.handover.to == "driver"
            and login.subject != state.session.driver
        )
        policy = self.rules.handover if receiving else self.rules.session
        if not any(wanted <= set(login.kinds) for wanted in policy):
            return self._ask_more(state, login, event, policy)
        state = replace(state, login=None)
        if receiving:
            proof = {"kind": "driver", "ref": login.subject, "factors": list(login.kinds)}
            return self._hand_over(state, event.unit, event.at, parcels, proof)
        return self._open(state, event, login, parcels)

    def _ask_more(
        self, state: Custody, login: Login, event: FactorShown, policy: FactorSets
    ) -> Decision[Custody]:
        orders = self._asking(login) if any("slot" in wanted for wanted in policy) else ()
        shown = _identity("identity.factor_shown", event.unit, event.verdict, Lane.STATE)
        return Decision(
            state=replace(state, login=login),
            entries=(shown,),
            orders=orders or (Order(event.unit, Signal(tone=Tone.ASK)),),
        )

    def _asking(self, login: Login) -> tuple[Order, ...]:
        """Ask for the rest: a tone where the last factor was shown, and the finger where one is known."""
        tone = Order(login.unit, Signal(tone=Tone.ASK))
        if login.finger is None or "slot" in login.kinds:
            return (tone,)
        module, slot = login.finger
        return tone, Order(module, CompareFinger(slot=slot, within=self.rules.login))

    def _not_granted(self, state: Custody, event: FactorShown, verdict: Verdict) -> Decision[Custody]:
        if verdict.outcome is Outcome.NO_TRY and state.login is None:
            return Decision(state=state)
        return Decision(
            state=state,
            entries=(_identity("identity.refused", event.unit, verdict, Lane.CUSTODY),),
            orders=(Order(event.unit, Signal(tone=Tone.BAD)),),
        )

    def _open(self, state: Custody, event: FactorShown, login: Login, parcels: _Parcels) -> Decision[Custody]:
        entries: tuple[Draft, ...] = ()
        records: dict[str, Parcel | None] = {}
        if state.session and state.session.driver != login.subject:
            state, entries = _closed(state, "superseded")
        if state.handover and state.handover.driver != login.subject:
            state, abandoned, records = _abandon(state, parcels, "superseded")
            entries += abandoned
        at = event.at
        session = Session(
            driver=login.subject,
            kinds=login.kinds,
            boot=at.boot,
            opened_ns=at.mono_ns,
            active_ns=at.mono_ns,
        )
        data = {
            "unit": event.unit,
            "factors": list(login.kinds),
            "level": event.verdict.level,
            "knowledge_age_s": event.verdict.age_s,
            "resumed": state.handover is not None,
            "held": state.held,
        }
        return Decision(
            state=replace(state, session=session),
            entries=(*entries, Draft("custody.session_opened", login.subject, data)),
            records=records,
            orders=(Order(event.unit, Signal(tone=Tone.GOOD)),),
        )

    # -- the control sheet ------------------------------------------------------------------------

    def _control(self, state: Custody, event: ControlScanned, parcels: _Parcels) -> Decision[Custody]:
        if state.session is None:
            return _refuse_control(state, event, "no_session")
        driver = state.session.driver
        state = replace(state, session=replace(state.session, active_ns=event.at.mono_ns))
        match event.words:
            case ("handover", to) if to in TO and state.handover is None:
                data = {"unit": event.unit, "to": to}
                state = replace(state, handover=Handover(driver=driver, to=to))
                return _done(state, event, Draft("custody.handover_opened", driver, data))
            case ("done",) if state.handover and state.handover.to == "recipient":
                proof = {"kind": "recipient", "evidence": "statement", "by": driver}
                return self._hand_over(state, event.unit, event.at, parcels, proof)
            case ("locker", locker, door) if state.handover and state.handover.to == "locker":
                proof = {"kind": "locker", "ref": locker, "door": door}
                return self._hand_over(state, event.unit, event.at, parcels, proof)
            case ("cancel",) if state.handover or state.exception:
                state, entries, records = _abandon(replace(state, exception=None), parcels, "cancelled")
                return _done(state, event, *entries, records=records)
            case ("exception", reason) if reason in EXCEPTIONS:
                data = {"unit": event.unit, "exception": reason}
                return _done(
                    replace(state, exception=reason),
                    event,
                    Draft("custody.exception_opened", driver, data, Lane.STATE),
                )
            case ("end",):
                state, entries = _closed(state, "ended")
                return _done(state, event, *entries)
            case _:
                return _refuse_control(state, event, "not_now")

    def _code(self, state: Custody, event: CodeEntered, parcels: _Parcels) -> Decision[Custody]:
        if state.session is None or state.handover is None or state.handover.to != "recipient":
            draft = Draft("custody.code_refused", event.unit, {"reason": "not_expected"}, Lane.STATE)
            return Decision(state=state, entries=(draft,), orders=(Order(event.unit, Signal(tone=Tone.BAD)),))
        proof = {"kind": "recipient", "evidence": "code", "code_digest": event.digest}
        return self._hand_over(state, event.unit, event.at, parcels, proof)

    def _hand_over(
        self, state: Custody, unit: str, at: Moment, parcels: _Parcels, to: Mapping[str, Any]
    ) -> Decision[Custody]:
        assert state.handover is not None
        driver = state.handover.driver
        leaving = sorted(label for label, parcel in parcels.items() if parcel.offered)
        if not leaving:
            draft = Draft("custody.handover_refused", driver, {"unit": unit, "reason": "nothing_offered"})
            return Decision(state=state, entries=(draft,), orders=(Order(unit, Signal(tone=Tone.BAD)),))
        entries = [
            Draft("custody.handed_over", label, {"unit": unit, "from": driver, "to": to, "of": len(leaving)})
            for label in leaving
        ]
        closed = Draft("custody.handover_closed", driver, {"unit": unit, "to": to, "count": len(leaving)})
        session = state.session and replace(state.session, active_ns=at.mono_ns)
        return Decision(
            state=replace(state, handover=None, session=session, held=state.held - len(leaving)),
            entries=(*entries, closed),
            records=dict.fromkeys(leaving),
            orders=(Order(unit, Signal(tone=Tone.GOOD)),),
        )


def _accept(
    state: Custody,
    event: LabelRead,
    type_: str,
    data: Mapping[str, Any],
    records: Mapping[str, Parcel | None] | None = None,
) -> Decision[Custody]:
    draft = Draft(type_, event.label, {"unit": event.unit, **data, "scan": event.evidence})
    tone = Order(event.unit, Signal(tone=Tone.GOOD))
    return Decision(state=state, entries=(draft,), records=records or {}, orders=(tone,))


def _refuse(state: Custody, event: LabelRead, reason: str, **why: Any) -> Decision[Custody]:
    data = {"unit": event.unit, "reason": reason, **why, "scan": event.evidence}
    draft = Draft("custody.refused", event.label, data)
    return Decision(state=state, entries=(draft,), orders=(Order(event.unit, Signal(tone=Tone.BAD)),))


def _shown(login: Login | None, event: FactorShown, subject: str) -> Login:
    """The login with one more factor; another subject's begins anew."""
    before = login if login and login.subject == subject else None
    return Login(
        subject=subject,
        kinds=(*(before.kinds if before else ()), event.verdict.kind),
        unit=event.unit,
        finger=event.verdict.finger or (before.finger if before else None),
        boot=event.at.boot,
        mono_ns=event.at.mono_ns,
    )


def _done(
    state: Custody,
    event: ControlScanned,
    *entries: Draft,
    records: Mapping[str, Parcel | None] | None = None,
) -> Decision[Custody]:
    tone = Order(event.unit, Signal(tone=Tone.GOOD))
    return Decision(state=state, entries=entries, records=records or {}, orders=(tone,))


def _refuse_control(state: Custody, event: ControlScanned, reason: str) -> Decision[Custody]:
    data = {"unit": event.unit, "control": ":".join(event.words)[:64], "reason": reason}
    draft = Draft("custody.control_refused", event.unit, data, Lane.STATE)
    return Decision(state=state, entries=(draft,), orders=(Order(event.unit, Signal(tone=Tone.BAD)),))


def _closed(state: Custody, reason: str) -> tuple[Custody, tuple[Draft, ...]]:
    if state.session is None:
        return state, ()
    data = {"reason": reason, "held": state.held, "handover_open": state.handover is not None}
    draft = Draft("custody.session_closed", state.session.driver, data)
    return replace(state, session=None, login=None, exception=None), (draft,)


def _abandon(
    state: Custody, parcels: _Parcels, reason: str
) -> tuple[Custody, tuple[Draft, ...], dict[str, Parcel | None]]:
    """Take everything off the table again."""
    if state.handover is None:
        return state, (), {}
    back: dict[str, Parcel | None] = {
        label: replace(parcel, offered=False) for label, parcel in parcels.items() if parcel.offered
    }
    data = {"to": state.handover.to, "reason": reason, "count": len(back)}
    draft = Draft("custody.handover_abandoned", state.handover.driver, data)
    return replace(state, handover=None), (draft,), back


def _identity(type_: str, unit: str, verdict: Verdict, lane: Lane) -> Draft:
    data = {
        "unit": unit,
        "kind": verdict.kind,
        "outcome": verdict.outcome,
        "subject_ref": verdict.subject,
        "knowledge_age_s": verdict.age_s,
    }
    return Draft(type_, verdict.subject or unit, data, lane)
