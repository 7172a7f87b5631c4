"""How much of everything a run takes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts, and waits in seconds."""

    scans: int
    """Lone scans timed for each program."""
    slow_scans: int
    """The same with a slow sync."""
    codes: int
    """Shown at a locker one after the other; no more than it has doors."""
    burst: int
    """Scans fed as fast as the tty takes them."""
    lone: int
    """Scans that are written to flash all by themselves."""
    lone_wait: float
    """Longer than the journal keeps a cursor back."""
    backlog: int
    singles: int
    """Entries published one by one at no round trip; far fewer at a long one."""
    thin: int
    """Scans on a thin way."""
    quiet: float
    """After so long without a message nothing more will come."""
    starts: int
    queued: int
    """Entries in the journal when the agent starts."""
    settle: float
    idle: float
    drivers: int
    rows: int
    """Rows of the roster that is looked up in."""
    lookups: int
    collected: int
    """Entries that the fleet's collector takes."""
    fleet: int
    """Devices of the fleet that is operated as a whole."""


FULL = Sizes(
    scans=400,
    slow_scans=100,
    codes=60,
    burst=20_000,
    lone=3,
    lone_wait=6.0,
    backlog=50_000,
    singles=4_000,
    thin=20,
    quiet=1.0,
    starts=5,
    queued=1_000_000,
    settle=5.0,
    idle=15.0,
    drivers=2_000,
    rows=100_000,
    lookups=5_000,
    collected=64_000,
    fleet=200,
)
QUICK = Sizes(
    scans=120,
    slow_scans=30,
    codes=20,
    burst=12_000,
    lone=1,
    lone_wait=6.0,
    backlog=20_000,
    singles=1_000,
    thin=5,
    quiet=1.0,
    starts=3,
    queued=100_000,
    settle=3.0,
    idle=5.0,
    drivers=2_000,
    rows=5_000,
    lookups=2_000,
    collected=16_000,
    fleet=30,
)
