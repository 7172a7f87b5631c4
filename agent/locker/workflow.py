"""The locker's workflow: who may open which door, what lies behind it, and what to do about doors. Pure.

A recipient shows a code, and one compartment opens, with no network. A courier identifies, scans a parcel
and gets a compartment of its size; the grant to collect it is made here, and the fleet learns of it later.
What becomes of an opening is told in `agent/locker/openings.py`. Every refusal is an entry; the person at the
locker gets one calm answer for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent import supervision
from agent.asserting import answered, ask
from agent.clock import NS, Moment
from agent.documents import LABEL_MOST
from agent.freshness import Freshness
from agent.locker import many, openings
from agent.locker.compartments import For, Job, Size, Status, choose
from agent.locker.events import (
    BoardLost,
    DoorSeen,
    GrantShown,
    LeaseGiven,
    LockerEvent,
    PulseEnded,
    RoundOrdered,
    ServiceAsked,
)
from agent.locker.governor import Governor
from agent.locker.grants import Guard, Refusal
from agent.locker.pickups import forget, show_code
from agent.locker.rounds import Round
from agent.locker.service import lease, open_for_service, see_to
from agent.locker.turn import (
    CODES,
    COMPARTMENT,
    DESK,
    NOT_SEEN,
    PULSES,
    ROUND,
    Known,
    Locker,
    Pending,
    Rules,
    Turn,
)
from agent.locker.visits import (
    begin_visit,
    dismissed,
    end_visit,
    entitled,
    has_to_wait,
    session_policy,
)
from agent.session import (
    Login,
    Session,
    Wanted,
    asking,
    at_work,
    lapse,
    over,
    show,
    unfit,
    wake_at,
)
from agent.stake import SESSION
from agent.standing import Standing
from agent.workflow import (
    CardShown,
    ControlScanned,
    Decision,
    Dismissed,
    Event,
    FactorShown,
    LabelRead,
    Verdict,
    Woken,
)
from drivers.readings import Tone

DAY_NS = 86_400 * NS


@dataclass(frozen=True, slots=True)
class LockerWorkflow:
    """`decide` is the workflow; the rest is its shape in Python."""

    rules: Rules

    def restore(self, records: Mapping[str, Any], at: Moment) -> Locker:
        """The state that the journal's records tell of. Every door is unknown until its board has spoken."""
        known = self.rules.wall.compartments
        statuses = {
            key.removeprefix(COMPARTMENT): Status.load(value)
            for key, value in records.items()
            if key.startswith(COMPARTMENT) and key.removeprefix(COMPARTMENT) in known
        }
        desk = records.get(DESK) or {}
        return Locker(
            login=Login.load(desk["login"]) if desk.get("login") else None,
            session=Session.load(desk["session"]) if desk.get("session") else None,
            pending=Pending(**desk["pending"]) if desk.get("pending") else None,
            size=Size[desk["size"]] if desk.get("size") else None,
            statuses=statuses,
            guard=Guard.load(records.get(CODES)),
            governor=Governor.load(records.get(PULSES), at),
            out=dict.fromkeys(known, NOT_SEEN),
            looked=at,
            round=Round.load(records[ROUND], at) if records.get(ROUND) else None,
        )

    def decide(self, state: Locker, event: Event | LockerEvent, known: Known) -> Decision[Locker]:
        """What to remember and to do."""
        turn = Turn(state=state, at=event.at, rules=self.rules, known=known)
        self._pass_time(turn, known.standing)
        self._respond(turn, event, known)
        openings.pulse_what_may(turn)
        many.go_on(turn)
        _note_desk(turn)
        decision = turn.decision()
        if known.standing.freshness in (None, Freshness.FRESH):
            return decision
        flag = {"freshness": known.standing.freshness}
        flagged = tuple(replace(entry, data={**entry.data, **flag}) for entry in decision.entries)
        return replace(decision, entries=flagged)

    def wake_at(self, state: Locker) -> int | None:
        """When the next thing is due, on the monotonic clock; None if nothing is."""
        due = openings.wake_ns(state, self.rules) + many.wake_ns(state)
        if (by_ns := wake_at(state, self.rules)) is not None:
            due.append(by_ns)
        looked = state.looked
        if looked is not None and looked.assured:
            due += [
                looked.mono_ns + status.until * NS - looked.utc_ns
                for status in state.statuses.values()
                if status.until is not None and not status.expired and status.job is None
            ]
        return min(due, default=None)

    def _respond(self, turn: Turn, event: Event | LockerEvent, known: Known) -> None:
        match event:
            case DoorSeen():
                _seen(turn, event)
            case BoardLost():
                openings.blinded(turn, list(event.compartments), event.reason)
            case PulseEnded():
                openings.pulsed(
                    turn, event.compartment, ok=event.ok, unknown=event.unknown, reason=event.reason
                )
            case GrantShown():
                show_code(turn, event, locked_down=known.locked_down)
            case LeaseGiven():
                lease(turn, event, locked_down=known.locked_down)
            case RoundOrdered():
                many.order(turn, event)
            case ServiceAsked():
                see_to(turn, event)
            case CardShown():
                _follow(turn, ask(turn.state, event, SESSION, self.rules.source, self.rules.login))
            case FactorShown(verdict=Verdict(kind="fido2")):
                turn.state, event, told = answered(turn.state, event, SESSION)
                turn.entries += told
                self._factor(turn, event, known.standing)
            case FactorShown():
                self._factor(turn, event, known.standing)
            case LabelRead():
                self._label(turn, event, known)
            case ControlScanned():
                self._control(turn, event, known)
            case Dismissed():
                dismissed(turn, event)
            case Woken(started=True):
                many.interrupted(turn)
                forget(turn)
                if (login := turn.state.login) is not None:
                    policy = session_policy(self.rules, known.standing, login.role)
                    turn.orders += asking(login, policy, event.at, self.rules)

    # -- time -------------------------------------------------------------------------------------

    def _pass_time(self, turn: Turn, standing: Standing) -> None:
        state, lapsed = lapse(turn.state, turn.at, self.rules, standing)
        turn.state = state
        turn.entries += lapsed
        if (session := state.session) is not None:
            policy = session_policy(self.rules, standing, session.role)
            reason = over(session, turn.at, self.rules) or unfit(session, policy, standing)
            if reason is not None:
                end_visit(turn, session, reason)
        openings.look_all(turn)
        _expire(turn)
        looked = turn.state.looked
        if looked is not None and looked.utc_ns // DAY_NS != turn.at.utc_ns // DAY_NS:
            forget(turn)

    # -- people -----------------------------------------------------------------------------------

    def _factor(self, turn: Turn, event: FactorShown, standing: Standing) -> None:
        state = turn.state
        if state.session and state.unlocking:
            return _follow(turn, supervision.unlock(state, state.session, event))
        roles = (event.verdict.role, state.login.role if state.login else None)
        policy = session_policy(self.rules, standing, *roles)
        answer = show(state, event, Wanted(action="deposit", policy=policy), self.rules)
        if isinstance(answer, Decision):
            return _follow(turn, answer)
        return begin_visit(turn, event, answer)

    def _label(self, turn: Turn, event: LabelRead, known: Known) -> None:
        state, label = turn.state, event.label
        if state.session is None:
            return turn.refuse(event.unit, label, "no_session")
        turn.become(session=at_work(state.session, turn.at, self.rules))
        if event.full:
            return turn.refuse(event.unit, label, "journal_full")
        if len(label) > LABEL_MOST:
            # No grant could name it, so that nobody could ever collect it.
            return turn.refuse(event.unit, label[:LABEL_MOST], "label_too_long", length=len(label))
        if (where := state.holding(label) or state.taking_in(label)) is not None:
            return turn.refuse(event.unit, label, "already_here", compartment=where)
        if has_to_wait(turn):
            return turn.refuse(event.unit, label, "one_at_a_time")
        if known.standing.freshness is Freshness.STALE and not known.standing.expects(label):
            return turn.refuse(event.unit, label, "not_in_manifest")
        data = {"by": state.session.driver, "unit": event.unit, "evidence": dict(event.evidence)}
        turn.say("locker.parcel_scanned", label, **data)
        pending = Pending(label=label, unit=event.unit)
        turn.become(pending=pending)
        if state.size is not None:
            return self._deposit(turn, pending, state.session, state.size, known)
        return turn.tone(event.unit, Tone.ASK)

    def _control(self, turn: Turn, event: ControlScanned, known: Known) -> None:
        session = turn.state.session
        if session is None:
            return turn.refuse(event.unit, "", "no_session")
        turn.become(session=at_work(session, turn.at, self.rules))
        in_charge = session.role == many.TECHNICIAN
        match event.words:
            case ("open" | "retrieve", _) | ("pins", "on") if in_charge and not entitled(turn, session):
                return turn.refuse(event.unit, "", "not_enough_factors")
            case ("open" | "retrieve", *_) if has_to_wait(turn):
                return turn.refuse(event.unit, "", "one_at_a_time")
            case ("size", name) if (size := Size.named(name)) is not None:
                turn.become(size=size)
                if turn.state.pending is not None:
                    return self._deposit(turn, turn.state.pending, session, size, known)
                return turn.tone(event.unit, Tone.GOOD)
            case ("cancel",) if turn.state.pending is not None:
                turn.say("locker.deposit_cancelled", turn.state.pending.label, by=session.driver)
                turn.become(pending=None)
                return turn.tone(event.unit, Tone.GOOD)
            case ("retrieve",):
                return self._retrieve(turn, session, event.unit, known)
            case ("retrieve", name) if in_charge and turn.state.status(name).parcel:
                return self._retrieve(turn, session, event.unit, known, name)
            case ("open", name) if in_charge and name in self.rules.wall.compartments:
                return open_for_service(turn, session, event.unit, name, locked_down=known.locked_down)
            case ("pins", "on") if in_charge and turn.state.guard.pin_off:
                turn.become(guard=Guard())
                turn.notes[CODES] = Guard().dump()
                turn.say("locker.pins_restored", session.driver, unit=event.unit)
                return turn.tone(event.unit, Tone.GOOD)
            case ("unlock",) if session.role == supervision.SUPERVISOR:
                return _follow(turn, supervision.begin(turn.state, session, event.unit, turn.at))
            case ("end",):
                end_visit(turn, session, "ended")
                return turn.tone(event.unit, Tone.GOOD)
        return turn.refuse(event.unit, "", "not_now")

    def _deposit(self, turn: Turn, pending: Pending, session: Session, size: Size, known: Known) -> None:
        """Choose a compartment, make the grant that goes with it, and open the door."""
        state = turn.state
        if has_to_wait(turn):
            return turn.refuse(pending.unit, pending.label, "one_at_a_time")
        if known.locked_down:
            return turn.refuse(pending.unit, pending.label, Refusal.LOCKED_DOWN)
        chosen = choose(self.rules.wall, state.statuses, state.unusable(), size, state.busy)
        if chosen is None:
            return turn.refuse(pending.unit, pending.label, "no_compartment", size=size.name)
        until = turn.at.utc_ns // NS + int(self.rules.hold)
        turn.become(pending=None)
        job = Job(
            what=For.DEPOSIT,
            opening=openings.intended(turn, chosen.name),
            by=session.driver,
            unit=pending.unit,
            parcel=pending.label,
            until=until,
        )
        return openings.begin(turn, chosen.name, job, size=size.name)

    def _retrieve(
        self, turn: Turn, session: Session, unit: str, known: Known, named: str | None = None
    ) -> None:
        """Open the next compartment whose parcel a courier is to take away.

        A technician names any that holds one, and is not kept from it by its quarantine.
        """
        if not session.meets(self.rules.retrieve.at(known.standing.freshness)):
            return turn.refuse(unit, "", "not_enough_factors")
        if known.locked_down:
            return turn.refuse(unit, "", Refusal.LOCKED_DOWN)
        state = turn.state
        kept_from = state.unusable() if named is None else {*state.out, *state.busy}
        waiting = [named] if named else state.to_retrieve()
        name = next((each for each in waiting if each not in kept_from), None)
        if name is None:
            return turn.refuse(unit, "", "nothing_to_retrieve")
        job = Job(
            what=For.RETRIEVE,
            opening=openings.intended(turn, name),
            by=session.driver,
            unit=unit,
            parcel=state.status(name).parcel,
        )
        return openings.begin(turn, name, job)


def _seen(turn: Turn, event: DoorSeen) -> None:
    door = turn.state.door(event.compartment)
    told = {"latched": event.latched, "closed": event.closed, "occupied": event.occupied}
    door = replace(door, **{key: value for key, value in told.items() if value is not None})
    openings.seen(turn, event.compartment, door, first=event.first)


def _follow(turn: Turn, decision: Decision[Locker]) -> None:
    """What a room that workflows share has decided is part of this turn."""
    turn.state = decision.state
    turn.entries += decision.entries
    turn.orders += decision.orders
    turn.pardon = decision.pardon or turn.pardon


# -- what waits ----------------------------------------------------------------------------------


def _expire(turn: Turn) -> None:
    """Say which parcels were not collected in time, once the time is known: it cannot be unsaid."""
    if not turn.at.assured:
        return
    for name, status in list(turn.state.statuses.items()):
        if status.until is None or status.expired or status.job or turn.at.utc_ns < status.until * NS:
            continue
        turn.put(name, replace(status, expired=True))
        turn.say("locker.expired", status.parcel or name, compartment=name)


def _note_desk(turn: Turn) -> None:
    """Remember who is at the desk, where that has changed."""
    state = turn.state
    record = {
        "login": state.login and state.login.dump(),
        "session": state.session and state.session.dump(),
        "pending": state.pending and {"label": state.pending.label, "unit": state.pending.unit},
        "size": state.size and state.size.name,
    }
    if record != turn.known.records.get(DESK, _EMPTY):
        turn.notes[DESK] = record


_EMPTY = {"login": None, "session": None, "pending": None, "size": None}
