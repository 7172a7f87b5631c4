"""A device that is kept on what it knew says so, once for each step, before anybody asks it for a door."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.aging import Aging
from agent.clock import NS
from agent.standing import Authority as Standings
from tests.authority import DAY, NOON, Authority
from tests.test_postbox import Device

HOUR = 3600
BOTH = ("fleet.knowledge_aged", "fleet.knowledge_renewed")


class Watched(Device):
    """Its knowledge is looked at whenever the fleet's word changes, and by the hour."""

    async def start(self) -> None:
        await super().start()
        authority = Standings(knowledge_at=self.post.knowledge_at)
        self.aging = Aging(self.journal, "locker-17", lambda: authority, self.stamp)

    def heed(self) -> None:
        super().heed()
        if hasattr(self, "aging"):
            self.aging.look()

    async def pass_hours(self, hours: int, *, known: bool = True) -> None:
        """With clocks that are known to be right, or not."""
        for _ in range(hours):
            self.board.pass_time(HOUR)
            self.board.ntp_age_s = 0.0 if known else None
            self.clock.observe_ntp()
            self.aging.look()

    async def steps(self) -> list[str]:
        return [each.get("freshness", "fresh") for each in await self.entries(*BOTH)]


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Watched]:
    fleet = Authority()
    made = Watched(tmp_path, fleet, fleet.root(), X25519PrivateKey.generate())
    await made.start()
    yield made
    await made.stop()


async def test_yesterdays_head_for_eight_days_is_told_of_step_by_step(device: Watched) -> None:
    head = device.fleet.head(1, {})
    await device.told(("head", head))
    for _ in range(8):
        device.post.connected()
        await device.told(("head", head))
        await device.pass_hours(24)
    assert await device.steps() == ["grace", "stale", "closed"]
    ages = [each["knowledge_age_s"] for each in await device.entries(*BOTH)]
    assert [age // HOUR for age in ages] == [24, 72, 168]


async def test_it_is_told_once_whatever_is_switched_off_and_on(device: Watched) -> None:
    await device.told(("head", device.fleet.head(1, {})))
    await device.pass_hours(30)
    for _ in range(3):
        await device.stop()
        await device.start()
        device.aging.look()
    assert await device.steps() == ["grace"]


async def test_a_new_head_is_the_end_of_it(device: Watched) -> None:
    await device.told(("head", device.fleet.head(1, {})))
    await device.pass_hours(80)
    await device.told(("head", device.fleet.head(2, {}, iat=NOON + 80 * HOUR)))
    assert await device.steps() == ["grace", "stale", "fresh"]
    await device.pass_hours(30)
    assert await device.steps() == ["grace", "stale", "fresh", "grace"]


async def test_who_never_heard_of_the_fleet_has_nothing_that_ages(device: Watched) -> None:
    await device.pass_hours(400)
    assert await device.steps() == []


async def test_a_clock_that_knows_nothing_makes_knowledge_older_and_never_younger(device: Watched) -> None:
    await device.told(("head", device.fleet.head(1, {})))
    await device.pass_hours(80)
    await device.stop()
    device.board.wall_ns, device.board.ntp_age_s = NOON * NS, None
    await device.start()
    device.aging.look()
    assert await device.steps() == ["grace", "stale"]
    device.clock.remember_floor((NOON + 8 * DAY) * NS)
    await device.pass_hours(1, known=False)
    assert await device.steps() == ["grace", "stale", "closed"]


async def test_a_clock_that_knows_nothing_is_no_sign_that_knowledge_is_old(device: Watched) -> None:
    await device.told(("head", device.fleet.head(1, {})))
    await device.pass_hours(3)
    await device.stop()
    device.board.ntp_age_s = None
    await device.start()
    device.aging.look()
    assert not device.clock.now().assured
    assert await device.steps() == []
