"""A clock that is set, one that knows nothing, one that learns late: what a machine may think of the time.

The agent is the real one; what is played is the kernel's answer to it. Skipped where there is no C compiler.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.clock import BUILT_UTC_NS, NS
from agent.epcis import corrected_times
from simulators.gnss import GnssReceiver
from tests.played_clock import PlayedClock
from tests.rig import ACCEPTING, BELT, Rig, label_of
from tests.site import Entry

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

DAY_S, HOUR_S = 86_400.0, 3_600.0
WITHIN_S = 2.0
"""How far a corrected time may be off."""
TURN_S = 5.0
"""Longest that a reading waits its turn while something else is remembered: an entry tells when something
happened, and may be told after what came later."""
POLLED = 45.0
"""Longest until the agent looks at the system's clock again, with some room."""

WITH_GPS = f"""{BELT}
[unit.gps]
kind = "nmea"
port = "{{dev}}/gps"
"""


class Hours(Rig):
    """A belt that knows when each label was truly scanned."""

    def __init__(self, folder: Path, config: str = BELT) -> None:
        super().__init__(folder, config=config)
        self.clock = PlayedClock(folder)
        self.scanned: dict[str, tuple[float, float]] = {}

    async def begin(self) -> None:
        await self.start(*self.clock.command())

    async def wakes(self, *, since_s: float) -> str:
        """The board boots without any idea of time, and the agent starts so many seconds later."""
        boot = self.clock.boot(since_s=since_s)
        self.clock.set_wall(since_s)
        await self.begin()
        return boot

    async def note(self, label: str) -> None:
        before = self.clock.true_s
        await self.scan_and_hear(label)
        self.scanned[label] = (before, self.clock.true_s)

    def at_fleet(self, label: str) -> Entry:
        (found,) = [entry for entry in self.of(*ACCEPTING) if label_of(entry) == label]
        return found

    def is_right(self, label: str, time: str) -> bool:
        """Whether this is when it was scanned."""
        before, after = self.scanned[label]
        return before - WITHIN_S <= seconds(time) <= after + WITHIN_S

    @property
    def record(self) -> list[Entry]:
        """What the fleet has, as it was remembered: it may come in another order."""
        return sorted(self.entries, key=lambda entry: int(entry["sequence"]))

    def one_order(self) -> None:
        """Fails where the order of time contradicts that of sequence: within a boot, and of boots."""
        boots = [clock(entry)["boot"] for entry in self.record]
        assert sorted(boots, key=list(dict.fromkeys(boots)).index) == boots
        for boot in set(boots):
            assert rising(clock(each)["mono_ns"] / NS for each in self.record if clock(each)["boot"] == boot)


def rising(moments: Iterable[float]) -> bool:
    """Whether each, in seconds, is not before the one ahead of it, a turn apart."""
    return all(then - TURN_S <= now for then, now in pairwise(moments))


def clock(entry: Entry) -> dict[str, Any]:
    said: dict[str, Any] = entry["data"]["clock"]
    return said


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


@pytest.mark.parametrize("days", [-2, 400])
async def test_a_wall_clock_set_while_it_runs_moves_no_entry_and_no_timer(days: int, tmp_path: Path) -> None:
    async with Hours(tmp_path) as rig:
        await rig.begin()
        await rig.note("before")
        rig.clock.jump(days * DAY_S)
        await rig.note("after")
        await rig.until(lambda: rig.logged("connected"), "the way found")
        rig.relay.cut()
        await rig.note("cut off")
        rig.relay.restore()
        await rig.until(lambda: len(rig.logged("connected")) >= 2, "the way found again in time")
        await rig.delivered()
        rig.one_order()
        times = [seconds(entry["time"]) for entry in rig.record]
        assert rising(times)
        assert max(times) - min(times) < HOUR_S
        assert not rig.of("clock.corrected")
        assert {clock(entry)["trust"] for entry in rig.entries} == {"none"}
        assert {clock(entry)["error_s"] for entry in rig.entries} == {None}


@pytest.mark.parametrize("days", [-2, 400])
async def test_a_wall_clock_set_between_two_runs_keeps_the_order_of_sequence(
    days: int, tmp_path: Path
) -> None:
    async with Hours(tmp_path) as rig:
        await rig.begin()
        await rig.note("before")
        await rig.kill_agent()
        rig.clock.jump(days * DAY_S)
        await rig.begin()
        await rig.note("after")
        await rig.delivered()
        rig.one_order()
        assert rig.taken() == ["before", "after"]
        assert clock(rig.at_fleet("after"))["trust"] == "none", "and nobody is told that it were right"


async def test_a_board_that_wakes_in_1970_is_set_right_by_ntp_and_so_is_what_it_has_recorded(
    tmp_path: Path,
) -> None:
    async with Hours(tmp_path) as rig:
        await rig.wakes(since_s=20)
        await rig.note("in the dark")
        rig.clock.synchronise()
        await rig.until(lambda: rig.of("clock.corrected"), "the correction", POLLED)
        await rig.note("in the light")
        await rig.delivered()
        (corrected,) = rig.of("clock.corrected")
        dark, light = rig.at_fleet("in the dark"), rig.at_fleet("in the light")
        assert clock(dark)["trust"] == "none"
        assert 0 <= seconds(dark["time"]) - BUILT_UTC_NS / NS < HOUR_S, "not before it was built"
        assert corrected["data"]["trust"] == "ntp"
        assert rig.is_right("in the dark", shifted(dark, corrected["data"]["offset_s"]))
        assert rig.is_right("in the dark", corrected_times(rig.entries)[dark["source"], dark["id"]])
        assert clock(light)["trust"] == "ntp"
        assert rig.is_right("in the light", light["time"])
        rig.one_order()


def shifted(entry: Entry, offset_s: float) -> str:
    return datetime.fromtimestamp(seconds(entry["time"]) + offset_s, UTC).isoformat()


async def test_a_fix_at_hour_three_after_two_reboots_tells_when_each_scan_of_that_boot_was(
    tmp_path: Path,
) -> None:
    async with Hours(tmp_path, WITH_GPS) as rig:
        gps = rig.plug(GnssReceiver(rig.dev / "gps", rate=5))
        gps.lose_fix(forget_time=True)
        boots = []
        for turn in (1, 2):
            boots.append(await rig.wakes(since_s=15))
            await rig.note(f"boot {turn}, first")
            rig.clock.pass_time(HOUR_S)
            await rig.note(f"boot {turn}, an hour later")
            await rig.kill_agent()
        boots.append(await rig.wakes(since_s=12))
        for hour in range(3):
            await rig.note(f"hour {hour}")
            rig.clock.pass_time(HOUR_S)
        gps.now = datetime.fromtimestamp(rig.clock.true_s, UTC)
        gps.regain()
        await rig.until(lambda: rig.of("clock.corrected"), "the correction")
        await rig.note("with a fix")
        await rig.delivered()
        assert list(dict.fromkeys(clock(entry)["boot"] for entry in rig.record)) == boots
        rig.one_order()
        check_corrected(rig, boots)


def check_corrected(rig: Hours, boots: list[str]) -> None:
    (corrected,) = rig.of("clock.corrected")
    assert (corrected["data"]["trust"], corrected["data"]["boot"]) == ("gps", boots[-1])
    better = corrected_times(rig.entries)
    for hour in range(3):
        entry = rig.at_fleet(f"hour {hour}")
        assert rig.is_right(f"hour {hour}", better[entry["source"], entry["id"]])
        assert rig.is_right(f"hour {hour}", shifted(entry, corrected["data"]["offset_s"]))
    fixed = rig.at_fleet("with a fix")
    assert clock(fixed)["trust"] == "gps"
    assert rig.is_right("with a fix", fixed["time"])
    told = [better.get((entry["source"], entry["id"])) or str(entry["time"]) for entry in rig.record]
    last = [time for entry, time in zip(rig.record, told, strict=True) if clock(entry)["boot"] == boots[-1]]
    assert rising(map(seconds, last))
    # Of boots that never knew the time nothing is claimed: neither then, nor by what was learned later.
    earlier = [entry for entry in rig.entries if clock(entry)["boot"] != boots[-1]]
    assert {clock(entry)["trust"] for entry in earlier} == {"none"}
    assert not any((entry["source"], entry["id"]) in better for entry in earlier)
    assert max(entry["time"] for entry in earlier) < min(last)
