"""How long one scan takes: to stable storage, and to the broker."""

import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import rig
from tests.bench.figures import Broken, Figure, Missing, Target, percentile
from tests.bench.sizes import Sizes
from tests.bench.wires import PATIENCE_S, Line

RECORD = b"x" * 600
"""About as long as an entry."""
PAUSE_S = (0.015, 0.03)
"""Between scans: everything has come to rest, and no timer is in step with us."""


def durable(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """From the line on a tty to the good tone, which is sounded once the entry is on stable storage."""
    tones, syncs = [], []
    record = os.open(folder / "record", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with (
        rig.broker(folder) as broker,
        rig.line() as line,
        rig.agent(folder, broker.port, rig.scanner(line, tones=True)) as agent,
    ):
        rig.first_tone(agent, line)
        for number in range(sizes.scans):
            sent = line.scan(b"DUR%08d" % number)
            if (heard := line.tone(PATIENCE_S)) is None:
                raise Broken(f"no tone for scan {number}")
            tones.append(heard - sent)
            syncs.append(append(record))
            time.sleep(random.uniform(*PAUSE_S))
    os.close(record)
    for word, share in (("median", 0.5), ("p99", 0.99)):
        yield Figure(
            name=f"scan to good tone, {word}",
            value=percentile(tones, share) * 1e3,
            unit="ms",
            beside="append and fdatasync",
            limit=percentile(syncs, share) * 1e3,
        )


def broker(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """From the line on a tty to the message at the broker, durable first."""
    ours, bare = _raced(folder, sizes.scans, slow_sync=False)
    for word, share, bound in (("median", 0.5, 1.5), ("p99", 0.99, 2.0)):
        yield _beside_bare(f"scan to broker, {word}", ours, bare, share, bound)


def slow_sync(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """The same where each sync takes 10 ms longer, as on an SD card."""
    if why := rig.cannot_slow_syncs():
        yield Missing(name="scan to broker, 10 ms sync", why=why)
        return
    ours, bare = _raced(folder, sizes.slow_scans, slow_sync=True)
    yield _beside_bare("scan to broker, 10 ms sync, median", ours, bare, 0.5, 1.2)


def append(record: int) -> float:
    """Seconds that it takes to have a record on stable storage."""
    began = time.perf_counter()
    os.write(record, RECORD)
    os.fdatasync(record)
    return time.perf_counter() - began


def _beside_bare(
    name: str, ours: Sequence[float], bare: Sequence[float], share: float, bound: float
) -> Figure:
    return Figure(
        name=name,
        value=percentile(ours, share) * 1e3,
        unit="ms",
        beside="bare loop",
        limit=percentile(bare, share) * 1e3,
        target=Target("<=", bound),
    )


@dataclass
class _Racer:
    line: Line
    word: bytes
    times: list[float]


def _raced(folder: Path, scans: int, *, slow_sync: bool) -> tuple[list[float], list[float]]:
    """Agent and bare loop, a scan each in turn, so that whatever disturbs this machine disturbs both."""
    with (
        rig.broker(folder) as server,
        rig.ear(server.port) as ear,
        rig.line() as line,
        rig.line() as bare_line,
        rig.agent(folder, server.port, rig.scanner(line), slow_sync=slow_sync) as agent,
        rig.bare(folder, server.port, bare_line, slow_sync=slow_sync) as bare,
    ):
        rig.first_heard(agent, line, ear)
        rig.first_heard(bare, bare_line, ear)
        ours, theirs = _Racer(line, b"OUR", []), _Racer(bare_line, b"RAW", [])
        for number in range(scans):
            for racer in (ours, theirs):
                label = b"%b%08d" % (racer.word, number)
                sent = racer.line.scan(label)
                if (heard := ear.wait_for(label)) is None:
                    raise Broken(f"{label.decode()} never arrived")
                racer.times.append(heard - sent)
                time.sleep(random.uniform(*PAUSE_S))
    return ours.times, theirs.times
