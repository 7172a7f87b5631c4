"""A disk whose every write and every flush is written down: one file, served to the kernel through FUSE.

    with Disk(tmp_path) as disk:
        mkfs(disk.path)
        with mounted(disk.path, folder):
            ...
            before = disk.position

The file is put under a loop device like any image. The log is the order in which things reached the drive,
and its length is a clock: whatever a program did when the log was so long came after everything in it, and
before everything behind it. A write is in the log before the kernel hears that the drive has taken it, a
flush before the kernel hears that it is done.

`fuse.py` is the process that serves.
"""

import contextlib
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.debian import SBIN

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1024 * 1024
SIZE = 24 * MIB
BLOCK = 4096
SERVED = b"served"
SERVED_WITHIN = 10.0
UMOUNT_WITHIN = 10.0
PATHS = os.environ.get("PATH", os.defpath) + SBIN


class DiskFailed(Exception):
    """The disk could not be served, made or mounted; the message is what the program said."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that the drive has taken."""

    at: int
    """Length of the log once it was written down."""
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before it is on the medium."""

    at: int


Log = list[Write | Flush]

RECORD = struct.Struct("<BQI")
FLUSH, WRITE = 0, 1


def read_log(path: Path) -> Log:
    """What reached the drive, oldest first."""
    raw, at = path.read_bytes(), 0
    log: Log = []
    while at < len(raw):
        kind, offset, length = RECORD.unpack_from(raw, at)
        at += RECORD.size + length
        log.append(Flush(at) if kind == FLUSH else Write(at, offset, raw[at - length : at]))
    return log


def missing(folder: Path) -> str:
    """Why no power can be cut here, or nothing. Tries it on a disk in `folder`."""
    if os.geteuid() != 0:
        return "power cuts need root, to mount what is left"
    for program in ("mkfs.ext4", "e2fsck", "mount", "strace"):
        if not shutil.which(program, path=PATHS):
            return f"power cuts need {program}"
    try:
        with Disk(folder) as disk:
            mkfs(disk.path)
            with mounted(disk.path, folder / "probe"):
                return ""
    except DiskFailed as why:
        return f"power cuts need FUSE and loop devices: {why}"


class Disk:
    """Serves from a process of its own: whoever uses a disk must not have to serve it at the same time."""

    def __init__(self, folder: Path, *, size: int = SIZE, sync: float = 0.0) -> None:
        """Each flush takes `sync` seconds, as on a card."""
        self.path = folder.resolve() / "disk"
        self.log = folder.resolve() / "disk.log"
        self._options = [str(self.path), str(self.log), f"--size={size}", f"--sync={sync}"]

    @property
    def position(self) -> int:
        """Length of the log."""
        return self.log.stat().st_size

    def __enter__(self) -> Self:
        self.path.touch()
        self.log.touch()
        # A session of its own: Ctrl-C is for whoever has to unmount, and that needs a disk.
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.powercut.fuse", *self._options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._server.stdout is not None
        said = b"nothing"
        if select.select([self._server.stdout], [], [], SERVED_WITHIN)[0]:
            said = self._server.stdout.readline().strip()
        if said == SERVED:
            return self
        self.__exit__()
        raise DiskFailed(f"expected {SERVED.decode()!r}, got {said.decode()!r}")

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(SERVED_WITHIN)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server.stdout.close()
        subprocess.run(["umount", self.path], env={"PATH": PATHS}, capture_output=True, check=False)
        self.path.unlink()
        self.log.unlink()


def mkfs(disk: Path) -> None:
    """An ext4 with nothing left to be done in the background."""
    finished = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", finished, str(disk))


@contextlib.contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[None]:
    """As an image on a loop device, which goes with the mount. An ext4 replays its journal here."""
    folder.mkdir(exist_ok=True)
    try:
        run("mount", "-o", "loop,noatime", str(disk), str(folder))
        yield
    finally:
        if folder.is_mount():
            _unmount(folder)


def _unmount(folder: Path) -> None:
    """A process that was just killed may hold a file a moment longer."""
    deadline = time.monotonic() + UMOUNT_WITHIN
    while True:
        try:
            return run("umount", str(folder))
        except DiskFailed:
            if time.monotonic() > deadline:
                run("umount", "--lazy", str(folder))
                raise
            time.sleep(0.05)


def run(*argv: str) -> None:
    """Raises DiskFailed."""
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": PATHS}
    # A session of its own: half a mount is nothing that Ctrl-C should leave.
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        raise DiskFailed(f"`{' '.join(argv)}` failed with {done.returncode}: {done.stderr.strip()}")
