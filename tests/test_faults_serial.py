"""What a serial line does to an agent in a year: plugs, halves, noise and endless lines.

After each fault the device must be in service again, and nothing that was promised may be lost. The long
form (`POSTERN_LONG=1 pytest tests/test_faults_serial.py`) leaves a device unplugged for longer.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rig import Rig, labels
from tests.site import LONG

pytestmark = pytest.mark.broker

UNPLUGGED = [0.2, 3.0, 12.0] if LONG else [0.2, 3.0]
"""Seconds without the device."""


@contextlib.asynccontextmanager
async def belt(folder: Path) -> AsyncIterator[Rig]:
    """A rig at work; at the end its device must still be in service, and all is delivered in order."""
    async with Rig(folder) as rig:
        await rig.start()
        await rig.scan_and_hear("first")
        yield rig
        assert rig.alive
        await rig.scan_and_hear(*labels("last", 5))
        await rig.delivered()
        assert rig.taken()[-5:] == labels("last", 5)
        assert not rig.of("agent.fault")


async def replugged(rig: Rig, gap: float) -> None:
    """Unplug for `gap` seconds, and wait until the agent reads the device again."""
    times = len(rig.logged("ready"))
    rig.gun.unplug()
    rig.forget_unanswered()
    await asyncio.sleep(gap)
    rig.gun.plug()
    await rig.until(lambda: len(rig.logged("ready")) > times, "the device in service again")


async def seen(rig: Rig, *wanted: str) -> None:
    await rig.until(lambda: set(wanted) <= set(rig.taken()), f"{len(wanted)} scans at the fleet")


def raw(rig: Rig, data: bytes) -> None:
    """Bytes on the line that no scanner would say so."""
    rig.gun.send(data)


@pytest.mark.parametrize("gap", UNPLUGGED)
async def test_a_device_that_comes_back_is_in_service_again(gap: float, tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        await replugged(rig, gap)
        await rig.scan_and_hear("back")
        await rig.until(lambda: rig.of("device.lost"), "the loss at the fleet")
        await rig.until(lambda: len(rig.of("device.ready")) == 2, "the return at the fleet")


async def test_a_loose_plug_is_lived_through(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        for _ in range(5):
            rig.gun.unplug()
            await asyncio.sleep(0.1)
            rig.gun.plug()
            await asyncio.sleep(0.1)
        await replugged(rig, 0.1)


async def test_a_device_unplugged_with_half_a_line_said_leaves_nothing_behind(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        rig.expect("entire")
        raw(rig, b"entire\rHALF")
        await rig.quiet()
        await replugged(rig, 0.5)
        await rig.scan_and_hear("whole")
        await seen(rig, "whole")
        assert not [label for label in rig.taken() if "HALF" in label]


async def test_a_line_with_a_long_pause_in_it_is_one_scan(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        rig.expect("PAUSED")
        raw(rig, b"PAU")
        await asyncio.sleep(3)
        raw(rig, b"SED\r")
        await seen(rig, "PAUSED")
        assert rig.taken() == ["first", "PAUSED"]


async def test_bytes_that_dribble_in_are_one_scan(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        rig.gun.faults.byte_gap = 0.03
        await rig.scan_and_hear("dribbling")
        rig.gun.faults.byte_gap = 0
        await seen(rig, "dribbling")
        assert rig.taken() == ["first", "dribbling"]


async def test_two_hundred_scans_in_one_write_all_arrive_in_order(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        wanted = labels("heap", 200)
        rig.expect(*wanted)
        raw(rig, b"".join(label.encode() + b"\r" for label in wanted))
        await seen(rig, *wanted)
        assert rig.taken() == ["first", *wanted]
        rig.forget_unanswered()  # A scanner cannot beep as fast as this: not every scan gets its tone.


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
async def test_any_line_end_ends_a_line(end: bytes, tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        rig.expect("one", "two", "three")
        raw(rig, end.join([b"one", b"two", b"three", b""]))
        await seen(rig, "one", "two", "three")
        assert rig.taken() == ["first", "one", "two", "three"]


async def test_a_megabyte_without_an_end_is_counted_and_nothing_of_it_believed(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        raw(rig, b"A" * 1_000_000 + b"\r")
        await rig.scan_and_hear("after")
        await seen(rig, "after")
        assert rig.taken() == ["first", "after"]
        await replugged(rig, 0)
        await rig.until(lambda: rig.of("device.noise_counted"), "the count of it")
        assert rig.of("device.noise_counted")[0]["data"]["counts"] == {"too_long": 1}


async def test_nuls_and_empty_lines_are_no_scans(tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        raw(rig, b"\0\0\0\r" + b"\r\n" * 20)
        await rig.scan_and_hear("after")
        await seen(rig, "after")
        assert rig.taken() == ["first", "after"]


@pytest.mark.parametrize(
    "noise",
    [random.Random(3).randbytes(4096), b"\xff\xfe\xc3\x28", b"\x1b[2J\x07\x1b7,"],
    ids=["four KiB at random", "not UTF-8", "escape sequences"],
)
async def test_noise_harms_no_scan_after_it(noise: bytes, tmp_path: Path) -> None:
    async with belt(tmp_path) as rig:
        wanted = labels("after", 5)
        raw(rig, b"\r".join([noise, *(label.encode() for label in wanted), b""]))
        await seen(rig, *wanted)
        assert rig.taken()[-5:] == wanted
