"""`postern fleet watch`: how all devices are, now and as it changes.

Exit codes: 0 done (`q`, or interrupted), 1 with `--once` the broker was not reached, 2 a mistake in what was
typed or in a file, 74 the fleet's file cannot be read.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import broker, online

if TYPE_CHECKING:
    from agent.fleet.listener import Listener
    from agent.fleet.sight import Change, Watch
    from agent.mqtt import Server

NAME = "postern-watch"
EXIT_FAILED, EXIT_USAGE, EXIT_STORE = 1, 2, 74
WITHIN_S = 30.0
"""Longest that `--once` listens."""

CATCH_UP_S = 10.0
"""Between two looks at the fleet's file."""

Told = Callable[[Sequence["Change"]], None]


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "a live table of all devices and their alarms; at no terminal, a line for each change"
    watch = actions.add_parser("watch", help="see how all devices are, as it changes", description=about)
    broker.add_options(watch)
    watch.add_argument("--device", default="+", help="only this one")
    watch.add_argument("--store", type=Path, help="begin with what this file of `fleet collect` tells")
    watch.add_argument("--once", action="store_true", help="show it once, and end")
    watch.add_argument(
        "--quiet",
        type=online.seconds,
        default=1.0,
        metavar="SECONDS",
        help="with --once: all has been heard when nothing comes for so long (1)",
    )
    watch.add_argument(
        "--json", action="store_true", help="one object for each change, or device with --once"
    )
    watch.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    from agent.fleet.sight import Watch
    from agent.fleet.store import StoreFailed
    from agent.fleet.watch_history import read
    from agent.mqtt import ConnectionLost

    watch = Watch()
    try:
        server = broker.server(given, NAME)
        if given.store is not None:
            for past in read(given.store, _only(given)):
                watch.recall(past)
        asyncio.run(_once(given, server, watch) if given.once else _follow(given, server, watch))
    except StoreFailed as error:
        return _failed(error, EXIT_STORE)
    except ConnectionLost as lost:
        return _failed(lost, EXIT_FAILED)
    except BrokenPipeError:
        raise
    except (OSError, IndexError, ValueError) as error:
        return _failed(error, EXIT_USAGE)
    return 0


def _only(given: argparse.Namespace) -> str | None:
    return None if given.device == "+" else str(given.device)


def _failed(error: Exception, code: int) -> int:
    print(f"postern fleet watch: {error}", file=sys.stderr)
    return code


# -- once -----------------------------------------------------------------------------------------


async def _once(given: argparse.Namespace, server: "Server", watch: "Watch") -> None:
    """Raises ConnectionLost."""
    from agent.fleet.listener import Listener

    await Listener(server, given.device, watch).once(given.quiet, WITHIN_S)
    if given.json:
        for _, sight in sorted(watch.devices.items()):
            print(json.dumps(sight.facts()))
    else:
        _show(watch)


def _show(watch: "Watch") -> None:
    from agent.fleet import watch_rows
    from agent.fleet.table import show

    now, known = time.time(), [sight for _, sight in sorted(watch.devices.items())]
    rows = [watch_rows.row(sight, now) for sight in known]
    marked = [any(alarm.grave for alarm in sight.open_alarms) for sight in known]
    show(watch_rows.ALL, [[row[name] for name in watch_rows.ALL] for row in rows], marked=marked)
    alarms = [alarm for alarm in watch.alarms if not alarm.over]
    if alarms:
        print()
        lines = [watch_rows.alarm_line(alarm, now) for alarm in alarms]
        show(("AGO", "DEVICE", "ALARM", "ABOUT"), lines, marked=[alarm.grave for alarm in alarms])


# -- for ever -------------------------------------------------------------------------------------


async def _follow(given: argparse.Namespace, server: "Server", watch: "Watch") -> None:
    from agent.fleet.keyboard import quits_on_q
    from agent.fleet.listener import Listener

    listener = Listener(server, given.device, watch)
    running = asyncio.create_task(listener.run(), name="listener")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    screen = None if given.json or not sys.stdout.isatty() else _screen(watch, listener)
    if screen is None:
        listener.told = _as_json(watch) if given.json else _as_lines(watch, listener)
    work = [each for each in (screen, _catch_up(given, watch) if given.store else None) if each is not None]
    with quits_on_q(running.cancel):
        await _until_ended(running, work)


async def _until_ended(running: "asyncio.Task[None]", work: "Sequence[Coroutine[Any, Any, None]]") -> None:
    """Do all of it until the first is cancelled. What another raises is raised."""
    beside = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait((running, *beside), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, *beside):
            task.cancel()
        ends = await asyncio.gather(running, *beside, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


def _screen(watch: "Watch", listener: "Listener") -> "Coroutine[Any, Any, None] | None":
    """None where rich is not there."""
    try:
        from agent.fleet.watch_screen import Screen
    except ImportError:
        return None
    screen = Screen(watch, lambda: listener.problem)
    listener.told = lambda _: screen.refresh()
    return screen.run()


async def _catch_up(given: argparse.Namespace, watch: "Watch") -> None:
    """For ever: whatever passed between reading the file and hearing the broker is in the file soon."""
    from agent.fleet.watch_history import read

    while True:
        await asyncio.sleep(CATCH_UP_S)
        for past in await asyncio.to_thread(read, given.store, _only(given), latest=0):
            watch.recall(past)


def _as_json(watch: "Watch") -> Told:
    """One object a change: what has changed, and how the device is now. What is as before is not told."""
    last: dict[str, object] = {}

    def tell(changes: "Sequence[Change]") -> None:
        for change in changes:
            facts = watch.devices[change.device].facts()
            if change.alarm is None and last.get(change.device) == facts:
                continue
            last[change.device] = facts
            alarm = change.alarm.as_json() if change.alarm else None
            print(json.dumps({"change": change.what, "alarm": alarm, **facts}), flush=True)

    return tell


def _as_lines(watch: "Watch", listener: "Listener") -> Told:
    """A line for a device that comes, goes or worries somebody."""
    from agent.fleet.table import printable

    states: dict[str, str] = {}

    def tell(changes: "Sequence[Change]") -> None:
        if not changes:
            print(f"broker: {listener.problem or 'connected'}", file=sys.stderr, flush=True)
        for change in changes:
            sight = watch.devices[change.device]
            if change.alarm is not None:
                alarm = change.alarm
                print(printable(f"{alarm.at}  {change.device}  {alarm.text}  {alarm.subject}"), flush=True)
            elif states.get(change.device) != sight.state:
                states[change.device] = sight.state
                print(printable(f"{change.device}  {sight.state}"), flush=True)

    return tell
