"""A 125 kHz badge reader: it says the badge's number about every 50 ms while one is there.

with Em4100Reader(Path("badge"), layout="rdm6300") as reader:
    reader.present("010063E9AE")
"""

import asyncio
from pathlib import Path
from typing import Literal

from simulators.base import Faults, VirtualDevice

Layout = Literal["rdm6300", "id12", "binary"]

REPEAT = 0.05


def frame(number: bytes, layout: Layout, *, lower_case: bool = False) -> bytes:
    """What the reader says for the five bytes of a badge."""
    if layout == "binary":
        body = bytes([10, 2]) + number
        return b"\x02" + body + bytes([_checksum(body)]) + b"\x03"
    digits = (number + bytes([_checksum(number)])).hex()
    tail = b"\x03" if layout == "rdm6300" else b"\r\n\x03"
    return b"\x02" + (digits if lower_case else digits.upper()).encode() + tail


def _checksum(data: bytes) -> int:
    checksum = 0
    for byte in data:
        checksum ^= byte
    return checksum


class Em4100Reader(VirtualDevice):
    """Sees one badge at a time, as the antenna of a real one does."""

    def __init__(
        self,
        name: Path,
        faults: Faults | None = None,
        *,
        layout: Layout = "rdm6300",
        lower_case: bool = False,
    ) -> None:
        super().__init__(name, faults)
        self.layout: Layout = layout
        self.lower_case = lower_case
        self.said = 0
        """How often the badge now there has been reported."""
        self._badge: bytes | None = None
        self._next: asyncio.TimerHandle | None = None

    def present(self, uid_hex: str) -> None:
        """Hold a badge to the antenna, in place of the one that was there."""
        number = bytes.fromhex(uid_hex)
        if len(number) != 5:
            raise ValueError(f"expected 10 hex digits, got {uid_hex!r}")
        self.remove()
        self._badge = number
        self.said = 0
        self.powered()

    def remove(self) -> None:
        """Take the badge away."""
        self._badge = None
        self._fall_silent()

    def powered(self) -> None:
        if self._badge is not None and self.plugged:
            self.send(frame(self._badge, self.layout, lower_case=self.lower_case))
            self.said += 1
            self._next = asyncio.get_running_loop().call_later(REPEAT, self.powered)

    def unplug(self) -> None:
        self._fall_silent()
        super().unplug()

    def _fall_silent(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
