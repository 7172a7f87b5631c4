"""What the fleet's file tells a watch: of the time before it began, and of what it did not hear. Blocking."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from agent.fleet.alarms import Alarm
from agent.fleet.findings import Range
from agent.fleet.sight import Past, seconds
from agent.fleet.store import Ledger, Store, opened

LATEST = 2000
"""Entries of each journal that are looked through for alarms and positions."""


def read(path: Path, only: str | None, *, latest: int = LATEST) -> list[Past]:
    """Of each device, or of one; with no `latest` lines only what is here and what is missing.

    Raises StoreFailed.
    """
    with opened(path) as store, store.reading():
        return [
            past
            for device, _ in store.devices()
            if only in (None, device)
            for past in _of(store, device, latest)
        ]


def _of(store: Store, device: str, latest: int) -> Iterator[Past]:
    for ledger in store.ledgers(device)[-1:]:
        missing = store.missing(ledger, ledger.signed)
        yield Past(
            device=device,
            epoch=ledger.epoch,
            signed=ledger.signed,
            spans=_here(missing, max(ledger.signed, store.lines.highest(ledger.id))),
            since=_since(store, ledger, missing),
            lines=store.lines.latest(ledger.id, latest),
            alarms=_findings(store, device) if latest else (),
        )


def _findings(store: Store, device: str) -> list[Alarm]:
    return [
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


def _here(missing: list[Range], highest: int) -> list[Range]:
    """All up to the highest but what is missing."""
    spans, first = [], 1
    for gap in missing:
        if gap[0] > first:
            spans.append((first, gap[0] - 1))
        first = gap[1] + 1
    return [*spans, (first, highest)] if first <= highest else spans


def _since(store: Store, ledger: Ledger, missing: list[Range]) -> float | None:
    """What is missing was made after the entry before it."""
    if not missing:
        return None
    line = store.lines.before(ledger.id, missing[0][0])
    return seconds(json.loads(line)["time"]) if line else None
