"""One run recorded, and the power cut in it many times."""

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

from tests.powercut.check import Verdict, check_journal, check_restart
from tests.powercut.cut import choose, images
from tests.powercut.disk import PATHS, SIZE
from tests.powercut.record import record

CARD = 0.001
"""Seconds that a flush takes: long enough for a tone that does not wait for it to be heard before it."""


def without_sync() -> list[str]:
    """A command that has every sync of the one after it succeed without being done."""
    strace = shutil.which("strace", path=PATHS) or "strace"
    tracing = [strace, "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]
    return [*tracing, "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:retval=0"]


async def trial(
    folder: Path, *, scans: int, cuts: int, restarts: int, seed: int, control: bool = False
) -> AsyncGenerator[Verdict, None]:
    """Verdicts on so many cuts; on `restarts` of them the agent is started again.

    Cuts begin with the first start of the agent, on an empty disk. In the `control` the agent's syncs do
    nothing, and cuts begin after the first promise, which was synced for it.
    """
    chance = random.Random(seed)
    prefix = without_sync() if control else []
    recording = await record(folder, scans, chance, prefix=prefix, settle=control, sync=CARD)
    first = recording.settled if control else recording.started
    chosen = choose(recording.log, recording.moments, cuts, chance, first=first, last=recording.ended)
    started_on = set(chance.sample(chosen, restarts))
    for image in images(recording.log, chosen, SIZE):
        await asyncio.sleep(0)  # Here it may be cancelled: with nothing mounted.
        yield check_journal(folder, image, recording)
        if image.cut in started_on:
            yield await check_restart(folder, image, recording)


def proves(verdicts: list[Verdict]) -> bool:
    """Whether a control has shown that a cut is a cut: nine of ten lose what sounded good."""
    promised = [verdict for verdict in verdicts if verdict.promised > 1]
    losing = [verdict for verdict in promised if verdict.lost]
    return len(promised) >= len(verdicts) // 2 and len(losing) >= 0.9 * len(promised)
