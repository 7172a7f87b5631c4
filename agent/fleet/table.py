"""Rows for people: a table at a terminal where rich is there, columns elsewhere."""

import sys
from collections.abc import Sequence

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


def printable(text: str) -> str:
    """What a device sends does not get to steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _show_table(headings: Row, rows: Sequence[Row], marked: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    for number, row in enumerate(rows):
        style = "bold red" if number < len(marked) and marked[number] else None
        # Text, so that what has brackets in it is no markup.
        table.add_row(*(Text(cell) for cell in row), style=style)
    Console().print(table)
