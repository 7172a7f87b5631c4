"""A real Chromium, driven as the W3C WebDriver standard says, over plain HTTP to a real chromedriver.

async with Browser(tmp_path) as page:
    await page.go("http://127.0.0.1:8480/")
    await page.until("document.body.dataset.face === 'idle'")
"""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = not (CHROMIUM and DRIVER)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
PATIENCE_S = 40
TAB, ENTER = "\ue004", "\ue007"
UNTIL = """
const done = arguments[arguments.length - 1];
const over = new AbortController();
const look = () => { if (!(%s)) return false; watch.disconnect(); over.abort(); done(true); return true; };
const watch = new MutationObserver(look);
if (!look()) {
  watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  document.addEventListener("load", look, {capture: true, signal: over.signal});
}
"""
"""Calls back once a condition holds; it is looked at again when the page changes or a picture has come."""


class Browser:
    def __init__(self, folder: Path) -> None:
        self._profile = folder / "chromium"
        self._driver: subprocess.Popen[str] | None = None
        self._port = 0
        self._session = ""

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stop)

    def _start(self) -> None:
        assert DRIVER is not None
        self._driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if match := re.search(r"started successfully on port (\d+)", line):
                self._port = int(match[1])
                break
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={self._profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"
        self._ask("POST", f"{self._session}/timeouts", {"script": PATIENCE_S * 1000})

    def _stop(self) -> None:
        if self._driver is None:
            return
        if self._session:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                self._ask("DELETE", self._session)
        os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()
        assert self._driver.stdout is not None
        self._driver.stdout.close()

    def _ask(self, method: str, path: str, said: object = None) -> Any:
        talk = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S + 20)
        try:
            body = None if method in ("GET", "DELETE") else json.dumps(said or {})
            talk.request(method, path, body, {"Content-Type": "application/json"})
            answer = talk.getresponse()
            value = json.loads(answer.read())["value"]
            assert answer.status == 200, f"{method} {path}: {value.get('message', value)[:1500]}"
            return value
        finally:
            talk.close()

    async def _tell(self, path: str, said: object = None) -> Any:
        return await asyncio.to_thread(self._ask, "POST", self._session + path, said)

    # -- what a person does -----------------------------------------------------------------------

    async def go(self, url: str) -> None:
        await self._tell("/url", {"url": url})

    async def screen(self, width: int, height: int) -> None:
        """Have a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._tell("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})

    async def press(self, keys: str) -> None:
        """Keys of the keyboard, one after the other."""
        moves = [{"type": move, "value": key} for key in keys for move in ("keyDown", "keyUp")]
        await self._tell("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": moves}]})

    async def touch(self, label: str) -> None:
        """The button of that text that is to be seen."""
        await self.until(f"{_BUTTON % json.dumps(label)}")
        element = await self.run(f"return {_BUTTON % json.dumps(label)}")
        (reference,) = element.values()
        await self._tell(f"/element/{reference}/click")

    # -- what a person sees -----------------------------------------------------------------------

    async def run(self, script: str, *arguments: object) -> Any:
        return await self._tell("/execute/sync", {"script": script, "args": arguments})

    async def until(self, condition: str) -> None:
        """Wait until an expression holds on the page."""
        try:
            await self._tell("/execute/async", {"script": UNTIL % condition, "args": []})
        except AssertionError as error:
            seen = await self.run("return document.body.dataset.face + ': ' + document.body.innerText")
            raise AssertionError(f"waited for {condition}; the page shows {seen!r}") from error

    async def face(self, *faces: str) -> None:
        """Wait until the page shows one of these."""
        await self.until(f"{json.dumps(faces)}.includes(document.body.dataset.face)")

    async def text(self, id_: str) -> str:
        said: str = await self.run("return document.getElementById(arguments[0]).innerText", id_)
        return said

    async def log(self) -> Sequence[str]:
        """What the browser complained of since it was last asked."""
        return [each["message"] for each in await self._tell("/se/log", {"type": "browser"})]

    async def picture(self, path: Path) -> None:
        shot = await asyncio.to_thread(self._ask, "GET", f"{self._session}/screenshot")
        path.write_bytes(base64.b64decode(shot))


_BUTTON = (
    "[...document.querySelectorAll('button')].find(b => b.checkVisibility() && b.innerText.trim() === %s)"
)
