"""Who is this? A credential looked up in a large roster, and what it takes to bring one here."""

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agent.clock import NS, Moment, SystemClock
from agent.fleet.sealing import RowOf
from agent.roster import Roster, Row
from agent.row_seal import Keys, bucket_of, value_of
from agent.standing import Authority
from tests.bench.figures import Broken, Figure, Missing, Target, percentile
from tests.bench.sizes import Sizes
from tests.bundles import Press

FULL_ROWS = 100_000
UNTIL = 4_102_444_799
"""Good for as long as anybody measures: 2099-12-31."""
SHARED_MEMORY = Path("/dev/shm")
_FETCH = "SELECT sealed FROM sealed WHERE generation = ? AND bucket = ? AND id = ?"


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
    """Bring a whole roster here page by page, then judge credentials that are in it, beside fetching as many
    rows by their key and no more."""
    press = _printed(folder, sizes.rows)
    filling = [sys.executable, "-m", "tests.bench.importing", str(folder)]
    told = json.loads(subprocess.run(filling, check=True, capture_output=True, text=True).stdout)
    path, keys = folder / "roster.db", Keys.load(folder / "keys")
    chosen = random.Random(1).choices(range(sizes.rows), k=sizes.lookups)
    clock = SystemClock()
    heard_at = clock.now().utc_ns / NS
    fleet = Authority(knowledge_at=lambda: heard_at, listed_at=lambda: heard_at)
    with closing(Roster(path, keys, authority=fleet)) as roster:
        times = [_judged(roster, number, clock.now()) for number in chosen]
    with closing(sqlite3.connect(path)) as plain:
        raw = [_fetched(plain, _place(press, keys, number)) for number in chosen]
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
    yield Figure(
        name=f"most memory while {sizes.rows:,} rows are brought",
        value=told["extra"],
        unit="MB more",
        target=Target("<=", 64, "MB"),
    )
    yield Figure(name=f"bringing {sizes.rows:,} rows", value=told["seconds"], unit="s")
    yield from _changed(press, sizes.rows)


def _printed(folder: Path, rows: int) -> Press:
    """What the fleet would leave at the broker, in files."""
    press = Press()
    document = press.print(_everybody(rows))
    (folder / "pages").mkdir()
    for digest, page in press.pages.items():
        (folder / "pages" / digest).write_bytes(page)
    (folder / "list.jws").write_bytes(document.raw)
    (folder / "signer").write_bytes(press.signer.public)
    (folder / "seal").write_bytes(press.seal.private_bytes_raw())
    return press


def _everybody(rows: int, but: int | None = None) -> list[RowOf]:
    body = {"finger": ["finger", 7], "until": UNTIL}
    return [
        RowOf("static", token(number), {"subject": f"driver-{number:06d}", **body})
        for number in range(rows)
        if number != but
    ]


def _changed(press: Press, rows: int) -> Iterator[Figure]:
    """What a device has to fetch for one row less, beside all of it."""
    before, whole = set(press.pages), sum(map(len, press.pages.values()))
    document = press.print(_everybody(rows, but=7))
    new = sum(len(page) for digest, page in press.pages.items() if digest not in before)
    yield Figure(
        name="one row taken away, to be fetched",
        value=(new + len(document.raw)) / 1e3,
        unit="KB",
        beside="everything",
        limit=whole / 1e3,
    )


def _place(press: Press, keys: Keys, number: int) -> tuple[int, int, bytes]:
    """Where the row of a token lies: of the only generation that was ever filled."""
    assert press.laid is not None
    value = value_of(press.epoch.key, "static", token(number))
    return 1, bucket_of(value, press.laid.buckets), keys.split(value)[0]


def _judged(roster: Roster, number: int, now: Moment) -> float:
    presented = token(number)
    began = time.perf_counter()
    judgement = roster.present("static", presented, reader="gate", claim=None, now=now, records={})
    took = time.perf_counter() - began
    if not judgement.verdict.granted:
        raise Broken(f"expected a verdict in favour of {number}, got {judgement.verdict.outcome}")
    return took


def _fetched(plain: sqlite3.Connection, place: tuple[int, int, bytes]) -> float:
    began = time.perf_counter()
    found = plain.execute(_FETCH, place).fetchone()
    took = time.perf_counter() - began
    if found is None:
        raise Broken("a row that was put there is not there")
    return took
