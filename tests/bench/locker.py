"""How long a right code takes to become a pulse on the lock bus."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from agent.envelope import Kind, issue
from agent.performer import GRID_NS
from simulators.cu16 import Cu16Bus
from tests.authority import Authority, fresh
from tests.bench import rig
from tests.bench.figures import Broken, Figure, Missing, percentile
from tests.bench.latency import append
from tests.bench.sizes import Sizes
from tests.bench.wires import PATIENCE_S, Line

BOARDS, LOCKS = 4, 16
DAY_S = 86_400
APART_S = 0.75
"""A supply carries one pulse at a time: the next code comes when the wiring has rested."""


def pulse(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """From a signed code on a tty to the pulse on the bus: verified, spent, and on stable storage first."""
    fleet, now = Authority(), int(time.time())
    fleet.signers["grant"] = [fresh()]
    root = issue(
        Kind.ROOT, fleet.root_body(), fleet.roots[:2], aud="bench/*", iat=now, exp=now + DAY_S, ver=1
    )
    (folder / "root.jws").write_bytes(root)
    codes = [
        fleet.made(
            Kind.GRANT,
            {"parcel": f"back-{number}", "purpose": "return"},
            1,
            aud=f"bench/{rig.DEVICE}",
            iat=now,
            exp_in=DAY_S,
        )
        for number in range(min(sizes.codes, BOARDS * LOCKS))
    ]
    taken, syncs = asyncio.run(_shown(folder, codes))
    grid = GRID_NS / 1e9
    for word, share in (("median", 0.5), ("p99", 0.99)):
        yield Figure(
            name=f"code to pulse beyond the 150 ms grid, {word}",
            value=(percentile(taken, share) - grid) * 1e3,
            unit="ms",
            beside="append and fdatasync",
            limit=percentile(syncs, share) * 1e3,
        )


async def _shown(folder: Path, codes: list[bytes]) -> tuple[list[float], list[float]]:
    """Seconds that each code took, and seconds that an append took beside it."""
    taken, syncs = [], []
    record = os.open(folder / "record", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with (
        rig.broker(folder) as broker,
        rig.line() as line,
        Cu16Bus(folder / "bus", dict.fromkeys(range(BOARDS), LOCKS)) as bus,
        rig.agent(folder, broker.port, _wall(folder, line)) as agent,
    ):
        warm, *others = codes
        while not _fed(bus):
            agent.alive()
            line.scan(warm)
            await _pulsed(bus, 1, APART_S)
        for number, code in enumerate(others, 2):
            await asyncio.sleep(APART_S)
            sent = line.scan(code)
            if not await _pulsed(bus, number, PATIENCE_S):
                raise Broken(f"no pulse for code {number}: {agent.log.read_text()[-600:]}")
            taken.append(_fed(bus)[-1] - sent)
            syncs.append(append(record))
    os.close(record)
    return taken, syncs


async def _pulsed(bus: Cu16Bus, number: int, within: float) -> bool:
    """Whether the bus has carried so many pulses in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while len(_fed(bus)) < number:
                await bus.asked_for(b"\x02")
    return len(_fed(bus)) >= number


def _fed(bus: Cu16Bus) -> list[float]:
    """When solenoids were fed, by the clock that stamps what is sent."""
    return sorted(at for board in bus.boards.values() for door in board.doors for at in door.fed)


def _wall(folder: Path, line: Line) -> str:
    """The tables of a locker whose compartments stay open: each code gets another."""
    boards = ", ".join(f"{{ address = {board}, locks = {LOCKS} }}" for board in range(BOARDS))
    compartments = "".join(
        f'[locker.compartment.a{door}]\nunit = "bus"\ndoor = {door}\n'
        for door in range(1, BOARDS * LOCKS + 1)
    )
    bus = f'[unit.bus]\nkind = "cu16"\nport = "{folder}/bus"\nboards = [{boards}]\n'
    trust = f'[trust]\nroot = "{folder}/root.jws"\n'
    return rig.scanner(line) + bus + trust + "[locker]\ngap = 0.1\n" + compartments
