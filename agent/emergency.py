"""The emergency lock: for a day nothing opens on a word from afar. Pure, over the journal's records.

It fails safe: it can be set by its own key at any time, ends by itself, and after a boot without a clock that
can be trusted it begins anew.
"""

from collections.abc import Mapping
from typing import Any

from agent import past
from agent.clock import Moment

RECORD = "emergency"
LASTS_S = 86_400


def locked(now: Moment, command: str) -> dict[str, Any]:
    """The records that lock; `command` is the id of the one that did it."""
    return {RECORD: {"command": command, **past.record(now)}}


def released() -> dict[str, Any]:
    return {RECORD: None}


def in_force(records: Mapping[str, Any], now: Moment) -> bool:
    """Whether nothing may be opened."""
    lock = records.get(RECORD)
    return lock is not None and past.ago_s(lock, now) < LASTS_S
