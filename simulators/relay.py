"""A TCP relay that plays the way between a device and its broker: long, narrow, hung or cut.

    async with Relay("127.0.0.1", broker.port) as relay:
        relay.rtt = 0.05
        connect("127.0.0.1", relay.port)
        relay.cut()
        relay.restore()

It sits above TCP, so that a hung way still acknowledges segments: what notices it are keepalives, not the
kernel. By hand: `python -m simulators.relay --to 127.0.0.1:1883 --port 1884 --rtt 0.05`.
"""

import argparse
import asyncio
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, cast

from simulators.listener import Listener

IN_FLIGHT_MOST = 4 * 1024 * 1024
"""Bytes on their way in one direction; above it the sender is not read."""
SEGMENT = 1400
"""What a narrow way carries at once."""
RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Relay:
    """Knobs may be turned at any time."""

    to_host: str
    to_port: int
    host: str = "127.0.0.1"
    port: int = 0
    rtt: float = 0.0
    """Seconds there and back."""
    rate: float | None = None
    """Bytes per second in each direction of each connection."""
    cut_after: int | None = None
    """Cut the way once a connection has carried so many bytes towards the broker; then None again."""
    cut_back_after: int | None = None
    """The same of what comes back."""
    tap: Callable[[bool, bytes], None] | None = None
    """Sees what is carried: whether it comes back, and the bytes."""

    def __post_init__(self) -> None:
        self.accepted = 0
        """Connections so far, those that were turned away not counted."""
        self.carried = [0, 0]
        """Bytes that have reached the broker, and the device."""
        self.hung = False
        self.mute = False
        """What the broker says goes nowhere."""
        self._open = True
        self._ways: set[_Way] = set()
        self._listener = Listener(self._accept)

    async def __aenter__(self) -> Self:
        self.port = self._listener.open(self.host, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self._listener.close()
        self.cut()
        await asyncio.gather(*(way.over() for way in list(self._ways)))

    @property
    def connections(self) -> int:
        return len(self._ways)

    def hang(self) -> None:
        """Nothing moves any more, and nobody is told. Connecting still works."""
        self.hung = True

    def hush(self) -> None:
        """The device is still heard, and no answer comes back to it."""
        self.mute = True

    def resume(self) -> None:
        """What was held up moves on."""
        self.hung = self.mute = False
        for way in list(self._ways):
            way.move()

    def reset(self) -> None:
        """Break every connection; new ones are welcome."""
        for way in list(self._ways):
            way.reset()

    def cut(self) -> None:
        """Break every connection, and every new one at once."""
        self._open = False
        self.reset()

    def restore(self) -> None:
        """The way is open and moves."""
        self._open = True
        self.resume()

    # -- for its ways -----------------------------------------------------------------------------

    def _accept(self) -> "_End":
        way = _Way(self)
        return way.near

    def begun(self, way: "_Way") -> bool:
        """Whether this connection may be."""
        self._ways.add(way)
        if self._open:
            self.accepted += 1
        return self._open

    def ended(self, way: "_Way") -> None:
        self._ways.discard(way)

    def may_carry(self, back: bool, carried: int, more: int) -> int:
        """How many of so many more bytes a connection may still carry."""
        bound = self.cut_back_after if back else self.cut_after
        return more if bound is None else max(0, min(more, bound - carried))


class _Way:
    """One connection through the relay: its two ends."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.near, self.far = _End(self), _End(self)
        self.near.peer, self.far.peer = self.far, self.near
        self._reaching: asyncio.Task[None] | None = None
        self._reached = False
        self._carried = [0, 0]

    def begin(self) -> None:
        if self.relay.begun(self):
            self._reaching = asyncio.get_running_loop().create_task(self._reach(), name="relay")
        else:
            self._reached = True
            self.near.reset()

    async def _reach(self) -> None:
        relay = self.relay
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, relay.to_host, relay.to_port)
        except OSError:
            self.near.reset()
        if self.near.closed:
            self.far.reset()
        self._reached = True
        self.move()
        self.left()

    def move(self) -> None:
        self.near.move()
        self.far.move()

    def flows(self, sender: "_End") -> bool:
        return not (self.relay.hung or (self.relay.mute and sender is self.far))

    def carry(self, sender: "_End", data: bytes) -> bytes:
        """What of this reaches the other end."""
        relay, back = self.relay, sender is self.far
        allowed = relay.may_carry(back, self._carried[back], len(data))
        self._carried[back] += allowed
        relay.carried[back] += allowed
        if relay.tap is not None:
            relay.tap(back, data[:allowed])
        return data[:allowed]

    def cut(self) -> None:
        self.relay.cut_after = self.relay.cut_back_after = None
        self.relay.cut()

    def reset(self) -> None:
        self.near.reset()
        self.far.reset()

    def left(self) -> None:
        """An end has closed, or will never open."""
        if self._reached and self.near.closed and (self.far.closed or not self.far.opened):
            self.relay.ended(self)

    async def over(self) -> None:
        """Wait for both ends to close."""
        if self._reaching is not None:
            self._reaching.cancel()
            await asyncio.wait([self._reaching])
        for end in (self.near, self.far):
            if end.opened:
                await end.gone


class _End(asyncio.Protocol):
    """One end of a way; what it hears is delivered to its peer when it is due."""

    peer: "_End"

    def __init__(self, way: _Way) -> None:
        self.opened = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._way = way
        self._transport: asyncio.Transport | None = None
        self._moving: deque[tuple[float, bytes]] = deque()
        self._in_flight = 0
        self._free_at = 0.0
        self._full = False
        self._broken = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        return self.gone.done()

    def reset(self) -> None:
        if self._transport is not None:
            tcp = cast("socket.socket", self._transport.get_extra_info("socket"))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if data:
            self._transport.write(data)
        else:
            self._transport.close()

    def move(self) -> None:
        """Deliver what is due, and come back when the next is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        if self._broken and self._way.flows(self):
            self.peer.reset()
        while self._moving and self._way.flows(self) and self.peer.takes:
            due, data = self._moving[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.move)
                return
            self._moving.popleft()
            self._in_flight -= len(data)
            self._deliver(data)
        if self._transport is not None and self._in_flight < IN_FLIGHT_MOST:
            self._transport.resume_reading()

    @property
    def takes(self) -> bool:
        return self.opened and not self._full

    def _deliver(self, data: bytes) -> None:
        carried = self._way.carry(self, data)
        if carried or not data:
            self.peer.write(carried)
        if len(carried) < len(data):
            self._moving.clear()
            self._way.cut()

    # -- from the event loop ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.opened = True
        if self is self._way.near:
            self._way.begin()

    def data_received(self, data: bytes) -> None:
        relay, now = self._way.relay, asyncio.get_running_loop().time()
        for piece in _pieces(data, SEGMENT if relay.rate else len(data)):
            start = max(now, self._free_at)
            self._free_at = start + (len(piece) / relay.rate if relay.rate else 0.0)
            self._moving.append((self._free_at + relay.rtt / 2, piece))
        self._in_flight += len(data)
        if self._in_flight >= IN_FLIGHT_MOST and self._transport is not None:
            self._transport.pause_reading()
        self.move()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.peer.move()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.gone.set_result(None)
        if error is None:
            self._moving.append((asyncio.get_running_loop().time() + self._way.relay.rtt / 2, b""))
        self._broken = error is not None
        self.move()
        self._way.left()


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def serve(relay: Relay) -> None:
    """Run until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with relay:
        sys.stdout.write(f"listening on {relay.host}:{relay.port}\n")
        sys.stdout.flush()
        await stopped.wait()
    up, down = relay.carried
    sys.stdout.write(f"carried {up} bytes to {relay.to_host}:{relay.to_port}, {down} back\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulators.relay", description="A way that can be long or narrow.")
    parser.add_argument("--to", default="127.0.0.1:1883", metavar="HOST:PORT")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes one from the kernel")
    parser.add_argument("--rtt", type=float, default=0.0, help="seconds there and back")
    parser.add_argument("--rate", type=float, help="bytes per second")
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    asyncio.run(serve(Relay(host, int(port), given.host, given.port, given.rtt, given.rate)))


if __name__ == "__main__":
    main()
