"""The rim of the kiosk's page: HTTP/1.1 on the loopback addresses, small and bounded.

One request a connection, read by h11 within limits of size and time; whoever is slow or says too much is cut
off, and whoever comes when too many are there is not heard. What a request means is not known here.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11

HEAD_BYTES = 8192
BODY_BYTES = 256
REQUEST_S = 5.0
"""From the connection to the whole request."""
WRITE_S = 5.0
"""Longest that a browser may take no bytes."""
CONNECTIONS = 32
READ_BYTES = 4096
SINGLE = {b"host", b"origin", b"content-type", b"content-length", b"sec-fetch-site"}
"""Header fields that mean something here, and are not believed when they come twice."""

HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), usb=(), serial=()"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
]
"""What every answer says: nothing from elsewhere, nothing kept, in nobody's frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One whole request, within its limits."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What comes back: a body, or parts of one for as long as both sides last."""

    status: int
    kind: str = "text/plain; charset=utf-8"
    body: bytes = b""
    parts: AsyncGenerator[bytes, None] | None = None
    more: tuple[tuple[str, str], ...] = ()


class Unfit(Exception):
    """Not a request that is heard here."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


Routes = Callable[[Request], Awaitable[Answer]]


class Rim:
    """Talks to those who connect. Holds nothing but the connections that are open."""

    def __init__(self, routes: Routes) -> None:
        self.noise: Counter[str] = Counter()
        """What was not heard, by reason, since somebody last looked."""
        self._routes = routes
        self._talks: set[asyncio.Task[Any]] = set()

    async def serve(self, port: int, ready: Callable[[], None]) -> None:
        """For ever. Raises OSError when the port cannot be had."""
        with contextlib.ExitStack() as sockets:
            servers = [
                await asyncio.start_server(self._talk, sock=sockets.enter_context(each), limit=READ_BYTES)
                for each in listening(port)
            ]
            ready()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                for server in servers:
                    server.close()
                for task in self._talks:
                    task.cancel()
                await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= CONNECTIONS:
            self.noise["too_many_connections"] += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        writer.transport.set_write_buffer_limits(high=0)
        try:
            await self._answer(reader, writer)
        except TimeoutError:
            self.noise["too_slow"] += 1
        except (ConnectionError, h11.LocalProtocolError):
            # Gone, or in no state to be answered.
            self.noise["broken_off"] += 1
        except asyncio.CancelledError:
            # The page is closed, and with it this task: whoever watches over it would call that an error.
            pass
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _request(talk, reader)
            answer = await self._routes(request)
        except h11.RemoteProtocolError as error:
            answer = Answer(status=error.error_status_hint)
        except Unfit as unfit:
            answer = Answer(status=unfit.status)
        if answer.status >= 400:
            self.noise[f"answered_{answer.status}"] += 1
        await _send(talk, writer, answer)
        await _part(reader, writer)


def listening(port: int) -> list[socket.socket]:
    """Sockets on the loopback addresses, and no other. The one of IPv6 where there is such a thing."""
    sockets = [_bound(socket.AF_INET, "127.0.0.1", port)]
    with contextlib.suppress(OSError):
        sockets.append(_bound(socket.AF_INET6, "::1", port))
    return sockets


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        stack.pop_all()
        return made


async def _request(talk: h11.Connection, reader: asyncio.StreamReader) -> Request:
    """Raises Unfit, or h11's RemoteProtocolError."""
    head: h11.Request | None = None
    body = b""
    while True:
        event = talk.next_event()
        if event is h11.NEED_DATA:
            talk.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
            if _declared(head) > BODY_BYTES:
                raise Unfit(413)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise Unfit(413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return Request(
                method=head.method.decode(),
                target=head.target.decode(),
                headers=_headers(head),
                body=body,
            )
        else:
            raise ConnectionError("closed before a request was made")


def _declared(head: h11.Request) -> int:
    """Bytes of body that are announced; h11 has seen to it that this is a number."""
    return int(next((value for name, value in head.headers if name == b"content-length"), b"0"))


def _headers(head: h11.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in head.headers:
        if name in SINGLE and name.decode() in found:
            raise Unfit(400)
        found[name.decode()] = value.decode("latin-1")
    return found


async def _send(talk: h11.Connection, writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = [*HEADERS, ("Content-Type", answer.kind), *answer.more]
    if answer.parts is None:
        headers.append(("Content-Length", str(len(answer.body))))
    await _write(writer, talk.send(h11.Response(status_code=answer.status, headers=headers)))
    if answer.parts is None:
        await _write(writer, talk.send(h11.Data(data=answer.body)))
    else:
        async with contextlib.aclosing(answer.parts) as parts:
            async for part in parts:
                await _write(writer, talk.send(h11.Data(data=part)))
    await _write(writer, talk.send(h11.EndOfMessage()))


async def _part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the other side is through with it: to close over its unread words would take ours back."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(WRITE_S):
            writer.write_eof()
            while await reader.read(READ_BYTES):
                pass


async def _write(writer: asyncio.StreamWriter, data: bytes | None) -> None:
    """Raises TimeoutError when the other side takes nothing."""
    if data:
        async with asyncio.timeout(WRITE_S):
            writer.write(data)
            await writer.drain()
