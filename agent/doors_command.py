"""`postern doors`: what a technician at a locker asks it, and has it do to compartments. Opens no door.

Exit codes: 0 done, 1 something is wrong with the doors or nobody answers, 2 a mistake in what was typed.
All of them ask a running agent; where none runs, they look into its journal, or at its boards, themselves.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from agent.config import Config
    from agent.locker.inspection import BoardSeen
    from agent.units import UnitSpec

EXIT_WRONG = 1
WATCH_S = 1.0
"""Between two looks of `--watch`."""
HEADINGS = ("NAME", "SIZE", "LOCK", "STATE", "HOOK", "CONTACT", "CONTENT", "SINCE (UTC)", "REASON")
STAMPED = ("clock", "position", "position_missing")
"""What every entry says, in its data."""
BAD = ("out_of_service", "quarantined")

Told = Mapping[str, Any]


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    doors = commands.add_parser("doors", help="a locker's doors and compartments, for whoever sees to them")
    actions = doors.add_subparsers(required=True, metavar="ACTION")
    status = actions.add_parser("status", help="every compartment, and what each of its sensors says")
    status.add_argument("--watch", action="store_true", help="go on, until interrupted")
    history = actions.add_parser("history", help="what has happened at one compartment, the newest last")
    history.add_argument("compartment")
    history.add_argument("--last", type=int, default=50, help="so many entries (50)")
    quarantine = actions.add_parser("quarantine", help="take a compartment out of use")
    release = actions.add_parser("release", help="give it back, once somebody has looked at it")
    receipt = actions.add_parser("receipt", help="what the courier was given for a parcel")
    receipt.add_argument("parcel", help="as it is scanned, or its id")
    test = actions.add_parser("test", help="read every board, and say what would be wrong; pulses nothing")
    calibrate = actions.add_parser(
        "calibrate", help="find out which way round each door's switch is, by hand"
    )
    calibrate.add_argument("unit")
    for action in (quarantine, release):
        action.add_argument("compartment")
        action.add_argument("--reason", required=True)
    for action, run in (
        (status, _status),
        (history, _history),
        (quarantine, _see_to),
        (release, _see_to),
        (receipt, _receipt),
        (test, _test),
        (calibrate, _calibrate),
    ):
        action.add_argument("--config", type=Path, default=Path("/etc/postern/postern.toml"))
        if action is not calibrate:
            action.add_argument("--json", action="store_true")
        action.set_defaults(run=run)
    quarantine.set_defaults(verb="quarantine")
    release.set_defaults(verb="release")


def _locker(path: Path) -> "Config":
    """The config of a locker. Raises BadConfig, or Mistake for that of anything else."""
    from agent.cli import Mistake
    from agent.config import load

    config = load(path)
    if config.file.locker is None:
        raise Mistake(f"{path}: expected a locker, got a config without [locker.compartment.<name>]")
    return config


def _printable(text: str) -> str:
    # What was scanned or typed at the locker does not get to steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


# -- status ---------------------------------------------------------------------------------------


def _status(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent
    from agent.fleet.table import show

    config = _locker(given.config)
    if given.watch:
        return asyncio.run(_watch(config, as_json=given.json))
    told = ask_agent(
        config,
        lambda path: control.ask(path, "doors"),
        lambda app: _at_once(app.caretaker.doors(running=False)),
    )
    if given.json:
        print(json.dumps(told))
        return 0
    if not told["running"]:
        print("no agent runs: this is what its journal says", file=sys.stderr)
    show(HEADINGS, _rows(told), marked=_marks(told))
    return 0


async def _at_once(told: Told) -> Told:
    return told


async def _watch(config: "Config", *, as_json: bool) -> int:
    """Until interrupted, or until the agent answers no more."""
    from agent import control
    from agent.fleet.table import live

    before: Told | None = None
    with live(HEADINGS) as draw:
        while True:
            try:
                told = await control.ask(config.state / control.SOCKET, "doors")
            except (OSError, TimeoutError, ValueError) as error:
                print(f"no agent answers at {config.state / control.SOCKET}: {error}", file=sys.stderr)
                return EXIT_WRONG
            if not as_json:
                draw(_rows(told), _marks(told))
            elif told != before:
                print(json.dumps(told), flush=True)
            before = told
            await asyncio.sleep(WATCH_S)


def _rows(told: Told) -> list[tuple[str, ...]]:
    return [
        (
            name,
            each["size"],
            f"{each['unit']}/{each['door']}",
            each["state"],
            *(each["sensors"][sensor] or "-" for sensor in ("hook", "contact", "content")),
            _when(each["since"]),
            _printable(each["reason"] or ""),
        )
        for name, each in told["compartments"].items()
    ]


def _marks(told: Told) -> list[bool]:
    return [each["state"] in BAD for each in told["compartments"].values()]


def _when(seconds: int | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


# -- history, quarantine, release -----------------------------------------------------------------


def _history(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent

    asked = {"compartment": given.compartment, "last": given.last}
    told = ask_agent(
        _locker(given.config),
        lambda path: control.ask(path, "door_history", **asked),
        lambda app: app.caretaker.history(given.compartment, given.last),
    )
    if given.json:
        print(json.dumps(told))
        return 0
    if not told["complete"]:
        print("(older entries are left out)")
    for entry in told["entries"]:
        print(_line(entry))
    return 0


def _line(entry: Told) -> str:
    """Time to the second, what happened, and what is known of it."""
    known = " ".join(
        f"{key}={value}" for key, value in entry["data"].items() if key not in STAMPED and value is not None
    )
    what = entry["type"].removeprefix("postern.")
    return _printable(f"{entry['time'][:19]}Z  {entry['sequence']:>6}  {what:30}  {known}").rstrip()


def _see_to(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent

    asked = {"compartment": given.compartment, "verb": given.verb, "reason": given.reason}
    told = ask_agent(
        _locker(given.config),
        lambda path: control.ask(path, "door_service", **asked),
        lambda app: app.caretaker.see_to(given.compartment, given.verb, given.reason),
    )
    print(json.dumps(told) if given.json else f"{told['compartment']}: {told['state']}")
    return 0


# -- receipt --------------------------------------------------------------------------------------


def _receipt(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent

    told = ask_agent(
        _locker(given.config),
        lambda path: control.ask(path, "door_receipt", parcel=given.parcel),
        lambda app: app.caretaker.receipt(given.parcel),
    )
    if given.json:
        print(json.dumps(told))
        return 0
    print(_printable(f"{told['parcel']} in {told['compartment']}, from {told['courier']}, {told['time']}"))
    print(f"signed by this device's key {told['signed_by']}:")
    print(told["receipt"])
    if sys.stdout.isatty():
        import segno

        segno.make_qr(told["receipt"], error="l").terminal(compact=True, border=2)
    return 0


# -- test -----------------------------------------------------------------------------------------


def _test(given: argparse.Namespace) -> int:
    from agent import control
    from agent.cli import ask_agent

    config = _locker(given.config)
    told = ask_agent(
        config, lambda path: control.ask(path, "door_test", now=True), lambda _: _test_alone(config)
    )
    if given.json:
        print(json.dumps(told))
    else:
        _show_test(told)
    return EXIT_WRONG if told["findings"] else 0


def _show_test(told: Told) -> None:
    for each in told["boards"]:
        where = each["unit"] if each["board"] is None else f"{each['unit']}, board {each['board']}"
        print(f"{where}: {each['problem'] or str(each['doors']) + ' doors read'}")
    for finding in told["findings"]:
        place, expected, found = (_printable(finding[name]) for name in ("place", "expected", "found"))
        print(f"WRONG  {place}: expected {expected}, found {found}")
    print(f"{len(told['findings'])} found" if told["findings"] else "nothing wrong")


async def _test_alone(config: "Config") -> Told:
    """What the boards say by themselves; what lies behind the doors only an agent knows."""
    from agent.locker.caretaker import report
    from agent.locker.inspection import Books, judge

    rules = config.locker_rules()
    assert rules is not None
    wanted = {each.unit for each in rules.wall.compartments.values()}
    seen: list[BoardSeen] = []
    for spec in config.units:
        if spec.name in wanted:
            seen += await _seen(spec)
    return report(seen, judge(rules.wall, seen, Books(known=False)))


async def _seen(spec: "UnitSpec") -> "Sequence[BoardSeen]":
    from agent.locker.looking import look, opened
    from drivers.base import ActionRefused, NoReply
    from drivers.port import PortGone

    try:
        async with opened(spec) as driver:
            return await look(spec.name, driver)
    except (PortGone, NoReply, ActionRefused, TimeoutError) as error:
        return await look(spec.name, None, str(error) or "no answer")


# -- calibrate ------------------------------------------------------------------------------------


def _calibrate(given: argparse.Namespace) -> int:
    from agent import control
    from agent.calibrate_command import commission
    from agent.cli import EXIT_FAILED, Mistake
    from agent.intake import Role
    from drivers.base import ActionRefused, NoReply
    from drivers.port import PortGone

    config = _locker(given.config)
    boards = {unit.name: unit for unit in config.units if unit.role is Role.DOORS}
    if given.unit not in boards:
        raise Mistake(f"unit: expected one of {', '.join(boards) or '(none)'}, got {given.unit!r}")
    rules = config.locker_rules()
    assert rules is not None
    try:
        asyncio.run(_nobody_home(config.state / control.SOCKET))
        return asyncio.run(commission(boards[given.unit], rules.wall))
    except (PortGone, NoReply, ActionRefused, TimeoutError) as error:
        print(f"unit {given.unit}: expected its boards to answer, got {error}", file=sys.stderr)
        return EXIT_FAILED


async def _nobody_home(path: Path) -> None:
    """Raises Mistake where an agent runs: its boards are its own."""
    from agent import control
    from agent.cli import Mistake

    try:
        await control.ask(path, "status")
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except (OSError, TimeoutError, ValueError):
        pass
    raise Mistake(f"{path}: expected no running agent, found one; stop it first")
