"""The bench of the kill and fault tests: one site, and one scanner whose good tone is a promise.

    async with Rig(tmp_path) as rig:
        await rig.start()
        await rig.scan_and_hear("A", "B")
        await rig.kill_agent()
        await rig.start()
        await rig.delivered()

The scanner sounds what the agent tells it to. Labels are accepted in the order they were scanned, so the
n-th tone of a life of the agent stands for the n-th label scanned in it; a tone that came too late to be
sounded leaves the count lower, never higher. `promised` holds what sounded good: none of it may be lost.
"""

import asyncio
import contextlib
import random
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Self

from simulators.base import VirtualDevice
from simulators.broker import Broker
from simulators.line import LineScanner
from tests.site import PATIENCE, Entry, Site, running

DEVICE = "rig-0001"
ACCEPTING = ("custody.seen", "custody.accepted")

BELT = """\
[device]
id = "rig-0001"
tenant = "lab"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true
keepalive = 5

[custody]
attended = false

[unit.gun]
kind = "line"
port = "{dev}/gun"
commands = "honeywell"
"""
"""Nobody stands at this belt: every label is taken as seen."""

WAYS = ("up", "down", "flapping")
"""To the broker."""

IN_FLIGHT = 32
"""Labels scanned and not yet answered, at most, where a test scans as fast as it can."""


class Rig(Site):
    """A belt with one Honeywell scanner in text mode."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = BELT,
        mosquitto: Iterable[str] = (),
        broker: Broker | None = None,
    ) -> None:
        super().__init__(folder, config=config, device=DEVICE, mosquitto=mosquitto, broker=broker)
        self.promised: list[str] = []
        """Labels whose good tone has sounded, in any life of the agent, as they were scanned."""
        self.refused: list[str] = []
        """Labels whose error tone has sounded."""
        self.alarmed = False
        """An error tone is an alarm, and answers no scan: so it is where a disk may be full."""
        self._unanswered: deque[str] = deque()
        self._heard = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.gun = self.plug(LineScanner(self.dev / "gun", speaks="honeywell"))
        await self.listen(self.gun.obeyed)
        return self

    async def start(self, *prefix: str) -> None:
        """Start the agent and wait until it reads the scanner."""
        await self.start_agent(*prefix)
        await self.ready("gun")

    async def kill_agent(self) -> None:
        """What sounded until now counts; what was not answered may or may not have been accepted."""
        await super().kill_agent()
        self.forget_unanswered()

    def replug(self, device: VirtualDevice) -> None:
        device.unplug()
        self.forget_unanswered()
        device.plug()

    def forget_unanswered(self) -> None:
        self._hear()
        self._unanswered.clear()

    async def drop_agent(self) -> None:
        """Kill it, and take no tone for heard that has not been until now."""
        await super().kill_agent()
        self._heard = len(self.gun.tones)
        self._unanswered.clear()

    # -- scanning ---------------------------------------------------------------------------------

    def scan(self, *labels: str) -> None:
        """In one go, without waiting."""
        self.expect(*labels)
        for label in labels:
            self.gun.scan(label)

    def expect(self, *labels: str) -> None:
        """These will be scanned by other means: each has a tone to come."""
        self._unanswered += labels

    async def scan_and_hear(self, *labels: str) -> None:
        """Scan in one go and wait until each has had its tone."""
        self.scan(*labels)
        await self.quiet()

    async def quiet(self, within: float = PATIENCE) -> None:
        """Until every label has had its tone."""
        await self.until(lambda: not self.unanswered, "the tones", within)

    async def scan_all(self, labels: Iterable[str], within: float = PATIENCE) -> None:
        """As fast as the tones come, never more than a few ahead of them."""
        for label in labels:
            if self.unanswered >= IN_FLIGHT:
                await self.until(lambda: self.unanswered < IN_FLIGHT // 2, "tones", within)
            self.scan(label)
        await self.quiet(within)

    @property
    def unanswered(self) -> int:
        """Labels without a tone."""
        self._hear()
        return len(self._unanswered)

    def _hear(self) -> None:
        tones = self.gun.tones[self._heard :]
        self._heard += len(tones)
        for tone in tones:
            answers = tone == "good" or (tone == "bad" and not self.alarmed)
            if answers and self._unanswered:
                (self.promised if tone == "good" else self.refused).append(self._unanswered.popleft())

    # -- what arrived -----------------------------------------------------------------------------

    def taken(self) -> list[str]:
        """Labels of the accepting entries at the fleet, as they arrived."""
        return [label_of(entry) for entry in self.of(*ACCEPTING)]

    async def delivered(self, within: float = PATIENCE) -> None:
        """Until the fleet has everything promised; then nothing may be twice, missing or out of order."""
        self._hear()
        missing = set(self.promised)
        seen = 0

        def complete() -> bool:
            nonlocal seen
            missing.difference_update(map(label_of, filter(_accepts, self.entries[seen:])))
            seen = len(self.entries)
            return not missing

        try:
            await self.until(complete, "everything promised at the fleet", within)
        except AssertionError as error:
            error.add_note(f"missing {len(missing)}: {sorted(missing)[:10]}")
            raise
        await self.until(self.whole, "the less urgent lanes", within)
        self.in_order()
        taken = self.taken()
        assert len(set(taken)) == len(taken)
        promised = set(self.promised)
        assert [label for label in taken if label in promised] == self.promised


def label_of(entry: Entry) -> str:
    """The text that the scanner read."""
    return b64decode(entry["data"]["scan"]["raw"]).decode(errors="replace")


def _accepts(entry: Entry) -> bool:
    return entry["type"].removeprefix("postern.") in ACCEPTING


def labels(name: str, count: int) -> list[str]:
    """Distinct labels that say where they came from."""
    return [f"{name}-{number:06}" for number in range(1, count + 1)]


async def scanning(rig: Rig, wanted: Iterable[str]) -> None:
    """Scan one after the other, each after the tone of the one before, until cancelled."""
    for label in wanted:
        await rig.scan_and_hear(label)
    await asyncio.Event().wait()


async def coming_and_going(rig: Rig, chance: random.Random) -> None:
    """A way to the broker that is there for moments."""
    while True:
        rig.relay.cut()
        await asyncio.sleep(chance.uniform(0.01, 0.15))
        rig.relay.restore()
        await asyncio.sleep(chance.uniform(0.02, 0.15))


@contextlib.asynccontextmanager
async def way(rig: Rig, how: str, chance: random.Random) -> AsyncIterator[None]:
    """The way to the broker for one life of the agent: one of `WAYS`."""
    rig.relay.restore()
    if how == "up":
        yield
    elif how == "down":
        rig.relay.cut()
        yield
    else:
        async with running(coming_and_going(rig, chance)):
            yield
