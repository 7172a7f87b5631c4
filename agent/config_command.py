"""`postern explain`: what one config would change in another, before anything does.

Exit codes: 0 told, 2 a mistake in one of the files.
"""

import argparse
import json
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


def _explain(given: argparse.Namespace) -> int:
    from agent.config import load
    from agent.explain import explain

    people = people_of(given.roster)
    show(given, explain(load(given.old), load(given.new), people))
    return 0
