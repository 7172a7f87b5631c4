"""Many scans at once, and what scans cost the flash.

Bytes written are the kernel's account of the process: whole pages that it dirtied in files, which is what
reaches the disk for a database that is synced at each commit. The file system's own journal is not in it.
"""

import select
import time
from collections.abc import Iterator
from pathlib import Path

from agent.batch import LINES
from agent.mqtt import publish_overhead
from tests.bench import rig
from tests.bench.figures import Broken, Figure, Missing, Target
from tests.bench.sizes import Sizes
from tests.bench.wires import PATIENCE_S, Ear, Line

SEQUENCES = (("from", "9" * 6), ("to", "9" * 6))
"""What a message says besides; the ear is too simple to hear it."""
CHUNK = 32
"""Scans offered to the tty at once: it takes 4 KiB."""


def burst(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """Scans as fast as the tty takes them, until the last one is at the broker, durable first."""
    with rig.broker(folder) as broker, rig.ear(broker.port) as ear:
        with rig.line() as line, rig.agent(folder, broker.port, rig.scanner(line)) as agent:
            rig.first_heard(agent, line, ear)
            before = agent.written()
            took, payload = _fed(line, ear, sizes.burst)
            written = agent.written() - before
        with rig.line() as line, rig.bare(folder, broker.port, line) as bare:
            rig.first_heard(bare, line, ear)
            bare_took, _ = _fed(line, ear, sizes.burst)
    yield Figure(
        name="scans sustained, group commit",
        value=sizes.burst / took,
        unit="/s",
        beside="bare loop",
        limit=sizes.burst / bare_took,
        target=Target(">=", 2000, "/s"),
    )
    yield Figure(
        name="written to flash in that burst, per scan",
        value=written / sizes.burst,
        unit="B",
        beside="as entries",
        limit=payload / sizes.burst,
        target=Target("<=", 3),
    )


def lone(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """One scan, and then nothing until the cursor is written as well."""
    with (
        rig.broker(folder) as broker,
        rig.ear(broker.port) as ear,
        rig.line() as line,
        rig.agent(folder, broker.port, rig.scanner(line)) as agent,
    ):
        rig.first_heard(agent, line, ear)
        time.sleep(sizes.lone_wait)
        before, payload, sent = agent.written(), 0, 0
        for number in range(sizes.lone):
            line.scan(b"LONE%08d" % number)
            for heard in ear.until_quiet(PATIENCE_S, 0.2):
                payload += len(heard.text())
                sent += len(heard.payload) + publish_overhead(heard.topic, LINES, SEQUENCES)
            time.sleep(sizes.lone_wait)
        written = agent.written() - before
    yield Figure(
        name="written to flash by a lone scan",
        value=written / sizes.lone / 1000,
        unit="KB",
        beside="as an entry",
        limit=payload / sizes.lone / 1000,
        target=Target("<=", 10, "KB"),
    )
    yield Figure(
        name="sent for a lone scan, all told",
        value=sent / sizes.lone,
        unit="B",
        beside="as an entry",
        limit=payload / sizes.lone,
    )


def _fed(line: Line, ear: Ear, scans: int) -> tuple[float, int]:
    """Seconds from the first scan to the last message, and the bytes of all entries."""
    todo = b"".join(b"FLOW%08d\r" % number for number in range(scans))
    size = len(todo) // scans
    began = last = time.perf_counter()
    arrived = payload = 0
    while arrived < scans:
        readable, writable, _ = select.select([ear], [line] if todo else [], [], PATIENCE_S)
        if not readable and not writable:
            raise Broken(f"expected {scans} scans at the broker, got {arrived}")
        if writable:
            todo = todo[line.send(todo[: CHUNK * size]) :]
        for heard in ear.hear(0) if readable else ():
            entries = [entry for entry in heard.text().splitlines() if b"FLOW" in entry]
            arrived += len(entries)
            payload += sum(map(len, entries))
            last = heard.at
    return last - began, payload
