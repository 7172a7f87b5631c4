"""The catalogue of entry types and the source say the same. The source is read, not run."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.clock import Moment, Trust
from agent.entry import line_of
from agent.schema.entry_type import SHAPES, EntryType
from agent.schema.entry_types import CATALOGUE
from agent.workflow import Draft, Lane
from tests.schemas import fits, unlike

ROOT = Path(__file__).parent.parent / "agent"
MAKERS = {"Draft", "say", "told"}
"""Calls whose first argument is the type of an entry."""
TYPE = re.compile(r"[a-z]+\.[a-z_]+")
ROOMS = {name.partition(".")[0] for name in CATALOGUE}
READERS = {"alarms.py", "epcis.py", "story_words.py"}
"""They name what they read, and some of that is made elsewhere."""
OTHERS = {"journal.db", "locker.compartment", "agent.kiosk", "fleet.collector", "fleet.publisher"}
"""A file, a table of the config, a package, and names of the fleet's tools."""


class Named(NamedTuple):
    """A type as the source writes it: a pattern where a part of it is computed."""

    file: str
    line: int
    pattern: str


@cache
def named() -> list[Named]:
    """Every type that is named, whatever way it is put together."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.is_relative_to(ROOT / "schema") or path.name in READERS:
            continue
        for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
            for each in _first(node):
                found += [Named(path.name, each.lineno, pattern) for pattern in _patterns(each)]
    return found


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a tree, but for what is said of mistakes in a config file: settings look like types."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Mistake":
            continue
        yield node
        if not isinstance(node, ast.JoinedStr):
            waiting += ast.iter_child_nodes(node)


def _first(node: ast.AST) -> list[ast.expr]:
    """What makes an entry's type: the first argument of some calls, and whatever looks like one of a room."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in MAKERS:
            return [first]
        case ast.Constant(value=str(text)) if TYPE.fullmatch(text) and text not in OTHERS:
            return [node] if text.partition(".")[0] in ROOMS else []
    return []


def _patterns(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [re.escape(text)]
        case ast.IfExp(body=one, orelse=other):
            return _patterns(one) + _patterns(other)
        case ast.JoinedStr(values=parts):
            ways = [""]
            for part in parts:
                inner = part.value if isinstance(part, ast.FormattedValue) else part
                ways = [way + each for way in ways for each in _patterns(inner) or ["[a-z_]+"]]
            return ways
    return []


def test_the_source_names_types() -> None:
    patterns = {each.pattern for each in named()}
    assert len(patterns) > 100
    assert {re.escape("agent.started"), r"door\.[a-z_]+", r"device\.action_done"} <= patterns


def test_every_type_that_the_source_names_is_in_the_catalogue() -> None:
    missing = [each for each in named() if not any(re.fullmatch(each.pattern, name) for name in CATALOGUE)]
    assert not missing, "expected them in agent/schema, with what they mean"


def test_every_type_in_the_catalogue_is_named_by_the_source() -> None:
    patterns = {each.pattern for each in named()}
    assert not [name for name in CATALOGUE if not any(re.fullmatch(each, name) for each in patterns)]


@pytest.mark.parametrize("type_", CATALOGUE.values(), ids=lambda type_: type_.type)
def test_a_type_says_what_it_means_in_words_that_are_known(type_: EntryType) -> None:
    assert TYPE.fullmatch(type_.type)
    assert re.fullmatch(r"[A-Z].{10,80}\.", type_.meaning)
    assert len(type_.fields) == len(type_.data.split())
    assert {field.shape for field in type_.fields} <= set(SHAPES)


AT = Moment("boot", 5, 1_790_000_000_000_000_000, Trust.NTP, 0.1)
NOWHERE = {"position": None, "position_missing": "none"}


def entry(type_: str, lane: Lane, **data: object) -> dict[str, object]:
    draft = Draft(type_, "van-0042", data, lane)
    found: dict[str, object] = json.loads(
        line_of(draft, "/postern/acme/van-0042", "0123456789ab", 7, AT, NOWHERE)
    )
    return found


def test_an_entry_as_it_is_made_is_one() -> None:
    assert not unlike([entry("uplink.lost", Lane.STATE, reason="gone", code=None)])


@pytest.mark.parametrize(
    "wrong",
    [
        entry("uplink.lost", Lane.CUSTODY, reason="gone", code=None),
        entry("uplink.lost", Lane.STATE, reason="gone"),
        entry("uplink.lost", Lane.STATE, reason="gone", code=None, more=1),
        entry("uplink.lost", Lane.STATE, reason=3, code=None),
        entry("uplink.found", Lane.STATE, reason="gone", code=None),
        {**entry("uplink.lost", Lane.STATE, reason="gone", code=None), "sequence": "007"},
        {**entry("uplink.lost", Lane.STATE, reason="gone", code=None), "time": "yesterday"},
        {**entry("uplink.lost", Lane.STATE, reason="gone", code=None), "dataref": "elsewhere"},
    ],
)
def test_what_is_not_as_the_catalogue_says_is_found(wrong: dict[str, object]) -> None:
    assert unlike([wrong])


def test_the_receiver_of_a_handover_is_said_by_kind() -> None:
    assert fits(dict(SHAPES["receiver"]), {"kind": "locker", "ref": "l-1", "door": "7"})
    assert not fits(dict(SHAPES["receiver"]), {"kind": "nobody"})
