"""A serial barcode scanner in plain text mode, with the command sets of Honeywell and Datalogic.

Bytes as in the manuals. Honeywell: SYN T CR and SYN U CR are the trigger; in Host ACK mode ESC 7 is the
good tone, ESC 8 the error tone, ESC a a double beep, a comma ends the string. Datalogic: E and D enable
and disable, 01 and 07 force a good-read beep, B beeps only where beeping is on, F is "not on file" and on
some models stops the reading until the next E.
"""

import asyncio
from pathlib import Path

from simulators.base import Faults, VirtualDevice

HONEYWELL = {
    b"\x16T\r": "trigger on",
    b"\x16U\r": "trigger off",
    b"\x1b7,": "good",
    b"\x1b6,": "good",
    b"\x1b8,": "bad",
    b"\x1bb,": "bad",
    b"\x1ba,": "ask",
}
DATALOGIC = {
    b"E": "enable",
    b"D": "disable",
    b"\x01": "good",
    b"\x07": "good",
    b"B": "good",
    b"F": "not on file",
}
LANGUAGES: dict[str, dict[bytes, str]] = {"none": {}, "honeywell": HONEYWELL, "datalogic": DATALOGIC}


class LineScanner(VirtualDevice):
    """Scans what it is shown, counts the tones it was asked for, and obeys one language of commands."""

    def __init__(
        self,
        name: Path,
        faults: Faults | None = None,
        *,
        prefix: bytes = b"",
        suffix: bytes = b"\r",
        speaks: str = "none",
    ) -> None:
        super().__init__(name, faults)
        self.prefix = prefix
        self.suffix = suffix
        self.tones: list[str] = []
        """`good`, `bad` or `ask`, oldest first."""
        self.triggered = False
        self.enabled = True
        self.misheard = bytearray()
        """Bytes from the host that are no command."""
        self.obeyed = asyncio.Event()
        """Set whenever a command was carried out; whoever waits for the next one clears it."""
        self._commands = LANGUAGES[speaks]
        self._heard = bytearray()

    def scan(self, label: str | bytes, aim: str | None = None) -> bool:
        """Read one label, with AIM identifiers switched on if one is given. Whether it was read."""
        if not self.enabled:
            return False
        data = label.encode() if isinstance(label, str) else label
        self.send(self.prefix + (aim or "").encode() + data + self.suffix)
        self.triggered = False
        return True

    def powered(self) -> None:
        self.enabled = True
        self.triggered = False
        self._heard.clear()

    def received(self, data: bytes) -> None:
        self._heard += data
        while self._heard:
            command = next((c for c in self._commands if self._heard.startswith(c)), None)
            if command is not None:
                del self._heard[: len(command)]
                self._obey(self._commands[command])
                self.obeyed.set()
            elif any(c.startswith(self._heard) for c in self._commands):
                return
            else:
                self.misheard.append(self._heard.pop(0))

    def _obey(self, order: str) -> None:
        match order:
            case "trigger on" | "trigger off":
                self.triggered = order == "trigger on"
            case "enable" | "disable":
                self.enabled = order == "enable"
            case "not on file":
                self.tones.append("bad")
                self.enabled = False
            case tone:
                self.tones.append(tone)
