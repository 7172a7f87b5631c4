"""One parcel's entries from all devices as one story, in the order in which it happened. No I/O.

    steps = tell(told)

Times are as later corrected. A device's own entries keep their order whatever its clock said; where a clock
could not be trusted the entry stands between its neighbours, and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent import epcis
from agent.fleet.device_log import Entry
from agent.fleet.sight import seconds
from agent.fleet.story_words import custody_after, what_happened, where

TRUSTED = frozenset({"gps", "ntp", "fleet"})
"""Sources of time that may order the entries of two devices."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An entry where it is kept. Ledgers of one device have rising numbers."""

    device: str
    ledger: int
    sequence: int
    entry: Entry

    @property
    def key(self) -> Key:
        return self.entry["source"], self.entry["id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far an entry is vouched for. Sizes of what was signed; None where nothing was yet."""

    checkpoint: int | None = None
    receipt: int | None = None
    signers: tuple[str, ...] = ()
    """Who has signed the receipt."""
    failure: str | None = None

    @property
    def words(self) -> str:
        if self.failure is not None:
            return f"NOT PROVEN: {self.failure}"
        if self.receipt is not None:
            return f"receipt {self.receipt}"
        return f"checkpoint {self.checkpoint}" if self.checkpoint is not None else "not signed yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened to the parcel."""

    told: Told
    time: str
    """RFC 3339, the best that is known."""
    recorded: str
    """As the entry says it."""
    trust: str
    """What its time rests on."""
    error_s: float | None
    ordered: bool
    """Whether its time can be compared with another device's; otherwise only its place counts."""
    what: str
    where: str
    position: Mapping[str, Any] | None
    position_missing: str
    kind: str
    """Type of the entry, without `postern.`."""
    proof: Proof = field(default_factory=Proof)

    @property
    def corrected(self) -> bool:
        return self.time != self.recorded

    @property
    def time_words(self) -> str:
        """How far the time is to be trusted."""
        error = f", off by {_span(self.error_s)} at most" if self.error_s is not None else ""
        source = {"gps": "GPS", "ntp": "NTP", "fleet": "the fleet", "rtc": "a clock of its own"}
        if not self.ordered and self.trust not in source:
            return "clock not set: only the order on this device is known"
        told = f"by {source.get(self.trust, self.trust)}{error}"
        return f"{told}, corrected later (it said {self.recorded[:19]}Z)" if self.corrected else told


def tell(found: Iterable[Told]) -> list[Step]:
    """A step for each entry; corrections of clocks among them tell better times."""
    known = [each for each in found if _is_whole(each.entry)]
    times = epcis.corrected_times([each.entry for each in known])
    latest = _corrections(known)
    steps = [_step(each, times, latest) for each in known if not _is_clock(each.entry)]
    return [step for _, step in _in_order(steps)]


def holder(steps: Sequence[Step], parcel: str) -> str:
    """Where the parcel is, as the last step about it that says so has it."""
    for step in reversed(steps):
        if (now := custody_after(step.told.entry, parcel)) is not None:
            return now
    return "not in anybody's custody as far as the entries say"


def proven(steps: Sequence[Step], proofs: Mapping[Key, Proof]) -> list[Step]:
    """The same with how far each is vouched for."""
    return [replace(step, proof=proofs.get(step.told.key, step.proof)) for step in steps]


def _step(told: Told, times: Mapping[Key, str], latest: Mapping[Key, Entry]) -> Step:
    entry, data = told.entry, told.entry["data"]
    time, clock = times.get(told.key), data["clock"]
    if time is not None:
        clock = latest[entry["source"], clock["boot"]]["data"]["clock"]
    trust, error = str(clock.get("trust", "none")), clock.get("error_s")
    return Step(
        told=told,
        time=time or entry["time"],
        recorded=entry["time"],
        trust=trust,
        error_s=float(error) if isinstance(error, int | float) else None,
        ordered=trust in TRUSTED,
        what=what_happened(entry),
        where=where(entry),
        position=data.get("position") if isinstance(data.get("position"), dict) else None,
        position_missing=str(data.get("position_missing") or ""),
        kind=entry["type"].removeprefix("postern."),
    )


def _in_order(steps: Iterable[Step]) -> list[tuple[float, Step]]:
    """Merged by time; each with the time that it has for this purpose."""
    devices: dict[str, list[Step]] = {}
    for step in steps:
        devices.setdefault(step.told.device, []).append(step)
    placed: list[tuple[float, Step]] = []
    for own in devices.values():
        own.sort(key=lambda step: (step.told.ledger, step.told.sequence))
        placed += zip(_places([(seconds(step.time) or 0.0, step.ordered) for step in own]), own, strict=True)
    return sorted(placed, key=lambda each: each[0])


def _places(times: Sequence[tuple[float, bool]]) -> list[float]:
    """Times that never fall: those not to be trusted are moved between their trusted neighbours."""
    ceilings, ceiling = list[float](), float("inf")
    for time, ordered in reversed(times):
        ceiling = min(ceiling, time) if ordered else ceiling
        ceilings.append(ceiling)
    places, floor = list[float](), float("-inf")
    for (time, ordered), ceiling in zip(times, reversed(ceilings), strict=True):
        floor = max(floor, time if ordered else min(time, ceiling))
        places.append(floor)
    return places


def _corrections(known: Iterable[Told]) -> dict[Key, Entry]:
    """The last correction of each boot, by source and boot."""
    clocks = [each.entry for each in known if _is_clock(each.entry)]
    clocks.sort(key=lambda entry: int(entry["data"]["clock"]["mono_ns"]))
    return {(entry["source"], entry["data"]["clock"]["boot"]): entry for entry in clocks}


def _is_clock(entry: Entry) -> bool:
    return bool(entry["type"] == "postern.clock.corrected")


def _is_whole(entry: Entry) -> bool:
    """Whether it says when it was made; a correction also by how much."""
    match entry["data"]:
        case {"clock": {"boot": str(), "mono_ns": int()}, "epoch_ns": int()}:
            return True
        case {"clock": {"boot": str(), "mono_ns": int()}}:
            return not _is_clock(entry)
    return False


def _span(error_s: float) -> str:
    if error_s < 1:
        return f"{error_s * 1000:.0f} ms"
    return f"{error_s:.0f} s" if error_s < 120 else f"{error_s / 60:.0f} min"
