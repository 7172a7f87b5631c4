"""What every driver is made of: a codec without I/O, a dialogue for devices that answer, a driver.

A codec turns bytes into frames and never raises: what it cannot use it skips and counts in `noise`,
by reason. Errors say whose fault it is, and with that what happens next: `BadFrame` costs a byte,
`NoReply` costs the dialogue (the port is reopened), `Unsupported` and `ActionRefused` cost one action, and
`Unconfirmed` leaves one in doubt.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from drivers.readings import Action, Reading

F = TypeVar("F")

FRAME_LIMIT = 1024
"""No serial frame of any supported device is longer, text lines excepted."""

UNASKED = 256
"""Frames nobody asked for that wait for `listen`; over it the oldest is dropped, and counted."""


class BadFrame(Exception):
    """The bytes at the front of the buffer are not a frame: skip one and look again."""


class NoReply(Exception):
    """The device did not answer, or not sensibly, within its time and tries."""


class ActionRefused(Exception):
    """The device answered, and the answer was no."""


class Unsupported(ActionRefused):
    """This kind of device cannot do that."""


class Unconfirmed(Exception):
    """An action was sent, and nothing tells whether it was done. It must not be sent again."""


class Codec(ABC, Generic[F]):
    """Bytes to frames. `feed` may be given any cut of the stream."""

    def __init__(self) -> None:
        self.noise: Counter[str] = Counter()
        self._buffer = bytearray()

    @abstractmethod
    def feed(self, data: bytes) -> list[F]:
        """The frames that `data` completes, oldest first. Never raises, never keeps more than a frame."""

    def reset(self) -> None:
        """Forget a half frame, and count it."""
        if self._buffer:
            self.noise["half_frame"] += 1
            self._buffer.clear()

    @property
    def waiting(self) -> bool:
        """Whether half a frame is held."""
        return bool(self._buffer)


class FrameCodec(Codec[F]):
    """A codec for frames that begin with a header and tell or imply their own length.

    A subclass gives `HEADERS`, `measure` and `decode`; hunting for the next header, limits and counting
    are here. A wrong header inside another frame's data costs at most one wait for that frame's length,
    which the dialogue's reset or a stream's idle gap ends.
    """

    HEADERS: ClassVar[tuple[bytes, ...]]
    LIMIT: ClassVar[int] = FRAME_LIMIT

    @abstractmethod
    def measure(self, head: bytes) -> int | None:
        """Total length of the frame that `head` starts, or None while too little of it is there.

        Raises BadFrame when no frame can start like this.
        """

    @abstractmethod
    def decode(self, raw: bytes) -> F:
        """The frame in exactly `raw`. Raises BadFrame with the reason (`checksum`, `trailer`, ...)."""

    def feed(self, data: bytes) -> list[F]:
        self._buffer += data
        frames: list[F] = []
        while self._hunt():
            try:
                size = self.measure(bytes(self._buffer[: self.LIMIT]))
                if (len(self._buffer) if size is None else size) > self.LIMIT:
                    raise BadFrame("too_long")
                if size is None or len(self._buffer) < size:
                    break
                frames.append(self.decode(bytes(self._buffer[:size])))
                del self._buffer[:size]
            except BadFrame as bad:
                self.noise[str(bad)] += 1
                del self._buffer[0]
        return frames

    def _hunt(self) -> bool:
        """Bring the next possible header to the front; False while there is none."""
        best = -1
        for header in self.HEADERS:
            at = self._buffer.find(header)
            if at >= 0 and (best < 0 or at < best):
                best = at
        if best >= 0:
            self._skip(best)
            return True
        keep = max(
            (n for h in self.HEADERS for n in range(1, len(h)) if self._buffer.endswith(h[:n])), default=0
        )
        self._skip(len(self._buffer) - keep)
        return False

    def _skip(self, count: int) -> None:
        if count:
            self.noise["skipped_bytes"] += count
            del self._buffer[:count]


class Link(Protocol):
    """The open port as a driver sees it. Every method raises PortGone once the device is lost."""

    @property
    def path(self) -> str:
        """What was opened, links followed."""
        ...

    async def read(self) -> bytes:
        """At least one byte, as soon as there is one. Cancelling loses nothing."""
        ...

    async def write(self, data: bytes) -> None:
        """All of `data` handed to the kernel."""
        ...

    def pending(self) -> bytes:
        """What has arrived and was not read yet; empty if nothing. Never waits."""
        ...

    def set_baud(self, baud: int) -> None:
        """Change the line speed; ignored where there is none."""
        ...


Emit = Callable[[Reading], Awaitable[None]]
"""Hands a reading on. It waits while the inbox is full, and so the port is not read meanwhile."""


class Options(BaseModel):
    """What the config file may say about one kind of device. Subclassed by each driver."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Driver(ABC):
    """Knows one kind of device. One object serves one opening of the port."""

    kind: ClassVar[str]
    OptionsType: ClassVar[type[Options]] = Options
    BAUD: ClassVar[int] = 9600
    """Factory line speed, used where the config gives none."""
    ANSWERS: ClassVar[bool] = False
    """Whether `identify` proves that such a device is there; a scanner that only talks when used cannot."""
    performs: frozenset[type[Any]] = frozenset()
    """The action types this driver can be asked for, as its options have it."""

    def __init__(self, link: Link, emit: Emit, options: Any) -> None:
        self.link = link
        self.emit = emit
        self.options = options

    @property
    @abstractmethod
    def noise(self) -> Counter[str]:
        """The codec's counters; whoever reports them clears them."""

    @abstractmethod
    async def identify(self) -> Mapping[str, str]:
        """Ask the device who it is, or wait for its first sensible word. Called once, before `run`.

        Returns what it told about itself (empty for devices that only talk when used). Raises NoReply.
        """

    @abstractmethod
    async def run(self) -> None:
        """Read for ever, emitting on change. Ends only by raising NoReply or PortGone, or cancelled."""

    async def perform(self, action: Action) -> None:
        """Do one action while `run` goes on. Raises ActionRefused, Unsupported, Unconfirmed,
        NoReply or PortGone.
        """
        raise Unsupported(f"{self.kind} cannot {type(action).__name__}")


class _Question(Generic[F]):
    def __init__(self, answers: Callable[[F], bool]) -> None:
        self.answer: F | None = None
        self._answers = answers

    def take(self, frame: F) -> bool:
        if self.answer is None and self._answers(frame):
            self.answer = frame
            return True
        return False

    def answered(self) -> bool:
        return self.answer is not None


class Dialogue(Generic[F]):
    """One question at a time on a half-duplex line, while what nobody asked for is kept.

    `ask` and `listen` may be awaited at the same time: whichever comes first reads the port, and every
    frame goes to the question it answers or, oldest first, to `listen`. Before a question, half a frame
    gets `SETTLE` seconds to be completed and is then dropped: garbage that looked like a header costs one
    question, not the port.
    """

    SETTLE: ClassVar[float] = 0.05

    def __init__(
        self, link: Link, codec: Codec[F], *, within: float, tries: int = 1, gap: float = 0.0
    ) -> None:
        self.link = link
        self.codec = codec
        self.within = within
        """Seconds one answer may take."""
        self.tries = tries
        self.gap = gap
        """Seconds of silence the device needs between an answer and the next question."""
        self._unasked: deque[F] = deque()
        self._question: _Question[F] | None = None
        self._turn = asyncio.Lock()
        self._reading: asyncio.Future[None] | None = None

    async def ask(
        self,
        request: bytes,
        answers: Callable[[F], bool],
        *,
        within: float | None = None,
        tries: int | None = None,
    ) -> F:
        """The first frame that `answers` accepts. Raises NoReply after `tries` times `within` seconds.

        Give `tries=1` for anything that must not happen twice, and where answers do not tell which
        question they belong to: a late answer to the first try would pass for one to the second.
        """
        async with self._turn:
            await self._settle()
            question = self._question = _Question(answers)
            try:
                for _ in range(tries or self.tries):
                    await self.link.write(request)
                    await self._hear_until(question.answered, within or self.within)
                    if self.gap:
                        await asyncio.sleep(self.gap)
                    if question.answer is None:
                        await self._settle()
                    if question.answer is not None:
                        return question.answer
            finally:
                self._question = None
        # The question is not quoted: it may hold a password.
        raise NoReply(f"no answer to a question of {len(request)} bytes")

    async def tell(self, request: bytes) -> None:
        """Send what gets no answer."""
        async with self._turn:
            await self.link.write(request)
            if self.gap:
                await asyncio.sleep(self.gap)

    async def listen(self, within: float) -> F | None:
        """The next frame nobody asked for, or None after `within` seconds without one."""
        await self._hear_until(lambda: bool(self._unasked), within)
        return self.leftover()

    async def stirred(self, within: float) -> bool:
        """Whether there is a frame to `listen` to or anything at all was heard within so many seconds.

        For a driver with nothing to do meanwhile: it sleeps through what would otherwise be many waits.
        """
        if self._unasked:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._hear()
                return True
        return False

    def leftover(self) -> F | None:
        """The oldest frame nobody asked for, of those already heard: what `listen` would return at once."""
        return self._unasked.popleft() if self._unasked else None

    async def _settle(self) -> None:
        self._sort(self.codec.feed(self.link.pending()))
        if self.codec.waiting:
            await self._hear_until(lambda: not self.codec.waiting, self.SETTLE)
            self.codec.reset()

    async def _hear_until(self, enough: Callable[[], bool], within: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not enough():
                    await self._hear()

    async def _hear(self) -> None:
        """Read once, or wait for the coroutine that is reading; then look again."""
        if self._reading is not None:
            await asyncio.shield(self._reading)
            return
        self._reading = asyncio.get_running_loop().create_future()
        try:
            self._sort(self.codec.feed(await self.link.read()))
        finally:
            self._reading.set_result(None)
            self._reading = None

    def _sort(self, frames: list[F]) -> None:
        for frame in frames:
            if self._question is None or not self._question.take(frame):
                self._unasked.append(frame)
                if len(self._unasked) > UNASKED:
                    self._unasked.popleft()
                    self.codec.noise["unheard"] += 1
