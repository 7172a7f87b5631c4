"""What whoever listens to the broker can tell of each device, from its messages alone. No I/O.

    watch = Watch()
    for change in watch.take(message.topic, message.payload, encoding, now): ...
    watch.devices["van-0042"].facts()

Nothing in it is verified: it is for people to look at. What a device has signed and what is owed is the
business of the fleet's file, which may be read in first (`seed`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.envelope import Envelope, Kind, Refused
from agent.fleet.alarms import MOST, Alarm, alarm_of, over
from agent.fleet.collect import BadBatch, unpack
from agent.fleet.device_log import DeviceLog, Entry, New, Ranges
from agent.note import BadNote, Checkpoint, Note

_TOPIC = re.compile(
    r"postern/v1/([a-z0-9][a-z0-9-]{2,39})/(up/(?:entries|state|checkpoint|config|renewal|diagnostics)|down/head)"
)

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """Something about a device is new."""

    what: str
    """The end of the topic: `state`, `entries`, `checkpoint`, `config` or `head`; `alarm` for one alarm."""
    device: str
    alarm: Alarm | None = None
    entries: tuple[Entry, ...] = ()
    """Those that were not heard before."""


@dataclass(slots=True)
class Sight:
    """One device as it is seen. Times in seconds of Unix time."""

    device: str
    log: DeviceLog
    birth: Mapping[str, Any] = field(default_factory=dict)
    """The last one; a will does not take it away."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """As it reports it itself."""
    signed: int = 0
    epoch: str = ""
    head: tuple[int, int] | None = None
    """Version and time of the newest head that stands at the broker."""
    fix: tuple[float, float, float] | None = None
    """Latitude, longitude and when it was there."""
    alarms: list[Alarm] = field(default_factory=list)
    """Oldest first."""
    whole: bool = False
    """Whether all that it ever sent is known, from the fleet's file."""
    waiting: float | None = None
    """Since when something is not here that it has signed for, as far as that is known."""

    @property
    def state(self) -> str:
        known = self.log.state
        return "unknown" if known is None else "online" if self.log.online else "offline"

    @property
    def open_alarms(self) -> list[Alarm]:
        return [each for each in self.alarms if not each.over]

    @property
    def backlog(self) -> int | None:
        """Entries signed for and not heard; None where nothing was heard to count from."""
        heard = self.log.epochs.get(self.epoch)
        if heard is None:
            return None if self.signed and not self.whole else 0
        missing = sum(last - first + 1 for first, last in heard.gaps)
        return missing + max(0, self.signed - heard.highest)

    @property
    def knowledge_at(self) -> int | None:
        """When the head that it holds was signed; None where the broker holds another, or none."""
        trust = _tree(self.birth.get("trust"))
        if self.head is None or trust.get("head") != self.head[0]:
            return None
        return self.head[1]

    @property
    def certificate_until(self) -> float | None:
        """Unix time at which its certificate towards the broker ends; None where it says of none."""
        until = _tree(self.birth.get("certificate")).get("until")
        return seconds(until) if isinstance(until, str) else None

    def facts(self) -> Facts:
        """As JSON."""
        trust = _tree(self.birth.get("trust"))
        position = self.fix and {"lat": self.fix[0], "lon": self.fix[1], "at": self.fix[2]}
        return {
            "device": self.device,
            "state": self.state,
            "version": self.birth.get("version"),
            "epoch": self.epoch,
            "units": {
                name: _tree(unit).get("state") for name, unit in _tree(self.birth.get("units")).items()
            },
            "config": {name: self.config.get(name) for name in ("version", "state")} if self.config else None,
            "certificate_until": self.certificate_until,
            "documents": _tree(trust.get("documents")),
            "complete": trust.get("complete"),
            "head": trust.get("head"),
            "head_offered": self.head and self.head[0],
            "knowledge_at": self.knowledge_at,
            "signed": self.signed,
            "backlog": self.backlog,
            "waiting_since": self.waiting,
            "position": position,
            "alarms": [each.as_json() for each in self.open_alarms],
        }


class Watch:
    """All devices that were heard of."""

    def __init__(self) -> None:
        self.devices: dict[str, Sight] = {}
        self.rejected = 0
        """Messages that no device's agent, and no fleet, can have sent."""

    def of(self, device: str) -> Sight:
        if device not in self.devices:
            self.devices[device] = Sight(device, DeviceLog(device))
        return self.devices[device]

    @property
    def alarms(self) -> list[Alarm]:
        """Of all devices, newest first."""
        found = (alarm for sight in self.devices.values() for alarm in sight.alarms)
        return sorted(found, key=lambda alarm: alarm.at, reverse=True)

    def take(self, topic: str, payload: bytes, encoding: str | None, now: float) -> list[Change]:
        """One message. What is wrong with it is counted."""
        found = _TOPIC.fullmatch(topic)
        if found is None:
            self.rejected += 1
            return []
        sight, what = self.of(found[1]), found[2].partition("/")[2]
        try:
            entries, alarms = self._read(sight, what, payload, encoding)
        except (BadBatch, BadNote, Refused, ValueError, RecursionError):
            self.rejected += 1
            return []
        if not sight.backlog:
            sight.waiting = None
        elif sight.waiting is None:
            sight.waiting = now
        first = Change(what, sight.device, entries=tuple(entries))
        return [first, *(Change("alarm", sight.device, each) for each in alarms)]

    def _read(
        self, sight: Sight, what: str, payload: bytes, encoding: str | None
    ) -> tuple[list[Entry], list[Alarm]]:
        """Entries that are new, and what of them is an alarm."""
        match what:
            case "entries":
                heard = [_heard(sight, line) for line in unpack(payload, encoding)]
                new = [entry for entry, _ in heard if entry is not None]
                return new, [alarm for _, alarm in heard if alarm is not None]
            case "state":
                _born(sight, _object(payload))
            case "config":
                sight.config = _object(payload)
            case "checkpoint":
                _signed(sight, Checkpoint.parse(Note.parse(payload).text))
            case "head" if payload:
                claims = Envelope.parse(Kind.HEAD, payload).claims(Kind.HEAD)
                sight.head = claims.ver, claims.iat
        return [], []

    def recall(self, past: "Past") -> None:
        """What somebody else has heard of a device, before or meanwhile."""
        sight = self.of(past.device)
        for line in past.lines:
            _heard(sight, line)
        sight.alarms = sorted([*sight.alarms, *past.alarms], key=lambda alarm: alarm.at)[-MOST:]
        if sight.epoch in ("", past.epoch):
            heard = sight.log.epochs.get(past.epoch, Ranges())
            sight.log.epochs[past.epoch] = Ranges.of([*heard.spans, *past.spans])
            sight.whole, sight.epoch, sight.signed = True, past.epoch, sight.signed or past.signed
            sight.waiting = past.since if sight.backlog else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the fleet's file has of a device's newest journal."""

    device: str
    epoch: str
    signed: int
    spans: Sequence[tuple[int, int]]
    """First and last of each run of entries that are here, or will not come."""
    since: float | None
    """When the last was made before the first that is missing."""
    lines: Sequence[bytes] = ()
    """The latest, oldest first."""
    alarms: Sequence[Alarm] = ()


def _born(sight: Sight, state: Mapping[str, Any]) -> None:
    sight.log.state = dict(state)
    if state.get("online") is True:
        sight.birth = state
        _of_epoch(sight, str(state.get("epoch") or ""))


def _signed(sight: Sight, checkpoint: Checkpoint) -> None:
    _of_epoch(sight, checkpoint.origin.rpartition("/")[2])
    sight.signed = checkpoint.size


def _of_epoch(sight: Sight, epoch: str) -> None:
    """A new journal begins with nothing signed."""
    if epoch and epoch != sight.epoch:
        sight.epoch, sight.signed = epoch, 0


def _heard(sight: Sight, line: bytes) -> tuple[Entry | None, Alarm | None]:
    """An entry that was not heard before, and the alarm that it is."""
    taken = sight.log.take(line)
    if not isinstance(taken, New):
        return None, None
    entry = taken.entry
    if (fix := _fix(entry)) is not None and (sight.fix is None or fix[2] >= sight.fix[2]):
        sight.fix = fix
    sight.alarms = over(sight.alarms, entry)
    alarm = alarm_of(sight.device, entry)
    if alarm is not None:
        sight.alarms = [*sight.alarms, alarm][-MOST:]
    return entry, alarm


def _fix(entry: Entry) -> tuple[float, float, float] | None:
    """Where the device was, and when."""
    data = entry["data"]
    match data.get("position") or data.get("last_known"):
        case {"lat": float() | int() as lat, "lon": float() | int() as lon, "age_s": float() | int() as age}:
            at = seconds(entry["time"])
            return None if at is None else (lat, lon, at - age)
    return None


def seconds(time: str) -> float | None:
    """Unix time of an entry's time."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None


def _object(payload: bytes) -> Mapping[str, Any]:
    """Raises ValueError."""
    found = json.loads(payload)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {type(found).__name__}")
    return found


def _tree(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
