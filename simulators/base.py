"""What every virtual device stands on: a pseudo-terminal under a stable name, and faults on its line.

The agent opens the name like any tty and cannot tell the difference. `unplug` makes every reader see the
hang-up and the node vanish; `plug` brings the device back, usually under another pts number, at the same
stable name, which is what `/dev/serial/by-id` does for real ones.

A device subclass gets every byte the host writes in `received` and answers with `send`, through whatever
faults its line has at that moment. Nothing in this package imports the agent or its drivers: devices are
written from their manuals.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import random
import termios
import tty
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

CHUNK = 65536


@dataclass
class Faults:
    """What is wrong with the line from the device to the host. All off by default; change at any time."""

    mute: bool = False
    """The device hears, and acts, and says nothing."""
    deaf: bool = False
    """Nothing the host says reaches the device."""
    delay: float = 0.0
    """Seconds before each answer leaves."""
    byte_gap: float = 0.0
    """Seconds between single bytes; 0 sends whole writes, a negative number single bytes without a gap."""
    flip_next: int = 0
    """So many of the next writes have one bit flipped."""
    halve_next: int = 0
    """So many of the next writes stop half way."""
    drop_next: int = 0
    """So many of the next writes never leave."""
    twice_next: int = 0
    """So many of the next writes leave twice."""
    garbage: bytes = b""
    """Sent before every write."""
    echo: bool = False
    """The host hears its own bytes first, as on a badly wired RS-485 adapter."""
    seed: int = 1
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def spoil(self, data: bytes) -> bytes:
        """What leaves the device when it sends `data`."""
        if self.mute:
            return b""
        if self.drop_next:
            self.drop_next -= 1
            return b""
        if self.flip_next:
            self.flip_next -= 1
            bit = self._random.randrange(len(data) * 8)
            spoilt = bytearray(data)
            spoilt[bit // 8] ^= 1 << bit % 8
            data = bytes(spoilt)
        if self.halve_next:
            self.halve_next -= 1
            data = data[: len(data) // 2]
        if self.twice_next:
            self.twice_next -= 1
            data += data
        return self.garbage + data


class VirtualDevice:
    """One device on one pseudo-terminal, living on the running event loop."""

    def __init__(self, name: Path, faults: Faults | None = None) -> None:
        self.name = name
        self.faults = faults or Faults()
        self._master = self._slave = -1
        self._outgoing = bytearray()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None

    # -- to be written from the manual ------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the host."""

    def powered(self) -> None:
        """The device has just been plugged in."""

    # -- the plug ---------------------------------------------------------------------------------

    @property
    def plugged(self) -> bool:
        return self._master >= 0

    def plug(self) -> None:
        """Appear at the stable name."""
        if self.plugged:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        fresh = self.name.with_name(self.name.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self.name)
        self._outgoing.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._master, self._on_readable)
        self._pump = loop.create_task(self._drain_queue(), name=f"line of {self.name.name}")
        self.powered()

    def unplug(self) -> None:
        """Vanish: readers see the hang-up at once, and the name is gone."""
        if not self.plugged:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._queue = asyncio.Queue()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1
        with contextlib.suppress(FileNotFoundError):
            self.name.unlink()

    def __enter__(self) -> Self:
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    # -- the line ---------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Say something to the host, faults applied. Without a plug it is lost, as on a real cable."""
        if not self.plugged or not data:
            return
        spoilt = self.faults.spoil(data)
        if not spoilt:
            return
        if self.faults.delay or self.faults.byte_gap or not self._queue.empty():
            self._queue.put_nowait(spoilt)
        else:
            self._write(spoilt)

    def unread(self) -> int:
        """Bytes the host has not read yet."""
        count = array.array("i", [0])
        fcntl.ioctl(self._slave, termios.FIONREAD, count)
        return count[0] + len(self._outgoing)

    async def _drain_queue(self) -> None:
        queue = self._queue
        while True:
            data = await queue.get()
            await asyncio.sleep(self.faults.delay)
            if not self.faults.byte_gap:
                self._write(data)
                continue
            for byte in data:
                self._write(bytes([byte]))
                await asyncio.sleep(max(0.0, self.faults.byte_gap))

    def _write(self, data: bytes) -> None:
        self._outgoing += data
        self._on_writable()

    def _on_writable(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._outgoing:
                del self._outgoing[: os.write(self._master, self._outgoing[:CHUNK])]
            loop.remove_writer(self._master)
        except BlockingIOError:
            loop.add_writer(self._master, self._on_writable)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._master, CHUNK)
        except (BlockingIOError, OSError):
            return
        if self.faults.echo:
            self._write(data)
        if not self.faults.deaf:
            self.received(data)
