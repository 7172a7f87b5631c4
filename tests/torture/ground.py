"""What the agent's state stands on: an ext4 of its own, which can be full and can lose its power.

Where no file system can be mounted it is a plain folder, and neither can happen.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.powercut.cut import Cut, Kept, images
from tests.powercut.disk import SIZE, Disk, mkfs, mounted, read_log

ROOM = 16 * 1024
"""Bytes left when it is full: a few scans find room, and then none does."""


class Ground:
    """`state` is there while it is mounted."""

    def __init__(self, folder: Path, *, mountable: bool) -> None:
        self.state = folder / "state"
        self.mountable = mountable
        self._folder = folder
        self._image = folder / "state.img"
        self._ballast = self.state / "ballast"
        if mountable:
            self._image.touch()
            os.truncate(self._image, SIZE)
            mkfs(self._image)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        if not self.mountable:
            yield
            return
        with mounted(self._image, self.state):
            yield

    @contextmanager
    def recorded(self) -> Iterator[Disk]:
        """Mounted from a disk that remembers every write and flush. What it holds at the end is lost."""
        with Disk(self._folder) as disk:
            with self._image.open("rb") as image, disk.path.open("r+b") as drive:
                shutil.copyfileobj(image, drive, 128 * 1024)
                drive.flush()
                os.fsync(drive.fileno())
            with mounted(disk.path, self.state):
                yield disk

    def power_was_lost(self, disk: Disk, at: int, chance: Random) -> Cut:
        """Go on with what the medium had when the log was so long. To be called while the disk is served."""
        cut = Cut(at=at, kept=chance.choice(list(Kept)), seed=chance.randrange(2**32))
        (image,) = images(read_log(disk.log), [cut], SIZE)
        self._image.write_bytes(image.content)
        return cut

    def fill(self) -> None:
        """Take all the room there is."""
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            free = os.fstatvfs(file)
            os.posix_fallocate(file, 0, max(free.f_bavail * free.f_bsize - ROOM, 1))
        finally:
            os.close(file)

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)
