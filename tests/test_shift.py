"""A courier's shift whose network goes after the first minute: a real agent, and a fleet's own commands.

Knowledge ages on the agent's own clock, which is the kernel's, played. Skipped where there is no C compiler.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.lockout import FREE_TRIES
from simulators.line import LineScanner
from tests.fleets import DEVICE
from tests.played_clock import PlayedClock
from tests.site import PATIENCE, Site
from tests.test_collect import collecting
from tests.test_fleet_down import ANNA, BADGE, CONFIG, PIN, Fleet

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

HOUR_S = 3600.0
TOKEN = "8f14e45fceea167a5a36dedd4bea2543"
SHIFT = CONFIG.replace('kind = "em4100"', 'kind = "line"\nrole = "badge"')
SHIFT = SHIFT.replace('[["badge", "pin"]]', '[["badge", "pin"], ["badge", "static"]]')
SHIFT += """
[unit.terminal]
kind = "line"
role = "token"
port = "{dev}/terminal"
"""


class Shift:
    """A van with a badge reader, a keypad, and a biometric terminal that tells a token."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.site, self.clock = site, PlayedClock(folder)
        self.badge = site.plug(LineScanner(site.dev / "badge"))
        self.keypad = site.plug(LineScanner(site.dev / "keypad"))
        self.terminal = site.plug(LineScanner(site.dev / "terminal"))

    async def start(self) -> None:
        await self.site.start_agent(*self.clock.command())
        await self.site.ready("badge", "keypad", "terminal")

    async def restart_in_1970(self) -> None:
        """The power goes, and the board wakes without an idea of time."""
        await self.site.stop_agent()
        self.clock.boot(since_s=30)
        self.clock.set_wall(30)
        await self.start()

    async def status(self) -> dict[str, Any]:
        return await control.ask(self.site.folder / "state" / control.SOCKET, "status")

    async def freshness(self) -> str:
        return str((await self.status())["knowledge"]["freshness"])

    async def try_both(self) -> None:
        """Badge and PIN, then badge and token."""
        for scanner, said in ((self.keypad, PIN), (self.terminal, TOKEN)):
            await self.remembered(lambda: self.badge.scan(BADGE))
            await self.remembered(partial(scanner.scan, said))

    async def remembered(self, act: Callable[[], object]) -> None:
        """Do something, and wait for the entry that tells of it: while the way is cut nothing is heard."""
        before = (await self.status())["journal"]["last"]
        act()
        async with asyncio.timeout(PATIENCE):
            while (await self.status())["journal"]["last"] == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def told(self, *types: str) -> list[dict[str, Any]]:
        """What the entries of these types say; of a stopped agent, whose journal others may read."""
        with contextlib.closing(sqlite3.connect(self.site.folder / "state" / "journal.db")) as store:
            lines = [
                json.loads(line) for (line,) in store.execute("SELECT line FROM entry ORDER BY sequence")
            ]
        return [line["data"] for line in lines if line["type"].removeprefix("postern.") in types]


@contextlib.asynccontextmanager
async def shift(folder: Path) -> AsyncIterator[Shift]:
    """The first minute: enrolled, told the time, a roster pushed; then the network goes."""
    async with Site(folder, config=SHIFT, device=DEVICE) as site:
        fleet, made = Fleet(folder, site), Shift(folder, site)
        await fleet.ceremony()
        await fleet.enrol()
        roster = folder / "roster.csv"
        roster.write_text(f"{fleet.roster(()).read_text()}\nstatic,{ANNA},{TOKEN}\n")
        at = ("--host", "127.0.0.1", "--port", str(site.broker.port), "--plain")
        async with collecting(*at, "--keys", str(fleet.keys)):
            await made.start()
            await site.until(lambda: site.of("clock.corrected"), "the time")
            await fleet.online("push", "roster", str(roster), "--device", DEVICE)
            await site.until(lambda: site.of("fleet.bundle_completed"), "the roster")
            async with asyncio.timeout(PATIENCE):
                while await made.freshness() != "fresh":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        site.relay.cut()
        yield made
        await site.kill_agent()


RIGHTS = {1: ("fresh", 2), 25: ("grace", 1), 73: ("stale", 0), 169: ("closed", 0)}
"""Hours after the last head: the step, and how many of the two ways in are open."""
VERDICTS = ("identity.factor_shown", "identity.refused", "custody.session_opened")


async def test_with_the_network_cut_rights_shrink_on_schedule_and_every_verdict_says_its_age(
    tmp_path: Path,
) -> None:
    async with shift(tmp_path) as made:
        passed = 0
        for hours, (step, _) in RIGHTS.items():
            made.clock.pass_time((hours - passed) * HOUR_S)
            passed = hours
            assert await made.freshness() == step
            await made.try_both()
        await made.restart_in_1970()
        assert await made.freshness() == "closed", "whoever switches it off and on begins nothing anew"
        age_s = (await made.status())["knowledge"]["age_s"]
        assert 168.5 * HOUR_S < age_s < 169.5 * HOUR_S
        await made.site.stop_agent()
        for hours, (step, open_ways) in RIGHTS.items():
            told = [data for data in made.told(*VERDICTS) if is_of(data, hours)]
            assert len(told) >= 3
            assert {data.get("freshness", "fresh") for data in told} == {step}
            assert len([data for data in told if "factors" in data]) == open_ways


def is_of(data: Mapping[str, Any], hours: int) -> bool:
    """Whether it tells of an hour of the shift, by the age of what was known."""
    age_s: float = data["knowledge_age_s"]
    return hours * HOUR_S <= age_s < (hours + 0.5) * HOUR_S


async def test_the_sixth_try_is_refused_though_it_is_right_after_a_kill_and_after_a_boot_into_1970(
    tmp_path: Path,
) -> None:
    async with shift(tmp_path) as made:
        await made.remembered(lambda: made.badge.scan(BADGE))
        for _ in range(FREE_TRIES):
            await made.remembered(lambda: made.keypad.scan("00000000"))
        await made.site.kill_agent()
        await made.start()
        await made.remembered(lambda: made.keypad.scan(PIN))
        await made.site.kill_agent()
        made.clock.boot(since_s=5)
        made.clock.set_wall(5)
        await made.start()
        await made.remembered(lambda: made.terminal.scan(TOKEN))
        made.clock.pass_time(30)
        await made.remembered(lambda: made.terminal.scan(TOKEN))
        await made.site.stop_agent()
        outcomes = [data["outcome"] for data in made.told("identity.refused", "identity.factor_shown")]
        assert outcomes == ["granted"] + ["mismatch"] * FREE_TRIES + ["locked"] * 2 + ["granted"]
