"""A null modem between two ports of this machine: what goes in at one end comes out at the other.

with Cable(Path("van-line"), Path("locker-line")) as cable:
    cable.far.faults.flip_next = 1        # on its way to whoever has the far end open
"""

from pathlib import Path
from typing import Self

from simulators.base import Faults, VirtualDevice


class End(VirtualDevice):
    """One plug of the cable."""

    def __init__(self, name: Path, faults: Faults | None = None) -> None:
        super().__init__(name, faults)
        self.other: End | None = None
        self.carried = 0
        """Bytes that came in here."""

    def received(self, data: bytes) -> None:
        self.carried += len(data)
        if self.other is not None:
            self.other.send(data)


class Cable:
    """Two ends."""

    def __init__(self, near: Path, far: Path) -> None:
        self.near, self.far = End(near), End(far)
        self.near.other, self.far.other = self.far, self.near

    def __enter__(self) -> Self:
        self.near.plug()
        self.far.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.near.unplug()
        self.far.unplug()
