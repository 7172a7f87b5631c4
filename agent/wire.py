"""A TCP or TLS connection of the running event loop, shaped like the socket that paho-mqtt reads and writes.

The loop opens it, so that waiting for a dead host blocks nobody and can be given up at any moment without
leaving a thread or a descriptor behind. Nothing here knows MQTT.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

USER_TIMEOUT_MS = 8000
"""Unacknowledged TCP data older than this means that the way is dead."""
HIGH_WATER = 256 * 1024
"""Bytes that may wait for the kernel; above it `send` refuses, and paho keeps the rest."""


class Owner(Protocol):
    """Whom a wire tells what happens."""

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_gone(self, error: Exception | None) -> None:
        """Nothing more comes; None when the other side simply closed."""


class Wire(asyncio.Protocol):
    """What paho asks of a socket: `recv` and `send` never wait, they raise BlockingIOError."""

    def __init__(self, owner: Owner, largest_read: int) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the descriptor is closed."""
        self._owner: Owner | None = owner
        self._largest_read = largest_read
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._taken = 0
        self._paused = False

    # -- as a socket ------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        return self._taken < len(self._received)

    def recv(self, buffer_size: int) -> bytes:
        # paho asks for a packet's whole body at once: a length that nobody agreed to shows here first.
        if buffer_size > self._largest_read:
            raise ConnectionError(f"expected at most {self._largest_read} bytes in a packet, got more")
        if not self.readable:
            raise BlockingIOError
        taken = self._received[self._taken : self._taken + buffer_size]
        self._taken += len(taken)
        return taken

    def send(self, buffer: bytes | bytearray) -> int:
        if self._owner is None or self._transport is None or self._transport.is_closing():
            raise ConnectionError("closed")
        if self._paused:
            raise BlockingIOError
        self._transport.write(buffer)
        return len(buffer)

    def hold(self) -> None:
        """Read no more: the other side has to wait."""
        if self._transport is not None:
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def fileno(self) -> int:
        return -1 if self._transport is None else self._tcp.fileno()

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def close(self) -> None:
        """Say no more, and be gone once the other side has heard it all and closes too.

        To close at once, with something unread, would make the kernel send a reset, which can destroy our
        last words on the other side before they are read.
        """
        self._owner = None
        if self._transport is None or self._transport.is_closing():
            return
        try:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
        except OSError:
            self._transport.abort()

    def abort(self) -> None:
        """Close now."""
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    # -- from the event loop ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            return
        self._received = self._received[self._taken :] + data
        self._taken = 0
        self._tell(lambda owner: owner.on_readable())

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._tell(lambda owner: owner.on_writable())

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)
        self._tell(lambda owner: owner.on_gone(error))

    @property
    def _tcp(self) -> socket.socket:
        assert self._transport is not None
        # asyncio sets TCP_NODELAY by itself.
        return cast("socket.socket", self._transport.get_extra_info("socket"))

    def _tell(self, what: Callable[[Owner], None]) -> None:
        if self._owner is not None:
            what(self._owner)


async def open_wire(
    owner: Owner, host: str, port: int, tls: ssl.SSLContext | None, largest_read: int
) -> Wire:
    """Resolve, connect and shake hands. Raises OSError or ssl.CertificateError."""
    options: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_shutdown_timeout": 1.0}
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(owner, largest_read), host, port, **options)
    return wire
