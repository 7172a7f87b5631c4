"""`postern schema`: what goes over the wire and into files, for machines; the types of entries, for people.

Exit codes: 0 done, 1 a file could not be written, 2 a mistake in what was typed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.schema.entry_type import EntryType, Json

EXIT_FAILED, EXIT_USAGE = 1, 2
ENTRIES = "entries"


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `schema` to the `postern` command; it sets `run`."""
    schema = subparsers.add_parser("schema", help="describe topics, entries, documents and the config file")
    schema.add_argument(
        "what",
        nargs="?",
        choices=(*MAKERS, ENTRIES),
        help=f"one of {', '.join(MAKERS)} as JSON; {ENTRIES} as a table; all of the former without it",
    )
    schema.add_argument("--out", type=Path, metavar="DIR", help="write files instead")
    schema.add_argument("--json", action="store_true", help=f"{ENTRIES} as JSON, one object a line")
    schema.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    if given.what == ENTRIES:
        return _entries(given)
    if given.what is None and given.out is None:
        print("postern schema: expected --out, or what to describe", file=sys.stderr)
        return EXIT_USAGE
    files = {
        name: content
        for what, make in MAKERS.items()
        if given.what in (None, what)
        for name, content in make().items()
    }
    if given.out is None:
        print(json.dumps(next(iter(files.values())) if len(files) == 1 else files, indent=2))
        return 0
    return _written(given.out, files)


def _written(folder: Path, files: "Mapping[str, Json]") -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(path)
    except OSError as error:
        print(f"postern schema: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _entries(given: argparse.Namespace) -> int:
    from agent.schema.entry_types import CATALOGUE

    if given.out is not None:
        print("postern schema: --out: expected nothing with entries, which are a table", file=sys.stderr)
        return EXIT_USAGE
    if given.json:
        for each in CATALOGUE.values():
            print(json.dumps(_told(each)))
        return 0
    from agent.fleet.table import show

    rows = [(each.type, each.subject, "/".join(each.lanes), each.meaning) for each in CATALOGUE.values()]
    show(("TYPE", "SUBJECT", "LANE", "MEANING"), rows)
    return 0


def _told(each: "EntryType") -> "Json":
    return {
        "type": f"postern.{each.type}",
        "subject": each.subject,
        "lanes": list(each.lanes),
        "data": {field.name: {"required": field.required} for field in each.fields},
        "meaning": each.meaning,
    }


# Each imports what it needs: most commands describe nothing.


def _asyncapi() -> "dict[str, Json]":
    from agent.schema.asyncapi import document

    return {"asyncapi": document()}


def _entry() -> "dict[str, Json]":
    from agent.schema.entries import schema

    return {"entry": schema()}


def _state() -> "dict[str, Json]":
    from agent.schema.models import document
    from agent.schema.topics import STATE

    return {"state": document("state", "Birth message and will", STATE, {})}


def _config() -> "dict[str, Json]":
    from agent.schema.settings import schema

    return {"config": schema()}


def _documents() -> "dict[str, Json]":
    from agent.schema.bodies import documents

    return documents()


def _rows() -> "dict[str, Json]":
    from agent.schema.bodies import rows

    return rows()


MAKERS: "Mapping[str, Callable[[], dict[str, Json]]]" = {
    "asyncapi": _asyncapi,
    "entry": _entry,
    "state": _state,
    "config": _config,
    "documents": _documents,
    "rows": _rows,
}
"""What can be described: files by name."""
