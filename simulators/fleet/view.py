"""How the fleet is, for people and programs: the sums of all hosts."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVERY_S = 10.0
"""Between two lines where nobody sits at a terminal."""
WAVE_S = 15.0
"""What came within so long of each other belongs together."""
SUMMED = ("online", "backlog", "entries", "scans", "revoked", "starts", "failures")
KINDS = {"bundle": "bundles", "config": "configs", "revocations": "revocations"}
"""Documents whose arrival is shown, by the names of their topics."""


@dataclass(slots=True)
class Wave:
    """Documents of one kind that came to many devices at about the same time. Times in seconds."""

    count: int = 0
    longest: float = 0.0
    """From the arrival of one until it was in force."""
    last: float = 0.0

    def add(self, count: int, longest: float, now: float) -> None:
        if now - self.last > WAVE_S:
            self.count, self.longest = 0, 0.0
        self.count, self.longest, self.last = self.count + count, max(self.longest, longest), now


class View:
    """One line that changes at a terminal; elsewhere a line now and then; or JSON."""

    def __init__(self, *, devices: int, as_json: bool) -> None:
        self._devices, self._json = devices, as_json
        self._live = not as_json and sys.stdout.isatty()
        self._hosts: dict[int, Mapping[str, Any]] = {}
        self._waves = {name: Wave() for name in KINDS}
        self._last_online = -1
        self._shown = 0.0

    def said(self, **facts: object) -> None:
        """Something that stays."""
        self._clear()
        for name, fact in facts.items() if not self._json else ():
            _write(f"{name:10} {fact}\n")
        if self._json:
            _write(json.dumps({name: str(fact) for name, fact in facts.items()}) + "\n")

    def progress(self, what: str, done: int) -> None:
        if self._live:
            width = 30 * done // self._devices
            _write(f"\r\x1b[K{what} {done} of {self._devices}  [{'#' * width}{'.' * (30 - width)}]")

    def told(self, host: int, sums: Mapping[str, Any]) -> None:
        """What a host says of itself, once a second."""
        self._hosts[host] = sums
        now = time.monotonic()
        for name, each in sums["took"].items():
            if name in KINDS:
                self._waves[name].add(each["count"], each["longest"], now)
        if host != min(self._hosts):
            return
        total = self._total()
        if self._json:
            _write(json.dumps(total) + "\n")
        elif self._live:
            _write(f"\r\x1b[K{self._line(total)}")
        elif total["online"] != self._last_online or now - self._shown >= EVERY_S:
            self._last_online, self._shown = total["online"], now
            _write(self._line(total) + "\n")

    def ended(self) -> None:
        self._clear()

    def _total(self) -> dict[str, Any]:
        summed = {name: sum(sums[name] for sums in self._hosts.values()) for name in SUMMED}
        late = max(sums["late"] for sums in self._hosts.values())
        waves = {name: {"count": each.count, "longest": each.longest} for name, each in self._waves.items()}
        return {"devices": self._devices, **summed, "late": late, "took": waves}

    def _line(self, total: Mapping[str, Any]) -> str:
        parts = [
            f"{total['online']} of {total['devices']} online",
            f"{total['scans']:,} scans",
            f"{total['entries']:,} entries, {total['backlog']:,} of them not sent",
        ]
        for name, wave in self._waves.items():
            if wave.count:
                took = f"at most {wave.longest * 1000:.0f} ms from arrival to force"
                parts.append(f"last {KINDS[name]}: {wave.count}, {took}")
        if total["failures"]:
            parts.append(f"{total['failures']} agents ended by themselves")
        return "; ".join(parts)

    def _clear(self) -> None:
        if self._live:
            _write("\r\x1b[K")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
