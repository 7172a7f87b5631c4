"""How many bytes may be on their way at once: learned from how long acknowledgements take. Pure.

    pace = Pace()
    if in_flight < pace.window: ...
    pace.acknowledged(10_000, latency=0.08, now=12.0, busy=True)

The least latency of late is what the way itself takes; what is above it is time spent waiting, in queues
that we have filled ourselves. The window grows while that is short and shrinks while it is long, so that a
thin way stays busy, and what is scanned meanwhile waits no longer than `TARGET_S` behind a backlog.
"""

TARGET_S = 0.3
"""Waiting, beyond what the way takes, that the window settles at: so long is an urgent entry delayed."""
FIRST_WINDOW = 64 * 1024
SMALLEST_WINDOW = 4 * 1024
LARGEST_WINDOW = 4 * 1024 * 1024
START_GAIN = 3.0
"""Bytes that each acknowledged byte adds at first: four times the window with every round trip."""
START_SHARE = 0.25
"""... until this share of the target is spent waiting: one more round at that speed would reach it."""
RISE, FALL = 0.5, 1.0
"""Bytes that each acknowledged byte adds at no waiting, and takes away at twice the target or more."""
BATCHES = 4
"""Batches that the window is to hold: one that filled it would leave the way idle while the next is made."""
FORGET_S = 60.0
"""A least latency that was not seen again for one to two of these is forgotten: the way has changed."""


class Pace:
    """One device's; it outlives connections, for a way that was thin is thin again."""

    def __init__(self) -> None:
        self.window = float(FIRST_WINDOW)
        """Bytes, as sent, that may be unacknowledged."""
        self._starting = True
        self._least: float | None = None
        self._least_before: float | None = None
        self._since = 0.0

    @property
    def batch_bytes(self) -> float:
        """What a batch should take of it, as sent."""
        return self.window / BATCHES

    def begin(self) -> None:
        """A new connection: as much as the last one bore, and no more than is safe."""
        self.window = min(self.window, FIRST_WINDOW)
        self._starting = True
        self._least = self._least_before = None

    def heard(self, latency: float, now: float) -> float:
        """Something was acknowledged after so many seconds; how many of them it spent waiting."""
        if self._least is None or now - self._since > FORGET_S:
            self._least_before, self._least, self._since = self._least, latency, now
        self._least = min(self._least, latency)
        known = [least for least in (self._least, self._least_before) if least is not None]
        return latency - min(known)

    def acknowledged(self, size: int, latency: float, now: float, *, busy: bool) -> None:
        """A batch of so many bytes arrived. A window that was not `busy` proves nothing by being borne."""
        waited = self.heard(latency, now)
        if self._starting and waited <= START_SHARE * TARGET_S:
            change = START_GAIN
        else:
            self._starting = False
            short = max(-1.0, 1 - waited / TARGET_S)
            change = short * (RISE if short > 0 else FALL)
        if busy or change < 0:
            self.window = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, self.window + change * size))
