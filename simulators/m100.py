"""A UHF reader module that speaks `BB TYPE COMMAND PLh PLl <PL bytes> SUM 7E`, with tags to hold to it.

    with M100Reader(Path("portal")) as reader:
        reader.present("30751FEB705C5904E3D50D70", rssi=-55)

It does what the manual of the YRM100 says: hardware version (03 00), single inventory (22), polling (27)
until its rounds are over or it is stopped (28), transmit power (B6). A question it does not know is
answered with error 17. Power is forgotten in sleep and without supply.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from simulators.base import Faults, VirtualDevice

ROUND = 0.02
"""Seconds one round of polling takes."""
FACTORY_POWER = 2600
MAX_POWER = 3000

LONGEST_EPC = 62
"""The length field of the PC counts to 31 words of 16 bits."""


@dataclass(frozen=True, slots=True)
class VirtualTag:
    epc: bytes
    rssi: int
    pc: int
    crc_mask: int = 0
    """XORed into the tag's CRC: what a collision on the air does."""

    def report(self) -> bytes:
        """RSSI, PC, EPC and the CRC that the tag sent over the air."""
        heard = self.pc.to_bytes(2, "big") + self.epc
        crc = gen2_crc(heard) ^ self.crc_mask
        return bytes([self.rssi & 0xFF]) + heard + crc.to_bytes(2, "big")


def gen2_crc(data: bytes) -> int:
    """CRC-16 of ISO/IEC 18000-63 annex F, bit by bit as the tag's shift register does it."""
    register = 0xFFFF
    for byte in data:
        for place in range(7, -1, -1):
            bit = byte >> place & 1
            carry = register >> 15
            register = register << 1 & 0xFFFF
            if bit != carry:
                register ^= 0x1021
    return register ^ 0xFFFF


def frame(kind: int, command: int, parameter: bytes) -> bytes:
    """One whole frame of the module."""
    size = len(parameter)
    body = [kind, command, size >> 8, size & 0xFF, *parameter]
    return bytes([0xBB, *body, sum(body) % 256, 0x7E])


class M100Reader(VirtualDevice):
    """The module and its field. `power` is in hundredths of a dBm, as on the wire."""

    def __init__(self, name: Path, faults: Faults | None = None, *, hardware: str = "M100 V1.00") -> None:
        super().__init__(name, faults)
        self.hardware = hardware
        self.power = FACTORY_POWER
        self.rounds = 0
        """Inventory rounds made since it was plugged in."""
        self.polls_left = 0
        self.asleep = False
        self._tags: dict[bytes, VirtualTag] = {}
        self._heard = bytearray()
        self._poll: asyncio.TimerHandle | None = None

    # -- hands ------------------------------------------------------------------------------------

    def present(
        self, epc_hex: str, rssi: int = -55, *, pc: int | None = None, wrong_crc: bool = False
    ) -> None:
        """Bring a tag into the field. `pc` follows from the length of the EPC unless it is given."""
        epc = bytes.fromhex(epc_hex)
        if len(epc) % 2 or len(epc) > LONGEST_EPC:
            raise ValueError(
                f"expected whole 16-bit words, at most {LONGEST_EPC} bytes, got {len(epc)} bytes"
            )
        words = len(epc) // 2
        self._tags[epc] = VirtualTag(epc, rssi, words << 11 if pc is None else pc, 0x0101 if wrong_crc else 0)

    def remove(self, epc_hex: str) -> None:
        """Take a tag out of the field."""
        del self._tags[bytes.fromhex(epc_hex)]

    def sleep(self) -> None:
        """Doze off: the settings are lost, and the next byte from the host only wakes it."""
        self.powered()
        self.asleep = True

    # -- the module -------------------------------------------------------------------------------

    def powered(self) -> None:
        self._stop()
        self._heard.clear()
        self.power = FACTORY_POWER
        self.rounds = 0
        self.asleep = False

    def unplug(self) -> None:
        self._stop()
        super().unplug()

    def received(self, data: bytes) -> None:
        if self.asleep:
            data = data[1:]
            self.asleep = False
        self._heard += data
        while (request := self._next_request()) is not None:
            self._obey(*request)

    def _next_request(self) -> tuple[int, bytes] | None:
        """The next whole command heard; what is not one is passed over in silence."""
        while (start := self._heard.find(0xBB)) >= 0:
            del self._heard[:start]
            if len(self._heard) > 1 and self._heard[1] != 0:
                del self._heard[:1]
                continue
            if len(self._heard) < 5:
                return None
            size = 7 + (self._heard[3] << 8) + self._heard[4]
            if len(self._heard) < size:
                return None
            raw = bytes(self._heard[:size])
            if raw == frame(0, raw[2], raw[5:-2]):
                del self._heard[:size]
                return raw[2], raw[5:-2]
            del self._heard[:1]
        self._heard.clear()
        return None

    def _obey(self, command: int, parameter: bytes) -> None:
        match command, parameter:
            case 0x03, b"\x00":
                self._answer(0x03, b"\x00" + self.hardware.encode("ascii"))
            case 0x22, b"":
                self._inventory()
            case 0x27, bytes() if len(parameter) == 3 and parameter[0] == 0x22:
                self._stop()
                self.polls_left = int.from_bytes(parameter[1:], "big")
                self._poll_on()
            case 0x28, b"":
                self._stop()
                self._answer(0x28, b"\x00")
            case 0xB6, bytes() if len(parameter) == 2 and int.from_bytes(parameter, "big") <= MAX_POWER:
                self.power = int.from_bytes(parameter, "big")
                self._answer(0xB6, b"\x00")
            case _:
                self._answer(0xFF, b"\x17")

    def _answer(self, command: int, parameter: bytes) -> None:
        self.send(frame(1, command, parameter))

    def _inventory(self) -> None:
        self.rounds += 1
        for tag in self._tags.values():
            self.send(frame(2, 0x22, tag.report()))
        if not self._tags:
            self._answer(0xFF, b"\x15")

    def _poll_on(self) -> None:
        if self.polls_left:
            self.polls_left -= 1
            self._inventory()
            self._poll = asyncio.get_running_loop().call_later(ROUND, self._poll_on)

    def _stop(self) -> None:
        self.polls_left = 0
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
