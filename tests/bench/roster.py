"""Who is this? A credential looked up in a large roster."""

import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agent.clock import NS, SystemClock
from agent.roster import Roster, Row
from agent.rows import Keys
from tests.bench.figures import Broken, Figure, Missing, Target, percentile
from tests.bench.sizes import Sizes

FULL_ROWS = 100_000
SHARED_MEMORY = Path("/dev/shm")
_FETCH = "SELECT sealed FROM sealed WHERE generation = 0 AND bucket = 0 AND id = ?"


def token(number: int) -> bytes:
    return b"bench-static-token-%08d" % number


def enlist(folder: Path, drivers: int) -> None:
    """The roster of an agent that is to run in this folder."""
    until = SystemClock().now().utc_ns // NS + 30 * 86_400
    # A commit for each row: where nothing is synced, until the file is complete.
    swift = SHARED_MEMORY if SHARED_MEMORY.is_dir() else folder
    with tempfile.TemporaryDirectory(dir=swift) as scratch:
        with closing(Roster(Path(scratch) / "roster.db", Keys.load(folder / "keys"))) as roster:
            for number in range(drivers):
                row = Row(subject=f"driver-{number:06d}", kind="static", until=until)
                roster.put(row, token(number), as_of=until)
        (folder / "roster.db").write_bytes((Path(scratch) / "roster.db").read_bytes())


def lookup(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """Judge credentials that are in the roster, beside fetching as many rows by their key and no more."""
    enlist(folder, sizes.rows)
    path = folder / "roster.db"
    chosen = random.Random(1).choices(range(sizes.rows), k=sizes.lookups)
    keys = Keys.load(folder / "keys")
    with closing(Roster(path, keys)) as roster:
        times = [_judged(roster, number) for number in chosen]
    with closing(sqlite3.connect(path)) as plain:
        raw = [_fetched(plain, keys.derive("static", token(number))[0]) for number in chosen]
    for word, share, target in (("median", 0.5, None), ("p99", 0.99, Target("<=", 100, "us"))):
        yield Figure(
            name=f"roster check among {sizes.rows:,} rows, {word}",
            value=percentile(times, share) * 1e6,
            unit="us",
            beside="row fetched by key",
            limit=percentile(raw, share) * 1e6,
            target=target,
        )
    scaled = "" if sizes.rows == FULL_ROWS else f", from {sizes.rows:,}"
    yield Figure(
        name=f"roster of {FULL_ROWS:,} rows on disk{scaled}",
        value=path.stat().st_size / sizes.rows * FULL_ROWS / 1e6,
        unit="MB",
        target=Target("<=", 29, "MB"),
    )


def _judged(roster: Roster, number: int) -> float:
    now = SystemClock().now()
    began = time.perf_counter()
    judgement = roster.present("static", token(number), reader="gate", claim=None, now=now, records={})
    took = time.perf_counter() - began
    if not judgement.verdict.granted:
        raise Broken(f"expected a verdict in favour of {number}, got {judgement.verdict.outcome}")
    return took


def _fetched(plain: sqlite3.Connection, key: bytes) -> float:
    began = time.perf_counter()
    found = plain.execute(
        "SELECT sealed FROM sealed WHERE generation = 0 AND bucket = 0 AND id = ?", (key,)
    ).fetchone()
    took = time.perf_counter() - began
    if found is None:
        raise Broken("a row that was put there is not there")
    return took
