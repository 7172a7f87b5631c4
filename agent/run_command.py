"""`postern run`: one life of the agent after the other: which config it starts with, and when it starts anew.

A restart is a new program in the same process (execve), so that nothing of the old config is left in memory
and whoever supervises the process sees the same one. A trial that ends badly starts anew by itself, without a
supervisor: what a crash means is then seen by the course.
"""

import asyncio
import faulthandler
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from agent.app import JOURNAL, App
from agent.changeover import Pace
from agent.cli import EXIT_FAILED, EXIT_HELD, EXIT_JOURNAL, EXIT_USAGE
from agent.clock import BOOT_ID, NS, mono_ns
from agent.config import load
from agent.keyfile import BadKeyFile
from agent.mistakes import BadConfig
from agent.salvage import suspect
from agent.shelf import InForce, take_up
from agent.writer import JournalBusy, JournalDamaged, JournalFailed

GUARD_S = 30.0
"""After the end of its time a process on trial that has not given up by itself is ended."""


def anew() -> None:
    """This program once more, from its beginning."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def run(
    path: Path, *, kiosk: bool = False, again: Callable[[], None] = anew, pace: Pace | None = None
) -> int:
    """Run the agent with the config at `path`, or what the fleet has put in its place. The exit code.

    `kiosk` serves the pages at the counter whatever the config says of them.
    """
    in_force = take_up(load(path), BOOT_ID.read_text().strip(), mono_ns())
    _guard(in_force)
    try:
        code, restarting = _live(in_force, pace, kiosk=kiosk)
    except BadConfig:
        if in_force.course.trial is None:
            raise
        code, restarting = EXIT_USAGE, False
    if restarting or (in_force.course.trial is not None and code not in (0, EXIT_HELD)):
        again()
    return code


def _live(in_force: InForce, pace: Pace | None, *, kiosk: bool) -> tuple[int, bool]:
    """The exit code, and whether the agent wants to start anew."""
    config = in_force.config.with_kiosk() if kiosk else in_force.config
    restarting = False

    async def life() -> None:
        nonlocal restarting
        app = App(config, in_force=in_force, pace=pace)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, app.stop)
        await app.run()
        restarting = app.restarting

    try:
        try:
            asyncio.run(life())
        except JournalDamaged as damaged:
            # Met while it was in use. Noted, so that opening it anew sets it aside: at once, and only once.
            suspect(config.state / JOURNAL, str(damaged))
            asyncio.run(life())
    except JournalBusy as busy:
        return _failed(f"another agent holds the journal: {busy}", EXIT_HELD)
    except JournalFailed as failed:
        return _failed(f"the journal failed: {failed}", EXIT_JOURNAL)
    except (OSError, sqlite3.Error, BadKeyFile) as error:
        return _failed(f"cannot start on {config.state}: {error}", EXIT_FAILED)
    return 0, restarting


def _failed(why: str, code: int) -> tuple[int, bool]:
    print(why, file=sys.stderr)
    return code, False


def _guard(in_force: InForce) -> None:
    """A config that keeps the loop from running must not keep this process from going back."""
    trial = in_force.course.trial
    if trial is not None:
        left_s = max(0.0, (trial.until_ns - mono_ns()) / NS)
        faulthandler.dump_traceback_later(left_s + GUARD_S, exit=True)
