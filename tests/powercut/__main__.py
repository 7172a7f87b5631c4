"""The long form by hand, as root: `python -m tests.powercut --cuts 200 --seed 7`.

`--control` turns every sync of the agent off: nearly each cut must then lose what sounded good. The exit
status is 0 when the cuts have shown what they must.
"""

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path

import structlog

from tests.powercut.check import Verdict
from tests.powercut.disk import missing
from tests.powercut.trial import proves, trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument(
        "--restarts", type=int, default=20, help="cuts after which the agent is started again"
    )
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--control", action="store_true")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="postern-cut-") as folder:
        if why := missing(Path(folder)):
            sys.stderr.write(f"postern: {why}\n")
            return 1
        try:
            verdicts = asyncio.run(_run(asked, Path(folder)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    _tell(verdicts)
    return 0 if (proves(verdicts) if asked.control else all(verdict.good for verdict in verdicts)) else 1


async def _run(asked: argparse.Namespace, folder: Path) -> list[Verdict]:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C: whatever is mounted is unmounted.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    verdicts = []
    sys.stdout.write(f"seed {asked.seed}\n")
    async with aclosing(
        trial(
            folder,
            scans=asked.scans,
            cuts=asked.cuts,
            restarts=min(asked.restarts, asked.cuts),
            seed=asked.seed,
            control=asked.control,
        )
    ) as running:
        async for verdict in running:
            verdicts.append(verdict)
            if not verdict.good:
                sys.stdout.write(f"{verdict}\n")
    return verdicts


def _tell(verdicts: list[Verdict]) -> None:
    at_risk = sum(verdict.at_risk > 0 for verdict in verdicts)
    losing = sum(verdict.lost > 0 for verdict in verdicts)
    wrong = sum(bool(verdict.wrong) for verdict in verdicts)
    most = max(verdict.promised for verdict in verdicts)
    sys.stdout.write(
        f"{len(verdicts)} verdicts, {at_risk} with writes at risk, up to {most} promises: "
        f"{losing} with loss, {wrong} with something else wrong\n"
    )


if __name__ == "__main__":
    sys.exit(main())
