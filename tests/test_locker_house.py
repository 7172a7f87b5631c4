"""The house of a locker on a played clock: when its answers leave, and when nothing opens any more."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from agent.clock import NS
from agent.config import load
from agent.performer import GRID_NS
from agent.receipts import ROLLED_BACK
from tests.locker_dark import House, PlayedClock, Wall
from tests.locker_site import BADGE, PIN, SIZES, Codes, LockerSite

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def house_of(site: LockerSite) -> House:
    return House(load(site.config), PlayedClock(time.time_ns()), Wall(list(SIZES)), random.Random(1))


async def deposited(site: LockerSite, house: House) -> Codes:
    """One parcel in a1, the courier gone."""
    await house.scan("badge", BADGE)
    await house.scan("keypad", PIN)
    await house.scan("gun", "POSTERN:SIZE:S")
    await house.scan("gun", "parcel-1")
    await house.wait(2)
    house.wall.doors["a1"].slam()
    await house.look()
    await house.scan("gun", "POSTERN:END")
    await house.wait(60)
    return site.codes(house.of("locker.deposited")[0])


async def test_a_journal_that_is_an_older_copy_of_itself_opens_nothing(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        codes = await deposited(site, house)
        told = {"origin": "lab/locker-12/e", "size": 9, "cosigned": 99, "root": "..."}
        await house.app.journal.append([], house.clock.now(), {}, {ROLLED_BACK: told})
        await house.scan("gun", codes.long)
        await house.scan("keypad", codes.pin)
        await house.scan("badge", BADGE)
        await house.scan("keypad", PIN)
        await house.scan("gun", "POSTERN:SIZE:S")
        await house.scan("gun", "parcel-2")
        await house.wait(20)
        assert [entry["data"]["reason"] for entry in house.of("locker.code_refused")] == ["locked_down"] * 2
        assert house.of("locker.refused")[-1]["data"]["reason"] == "locked_down"
        assert len(house.wall.pulses) == 1

    async with LockerSite(tmp_path) as site:
        await house_of(site).live(script)


async def test_the_answer_to_any_code_leaves_on_the_grid(tmp_path: Path) -> None:
    """On a clock that stands still an answer is due one whole step after its code."""

    async def script(house: House) -> None:
        codes = await deposited(site, house)
        wrong = ("PICKUP:" + "A" * 22, "PICKUP:A", "eyJhbGciOiJFZDI1NTE5In0.e30.AA", "A" * 600)
        for code in (*wrong, codes.long):
            began = asyncio.get_running_loop().time()
            await house.scan("gun", code)
            assert asyncio.get_running_loop().time() - began >= GRID_NS / NS
        assert len(house.of("locker.code_refused")) == len(wrong)
        assert len(house.wall.pulses) == 2

    async with LockerSite(tmp_path) as site:
        await house_of(site).live(script)
