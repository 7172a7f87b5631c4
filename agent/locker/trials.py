"""Which way round each door's bit is meant, from what it was while the door was shut, and open. Pure.

    trials = [Trial(lock=1, shut=True, open=False), Trial(lock=2, shut=False, open=True)]
    proposal(board, trials).line        { address = 0, locks = 2, polarity = "1_locked", inverted = [2] }

Only a door that was seen both ways counts: what nobody opened is not known, whatever its bit says.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from drivers.doors import Board, Fact, Levels

SWITCHES = (Fact.HOOK, Fact.CONTACT)

Bits = Mapping[int, bool | None]
"""The bit of each lock's switch, as its board sends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One door, opened and shut by hand. None for a bit that did not follow it."""

    lock: int
    shut: bool | None = None
    open: bool | None = None
    instead: tuple[int, ...] = ()
    """Locks whose bits moved although their doors were left alone."""

    @property
    def proven(self) -> bool:
        return self.shut is not None and self.open is not None and self.shut != self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the config should say of one board."""

    address: int
    locks: int
    polarity: str
    inverted: tuple[int, ...]
    unproven: tuple[int, ...]
    """Locks of which nothing is known: here they are as the config has them."""
    as_configured: bool

    @property
    def line(self) -> str:
        """An item of the unit's `boards`."""
        inverted = f", inverted = [{', '.join(map(str, self.inverted))}]" if self.inverted else ""
        return f'{{ address = {self.address}, locks = {self.locks}, polarity = "{self.polarity}"{inverted} }}'


def proposal(board: Board, trials: Collection[Trial]) -> Proposal:
    """The polarity that most of the doors have, and those that are the other way round."""
    shut_is = {trial.lock: trial.shut for trial in trials if trial.proven}
    configured = {lock: _configured(board, lock) for lock in range(1, board.locks + 1)}
    known = {**configured, **shut_is}
    ones = sum(bool(bit) for bit in known.values())
    one = ones * 2 > board.locks or (ones * 2 == board.locks and board.polarity.startswith("1"))
    return Proposal(
        address=board.address,
        locks=board.locks,
        polarity=f"{int(one)}_{board.polarity.partition('_')[2]}",
        inverted=tuple(lock for lock, bit in sorted(known.items()) if bool(bit) != one),
        unproven=tuple(lock for lock in configured if lock not in shut_is),
        as_configured=known == configured,
    )


def _configured(board: Board, lock: int) -> bool:
    """The bit that stands for a door that is shut, as the config has it."""
    return board.means(Fact.HOOK, lock, True)


def switches(board: Board, levels: Levels) -> Bits:
    """The bits that tell whether doors are shut: of contacts where there are any, or else of hooks."""
    fact = next((fact for fact in reversed(SWITCHES) if fact in levels), Fact.HOOK)
    bits: Sequence[bool | None] = levels.get(fact, ())
    return dict(enumerate(bits[: board.wired(fact)], start=1))


def moved(before: Bits, after: Bits) -> tuple[int, ...]:
    """Locks whose bits are others now."""
    return tuple(lock for lock in before if before[lock] != after.get(lock))
