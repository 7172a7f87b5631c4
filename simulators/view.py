"""What a person sees of the demo: a live picture on a terminal, plain lines elsewhere.

The picture needs `rich`, which is an extra; without it, or without a terminal, every step and every entry
the fleet receives is one line.
"""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

ROWS = 16
"""Lines within a panel of the picture."""


@dataclass
class Scene:
    """Everything there is to show."""

    title: str = ""
    part: str = ""
    """What the story is about just now."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Text and state: `now`, `done`, `failed`."""
    entries: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=12))
    """Newest entries at the fleet: sequence, type, subject."""
    facts: Callable[[], Iterable[tuple[str, str]]] = field(default=lambda: ())
    """Name and value pairs, asked anew for every picture."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class View(Protocol):
    """Shows a scene as it changes."""

    def step(self, text: str) -> None:
        """The next step of the story has begun."""
        ...

    def entry(self, sequence: str, kind: str, subject: str) -> None:
        """The fleet has received an entry."""
        ...

    def failed(self) -> None:
        """The current step went wrong."""
        ...


class Lines:
    """One line a step and a line an entry."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def step(self, text: str) -> None:
        _advance(self.scene, text)
        print(f"{self.scene.seconds:5.1f} s  {text}", flush=True)

    def entry(self, sequence: str, kind: str, subject: str) -> None:
        self.scene.entries.append((sequence, kind, subject))
        print(f"{'':9}fleet <- {sequence:>4} {kind:34} {subject}", flush=True)

    def failed(self) -> None:
        print(f"{'':9}this step failed", flush=True)


class Picture:
    """A layout drawn four times a second."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def step(self, text: str) -> None:
        _advance(self.scene, text)

    def entry(self, sequence: str, kind: str, subject: str) -> None:
        self.scene.entries.append((sequence, kind, subject))

    def failed(self) -> None:
        if self.scene.steps:
            text, _ = self.scene.steps[-1]
            self.scene.steps[-1] = (text, "failed")

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        marks = {"now": ("›", "bold yellow"), "done": ("✓", "green"), "failed": ("✗", "bold red")}
        story = Text()
        for text, state in _newest(self.scene.steps):
            mark, style = marks[state]
            story.append(f" {mark} {text}\n", style=style if state != "done" else "")
        facts = Table.grid(padding=(0, 2))
        for name, value in self.scene.facts():
            facts.add_row(Text(name, style="dim"), value)
        entries = Table(box=None, expand=True, show_edge=False, header_style="dim")
        for column in ("seq", "entry", "subject"):
            entries.add_column(column, no_wrap=True)
        for sequence, kind, subject in self.scene.entries:
            entries.add_row(sequence, Text(kind, style=_colour(kind)), subject)
        halves = Table.grid(expand=True)
        halves.add_column(ratio=3)
        halves.add_column(ratio=2)
        halves.add_row(
            Panel(story, title=self.scene.part, height=ROWS + 2), Panel(facts, title="now", height=ROWS + 2)
        )
        return Group(
            Text(f" {self.scene.title}   {self.scene.seconds:.0f} s ", style="bold reverse"),
            halves,
            Panel(entries, title="what the fleet has received"),
        )


def _newest(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As many of the last steps as the panel holds, however they wrap in it."""
    width = max(20, shutil.get_terminal_size().columns * 3 // 5 - 7)
    shown, lines = 0, 0
    for text, _ in reversed(steps):
        lines += -(-len(text) // width)
        if lines > ROWS:
            break
        shown += 1
    return steps[len(steps) - shown :]


def _colour(kind: str) -> str:
    if "refused" in kind or "failed" in kind or "lost" in kind:
        return "red"
    if "forced" in kind or "quarantined" in kind or "not_opened" in kind:
        return "red"
    if "handed_over" in kind or "session" in kind or "collected" in kind:
        return "cyan"
    return "green" if "custody" in kind or "locker" in kind else ""


def _advance(scene: Scene, text: str) -> None:
    if scene.steps and scene.steps[-1][1] == "now":
        scene.steps[-1] = (scene.steps[-1][0], "done")
    scene.steps.append((text, "now"))


def open_view(scene: Scene, *, plain: bool) -> tuple[View, AbstractContextManager[object]]:
    """The view that suits where standard output goes, and the context it lives in."""
    if plain or not sys.stdout.isatty():
        return Lines(scene), nullcontext()
    try:
        from rich.live import Live
    except ImportError:
        return Lines(scene), nullcontext()
    picture = Picture(scene)
    return picture, Live(picture, refresh_per_second=8)
