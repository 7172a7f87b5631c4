"""Was everything right at the wall? Judged from outside: what people did, what the solenoids had and what the
doors showed, and the entries that the house has made of it. Nothing here knows how the house decides.

    wrongs = judge(wall.diary, house.entries)    # a sentence for each thing that must never happen
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.clock import NS

Entry = Mapping[str, Any]

PATIENCE_S = 10.5
"""Whoever stands there waits no longer for a door."""
GAP_S = 0.65
"""From the beginning of one pulse to the next of the same supply: pulse and gap of the site's config."""
WINDOW_S, WITHIN_WINDOW = 60.0, 4
"""Pulses of one coil within a minute."""
AGAIN_S = 300.0
PUSHED_S = 0.45
"""A door that its hook showed open for less was pushed shut before it could be opened."""
OPEN_S = 1.5
"""After so long the house knows for certain, and on stable storage, that a door was open."""

USED = {
    "collected",
    "retrieved",
    "deposited",
    "left_behind",
    "deposit_abandoned",
    "opening_used",
}
ENDS = {*USED, "not_opened", "outcome_unknown"}


@dataclass(frozen=True, kw_only=True)
class Happening:
    """Something at the wall. `durable` is the number of entries on the disk in that moment."""

    boot: str
    utc_ns: int
    durable: int
    name: str | None = None
    """Of the compartment."""


@dataclass(frozen=True, kw_only=True)
class Asked(Happening):
    """A person asks for one door: with the code of a grant, with a parcel in hand, or being in charge."""

    purpose: str
    """What the intent has to say; a technician's may be `service` or `retrieve`."""
    grant: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pulsed(Happening):
    sprang: bool
    """The door came open."""
    holds: str | None = None
    """What lies behind it."""


@dataclass(frozen=True, kw_only=True)
class Shown(Happening):
    """The lock board tells the house whether the hook holds; `first` when it was found so."""

    open: bool
    first: bool


@dataclass(frozen=True, kw_only=True)
class Lost(Happening):
    """Nobody sees the doors from now on: the lock board is away, or the power."""


@dataclass(frozen=True, kw_only=True)
class Released(Happening):
    """A person has looked into a compartment and gives it back."""


@dataclass
class _Grant:
    """What one grant has done since a person looked last."""

    pulses: list[Pulsed] = field(default_factory=list)
    opened: bool = False
    """The house has seen its door stand open: for good."""


def judge(diary: Sequence[Happening], entries: Sequence[Entry]) -> list[str]:
    """All that was wrong, in words."""
    given, wrongs = _pulses(diary)
    booked = [*_intended(given, entries), *_booked(diary, entries), *_set_aside(entries), *_once(entries)]
    return [*wrongs, *_governed(diary), *booked]


# -- who had which pulse ------------------------------------------------------------------------------


def _pulses(diary: Sequence[Happening]) -> tuple[list[tuple[Pulsed, Asked]], list[str]]:
    """Each pulse with the person who asked for it; and what no grant may do."""
    given: list[tuple[Pulsed, Asked]] = []
    wrongs: list[str] = []
    asked: list[Asked] = []
    grants: defaultdict[str, _Grant] = defaultdict(_Grant)
    last: dict[str, tuple[Pulsed, Asked]] = {}
    opened_ns: dict[str, int] = {}
    for each in diary:
        match each:
            case Asked():
                asked.append(each)
            case Pulsed():
                by = next((one for one in reversed(asked) if _explains(one, each)), None)
                opened_ns.pop(each.name or "", None)
                if by is None:
                    wrongs.append(f"nobody asked for {each}")
                    continue
                asked.remove(by)
                given.append((each, by))
                last[each.name or ""] = each, by
                if by.grant is not None:
                    wrongs += _spent(grants[by.grant], each, by)
            case Shown(open=True):
                opened_ns.setdefault(each.name or "", each.utc_ns)
                if each.first:
                    _stood_open(grants, last.get(each.name or ""))
            case Shown(open=False) | Lost():
                for name in [each.name] if each.name else list(opened_ns):
                    since_ns = opened_ns.pop(name, each.utc_ns)
                    if each.utc_ns - since_ns >= OPEN_S * NS:
                        _stood_open(grants, last.get(name))
            case Released():
                for grant in grants.values():
                    grant.pulses = [one for one in grant.pulses if one.name != each.name]
    return given, wrongs


def _explains(asked: Asked, pulse: Pulsed) -> bool:
    if asked.boot != pulse.boot or pulse.utc_ns - asked.utc_ns > PATIENCE_S * NS:
        return False
    return asked.name == pulse.name or (asked.name is None and pulse.holds is None)


def _spent(grant: _Grant, pulse: Pulsed, by: Asked) -> Iterator[str]:
    if grant.opened:
        yield f"{by} had its door open before, and {pulse}"
    if len(grant.pulses) >= 2:
        yield f"{by} had two pulses before, and {pulse}"
    for first in grant.pulses[:1]:
        if first.boot != pulse.boot or pulse.utc_ns - first.utc_ns > AGAIN_S * NS:
            yield f"{by} may not try again so long after {first}: {pulse}"
    grant.pulses.append(pulse)


def _stood_open(grants: Mapping[str, _Grant], last: tuple[Pulsed, Asked] | None) -> None:
    if last is not None and last[0].sprang and last[1].grant is not None:
        grants[last[1].grant].opened = True


def _governed(diary: Sequence[Happening]) -> Iterator[str]:
    """One pulse at a time, with a gap; and no coil gets hot."""
    pulses = [each for each in diary if isinstance(each, Pulsed)]
    for before, after in itertools.pairwise(pulses):
        if after.utc_ns - before.utc_ns < GAP_S * NS:
            yield f"{after} while the supply still feeds {before}"
    for number, pulse in enumerate(pulses):
        lately = [
            each
            for each in pulses[: number + 1]
            if each.name == pulse.name and pulse.utc_ns - each.utc_ns < WINDOW_S * NS
        ]
        if len(lately) > WITHIN_WINDOW:
            yield f"{pulse} is number {len(lately)} of its coil within a minute"


# -- what the entries say -------------------------------------------------------------------------------


def _intended(given: Sequence[tuple[Pulsed, Asked]], entries: Sequence[Entry]) -> Iterator[str]:
    """Before each pulse its own intent was on the disk, for what was asked; and out of use is out of use."""
    used: set[str] = set()
    for pulse, by in given:
        known = [entry for entry in entries[: pulse.durable] if _place(entry) == pulse.name]
        intents = [entry for entry in known if _word(entry) == "opening_intended"]
        intent = intents[-1] if intents else None
        if intent is None or intent["id"] in used:
            yield f"no intent of its own before {pulse}, for {by}"
            continue
        used.add(intent["id"])
        said = (intent["data"]["purpose"], intent["data"]["grant"])
        if said not in _right(by):
            yield f"{by} has become {said}"
        quarantine = _quarantine(known[: known.index(intent)])
        if quarantine is not None and by.purpose != "service" and quarantine != by.grant:
            yield f"{pulse} for {by}, and nobody has released it"


def _right(by: Asked) -> set[tuple[str, str | None]]:
    if by.purpose == "service":
        return {("service", None), ("retrieve", None)}
    return {(by.purpose, by.grant)}


def _quarantine(known: Sequence[Entry]) -> str | None:
    """Whether a compartment is out of use; the grant whose opening is in doubt, where one is."""
    state, doubt = None, ""
    for entry in known:
        match _word(entry):
            case "outcome_unknown":
                doubt = entry["data"]["grant"] or ""
            case "compartment_quarantined":
                state = doubt if entry["data"]["reason"] == "outcome_unknown" else ""
            case "compartment_released":
                state = None
    return state


def _booked(diary: Sequence[Happening], entries: Sequence[Entry]) -> Iterator[str]:
    """Each intent has one end, and the end is what the door has shown."""
    going: dict[str, Entry] = {}
    for entry in entries:
        name, word = _place(entry), _word(entry)
        if word == "opening_intended":
            if name in going:
                yield f"{name} has two openings at once: {entry['id']}"
            going[name] = entry
        elif word in ENDS:
            intent = going.pop(name, None)
            if intent is None:
                yield f"{entry['id']} ends what nobody intended: {word} {name}"
                continue
            began, ended = int(intent["sequence"]), int(entry["sequence"])
            seen = [each for each in diary if began <= each.durable <= ended]
            at_door = [each for each in seen if each.name in (name, None)]
            if wrong := _contradicted(word, entry["data"].get("why"), at_door):
                yield f"{entry['id']}, {word} {name}: {wrong}"


def _set_aside(entries: Sequence[Entry]) -> Iterator[str]:
    """What nobody can be sure of is out of use at once."""
    for number, entry in enumerate(entries):
        name, follows = _place(entry), entries[number + 1 : number + 6]
        if (
            not _is_doubtful(entry)
            or _quarantine([e for e in entries[:number] if _place(e) == name]) is not None
        ):
            continue
        if not any(_word(e) == "compartment_quarantined" and _place(e) == name for e in follows):
            yield f"{name} is not set aside after {entry['type']}, {entry['id']}"


def _is_doubtful(entry: Entry) -> bool:
    data = entry["data"]
    if _word(entry) == "not_opened":
        return (data["why"], data["purpose"] == "deposit") == ("pushed_shut", False)
    doubtful = ("outcome_unknown", "left_behind")
    return _word(entry) in doubtful or entry["type"] in ("postern.door.forced", "postern.door.found_open")


def _contradicted(word: str, why: str | None, seen: Sequence[Happening]) -> str | None:
    """What at the door says otherwise."""
    pulses = [each for each in seen if isinstance(each, Pulsed)]
    sprang = any(each.sprang for each in pulses)
    pushed = sprang and _pushed(seen)
    if word in USED:
        return "the door never opened" if not sprang else "it was pushed shut" if pushed else None
    if word == "outcome_unknown":
        watched = len({each.boot for each in seen}) == 1 and not any(isinstance(each, Lost) for each in seen)
        return "somebody was watching" if watched and pulses else None
    expected = {
        "not_pulsed": not pulses,
        "did_not_open": bool(pulses) and not sprang,
        "pushed_shut": bool(pushed),
    }
    return None if expected[why or ""] else f"not {why}, as {len(pulses)} pulses and {sprang=} {pushed=} show"


def _pushed(seen: Sequence[Happening]) -> bool:
    """Whether the board saw the door released and latched again, too soon for anybody to have opened it."""
    shown = [each for each in seen if isinstance(each, Shown)]
    opened = next((each for each in shown if each.open and not each.first), None)
    shut = opened and next((each for each in shown if not each.open and each.utc_ns > opened.utc_ns), None)
    if opened is None or shut is None or shut.boot != opened.boot or shut.first:
        return False
    return shut.utc_ns - opened.utc_ns < PUSHED_S * NS


def _once(entries: Sequence[Entry]) -> Iterator[str]:
    """A parcel comes once and goes once, and a grant is made once."""
    came = Counter(entry["subject"] for entry in entries if _word(entry) == "deposited")
    went = Counter(
        entry["subject"] for entry in entries if _word(entry) in ("collected", "retrieved", "taken_out")
    )
    grants = Counter(entry["data"]["grant"] for entry in entries if _word(entry) == "deposited")
    for subject, times in (came + Counter()).items():
        if times > 1:
            yield f"{subject} was deposited {times} times"
    for subject, times in went.items():
        if times > came[subject]:
            yield f"{subject} left {times} times and came {came[subject]} times"
    for grant, times in grants.items():
        if times > 1:
            yield f"{grant} was made {times} times"


def _word(entry: Entry) -> str:
    """What an entry of the locker says, in a word."""
    kind: str = entry["type"]
    return kind.removeprefix("postern.locker.") if kind.startswith("postern.locker.") else ""


def _place(entry: Entry) -> str:
    """The compartment that an entry is about."""
    name: str = entry["data"].get("compartment") or entry.get("subject") or ""
    return name
