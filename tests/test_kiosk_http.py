"""The rim of the kiosk's page: who is heard there, and what happens to all the others."""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agent.clock import NS, Moment, SystemClock, Trust
from agent.intake import Role
from agent.kiosk import counter, http
from agent.kiosk.config import KioskSection
from agent.kiosk.counter import BUTTONS, Pace, drawn
from agent.kiosk.kiosk import Kiosk
from agent.kiosk.routes import PAGE
from agent.units import Unit
from agent.workflow import Decision, Draft
from drivers.readings import NoiseCounted, Reading, Scanned
from tests.locker_hall import Hall
from tests.mosquitto import free_port

PATIENCE_S = 20
ANSWERED = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Booth:
    """A kiosk that serves, and all that was handed in at it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.hall = Hall()
        self.heard: list[tuple[Role, Reading]] = []
        self.news = asyncio.Event()
        self.kiosk = Kiosk(
            KioskSection(port=self.port, language="fr"),
            self.hall.rules.wall,
            state=lambda: self.hall.state,
            clock=SystemClock(),
            deliver=self._deliver,
        )

    async def _deliver(self, unit: Unit, reading: Reading) -> None:
        assert unit.name == "kiosk"
        self.heard.append((unit.spec.role, reading))
        self.news.set()

    def decided(self, *types: str, **data: Any) -> None:
        """The locker has decided something, and it is on stable storage."""
        entries = tuple(Draft(kind, "a1", data) for kind in types)
        self.kiosk.saw(Decision(state=self.hall.state, entries=entries))

    def become(self, **changes: Any) -> None:
        self.hall.state = replace(self.hall.state, **changes)
        self.decided()

    async def talk(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    return await asyncio.open_connection("127.0.0.1", self.port)
                await asyncio.sleep(0)

    async def send(self, raw: bytes) -> bytes:
        """Everything that comes back until the other side closes."""
        reader, writer = await self.talk()
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(raw)
                with contextlib.suppress(ConnectionError):
                    return await reader.read()
                return b""
        finally:
            await parted(writer)

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, bytes]:
        """Status, head and body."""
        return parsed(await self.send(self.request("GET", path, b"", **headers)))

    async def post(self, path: str, said: object, **headers: str) -> int:
        given = {"origin": f"http://127.0.0.1:{self.port}", "content_type": "application/json", **headers}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return parsed(await self.send(self.request("POST", path, body, **given)))[0]

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        fields = {"host": f"127.0.0.1:{self.port}", **headers}
        if body:
            fields.setdefault("content_length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def parted(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def parsed(answer: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    match = ANSWERED.match(head)
    return int(match[1]) if match else 0, head, body


@pytest.fixture
async def booth() -> AsyncIterator[Booth]:
    made = Booth()
    task = asyncio.create_task(made.kiosk.run())
    _, writer = await made.talk()
    await parted(writer)
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def events(booth: Booth) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await booth.talk()
    writer.write(booth.request("GET", "/events"))
    return reader, writer


async def event(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next thing that the page is told."""
    async with asyncio.timeout(PATIENCE_S):
        while not (line := await reader.readline()).startswith(b"data: "):
            assert line, "closed"
        told: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return told


# -- what is served ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", b"text/html"),
        ("/kiosk.css", b"text/css"),
        ("/kiosk.js", b"text/javascript"),
        ("/words.js", b"text/javascript"),
        ("/mark.svg", b"image/svg+xml"),
    ],
)
async def test_every_file_comes_with_its_kind_and_a_policy_that_lets_nothing_else_in(
    booth: Booth, path: str, kind: bytes
) -> None:
    status, head, body = await booth.get(path)
    assert status == 200
    assert body
    head = head.lower()
    for line in (
        b"content-type: " + kind,
        b"default-src 'none'",
        b"frame-ancestors 'none'",
        b"nosniff",
        b"no-store",
    ):
        assert line in head
    assert b"set-cookie" not in head
    assert b"access-control" not in head


def test_the_page_asks_nothing_of_anybody_else_and_keeps_nothing() -> None:
    files = list(PAGE.iterdir())
    assert len(files) == 5
    for file in files:
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        for word in (
            "http:",
            "https:",
            "url(",
            "innerHTML",
            "eval(",
            "cookie",
            "Storage",
            "style=",
            "onclick",
        ):
            assert word not in text, (file.name, word)


async def test_only_the_loopback_addresses_are_bound(booth: Booth) -> None:
    sockets = http.listening(free_port())
    try:
        assert {each.getsockname()[0] for each in sockets} <= {"127.0.0.1", "::1"}
    finally:
        for each in sockets:
            each.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", booth.port)


# -- whose request is heard -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("127.0.0.1", 421),
        ("127.0.0.1:1", 421),
        ("127.0.0.1.evil.example:{port}", 421),
        ("evil.example:{port}", 421),
        ("0.0.0.0:{port}", 421),
        ("locker-12:{port}", 421),
    ],
)
async def test_a_name_that_was_made_to_resolve_here_is_no_name_of_this_machine(
    booth: Booth, host: str, status: int
) -> None:
    assert (await booth.get("/", host=host.format(port=booth.port)))[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:{port}", "host": "localhost:{port}"}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": ""}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:{port}"}, 403),
        ({"origin": "https://127.0.0.1:{port}"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": ""}, 415),
    ],
)
async def test_only_a_page_that_was_served_here_can_type(
    booth: Booth, headers: dict[str, str], status: int
) -> None:
    given = {name: value.format(port=booth.port) for name, value in headers.items()}
    assert await booth.post("/typed", {"keys": "29DE123456"}, **given) == status
    assert len(booth.heard) == (status == 200)


async def test_a_foreign_page_is_not_told_what_is_shown(booth: Booth) -> None:
    assert (await booth.get("/events", origin="http://evil.example"))[0] == 403
    assert (await booth.get("/events", sec_fetch_site="cross-site"))[0] == 403


# -- what a keypad could send -----------------------------------------------------------------------


async def test_what_is_typed_is_a_keypad_s_and_what_is_pressed_a_control_code(booth: Booth) -> None:
    assert await booth.post("/typed", {"keys": "29de123456"}) == 200
    for button in ("size-xl", "cancel", "retrieve", "end"):
        assert await booth.post("/pressed", {"button": button}) == 200
    assert [(role, reading.data) for role, reading in booth.heard if isinstance(reading, Scanned)] == [
        (Role.KEYPAD, b"29de123456"),
        (Role.PARCEL, b"POSTERN:SIZE:XL"),
        (Role.PARCEL, b"POSTERN:CANCEL"),
        (Role.PARCEL, b"POSTERN:RETRIEVE"),
        (Role.PARCEL, b"POSTERN:END"),
    ]


def test_no_button_is_a_technician_s_or_a_supervisor_s() -> None:
    assert not [code for code in BUTTONS.values() if re.search(rb"OPEN|PINS|UNLOCK", code)]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/typed", {"keys": ""}),
        ("/typed", {"keys": "A" * 33}),
        ("/typed", {"keys": "PICKUP:AAAA"}),
        ("/typed", {"keys": "POSTERN:END"}),
        ("/typed", {"keys": "12\n34"}),
        ("/typed", {"keys": "１２３"}),
        ("/typed", {"keys": 123456}),
        ("/typed", {"keys": "1", "unit": "gun"}),
        ("/typed", {"button": "end"}),
        ("/typed", ["1"]),
        ("/typed", b"{"),
        ("/typed", b'{"keys":"1","keys":"2"}'),
        ("/typed", b"\xff"),
        ("/pressed", {"button": "open-a1"}),
        ("/pressed", {"button": "SIZE-S"}),
        ("/pressed", {"button": "end", "more": 1}),
        ("/pressed", {"keys": "1"}),
    ],
)
async def test_what_the_keys_of_the_page_cannot_make_is_not_handed_in(
    booth: Booth, path: str, said: object
) -> None:
    assert await booth.post(path, said) == 400
    assert not booth.heard


async def test_whoever_presses_faster_than_people_do_is_not_heard_and_counted(
    booth: Booth, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [await booth.post("/typed", {"keys": "1"}) for _ in range(40)]
    assert answers[: int(Pace.BURST)] == [200] * int(Pace.BURST)
    assert 429 in answers
    assert len(booth.heard) == answers.count(200)


def test_the_pace_of_people_is_a_burst_and_then_some_a_second() -> None:
    at = Moment(boot="boot-1", mono_ns=100 * NS, utc_ns=0, trust=Trust.NONE)
    pace = Pace()
    for _ in range(int(Pace.BURST)):
        taken = pace.taken(at)
        assert taken is not None
        pace = taken
    assert pace.taken(at) is None
    later = replace(at, mono_ns=at.mono_ns + NS // int(Pace.EACH_S))
    after = pace.taken(later)
    assert after is not None
    assert after.taken(later) is None


async def test_what_is_not_heard_is_counted_in_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "NOISE_EVERY_S", 0.01)
    made = Booth()
    task = asyncio.create_task(made.kiosk.run())
    assert (await made.get("/", host="evil.example"))[0] == 421
    async with asyncio.timeout(PATIENCE_S):
        await made.news.wait()
    ((_, reading),) = made.heard
    assert isinstance(reading, NoiseCounted)
    assert reading.counts == {"answered_421": 1}
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# -- requests that are none -------------------------------------------------------------------------

BAD = {
    "not http": (b"hello\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host, http/1.0": (b"GET / HTTP/1.0\r\n\r\n", 421),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\n\r\n", 400),
    "two origins": (
        b"POST /typed HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\norigin: null\r\n\r\n",
        400,
    ),
    "two lengths": (
        b"POST /typed HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        400,
    ),
    "a head too large": (b"GET / HTTP/1.1\r\nhost: {host}\r\nx: " + b"a" * 16_000 + b"\r\n\r\n", 431),
    "a body too large": (b"POST /typed HTTP/1.1\r\nhost: {host}\r\ncontent-length: 257\r\n\r\n", 413),
    "a body too large in pieces": (
        b"POST /typed HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n101\r\n" + b"a" * 257,
        413,
    ),
    "another method": (b"DELETE / HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\n\r\n", 405),
    "a preflight": (b"OPTIONS /typed HTTP/1.1\r\nhost: {host}\r\norigin: http://evil.example\r\n\r\n", 403),
    "a proxy's": (b"GET http://evil.example/ HTTP/1.1\r\nhost: {host}\r\n\r\n", 404),
    "a way out": (b"GET /../kiosk.py HTTP/1.1\r\nhost: {host}\r\n\r\n", 404),
    "a way out, encoded": (b"GET /%2e%2e/kiosk.py HTTP/1.1\r\nhost: {host}\r\n\r\n", 404),
    "a get where something is typed": (b"GET /typed HTTP/1.1\r\nhost: {host}\r\n\r\n", 404),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_gets_its_answer_and_does_nothing(booth: Booth, name: str) -> None:
    raw, status = BAD[name]
    answer = await booth.send(raw.replace(b"{host}", f"127.0.0.1:{booth.port}".encode()))
    assert parsed(answer)[0] == status
    assert not booth.heard


async def test_noise_on_the_line_types_nothing_and_stops_nobody(booth: Booth) -> None:
    rng = random.Random(20261127)
    good = booth.request(
        "POST", "/typed", b'{"keys":"1"}', origin="http://evil.example", content_type="application/json"
    )
    for _ in range(150):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        reader, writer = await booth.talk()
        writer.write(raw[: rng.randrange(1, len(raw) + 1)])
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        await parted(writer)
    assert not booth.heard
    assert (await booth.get("/"))[0] == 200


async def test_whoever_speaks_too_slowly_is_cut_off(booth: Booth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.3)
    reader, writer = await booth.talk()
    writer.write(b"GET / HTTP/1.1\r\nhost: ")
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    await parted(writer)


async def test_whoever_comes_when_too_many_are_there_is_not_heard_until_one_goes(booth: Booth) -> None:
    talks = [await booth.talk() for _ in range(http.CONNECTIONS)]
    for _, writer in talks:
        writer.write(b"GET / HTTP/1.1\r\n")
    assert await booth.send(booth.request("GET", "/")) == b""
    _, first = talks[0]
    await parted(first)
    async with asyncio.timeout(PATIENCE_S):
        while not await booth.send(booth.request("GET", "/")):
            pass
    for _, writer in talks:
        await parted(writer)


# -- what the page is told --------------------------------------------------------------------------


async def test_a_page_is_told_what_is_shown_and_every_change_of_it(booth: Booth) -> None:
    reader, writer = await events(booth)
    told = await event(reader)
    assert (told["face"], told["sizes"], told["language"]) == ("idle", ["S", "M", "L"], "fr")
    booth.decided("locker.code_refused", reason="spent")
    told = await event(reader)
    assert (told["face"], told["beneath"]) == ("refused", "idle")
    assert "spent" not in json.dumps(told)
    booth.kiosk.trouble(there=True)
    assert (await event(reader))["face"] == "out"
    booth.kiosk.trouble(there=False)
    assert (await event(reader))["face"] == "refused"
    await parted(writer)


async def test_what_passes_is_over_without_anybody_doing_anything(
    booth: Booth, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.kiosk import view

    monkeypatch.setitem(view.LASTS_S, view.Face.REFUSED, 0.05)
    reader, writer = await events(booth)
    await event(reader)
    booth.decided("locker.code_refused")
    assert (await event(reader))["face"] == "refused"
    assert (await event(reader))["face"] == "idle"
    await parted(writer)


async def test_a_page_too_many_ends_the_oldest(booth: Booth) -> None:
    streams = [await events(booth)]
    await event(streams[0][0])
    for _ in range(counter.SCREENS):
        streams.append(await events(booth))
        await event(streams[-1][0])
    async with asyncio.timeout(PATIENCE_S):
        await streams[0][0].read()
    booth.decided("locker.code_refused")
    for reader, _ in streams[1:]:
        assert (await event(reader))["face"] == "refused"
    assert booth.kiosk.status() == {"port": booth.port, "screens": counter.SCREENS}
    for _, writer in streams:
        await parted(writer)


async def test_a_receipt_is_a_picture_as_long_as_it_is_shown(booth: Booth) -> None:
    reader, writer = await events(booth)
    await event(reader)
    booth.decided("locker.deposited", receipt="eyJ.text.sig")
    assert (await event(reader))["face"] == "receipt"
    status, _, body = await booth.get("/receipt.svg?1")
    assert (status, body) == (200, drawn("eyJ.text.sig"))
    booth.decided("locker.parcel_scanned")
    await event(reader)
    assert (await booth.get("/receipt.svg?1"))[0] == 204
    await parted(writer)


def test_a_receipt_s_picture_is_the_qr_code_of_its_text() -> None:
    import segno

    text = "eyJ" + "aZ-_.09" * 90
    matrix = segno.make(text, error="l", micro=False, boost_error=False).matrix
    side = len(matrix) + 8
    svg = drawn(text).decode()
    assert f'viewBox="0 0 {side} {side}"' in svg
    dark = sum(map(sum, matrix))
    runs = [int(each) for each in re.findall(r"h(\d+)", svg.split('stroke="#000"', 1)[1])]
    assert sum(runs) == dark
