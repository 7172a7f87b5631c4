"""Byte pipes to devices: a tty through pyserial, or TCP, both on the running event loop.

A port is opened exclusively (`flock` and `TIOCEXCL`), its descriptor watched by the loop, and its loss is
noticed at once: end of file, EIO and ENODEV all become `PortGone`. What is sent to us before we opened is
thrown away once, at opening. Nothing here knows what the bytes mean.

Addresses, as the config file gives them:

- `/dev/serial/by-id/...` or any other path; links are followed anew at every opening;
- `usb:VID:PID` or `usb:VID:PID:SERIAL`, hexadecimal ids, wherever the node appears;
- `tcp:HOST:PORT`.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import termios
from dataclasses import dataclass
from typing import Protocol, Self

import serial
from serial.tools import list_ports

READ_SIZE = 4096
WRITE_TIMEOUT = 5.0
"""Seconds a device may refuse to take bytes before it counts as gone."""
CONNECT_TIMEOUT = 5.0
_KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A silent peer is gone after 25 s; the system's own patience is two hours."""

_UNUSABLE = {errno.ENOTTY, errno.EINVAL}
_BUSY = {errno.EBUSY, errno.EWOULDBLOCK, errno.EAGAIN}


class PortGone(Exception):
    """The device is not there, or not ours to open. `reason` is one of the words of `DeviceLost`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class BadAddress(ValueError):
    """Not one of the forms a port address may take."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device is to be found, whatever name its node has today."""

    text: str
    path: str | None = None
    usb: tuple[int, int, str | None] | None = None
    tcp: tuple[str, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadAddress with what was expected and what was found."""
        if text.startswith("/"):
            return cls(text, path=text)
        if match := re.fullmatch(r"usb:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?", text):
            return cls(text, usb=(int(match[1], 16), int(match[2], 16), match[3]))
        if (match := re.fullmatch(r"tcp:(.+):([0-9]{1,5})", text)) and 0 < int(match[2]) < 65536:
            return cls(text, tcp=(match[1].strip("[]"), int(match[2])))
        raise BadAddress(
            f"expected an absolute path, usb:VID:PID[:SERIAL] or tcp:HOST:PORT, got {text!r}",
        )

    def find(self) -> str | None:
        """The path of the node as it is now, links followed; None while there is none."""
        if self.usb is not None:
            return _find_usb(*self.usb)
        if self.path is not None and os.path.exists(self.path):
            return os.path.realpath(self.path)
        return None


def _find_usb(vid: int, pid: int, serial_number: str | None) -> str | None:
    for port in list_ports.comports():
        if (port.vid, port.pid) == (vid, pid) and serial_number in (None, port.serial_number):
            return str(port.device)
    return None


class Port(Protocol):
    """An open byte pipe. The methods of `drivers.base.Link`, and `close`."""

    @property
    def path(self) -> str: ...

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    def pending(self) -> bytes: ...

    def set_baud(self, baud: int) -> None: ...

    def close(self) -> None: ...


async def open_port(address: Address, *, baud: int) -> Port:
    """Open exclusively and throw away what was sent before. Raises PortGone with a reason."""
    if address.tcp is not None:
        return await _open_tcp(*address.tcp)
    path = await find(address)
    if path is None:
        raise PortGone("absent", address.text)
    return DescriptorPort(path, tty=_open_tty(path, baud))


async def find(address: Address) -> str | None:
    """`Address.find` for the event loop: looking for a device by its USB ids walks all of sysfs."""
    if address.usb is None:
        return address.find()
    return await asyncio.get_running_loop().run_in_executor(None, address.find)


def _open_tty(path: str, baud: int) -> serial.Serial:
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise PortGone("unusable", f"{path} is not a character device")
        # With VMIN 0, pyserial's own choice, an empty line and a hang-up would read the same: nothing.
        tty = serial.Serial(
            path, baudrate=baud, timeout=0, write_timeout=0, exclusive=True, inter_byte_timeout=0
        )
        try:
            fcntl.ioctl(tty.fileno(), termios.TIOCEXCL)
            tty.reset_input_buffer()
        except BaseException:
            tty.close()
            raise
    except (OSError, termios.error) as error:
        raise PortGone(_reason(error), f"{path}: {error}") from error
    except ValueError as error:
        raise PortGone("unusable", f"{path}: {error}") from error
    return tty


def _reason(error: BaseException) -> str:
    number = _errno(error)
    if number in _BUSY:
        return "busy"
    if number in (errno.EACCES, errno.EPERM):
        return "denied"
    if number in _UNUSABLE:
        return "unusable"
    return "absent" if number == errno.ENOENT else "gone"


def _errno(error: BaseException) -> int | None:
    """The number of the first error in the chain that has one: pyserial hides those of termios."""
    number = error.args[0] if isinstance(error, termios.error) else getattr(error, "errno", None)
    if number is None and error.__context__ is not None:
        return _errno(error.__context__)
    return number


async def _open_tcp(host: str, port: int) -> "DescriptorPort":
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            pipe = await _connect(host, port)
    except (OSError, UnicodeError, TimeoutError) as error:
        # UnicodeError: a name that no resolver could be asked for.
        raise PortGone("absent", f"{host}:{port}: {str(error) or 'timed out'}") from error
    return DescriptorPort(f"{host}:{port}", pipe=pipe)


async def _connect(host: str, port: int) -> socket.socket:
    """To the first address that answers: `localhost` is two, and most daemons listen on one."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, where in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        pipe = socket.socket(family, kind, protocol)
        try:
            pipe.setblocking(False)
            pipe.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                pipe.setsockopt(socket.IPPROTO_TCP, option, value)
            await loop.sock_connect(pipe, where)
        except OSError as error:
            pipe.close()
            failure = error
        except BaseException:
            pipe.close()
            raise
        else:
            return pipe
    raise failure or OSError(errno.ENOENT, "no address")


class DescriptorPort:
    """A non-blocking descriptor on the loop."""

    def __init__(
        self, path: str, *, tty: serial.Serial | None = None, pipe: socket.socket | None = None
    ) -> None:
        self.path = path
        self._tty = tty
        self._pipe = pipe
        held = tty or pipe
        assert held is not None
        self._fd = held.fileno()
        self._loop = asyncio.get_running_loop()
        self._arrived = bytearray()
        self._gone: PortGone | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._writing = asyncio.Lock()
        self._loop.add_reader(self._fd, self._on_readable)

    async def read(self) -> bytes:
        """At least one byte. Raises PortGone only when everything that arrived has been read."""
        while not self._arrived:
            if self._gone:
                raise self._gone
            self._loop.add_reader(self._fd, self._on_readable)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.pending()

    def pending(self) -> bytes:
        if not self._arrived and self._gone is None:
            self._on_readable()
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        async with self._writing:
            while left:
                if self._gone:
                    raise self._gone
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    self._lose(error)

    def set_baud(self, baud: int) -> None:
        if self._gone:
            raise self._gone
        if self._tty is None:
            return
        try:
            self._tty.baudrate = baud
            self._tty.reset_input_buffer()
        except (OSError, termios.error, ValueError) as error:
            reason = "unusable" if isinstance(error, ValueError) else _reason(error)
            raise PortGone(reason, f"{self.path} at {baud} baud: {error}") from error
        self._arrived.clear()

    def close(self) -> None:
        if self._tty is None and self._pipe is None:
            return
        lost = self._gone is not None
        self._lose(OSError(errno.EBADF, "closed"))
        if self._tty is not None:
            # A device that is gone cannot be closed politely, and need not be.
            with contextlib.suppress(OSError, termios.error):
                fcntl.ioctl(self._fd, termios.TIOCNXCL)
                if lost:
                    # Closing waits up to half a minute for a device to take what it was sent.
                    self._tty.reset_output_buffer()
            with contextlib.suppress(OSError):
                self._tty.close()
        if self._pipe is not None:
            self._pipe.close()
        self._tty = self._pipe = None

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            self._lose(OSError(errno.EIO, "end of file"))
            return
        self._arrived += data
        if self._reader is None and len(self._arrived) >= READ_SIZE:
            # Nobody reads: leave the rest in the kernel, where flow control can see it.
            self._loop.remove_reader(self._fd)
        self._wake()

    def _lose(self, error: OSError) -> None:
        if self._gone is not None:
            return
        self._gone = PortGone("gone", f"{self.path}: {error.strerror or error}")
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self._gone is not None:
            self._on_writable()

    async def _writable(self) -> None:
        self._writer = self._loop.create_future()
        self._loop.add_writer(self._fd, self._on_writable)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._writer
        except TimeoutError:
            self._lose(OSError(errno.EIO, f"took no bytes for {WRITE_TIMEOUT:g} s"))
        finally:
            self._writer = None
            if self._gone is None:
                self._loop.remove_writer(self._fd)

    def _on_writable(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
