"""A locker's workflow with hands: scan, show a code, move a door, let time pass."""

from typing import Any

from agent.clock import NS, Moment, Trust
from agent.locker.compartments import Compartment, Size, Wall
from agent.locker.events import BoardLost, DoorSeen, GrantShown, LockerEvent, PulseEnded
from agent.locker.grants import Grant, Refusal, Way
from agent.locker.turn import Known, Minted, Rules
from agent.locker.workflow import LockerWorkflow
from agent.policy import Policy
from agent.standing import ALONE
from agent.workflow import (
    CardShown,
    ControlScanned,
    Decision,
    Draft,
    Event,
    FactorShown,
    LabelRead,
    Outcome,
    Verdict,
    Woken,
)
from drivers.readings import OpenDoor, Signal, Tone

SETS = (frozenset({"badge", "pin"}), frozenset({"badge", "slot"}))
START_S = 1_795_600_000


def wall() -> Wall:
    """Six compartments of three sizes on one bus and one supply."""
    sizes = {"a1": Size.S, "a2": Size.S, "b1": Size.M, "b2": Size.M, "c1": Size.L, "c2": Size.L}
    return Wall(
        compartments={
            name: Compartment(name=name, unit="bus", door=door, size=size)
            for door, (name, size) in enumerate(sizes.items(), 1)
        }
    )


class Hall:
    """Somebody at the locker, and the journal's records behind it."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules(
            wall=wall(), deposit=Policy(SETS), retrieve=Policy(SETS), technician=Policy(SETS)
        )
        self.workflow = LockerWorkflow(self.rules)
        self.records: dict[str, Any] = {}
        self.entries: list[Draft] = []
        self.pulses: list[tuple[int, int]] = []
        """Door, and when its pulse was ordered: nanoseconds that no reboot sets back."""
        self.tones: list[Tone] = []
        self.ns = 100 * NS
        self.boot = "boot-1"
        self.booted_utc_ns = START_S * NS
        self.locked_down = False
        self.minted = 0
        self.trust = Trust.NTP
        self.standing = ALONE
        self.state = self.workflow.restore({}, self.now)
        self.answering = True
        """The lock board accepts every pulse at once."""
        for name in self.rules.wall.compartments:
            self.door(name, latched=True, first=True)

    @property
    def now(self) -> Moment:
        return Moment(boot=self.boot, mono_ns=self.ns, utc_ns=self.booted_utc_ns + self.ns, trust=self.trust)

    # -- what happens -----------------------------------------------------------------------------

    def take(self, event: Event | LockerEvent) -> Decision[Any]:
        """Decide, remember, and let the lock board answer."""
        known = Known(
            standing=self.standing, records=dict(self.records), locked_down=self.locked_down, office=self
        )
        decision = self.workflow.decide(self.state, event, known)
        self.state = decision.state
        self.entries += decision.entries
        for key, value in decision.notes.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        for order in decision.orders:
            match order.action:
                case OpenDoor(door=door):
                    self._pulse(door)
                case Signal(tone=tone):
                    self.tones.append(tone)
        return decision

    def wait(self, seconds: float) -> None:
        """Time passes, and the workflow is woken whenever it asked to be."""
        end_ns = self.ns + int(seconds * NS)
        while (due_ns := self.workflow.wake_at(self.state)) is not None and due_ns <= end_ns:
            self.ns = max(self.ns + 1, due_ns)
            self.take(Woken(at=self.now))
        self.ns = end_ns

    def door(self, name: str, **told: Any) -> None:
        """A sensor of a door speaks: `latched`, `closed`, `occupied`; `first` when it was found so."""
        self.take(DoorSeen(at=self.now, compartment=name, **told))

    def opens(self, name: str, *, for_s: float = 5.0) -> None:
        """Somebody opens the door, takes their time, and shuts it."""
        self.wait(0.1)
        self.door(name, latched=False)
        self.wait(for_s)
        self.door(name, latched=True)

    def crash(self, *, reboot: bool = False, off_s: float = 1.0) -> None:
        """The agent dies and starts again; the records are all that is left."""
        self.ns += int(off_s * NS)
        if reboot:
            self.booted_utc_ns += self.ns - NS
            self.boot, self.ns = f"{self.boot}+", NS
        self.state = self.workflow.restore(self.records, self.now)
        self.take(Woken(at=self.now, started=True))

    def found(self, **told: Any) -> None:
        """The board speaks again: every door as it is found, latched unless `told` says otherwise."""
        for name in self.rules.wall.compartments:
            self.door(name, latched=told.get(name, True), first=True)

    def board_lost(self) -> None:
        names = tuple(self.rules.wall.compartments)
        self.take(BoardLost(at=self.now, compartments=names, reason="gone"))

    def _pulse(self, door: int) -> None:
        self.pulses.append((door, self.booted_utc_ns + self.ns))
        if self.answering:
            name = next(each.name for each in self.rules.wall.compartments.values() if each.door == door)
            self.take(PulseEnded(at=self.now, compartment=name, ok=True, unknown=False, reason=""))

    def mint(self, label: str, compartment: str, until: int) -> Minted:
        self.minted += 1
        return Minted(grant=f"minted-{self.minted}", sealed="...", records={})

    def receipt(self, label: str, compartment: str, by: str, at: Moment) -> str:
        return f"{label} in {compartment}"

    # -- people -----------------------------------------------------------------------------------

    def courier(self, subject: str = "drv-1", role: str | None = None) -> None:
        """Badge and PIN."""
        for kind in ("badge", "pin"):
            level = 0 if kind == "badge" else 1
            verdict = Verdict(
                outcome=Outcome.GRANTED, kind=kind, subject=subject, level=level, age_s=5.0, role=role
            )
            self.take(FactorShown(unit="badge", at=self.now, verdict=verdict))

    def prove(self, subject: str, *kinds: str, **about: Any) -> None:
        """Show factors of one person, one after the other."""
        for kind in kinds:
            level = {"badge": 0, "fido2": 3}.get(kind, 1)
            finger = ("finger", 7) if kind in ("badge", "slot") else None
            given = {"outcome": Outcome.GRANTED, "level": level, "age_s": 5.0, "finger": finger, **about}
            verdict = Verdict(kind=kind, subject=subject, **given)
            unit = {"fido2": "card", "slot": "finger"}.get(kind, "badge")
            self.take(FactorShown(unit=unit, at=self.now, verdict=verdict))

    def hold_card(self) -> None:
        """A fingerprint card comes into the reader's field."""
        self.take(CardShown(unit="card", at=self.now, challenge=bytes(32)))

    def scan(self, label: str) -> None:
        read = LabelRead(unit="gun", at=self.now, label=label, evidence={"raw": "x"}, repeated_after=None)
        self.take(read)

    def control(self, *words: str) -> None:
        self.take(ControlScanned(unit="gun", at=self.now, words=words))

    def deposit(self, label: str, size: str = "S") -> str:
        """A courier puts a parcel in; the compartment it went to."""
        if self.state.session is None:
            self.courier()
        before = len(self.pulses)
        self.control("size", size)
        self.scan(label)
        self.wait(0.5)
        door = self.pulses[before][0]
        name = next(each.name for each in self.rules.wall.compartments.values() if each.door == door)
        self.opens(name)
        self.wait(1)
        return name

    def show(self, jti: str, *, way: Way = Way.QR, **about: Any) -> None:
        """Show a code whose grant verifies."""
        grant = Grant(jti=jti, way=way, exp=about.pop("exp", START_S + 30 * 86_400), **about)
        self.take(GrantShown(at=self.now, unit="gun", way=way, grant=grant))

    def wrong(self, selector: str = "s1", reason: Refusal = Refusal.UNKNOWN) -> None:
        """Type a wrong PIN."""
        shown = GrantShown(at=self.now, unit="keypad", way=Way.PIN, refusal=reason, selector=selector)
        self.take(shown)

    # -- what came of it --------------------------------------------------------------------------

    def types(self) -> list[str]:
        return [entry.type for entry in self.entries]

    def last(self, type_: str) -> Draft:
        return next(entry for entry in reversed(self.entries) if entry.type == type_)
