"""How the audit shows entries and proofs: as a table at a terminal, as columns or JSON elsewhere."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from agent.audit.inspect import HEADINGS, Entry, plain, row
from agent.audit.prove import Proven

Selected = Iterable[tuple[int, Entry]]


def show_json(selected: Selected) -> int:
    """One entry a line. Returns how many."""
    count = 0
    for _, entry in selected:
        print(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
        count += 1
    return count


def show_columns(selected: Selected) -> int:
    """Columns of a fixed width, each row as it comes."""
    count = 0
    print(plain(HEADINGS))
    for sequence, entry in selected:
        print(plain(row(sequence, entry)))
        count += 1
    return count


def show_table(selected: Selected) -> int:
    """A table as wide as the terminal; columns where there is no terminal or no rich."""
    if not sys.stdout.isatty():
        return show_columns(selected)
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return show_columns(selected)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading in ("SEQ", "TIME"), overflow="fold")
    for sequence, entry in selected:
        # Text, so that a label with brackets in it is no markup.
        table.add_row(*(Text(cell) for cell in row(sequence, entry)))
    Console().print(table)
    return table.row_count


def show_custody(judged: list[Proven]) -> None:
    """The verdict on each entry, then the chain that the proven ones tell."""
    for proven in judged:
        failure = proven.failure
        verdict = "PASS" if failure is None else f"FAIL {failure.code}: {failure.detail}"
        print(f"entry {proven.sequence}: {verdict}")
    told = [(proven.sequence, proven.entry) for proven in judged if proven.failure is None]
    if told:
        print()
        show_table(told)


def custody_json(judged: list[Proven]) -> list[dict[str, Any]]:
    return [
        {
            "sequence": proven.sequence,
            "verdict": "PASS" if proven.failure is None else "FAIL",
            "code": proven.failure.code if proven.failure else None,
            "detail": proven.failure.detail if proven.failure else None,
            "entry": proven.entry if proven.failure is None else None,
        }
        for proven in judged
    ]
