"""How long entries are kept, and what happens as the journal fills. Pure: figures in, verdicts out.

    level = judge(used, limits, before)   # NORMAL, WARN, THIN or FULL
    age_s(line, now) >= limits.keep_s(Lane.STATE)

Custody is never dropped for room. What is, is declared: produced = delivered + declared, for every lane.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from agent.clock import NS, Moment, Trust
from agent.workflow import Draft, Lane

MIB = 1024 * 1024
DAY_S = 86_400
WORTH = 32
"""Fewer entries of one tile are not worth dropping: hashes and declaration would take as much room."""
RANGES = 64
"""Ranges that one declaration lists at most."""

_RISING = (0.80, 0.90, 0.95)
_FALLING = (0.70, 0.85, 0.92)
"""Shares of the cap at which a level is reached, and below which it is left. What is above the highest is
for refusals, ends of sessions and doors."""
_TRUSTED = (Trust.GPS, Trust.NTP, Trust.FLEET)
"""An RTC alone may be years ahead."""


class Level(IntEnum):
    """How full the journal is, and so what is done."""

    NORMAL = 0
    WARN = 1
    """It was said in an entry."""
    THIN = 2
    """Positions are not written any more, and the oldest unsent telemetry is dropped."""
    FULL = 3
    """No parcel is taken or offered any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the config says about the journal's size and time."""

    size: int
    """Bytes that the file may take."""
    days: Mapping[Lane, int]

    def keep_s(self, lane: Lane) -> float:
        """How long an entry of a lane is kept at least, receipt or not."""
        return self.days[lane] * DAY_S


def judge(used: int, limits: Limits, before: Level) -> Level:
    """The level with so many bytes in use. A level once reached is left only well below it."""
    share = used / limits.size
    reached = sum(share >= mark for mark in _RISING)
    left = sum(share >= mark for mark in _FALLING)
    return Level(max(reached, min(before, left)))


def crossing(before: Level, after: Level, used: int, limits: Limits, device: str) -> list[Draft]:
    """What is to be said when the level changes."""
    data = {"used": used, "size": limits.size}
    drafts = []
    if before is Level.NORMAL:
        drafts.append(Draft("journal.filling", device, data, Lane.STATE))
    if after is Level.FULL:
        drafts.append(Draft("journal.filled", device, data, Lane.STATE))
    if before is Level.FULL:
        drafts.append(Draft("journal.recovered", device, data, Lane.STATE))
    return drafts


def trusted(now: Moment) -> bool:
    """Whether this moment may decide that something is old."""
    return now.trust in _TRUSTED


def age_s(line: bytes, now: Moment) -> float | None:
    """How long ago an entry was made; None where one of the two clocks cannot be trusted."""
    if not trusted(now):
        return None
    entry = json.loads(line)
    clock = entry["data"]["clock"]
    if clock["boot"] == now.boot:
        return now.since(clock["mono_ns"])
    if clock["trust"] not in _TRUSTED:
        return None
    return now.utc_ns / NS - datetime.fromisoformat(entry["time"]).timestamp()


def losses(lane: Lane, lost: Mapping[int, bytes], device: str) -> list[Draft]:
    """The entries that declare these lost, each naming a bounded number of ranges.

    `lost` are leaf hashes by sequence, in order. They go with the declaration: without them nobody who has
    only the other entries could follow the tree.
    """
    spans = _spans(lost)
    return [_loss(lane, spans[at : at + RANGES], lost, device) for at in range(0, len(spans), RANGES)]


def unwritten(count: int, device: str) -> Draft:
    """The entry that declares positions lost that were never written, and so have no sequence."""
    data = {"lane": Lane.TELEMETRY.name.lower(), "count": count, "ranges": [], "unwritten": count}
    return Draft("journal.declared_loss", device, data, Lane.STATE)


def _loss(lane: Lane, spans: Sequence[list[int]], lost: Mapping[int, bytes], device: str) -> Draft:
    hashes = [lost[sequence] for first, last in spans for sequence in range(first, last + 1)]
    leaves = b64encode(b"".join(hashes)).decode()
    data = {"lane": lane.name.lower(), "count": len(hashes), "ranges": spans, "leaves": leaves}
    return Draft("journal.declared_loss", device, data, Lane.STATE)


def _spans(sequences: Iterable[int]) -> list[list[int]]:
    """First and last of every run; the sequences come in order."""
    spans: list[list[int]] = []
    for sequence in sequences:
        if spans and spans[-1][1] == sequence - 1:
            spans[-1][1] = sequence
        else:
            spans.append([sequence, sequence])
    return spans
