"""What the fleet's file tells of the time before a watch began. Blocking."""

import json
import time
from pathlib import Path

from agent.fleet.alarms import MOST, Alarm
from agent.fleet.device_log import Ranges
from agent.fleet.findings import Range
from agent.fleet.sight import Watch, seconds
from agent.fleet.store import Ledger, Store

LATEST = 2000
"""Entries of each journal that are looked through for alarms and positions."""


def seed(watch: Watch, path: Path, only: str | None) -> None:
    """Raises StoreFailed."""
    store = Store(path)
    try:
        with store.reading():
            for device, _ in store.devices():
                if only in (None, device):
                    _device(watch, store, device)
    finally:
        store.close()


def _device(watch: Watch, store: Store, device: str) -> None:
    sight = watch.of(device)
    for ledger in store.ledgers(device):
        missing = store.missing(ledger, ledger.signed)
        sight = watch.seed(
            device,
            ledger.epoch,
            signed=ledger.signed,
            heard=_heard(missing, max(ledger.signed, store.lines.highest(ledger.id))),
            lines=store.lines.latest(ledger.id, LATEST),
        )
        sight.waiting = _since(store, ledger, missing)
    found = [
        Alarm(
            device=device,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.at)),
            type=each.finding.kind.value,
            subject=each.finding.epoch,
            text=each.finding.text,
            grave=each.grave,
        )
        for each in store.findings.all(device)
    ]
    sight.alarms = sorted([*sight.alarms, *found], key=lambda alarm: alarm.at)[-MOST:]


def _heard(missing: list[Range], highest: int) -> Ranges:
    """All up to the highest but what is missing."""
    spans, first = [], 1
    for gap in missing:
        if gap[0] > first:
            spans.append((first, gap[0] - 1))
        first = gap[1] + 1
    return Ranges.of([*spans, (first, highest)] if first <= highest else spans)


def _since(store: Store, ledger: Ledger, missing: list[Range]) -> float | None:
    """What is missing was made after the entry before it."""
    if not missing:
        return None
    line = store.lines.before(ledger.id, missing[0][0])
    return seconds(json.loads(line)["time"]) if line else None
