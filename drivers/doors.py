"""The doors behind lock boards: where each is, what its bits mean, and when one of them has changed. Pure.

Boards answer with levels, one bit for each lock. Three facts are kept apart, because they do disagree: a
solenoid is fed, a lock's hook holds, a door is in its frame or something lies behind it. Which way round a
bit is meant is not portable, not even between locks on one board: it depends on whether the lock's switch
is closed when locked or when open. So polarity stands in the config and is tried out at commissioning.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from drivers.base import ActionRefused, Options
from drivers.readings import (
    BoardChanged,
    ContentChanged,
    DoorChanged,
    DoorSource,
    DoorState,
    InputChanged,
    SolenoidChanged,
)

Changed = DoorChanged | ContentChanged | SolenoidChanged | InputChanged


class Fact(StrEnum):
    """What a board's bits can be about."""

    HOOK = "hook"
    CONTACT = "contact"
    CONTENT = "content"
    SOLENOID = "solenoid"
    INPUT = "input"


Levels = Mapping[Fact, Sequence[bool | None]]
"""The bits of one board as it sends them, first lock first; None where it says that it does not know."""


def _as_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


AsTuple = BeforeValidator(_as_tuple)
"""TOML has lists; what is read from it shall not change."""


class Board(Options):
    """One board on the bus. Each kind narrows the bounds."""

    address: int
    locks: int
    """Locks that are wired, from the first on: the doors of this board."""
    polarity: Literal["1_locked", "0_locked", "1_closed", "0_closed"]
    """What a bit of 1, or of 0, says of a lock (`locked`) or of a door's contact (`closed`)."""
    inverted: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AsTuple] = ()
    """Locks of this board whose switch is the other way round than those of the rest."""

    @property
    def plain_inputs(self) -> int:
        """Digital inputs that are nothing of a door's."""
        return 0

    def wired(self, fact: Fact) -> int:
        """How many of the bits about a fact stand for something; boards may send more."""
        return self.plain_inputs if fact is Fact.INPUT else self.locks

    @model_validator(mode="after")
    def _inverted_are_there(self) -> Self:
        for lock in self.inverted:
            if lock > self.locks:
                raise ValueError(f"inverted locks from 1 to {self.locks}")
        return self

    def means(self, fact: Fact, number: int, bit: bool) -> bool:
        """Whether the hook holds, the door is shut, something is inside, the solenoid is fed."""
        if fact in (Fact.HOOK, Fact.CONTACT):
            return (bit == self.polarity.startswith("1")) != (number in self.inverted)
        return bit

    def read(self, fact: Fact, levels: Levels) -> Iterator[tuple[int, bool]]:
        """What the bits about a fact mean, with their numbers from 1; without those the board cannot tell."""
        for at, bit in enumerate(levels.get(fact, ())[: self.wired(fact)], start=1):
            if bit is not None:
                yield at, self.means(fact, at, bit)


MOST_BOARDS = 32
"""No RS-485 bus is made to carry more loads."""


def _as_tables(given: Any) -> Any:
    """`boards = [0, 1]` is short for tables with nothing but an address."""
    if isinstance(given, list) and not 1 <= len(given) <= MOST_BOARDS:
        raise ValueError(f"1 to {MOST_BOARDS} boards")
    if not isinstance(given, list):
        return given
    return tuple({"address": each} if type(each) is int else each for each in given)


AsTables = BeforeValidator(_as_tables)

LONGEST_PULSE_MS = 1000
"""No solenoid of a compartment lock is made to be fed for longer, and no config can have it longer."""


class BusOptions(Options):
    """What every kind of board has; its boards are its own."""

    boards: Sequence[Board]
    poll_ms: int = Field(250, ge=50, le=500)
    """From one question about a board to the next while nothing happens: a forced door is told this late."""
    watch_ms: int = Field(50, ge=25, le=100)
    """The same after a pulse, until the hook has dropped."""
    gap_ms: int = Field(25, ge=10, le=100)
    """Silence between an answer and the next question: boards are slow to let go of the line."""
    answer_ms: int = Field(200, ge=20, le=1000)
    """How long a board may take to answer a question about its state."""

    @field_validator("boards")
    @classmethod
    def _each_address_once(cls, boards: Sequence[Board]) -> Sequence[Board]:
        addresses = [board.address for board in boards]
        if len(set(addresses)) < len(addresses):
            raise ValueError("boards with addresses of their own")
        return boards


B = TypeVar("B", bound=Board)


@dataclass(frozen=True)
class Wall(Generic[B]):
    """All doors of a unit: counted from 1 through its boards, as the config lists them."""

    boards: Sequence[B]

    def place(self, door: int) -> tuple[B, int]:
        """The board of a door, and which of its locks that is. Raises ActionRefused."""
        left = door
        for board in self.boards:
            if 1 <= left <= board.locks:
                return board, left
            left -= board.locks
        raise ActionRefused(f"expected a door from 1 to {self.doors}, got {door}")

    @property
    def doors(self) -> int:
        return sum(board.locks for board in self.boards)

    def number(self, board: B, fact: Fact, at: int) -> int:
        """The door, or input, that is the board's `at`-th, counted from 1."""
        before = self.boards[: self.boards.index(board)]
        return at + sum(each.wired(fact) for each in before)

    def exceptions(self, found: Mapping[int, Levels]) -> dict[str, str]:
        """Doors that are open, compartments that hold something: the rest of the wall is at rest."""
        facts = {"open": (Fact.HOOK, False), "ajar": (Fact.CONTACT, False), "occupied": (Fact.CONTENT, True)}
        return {
            word: listed(
                self.number(board, fact, at)
                for board in self.boards
                for at, bit in enumerate(
                    found.get(board.address, {}).get(fact, ())[: board.wired(fact)], start=1
                )
                if bit is not None and board.means(fact, at, bit) is sought
            )
            for word, (fact, sought) in facts.items()
        }

    def news(self, board: B, answers: bool) -> BoardChanged:
        first = self.number(board, Fact.HOOK, 1)
        return BoardChanged(
            board=board.address, first_door=first, last_door=first + board.locks - 1, answers=answers
        )


@dataclass(slots=True)
class _Level:
    told: bool | None = None
    rival: bool | None = None
    """A level that differs from the one told, and has not been seen often enough to be believed."""
    seen: int = 0


class Edges(Generic[B]):
    """From levels, asked for again and again, to one reading for each change."""

    def __init__(self, wall: Wall[B], confirm: int = 1) -> None:
        self._wall = wall
        self._confirm = confirm
        """How often in a row a level must be seen to be believed."""
        self._levels: dict[tuple[int, Fact, int], _Level] = {}

    def of(self, board: B, levels: Levels) -> Iterator[Changed]:
        """What has changed on a board, in the order of its locks.

        The hook speaks last: when it says that a door is shut, what is behind the door has been told.
        """
        for fact in sorted(levels, key=lambda fact: fact is Fact.HOOK):
            for at, level in board.read(fact, levels):
                known = self._levels.setdefault((board.address, fact, at), _Level())
                yield from self._noted(known, board, fact, at, level)

    def forget(self, board: B) -> None:
        """Whatever a board says next is told as found, not as changed."""
        for key in [key for key in self._levels if key[0] == board.address]:
            del self._levels[key]

    def _noted(self, known: _Level, board: B, fact: Fact, at: int, level: bool) -> Iterator[Changed]:
        if level == known.told:
            known.rival = None
            return
        known.seen = known.seen + 1 if known.rival == level else 1
        known.rival = level
        if known.seen >= self._confirm:
            first, known.told, known.rival = known.told is None, level, None
            yield changed(fact, self._wall.number(board, fact, at), level, first=first)


def changed(fact: Fact, number: int, level: bool, *, first: bool) -> Changed:
    """The reading of one fact about one door, or input."""
    match fact:
        case Fact.CONTENT:
            return ContentChanged(door=number, occupied=level, first=first)
        case Fact.SOLENOID:
            return SolenoidChanged(door=number, energised=level, first=first)
        case Fact.INPUT:
            return InputChanged(input=number, closed=level, first=first)
    source = DoorSource.HOOK if fact is Fact.HOOK else DoorSource.CONTACT
    state = DoorState.CLOSED if level else DoorState.OPEN
    return DoorChanged(door=number, state=state, source=source, first=first)


def bits_of(data: bytes, count: int) -> tuple[bool, ...]:
    """The first `count` bits: lowest byte first, lowest bit of each byte first."""
    return tuple(bool(data[at // 8] >> at % 8 & 1) for at in range(min(count, len(data) * 8)))


def listed(numbers: Iterable[int]) -> str:
    """As people read them: `1,2,17`."""
    return ",".join(str(number) for number in sorted(numbers))
