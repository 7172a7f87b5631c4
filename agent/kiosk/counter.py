"""The living screen: what it shows now, who watches it, and what was typed or pressed at it.

A page is a keypad and a sheet of control codes behind glass. What comes of either takes the road of every
other unit: into the inbox, to the decider, under its counters and locks. What the page then shows has been
committed before, and answers about codes and credentials wait for the grid that all such answers leave on.
"""

import asyncio
import io
import itertools
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from agent.clock import NS, Clock, Moment
from agent.intake import CONTROL, Role
from agent.kiosk.config import UNIT, KioskSection
from agent.kiosk.view import View, after, at_time, found
from agent.locker.compartments import Size, Wall
from agent.locker.turn import Locker
from agent.units import Deliver, Unit, UnitSpec
from agent.workflow import Decision
from drivers.base import Options
from drivers.port import Address
from drivers.readings import NoiseCounted, Scanned

SCREENS = 4
"""Pages that are told what is shown; with one more, the oldest is told no longer."""
STILL_HERE_S = 15.0
"""A page that hears nothing for so long is told that we are still there."""
NOISE_EVERY_S = 10.0
HEARD = 64
"""Decisions that wait to be shown; over it the oldest is shown no more, what lasts is in the next."""
INBOX_S = 2.0
"""Longest that something typed waits for room in the decider's inbox."""

BUTTONS: Mapping[str, bytes] = {
    **{f"size-{size.name.lower()}": CONTROL + b"SIZE:" + size.name.encode() for size in Size},
    "cancel": CONTROL + b"CANCEL",
    "retrieve": CONTROL + b"RETRIEVE",
    "end": CONTROL + b"END",
}
"""What a courier can press, and the control code that it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast people press: whoever is faster is none. A bucket that refills."""

    BURST = 8.0
    EACH_S = 4.0

    left: float = BURST
    at_ns: int = 0

    def taken(self, at: Moment) -> Self | None:
        """With one press more; None if that was one too many."""
        left = min(self.BURST, self.left + (at.mono_ns - self.at_ns) / NS * self.EACH_S)
        return replace(self, left=left - 1, at_ns=at.mono_ns) if left >= 1 else None


class Counter:
    """One locker's screen. `state` is the workflow's, as it stands when the agent starts."""

    def __init__(
        self,
        section: KioskSection,
        wall: Wall,
        *,
        state: Callable[[], Locker],
        clock: Clock,
        deliver: Deliver,
    ) -> None:
        self._section, self._wall, self._state = section, wall, state
        self._clock, self._deliver = clock, deliver
        self._keypad = _unit(Role.KEYPAD, section.port, deliver)
        self._sheet = _unit(Role.PARCEL, section.port, deliver)
        self._view: View | None = None
        self._trouble = False
        self._heard: deque[Decision[Locker]] = deque(maxlen=HEARD)
        self._woken, self._news = asyncio.Event(), asyncio.Event()
        self._watching: list[int] = []
        self._numbers = itertools.count(1)
        self._pace = Pace()
        self._drawn: tuple[str, bytes] | None = None
        """The last receipt, and its picture."""

    # -- what is shown ----------------------------------------------------------------------------

    def saw(self, decision: Decision[Locker]) -> None:
        """A decision is on stable storage, and its answer due."""
        self._heard.append(decision)
        self._woken.set()

    def trouble(self, *, there: bool) -> None:
        """Nothing can be remembered at the moment, so that nothing will open."""
        self._trouble = there
        self._ring()

    @property
    def screens(self) -> int:
        return len(self._watching)

    def told(self) -> Mapping[str, Any]:
        """What a page hears."""
        view = self._view or View()
        if self._trouble:
            view = View()
        sizes = sorted({each.size for each in self._wall.compartments.values()})
        return {**view.told(), "sizes": [size.name for size in sizes], "language": self._section.language}

    async def follow(self) -> None:
        """Bring the screen up to date, for ever."""
        if self._view is None:
            self._view = found(self._state(), self._wall)
            self._ring()
        while True:
            self._woken.clear()
            self._look(self._view)
            try:
                async with asyncio.timeout(self._left_s()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _look(self, before: View) -> None:
        now, view = self._clock.now(), before
        while self._heard:
            view = after(view, self._heard.popleft(), now, self._wall)
        self._view = at_time(view, now)
        if self._view != before:
            self._ring()

    def _left_s(self) -> float | None:
        """Until what passes is over."""
        until_ns = self._view.until_ns if self._view else None
        return None if until_ns is None else max(0.0, (until_ns - self._clock.now().mono_ns) / NS)

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """The screen as server-sent events, from now until the page is one too many."""
        number = next(self._numbers)
        self._watching = [*self._watching, number][-SCREENS:]
        self._ring()
        told: Mapping[str, Any] | None = None
        try:
            while number in self._watching:
                news, before = self._news, told
                if (told := self.told()) != before:
                    yield b"data: " + json.dumps(told).encode() + b"\n\n"
                    continue
                try:
                    async with asyncio.timeout(STILL_HERE_S):
                        await news.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._watching = [each for each in self._watching if each != number]

    def _ring(self) -> None:
        """Have every page told what is new to it."""
        self._news.set()
        self._news = asyncio.Event()

    async def receipt(self) -> bytes | None:
        """The courier's receipt as a picture of a QR code, while it is shown."""
        text = self._view.receipt if self._view else None
        if text is None:
            return None
        if self._drawn is None or self._drawn[0] != text:
            # It takes a small processor a moment, which belongs to the doors.
            self._drawn = text, await asyncio.to_thread(drawn, text)
        return self._drawn[1]

    # -- what is typed ----------------------------------------------------------------------------

    async def typed(self, keys: str) -> bool:
        """Whether a keypad could have sent this now. What comes of it, the screen shows."""
        return await self._hand_in(self._keypad, keys.encode())

    async def pressed(self, button: str) -> bool:
        """One of `BUTTONS`."""
        return await self._hand_in(self._sheet, BUTTONS[button])

    async def count(self, noise: dict[str, int]) -> None:
        """Remember what was not heard, for ever."""
        while True:
            await asyncio.sleep(NOISE_EVERY_S)
            if noise:
                counts = dict(noise)
                noise.clear()
                await self._deliver(self._keypad, NoiseCounted(counts=counts))

    async def _hand_in(self, unit: Unit, data: bytes) -> bool:
        pace = self._pace.taken(self._clock.now())
        if pace is None:
            return False
        self._pace = pace
        try:
            async with asyncio.timeout(INBOX_S):
                await self._deliver(unit, Scanned(data=data))
        except TimeoutError:
            return False
        return True


def _unit(role: Role, port: int, deliver: Deliver) -> Unit:
    """In whose name something comes from the page. It is never opened: there is no device."""
    spec = UnitSpec(
        name=UNIT, kind=UNIT, role=role, address=Address(f"kiosk:{port}"), baud=0, options=Options()
    )
    return Unit(spec, deliver)


def drawn(text: str) -> bytes:
    """A QR code of this text, as an SVG that fills its frame."""
    import segno

    picture = io.BytesIO()
    code = segno.make(text, error="l", micro=False, boost_error=False)
    code.save(picture, kind="svg", xmldecl=False, omitsize=True, border=4, dark="#000", light="#fff")
    return picture.getvalue()
