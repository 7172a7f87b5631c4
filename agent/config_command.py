"""`postern explain` and `postern config`: what a config would change, and the way back to the file at hand.

Exit codes: 0 done, 1 it could not be done, 2 a mistake in one of the files.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.explain import Explanation


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explain = commands.add_parser("explain", help="say what one config file would change in another")
    explain.add_argument("old", type=Path)
    explain.add_argument("new", type=Path)
    explain_options(explain)
    explain.set_defaults(run=_explain)
    config = commands.add_parser("config", help="the config in force at this device")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    revert = actions.add_parser("revert", help="go back to the config file, from whatever the fleet has sent")
    revert.add_argument("--config", type=Path, default=Path("/etc/postern/postern.toml"))
    revert.set_defaults(run=_revert)


def explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--roster", type=Path, help="a roster file: name the drivers who would be locked out")
    parser.add_argument("--json", action="store_true")


def show(given: argparse.Namespace, explanation: "Explanation") -> None:
    print(json.dumps(explanation.as_json()) if given.json else explanation.text)


def people_of(roster: Path | None) -> Mapping[str, set[str]]:
    """Kinds of factors that each subject of a roster file has. Raises BadConfig."""
    if roster is None:
        return {}
    from agent.fleet import row_files

    found: dict[str, set[str]] = {}
    for row in row_files.read("roster", roster):
        kinds = found.setdefault(row.body["subject"], set())
        kinds.add(row.kind)
        if "finger" in row.body:
            kinds.add("slot")
    return found


def _revert(given: argparse.Namespace) -> int:
    """The agent that runs does it and starts anew; where none does, the next will find it done."""
    from agent import control
    from agent.config import load

    config = load(given.config)
    try:
        answer = asyncio.run(control.ask(config.state / control.SOCKET, "config_revert"))
        version, failed = answer.get("reverted"), answer.get("error")
    except (OSError, TimeoutError, ValueError):
        version, failed = _revert_alone(config.state)
    if failed is not None:
        print(f"postern config: {failed}", file=sys.stderr)
        return 1
    print(f"config {version} is no longer in force: {given.config} is")
    return 0


def _revert_alone(state: Path) -> tuple[int | None, str | None]:
    from agent.changeover import BY_HAND
    from agent.shelf import Shelf

    shelf = Shelf(state)
    course = shelf.course()
    edition = course.trial.edition if course.trial else course.confirmed
    if edition is None:
        return None, "the file at the device is in force already"
    shelf.save(course.withdrawn([BY_HAND]))
    return edition.version, None


def _explain(given: argparse.Namespace) -> int:
    from agent.config import load
    from agent.explain import explain

    people = people_of(given.roster)
    show(given, explain(load(given.old), load(given.new), people))
    return 0
