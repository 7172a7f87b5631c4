"""The process that serves a recorded disk. It ends with the mount, or with its parent.

The kernel is spoken to directly (`linux/fuse.h`, protocol 7.31), so that nothing needs to be installed. The
root of the mount is no folder but the disk itself, and one request is answered before the next is read.
"""

import argparse
import contextlib
import ctypes
import errno
import os
import select
import struct
import sys
import time
from enum import IntEnum

from tests.powercut.disk import BLOCK, FLUSH, RECORD, SERVED, WRITE, DiskFailed


class _Ask(IntEnum):
    """What the kernel asks; everything else it is told that we do not know."""

    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FSYNC = 20
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38


_IN = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # length, error, unique
_IO_IN = struct.Struct("<QQIIQII")  # handle, offset, size, flags, owner, flags, padding
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTR_OUT = struct.Struct("<QII6Q10I")
_OPEN_OUT = struct.Struct("<QII")
_WRITE_OUT = struct.Struct("<II")

_PROTOCOL = (7, 31)
_BIG_WRITES = 1 << 5
_MAX_WRITE = 128 * 1024
_FOR_EVER = 2**31
_MODE = 0o100600


class _Served:
    """The one file there is: the root of its mount is no folder but the disk itself."""

    def __init__(self, size: int, log: int, sync: float) -> None:
        self._content = bytearray(size)
        self._log = log
        self._sync = sync

    def answer(self, opcode: int, body: bytes) -> bytes | int | None:
        """What to tell the kernel: a result, an error number, or nothing at all."""
        match opcode:
            case _Ask.INIT:
                limits = (0, _BIG_WRITES, 0, 0, _MAX_WRITE, 1, 0, 0, 0, 0)
                return _INIT_OUT.pack(*_PROTOCOL, *limits)
            case _Ask.GETATTR | _Ask.SETATTR:
                return self._attributes()
            case _Ask.OPEN:
                return _OPEN_OUT.pack(0, 0, 0)
            case _Ask.READ:
                _, offset, size, *_ = _IO_IN.unpack_from(body)
                return bytes(self._content[offset : offset + size])
            case _Ask.WRITE:
                _, offset, size, *_ = _IO_IN.unpack_from(body)
                return self._write(offset, body[_IO_IN.size : _IO_IN.size + size])
            case _Ask.FSYNC:
                time.sleep(self._sync)
                os.write(self._log, RECORD.pack(FLUSH, 0, 0))
                return b""
            case _Ask.RELEASE | _Ask.DESTROY:
                return b""
            case _Ask.FORGET | _Ask.INTERRUPT:
                return None
        return errno.ENOSYS

    def _write(self, offset: int, data: bytes) -> bytes | int:
        if offset + len(data) > len(self._content):
            return errno.ENOSPC
        self._content[offset : offset + len(data)] = data
        record = RECORD.pack(WRITE, offset, len(data)) + data
        if os.write(self._log, record) != len(record):
            raise DiskFailed("no room for the log")
        return _WRITE_OUT.pack(len(data), 0)

    def _attributes(self) -> bytes:
        size = len(self._content)
        never = (0,) * 6
        return _ATTR_OUT.pack(_FOR_EVER, 0, 0, 1, size, size // 512, *never, _MODE, 1, 0, 0, 0, BLOCK, 0)


def _serve(fuse: int, served: _Served) -> None:
    """Until the mount is gone or the parent has let go."""
    poll = select.poll()
    poll.register(fuse, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if fuse not in ready:
            return
        try:
            request = os.read(fuse, _MAX_WRITE + BLOCK)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # Whoever asked has gone.
                continue
            raise
        _, opcode, unique, *_ = _IN.unpack_from(request)
        answer = served.answer(opcode, request[_IN.size :])
        if answer is None:
            continue
        error_number, result = (-answer, b"") if isinstance(answer, int) else (0, answer)
        with contextlib.suppress(FileNotFoundError):  # It no longer waits for this answer.
            os.write(fuse, _OUT.pack(_OUT.size + len(result), error_number, unique) + result)


def _mount(fuse: int, at: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode={_MODE:o},user_id=0,group_id=0"
    if libc.mount(b"postern-disk", at.encode(), b"fuse", 0, options.encode()):
        number = ctypes.get_errno()
        raise DiskFailed(f"mount of FUSE at {at}: {os.strerror(number)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut.fuse")
    parser.add_argument("path")
    parser.add_argument("log")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--sync", type=float, required=True)
    asked = parser.parse_args()
    try:
        log = os.open(asked.log, os.O_WRONLY | os.O_APPEND)
        fuse = os.open("/dev/fuse", os.O_RDWR)
        _mount(fuse, asked.path)
    except (OSError, DiskFailed) as why:
        sys.exit(sys.stdout.write(f"{why}\n"))
    sys.stdout.write(f"{SERVED.decode()}\n")
    sys.stdout.flush()
    _serve(fuse, _Served(asked.size, log, asked.sync))


if __name__ == "__main__":
    main()
