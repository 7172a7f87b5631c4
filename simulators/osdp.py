"""An OSDP reader with a keypad: libosdp's own peripheral device behind a pseudo-terminal.

The protocol at this end is libosdp's as at the other: what is ours, and tried here, is the way between the
two. `present` holds a card before it, `press` types, `power` takes its power away and gives it back.
"""

import asyncio
from pathlib import Path
from typing import Any

from simulators.base import Faults, VirtualDevice

TURN_S = 0.01


class _Line:
    """What the library reads from and writes to."""

    def __init__(self, device: "OsdpReader") -> None:
        self.id = 0
        self.heard = bytearray()
        self._device = device

    def read(self, most: int) -> bytes:
        data = bytes(self.heard[:most])
        del self.heard[:most]
        return data

    def write(self, data: bytes) -> int:
        self._device.send(bytes(data))
        return len(data)

    def flush(self) -> None:
        self.heard.clear()


class OsdpReader(VirtualDevice):
    """One reader. Its turns are taken while the context lasts."""

    def __init__(self, name: Path, key: bytes, *, address: int = 1, faults: Faults | None = None) -> None:
        super().__init__(name, faults)
        import osdp_sys

        self._library: Any = osdp_sys
        self._line = _Line(self)
        self.beeps: list[tuple[int, int]] = []
        """How long each lasted, and how often it sounded."""
        self.obeyed = asyncio.Event()
        self.asked = asyncio.Event()
        """Set with whatever is heard; whoever waits for the next word clears it."""
        self._key, self._address = key, address
        self._turns: asyncio.Task[None] | None = None
        self._reader: Any = None

    def powered(self) -> None:
        self._line.heard.clear()
        about = {"version": 1, "model": 7, "vendor_code": 0xC0FFEE, "serial_number": 42}
        about["firmware_version"] = 0x010203
        facts = {"name": "reader", "address": self._address, "flags": self._library.FLAG_ENFORCE_SECURE}
        capabilities = [
            {"function_code": code, "compliance_level": 1, "num_items": 1}
            for code in (
                self._library.CAP_COMMUNICATION_SECURITY,
                self._library.CAP_READER_AUDIBLE_OUTPUT,
                self._library.CAP_CARD_DATA_FORMAT,
            )
        ]
        info = {**facts, **about, "scbk": self._key, "channel": self._line}
        self._reader = self._library.PeripheralDevice(info, capabilities=capabilities)
        self._reader.set_command_callback(self._obey)
        if self._turns is None:
            self._turns = asyncio.get_running_loop().create_task(self._live(), name="osdp reader")

    def unplug(self) -> None:
        super().unplug()
        if self._turns is not None:
            self._turns.cancel()
            self._turns = None
        self._reader = None

    def received(self, data: bytes) -> None:
        self._line.heard += data
        self.asked.set()

    def present(self, card: bytes) -> None:
        """Hold a card of so many bits before the reader."""
        event = {
            "event": self._library.EVENT_CARDREAD,
            "reader_no": 0,
            "format": self._library.CARD_FMT_RAW_WIEGAND,
            "direction": 0,
            "length": len(card) * 8,
            "data": card,
        }
        self._reader.submit_event(event)

    def press(self, keys: str) -> None:
        """Type on its keypad."""
        self._reader.submit_event(
            {"event": self._library.EVENT_KEYPRESS, "reader_no": 0, "data": keys.encode("ascii")}
        )

    async def _live(self) -> None:
        while True:
            self._reader.refresh()
            await asyncio.sleep(TURN_S)

    def _obey(self, command: dict[str, Any]) -> tuple[int, None]:
        if command["command"] == self._library.CMD_BUZZER:
            self.beeps.append((command["on_count"], command["rep_count"]))
            self.obeyed.set()
        return 0, None
