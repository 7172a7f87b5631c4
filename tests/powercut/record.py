"""One run of the real agent on the recorded disk, and what it promised when.

A promise is a good tone: it is stamped with the length of the disk's log at the moment it reached the
scanner. What the fleet has received is stamped in the same way: it must never be unsaid.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from simulators.line import LineScanner
from tests.powercut.disk import SIZE, Disk, Log, mkfs, mounted, read_log, run
from tests.rig import BELT, DEVICE, labels
from tests.site import Entry, Site

BURST = 8
"""Labels scanned in one go, at most; most are scanned alone, each after the tone of the one before."""


class Promiser(LineScanner):
    """A scanner that knows how long the log was when each of its tones came."""

    def __init__(self, name: Path, position: Callable[[], int]) -> None:
        super().__init__(name, speaks="honeywell")
        self.heard_at: list[int] = []
        self._position = position

    def received(self, data: bytes) -> None:
        super().received(data)
        now = self._position()
        self.heard_at += [now] * (len(self.tones) - len(self.heard_at))


class Bench(Site):
    """A belt whose fleet stamps what arrives."""

    def __init__(self, folder: Path, position: Callable[[], int] = lambda: 0) -> None:
        super().__init__(folder, config=BELT, device=DEVICE)
        self.arrived_at: list[int] = []
        self._position = position

    async def begin(self, *prefix: str) -> Promiser:
        """Start the agent and wait until it reads the scanner."""
        gun = self.plug(Promiser(self.dev / "gun", self._position))
        await self.listen(gun.obeyed)
        await self.start_agent(*prefix)
        await self.ready("gun")
        return gun

    def _arrived(self, entry: Entry) -> None:
        self.arrived_at.append(self._position())
        super()._arrived(entry)


@dataclass(frozen=True, slots=True)
class Promise:
    """A label whose good tone has sounded."""

    label: str
    at: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """An entry that the fleet has received."""

    entry: Entry
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    log: Log
    scanned: Sequence[str]
    promises: Sequence[Promise]
    arrivals: Sequence[Arrival]
    started: int
    """Length of the log when the agent was started on an empty disk."""
    settled: int
    """Length of the log after the first promise."""
    ended: int
    """Length of the log when the agent was killed."""

    @property
    def moments(self) -> list[int]:
        """When a promise was made."""
        return [promise.at for promise in self.promises]


async def record(
    folder: Path,
    scans: int,
    chance: random.Random,
    *,
    prefix: Sequence[str] = (),
    settle: bool = False,
    sync: float = 0.0,
) -> Recording:
    """Scan as fast as the tones come, first with the broker there, then with it out of reach.

    `prefix` is a command that starts the agent. With `settle`, everything up to the first promise is synced
    from outside: what is lost later was never synced by the agent.
    """
    scanned = labels("cut", scans)
    state = folder / "state"
    with Disk(folder, size=SIZE, sync=sync) as disk:
        mkfs(disk.path)
        with mounted(disk.path, state):
            run("sync", "-f", str(state))
            started = disk.position
            async with Bench(folder, lambda: disk.position) as bench:
                gun = await bench.begin(*prefix)
                await bench.until(lambda: bench.entries, "the agent online")
                await _scan(bench, gun, scanned[:1], chance)
                if settle:
                    run("sync", "-f", str(state))
                settled = disk.position
                half = scans // 2
                await _scan(bench, gun, scanned[1:half], chance)
                bench.relay.cut()
                await _scan(bench, gun, scanned[half:], chance)
                ended = disk.position
                await bench.kill_agent()
                assert gun.tones == ["good"] * scans
                return Recording(
                    log=read_log(disk.log),
                    scanned=scanned,
                    promises=[Promise(*each) for each in zip(scanned, gun.heard_at, strict=True)],
                    arrivals=[Arrival(*each) for each in zip(bench.entries, bench.arrived_at, strict=True)],
                    started=started,
                    settled=settled,
                    ended=ended,
                )


async def _scan(bench: Bench, gun: Promiser, wanted: Sequence[str], chance: random.Random) -> None:
    left = deque(wanted)
    while left:
        most = chance.choice((1, 1, chance.randint(1, BURST)))
        burst = [left.popleft() for _ in range(min(most, len(left)))]
        expected = len(gun.tones) + len(burst)
        for label in burst:
            gun.scan(label)
        await bench.until(partial(_heard, gun, expected), "the tones")


def _heard(gun: Promiser, tones: int) -> bool:
    return len(gun.tones) >= tones
