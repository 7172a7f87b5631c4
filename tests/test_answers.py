"""What somebody at a reader hears and sees of a refusal: the same, whatever the reason, and no sooner."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import about
from agent.lockout import FREE_TRIES, LAST_TRY, Tries
from agent.performer import GRID_NS
from agent.roster import Row
from drivers.readings import Scanned
from simulators.line import LineScanner
from simulators.r503 import FingerprintModule, Instruction
from tests.site import PATIENCE
from tests.van import ANNA, BADGES, NOON, PIN, SLOTS, VAN, Van, running

SPEAKING = VAN.replace(
    'kind = "em4100"\nport = "{state}/badges"',
    'kind = "line"\nrole = "badge"\ncommands = "honeywell"\nport = "{state}/badges"',
)
"""The badge reader can sound tones."""

Light = tuple[int, int, int, int]
DARK, RED, LIFT, BREATHING = (4, 0x64, 2, 0), (2, 0x19, 1, 3), (2, 0x32, 3, 0), (1, 0x64, 2, 0)
STRANGERS = {
    "expired": b"0100ee0001",
    "revoked": b"0100ee0002",
    "locked": b"0100ee0003",
    "disabled": b"0100ee0004",
}
"""Badges of people with whom something is wrong, by what that is."""
TAKEN = b"0100ee0005"
"""A badge that was revoked, and not its holder."""


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    async with running(Van(tmp_path, config=SPEAKING)) as van:
        yield van


async def outcomes(van: Van) -> list[str]:
    """Of the refusals since the last time."""
    refused = (each for each in await van.entries() if each["type"] == "postern.identity.refused")
    return [each["data"]["outcome"] for each in refused]


# -- at the badge reader --------------------------------------------------------------------------


async def answer(scanner: LineScanner, badge: bytes) -> tuple[list[str], float]:
    """The tones for a badge, and after how many steps of the grid, begun ones not counted."""
    before, since = len(scanner.tones), time.monotonic_ns()
    scanner.scan(badge)
    async with asyncio.timeout(PATIENCE):
        while len(scanner.tones) == before:
            scanner.obeyed.clear()
            await scanner.obeyed.wait()
    return scanner.tones[before:], (time.monotonic_ns() - since) // GRID_NS


async def test_whatever_is_wrong_with_a_badge_it_sounds_the_same_and_on_the_grid(
    van: Van,
) -> None:
    van.hear_the_fleet()
    for reason, badge in STRANGERS.items():
        until = NOON - 1 if reason == "expired" else None
        van.app.roster.put(Row(subject=f"drv-{reason}", kind="badge", until=until), badge, as_of=NOON)
    van.app.roster.put(Row(subject="drv-taken", kind="badge", revoked=True), TAKEN, as_of=NOON)
    van.revoke("drv-revoked")
    locked = {"locked": FREE_TRIES, "disabled": LAST_TRY}
    van.app.journal.ride(
        {
            f"subject/drv-{reason}": Tries(failures, "boot-1", van.clock.now().mono_ns).dump()
            for reason, failures in locked.items()
        }
    )
    with LineScanner(van.folder / "badges", speaks="honeywell") as scanner:
        await van.ready("badges")
        await van.entries()
        answers = [await answer(scanner, badge) for badge in (b"nobody", *STRANGERS.values(), TAKEN)]
    assert await outcomes(van) == ["unknown", *STRANGERS, "revoked"]
    assert [tones for tones, _ in answers] == [["bad"]] * 6
    assert all(steps >= 1 for _, steps in answers), "never before the first point of the grid"
    assert not scanner.misheard, "nothing else was sent to the reader"


async def test_on_knowledge_that_is_too_old_the_right_badge_sounds_like_an_unknown_one(van: Van) -> None:
    van.hear_the_fleet()
    van.clock.seconds = 14 * 86_400.0
    with LineScanner(van.folder / "badges", speaks="honeywell") as scanner:
        await van.ready("badges")
        await van.entries()
        answers = [await answer(scanner, badge) for badge in (b"nobody", BADGES[ANNA])]
    assert await outcomes(van) == ["unknown", "outdated"]
    assert [tones for tones, _ in answers] == [["bad"]] * 2


# -- at the fingerprint module --------------------------------------------------------------------


async def lights(module: FingerprintModule, finger: str) -> list[Light]:
    """What the ring shows for one finger, which stays until it is told to go."""
    before = len(module.light)
    module.touch(finger)
    await shows(module, LIFT, before)
    module.lift()
    await shows(module, BREATHING, before)
    return module.light[before:]


async def shows(module: FingerprintModule, light: Light, since: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while light not in module.light[since:]:
            await module.asked_for(Instruction.AURA_LED)


async def compared_to(module: FingerprintModule, van: Van, subject: str) -> None:
    """A badge is shown, and the ring asks for its finger."""
    since = len(module.light)
    await van.badge(subject)
    await shows(module, BREATHING, since)


async def test_the_sixth_try_is_refused_though_it_is_right_and_nobody_can_see_that_it_was(van: Van) -> None:
    van.hear_the_fleet()
    with FingerprintModule(van.folder / "finger") as module:
        module.teach(SLOTS[ANNA], "anna")
        await van.ready("finger")
        await compared_to(module, van, ANNA)
        await van.entries()
        shown = [await lights(module, "somebody else") for _ in range(FREE_TRIES)]
        right = await lights(module, "anna")
    assert await outcomes(van) == ["mismatch"] * FREE_TRIES + ["locked"]
    assert shown == [right] * FREE_TRIES
    assert right == [DARK, RED, LIFT, BREATHING]
    assert not van.on_duty()


async def test_a_look_alike_that_matches_everything_opens_nothing(van: Van) -> None:
    van.hear_the_fleet()
    with FingerprintModule(van.folder / "finger") as module:
        module.teach(SLOTS[ANNA], "anna")
        await van.ready("finger")
        await compared_to(module, van, ANNA)
        wrong = await lights(module, "somebody else")
    await van.until(lambda: not van.app.units["finger"].ready)
    with FingerprintModule(van.folder / "finger", capacity=1000) as other:
        other.teach(SLOTS[ANNA], "thief")
        await van.until(lambda: van.app.inventory.doubts("finger"))
        (changed,) = (each for each in await van.entries() if "peripheral" in each["type"])
        assert changed["type"] == "postern.identity.peripheral_changed"
        assert changed["data"]["changes"]["capacity"] == {"expected": "200", "found": "1000"}
        assert about.birth(van.app)["units"]["finger"]["state"] == "doubted"
        await compared_to(other, van, ANNA)
        await van.entries()
        assert await lights(other, "thief") == wrong, "which is how a wrong finger looks"
        assert await outcomes(van) == ["doubted"]
        assert not van.on_duty()
        # The other way in is as good as ever.
        await van.tell("pad", Scanned(data=PIN))
        assert van.on_duty()
