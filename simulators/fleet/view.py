"""How the fleet is, for people and programs: the sums of all hosts."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

EVERY_S = 10.0
"""Between two lines where nobody sits at a terminal."""
SUMMED = ("online", "backlog", "entries", "scans", "starts", "failures")


class View:
    """One line that changes at a terminal; elsewhere a line now and then; or JSON."""

    def __init__(self, *, devices: int, as_json: bool) -> None:
        self._devices, self._json = devices, as_json
        self._live = not as_json and sys.stdout.isatty()
        self._hosts: dict[int, Mapping[str, Any]] = {}
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
        if host != min(self._hosts):
            return
        total = self._total()
        now = time.monotonic()
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
        took: dict[str, dict[str, float]] = {}
        for sums in self._hosts.values():
            for name, each in sums["took"].items():
                before = took.setdefault(name, {"count": 0, "longest": 0.0})
                before["count"] += each["count"]
                before["longest"] = max(before["longest"], each["longest"])
        summed = {name: sum(sums[name] for sums in self._hosts.values()) for name in SUMMED}
        late = max(sums["late"] for sums in self._hosts.values())
        return {"devices": self._devices, **summed, "late": late, "took": took}

    def _line(self, total: Mapping[str, Any]) -> str:
        parts = [
            f"{total['online']} of {total['devices']} online",
            f"{total['scans']:,} scans",
            f"{total['entries']:,} entries, {total['backlog']:,} of them not sent",
        ]
        for name, what in (("bundle", "bundles"), ("config", "configs"), ("revocations", "revocations")):
            if (took := total["took"].get(name)) is not None:
                parts.append(f"{took['count']} {what} (at most {took['longest'] * 1000:.0f} ms)")
        if total["failures"]:
            parts.append(f"{total['failures']} agents ended by themselves")
        return "; ".join(parts)

    def _clear(self) -> None:
        if self._live:
            _write("\r\x1b[K")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
