"""A moment that is remembered across boots, and how long ago it certainly was.

Within its boot the monotonic clock tells. Later, civil time does where it could be trusted both times; where
it could not, nobody knows how long the power was off, and the moment counts as the beginning of this boot.
"""

from collections.abc import Mapping
from typing import Any

from agent.clock import NS, Moment


def record(now: Moment) -> dict[str, Any]:
    """As it is remembered."""
    return {"boot": now.boot, "mono_ns": now.mono_ns, "utc_ns": now.utc_ns if now.assured else None}


def ago_s(then: Mapping[str, Any], now: Moment) -> float:
    """Seconds that have passed for sure."""
    if then["boot"] == now.boot:
        return now.since(then["mono_ns"])
    sure = then["utc_ns"] is not None and now.assured
    return max(now.since(0), (now.utc_ns - then["utc_ns"]) / NS if sure else 0.0)
