"""The kiosk's page in a real Chromium: a whole locker behind it, and people in front of it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.clock import SystemClock
from agent.kiosk.config import KioskSection
from agent.kiosk.kiosk import Kiosk
from agent.kiosk.view import Face
from agent.units import Unit
from drivers.readings import Reading
from tests.browser import ENTER, MISSING, TAB, Browser
from tests.locker_hall import Hall
from tests.locker_site import BADGE, PIN, Codes, LockerSite
from tests.mosquitto import free_port

REQUIRED = os.environ.get("POSTERN_BROWSER") == "required"
"""Set where a browser was installed for this: its absence is a failure then, and no reason to skip."""
SCREENS = [(800, 480), (1280, 800)]
LANGUAGES = ("en", "de", "fr", "es")
CONTRAST = 7.0
"""WCAG 2.2, success criterion 1.4.6."""
FINGER_PX = 44
"""WCAG 2.2, success criterion 2.5.5: the least that a finger meets, either way."""

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        MISSING and not REQUIRED, reason="NO BROWSER: apt-get install chromium chromium-driver to run this"
    ),
]


# -- a whole locker ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def locker(folder: Path, language: str = "en") -> AsyncIterator[tuple[LockerSite, Browser]]:
    """A locker that runs, and its page at rest."""
    port = free_port()
    more = f'[kiosk]\nport = {port}\nlanguage = "{language}"\n'
    async with LockerSite(folder, more=more) as site, Browser(folder) as page:
        await site.start()
        await site.ready("kiosk")
        await page.screen(800, 480)
        await page.go(f"http://127.0.0.1:{port}/")
        await page.face("idle")
        yield site, page
        assert not site.of("agent.fault")
        assert not await page.log(), "the browser complains of nothing, its content policy included"


async def test_a_courier_deposits_and_the_recipient_collects_at_the_page(tmp_path: Path) -> None:
    async with locker(tmp_path) as (site, page):
        site.badge.scan(BADGE)
        await page.face("identify")
        await page.touch("Type your PIN")
        for digit in PIN:
            await page.touch(digit)
        await page.touch("OK")
        await page.face("courier")
        site.gun.scan("RB473124829DE")
        await page.face("size")
        await page.touch("Medium")
        await page.face("open")
        assert await page.text("title") == "Compartment B1 is open"
        assert await site.opened() == "b1"
        site.door("b1").put()
        await site.count("door.opened", 1)
        site.door("b1").slam()
        await page.face("receipt")
        await page.until("document.getElementById('receipt').naturalWidth > 0")
        await page.touch("Finish")
        await page.face("thanks")
        assert site.of("locker.session_opened")[0]["data"]["unit"] == "kiosk"
        codes = site.codes(site.of("locker.deposited")[0])
        await page.press(ENTER)
        await page.touch("Type a code")
        for key in keys_of(codes):
            await page.touch(key)
        await page.touch("OK")
        await page.face("open")
        assert await page.text("title") == "Compartment B1 is open"
        await site.count("door.opened", 2)
        site.door("b1").take()
        site.door("b1").slam()
        await page.face("thanks")
        await site.count("locker.collected", 1)
        assert site.of("locker.opening_intended")[-1]["data"]["way"] == "pin"
        assert site.pulses == 2


async def test_a_recipient_needs_no_more_than_tab_and_enter(tmp_path: Path) -> None:
    async with locker(tmp_path) as (site, page):
        await site.identify()
        codes = await site.deposit("RB473124829DE")
        site.gun.scan("POSTERN:END")
        await page.face("thanks")
        await page.press(ENTER)
        await page.face("idle")
        await reach(page, "Type a code")
        await page.face("keys")
        for key in keys_of(codes):
            await reach(page, key)
        await reach(page, "OK")
        await page.face("open")
        assert await site.opened() == "a1"


async def test_a_typed_code_is_counted_and_paused_like_one_of_the_keypad(tmp_path: Path) -> None:
    async with locker(tmp_path) as (site, page):
        await site.identify()
        codes = await site.deposit("RB473124829DE")
        site.gun.scan("POSTERN:END")
        await page.face("thanks")
        await page.run("document.querySelector('main').click()")
        await page.face("idle")
        said = set()
        for wrong in ("29DE000001", "ZZZZ000002", "29DE", "".join(keys_of(codes))):
            refused = len(site.of("locker.code_refused"))
            await page.press(wrong)
            await page.touch("OK")
            await site.refused(refused + 1)
            await page.face("refused")
            said.add((await page.text("title"), await page.text("lead")))
            await page.touch("Try again")
            await page.face("idle")
        reasons = [entry["data"]["reason"] for entry in site.of("locker.code_refused")]
        assert reasons == ["unknown", "unknown", "malformed", "paused"]
        assert len(said) == 1, "the right code, while none is looked at, is refused like a wrong one"
        assert site.of("locker.codes_paused")
        assert site.pulses == 1


async def test_the_page_finds_the_locker_again_after_both_have_died(tmp_path: Path) -> None:
    async with locker(tmp_path, "de") as (site, page):
        await site.identify()
        await site.deposit("RB473124829DE")
        await site.kill_agent()
        await page.face("wait")
        assert await page.text("title") == "Einen Augenblick, bitte"
        await site.start()
        await page.face("courier")
        site.bus.unplug()
        await page.face("out")
        assert await page.text("title") == "Außer Betrieb"
        # What the browser says of a server that is gone is no complaint about the page.
        await page.log()


def keys_of(codes: Codes) -> list[str]:
    """What a recipient types."""
    return [key for key in codes.pin if key.isalnum()]


async def reach(page: Browser, label: str) -> None:
    """Tab to the button of that text, and press Enter."""
    for _ in range(60):
        await page.press(TAB)
        if await page.run("return document.activeElement.innerText.trim()") == label:
            seen = await page.run("return getComputedStyle(document.activeElement).outlineStyle")
            assert seen == "solid", f"where the focus is can be seen: {label}"
            await page.press(ENTER)
            return
    raise AssertionError(f"{label} cannot be reached")


# -- every face in every language ---------------------------------------------------------------------

REST: dict[str, Any] = {
    "door": None,
    "task": "mind",
    "staff": False,
    "second": False,
    "size": None,
    "ajar": [],
    "times": 1,
}
FACES: list[dict[str, Any]] = [
    {"face": "idle"},
    {"face": "idle", "ajar": ["a1", "abcde-fghij-1234"]},
    {"face": "identify"},
    {"face": "identify", "second": True},
    {"face": "courier", "staff": True, "size": "M"},
    {"face": "size", "staff": True},
    {"face": "opening", "door": "a1"},
    *(
        {"face": "open", "door": door, "task": task}
        for door in ("a1", "b12")
        for task in ("take", "put", "mind")
    ),
    {"face": "open", "door": "abcde-fghij-1234", "task": "take"},
    {"face": "closing", "door": "ab123"},
    *({"face": face} for face in ("thanks", "refused", "failed", "left", "empty", "out", "receipt")),
]

SHOW = """
shown = {...arguments[0], beneath: arguments[0].face, sizes: ["S", "M", "L", "XL"], language: "en"};
away = false; asking = null; language = arguments[1]; typed = arguments[2];
draw();
for (const each of document.getAnimations()) each.finish();
"""
"""What the agent would tell, put in its place."""

OUTSIDE = """
const header = document.querySelector("header").getBoundingClientRect();
const footer = document.querySelector("footer").getBoundingClientRect();
const found = [];
if (document.documentElement.scrollHeight > innerHeight) found.push("the page scrolls");
for (const each of document.querySelectorAll("body *")) {
  if (!each.checkVisibility() || each.closest(".leaf")) continue;
  const box = each.getBoundingClientRect(), name = each.tagName + "#" + each.id + "." + each.className;
  if (box.left < -1 || box.top < -1 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1)
    found.push(name + " is outside");
  const inline = getComputedStyle(each).display === "inline";
  if (!inline && each.clientWidth && each.scrollWidth > each.clientWidth + 1)
    found.push(name + " is cut off");
  if (each.matches("section, .keys") && (box.top < header.bottom - 1 || box.bottom > footer.bottom + 1))
    found.push(name + " overlaps");
  if (each.matches("button") && Math.min(box.width, box.height) < arguments[0])
    found.push(name + " is small");
}
return found;
"""

COLOURS = """
const colour = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (each) => {
  for (let at = each; at; at = at.parentElement) {
    const [r, g, b, a = 1] = colour(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const found = [];
for (const each of document.querySelectorAll("body *")) {
  const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (own && each.checkVisibility())
    found.push([each.innerText, colour(getComputedStyle(each).color).slice(0, 3), behind(each)]);
}
return found;
"""


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Browser]:
    """The page of a locker at which nothing happens: what it shows is put there by the test."""
    hall, port = Hall(), free_port()

    async def deliver(unit: Unit, reading: Reading) -> None:
        raise AssertionError("nothing is typed here")

    wall = hall.rules.wall
    kiosk = Kiosk(
        KioskSection(port=port), wall, state=lambda: hall.state, clock=SystemClock(), deliver=deliver
    )
    task = asyncio.create_task(kiosk.run())
    async with Browser(tmp_path) as browser:
        await browser.go(f"http://127.0.0.1:{port}/")
        await browser.face("idle")
        yield browser
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def scenes() -> list[tuple[dict[str, Any], str | None]]:
    """Everything there is to see: what the agent tells, and what is being typed."""
    typing = [({**REST, "face": "idle"}, "29DE12"), ({**REST, "face": "identify"}, "9" * 32)]
    return [*(({**REST, **each}, None) for each in FACES), *typing]


def test_every_face_has_a_scene() -> None:
    assert {told["face"] for told, _ in scenes()} == set(Face)


@pytest.mark.parametrize(("width", "height"), SCREENS)
async def test_everything_fits_the_screen_and_every_button_a_finger(
    page: Browser, width: int, height: int
) -> None:
    await page.screen(width, height)
    for language in LANGUAGES:
        for told, typed in scenes():
            await page.run(SHOW, told, language, typed)
            found = await page.run(OUTSIDE, FINGER_PX)
            assert not found, (language, told, found)


async def test_all_text_stands_out_from_what_is_behind_it(page: Browser) -> None:
    await page.screen(800, 480)
    texts = 0
    for told, typed in scenes():
        await page.run(SHOW, told, "de", typed)
        for text, ink, paper in await page.run(COLOURS):
            assert contrast(ink, paper) >= CONTRAST, (told, text, ink, paper)
            texts += 1
    assert texts > 200


def test_the_contrast_of_two_colours_is_what_wcag_says() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([118, 118, 118], [255, 255, 255]) == pytest.approx(4.54, abs=0.01)


async def test_every_language_says_everything_and_names_itself(page: Browser) -> None:
    shapes = await page.run(
        "return Object.fromEntries(Object.entries(WORDS).map(([lang, is]) => [lang, Object.entries(is).map("
        "([key, said]) => [key, typeof said === 'string' ? 1 : Object.keys(said).length,"
        " JSON.stringify(said).match(/{[a-z]+}/g)])]))"
    )
    assert set(shapes) == set(LANGUAGES)
    assert all(shape == shapes["en"] for shape in shapes.values())
    for language, name in zip(LANGUAGES, ("English", "Deutsch", "Français", "Español"), strict=True):
        await page.touch(name)
        assert await page.run("return document.documentElement.lang") == language
        said = await page.run("return [WORDS[arguments[0]].idle, WORDS[arguments[0]].name]", language)
        assert said == [[await page.text("title"), await page.text("lead")], await page.run(NAME)]


NAME = "return document.querySelector('.name').innerText"


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2.2, contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    """WCAG 2.2, relative luminance of an sRGB colour."""
    parts = [part / 255 for part in colour]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
