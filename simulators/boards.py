"""What all virtual lock boards stand on: several boards on one RS-485 bus, and what goes wrong there.

    with Cu16Bus(tmp_path / "bus", {0: 16, 1: 16}) as bus:
        bus.door(1, 4).force()

A subclass takes a frame apart and answers for one board. Faults of the line are those of every virtual
device, the local echo of an adapter among them; those of boards are here.
"""

import asyncio
import termios
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from simulators.base import Faults, VirtualDevice
from simulators.doors import Door


@dataclass
class VirtualBoard:
    """One board at its address."""

    address: int
    doors: list[Door]
    inputs: list[bool] = field(default_factory=list)
    """Digital inputs; True is closed."""
    mute: bool = False
    """It hears, and acts, and says nothing."""
    dead: bool = False
    """Without power."""
    twin: bool = False
    """A second board has the same address, and says the same a little later."""
    answers_as: int | None = None
    """The address it puts into its answers, where that is not its own."""

    @property
    def said(self) -> int:
        return self.address if self.answers_as is None else self.answers_as


class LockBus(VirtualDevice):
    """Boards on one line."""

    BAUD = 9600

    def __init__(
        self, name: Path, boards: Mapping[int, int], faults: Faults | None = None, *, baud: int | None = None
    ) -> None:
        """`boards`: address to number of locks."""
        super().__init__(name, faults)
        self.baud = baud or self.BAUD
        self.boards = {
            address: VirtualBoard(address, [Door() for _ in range(locks)])
            for address, locks in boards.items()
        }
        self.asked: list[bytes] = []
        """Every whole frame that came, for a board that is here or not."""
        self._heard = bytearray()
        self._awaited: list[tuple[bytes, asyncio.Future[None]]] = []

    def door(self, board: int, lock: int) -> Door:
        """Locks count from 1, as they are printed on boards."""
        return self.boards[board].doors[lock - 1]

    async def asked_for(self, begin: bytes) -> None:
        """Until the host has next sent a frame that begins so, and it was dealt with."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((begin, done))
        await done

    def count(self, begin: bytes) -> int:
        """How many frames began so until now."""
        return sum(frame.startswith(begin) for frame in self.asked)

    # -- to be written from the manual ------------------------------------------------------------

    @abstractmethod
    def frame_in(self, heard: bytearray) -> bytes | None:
        """Take the next whole frame out of `heard`, and whatever comes before it."""

    @abstractmethod
    def obey(self, frame: bytes) -> None:
        """Do what a whole frame with a right checksum asks for."""

    # -- the line ---------------------------------------------------------------------------------

    def powered(self) -> None:
        self._heard.clear()

    def received(self, data: bytes) -> None:
        if termios.tcgetattr(self._slave)[4] != getattr(termios, f"B{self.baud}"):
            return  # at another speed these are no bytes
        self._heard += data
        while (frame := self.frame_in(self._heard)) is not None:
            self.asked.append(frame)
            self.obey(frame)
            for awaited in [one for one in self._awaited if frame.startswith(one[0])]:
                self._awaited.remove(awaited)
                if not awaited[1].done():
                    awaited[1].set_result(None)

    def there(self, address: int) -> VirtualBoard | None:
        """The board at an address, if it has power."""
        board = self.boards.get(address)
        return None if board is None or board.dead else board

    def answer(self, board: VirtualBoard, frame: bytes) -> None:
        """Say something for one board."""
        if board.mute:
            return
        self.send(frame)
        if board.twin:
            self.send(frame)


def bitmap(bits: list[bool], size: int) -> bytes:
    """`size` bytes, lowest lock in the lowest bit of the first."""
    return sum(bit << at for at, bit in enumerate(bits)).to_bytes(size, "little")
