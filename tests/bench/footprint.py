"""What the agent costs while nothing happens, and how soon it is there."""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent import control
from simulators.base import VirtualDevice
from simulators.em4100 import Em4100Reader
from simulators.gnss import GnssReceiver
from simulators.gpsd import FakeGpsd
from simulators.line import LineScanner
from simulators.m100 import M100Reader
from simulators.r503 import FingerprintModule
from simulators.ssi import SsiScanner
from tests.bench import backlog, rig, roster
from tests.bench.figures import Broken, Figure, Missing, Target
from tests.bench.sizes import Sizes

LIBRARIES = "asyncio, json, paho.mqtt.client, pydantic, serial, sqlite3, ssl, structlog, tenacity, tomllib"
SEALS = "from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305"
GS1_LABEL = "]C10109506000134352211234567890"
"""A product and its serial number: read with the help of the largest library."""


def startup(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """From the start of the process to the first scan accepted: as good as new, and with a long backlog."""
    with rig.broker(folder) as broker:
        empty = [_started(_made(folder / f"empty-{n}"), broker.port) for n in range(sizes.starts)]
        bare = [_bare_started(_made(folder / f"bare-{n}"), broker.port) for n in range(sizes.starts)]
        full = _made(folder / "full")
        backlog.fill(full, sizes.queued)
        took, peak = _started(full, broker.port, sizes.settle)
    cold = statistics.median(seconds for seconds, _ in empty)
    usual = statistics.median(memory for _, memory in empty)
    yield Figure(
        name="start to first scan accepted",
        value=cold,
        unit="s",
        beside="bare loop",
        limit=statistics.median(bare),
        target=Target("<=", 1.5, "s"),
    )
    yield Figure(
        name=f"the same with {sizes.queued:,} entries queued",
        value=took,
        unit="s",
        beside="with none",
        limit=cold,
        target=Target("<=", 3, "s"),
    )
    yield Figure(
        name="most memory meanwhile, sending them",
        value=peak,
        unit="MB",
        beside="with none",
        limit=usual,
        target=Target("<=", 1.2),
    )


def resting(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """Resident memory and processor time with a unit of every kind and a roster."""
    roster.enlist(folder, sizes.drivers)
    with rig.broker(folder) as broker:
        resident, with_gs1, share = asyncio.run(_rested(folder, broker.port, sizes))
    libraries = _libraries(folder)
    yield Figure(
        name=f"resident, all drivers, {sizes.drivers:,} in the roster",
        value=resident,
        unit="MB",
        beside="libraries alone",
        limit=libraries,
        target=Target("<=", 60, "MB"),
    )
    yield Figure(
        name="resident once a GS1 element string was read",
        value=with_gs1,
        unit="MB",
        beside="libraries alone",
        limit=libraries,
    )
    yield Figure(
        name="processor while idle, all drivers",
        value=share * 100,
        unit="%",
        target=Target("<=", 1, "%"),
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _started(folder: Path, port: int, settle: float = 0.0) -> tuple[float, float]:
    """Seconds to the first good tone, and the most memory taken until it has settled."""
    with rig.line() as line, rig.agent(folder, port, rig.scanner(line, tones=True)) as agent:
        heard = rig.first_tone(agent, line)
        time.sleep(settle)
        return heard - agent.started, agent.resident("VmHWM")


def _bare_started(folder: Path, port: int) -> float:
    with rig.ear(port) as ear, rig.line() as line, rig.bare(folder, port, line) as bare:
        return rig.first_heard(bare, line, ear) - bare.started


def _libraries(folder: Path) -> float:
    """Megabytes of an interpreter that has imported the libraries and does nothing."""
    code = f"import {LIBRARIES}\n{SEALS}\nimport time\ntime.sleep(60)"
    with rig.Program([sys.executable, "-c", code], folder / "libraries.log") as idle:
        before = -1.0
        while (now := idle.resident()) > before:
            before = now
            time.sleep(0.5)
        return now


async def _rested(folder: Path, port: int, sizes: Sizes) -> tuple[float, float, float]:
    """Resident before and after the first GS1 label, and the share of a processor while nothing happens."""
    desk = LineScanner(folder / "desk")
    devices: dict[str, VirtualDevice] = {
        "ssi": SsiScanner(folder / "gun"),
        "line": desk,
        "m100": M100Reader(folder / "tunnel"),
        "em4100": Em4100Reader(folder / "badge"),
        "r503": FingerprintModule(folder / "finger"),
        "nmea": GnssReceiver(folder / "gps"),
    }
    units = [
        f'[unit.{device.name.name}]\nkind = "{kind}"\nport = "{device.name}"\n'
        for kind, device in devices.items()
    ]
    async with FakeGpsd() as gpsd:
        units.append(f'[unit.gpsd]\nkind = "gpsd"\nport = "tcp:127.0.0.1:{gpsd.port}"\n')
        with contextlib.ExitStack() as plugs:
            for device in devices.values():
                plugs.enter_context(device)
            agent = plugs.enter_context(rig.agent(folder, port, "".join(units)))
            await _ready(folder, agent)
            await asyncio.sleep(sizes.settle)
            cpu, began = agent.cpu_s(), time.perf_counter()
            await asyncio.sleep(sizes.idle)
            share = (agent.cpu_s() - cpu) / (time.perf_counter() - began)
            resident = agent.resident()
            desk.scan(GS1_LABEL)
            await asyncio.sleep(1)
            with_gs1 = agent.resident()
            # It closes its ports more politely while there are devices to hear it.
            await asyncio.to_thread(agent.end)
    return resident, with_gs1, share


async def _ready(folder: Path, agent: rig.Program) -> None:
    """Wait until every unit has found its device."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(20):
            while not status or any(unit["state"] != "ready" for unit in status["units"].values()):
                agent.alive()
                await asyncio.sleep(0.1)
                with contextlib.suppress(OSError):
                    status = await control.ask(folder / control.SOCKET, "status")
    except TimeoutError as error:
        raise Broken(f"not every unit found its device: {status.get('units')}") from error
