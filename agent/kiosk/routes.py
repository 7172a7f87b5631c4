"""Paths to answers, and whose request is heard at all.

A browser is easily led to talk to this machine by a page from elsewhere. So a request must name this machine
as its host, which a name that was made to resolve to it does not; and whatever is typed must come from a page
that was served here, which a foreign one cannot claim.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from agent import strict_json
from agent.kiosk.counter import BUTTONS, Counter
from agent.kiosk.http import Answer, Request, Unfit

KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGE = Path(__file__).with_name("page")
TYPED = re.compile(r"[0-9A-Za-z]{1,32}")
"""What the keys of the page can make."""


class Routes:
    """Answers requests to one counter."""

    def __init__(self, counter: Counter, port: int) -> None:
        self._counter = counter
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._files = dict(_files())

    async def __call__(self, request: Request) -> Answer:
        """Raises Unfit."""
        self._admit(request)
        path, _, _ = request.target.partition("?")
        match request.method:
            case "GET":
                return await self._shown(path)
            case "POST":
                return await self._taken(path, request)
        raise Unfit(405)

    def _admit(self, request: Request) -> None:
        headers = request.headers
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            raise Unfit(421)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Unfit(403)
        origin = headers.get("origin")
        if origin != f"http://{host}" and (origin is not None or request.method != "GET"):
            raise Unfit(403)

    async def _shown(self, path: str) -> Answer:
        if path == "/events":
            return Answer(status=200, kind="text/event-stream", parts=self._counter.watch())
        if path == "/receipt.svg":
            picture = await self._counter.receipt()
            # A page may ask just when the receipt goes: that is no mistake of anybody's.
            return (
                Answer(status=204) if picture is None else Answer(status=200, kind=KINDS["svg"], body=picture)
            )
        if path not in self._files:
            raise Unfit(404)
        kind, body = self._files[path]
        return Answer(status=200, kind=kind, body=body)

    async def _taken(self, path: str, request: Request) -> Answer:
        """Every answer is the same: what comes of it, the screen shows."""
        if request.headers.get("content-type") != "application/json":
            raise Unfit(415)
        match path, _said(request.body):
            case "/typed", {"keys": str(keys), **rest} if not rest and TYPED.fullmatch(keys):
                heard = await self._counter.typed(keys)
            case "/pressed", {"button": str(button), **rest} if not rest and button in BUTTONS:
                heard = await self._counter.pressed(button)
            case (("/typed" | "/pressed"), _):
                raise Unfit(400)
            case _:
                raise Unfit(404)
        if not heard:
            raise Unfit(429)
        return Answer(status=200)


def _said(body: bytes) -> object:
    try:
        return strict_json.loads(body)
    except strict_json.BadJson:
        raise Unfit(400) from None


def _files() -> Mapping[str, tuple[str, bytes]]:
    """What the browser gets, by path: the files beside us."""
    found = {}
    for file in PAGE.iterdir():
        ending = file.suffix.removeprefix(".")
        if ending in KINDS:
            found[f"/{file.name}"] = (KINDS[ending], file.read_bytes())
    return {**found, "/": found["/index.html"]}
