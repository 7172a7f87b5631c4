"""One connection of the broker: bytes to packets, writes joined or delayed, silence noticed, goodbyes.

What the packets mean is its owner's affair.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from simulators.mqtt5 import Packet, Stream
from simulators.mqtt5_fields import BadPacket, Reason

LINGER = 1.0
"""Seconds a peer gets to read our goodbye and close, before it is cut off."""

HIGH_WATER = 65536
"""Bytes on their way out, past which messages stay in their session's queue."""

BACKLOG_MOST = 4 * 1024 * 1024
"""A peer that keeps talking and leaves this much unread is cut off: only acknowledgements can get here."""


class Owner(Protocol):
    def made(self) -> None: ...

    def packet(self, packet: Packet) -> None: ...

    def broken(self, error: BadPacket) -> None: ...

    def writable(self) -> None: ...

    def lost(self) -> None: ...


class Link(asyncio.Protocol):
    """After `close`, `abort` or `reset` the owner hears nothing more but `lost`."""

    def __init__(self, owner: Owner, limit: int, delay: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        self.stream = Stream(limit)
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._owner = owner
        self._delay = delay
        self._transport: asyncio.Transport | None = None
        self._outgoing: deque[tuple[float, bytes, Callable[[], None] | None]] = deque()
        self._flush: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._patience = 0.0
        self._heard = loop.time()
        self._unwritten = 0
        self._paused = False
        self._closing = False

    # -- to the peer ------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """The peer reads too slowly: what is sent now would only pile up here. `writable` tells the end."""
        return self._paused or self._unwritten >= HIGH_WATER

    @property
    def tcp(self) -> socket.socket:
        """The socket of an open connection."""
        if self._transport is None:
            raise ConnectionError("expected an open connection, got a lost one")
        return cast("socket.socket", self._transport.get_extra_info("socket"))

    def send(self, data: bytes, sent: Callable[[], None] | None = None) -> None:
        """Write after the delay of this moment, never before what was sent earlier; then call `sent`."""
        if self._closing:
            return
        due = self._loop.time() + self._delay()
        self._outgoing.append((due, data, sent))
        self._unwritten += len(data)
        if self._flush is None:
            # One write for all that one chunk of input brings about.
            self._flush = self._loop.call_at(due, self._write_due)

    def close(self, last_words: bytes = b"") -> None:
        """Say everything at once, then wait a little for the peer to close.

        To close with unread input makes the kernel send a reset, which can destroy the last words on the
        peer's side before it has read them.
        """
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._transport.write(b"".join(data for _, data, _ in self._outgoing) + last_words)
        self._forget()
        self._alarm = self._loop.call_later(LINGER, self._transport.abort)
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the peer is gone already, and the loop has not told us yet
            self._transport.abort()

    def abort(self) -> None:
        """Close without a word."""
        self._closing = True
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close as a dying host does: with a TCP reset, everything unsent lost."""
        if self._transport is not None:
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def expect_within(self, patience: float) -> None:
        """Tell the owner when so many seconds pass without a byte; 0 for never."""
        self._patience = patience
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._heard + patience, self._look_at_clock) if patience else None

    # -- from the event loop ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner.made()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard = self._loop.time()
        self.stream.receive(data)
        try:
            while (packet := self._next_packet()) is not None:
                self._owner.packet(packet)
        except BadPacket as error:
            self._owner.broken(error)

    def _next_packet(self) -> Packet | None:
        return None if self._closing else self.stream.next_packet()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if not self._closing:
            self._owner.writable()

    def connection_lost(self, _: Exception | None) -> None:
        self._closing = True
        self._forget()
        self._transport = None
        self._owner.lost()
        self.closed.set_result(None)

    def _write_due(self) -> None:
        self._flush = None
        due = self._take_due()
        if self._outgoing:
            self._flush = self._loop.call_at(self._outgoing[0][0], self._write_due)
        if self._transport is None or not due:
            return
        self._transport.write(b"".join(data for data, _ in due))
        for _, sent in due:
            if sent is not None:
                sent()
        if self._transport.get_write_buffer_size() > BACKLOG_MOST:
            self.abort()
        elif not self.full:
            self._owner.writable()

    def _take_due(self) -> list[tuple[bytes, Callable[[], None] | None]]:
        now = self._loop.time()
        due = []
        while self._outgoing and self._outgoing[0][0] <= now:
            _, data, sent = self._outgoing.popleft()
            self._unwritten -= len(data)
            due.append((data, sent))
        return due

    def _look_at_clock(self) -> None:
        if self._loop.time() - self._heard >= self._patience:
            text = f"nothing heard for {self._patience} s"
            self._owner.broken(BadPacket(Reason.KEEP_ALIVE_TIMEOUT, text))
        else:
            self.expect_within(self._patience)

    def _forget(self) -> None:
        for timer in (self._flush, self._alarm):
            if timer is not None:
                timer.cancel()
        self._flush = self._alarm = None
        self._outgoing.clear()
