"""How much may be on its way, against ways that are simulated: long, thin, and changing."""

from collections import deque

import pytest

from agent.pace import FIRST_WINDOW, LARGEST_WINDOW, SMALLEST_WINDOW, TARGET_S, Pace

KBIT = 125.0
"""Bytes per second of one kbit/s."""


class Way:
    """So many bytes a second, after each other, and a round trip."""

    def __init__(self, rate: float, rtt: float) -> None:
        self.rate, self.rtt = rate, rtt
        self.now = 0.0
        self.waited = 0.0
        """Longest in the queue, since it was last set to nothing."""
        self._free = 0.0
        self._flying: deque[tuple[float, float, int]] = deque()

    def drain(self, pace: Pace, seconds: float) -> float:
        """Keep the window full for so long; the share of the way's rate that was used."""
        until, carried = self.now + seconds, 0
        while self.now < until:
            while not self._flying or self.in_flight < pace.window:
                size = max(400, round(pace.batch_bytes))
                self._free = max(self._free, self.now) + size / self.rate
                self._flying.append((self._free + self.rtt, self.now, size))
            self.now, sent, size = self._flying.popleft()
            carried += size
            self.waited = max(self.waited, self.now - sent - self.rtt)
            pace.acknowledged(size, self.now - sent, self.now, busy=True)
        return carried / (self.rate * seconds)

    @property
    def in_flight(self) -> int:
        return sum(size for _, _, size in self._flying)


@pytest.mark.parametrize("kbit", [64, 256, 2_000, 20_000])
@pytest.mark.parametrize("rtt", [0.02, 0.1, 0.6])
def test_a_way_is_kept_busy_and_its_queue_short(kbit: int, rtt: float) -> None:
    pace, way = Pace(), Way(kbit * KBIT, rtt)
    pace.begin()
    pace.heard(rtt, 0.0)
    way.drain(pace, 60)
    way.waited = 0.0
    assert way.drain(pace, 60) > 0.9
    smallest = SMALLEST_WINDOW / way.rate
    assert way.waited < max(2 * TARGET_S, 2 * smallest)


def test_a_fast_way_is_filled_in_a_few_round_trips() -> None:
    pace, way = Pace(), Way(100e6, 0.05)
    pace.heard(0.05, 0.0)
    way.drain(pace, 0.25)
    assert pace.window > 16 * FIRST_WINDOW


def test_a_way_that_grows_thin_is_noticed_and_one_that_recovers_too() -> None:
    pace, way = Pace(), Way(8000 * KBIT, 0.05)
    way.drain(pace, 20)
    wide = pace.window
    way.rate = 128 * KBIT
    way.drain(pace, 30)
    assert pace.window < wide / 8
    way.rate = 8000 * KBIT
    assert way.drain(pace, 30) > 0.8


def test_a_way_that_has_become_longer_is_not_taken_for_a_full_one_for_ever() -> None:
    pace, way = Pace(), Way(2000 * KBIT, 0.02)
    way.drain(pace, 20)
    way.rtt = 0.8
    way.drain(pace, 300)
    assert way.drain(pace, 60) > 0.8


def test_a_window_that_nobody_fills_does_not_grow() -> None:
    pace = Pace()
    for number in range(1000):
        pace.acknowledged(500, 0.05, number, busy=False)
    assert pace.window == FIRST_WINDOW


def test_the_window_has_bounds() -> None:
    pace = Pace()
    for number in range(1000):
        pace.acknowledged(1_000_000, 0.05, number / 1000, busy=True)
    assert pace.window == LARGEST_WINDOW
    for number in range(1000):
        pace.acknowledged(1_000_000, 9.0, 1 + number / 1000, busy=True)
    assert pace.window == SMALLEST_WINDOW


def test_a_new_connection_begins_with_what_the_last_bore() -> None:
    pace, way = Pace(), Way(64 * KBIT, 0.3)
    way.drain(pace, 60)
    thin = pace.window
    pace.begin()
    assert pace.window == thin < FIRST_WINDOW
    wide = Pace()
    Way(100e6, 0.01).drain(wide, 1)
    wide.begin()
    assert wide.window == FIRST_WINDOW
