"""The long form by hand, as root: `python -m tests.torture --cuts 1000 --seed 1`.

The exit status is 0 when every scan whose tone was heard has arrived, once and in order, and every journal
that was left has verified. Faults that this machine cannot play are named at the beginning.
"""

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import structlog

from tests.torture.lives import Life
from tests.torture.means import found
from tests.torture.run import told, torture


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="postern-torture-") as folder:
        try:
            return asyncio.run(_run(asked, Path(folder)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130


async def _run(asked: argparse.Namespace, folder: Path) -> int:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C: whatever is mounted is unmounted.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    means, lacking = found(folder)
    sys.stdout.write("".join(f"left out: {why}\n" for why in lacking) + f"seed {asked.seed}\n")
    lives: list[Life] = []
    began = time.monotonic()
    try:
        run = torture(folder, cuts=asked.cuts, seed=asked.seed, means=means)
        async with aclosing(run) as running:
            async for life in running:
                lives.append(life)
                _progress(life, asked.cuts, began)
    except AssertionError as error:
        sys.stdout.write("\n".join([f"FAILED: {error}", *getattr(error, "__notes__", ()), ""]))
        return 1
    sys.stdout.write(f"{told(lives)}\nin {time.monotonic() - began:.0f} s\n")
    return 0


def _progress(life: Life, cuts: int, began: float) -> None:
    passed = time.monotonic() - began
    sys.stdout.write(
        f"{life.number:6} of {cuts}, {passed:6.0f} s: {life.end}, way {life.way}, {life.promised} tones\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
