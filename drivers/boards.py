"""What all lock boards on an RS-485 bus have in common: one owner that polls, and pulses once.

A port carries several boards. They are asked in turn what their bits are, slowly while nothing happens and
fast after a pulse, until the hook has dropped; changes become readings. A board that falls silent is told
and asked less often; the bus is deaf only when none answers.

An unlock is not idempotent. It is sent once, whatever comes back: an answer is evidence that it was
accepted, and so is a hook that drops; without either nobody knows, and nothing is sent again. One pulse at a
time, because the boards of a bus share a power supply.
"""

import asyncio
import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from drivers.base import (
    ActionRefused,
    Codec,
    Dialogue,
    Driver,
    Emit,
    Link,
    NoReply,
    Unconfirmed,
)
from drivers.bus import QuietLink
from drivers.doors import B, Changed, Edges, Levels, Wall, listed
from drivers.readings import Action, DoorChanged, DoorState, OpenDoor, SolenoidChanged

F = TypeVar("F")


@dataclass(slots=True)
class _Watch:
    """A door that was given a pulse, and what is seen of it."""

    door: int
    since: float
    """Only what was asked after this can be the pulse's doing."""
    until: float
    seen: asyncio.Future[None]


class BoardsDriver(Driver, Generic[F, B]):
    """A subclass gives the codec, and asks and pulses one board."""

    ANSWERS = True
    performs: frozenset[type[Any]] = frozenset({OpenDoor})
    BAUDS: ClassVar[tuple[int, ...]] = ()
    """Other speeds that such boards are set to."""
    CONFIRM: ClassVar[int] = 1
    """How often in a row a level must be seen: more than once where no checksum guards it."""
    PULSE_MS: ClassVar[int] = 550
    """How long the boards feed a solenoid by themselves, or a little longer."""
    REST_MS: ClassVar[int] = 300
    """Between the end of one pulse and the next, for the power supply."""

    WATCH_S: ClassVar[float] = 2.0
    """A hook that has not dropped by then will not."""
    SILENT_S: ClassVar[float] = 2.0
    """A board that has not answered for so long is silent; while it pulses it may well miss questions."""
    SILENT_EVERY_S: ClassVar[float] = 2.0
    """How often a silent board is asked: each time, the others wait for it."""
    TWIN_S: ClassVar[float] = 0.05
    """Two boards of one address answer almost at once, or into each other."""

    def __init__(self, link: Link, emit: Emit, options: Any, codec: Codec[F]) -> None:
        super().__init__(link, emit, options)
        self.codec = codec
        self.line = QuietLink(link)
        self.dialogue = Dialogue(self.line, codec, within=options.answer_ms / 1000, gap=options.gap_ms / 1000)
        self.boards: Sequence[B] = options.boards
        self.wall = Wall(self.boards)
        self._edges = Edges(self.wall, self.CONFIRM)
        self._looking = asyncio.Lock()
        self._pulsing = asyncio.Lock()
        self._due = {board.address: 0.0 for board in self.boards}
        """When each board is to be asked next."""
        self._baud: int | None = None
        """The line speed, where it is not the one that the config gives."""
        self._found: set[int] = set()
        """Boards that answered at the opening."""
        self._answering: set[int] = set()
        self._silent: set[int] = set()
        """Boards that were told to be silent."""
        self._missing: dict[int, float] = {}
        """When each board first failed to answer, of those that did not answer last."""
        self._surveyed = asyncio.Event()
        """Every board has been asked once, and what answered is as it should be."""
        self._watch: _Watch | None = None
        self._rested_at = 0.0
        self._wake = asyncio.Event()

    # -- for each kind of board -------------------------------------------------------------------

    @abstractmethod
    async def levels(self, board: B) -> Levels:
        """Ask a board for its bits, as they are. Raises NoReply or ActionRefused."""

    @abstractmethod
    async def pulse(self, board: B, lock: int, pulse_ms: int | None) -> bool:
        """Send one pulse, once. True if the board's answer is evidence that it was accepted.

        Raises NoReply where an answer was due, ActionRefused where the board says that it did nothing.
        """

    @abstractmethod
    def answers_for(self, frame: F) -> int | None:
        """The address of the board whose state this frame tells; None for any other frame."""

    async def prepare(self, board: B) -> None:
        """Bring a board that has just begun to answer into a safe state."""

    async def roll_call(self) -> Mapping[str, str]:
        """What else can be found out about the bus at its opening. Raises ActionRefused."""
        return {}

    # -- opening ----------------------------------------------------------------------------------

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        found = await self._find()
        self._found = set(found)
        self.line.judge()
        for board in self.boards:
            if board.address in found:
                await self._refuse_twins(board)
        silent = [board.address for board in self.boards if board.address not in found]
        about = {
            "boards": listed(found),
            "silent": listed(silent),
            "doors": str(self.wall.doors),
            "echo": "yes" if self.line.echoes else "",
            "baud": "" if self._baud is None else str(self._baud),
            **self.wall.exceptions(found),
            **await self.roll_call(),
        }
        return {name: said for name, said in about.items() if said}

    async def bits(self, address: int) -> Levels:
        """One board's bits as it sends them, with no polarity applied: what commissioning looks at."""
        board = next((each for each in self.boards if each.address == address), None)
        if board is None:
            raise ActionRefused(f"expected one of the boards {listed(self._due)}, got {address}")
        async with self._looking:
            return await self.levels(board)

    async def _find(self) -> dict[int, Levels]:
        """What each board says that answers, at the first line speed at which one does. Raises NoReply."""
        for baud in (None, None, *self.BAUDS):
            if baud is not None:
                self.line.set_baud(baud)
            self._baud = baud
            if found := await self._ask_all():
                return found
        raise NoReply(f"no answer from the boards {listed(self._due)}")

    async def _ask_all(self) -> dict[int, Levels]:
        found: dict[int, Levels] = {}
        for board in self.boards:
            with contextlib.suppress(NoReply):
                found[board.address] = await self.levels(board)
        return found

    async def _refuse_twins(self, board: B) -> None:
        """Two answers to each of two questions are two boards. Raises ActionRefused."""
        for _ in range(2):
            while await self.dialogue.listen(0) is not None:
                self.noise["unasked"] += 1
            try:
                await self.levels(board)
            except NoReply:
                return
            second = await self.dialogue.listen(self.TWIN_S)
            if second is None or self.answers_for(second) != board.address:
                return
        raise ActionRefused(f"two boards answer to address {board.address}")

    # -- looking ----------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            for board in self.boards:
                now = self._now()
                if now >= self._due[board.address]:
                    await self._look(board)
                    self._due[board.address] = now + self._period(board)
            self._surveyed.set()
            await self._pause(min(self._due.values()) - self._now())

    def _period(self, board: B) -> float:
        if board.address in self._silent:
            return self.SILENT_EVERY_S
        watched = self._watch
        watching = watched is not None and self._now() < watched.until
        if watching and watched is not None and self.wall.place(watched.door)[0] is board:
            return float(self.options.watch_ms) / 1000
        return float(self.options.poll_ms) / 1000

    async def _look(self, board: B) -> None:
        async with self._looking:
            asked = self._now()
            try:
                levels = await self.levels(board)
                if board.address not in self._answering:
                    await self.prepare(board)
                    levels = await self.levels(board)
            except (NoReply, ActionRefused):
                await self._miss(board, asked)
                return
            self._missing.pop(board.address, None)
            self._answering.add(board.address)
            if board.address in self._silent:
                self._silent.discard(board.address)
                await self.emit(self.wall.news(board, answers=True))
            for change in self._edges.of(board, levels):
                self._notice(change, asked)
                await self.emit(change)
        while self.dialogue.leftover() is not None:
            self.noise["unasked"] += 1

    def _notice(self, change: Changed, asked: float) -> None:
        """Whether this is what the last pulse should bring about."""
        watched = self._watch
        if watched is None or change.first or asked < watched.since or watched.seen.done():
            return
        match change:
            case DoorChanged(door=door, state=DoorState.OPEN) if door == watched.door:
                watched.seen.set_result(None)
                watched.until = asked
            case SolenoidChanged(door=door, energised=True) if door == watched.door:
                watched.seen.set_result(None)

    async def _miss(self, board: B, asked: float) -> None:
        """Silent is a board that has missed questions for a while, or has not answered since the opening."""
        self.noise["unanswered"] += 1
        address = board.address
        since = self._missing.setdefault(address, asked)
        was_there = address in self._answering or address in self._found
        if address in self._silent or (was_there and asked - since < self.SILENT_S):
            return
        self._answering.discard(address)
        self._silent.add(address)
        self._edges.forget(board)
        if len(self._silent) == len(self.boards):
            raise NoReply(f"no answer from the boards {listed(self._due)}")
        await self.emit(self.wall.news(board, answers=False))

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()

    # -- opening doors ----------------------------------------------------------------------------

    async def perform(self, action: Action) -> None:
        match action:
            case OpenDoor(door=door, pulse_ms=pulse_ms):
                board, lock = self.wall.place(door)
                await self._surveyed.wait()
                if board.address not in self._answering:
                    raise ActionRefused(f"board {board.address} is silent")
                async with self._pulsing:
                    await self._open(board, lock, door, pulse_ms)
            case _:
                await super().perform(action)

    async def _open(self, board: B, lock: int, door: int, pulse_ms: int | None) -> None:
        self.check_pulse(pulse_ms)
        await asyncio.sleep(max(0.0, self._rested_at - self._now()))
        sent = self._now()
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = _Watch(door=door, since=sent, until=sent + self.WATCH_S, seen=seen)
        try:
            accepted = await self.pulse(board, lock, pulse_ms)
        except NoReply:
            accepted = False
        finally:
            self._rested_at = self._now() + (self.on_ms(pulse_ms) + self.REST_MS) / 1000
        self._watch.until = self._now() + self.WATCH_S
        self._due[board.address] = 0.0
        self._wake.set()
        if not accepted:
            await self._see(self._watch)

    async def _see(self, watched: _Watch) -> None:
        """Wait for the door to tell what the board did not. Raises Unconfirmed."""
        try:
            async with asyncio.timeout_at(watched.until):
                await watched.seen
        except TimeoutError:
            raise Unconfirmed("no answer, and no hook seen to drop") from None

    def on_ms(self, pulse_ms: int | None) -> int:
        """How long a pulse takes, or a little longer."""
        return pulse_ms or self.PULSE_MS

    def check_pulse(self, pulse_ms: int | None) -> None:
        """Whether the board can be told so long a pulse. Raises ActionRefused."""
        if pulse_ms is not None:
            raise ActionRefused(f"{self.kind} boards time their pulses themselves")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
