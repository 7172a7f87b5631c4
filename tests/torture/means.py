"""What this machine can do to an agent, and why it cannot do the rest."""

from pathlib import Path

from tests.played_clock import no_clock
from tests.powercut.disk import missing
from tests.torture.lives import Means
from tests.traced import cannot_trace


def found(folder: Path) -> tuple[Means, list[str]]:
    """What can be done; and what is left out, with the reason."""
    disk, slow, clock = missing(folder), cannot_trace(), no_clock()
    means = Means(disk=not disk, slow=not slow, clock=not clock)
    return means, [why for why in (disk, slow, clock) if why]
