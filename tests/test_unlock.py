"""Somebody is locked out, and a supervisor comes: with the whole agent, its roster and its journal."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.lockout import BURST, FREE_TRIES, LAST_TRY
from agent.roster import Row, pin_token
from drivers.readings import Scanned
from tests.van import ANNA, BADGES, NOON, PIN, Van, running

SUE, SUES_BADGE = "drv-sue", b"0100c0ffee"


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    async with running(with_sue(tmp_path)) as van:
        van.hear_the_fleet()
        yield van


def with_sue(folder: Path) -> Van:
    van = Van(folder)
    van.app.roster.put(Row(subject=SUE, kind="badge", role="supervisor"), SUES_BADGE, as_of=NOON)
    van.app.roster.put(Row(subject=SUE, kind="pin"), pin_token(SUE, PIN), as_of=NOON)
    return van


async def pin(van: Van, typed: bytes = PIN) -> list[dict[str, Any]]:
    return await van.tell("pad", Scanned(data=typed))


async def fail(van: Van, times: int) -> None:
    """Anna's badge and so many wrong PINs, each as soon as one may be typed."""
    for _ in range(times):
        await van.badge(ANNA)
        await pin(van, b"00000000")
        van.clock.seconds += 31
        # Nobody rests a reader for this.
        van.app.journal.ride({"reader/pad": None})
        van.hear_the_fleet()


async def come_to_help(van: Van) -> None:
    await van.tell("badges", Scanned(data=SUES_BADGE))
    await pin(van)
    assert van.on_duty()
    await van.scan("POSTERN:UNLOCK")


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["type"].removeprefix("postern.") for entry in entries]


async def test_who_waits_may_try_again_at_once_and_both_names_are_remembered(van: Van) -> None:
    await fail(van, FREE_TRIES)
    van.clock.seconds -= 31
    (refused,) = await van.badge(ANNA)
    assert refused["data"]["outcome"] == "locked"
    await come_to_help(van)
    (unlocked,) = await van.badge(ANNA)
    assert (unlocked["type"], unlocked["subject"]) == ("postern.identity.subject_unlocked", ANNA)
    assert unlocked["data"]["by"] == SUE
    await van.scan("POSTERN:END")
    await van.badge(ANNA)
    assert kinds(await pin(van)) == ["custody.session_opened"]


async def test_after_a_restart_a_wait_that_was_lifted_is_lifted_and_its_failures_count(
    tmp_path: Path,
) -> None:
    async with running(with_sue(tmp_path)) as van:
        van.hear_the_fleet()
        await fail(van, FREE_TRIES)
        await come_to_help(van)
        await van.badge(ANNA)
        at = van.clock.seconds
    async with running(Van(tmp_path)) as van:
        van.clock.seconds = at
        van.hear_the_fleet()
        assert van.app.journal.records[f"subject/{ANNA}"]["failures"] == FREE_TRIES
        await van.badge(ANNA)
        assert kinds(await pin(van)) == ["custody.session_opened"]


async def test_whom_fifty_failures_disabled_only_the_fleet_brings_back(van: Van) -> None:
    await fail(van, LAST_TRY)
    await come_to_help(van)
    (refused,) = await van.badge(ANNA)
    assert (refused["type"], refused["data"]["reason"]) == ("postern.identity.unlock_refused", "disabled")
    await van.scan("POSTERN:END")
    (refused,) = await van.badge(ANNA)
    assert refused["data"]["outcome"] == "disabled"
    van.app.journal.ride(van.app.roster.reinstate(ANNA, van.app.journal.records))
    await van.badge(ANNA)
    assert kinds(await pin(van)) == ["custody.session_opened"]


async def test_a_reader_that_rests_is_woken_by_the_supervisors_code_and_any_badge(van: Van) -> None:
    await come_to_help(van)
    for _ in range(BURST):
        await van.tell("badges", Scanned(data=b"nobody"))
    (paused,) = await van.badge(ANNA)
    assert paused["type"] == "postern.identity.reader_unlocked"
    assert "reader/badges" not in van.app.journal.records
    (refused,) = await van.badge(ANNA)
    assert refused["data"]["reason"] == "not_locked"
    assert BADGES[ANNA].decode() not in str((paused, refused))
