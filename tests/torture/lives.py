"""One life of the agent after the other on the same state, each ended by another fault.

Whatever sounded good in any of them must reach the fleet, once and in order; and after each of them the
journal that is left must verify.
"""

import asyncio
import contextlib
import itertools
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from agent.audit.reader import open_archive
from agent.audit.verdict import Report, Verdict
from agent.audit.verify import verify
from agent.note import VerifierKey
from simulators.stage import postern
from tests.played_clock import PlayedClock
from tests.rig import BELT, WAYS, Rig, scanning, way
from tests.site import running
from tests.torture.ground import Ground
from tests.traced import slow_syncs

DAY_S = 86_400.0

G = TypeVar("G")


class End(StrEnum):
    """How a life ends."""

    KILLED = "killed"
    EARLY = "killed while it started"
    STOPPED = "stopped politely"
    POWER = "power cut"
    FULL = "killed while the disk was full"
    ROOM = "killed after the disk had been full"
    SLOW = "killed with slow syncs"
    AMNESIA = "killed after a broker that forgot"
    CUT = "killed after the way was cut"
    RESET = "killed after the way was reset"
    CLOCK = "killed after the clock was set"


WEIGHTS: Mapping[End, int] = {
    End.KILLED: 26,
    End.EARLY: 6,
    End.STOPPED: 10,
    End.POWER: 14,
    End.FULL: 8,
    End.ROOM: 4,
    End.SLOW: 8,
    End.AMNESIA: 2,
    End.CUT: 7,
    End.RESET: 7,
    End.CLOCK: 8,
}
NEED_A_DISK = (End.POWER, End.FULL, End.ROOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a life came to."""

    number: int
    end: End
    way: str
    promised: int
    """Good tones heard in it."""
    entries: int
    """In the journal that it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What can be done to an agent on this machine."""

    disk: bool
    slow: bool
    clock: bool

    @property
    def ends(self) -> list[End]:
        lacking: list[End] = [] if self.disk else [*NEED_A_DISK]
        lacking += [] if self.slow else [End.SLOW]
        lacking += [] if self.clock else [End.CLOCK]
        return [end for end in End if end not in lacking]


def drawn(chance: random.Random, ends: list[End], count: int) -> list[End]:
    """So many ends, each kind at least once where there is room for it, in any order."""
    weights = [WEIGHTS[end] for end in ends]
    every = chance.sample(ends, min(count, len(ends)))
    chosen = [*every, *chance.choices(ends, weights, k=count - len(every))]
    chance.shuffle(chosen)
    return chosen


class Lives:
    """Enter it, have lives, then `settle`."""

    def __init__(self, folder: Path, chance: random.Random, means: Means) -> None:
        self.prefix: Sequence[str] = ()
        """A command that starts every agent: one that spoils it, to see that this is noticed."""
        self.rig = Rig(folder, config=BELT)
        self.rig.alarmed = True
        self.ground = Ground(folder, mountable=means.disk)
        self._folder = folder
        self._chance = chance
        self._clock = PlayedClock(folder) if means.clock else None
        self._key: VerifierKey | None = None

    async def live(self, number: int, end: End) -> Life:
        how = self._chance.choice(WAYS)
        before = len(self.rig.promised)
        if end is End.POWER:
            await self._until_power_is_lost(number, how)
        else:
            await self._until_it_ends(number, end, how)
        with self.ground.mounted():
            entries = await self._verified()
        promised = len(self.rig.promised) - before
        return Life(number=number, end=end, way=how, promised=promised, entries=entries)

    async def settle(self, within: float = 90.0) -> None:
        """The way is open: everything promised arrives, once and in order, whatever a broker forgot."""
        self.rig.relay.restore()
        async with self._agent_on(self.ground.mounted()):
            await self.rig.start()
            await self.rig.scan_and_hear("last")
            await self.rig.delivered(within)
            await self.rig.stop_agent()
            state = str(self.ground.state)
            key = (await postern("journal", "key", state)).strip()
            await postern("journal", "verify", f"{state}/journal.db", "--key", key)

    @contextlib.asynccontextmanager
    async def _agent_on(self, ground: AbstractContextManager[G]) -> AsyncIterator[G]:
        """No agent is left on it, whatever happens: nothing can be unmounted under one."""
        with ground as there:
            try:
                yield there
            finally:
                await self.rig.kill_agent()

    # -- a life -----------------------------------------------------------------------------------

    async def _begin(self, number: int, end: End) -> None:
        prefix = [*self.prefix]
        if end is End.SLOW:
            prefix = slow_syncs(self._chance.randrange(5_000, 50_000))
        elif end is End.CLOCK and self._clock is not None:
            prefix = self._clock.command()
        await self.rig.start(*prefix)
        await self.rig.scan_and_hear(f"{number:04}-first")
        await self._scan(number, "before")

    async def _scan(self, number: int, name: str) -> None:
        """One after the other for a moment; then some that nobody waits for."""
        numbered = (f"{number:04}-{name}-{count:05}" for count in itertools.count())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.uniform(0.02, 0.3)):
                await scanning(self.rig, numbered)
        if self._chance.random() < 0.3:
            self.rig.scan(*itertools.islice(numbered, self._chance.randrange(1, 12)))

    async def _suffer(self, number: int, end: End) -> None:
        """What happens to it before it ends."""
        match end:
            case End.FULL:
                await self._run_out_of_room(number)
            case End.ROOM:
                await self._run_out_of_room(number)
                self.ground.clear()
                await self.rig.until(lambda: self.rig.logged("journal writes again"), "room to be noticed")
                await self.rig.quiet()
                await self._scan(number, "after")
            case End.AMNESIA:
                self.rig.broker.stop(kill=True)
                await self._scan(number, "after")
            case End.CUT:
                self.rig.relay.cut()
                await self._scan(number, "cut")
                self.rig.relay.restore()
                await self._scan(number, "after")
            case End.RESET:
                for turn in range(self._chance.randrange(1, 4)):
                    self.rig.relay.reset()
                    await self._scan(number, f"reset-{turn}")
            case End.CLOCK:
                assert self._clock is not None
                self._clock.jump(self._chance.choice((-2.0, 400.0, self._chance.uniform(-1, 1))) * DAY_S)
                await self._scan(number, "after")
            case _:
                pass

    async def _run_out_of_room(self, number: int) -> None:
        """Scan into a disk that is full: no scan is answered well that found no room."""
        await self.rig.quiet()
        self.ground.fill()
        numbered = (f"{number:04}-full-{count:05}" for count in itertools.count())
        async with running(self.rig.scan_all(numbered)):
            await self.rig.until(lambda: self.rig.logged("journal cannot write"), "a full disk to be noticed")

    async def _until_it_ends(self, number: int, end: End, how: str) -> None:
        async with self._agent_on(self.ground.mounted()):
            async with way(self.rig, how, self._chance):
                if end is End.EARLY:
                    await self.rig.start_agent()
                    await asyncio.sleep(self._chance.uniform(0, 0.8))  # the moment of the kill
                else:
                    await self._begin(number, end)
                    await self._suffer(number, end)
                await (self.rig.stop_agent() if end is End.STOPPED else self.rig.kill_agent())
            self.ground.clear()
            if end is End.AMNESIA:
                await self.rig.restart_broker()

    async def _until_power_is_lost(self, number: int, how: str) -> None:
        async with self._agent_on(self.ground.recorded()) as disk:
            async with way(self.rig, how, self._chance):
                await self._begin(number, End.POWER)
            # What was heard counts, and what the fleet has been sent. Whatever follows this moment is of a
            # future that never was: nothing of it is heard, or reaches the fleet.
            self.rig.relay.cut()
            self.rig.forget_unanswered()
            at = disk.position
            await self.rig.drop_agent()
            self.ground.power_was_lost(disk, at, self._chance)

    # -- what it left -----------------------------------------------------------------------------

    async def _verified(self) -> int:
        """Verify a copy of the journal: an auditor that opened the file itself would mend it on the way."""
        if self._key is None and not self.rig.promised:
            return 0  # It may have been killed before there was a journal.
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            for part in self.ground.state.glob("journal.db*"):
                shutil.copy(part, name)
            report = await asyncio.to_thread(audited, Path(name) / "journal.db", await self._verifier())
        # Nothing but a tail that is not signed yet may keep it from a PASS.
        tail_alone = len(report.incomplete) == 1 and report.signed_to < report.size
        assert report.verdict is Verdict.PASS or (not report.failure and tail_alone), report.as_text()
        return report.size

    async def _verifier(self) -> VerifierKey:
        """The device's, the same for as long as its epoch: that it is salvaged is not among these faults."""
        if self._key is None:
            self._key = VerifierKey.parse((await postern("journal", "key", str(self.ground.state))).strip())
        return self._key


def audited(journal: Path, key: VerifierKey) -> Report:
    with open_archive(journal) as archive:
        return verify(archive, key)
