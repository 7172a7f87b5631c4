"""What an action asks of people: which factors, how good, and how many persons. Pure.

Policy((frozenset({"badge", "slot"}),)).at(Freshness.STALE).sets   # (): nobody can do it any more
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from agent.freshness import Freshness

FactorSets = tuple[frozenset[str], ...]
"""Each set is enough."""

LEVELS = {"badge": 0, "pin": 1, "slot": 1, "static": 1, "fido2": 3}
"""Assurance of each kind of factor. A badge can be cloned: it says who, and proves nothing."""
ENOUGH_ALONE = 3
"""From this level on one factor is two: the card that is held, and the body that unlocks it."""
BODY = frozenset({"slot", "static", "fido2"})
"""Kinds that only a body unlocks. A PIN can be told to somebody else."""

ACTIONS = ("session", "handover", "deposit", "retrieve", "technician")
"""What people prove themselves for: the first two with a courier's device, the others at a locker."""


def level(factors: Iterable[str]) -> int:
    """Assurance of a set: that of its best factor."""
    return max((LEVELS[kind] for kind in factors), default=0)


def sound(factors: Set[str]) -> bool:
    """Whether a set may be asked for: a badge can be cloned, a lone biometric below level 3 is a guess."""
    best = level(factors)
    return best >= ENOUGH_ALONE or (len(factors) >= 2 and best >= 1)


@dataclass(frozen=True, slots=True)
class Policy:
    """What one action asks for."""

    sets: FactorSets
    second_person: bool = False
    """Another subject has to prove themselves as well, with a set of their own."""
    level: int = 0
    """Sets below this level count for nothing."""

    def at(self, freshness: Freshness | None) -> "Policy":
        """What is left of it when the fleet's knowledge has aged; None where no fleet is the authority."""
        sets = tuple(factors for factors in self.sets if level(factors) >= self.level)
        match freshness:
            case Freshness.GRACE:
                sets = tuple(factors for factors in sets if factors & BODY)
            case Freshness.STALE:
                sets = tuple(factors for factors in sets if level(factors) >= ENOUGH_ALONE)
                return replace(self, sets=sets, second_person=True)
            case Freshness.CLOSED:
                sets = ()
        return replace(self, sets=sets)

    def met_by(self, kinds: Iterable[str]) -> bool:
        """Whether one person's factors complete one of the sets."""
        shown = set(kinds)
        return any(factors <= shown for factors in self.sets)
