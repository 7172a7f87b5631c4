"""The watch at a terminal, drawn by rich: the devices above, the alarms below."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.fleet import watch_rows
from agent.fleet.sight import Sight, Watch

REFRESH_S = 1.0
ALARM_LINES = 8
FRAME = 6
"""Lines that are neither devices nor alarms."""
STYLES = {"online": "green", "offline": "yellow", "unknown": "dim"}


class Screen:
    """Draws what a watch knows whenever it is asked to, and each second."""

    def __init__(
        self, watch: Watch, problem: Callable[[], str | None], console: Console | None = None
    ) -> None:
        self.console = console or Console()
        self._watch, self._problem = watch, problem
        self._changed = asyncio.Event()

    def refresh(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        with Live(self.draw(), console=self.console, screen=True, auto_refresh=False) as live:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_S):
                        await self._changed.wait()
                self._changed.clear()
                live.update(self.draw(), refresh=True)
                # Many changes at once are drawn once.
                await asyncio.sleep(REFRESH_S / 10)

    def draw(self) -> RenderableType:
        now, (width, height) = time.time(), self.console.size
        alarms = self._watch.alarms[:ALARM_LINES]
        room = max(1, height - FRAME - len(alarms))
        known = watch_rows.shown(self._watch, room)
        parts: list[RenderableType] = [self._title(width), self._devices(known, now, width)]
        if (hidden := len(self._watch.devices) - len(known)) > 0:
            parts.append(Text(f"and {hidden} more, with nothing to look at", style="dim"))
        if alarms:
            parts += [Text(), Text("ALARMS, newest first", style="bold"), self._alarms(now, width)]
        return Group(*parts)

    def _title(self, width: int) -> Text:
        problem = self._problem()
        told = f" broker: {problem}" if problem else f" {watch_rows.summary(self._watch)}"
        title = Text(f"postern{told}", style="bold red" if problem else "bold", no_wrap=True)
        ending = "  q quits"
        title.truncate(max(1, width - len(ending)), overflow="ellipsis", pad=True)
        return title.append(ending, style="dim")

    def _devices(self, known: list[Sight], now: float, width: int) -> Table:
        headings = watch_rows.headings(width)
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        for heading in headings:
            right = heading in ("HEAD", "SIGNED", "LAG", "OLDEST", "FIX", "UNITS")
            last = heading == headings[-1]
            table.add_column(
                heading,
                no_wrap=True,
                overflow="ellipsis",
                justify="right" if right else "left",
                ratio=1 if last else None,
                min_width=8 if heading in ("DEVICE", "STATE") else None,
            )
        for sight in known:
            cells = watch_rows.row(sight, now)
            table.add_row(*(self._cell(sight, name, cells[name]) for name in headings))
        return table

    def _cell(self, sight: Sight, name: str, cell: str) -> Text:
        """Text, so that what has brackets in it is no markup."""
        match name:
            case "STATE":
                return Text(cell, style=STYLES[cell])
            case "ALARM":
                grave = any(each.grave for each in sight.open_alarms)
                return Text(cell, style="bold red" if grave else "yellow")
            case _:
                return Text(cell, style="dim" if sight.state != "online" else "")

    def _alarms(self, now: float, width: int) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        table.add_column(justify="right", no_wrap=True, width=4)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        for alarm in self._watch.alarms[:ALARM_LINES]:
            style = "dim" if alarm.over else "bold red" if alarm.grave else "yellow"
            table.add_row(*(Text(cell) for cell in watch_rows.alarm_line(alarm, now)), style=style)
        return table
