"""A change given to a fleet in stages, and stopped where it goes wrong. What is seen in, who is next out.

Pure.

    rollout = plan("r-7f3a", "bundle/roster", kinds, away)
    rollout, due = step(rollout, seen, now)     # give it to those who are due, and note the versions
    rollout = given(rollout, {"van-0042": 7}, now)

Devices come in the order of a hash that the rollout's id and theirs decide: each rollout has other first
ones, and nobody picks them. The first stage are the canaries: its share of devices, and of every hardware
kind (the set of kinds of its units) at least one. It is halted by any canary that fails, and by more than
2 % of failures once 20 have answered. Whoever resumes it excuses those failures, by name and with a reason.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256

WHOLE = 10_000
STAGES = (100, 1_000, 5_000, WHOLE)
"""Shares of all devices, in parts of WHOLE: 1 %, 10 %, 50 %, all."""
SOAK_S = 3_600.0
PATIENCE_S = 1_800.0
"""A device that is online and has not said how it went for so long has failed."""
FAILURES_MOST = 0.02
FAILURES_OF = 20
"""Answers from which on a share of failures means something."""

Kinds = tuple[str, ...]
"""Hardware: the kinds of a device's units, each once, in order."""


class State(StrEnum):
    RUNNING = "running"
    HALTED = "halted"
    DONE = "done"
    ABORTED = "aborted"


class Outcome(StrEnum):
    WAITING = "waiting"
    """Its turn has not come."""
    GIVEN = "given"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device in a rollout. Times in seconds of Unix time."""

    place: int
    kinds: Kinds | None
    """None where it has never said."""
    canary: bool = False
    outcome: Outcome = Outcome.WAITING
    given: float | None = None
    ver: int | None = None
    """Of the document that it was given; None while that is not certain."""
    reason: str = ""
    excused: bool = False
    """It failed, and somebody let the rollout go on all the same."""

    @property
    def failed(self) -> bool:
        return self.outcome is Outcome.FAILED and not self.excused

    @property
    def answered(self) -> bool:
        return self.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What a person did, or why it was halted."""

    at: float
    what: str
    who: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    id: str
    what: str
    """A document's name, as heads have it."""
    members: Mapping[str, Member]
    stages: tuple[int, ...] = STAGES
    soak_s: float = SOAK_S
    patience_s: float = PATIENCE_S
    stage: int = 0
    soaking: float | None = None
    """Since when all of this stage have answered, or are away."""
    state: State = State.RUNNING
    deeds: tuple[Deed, ...] = field(default=())

    def of_stage(self) -> dict[str, Member]:
        """Those who may have it by now."""
        share = self.stages[self.stage]
        return {
            name: each
            for name, each in self.members.items()
            if each.canary or (self.stage > 0 and each.place < share)
        }

    @property
    def why(self) -> str:
        """Of its state, where it does not run."""
        return self.deeds[-1].reason if self.deeds and self.state is not State.RUNNING else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device shows of the change that it was given."""

    online: bool
    went_well: bool | None = None
    """None while it has not said."""
    reason: str = ""


def place(rollout: str, device: str) -> int:
    """Where a device stands, below WHOLE."""
    digest = sha256(rollout.encode() + device.encode()).digest()
    return int.from_bytes(digest, "big") % WHOLE


def plan(
    id_: str,
    what: str,
    kinds: Mapping[str, Kinds | None],
    away: Collection[str] = (),
    *,
    stages: tuple[int, ...] = STAGES,
    soak_s: float = SOAK_S,
    patience_s: float = PATIENCE_S,
) -> Rollout:
    """For these devices, with the hardware of each. Of a kind that needs a canary one that is not away."""
    order = sorted(kinds, key=lambda name: (place(id_, name), name))
    first = {name for name in order if place(id_, name) < stages[0]}
    for kind in dict.fromkeys(kinds[name] for name in order):
        alike = [name for name in order if kinds[name] == kind]
        there = [name for name in alike if name not in away]
        if kind is not None and first.isdisjoint(there or alike):
            first.add((there or alike)[0])
    if not first:
        first.update(order[:1])
    members = {
        name: Member(place=place(id_, name), kinds=kinds[name], canary=name in first) for name in order
    }
    return Rollout(id=id_, what=what, members=members, stages=stages, soak_s=soak_s, patience_s=patience_s)


def step(rollout: Rollout, seen: Mapping[str, Seen], now: float) -> tuple[Rollout, tuple[str, ...]]:
    """Take note of what is seen; whom to give it to now. They count as given from here on."""
    rollout = _heard(rollout, seen, now)
    if rollout.state is not State.RUNNING:
        return rollout, ()
    if (why := wrong(rollout)) is not None:
        return _became(rollout, State.HALTED, Deed(at=now, what="halted", who="", reason=why)), ()
    if due := _due(rollout):
        return _give(rollout, due, now), due
    if not _is_settled(rollout, seen):
        return replace(rollout, soaking=None), ()
    if rollout.soaking is None:
        return replace(rollout, soaking=now), ()
    if now - rollout.soaking < rollout.soak_s:
        return rollout, ()
    if rollout.stage == len(rollout.stages) - 1:
        return replace(rollout, state=State.DONE), ()
    rollout = replace(rollout, stage=rollout.stage + 1, soaking=None)
    due = _due(rollout)
    return (_give(rollout, due, now), due)


def given(rollout: Rollout, versions: Mapping[str, int], now: float) -> Rollout:
    """These documents are at the broker now: from here on their devices have time to answer."""
    news = {name: replace(rollout.members[name], ver=ver, given=now) for name, ver in versions.items()}
    return _with(rollout, news)


def uncertain(rollout: Rollout) -> tuple[str, ...]:
    """Who may not have been given it, because whoever gave it was interrupted."""
    return tuple(
        name for name, each in rollout.members.items() if each.outcome is Outcome.GIVEN and each.ver is None
    )


def wrong(rollout: Rollout) -> str | None:
    """Why it must not go on; None while nothing is wrong."""
    members = rollout.members
    canaries = [name for name, each in members.items() if each.canary and each.failed]
    if canaries:
        told = f"canary {canaries[0]} failed: {members[canaries[0]].reason or 'no reason given'}"
        return told if len(canaries) == 1 else f"{told}; and {len(canaries) - 1} more"
    counted = [each for each in members.values() if each.answered and not each.excused]
    failed = [each for each in counted if each.failed]
    if len(counted) >= FAILURES_OF and len(failed) > FAILURES_MOST * len(counted):
        return f"{len(failed)} of {len(counted)} failed: {failed[-1].reason or 'no reason given'}"
    return None


def resumed(rollout: Rollout, who: str, reason: str, now: float, *, again: bool = False) -> Rollout:
    """Go on after a halt: what has failed is excused, or given `again`."""
    if rollout.state is not State.HALTED:
        return rollout
    fresh = {
        name: Member(place=each.place, kinds=each.kinds, canary=each.canary)
        if again
        else replace(each, excused=True)
        for name, each in rollout.members.items()
        if each.failed
    }
    deed = Deed(at=now, what="resumed", who=who, reason=reason)
    return _became(replace(_with(rollout, fresh), soaking=None), State.RUNNING, deed)


def aborted(rollout: Rollout, who: str, reason: str, now: float) -> Rollout:
    """Give it to nobody any more. Who has it keeps it."""
    if rollout.state in (State.DONE, State.ABORTED):
        return rollout
    return _became(rollout, State.ABORTED, Deed(at=now, what="aborted", who=who, reason=reason))


# -- steps ----------------------------------------------------------------------------------------


def _heard(rollout: Rollout, seen: Mapping[str, Seen], now: float) -> Rollout:
    """What has become of those who have it: what they said last counts, and silence when nothing was said."""
    news = {}
    for name, each in rollout.members.items():
        shown = seen.get(name, Seen(online=False))
        if each.ver is None or each.given is None or each.excused:
            continue
        if shown.went_well is not None:
            outcome = Outcome.SUCCEEDED if shown.went_well else Outcome.FAILED
            news[name] = replace(each, outcome=outcome, reason=shown.reason)
        elif each.outcome is Outcome.GIVEN and shown.online and now - each.given >= rollout.patience_s:
            reason = f"online, and said nothing for {rollout.patience_s:g} s"
            news[name] = replace(each, outcome=Outcome.FAILED, reason=reason)
    return _with(rollout, news)


def _due(rollout: Rollout) -> tuple[str, ...]:
    return tuple(name for name, each in rollout.of_stage().items() if each.outcome is Outcome.WAITING)


def _give(rollout: Rollout, due: Iterable[str], now: float) -> Rollout:
    news = {name: replace(rollout.members[name], outcome=Outcome.GIVEN, given=now) for name in due}
    return replace(_with(rollout, news), soaking=None)


def _is_settled(rollout: Rollout, seen: Mapping[str, Seen]) -> bool:
    """All have answered or are away; before it leaves the canaries, one of every kind has succeeded."""
    members = rollout.of_stage()
    for name, each in members.items():
        if not each.answered and seen.get(name, Seen(online=False)).online:
            return False
    canaries = [each for each in members.values() if each.canary]
    good = {each.kinds for each in canaries if each.outcome is Outcome.SUCCEEDED}
    open_kinds = {each.kinds for each in canaries if not each.excused and each.kinds is not None}
    return open_kinds <= good and (bool(good) or all(each.excused for each in canaries))


def _became(rollout: Rollout, state: State, deed: Deed) -> Rollout:
    return replace(rollout, state=state, deeds=(*rollout.deeds, deed))


def _with(rollout: Rollout, news: Mapping[str, Member]) -> Rollout:
    return replace(rollout, members={**rollout.members, **news}) if news else rollout
