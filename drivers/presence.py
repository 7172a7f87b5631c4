"""Edges out of repeated sightings: which tags are in the field, who has just come, who has gone.

A reader reports a tag again and again while it lies in the field. `Presence` says of each sighting
whether it is news, and which tags have not been sighted for their time-to-absence. It never reads a
clock: `now` is any monotonic count of seconds, given by the caller and never running backwards.

>>> presence = Presence(0.4)
>>> presence.sighted(b"A", now=10.0).name, presence.sighted(b"A", now=10.3).name
('ARRIVED', 'STAYED')
>>> presence.leave(now=10.5), presence.leave(now=10.8)
([], [b'A'])
"""

from enum import Enum, auto

CAPACITY = 1024
"""Tags in one field at once; a UHF reader over a full pallet stays below it."""


class Sighting(Enum):
    ARRIVED = auto()
    STAYED = auto()
    REFUSED = auto()
    """The field is full: this tag is not followed, and may arrive once another has left."""


class Presence:
    """The tags in one reader's field.

    At most `capacity` tags are followed. When it is full a further tag is refused, and none that is there
    is pushed out: pushing out would make tags that lie still leave and arrive for ever.
    """

    def __init__(self, absent_after: float, capacity: int = CAPACITY) -> None:
        self.absent_after = absent_after
        """Seconds without a sighting after which a tag has left."""
        self.capacity = capacity
        self._last_seen: dict[bytes, float] = {}

    def sighted(self, uid: bytes, now: float) -> Sighting:
        """What this sighting means."""
        stayed = self._last_seen.pop(uid, None) is not None
        if not stayed and len(self._last_seen) >= self.capacity:
            return Sighting.REFUSED
        # Taken out and put back, so that the dictionary is ordered by last sighting.
        self._last_seen[uid] = now
        return Sighting.STAYED if stayed else Sighting.ARRIVED

    def forget(self, uid: bytes) -> None:
        """Have the next sighting of this tag be its arrival."""
        self._last_seen.pop(uid, None)

    def leave(self, now: float) -> list[bytes]:
        """Forget and return the tags that have left by `now`, longest unseen first."""
        left: list[bytes] = []
        for uid, seen in self._last_seen.items():
            if seen + self.absent_after > now:
                break
            left.append(uid)
        for uid in left:
            del self._last_seen[uid]
        return left

    def next_leave(self) -> float | None:
        """The earliest moment at which a tag could leave, or None while the field is empty."""
        for seen in self._last_seen.values():
            return seen + self.absent_after
        return None
