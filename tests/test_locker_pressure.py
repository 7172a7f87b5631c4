"""A locker under pressure: a thousand requests at once, and frames on the bus that none of ours has sent."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from agent.control import SOCKET, ask
from agent.locker.governor import Bounds
from simulators.doors import Door
from tests.locker_site import SIZES, LockerSite

REQUESTS = 1000
PULSE_S, GAP_S = 0.55, 0.1
"""As the site's config has them."""
UNLOCK_A1 = b"\x02\x00\x31\x03\x36"
"""What anybody on the bus can say: there is no secret in it."""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def test_of_a_thousand_requests_at_once_no_two_pulses_meet_on_a_supply(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        codes = [await site.deposit(f"parcel-{name}", size) for name, size in SIZES.items()]
        site.gun.scan("POSTERN:END")
        await site.count("locker.session_closed", 1)
        doors = [site.door(name) for name in SIZES]
        for door in doors[::2]:
            door.jam()
        chance = random.Random(1000)
        for number in range(REQUESTS):
            site.gun.scan(chance.choice(codes).long)
            if number % 20 == 19:
                await site.count("locker.code_refused", number // 2)
        shown = ("locker.code_refused", "locker.opening_intended")
        await site.until(lambda: len(site.of(*shown)) >= REQUESTS + len(codes), "an answer to each", 120)
        await site.until(lambda: not _waiting(site), "the end of the last pulse", 60)
        assert_spared(doors)
        assert all(door.pulses == 2 for door in doors[1::2]), "a deposit, and one pickup"
        assert all(2 <= door.pulses <= 3 for door in doors[::2]), "a second try, if that"
        assert not site.of("agent.fault")


def _waiting(site: LockerSite) -> int:
    """Openings whose pulse may still come."""
    given_up = [each for each in site.of("locker.not_opened") if each["data"]["why"] == "not_pulsed"]
    told = site.of("door.pulsed", "door.pulse_unknown")
    return len(site.of("locker.opening_intended")) - len(told) - len(given_up)


def assert_spared(doors: Sequence[Door]) -> None:
    """The solenoids were never fed two at a time, nor one for longer than its coil stands."""
    fed = sorted(at for door in doors for at in door.fed)
    assert min(later - sooner for sooner, later in pairwise(fed)) >= PULSE_S + GAP_S
    bounds = Bounds()
    for door in doors:
        for start in door.fed:
            within = [at for at in door.fed if 0 <= at - start < bounds.window]
            assert len(within) * PULSE_S <= bounds.on_time


async def test_a_raw_frame_on_the_bus_is_a_forced_door(tmp_path: Path) -> None:
    """It cannot be kept from opening; it is told as soon as the board is looked at, which is within 50 ms."""
    async with LockerSite(tmp_path) as site:
        await site.start()
        site.bus.obey(UNLOCK_A1)
        assert site.pulses == 1
        await site.count("door.forced", 1)
        (forced,) = site.of("door.forced")
        assert forced["subject"] == "a1"
        assert not site.of("locker.opening_intended")
        status = await ask(tmp_path / "state" / SOCKET, "status")
        assert status["compartments"]["a1"]["state"] == "quarantined"
