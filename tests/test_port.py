"""Ports on real pseudo-terminals and real sockets."""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_linux import SysFS

from drivers import port as ports
from drivers.port import Address, BadAddress, Port, PortGone, open_port
from simulators.base import VirtualDevice

TIOCGEXCL = 0x80045440


class Echo(VirtualDevice):
    """Keeps what it hears."""

    def __init__(self, name: Path) -> None:
        super().__init__(name)
        self.heard = bytearray()
        self.news = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.heard += data
        self.news.set()

    async def hears(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()
        return bytes(self.heard)


@asynccontextmanager
async def opened(where: Path | str, baud: int = 9600) -> AsyncIterator[Port]:
    port = await open_port(Address.parse(str(where)), baud=baud)
    try:
        yield port
    finally:
        port.close()


async def read_all(port: Port, count: int) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while len(data) < count:
            data += await port.read()
    return data


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/dev/ttyUSB0", Address("/dev/ttyUSB0", path="/dev/ttyUSB0")),
        ("usb:0403:6001", Address("usb:0403:6001", usb=(0x0403, 0x6001, None))),
        ("usb:0c2E:0b61:A:1", Address("usb:0c2E:0b61:A:1", usb=(0x0C2E, 0x0B61, "A:1"))),
        ("tcp:localhost:2947", Address("tcp:localhost:2947", tcp=("localhost", 2947))),
        ("tcp:[::1]:2947", Address("tcp:[::1]:2947", tcp=("::1", 2947))),
    ],
)
def test_an_address_is_a_path_usb_ids_or_a_host(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "ttyUSB0", "COM3", "usb:403:6001", "usb:0403", "tcp:host", "tcp:host:0", "tcp:host:65536", "tcp::1"],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress) as bad:
        Address.parse(text)
    assert str(bad.value) == (
        f"expected an absolute path, usb:VID:PID[:SERIAL] or tcp:HOST:PORT, got {text!r}"
    )


def test_a_path_is_found_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to(tmp_path / "link")
    assert Address.parse(f"{tmp_path}/by-id").find() is None
    (tmp_path / "link").symlink_to(tmp_path / "node")
    (tmp_path / "node").touch()
    assert Address.parse(f"{tmp_path}/by-id").find() == f"{tmp_path}/node"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("usb:0403:6001", "/dev/ttyUSB3"),
        ("usb:0403:6001:B2", "/dev/ttyUSB4"),
        ("usb:0403:6001:C3", None),
        ("usb:1546:01a8", "/dev/ttyACM0"),
        ("usb:1546:01a9", None),
    ],
)
def test_a_device_is_found_by_its_usb_ids_whatever_its_node_is_called(
    monkeypatch: pytest.MonkeyPatch, text: str, found: str | None
) -> None:
    def there(device: str, vid: int | None, pid: int | None, serial_number: str | None) -> SysFS:
        port = SysFS(device)
        port.vid, port.pid, port.serial_number = vid, pid, serial_number
        return port

    monkeypatch.setattr(
        list_ports,
        "comports",
        lambda: [
            there("/dev/ttyS0", None, None, None),
            there("/dev/ttyUSB3", 0x0403, 0x6001, "A1"),
            there("/dev/ttyUSB4", 0x0403, 0x6001, "B2"),
            there("/dev/ttyACM0", 0x1546, 0x01A8, None),
        ],
    )
    assert Address.parse(text).find() == found


# -- opening ----------------------------------------------------------------------------------------


async def test_an_open_port_reads_and_writes_every_byte_value(tmp_path: Path) -> None:
    every = bytes(range(256))
    with Echo(tmp_path / "device") as device:
        async with opened(device.name) as port:
            assert port.path == os.path.realpath(device.name)
            device.send(every)
            assert await read_all(port, 256) == every
            await port.write(every)
            assert await device.hears(256) == every


async def test_what_was_sent_before_opening_is_thrown_away(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        device.send(b"stale")
        async with opened(device.name) as port:
            device.send(b"fresh")
            assert await read_all(port, 5) == b"fresh"


async def test_a_port_is_opened_by_one_alone_and_free_again_once_closed(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name):
            before = descriptors()
            with pytest.raises(PortGone) as gone:
                await open_port(Address.parse(str(device.name)), baud=9600)
            assert gone.value.reason == "busy"
            assert descriptors() == before
        async with opened(device.name):
            pass


def exclusive(device: VirtualDevice) -> bool:
    return bool(struct.unpack("i", fcntl.ioctl(device._slave, TIOCGEXCL, b"\0" * 4))[0])


async def test_exclusive_use_is_given_back_though_others_hold_the_terminal(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name):
            assert exclusive(device)
        assert not exclusive(device)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere/at/all", "absent"),
        ("usb:ffff:ffff", "absent"),
        ("/dev/null", "unusable"),
        ("/etc", "unusable"),
        ("/etc/passwd", "unusable"),
    ],
)
async def test_what_cannot_be_opened_says_why_and_leaves_nothing(name: str, reason: str) -> None:
    before = descriptors()
    with pytest.raises(PortGone) as gone:
        await open_port(Address.parse(name), baud=9600)
    assert gone.value.reason == reason
    assert descriptors() == before


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "denied"),
        (errno.EPERM, "denied"),
        (errno.EBUSY, "busy"),
        (errno.EIO, "gone"),
        (errno.ENXIO, "gone"),
        (errno.ENOENT, "absent"),
    ],
)
async def test_every_error_of_opening_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if str(path).startswith("/dev/pts"):
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    with Echo(tmp_path / "device") as device:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(PortGone) as gone:
            await open_port(Address.parse(str(device.name)), baud=9600)
        assert gone.value.reason == reason


async def test_an_opening_that_fails_half_way_leaves_the_port_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.ioctl

    def refuse(fd: int, request: int, data: bytes = b"") -> bytes:
        if request == termios.TIOCEXCL:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, request, data)

    with Echo(tmp_path / "device") as device:
        before = descriptors()
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "ioctl", refuse)
            with pytest.raises(PortGone, match="gone"):
                await open_port(Address.parse(str(device.name)), baud=9600)
        assert descriptors() == before
        async with opened(device.name):
            pass


# -- losing it --------------------------------------------------------------------------------------


async def test_a_reader_learns_of_the_loss_at_once(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name) as port, asyncio.TaskGroup() as group:
            reading = group.create_task(gone_from(port.read()))
            asyncio.get_running_loop().call_soon(device.unplug)
        assert (await reading).reason == "gone"


async def gone_from(waiting: Awaitable[object]) -> PortGone:
    with pytest.raises(PortGone) as gone:
        await waiting
    return gone.value


async def test_what_arrived_before_the_loss_is_read_first(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name) as port:
            device.send(b"last words")
            assert port.pending() == b"last words"
            device.send(b"and more")
            data = await port.read()
            device.unplug()
            assert data == b"and more"
            with pytest.raises(PortGone):
                await port.read()
            assert port.pending() == b""
            with pytest.raises(PortGone):
                await port.write(b"anybody?")
            with pytest.raises(PortGone):
                port.set_baud(19200)


async def test_a_reading_that_is_given_up_loses_nothing(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name) as port:
            reading = asyncio.create_task(port.read())
            await asyncio.wait([reading], timeout=0)
            device.send(b"x")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await read_all(port, 1) == b"x"


async def test_a_closed_port_is_gone_and_can_be_closed_again(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        port = await open_port(Address.parse(str(device.name)), baud=9600)
        reading = asyncio.create_task(port.read())
        await asyncio.wait([reading], timeout=0)
        port.close()
        port.close()
        for attempt in (reading, port.read(), port.write(b"x")):
            with pytest.raises(PortGone, match="closed"):
                await attempt


# -- a device that takes nothing --------------------------------------------------------------------


class Full(VirtualDevice):
    """Never reads what it is sent, until it is told to."""

    def plug(self) -> None:
        super().plug()
        self.stall()

    def stall(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)

    def drain(self) -> None:
        asyncio.get_running_loop().add_reader(self._master, self._on_readable)


LOT = b"x" * 200_000


async def test_a_writer_waits_for_a_device_that_is_slow(tmp_path: Path) -> None:
    with Full(tmp_path / "device") as device:
        async with opened(device.name) as port:
            writing = asyncio.create_task(port.write(LOT))
            await asyncio.wait([writing], timeout=0)
            assert not writing.done()
            device.drain()
            async with asyncio.timeout(10):
                await writing


async def test_writers_take_turns(tmp_path: Path) -> None:
    class Keeping(Full):
        heard = b""

        def received(self, data: bytes) -> None:
            self.heard += data

    with Keeping(tmp_path / "device") as device:
        async with opened(device.name) as port:
            writing = [asyncio.create_task(port.write(letter * 100_000)) for letter in (b"a", b"b", b"c")]
            await asyncio.wait(writing, timeout=0)
            device.drain()
            async with asyncio.timeout(10):
                await asyncio.gather(*writing)
        assert "".join(dict.fromkeys(device.heard.decode())) == "abc"
        assert device.heard == b"".join(sorted(device.heard[n : n + 1] for n in range(len(device.heard))))


async def test_a_device_that_takes_nothing_for_too_long_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "WRITE_TIMEOUT", 0.01)
    with Full(tmp_path / "device") as device:
        async with opened(device.name) as port:
            with pytest.raises(PortGone, match="took no bytes"):
                await port.write(LOT)
            with pytest.raises(PortGone, match="took no bytes"):
                await port.read()


@pytest.mark.parametrize("how", ["unplug", "close"])
async def test_a_waiting_writer_learns_of_the_end_at_once(tmp_path: Path, how: str) -> None:
    with Full(tmp_path / "device") as device:
        async with opened(device.name) as port:
            writing = asyncio.create_task(port.write(LOT))
            await asyncio.wait([writing], timeout=0)
            if how == "unplug":
                device.unplug()
            else:
                port.close()
            async with asyncio.timeout(ports.WRITE_TIMEOUT / 2):
                assert (await gone_from(writing)).reason == "gone"


async def test_a_writing_that_is_given_up_leaves_the_port_usable(tmp_path: Path) -> None:
    with Full(tmp_path / "device") as device:
        async with opened(device.name) as port:
            writing = asyncio.create_task(port.write(LOT))
            await asyncio.wait([writing], timeout=0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            device.drain()
            async with asyncio.timeout(10):
                await port.write(LOT)


# -- a device that talks to nobody ------------------------------------------------------------------


async def test_what_nobody_reads_is_left_to_the_kernel(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name) as port:
            for _ in range(100):
                device.send(b"y" * 1000)
            for _ in range(100):
                await asyncio.sleep(0)
            assert isinstance(port, ports.DescriptorPort)
            assert len(port._arrived) <= 2 * ports.READ_SIZE
            assert device.unread() > 0
            assert await read_all(port, 100_000) == b"y" * 100_000


async def test_changing_the_speed_changes_it_and_drops_what_came_at_the_old_one(tmp_path: Path) -> None:
    with Echo(tmp_path / "device") as device:
        async with opened(device.name, baud=9600) as port:
            device.send(b"old")
            port.set_baud(57600)
            assert termios.tcgetattr(device._slave)[5] == termios.B57600
            device.send(b"new")
            assert await read_all(port, 3) == b"new"


# -- tcp --------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(
    host: str = "127.0.0.1",
) -> AsyncIterator[tuple[int, asyncio.Queue[asyncio.StreamWriter]]]:
    peers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.put_nowait(writer)

    server = await asyncio.start_server(met, host, 0)
    try:
        yield server.sockets[0].getsockname()[1], peers
    finally:
        server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_peer_is_read_and_written_and_its_end_is_the_loss(host: str) -> None:
    # The daemon listens on IPv4 alone, as gpsd does, and `localhost` may be IPv6 first.
    async with listening() as (number, peers), opened(f"tcp:{host}:{number}") as port:
        assert port.path == f"{host}:{number}"
        peer = await peers.get()
        peer.write(b"hello")
        assert await read_all(port, 5) == b"hello"
        await port.write(b"WATCH")
        port.set_baud(9600)
        peer.close()
        await peer.wait_closed()
        with pytest.raises(PortGone) as gone:
            await port.read()
        assert gone.value.reason == "gone"


@pytest.mark.parametrize("where", ["tcp:127.0.0.1:{}", "tcp:a..b:{}", f"tcp:{'x' * 70}.invalid:{{}}"])
async def test_a_peer_that_is_not_there_is_absent(where: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        before = descriptors()
        with pytest.raises(PortGone) as gone:
            await open_port(Address.parse(where.format(held.getsockname()[1])), baud=9600)
        assert gone.value.reason == "absent"
        assert descriptors() == before


async def test_a_silent_peer_is_asked_whether_it_is_still_there() -> None:
    async with listening() as (number, peers), opened(f"tcp:127.0.0.1:{number}") as port:
        peer = await peers.get()
        assert isinstance(port, ports.DescriptorPort)
        pipe = port._pipe
        assert pipe is not None
        assert pipe.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert pipe.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
        peer.close()
        await peer.wait_closed()
