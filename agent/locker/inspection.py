"""What would be wrong if somebody came to this locker now: from its boards' bits and its books. Pure.

    look at each board, then judge(wall, boards, books)

Nothing is pulsed to find out. Which way round a bit is meant cannot be seen from here; but a board at which
most doors read open is more likely wired the other way round than left open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.locker.compartments import Status, Wall
from drivers.doors import Fact

SWITCHES = (Fact.HOOK, Fact.CONTACT)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSeen:
    """One board of a unit, as it was just now."""

    unit: str
    address: int | None
    """None for a unit that is not there at all."""
    doors: range
    """Its doors, as the unit counts them."""
    problem: str = ""
    """Why it says nothing."""
    told: Mapping[Fact, Mapping[int, bool]] = field(default_factory=dict)
    """What its bits mean, by door: latched, shut, occupied, fed."""

    @property
    def place(self) -> str:
        return self.unit if self.address is None else f"{self.unit}, board {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    place: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the running agent knows; nothing of it where none runs."""

    statuses: Mapping[str, Status] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    known: bool = True

    def at_rest(self, name: str) -> bool:
        """Nobody is at that door."""
        return self.statuses.get(name, Status()).job is None


def judge(wall: Wall, boards: Sequence[BoardSeen], books: Books) -> list[Finding]:
    """Everything that is wrong, board by board and then compartment by compartment."""
    found: list[Finding] = []
    for board in boards:
        found += _board(wall, board, books)
    for name in wall.compartments:
        found += _books(name, books)
    return found


def _board(wall: Wall, board: BoardSeen, books: Books) -> Iterator[Finding]:
    if board.problem:
        yield Finding(place=board.place, expected="an answer", found=board.problem)
        return
    switches = {fact: board.told[fact] for fact in SWITCHES if fact in board.told}
    for fact, told in switches.items():
        if missing := [door for door in board.doors if door not in told]:
            yield Finding(
                place=board.place,
                expected=f"a {fact} bit for each of {len(board.doors)} doors",
                found=f"none for {_doors(wall, board.unit, missing)}",
            )
        yield from _shut(wall, board, fact, told, books)
    for door in board.doors:
        yield from _door(wall, board, door, books)


def _shut(
    wall: Wall, board: BoardSeen, fact: Fact, told: Mapping[int, bool], books: Books
) -> Iterator[Finding]:
    """Doors at which nobody is, and that read open all the same."""
    resting = {door: shut for door, shut in told.items() if _rests(wall, board.unit, door, books)}
    ajar = [door for door, shut in resting.items() if not shut]
    if len(ajar) > 1 and len(ajar) * 2 > len(resting):
        yield Finding(
            place=board.place,
            expected=f"most doors shut, by their {fact} bits",
            found=f"{len(ajar)} of {len(resting)} open: its polarity may be the other way round;"
            f" `postern doors calibrate {board.unit}` tells",
        )
        return
    for door in ajar:
        yield Finding(place=_doors(wall, board.unit, [door]), expected="shut", found=f"open, says its {fact}")


def _door(wall: Wall, board: BoardSeen, door: int, books: Books) -> Iterator[Finding]:
    said = {fact: told[door] for fact, told in board.told.items() if door in told}
    place = _doors(wall, board.unit, [door])
    resting = _rests(wall, board.unit, door, books)
    match said.get(Fact.HOOK), said.get(Fact.CONTACT):
        case True, False:
            yield Finding(place=place, expected="hook and contact to agree", found="latched, and open")
        case False, True if resting:
            yield Finding(place=place, expected="hook and contact to agree", found="shut, and not latched")
    if resting and said.get(Fact.SOLENOID):
        yield Finding(place=place, expected="its solenoid at rest", found="fed")
    compartment = wall.of(board.unit, door)
    content = said.get(Fact.CONTENT)
    if compartment is None or content is None or not books.known or not resting:
        return
    holds = books.statuses.get(compartment.name, Status()).parcel is not None
    if content != holds:
        words = {True: "a parcel inside", False: "nothing inside"}
        yield Finding(place=place, expected=words[holds], found=f"{words[content]}, says its sensor")


def _books(name: str, books: Books) -> Iterator[Finding]:
    status = books.statuses.get(name, Status())
    if name in books.out:
        yield Finding(place=name, expected="in service", found=f"out of service: {books.out[name]}")
    if status.quarantine is not None:
        yield Finding(place=name, expected="in use", found=f"in quarantine: {status.quarantine}")


def _rests(wall: Wall, unit: str, door: int, books: Books) -> bool:
    compartment = wall.of(unit, door)
    return compartment is None or books.at_rest(compartment.name)


def _doors(wall: Wall, unit: str, doors: Iterable[int]) -> str:
    """Compartments by name; a door that is none's by its number."""
    return ", ".join(each.name if (each := wall.of(unit, door)) else f"{unit} door {door}" for door in doors)
