"""`./postern bench`: run the measures, print each figure beside what this machine can do.

Exit codes: 0 whatever the figures are, 1 when a measure broke, 2 for a mistake in what was typed.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agent import logs
from tests.bench import changing, collecting, drain, fleet, flow, footprint, latency, locker, roster, thin
from tests.bench.figures import Figure, Missing, head, row
from tests.bench.machine import facts
from tests.bench.rig import ROOT
from tests.bench.sizes import FULL, QUICK, Sizes
from tests.mosquitto import find_mosquitto

Measure = Callable[[Path, Sizes], Iterator[Figure | Missing]]

MEASURES: Mapping[str, Measure] = {
    "durable": latency.durable,
    "broker": latency.broker,
    "slow-sync": latency.slow_sync,
    "pulse": locker.pulse,
    "burst": flow.burst,
    "lone": flow.lone,
    "drain": drain.drain,
    "thin": thin.thin,
    "startup": footprint.startup,
    "resting": footprint.resting,
    "roster": roster.lookup,
    "config": changing.config,
    "fleet": fleet.whole,
    "collect": collecting.collect,
}
FOLDER = ROOT / "build"
"""Not /tmp: where that is memory, nothing is ever synced."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if find_mosquitto() is None:
        sys.stderr.write("bench: no mosquitto on PATH, in /usr/sbin or in .tools\n")
        return 1
    given.folder.mkdir(parents=True, exist_ok=True)
    logs.configure("error")  # a table or JSON on standard output, and nothing else
    about = facts(given.folder)
    say = sys.stderr if given.json else sys.stdout
    say.write("".join(f"{name}: {fact}\n" for name, fact in about.items()) + "\n" + head() + "\n")
    figures: list[Figure | Missing] = []
    broken: dict[str, str] = {}
    began = time.monotonic()
    sizes = QUICK if given.quick else FULL
    sizes = dataclasses.replace(sizes, fleet=given.devices or sizes.fleet)
    for name in given.only or MEASURES:
        try:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=given.folder) as folder:
                for figure in MEASURES[name](Path(folder), sizes):
                    figures.append(figure)
                    say.write(row(figure) + "\n")
                    say.flush()
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {error}"
            say.write(f"  BROKEN  {name}: {broken[name]}\n")
    say.write(f"\n{verdict(figures)}, in {time.monotonic() - began:.0f} s\n")
    if given.json:
        results = [figure.as_json() for figure in figures]
        sys.stdout.write(
            json.dumps({"machine": about, "figures": results, "broken": broken}, indent=2) + "\n"
        )
    return 1 if broken else 0


def verdict(figures: Sequence[Figure | Missing]) -> str:
    marks = [figure.met for figure in figures if isinstance(figure, Figure)]
    missing = len(figures) - len(marks)
    told = f"{marks.count(True)} targets met, {marks.count(False)} not met"
    return f"{told}, {missing} not measured" if missing else told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="postern bench", description="Measure the agent beside the raw limits of this machine."
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASURES), metavar="NAME", help=f"of: {', '.join(MEASURES)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer of everything: some three minutes")
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help=f"of the fleet that is operated ({FULL.fleet}, quick {QUICK.fleet}); 1000 take ten minutes",
    )
    parser.add_argument(
        "--json", action="store_true", help="the figures as JSON, the table on standard error"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on the disk to measure ({FOLDER})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
