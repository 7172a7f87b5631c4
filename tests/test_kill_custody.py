"""Half-done work survives `kill -9` and goes on at the same step: a courier logs in, loads and hands over.

`POSTERN_LONG=1 pytest tests/test_kill_custody.py` cuts more handovers short.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.lockout import FREE_TRIES
from simulators.em4100 import Em4100Reader
from simulators.line import LineScanner
from simulators.stage import postern
from tests.rig import Rig, labels
from tests.site import LONG

pytestmark = pytest.mark.broker

COURIER = "drv-7f3a91"
BADGE = "0100a3e9ae"
PIN = "20261124"
UNITS = ("gun", "badge", "keypad")
CUT_SHORT = 60 if LONG else 8

VAN = """\
[device]
id = "rig-0001"
tenant = "lab"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[custody]
session = [["badge", "pin"]]
handover = [["badge", "pin"]]
window = 0.0
tones = "gun"

[unit.gun]
kind = "line"
port = "{dev}/gun"
commands = "honeywell"

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{dev}/keypad"
"""


class Van(Rig):
    """A courier's device: scanner, badge reader, keypad, and one courier who may use it."""

    async def provision(self) -> None:
        self.badge = self.plug(Em4100Reader(self.dev / "badge"))
        self.keypad = self.plug(LineScanner(self.dev / "keypad"))
        add = ("roster", "add", "--config", str(self.config), COURIER)
        await postern(*add, "badge", stdin=BADGE)
        await postern(*add, "pin", stdin=PIN)

    async def begin(self) -> None:
        """Start the agent, and wait until the fleet knows: then it knows all that went before, too."""
        starts = len(self.of("agent.started"))
        await self.start_agent()
        await self.ready(*UNITS)
        await self.until(lambda: len(self.of("agent.started")) > starts, "the start at the fleet")

    async def count(self, kind: str, wanted: int = 1) -> None:
        await self.until(lambda: len(self.of(kind)) >= wanted, f"{wanted} {kind}")

    async def show_badge(self) -> None:
        self.badge.present(BADGE)
        await self.count("identity.factor_shown")
        self.badge.remove()

    async def type_pin(self) -> None:
        self.keypad.scan(PIN)
        await self.count("custody.session_opened")

    async def log_in(self) -> None:
        await self.show_badge()
        await self.type_pin()

    async def offer(self, label: str) -> None:
        before = len(self.of("custody.offered"))
        self.gun.scan(label)
        await self.count("custody.offered", before + 1)

    async def open_handover(self) -> None:
        before = len(self.of("custody.handover_opened"))
        self.gun.scan("POSTERN:HANDOVER:RECIPIENT")
        await self.count("custody.handover_opened", before + 1)

    def handed_over(self) -> list[str]:
        return [entry["subject"] for entry in self.of("custody.handed_over")]


@contextlib.asynccontextmanager
async def van(folder: Path) -> AsyncIterator[Van]:
    async with Van(folder, config=VAN) as made:
        await made.provision()
        await made.begin()
        yield made


async def story(van: Van) -> AsyncIterator[str]:
    """Badge, PIN, two parcels, a handover with both; stops after every step."""
    await van.show_badge()
    yield "badge shown"
    await van.type_pin()
    yield "logged in"
    for label in ("A", "B"):
        await van.scan_and_hear(label)
        yield f"{label} loaded"
    await van.open_handover()
    yield "handover opened"
    for label in ("A", "B"):
        await van.offer(label)
        yield f"{label} offered"
    van.keypad.scan("4711")
    await van.count("custody.handover_closed")
    yield "handed over"


@pytest.mark.timeout(120)
async def test_a_handover_goes_on_where_a_kill_left_it(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.log_in()
        await made.scan_and_hear("A", "B")
        await made.open_handover()
        await made.offer("A")
        await made.kill_agent()
        await made.begin()
        await made.offer("B")
        made.gun.scan("POSTERN:DONE")
        await made.count("custody.handover_closed")
        assert len(made.handed_over()) == 2
        assert len(made.of("custody.session_opened")) == 1
        assert not made.of("custody.session_closed", "custody.refused")
        made.in_order()


@pytest.mark.timeout(180)
async def test_a_courier_logs_in_once_though_the_agent_dies_after_every_step(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        steps = []
        async for step in story(made):
            steps.append(step)
            await made.kill_agent()
            await made.begin()
        assert len(steps) == 8
        assert len(made.handed_over()) == 2
        assert [len(made.of(f"custody.{kind}")) for kind in ("session_opened", "accepted", "offered")] == [
            1,
            2,
            2,
        ]
        assert not made.of("custody.session_closed", "custody.refused", "identity.refused")
        made.in_order()


@pytest.mark.timeout(600 if LONG else 180)
async def test_a_handover_that_a_kill_cuts_short_is_whole_or_not_at_all(tmp_path: Path) -> None:
    chance = random.Random("cut short")
    async with van(tmp_path) as made:
        await made.log_in()
        for turn in range(CUT_SHORT):
            loaded = labels(f"turn-{turn}", 2)
            await made.scan_and_hear(*loaded)
            await made.open_handover()
            for label in loaded:
                await made.offer(label)
            made.keypad.scan("4711")
            await asyncio.sleep(chance.uniform(0, 0.006))  # the moment of the kill
            await made.kill_agent()
            await made.begin()
            done = len(made.handed_over()) - 2 * turn
            assert done in (0, 2)
            assert len(made.of("custody.handover_closed")) == turn + done // 2
            if not done:
                made.keypad.scan("4711")
            await made.count("custody.handover_closed", turn + 1)
        assert len(set(made.handed_over())) == len(made.handed_over()) == 2 * CUT_SHORT
        assert len(made.of("custody.session_opened")) == 1
        made.in_order()


@pytest.mark.timeout(120)
async def test_the_sixth_try_is_refused_though_the_agent_was_killed_after_the_fifth(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.show_badge()
        for times in range(1, FREE_TRIES + 1):
            made.keypad.scan("00000000")
            await made.count("identity.refused", times)
        await made.kill_agent()
        await made.begin()
        made.keypad.scan(PIN)
        await made.count("identity.refused", FREE_TRIES + 1)
        made.badge.present(BADGE)
        await made.count("identity.refused", FREE_TRIES + 2)
        outcomes = [entry["data"]["outcome"] for entry in made.of("identity.refused")]
        assert outcomes == ["mismatch"] * FREE_TRIES + ["locked"] * 2
        assert not made.of("custody.session_opened")
        made.in_order()
