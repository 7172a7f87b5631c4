"""What a broker's refusals mean for the entries that wait: pure decisions, no I/O.

A refusal is about the packet (too large, bad format), about load (quota), or about us (not authorised).
Only the first may ever cost an entry its turn: blame is narrowed down by sending less at a time until one
entry travels alone, and even then it takes several refusals. A network that fails, however often, proves
nothing against an entry.
"""

from dataclasses import dataclass

ENTRIES = 1024
"""Entries in one batch at most."""
PACE = 100
"""Batches in flight at most."""
STRIKES = 3
"""Times that one entry alone is refused before it is passed over."""
UNPROVEN = 3
"""Entries passed over in a row for a reason that names no fault of theirs, with none accepted since. A
broker that refuses more than that is probably at fault itself."""
PATIENT_STRIKES = 12
"""Strikes against each entry from then on: with the waits between them, minutes."""
DEATHS = 10
"""Connections that die at once on the same lone entry before it is passed over."""
PROMPT_S = 2.0
"""A death within this time of sending is an answer. Later it is the network: its time-outs are longer."""
WAIT_MOST_S = 60.0

UNSPECIFIED = 0x80
MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
IMPLEMENTATION_SPECIFIC = 0x83
RECEIVE_MAXIMUM_EXCEEDED = 0x93
TOO_LARGE = 0x95
RATE_TOO_HIGH = 0x96
QUOTA_EXCEEDED = 0x97
FORMAT_INVALID = 0x99

_ON_LOAD = frozenset({QUOTA_EXCEEDED, RECEIVE_MAXIMUM_EXCEEDED, RATE_TOO_HIGH})
_ON_CONTENT = frozenset({UNSPECIFIED, IMPLEMENTATION_SPECIFIC, TOO_LARGE, FORMAT_INVALID})
_PROVEN = frozenset({TOO_LARGE, FORMAT_INVALID})
_DEADLY = frozenset({MALFORMED, PROTOCOL_ERROR, TOO_LARGE, FORMAT_INVALID})
"""Reasons of a DISCONNECT that are about what we sent."""


@dataclass(frozen=True, slots=True)
class Again:
    """Send again from the cursor, after a random wait of at most so many seconds."""

    within: float = 0.0


@dataclass(frozen=True, slots=True)
class PassOver:
    """Leave the one entry of the batch behind, for the record."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to be done on this connection: drop it, and come back with backoff."""


Verdict = Again | PassOver | Leave


class Caution:
    """How much is sent at a time: learned from refusals, forgotten as entries are accepted."""

    def __init__(self) -> None:
        self.limit = ENTRIES
        """Entries in one batch."""
        self.pace = PACE
        """Batches in flight."""
        self._strikes = 0
        self._unproven = 0
        self._suspect = 0
        self._deaths = 0

    @property
    def alone(self) -> bool:
        """Whether the next entry is to travel with nothing else in flight, so that blame is certain."""
        return self.pace == 1

    def accepted(self) -> None:
        """The oldest batch has arrived."""
        self.limit = min(ENTRIES, 2 * self.limit)
        self.pace = min(PACE, 2 * self.pace)
        self._strikes = self._unproven = self._deaths = 0

    def refused(self, code: int, entries: int) -> Verdict:
        """The oldest batch, of so many entries, got this reason code, and nothing else is in flight now."""
        self.pace = 1
        if code in _ON_LOAD:
            self._strikes += 1
            return self._later()
        if code not in _ON_CONTENT:
            return Leave()
        if entries > 1:
            self.limit = entries // 2
            return Again()
        self._strikes += 1
        if self._strikes < self._enough(code):
            return self._later()
        self._unproven += code not in _PROVEN
        return self._passed_over()

    def died(self, first: int, entries: int, in_flight: int, code: int | None, after: float) -> Verdict:
        """The connection ended with these entries the oldest unacknowledged, `after` seconds in flight.

        PassOver is for this entry, Again and Leave are the same: there is no connection any more.
        """
        if code in _ON_LOAD:
            self.pace = 1
        elif code in _DEADLY or (code is None and after <= PROMPT_S):
            return self._suspected(first, entries, in_flight, STRIKES if code in _DEADLY else DEATHS)
        return Again()

    def _suspected(self, first: int, entries: int, in_flight: int, enough: int) -> Verdict:
        self._deaths = self._deaths + 1 if self._suspect == first else 1
        self._suspect = first
        certain = entries == 1 and in_flight == 1
        if certain and self._deaths >= enough:
            return self._passed_over()
        if self._deaths >= STRIKES or enough == STRIKES:
            self.limit = max(1, entries // 2)
            self.pace = 1
        return Again()

    def _enough(self, code: int) -> int:
        if code == TOO_LARGE:
            return 1
        return STRIKES if code in _PROVEN or self._unproven < UNPROVEN else PATIENT_STRIKES

    def _passed_over(self) -> Verdict:
        self._strikes = self._deaths = 0
        return PassOver()

    def _later(self) -> Verdict:
        return Again(min(WAIT_MOST_S, 0.5 * 2 ** min(self._strikes, 10)))
