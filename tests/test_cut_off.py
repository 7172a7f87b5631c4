"""A courier's device whose network is cut after the first minute, for eight days: what it still allows."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.roster import pin_token
from drivers.readings import Scanned
from tests.van import ANNA, BADGES, BORIS, HOUR, PIN, VAN, Van, running


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    async with running(Van(tmp_path)) as van:
        yield van


LADDER = {"fresh": 24, "grace": 72, "stale": 168}


def step(hours: float) -> str:
    return next((name for name, last in LADDER.items() if hours <= last), "closed")


async def shift(van: Van, hours: int) -> tuple[dict[str, bool], list[dict[str, Any]]]:
    """Everything somebody would try at this hour: which of it brought them on duty, and all that was told."""
    came: dict[str, bool] = {}
    told: list[dict[str, Any]] = []

    async def end(way: str) -> None:
        nonlocal told
        came[way] = van.on_duty()
        told += await van.scan(f"KNOWN-{hours}-{way}")
        told += await van.scan(f"NEWCOMER-{hours}-{way}")
        told += await van.scan("POSTERN:END")
        # Whoever was half way is forgotten before the next tries.
        van.clock.seconds += 31

    told += await van.badge(ANNA)
    told += await van.tell("pad", Scanned(data=PIN))
    await end("pin")
    told += await van.badge(ANNA)
    told += await van.touch(ANNA)
    await end("finger")
    told += await van.show_card(ANNA)
    await end("card")
    told += await van.show_card(ANNA)
    told += await van.show_card(BORIS)
    await end("two cards")
    return came, told


RIGHTS = {
    "fresh": {"pin": True, "finger": True, "card": True, "two cards": True},
    "grace": {"pin": False, "finger": True, "card": True, "two cards": True},
    "stale": {"pin": False, "finger": False, "card": False, "two cards": True},
    "closed": {"pin": False, "finger": False, "card": False, "two cards": False},
}


async def test_rights_shrink_on_schedule_and_every_verdict_says_its_age(van: Van) -> None:
    van.clock.seconds = 60
    van.hear_the_fleet()
    heard_s = van.clock.seconds
    for hours in (0, 6, 12, 23, 25, 48, 71, 73, 120, 167, 169, 192):
        van.clock.seconds = heard_s + hours * HOUR
        came, told = await shift(van, hours)
        now = step(hours)
        assert came == RIGHTS[now], f"{hours} hours after the last head"
        # A finger nobody was asked for is no act: there is nobody whose it would be.
        acts = [entry for entry in told if entry["type"] != "postern.identity.ignored"]
        flags = {entry["data"].get("freshness") for entry in acts}
        assert flags == {None if now == "fresh" else now}, "every act is flagged"
        ages = [
            entry["data"]["knowledge_age_s"]
            for entry in told
            if entry["type"].removeprefix("postern.")
            in ("identity.refused", "identity.factor_shown", "custody.session_opened")
        ]
        assert len(ages) >= 5
        assert all(hours * HOUR <= age <= hours * HOUR + 200 for age in ages)
        taken = {entry["subject"] for entry in told if entry["type"] == "postern.custody.accepted"}
        newcomers = {label for label in taken if "NEWCOMER" in label}
        assert bool(taken) is any(came.values())
        assert bool(newcomers) is (now in ("fresh", "grace")), "no new routes once it is stale"


async def test_a_session_does_not_outlast_the_right_to_it(van: Van) -> None:
    van.hear_the_fleet()
    van.clock.seconds = 24 * HOUR - 60
    await van.badge(ANNA)
    await van.tell("pad", Scanned(data=PIN))
    assert van.on_duty()
    assert [entry["type"] for entry in await van.scan("P1")] == ["postern.custody.accepted"]
    van.clock.seconds = 24 * HOUR + 1
    closed, refused = await van.scan("P2")
    assert (closed["type"], closed["data"]["reason"]) == ("postern.custody.session_closed", "outdated")
    assert (refused["type"], refused["data"]["reason"]) == ("postern.custody.refused", "no_session")


async def test_the_network_comes_back_and_with_it_all_rights(van: Van) -> None:
    van.hear_the_fleet()
    van.clock.seconds = 200 * HOUR
    came, _ = await shift(van, 200)
    assert came == RIGHTS["closed"]
    van.hear_the_fleet()
    came, _ = await shift(van, 0)
    assert came == RIGHTS["fresh"]


async def test_before_the_first_head_nobody_comes_on_duty(van: Van) -> None:
    came, told = await shift(van, 0)
    assert came == RIGHTS["closed"]
    assert {entry["data"]["outcome"] for entry in told if "outcome" in entry["data"]} == {"outdated"}


async def test_a_revocation_ends_the_session_before_anything_else_happens(van: Van) -> None:
    van.hear_the_fleet()
    await van.badge(ANNA)
    await van.touch(ANNA)
    assert van.on_duty()
    van.revoke(ANNA)
    assert not van.on_duty()
    (closed,) = (entry for entry in await van.entries() if "closed" in entry["type"])
    assert (closed["subject"], closed["data"]["reason"]) == (ANNA, "revoked")
    (refused,) = await van.badge(ANNA)
    assert refused["data"]["outcome"] == "revoked"


@pytest.mark.parametrize("stage", ["login", "session", "second person", "after a restart"])
@pytest.mark.parametrize("kind", ["badge", "pin"])
async def test_a_credential_that_is_revoked_ends_what_was_begun_with_it(
    tmp_path: Path, stage: str, kind: str
) -> None:
    """A badge is stolen, and with it the PIN on the note behind it: the driver keeps their other rights."""
    two = "[policy.session]\nsecond_person = true\n" if stage == "second person" else ""
    async with running(Van(tmp_path, config=VAN + two)) as van:
        van.hear_the_fleet()
        if stage == "second person":
            await van.show_card(BORIS)
        await van.badge(ANNA)
        if (stage, kind) != ("login", "badge"):
            await van.tell("pad", Scanned(data=PIN))
        assert van.on_duty() is not (stage == "login" and kind == "badge")
        if stage != "after a restart":
            van.revoke_credential(kind, BADGES[ANNA] if kind == "badge" else pin_token(ANNA, PIN))
            gone = [each for each in await van.entries() if each["data"].get("reason") == "revoked"]
            assert len(gone) == 1
            assert not van.on_duty()
            assert van.app.decider.desk.duty.login is None
            await van.show_card(ANNA)
            await van.show_card(BORIS)
            assert van.on_duty(), "of the person nothing was said"
            return
    van = Van(tmp_path)
    van.hear_the_fleet()
    async with running(van):
        assert van.on_duty()
        van.revoke_credential(kind, BADGES[ANNA] if kind == "badge" else pin_token(ANNA, PIN))
        assert not van.on_duty()
