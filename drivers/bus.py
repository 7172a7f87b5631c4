"""An RS-485 bus as its one owner sees it: half-duplex, and perhaps heard by ourselves.

Many adapters hear their own driver, so that every question comes back before its answer. Most protocols can
tell the two apart. In the 8A family the answer "still closed" is the command byte for byte, and Modbus
answers a write with its copy: there an echo passes for a board that does not exist. So it is found out with
a status question, whose answer never equals it, and from then on every echo is taken off the line.
"""

from drivers.base import Link

LEADING = 4
"""Bytes of noise that may come before an echo: the turn of the line is often heard as a 00 or FF."""


class QuietLink:
    """A link without the echo of what is written. Has all of `Link`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.echoes: bool | None = None
        """Whether the adapter hears itself; None until `judge`, and echoes are dropped until then."""
        self._heard = 0
        self._due = b""
        """Written last, and not heard again yet."""
        self._held = bytearray()
        """The beginning of `_due`, or of something that only looks like it."""
        self._before = 0

    @property
    def path(self) -> str:
        return self._link.path

    def judge(self) -> None:
        """To be called once a status question was answered: now it is clear whether there is an echo."""
        self.echoes = self._heard > 0

    async def read(self) -> bytes:
        while True:
            if data := self._without_echo(await self._link.read()):
                return data

    async def write(self, data: bytes) -> None:
        if self.echoes is not False:
            self._due = data
            self._before = 0
            self._held.clear()
        await self._link.write(data)

    def pending(self) -> bytes:
        return self._without_echo(self._link.pending())

    def set_baud(self, baud: int) -> None:
        self._forget()
        self._link.set_baud(baud)

    def _without_echo(self, data: bytes) -> bytes:
        passed = bytearray()
        for at, byte in enumerate(data):
            if not self._due:
                return bytes(passed) + data[at:]
            self._held.append(byte)
            while not self._due.startswith(bytes(self._held)):
                passed.append(self._held.pop(0))
                self._before += 1
            if self._before > LEADING:
                # No echo: an answer that begins like its question, or unlike it.
                passed += self._held
                self._forget()
            elif self._held == self._due:
                self._heard += 1
                self._forget()
        return bytes(passed)

    def _forget(self) -> None:
        self._due = b""
        self._held.clear()
