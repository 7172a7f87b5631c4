"""Many lives, each ended by a fault drawn by lot; in stations, each with a state as good as new."""

import random
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from tests.torture.lives import End, Life, Lives, Means, drawn

STATION = 25
"""Lives on one state: its disk is small, and cutting the power of it takes all of it."""


async def torture(folder: Path, *, cuts: int, seed: int, means: Means) -> AsyncGenerator[Life, None]:
    """So many lives. Raises AssertionError at the first thing that is not as promised."""
    chance = random.Random(seed)
    ends = drawn(chance, means.ends, cuts)
    for first in range(0, cuts, STATION):
        with tempfile.TemporaryDirectory(prefix="station-", dir=folder) as name:
            lives = Lives(Path(name), chance, means)
            async with lives.rig:
                for number, end in enumerate(ends[first : first + STATION], first + 1):
                    try:
                        yield await lives.live(number, end)
                    except AssertionError as error:
                        error.add_note(f"life {number}, {end} (seed {seed})")
                        raise
                try:
                    await lives.settle()
                except AssertionError as error:
                    error.add_note(f"after lives {first + 1} to {first + STATION} (seed {seed})")
                    raise


def told(lives: Iterable[Life]) -> str:
    """What was done, in words and numbers."""
    counted = Counter(life.end for life in lives)
    promised = Counter[End]()
    for life in lives:
        promised[life.end] += life.promised
    rows = [f"{counted[end]:6} {end:40} {promised[end]:8} tones" for end in End if counted[end]]
    total = f"{counted.total():6} {'in all':40} {promised.total():8} tones, all delivered, once and in order"
    return "\n".join([*rows, total])
