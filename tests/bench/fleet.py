"""A fleet operated: one config until it is reported, and a whole fleet until all of it has what it was given.

The devices of the whole fleet are real agents that share a few processes: what they take for themselves they
take from one another, and from the command that is measured. So these figures are of this machine with so
many devices on it; a device in a van has a processor of its own.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from agent.fleet.publish import send_all
from agent.mqtt import Connection, Server
from tests.bench.figures import Broken, Figure, Missing, Target
from tests.bench.sizes import Sizes
from tests.thousand import Heard, Thousand

PATIENCE_S = 1800.0
MESSAGES, BYTES = 5, 900
"""What a push leaves for each device that had nothing: two pages, their list, the root and a head."""
ROSTER = "kind,subject,secret\n"


def whole(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """A roster pushed and rolled out, a revocation, and a broker that restarts."""
    with Thousand(folder, devices=sizes.fleet, rate=1.0) as fleet:
        yield from asyncio.run(_operated(fleet))


async def _operated(fleet: Thousand) -> list[Figure | Missing]:
    many = fleet.devices
    async with fleet.heard() as heard:
        await _settled(heard, many)
        pushed = await _until_in_force(fleet, heard, "push", "roster", _roster(fleet, 2), "--all")
        alone = await _published(fleet)
        state = ("--state", str(fleet.folder / "bench.rollout"), "--soak", "0.1", "--quiet", "0.5")
        rolled = await _until_in_force(fleet, heard, "rollout", "start", "roster", _roster(fleet, 3), *state)
        await _typed(fleet, "revoke", "--subject", "drv-0001")
        await heard.until(lambda: heard.sums["revoked"] == many, "the revocation everywhere", PATIENCE_S)
        longest = heard.sums["took"]["revocations"]["longest"]
        back = await _restarted(fleet, heard)
    return [
        Figure(
            name=f"roster pushed, in force on all of {many}",
            value=pushed,
            unit="s",
            beside="as many messages alone",
            limit=alone,
        ),
        Figure(
            name=f"roster rolled out to {many} in four stages",
            value=rolled,
            unit="s",
            beside="pushed to all at once",
            limit=pushed,
        ),
        Figure(
            name=f"revocation in force after it came, slowest of {many}",
            value=longest * 1e3,
            unit="ms",
            target=Target("<=", 1000, "ms"),
        ),
        Figure(name=f"broker restarted: all {many} back, backlog sent", value=back, unit="s"),
    ]


def _roster(fleet: Thousand, people: int) -> str:
    path = fleet.folder / f"roster-{people}.csv"
    path.write_text(ROSTER + "".join(f"badge,drv-{each:04},01{each:08d}\n" for each in range(people)))
    return str(path)


async def _typed(fleet: Thousand, *words: str) -> None:
    code, said = await fleet.types(*words, within=PATIENCE_S)
    if code:
        raise Broken(f"postern fleet {words[0]} ended with {code}: {said[-1:]}")


async def _until_in_force(fleet: Thousand, heard: Heard, *words: str) -> float:
    """Seconds from the command until every device says that it has the next version of the roster."""
    before = max((_version(state) for state in heard.states.values()), default=0)
    began = time.perf_counter()
    await _typed(fleet, *words)
    await heard.until(
        lambda: heard.with_bundle("bundle/roster", before + 1) == fleet.devices, "the roster", PATIENCE_S
    )
    return time.perf_counter() - began


def _version(state: object) -> int:
    match state:
        case {"trust": {"documents": {"bundle/roster": int(ver)}}}:
            return ver
    return 0


async def _settled(heard: Heard, many: int) -> None:
    await heard.until(
        lambda: heard.calm(many) and len(heard.states) == many,
        "the fleet online",
        PATIENCE_S,
    )


async def _published(fleet: Thousand) -> float:
    """Seconds for as many messages of such a size, retained and acknowledged, signed by nobody."""
    server = Server(host=fleet.broker.host, port=fleet.broker.port, client_id="bench-raw")
    connection = Connection(server)
    await connection.connect()
    began = time.perf_counter()
    try:
        numbers = range(fleet.devices * MESSAGES)
        await send_all(connection, ((f"raw-{each}", "page/raw", os.urandom(BYTES)) for each in numbers))
        return time.perf_counter() - began
    finally:
        await connection.close()


async def _restarted(fleet: Thousand, heard: Heard) -> float:
    """Seconds from the broker's start until all are back and what they had to say has been sent."""
    fleet.broker.stop()
    await heard.until(lambda: heard.sums["online"] == 0, "all offline", PATIENCE_S)
    began = time.perf_counter()
    fleet.broker.start()
    await _settled(heard, fleet.devices)
    return time.perf_counter() - began
