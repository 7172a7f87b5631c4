"""`postern doors calibrate`: somebody opens and shuts each door, and the boards' bits are watched.

Nothing is pulsed. What comes out are the lines about polarity for the config, each of them seen at the door
itself. Enter leaves a door out, `q` ends it.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.locker.compartments import Wall
from agent.locker.looking import opened
from agent.locker.trials import Bits, Proposal, Trial, moved, proposal, switches
from agent.units import UnitSpec
from drivers.base import NoReply
from drivers.doors import Board, Fact

if TYPE_CHECKING:
    from drivers.boards import BoardsDriver

EXIT_DIFFERS = 1
LOOK_S = 0.1
ALIKE = 3
"""So many looks in a row have to show the same: switches bounce, and not every board has a checksum."""
MISSES = 5
"""So many questions in a row may stay without an answer."""


async def commission(spec: UnitSpec, wall: Wall) -> int:
    """All doors of a unit; the exit code. Raises what `opened` raises."""
    proposals: list[Proposal] = []
    async with opened(spec) as driver:
        print("Shut every door. Then open each one by hand when it is asked for, and shut it again.")
        print("Enter leaves a door out, q ends it. Nothing is pulsed.", flush=True)
        with _typed() as typed:
            goes_on = True
            for board in driver.boards:
                trials = []
                for lock in range(1, board.locks + 1):
                    trial = await _Hand(driver, board, typed).tried(lock, wall) if goes_on else None
                    goes_on = trial is not None
                    trials += [trial] if trial else []
                proposals.append(proposal(board, trials))
    return _tell(spec, proposals)


@dataclass(frozen=True, slots=True)
class _Hand:
    """Somebody at the doors of one board."""

    driver: "BoardsDriver[Any, Any]"
    board: Board
    typed: asyncio.Queue[str]

    async def tried(self, lock: int, wall: Wall) -> Trial | None:
        """What a door's bit did while it was opened and shut; None when whoever is there has had enough."""
        before = await self._bits()
        open_ = await self._asked(f"{self._name(lock, wall)}: open it ... ", before)
        if not isinstance(open_, dict):
            return open_
        shut = await self._asked("shut it ... ", open_)
        if not isinstance(shut, dict):
            return shut
        instead = tuple(other for other in moved(before, open_) if other != lock)
        trial = Trial(lock=lock, shut=shut[lock], open=open_[lock], instead=instead)
        print(self._verdict(trial), flush=True)
        return trial

    async def _asked(self, what: str, before: Bits) -> dict[int, bool | None] | Trial | None:
        """The bits once they are others than before; an empty trial if the door is left out."""
        print(what, end="", flush=True)
        while self.typed.empty():
            bits = await self._bits()
            if moved(before, bits):
                return dict(bits)
        if self.typed.get_nowait() == "q":
            print("ended", flush=True)
            return None
        print("left out", flush=True)
        return Trial(lock=0)

    async def _bits(self) -> Bits:
        """As they are for a few looks in a row. Raises NoReply."""
        alike, misses, last = 0, 0, None
        while last is None or alike < ALIKE:
            await asyncio.sleep(LOOK_S)
            try:
                bits = switches(self.board, await self.driver.bits(self.board.address))
            except NoReply:
                misses += 1
                if misses > MISSES:
                    raise
                continue
            alike, misses, last = alike + 1 if bits == last else 1, 0, bits
        return last

    def _name(self, lock: int, wall: Wall) -> str:
        door = self.driver.wall.number(self.board, Fact.HOOK, lock)
        unit = next((each for each in wall.compartments.values() if each.door == door), None)
        return (
            f"{unit.name if unit else 'a door of no compartment'} (board {self.board.address}, lock {lock})"
        )

    def _verdict(self, trial: Trial) -> str:
        if not trial.proven:
            others = ", ".join(map(str, trial.instead)) or "none"
            return f"WRONG: expected the bit of lock {trial.lock} to move, found that of {others}"
        as_configured = self.board.means(Fact.HOOK, trial.lock, True) == trial.shut
        word = "as configured" if as_configured else "the other way round than configured"
        others = f"; WRONG: that of {', '.join(map(str, trial.instead))} moved too" if trial.instead else ""
        return f"its bit is {int(bool(trial.shut))} when shut: {word}{others}"


def _tell(spec: UnitSpec, proposals: list[Proposal]) -> int:
    """The lines for the config, and what is still not known."""
    print(f"\nfor [unit.{spec.name}]:")
    print(f"boards = [{', '.join(each.line for each in proposals)}]")
    for each in proposals:
        if each.unproven:
            left = ", ".join(map(str, each.unproven))
            print(f"board {each.address}: not seen opened and shut: locks {left}; they stand as configured")
    differs = [each.address for each in proposals if not each.as_configured]
    if differs:
        print(f"this differs from the config: boards {', '.join(map(str, differs))}")
    else:
        print("this is as configured")
    return EXIT_DIFFERS if differs or any(each.unproven for each in proposals) else 0


@contextmanager
def _typed() -> Iterator[asyncio.Queue[str]]:
    """Lines as they are typed; none where nobody can type."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        said = os.read(source, 4096)
        if not said:
            loop.remove_reader(source)
        for line in said.decode(errors="replace").splitlines():
            lines.put_nowait(line.strip())

    try:
        loop.add_reader(source, read)
    except PermissionError:
        # A file, or nothing at all: there is no waiting for that.
        yield lines
        return
    try:
        yield lines
    finally:
        loop.remove_reader(source)
