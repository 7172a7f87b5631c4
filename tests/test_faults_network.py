"""What the way to the broker does in a year: cut, reset, silent, slow, lossy, half gone.

Accepting never waits for any of it. The silent and lossy ways are made with packet filters in a network
namespace of the test's own, which takes root; they are skipped without it.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import Rig, labels
from tests.site import LONG

pytestmark = pytest.mark.broker

SCANS = 2_000 if LONG else 200
NOTICED = 45.0
"""Longest for a keepalive of 5 s, a TCP user timeout of 8 s and a backoff after that."""

CLONE_NEWNET = 0x40000000

SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Where these tools are is no part of an ordinary user's PATH."""
NFT = shutil.which("nft", path=SBIN) or "nft"
IP = shutil.which("ip", path=SBIN) or "ip"


async def online(rig: Rig, times: int) -> None:
    await rig.until(lambda: len(rig.logged("connected")) >= times, f"connection {times}", NOTICED)


# -- through the relay ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest.mark.timeout(120)
async def test_a_way_that_breaks_again_and_again_costs_no_scan(how: str, tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        for turn in range(1, 4):
            await online(rig, turn)
            await rig.scan_and_hear(*labels(f"{how}-{turn}-before", 10))
            if how == "cut":
                rig.relay.cut()
            else:
                rig.relay.reset()
            await rig.scan_all(labels(f"{how}-{turn}-after", SCANS))
            rig.relay.restore()
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == 3 * (SCANS + 10)


@pytest.mark.timeout(120)
async def test_a_way_that_goes_silent_is_noticed_and_left(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await online(rig, 1)
        rig.relay.hang()
        await rig.scan_all(labels("silent", SCANS))
        await rig.until(lambda: rig.logged("connection lost"), "the loss noticed", NOTICED)
        rig.relay.restore()
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == SCANS


async def test_tones_come_while_the_broker_hangs(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await online(rig, 1)
        rig.relay.hang()
        for label in labels("one by one", 50):
            await rig.scan_and_hear(label)
        await rig.scan_all(labels("heap", SCANS))
        assert rig.taken() == []
        rig.relay.restore()
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == 50 + SCANS


async def test_a_thin_way_brings_everything_in_order(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.relay.rtt, rig.relay.rate = 0.2, 16_000.0
        await rig.start()
        await rig.scan_all(labels("thin", SCANS))
        await rig.delivered(NOTICED)


# -- through a namespace's packet filter ----------------------------------------------------------


@pytest.fixture
def namespace() -> Iterator[None]:
    """The test's thread, and all that it starts from now on, in a network of its own."""
    if os.geteuid():
        pytest.skip("a network namespace of one's own takes root")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home:
        if libc.unshare(CLONE_NEWNET):
            why = f"no network namespace, though root: {os.strerror(ctypes.get_errno())}"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        try:
            subprocess.run([IP, "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def filtered(rig: Rig, verdict: str, *directions: str) -> None:
    """A packet filter on the agent's side of the way, in both directions where none is given."""
    rules = ["add table inet way", "add chain inet way in { type filter hook input priority 0; }"]
    matches = [f"tcp {direction} {rig.relay.port}" for direction in directions or ("sport", "dport")]
    rules += [f"add rule inet way in {match} {verdict}" for match in matches]
    subprocess.run([NFT, "-f", "-"], input="\n".join([*rules, ""]), text=True, check=True)


def unfiltered() -> None:
    subprocess.run([NFT, "delete", "table", "inet", "way"], check=True)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.timeout(120)
async def test_a_black_hole_is_noticed_and_costs_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await online(rig, 1)
        filtered(rig, "drop")
        await rig.scan_all(labels("swallowed", SCANS))
        await rig.until(lambda: rig.logged("connection lost"), "the loss noticed", NOTICED)
        unfiltered()
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == SCANS


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.timeout(120)
async def test_a_connection_that_only_the_agent_still_believes_in_is_given_up(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await online(rig, 1)
        filtered(rig, "drop")
        rig.relay.reset()
        unfiltered()
        await rig.scan_all(labels("half-open", SCANS))
        await online(rig, 2)
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == SCANS


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.timeout(120)
async def test_a_way_that_answers_with_resets_is_tried_again(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        await online(rig, 1)
        # Only what the agent sends: a filter on what it receives would eat the reset.
        filtered(rig, "reject with tcp reset", "dport")
        await rig.scan_all(labels("reset", SCANS))
        await rig.until(lambda: rig.logged("not connected"), "the loss noticed", NOTICED)
        unfiltered()
        await rig.delivered(NOTICED)
        assert len(rig.taken()) == SCANS


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.timeout(180)
async def test_a_way_that_loses_every_fifth_packet_costs_no_scan(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        filtered(rig, "numgen random mod 100 < 20 drop")
        await rig.start()
        await rig.scan_all(labels("lossy", SCANS))
        await online(rig, 1)
        for label in labels("one by one", 50):
            await rig.scan_and_hear(label)
        await rig.delivered(2 * NOTICED)
        assert len(rig.taken()) == SCANS + 50
