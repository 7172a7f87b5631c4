"""How far the entries of each lane have gone. Pure.

    cursors = Cursors.load(records)
    cursors = cursors.moved(Lane.CUSTODY, 900)
    cursors.records({})      # {"cursor": 100, "ahead": {"custody": 900}}

The record `cursor` says up to where everything is with the broker. While there is a backlog some lanes are
ahead of that, and the record `ahead` says how far. The record `again` says from where the next connection
begins all the same, lane by lane. Losing any costs entries sent twice, never one unsent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.workflow import Lane

CURSOR, AHEAD, AGAIN = "cursor", "ahead", "again"
"""Records."""


@dataclass(frozen=True, slots=True)
class Cursors:
    """For each lane the sequence up to which its entries are dealt with."""

    places: tuple[int, ...] = (0,) * len(Lane)

    @classmethod
    def load(cls, records: Mapping[str, Any]) -> Self:
        """As they were remembered; a journal that was sent in one lane has only the one cursor."""
        floor, ahead = _place(records.get(CURSOR)), records.get(AHEAD)
        places = ahead if isinstance(ahead, Mapping) else {}
        return cls(tuple(max(floor, _place(places.get(_name(lane)))) for lane in Lane))

    def records(self, before: Mapping[str, Any], *, again: "Cursors | None" = None) -> dict[str, Any]:
        """What is to be remembered, where those before are: the one number, and what differs from it."""
        ahead = {_name(lane): place for lane, place in self.each() if place > self.floor}
        told = {AHEAD: ahead or None, AGAIN: None if again in (None, self) else [*again.places]}
        return {CURSOR: self.floor, **{key: each for key, each in told.items() if each or key in before}}

    @property
    def floor(self) -> int:
        """Everything up to here is dealt with."""
        return min(self.places)

    def of(self, lane: int) -> int:
        return self.places[lane]

    def each(self) -> list[tuple[Lane, int]]:
        return [(lane, self.places[lane]) for lane in Lane]

    def moved(self, lane: Lane, to: int) -> "Cursors":
        """One lane further on; never back."""
        return Cursors(tuple(max(place, to) if own is lane else place for own, place in self.each()))

    def all_moved(self, to: int) -> "Cursors":
        """Every lane at least there."""
        return Cursors(tuple(max(place, to) for place in self.places))

    def joined(self, other: "Cursors") -> "Cursors":
        """Of each lane the further place."""
        return Cursors(tuple(map(max, self.places, other.places)))

    def met(self, other: "Cursors") -> "Cursors":
        """Of each lane the nearer place."""
        return Cursors(tuple(map(min, self.places, other.places)))

    def capped(self, again: object) -> "Cursors":
        """No lane beyond its place in a record `again`; as it is where there is none."""
        if again is None:
            return self
        places = again if isinstance(again, list) and len(again) == len(Lane) else [0] * len(Lane)
        return self.met(Cursors(tuple(map(_place, places))))

    def settled(self, newest: Mapping[Lane, int], last: int) -> "Cursors":
        """Lanes of which nothing waits count as being at the end of the journal."""
        return Cursors(tuple(last if place >= newest[lane] else place for lane, place in self.each()))


def _place(value: object) -> int:
    """What cannot be a place is none: too little is sent twice, too much would never be."""
    return value if isinstance(value, int) and value > 0 else 0


def _name(lane: Lane) -> str:
    return lane.name.lower()
