"""One process of the fleet: many agents on one event loop, each as its own process would run it.

    python -m simulators.fleet.host SPEC.json

The file says which devices, where and how (`Spec`). A JSON object a second goes to standard output: what has
become of them, summed up. It ends in good order with SIGTERM, or when its standard input does: whoever
started it may have been killed.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agent import logs
from agent.app import App
from agent.changeover import Pace
from agent.clock import NS, SystemClock, mono_ns
from agent.config import load
from agent.shelf import take_up
from simulators.fleet.hardware import HARDWARE, Device
from simulators.fleet.synthetic import Hands

TELL_EVERY_S = 1.0
STAGGER_S = 0.05
"""From the start of one agent to that of the next."""
AGAIN_S = 5.0
"""After an agent that ended by itself, as systemd would have it."""

log = structlog.get_logger("fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a host is told. Times in seconds."""

    devices: Sequence[Sequence[str]]
    """Name, hardware and state folder of each."""
    rate: float
    """Scans a minute and device."""
    skew: float
    """How far a device's own clock is off, at most."""
    cold: float
    """Share of devices that have no clock at all when they start."""
    second: float
    """What a second of a config's trial lasts."""
    seed: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Spec":
        return cls(**json.loads(path.read_text()))


@dataclass(slots=True)
class Took:
    """How long documents of one name took, from their arrival until they were in force, in seconds."""

    count: int = 0
    longest: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.longest = max(self.longest, seconds)


@dataclass(slots=True)
class Sums:
    """What all agents of a host have in common."""

    starts: int = 0
    failures: int = 0
    """Agents that ended by themselves."""
    late: float = 0.0
    """Longest that the loop was late, in seconds, since that was last told."""
    took: dict[str, Took] = field(default_factory=dict)
    """By the name of a document, since that was last told."""

    def heard(self, name: str, seconds: float) -> None:
        self.took.setdefault(name.partition("/")[0], Took()).add(seconds)


class Resident:
    """One device: one life of its agent after the other."""

    def __init__(self, device: Device, spec: Spec, sums: Sums) -> None:
        self.device, self.sums = device, sums
        self.hands = Hands(device.name, HARDWARE[device.hardware], spec.rate, spec.seed)
        self.app: App | None = None
        self._pace = Pace(second=spec.second)
        chance = random.Random(f"{spec.seed}/{device.name}/clock")
        self._off_ns = int(chance.uniform(-spec.skew, spec.skew) * NS)
        self._cold = chance.random() < spec.cold
        self._boot = str(uuid.uuid4())
        self._ending = False

    async def run(self) -> None:
        """Until `stop`."""
        structlog.contextvars.bind_contextvars(device=self.device.name)
        while not self._ending:
            try:
                await self._live()
            except Exception as error:
                self.sums.failures += 1
                log.error("agent ended", error=type(error).__name__, exc_info=error)
                await asyncio.sleep(AGAIN_S)

    def stop(self) -> None:
        self._ending = True
        if self.app is not None:
            self.app.stop()

    async def _live(self) -> None:
        """As `postern run` does it."""
        in_force = take_up(load(self.device.config), self._boot, mono_ns())
        self.sums.starts += 1
        self.app = App(
            in_force.config,
            self._clock(),
            in_force=in_force,
            pace=self._pace,
            wiring=self.hands.wiring,
            heard=self.sums.heard,
        )
        await self.app.run()

    def _clock(self) -> SystemClock:
        """Its own: off by its own amount, or at 1970 when the device is switched on."""
        wall = mono_ns if self._cold else lambda: time.time_ns() + self._off_ns
        return SystemClock(boot=self._boot, wall=wall, has_rtc=not self._cold, ntp_age=lambda: None)


class Host:
    """All devices of one process."""

    def __init__(self, spec: Spec) -> None:
        self.sums = Sums()
        devices = [Device(name, hardware, Path(state)) for name, hardware, state in spec.devices]
        self.residents = [Resident(device, spec, self.sums) for device in devices]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(sys.stdin, self._stop.set)
        lives = [
            asyncio.create_task(self._started(number, each), name=each.device.name)
            for number, each in enumerate(self.residents)
        ]
        telling = asyncio.create_task(self._tell(), name="telling")
        await self._stop.wait()
        loop.remove_reader(sys.stdin)
        for each in self.residents:
            each.stop()
        await asyncio.wait(lives)
        telling.cancel()

    async def _started(self, number: int, resident: Resident) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(number * STAGGER_S):
                await self._stop.wait()
        await resident.run()

    async def _tell(self) -> None:
        """Once a second; what the loop is late by is measured on the way."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TELL_EVERY_S
            await asyncio.sleep(TELL_EVERY_S)
            self.sums.late = max(self.sums.late, loop.time() - due)
            print_line(self.told())
            self.sums.late, self.sums.took = 0.0, {}

    def told(self) -> dict[str, Any]:
        apps = [each.app for each in self.residents if each.app is not None]
        uplinks = [app.uplink for app in apps if app.uplink is not None]
        return {
            "devices": len(self.residents),
            "online": sum(uplink.online for uplink in uplinks),
            "backlog": sum(uplink.backlog for uplink in uplinks),
            "entries": sum(app.journal.last for app in apps),
            "scans": sum(each.hands.scans for each in self.residents),
            "revoked": sum(len(app.liaison.revoked()) for app in apps),
            **asdict(self.sums),
        }


def print_line(tree: object) -> None:
    """Where nobody reads it any more, it is lost."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(tree).encode() + b"\n")


def main() -> int:
    logs.configure("warning", "json")
    asyncio.run(_hosted(Spec.read(Path(sys.argv[1]))))
    return 0


async def _hosted(spec: Spec) -> None:
    await Host(spec).run()


if __name__ == "__main__":
    sys.exit(main())
