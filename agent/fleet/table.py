"""Rows for people: a table at a terminal where rich is there, columns elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Row = Sequence[str]


def show(headings: Row, rows: Sequence[Row], *, marked: Sequence[bool] = ()) -> None:
    """The last column may be long. Rows that are `marked` stand out at a terminal."""
    if sys.stdout.isatty():
        try:
            _show_table(headings, rows, marked)
        except ImportError:
            pass
        else:
            return
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


Draw = Callable[[Sequence[Row], Sequence[bool]], None]
"""Shows the rows of now, and which of them stand out."""


@contextmanager
def live(headings: Row) -> Iterator[Draw]:
    """A table that is drawn anew in its place; without a terminal or rich, the rows that have changed."""
    if sys.stdout.isatty():
        try:
            from rich.live import Live
        except ImportError:
            pass
        else:
            with Live(_table(headings, (), ()), auto_refresh=False) as place:
                yield lambda rows, marked: place.update(_table(headings, rows, marked), refresh=True)
            return
    known: set[Row] = set()

    def draw(rows: Sequence[Row], marked: Sequence[bool]) -> None:
        news = [row for row in rows if row not in known]
        known.clear()
        known.update(rows)
        for row in news:
            print("  ".join(row).rstrip(), flush=True)

    yield draw


def printable(text: str) -> str:
    """What a device sends does not get to steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _show_table(headings: Row, rows: Sequence[Row], marked: Sequence[bool]) -> None:
    from rich.console import Console

    Console().print(_table(headings, rows, marked))


def _table(headings: Row, rows: Sequence[Row], marked: Sequence[bool]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    for number, row in enumerate(rows):
        style = "bold red" if number < len(marked) and marked[number] else None
        # Text, so that what has brackets in it is no markup.
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table
