"""Whether an agent on trial is well: what must be green before a config is kept.

The loop's lag is how late it wakes: a config that keeps it busy would keep it from hearing the fleet.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

SAMPLES = 100
SAMPLE_S = 0.1
LAG_MOST_S = 0.25
"""99 of 100 wakes may be no later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """As they stand now."""

    broker: bool
    units: Mapping[str, bool]
    """Those that are required, and whether each is ready."""
    journal: bool
    loop: bool

    @property
    def green(self) -> bool:
        return self.broker and self.journal and self.loop and all(self.units.values())

    @property
    def red(self) -> Iterable[str]:
        """Names of those that are not well."""
        units = (f"unit.{name}" for name, ready in self.units.items() if not ready)
        return [*(name for name in ("broker", "journal", "loop") if not getattr(self, name)), *units]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Lag:
    """How late the loop wakes, of the last so many times."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self._late: deque[float] = deque(maxlen=samples)

    def late(self, seconds: float) -> None:
        self._late.append(seconds)

    @property
    def well(self) -> bool:
        """Known only once there are enough of them."""
        if len(self._late) < (self._late.maxlen or 0):
            return False
        ordered = sorted(self._late)
        return ordered[max(0, -(-99 * len(ordered) // 100) - 1)] < LAG_MOST_S

    async def measure(self) -> None:
        """For ever."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            self.late(max(0.0, clock() - due))
