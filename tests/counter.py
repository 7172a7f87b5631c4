"""A counter where custody happens: the workflow, what it remembered, and people who do things at it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.clock import Moment
from agent.custody import Rules, Workflow
from agent.duty import Custody
from agent.policy import LEVELS, Policy
from agent.stake import CHALLENGE_BYTES
from agent.standing import ALONE, Standing
from agent.workflow import (
    CardShown,
    CodeEntered,
    ControlScanned,
    Decision,
    Draft,
    Event,
    FactorShown,
    LabelRead,
    Order,
    Outcome,
    Parcel,
    Verdict,
    Woken,
)
from drivers.readings import CompareFinger, Signal, Tone
from tests.moments import moment

ANNA, BORIS, CLEO = "drv-anna", "drv-boris", "drv-cleo"
FINGERS = {ANNA: ("finger", 7), BORIS: ("finger", 8)}
"""Cleo has none: she types a PIN."""

READERS = {"badge": "badges", "slot": "finger", "pin": "pad", "static": "terminal", "fido2": "card"}
SETS = (frozenset({"badge", "slot"}), frozenset({"badge", "pin"}), frozenset({"badge", "static"}))
RULES = Rules(session=Policy(SETS), handover=Policy(SETS))


@dataclass
class Counter:
    """`said` holds every entry, `asked` every order, oldest first."""

    rules: Rules = RULES
    state: Custody = field(default_factory=Custody)
    parcels: dict[str, Parcel] = field(default_factory=dict)
    now: Moment = field(default_factory=lambda: moment(100))
    challenges: int = 0
    said: list[Draft] = field(default_factory=list)
    asked: list[Order] = field(default_factory=list)
    standing: Standing = ALONE

    def do(self, event: Event) -> Decision[Custody]:
        decision = Workflow(self.rules).decide(self.state, event, self.parcels, self.standing)
        self.state = decision.state
        for label, parcel in decision.records.items():
            if parcel is None:
                del self.parcels[label]
            else:
                self.parcels[label] = parcel
        self.said += decision.entries
        self.asked += decision.orders
        return decision

    def later(self, seconds: float) -> None:
        self.now = moment(self.now.mono_ns / 1e9 + seconds, self.now.boot)

    def reboot(self) -> None:
        self.restart()
        self.now = moment(20, self.now.boot + "+")

    def restart(self) -> None:
        """What a killed agent takes up again, through JSON as the journal keeps it."""
        record = json.loads(json.dumps(self.state.dump()))
        kept = json.loads(json.dumps({label: asdict(parcel) for label, parcel in self.parcels.items()}))
        self.parcels = {label: Parcel(**parcel) for label, parcel in kept.items()}
        self.state = Custody.load(record, held=len(self.parcels))

    # -- people -----------------------------------------------------------------------------------

    def scan(self, label: str, *, again_after: float | None = None, unit: str = "gun") -> Decision[Custody]:
        evidence = {"raw": "UjE=", "symbology": "]C0"}
        return self.do(
            LabelRead(unit=unit, at=self.now, label=label, evidence=evidence, repeated_after=again_after)
        )

    def control(self, words: str) -> Decision[Custody]:
        return self.do(ControlScanned(unit="gun", at=self.now, words=tuple(words.split(":"))))

    def code(self, digest: str = "d1") -> Decision[Custody]:
        return self.do(CodeEntered(unit="pad", at=self.now, digest=digest))

    def wake(self, *, started: bool = False) -> Decision[Custody]:
        return self.do(Woken(at=self.now, started=started))

    def show(
        self,
        kind: str,
        subject: str | None,
        outcome: Outcome = Outcome.GRANTED,
        finger: tuple[str, int] | None = None,
        **more: Any,
    ) -> Decision[Custody]:
        unit = READERS[kind]
        if kind == "fido2" and not self.state.asked:
            self.hold_card()
        level = LEVELS[kind] if outcome is Outcome.GRANTED else 0
        verdict = Verdict(
            outcome=outcome, kind=kind, subject=subject, level=level, finger=finger, age_s=60.0, **more
        )
        return self.do(FactorShown(unit=unit, at=self.now, verdict=verdict))

    def hold_card(self, *, unit: str = "card") -> Decision[Custody]:
        """A fingerprint card comes into the field; whose it is, nobody knows yet."""
        self.challenges += 1
        challenge = self.challenges.to_bytes(CHALLENGE_BYTES, "big")
        return self.do(CardShown(unit=unit, at=self.now, challenge=challenge))

    def badge(self, subject: str) -> Decision[Custody]:
        return self.show("badge", subject, finger=FINGERS.get(subject))

    def touch(self, subject: str) -> Decision[Custody]:
        return self.show("slot", subject, finger=FINGERS[subject])

    def login(self, subject: str) -> Decision[Custody]:
        self.badge(subject)
        return self.touch(subject) if subject in FINGERS else self.show("pin", subject)


def types(decision: Decision[Custody]) -> list[str]:
    return [entry.type for entry in decision.entries]


def tones(decision: Decision[Custody]) -> list[tuple[str, Tone]]:
    return [(order.unit, order.action.tone) for order in decision.orders if isinstance(order.action, Signal)]


def fingers(decision: Decision[Custody]) -> list[tuple[str, CompareFinger]]:
    return [
        (order.unit, order.action) for order in decision.orders if isinstance(order.action, CompareFinger)
    ]


def on_duty(subject: str = ANNA, *, holding: tuple[str, ...] = (), rules: Rules = RULES) -> Counter:
    """A counter with somebody on duty who has scanned some parcels."""
    counter = Counter(rules)
    counter.login(subject)
    for label in holding:
        counter.scan(label)
    return counter


def on_the_table(to: str, *labels: str) -> Counter:
    """Anna holds P1, P2 and P3, has opened a handover and laid these on the table."""
    counter = on_duty(ANNA, holding=("P1", "P2", "P3"))
    counter.control(f"handover:{to}")
    for label in labels:
        counter.scan(label)
    return counter
