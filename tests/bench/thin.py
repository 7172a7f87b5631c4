"""A scan on a thin way, while a backlog leaves by it."""

import time
from collections.abc import Iterator
from pathlib import Path

from agent.workflow import Lane
from tests.bench import backlog, rig
from tests.bench.figures import Broken, Figure, Missing, percentile
from tests.bench.sizes import Sizes
from tests.bench.wires import PATIENCE_S, Ear, Line

RATE, RTT_S = 32_000.0, 0.1
"""256 kbit/s, as bytes."""
PAUSE_S = 0.25


def thin(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """From the line on a tty to the message at the broker, amid a backlog of telemetry and after it."""
    backlog.fill(folder, sizes.backlog, Lane.TELEMETRY)
    with (
        rig.broker(folder) as server,
        rig.ear(server.port) as ear,
        rig.line() as line,
        rig.way(folder, server.port, rtt=RTT_S, rate=RATE) as near,
        rig.agent(folder, near, rig.scanner(line)) as agent,
    ):
        _warm(agent, line, ear)
        amid = _scanned(line, ear, b"AMID", sizes.thin)
        ear.until_quiet(PATIENCE_S, 2.0)
        after = _scanned(line, ear, b"AFTER", sizes.thin)
    yield Figure(
        name="scan to broker on 256 kbit/s amid a backlog, median",
        value=percentile(amid, 0.5) * 1e3,
        unit="ms",
        beside="with nothing to send",
        limit=percentile(after, 0.5) * 1e3,
    )


def _warm(agent: rig.Program, line: Line, ear: Ear) -> None:
    """Scan until one has arrived, however much follows it."""
    until = time.monotonic() + 2 * PATIENCE_S
    while ear.wait_for(b"WARM", PAUSE_S) is None:
        agent.alive()
        line.send(b"WARM\r")
        if time.monotonic() > until:
            raise Broken("no scan arrived")


def _scanned(line: Line, ear: Ear, word: bytes, scans: int) -> list[float]:
    times = []
    for number in range(scans):
        label = b"%b%08d" % (word, number)
        sent = line.scan(label)
        if (heard := ear.wait_for(label)) is None:
            raise Broken(f"{label.decode()} never arrived")
        times.append(heard - sent)
        time.sleep(PAUSE_S)
    return times
