"""The courier's workflow: who is on duty, what they hold, and how it leaves their hands. Pure.

A session opens when the factors shown satisfy one of the policy's sets for `session`. In it, every parcel
scanned is accepted into the courier's custody. A control code from the printed sheet opens a handover;
what is scanned then is laid on the table, and the handover closes in one decision: with the factors of
the receiving driver, with a recipient's code or the courier's statement, or with a locker's door label.

Every decision about a parcel is one entry whose subject is the parcel. Refusals are entries too. While what
the fleet has told is not fresh, every entry says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent import supervision, taking_back
from agent.asserting import answered, ask
from agent.clock import Moment, rfc3339
from agent.correction import LATELY, Lately
from agent.duty import HELD_LIMIT, Custody, Handover
from agent.freshness import Freshness
from agent.policy import Policy
from agent.reply import accept, done, refuse, refuse_control
from agent.session import (
    Proven,
    Session,
    Times,
    Wanted,
    asking,
    at_work,
    dismiss,
    lapse,
    over,
    show,
    unfit,
    wake_at,
)
from agent.standing import ALONE, Standing
from agent.table import abandon, hand_over, stake
from agent.workflow import (
    CardShown,
    CodeEntered,
    ControlScanned,
    Decision,
    Dismissed,
    Draft,
    Event,
    FactorShown,
    LabelRead,
    Lane,
    Parcel,
    Verdict,
    Woken,
    sound,
)
from drivers.readings import Tone

TO = ("driver", "recipient", "locker")
EXCEPTIONS = ("damaged", "refused", "absent", "wrong_address", "held")

_PLACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
"""A locker's or door's name on a control code; what is longer or otherwise would fill every entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Times):
    """What the config says about custody. Durations in seconds."""

    session: Policy
    handover: Policy
    attended: bool = True
    """False for a gate or belt that nobody stands at: every scan is recorded as seen."""
    window: float = 3.0
    """The same label on the same unit within this time is a duplicate."""
    source: str = "/postern/nobody/nothing"
    """CloudEvents source of this device: a fingerprint card signs for it alone."""


_Parcels = Mapping[str, Parcel]
_NOTHING: Mapping[str, Lately] = {}


@dataclass(frozen=True, slots=True)
class Workflow:
    """`decide` is the workflow; the rest is its shape in Python."""

    rules: Rules

    def decide(
        self,
        state: Custody,
        event: Event,
        parcels: _Parcels,
        standing: Standing = ALONE,
        lately: Mapping[str, Lately] = _NOTHING,
    ) -> Decision[Custody]:
        """What to remember and to do. `parcels` are in custody here, `lately` has what may be taken back."""
        state, expired = self._expire(state, event.at, standing)
        match event:
            case LabelRead(label=label) if state.session and state.correcting:
                state = self._at_work(state, state.session, event.at)
                decision = taking_back.correct(state, event, parcels.get(label), lately.get(label))
            case Dismissed():
                decision = _dismiss(state, event, parcels, lately)
            case _:
                decision = self._respond(state, event, parcels, standing)
        entries = expired + decision.entries
        if standing.freshness not in (None, Freshness.FRESH):
            flag = {"freshness": standing.freshness}
            entries = tuple(replace(entry, data={**entry.data, **flag}) for entry in entries)
        return replace(decision, entries=entries)

    def _respond(
        self, state: Custody, event: Event, parcels: _Parcels, standing: Standing
    ) -> Decision[Custody]:
        match event:
            case LabelRead():
                return self._label(state, event, parcels, standing)
            case CardShown():
                return ask(
                    state, event, stake(_next_for(state), parcels), self.rules.source, self.rules.login
                )
            case FactorShown(verdict=Verdict(kind="fido2", subject=subject)):
                state, event, told = answered(state, event, stake(_for(state, subject), parcels))
                decision = self._factor(state, event, parcels, standing)
                return replace(decision, entries=told + decision.entries)
            case FactorShown():
                return self._factor(state, event, parcels, standing)
            case ControlScanned():
                return self._control(state, event, parcels)
            case CodeEntered():
                return self._code(state, event, parcels)
            case Woken(started=True) if state.login:
                wanted = self._wanted(_for(state, state.login.subject), standing)
                return Decision(state=state, orders=asking(state.login, wanted.policy, event.at, self.rules))
        # Woken: what had expired has been seen to.
        return Decision(state=state)

    def wake_at(self, state: Custody) -> int | None:
        """When the next thing expires, on the monotonic clock of the session's boot; None if nothing will."""
        due_ns = wake_at(state, self.rules)
        if state.correcting is None:
            return due_ns
        lapses_ns = state.correcting.due_ns(self.rules.login)
        return lapses_ns if due_ns is None else min(due_ns, lapses_ns)

    def _expire(self, state: Custody, at: Moment, standing: Standing) -> tuple[Custody, tuple[Draft, ...]]:
        state, entries = lapse(state, at, self.rules, standing)
        state, lapsed = taking_back.lapse(state, at, self.rules.login)
        entries += lapsed
        if state.session is None:
            return state, entries
        policy = self.rules.session.at(standing.freshness)
        reason = over(state.session, at, self.rules) or unfit(state.session, policy, standing)
        if reason is None:
            return state, entries
        # The session is over, the handover is not.
        state, closed = _closed(state, state.session, reason)
        return state, (*entries, closed)

    def _at_work(self, state: Custody, session: Session, at: Moment) -> Custody:
        return replace(state, session=at_work(session, at, self.rules))

    # -- labels -----------------------------------------------------------------------------------

    def _label(
        self, state: Custody, event: LabelRead, parcels: _Parcels, standing: Standing
    ) -> Decision[Custody]:
        if event.full:
            return refuse(state, event, "journal_full")
        if event.repeated_after is not None and event.repeated_after < self.rules.window:
            return refuse(state, event, "duplicate", after_s=round(event.repeated_after, 3))
        if not self.rules.attended:
            return accept(state, event, "custody.seen", {})
        if state.session is None:
            return refuse(state, event, "no_session")
        driver = state.session.driver
        state = self._at_work(state, state.session, event.at)
        if state.exception:
            noted = {"by": driver, "exception": state.exception}
            return accept(replace(state, exception=None), event, "custody.exception_noted", noted)
        if state.handover:
            return self._offer(state, state.handover, event, parcels.get(event.label))
        return self._take(state, driver, event, parcels.get(event.label), standing)

    def _take(
        self, state: Custody, driver: str, event: LabelRead, parcel: Parcel | None, standing: Standing
    ) -> Decision[Custody]:
        if parcel is not None:
            reason = "already_held" if parcel.holder == driver else "held_by_other"
            return refuse(state, event, reason, holder=parcel.holder)
        if state.held >= HELD_LIMIT:
            return refuse(state, event, "too_many", limit=HELD_LIMIT)
        if standing.freshness is Freshness.STALE and not standing.expects(event.label):
            return refuse(state, event, "not_in_manifest")
        taken = Parcel(holder=driver, since=rfc3339(event.at.utc_ns))
        state = replace(state, held=state.held + 1)
        return accept(state, event, "custody.accepted", {"by": driver}, {event.label: taken})

    def _offer(
        self, state: Custody, handover: Handover, event: LabelRead, parcel: Parcel | None
    ) -> Decision[Custody]:
        if parcel is None:
            return refuse(state, event, "not_held")
        if parcel.holder != handover.driver:
            return refuse(state, event, "held_by_other", holder=parcel.holder)
        if parcel.offered:
            return refuse(state, event, "already_offered")
        data = {"by": handover.driver, "to": handover.to}
        return accept(state, event, "custody.offered", data, {event.label: replace(parcel, offered=True)})

    # -- people -----------------------------------------------------------------------------------

    def _factor(
        self, state: Custody, event: FactorShown, parcels: _Parcels, standing: Standing
    ) -> Decision[Custody]:
        if state.session and state.unlocking:
            return supervision.unlock(state, state.session, event)
        handover = _for(state, event.verdict.subject)
        answer = show(state, event, self._wanted(handover, standing), self.rules)
        if isinstance(answer, Decision):
            return answer
        state = replace(state, login=None)
        if handover is None:
            return self._open(state, event, answer, parcels)
        proof = {"kind": "driver", "ref": answer.subject, "factors": list(answer.kinds), **answer.told()}
        return hand_over(state, handover, event, parcels, proof)

    def _wanted(self, receiving: Handover | None, standing: Standing) -> Wanted:
        """What somebody proves themselves for, and what that asks of them now."""
        action, policy = ("handover", self.rules.handover) if receiving else ("session", self.rules.session)
        return Wanted(action=action, policy=policy.at(standing.freshness))

    def _open(
        self, state: Custody, event: FactorShown, proven: Proven, parcels: _Parcels
    ) -> Decision[Custody]:
        entries: tuple[Draft, ...] = ()
        records: dict[str, Parcel | None] = {}
        if state.session and state.session.driver != proven.subject:
            state, closed = _closed(state, state.session, "superseded")
            entries = (closed,)
        if state.handover and state.handover.driver != proven.subject:
            state, abandoned, records = abandon(state, parcels, "superseded")
            entries += abandoned
        data = {
            "unit": event.unit,
            "factors": list(proven.kinds),
            "level": proven.level,
            "knowledge_age_s": event.verdict.age_s,
            "renewed": state.session is not None,
            "resumed": state.handover is not None,
            "held": state.held,
            **proven.told(),
        }
        return Decision(
            state=replace(state, session=Session.opened(proven, event.at)),
            entries=(*entries, Draft("custody.session_opened", proven.subject, data)),
            records=records,
            orders=(sound(event.unit, Tone.GOOD),),
        )

    # -- the control sheet ------------------------------------------------------------------------

    def _control(self, state: Custody, event: ControlScanned, parcels: _Parcels) -> Decision[Custody]:
        session, handover = state.session, state.handover
        if session is None:
            return refuse_control(state, event, "no_session")
        driver = session.driver
        state = self._at_work(state, session, event.at)
        match event.words:
            case ("handover", to) if to in TO and handover is None:
                data = {"unit": event.unit, "to": to}
                state = replace(state, handover=Handover(driver=driver, to=to))
                return done(state, event, Draft("custody.handover_opened", driver, data))
            case ("done",) if handover and handover.to == "recipient":
                proof = {"kind": "recipient", "evidence": "statement", "by": driver}
                return hand_over(state, handover, event, parcels, proof)
            case ("locker", locker, door) if handover and handover.to == "locker":
                if not (_PLACE.fullmatch(locker) and _PLACE.fullmatch(door)):
                    return refuse_control(state, event, "malformed")
                proof = {"kind": "locker", "ref": locker, "door": door}
                return hand_over(state, handover, event, parcels, proof)
            case ("correct", *reason) if not state.exception:
                return taking_back.begin(state, event, driver, *reason)
            case ("cancel",) if state.correcting:
                return taking_back.cancel(state, event, driver)
            case ("cancel",) if handover or state.exception or state.unlocking:
                return _cancel(state, event, driver, parcels)
            case ("exception", reason) if reason in EXCEPTIONS:
                data = {"unit": event.unit, "exception": reason}
                opened = Draft("custody.exception_opened", driver, data, Lane.STATE)
                return done(replace(state, exception=reason), event, opened)
            case ("unlock",):
                if session.role != supervision.SUPERVISOR:
                    return refuse_control(state, event, "not_supervisor")
                return supervision.begin(state, session, event.unit, event.at)
            case ("end",):
                state, closed = _closed(state, session, "ended")
                return done(state, event, closed)
            case _:
                return refuse_control(state, event, "not_now")

    def _code(self, state: Custody, event: CodeEntered, parcels: _Parcels) -> Decision[Custody]:
        handover = state.handover
        if state.session is None or handover is None or handover.to != "recipient":
            draft = Draft("custody.code_refused", event.unit, {"reason": "not_expected"}, Lane.STATE)
            return Decision(state=state, entries=(draft,), orders=(sound(event.unit, Tone.BAD),))
        state = self._at_work(state, state.session, event.at)
        proof = {"kind": "recipient", "evidence": "code", "code_digest": event.digest}
        return hand_over(state, handover, event, parcels, proof)


def _for(state: Custody, subject: str | None) -> Handover | None:
    """The handover that somebody proves themselves for; a second person stands by the first."""
    first = state.login.first if state.login else None
    return state.receiving(first.subject if first else subject)


def _next_for(state: Custody) -> Handover | None:
    """The handover that whoever comes next proves themselves for, as far as that is known before they do."""
    first = state.login.first if state.login else None
    return state.receiving(first.subject) if first else state.to_driver


def _cancel(state: Custody, event: ControlScanned, driver: str, parcels: _Parcels) -> Decision[Custody]:
    """Take back whatever is half done."""
    entries: tuple[Draft, ...] = ()
    if state.exception:
        data = {"unit": event.unit, "exception": state.exception}
        entries = (Draft("custody.exception_cancelled", driver, data, Lane.STATE),)
    state, unlocking = supervision.cancel(replace(state, exception=None))
    state, abandoned, records = abandon(state, parcels, "cancelled")
    return replace(done(state, event, *entries, *unlocking, *abandoned), records=records)


def _closed(state: Custody, session: Session, reason: str) -> tuple[Custody, Draft]:
    data = {"reason": reason, "held": state.held, "handover_open": state.handover is not None}
    draft = Draft("custody.session_closed", session.driver, data)
    return replace(state, session=None, exception=None, unlocking=None, correcting=None), draft


def _dismiss(
    state: Custody, event: Dismissed, parcels: _Parcels, lately: Mapping[str, Lately]
) -> Decision[Custody]:
    """End what they have begun; where they are forgotten, each parcel they hold is told of once more, and
    what names them can no longer be taken back."""
    state, entries = dismiss(state, event)
    records: dict[str, Parcel | None] = {}
    notes: Mapping[str, None] = {}
    if state.session and any(map(event.concerns, state.session.people)):
        state, closed = _closed(state, state.session, event.reason)
        entries += (closed,)
    if state.handover and event.concerns(state.handover.driver):
        state, abandoned, records = abandon(state, parcels, event.reason)
        entries += abandoned
    if event.forget:
        gone = [label for label, parcel in parcels.items() if event.concerns(parcel.holder)]
        records.update(dict.fromkeys(gone))
        entries += tuple(Draft("custody.untracked", label, {"reason": event.reason}) for label in gone)
        state = replace(state, held=state.held - len(gone))
        notes = {
            LATELY + label: None for label, each in lately.items() if any(map(event.concerns, each.people))
        }
    return Decision(state=state, entries=entries, records=records, notes=notes)
