"""A fingerprint module of the R30x and R50x families, written from the R503 manual.

Fingers are names: two images match when their names are equal. `touch` and `lift` are the hands; `teach`
puts in a template as if it had been enrolled before. `template_of` is what a module gives for a finger when
it is asked for the template itself, and what it takes for it.

    with FingerprintModule(tmp_path / "finger") as module:
        module.teach(5, "alice")
        module.touch("alice")

Every packet is `EF 01 | ADDRESS(4) | PID | LENGTH(2) | CONTENT | SUM(2)`; the sum starts at PID.
"""

import asyncio
import hashlib
import struct
import termios
from enum import Enum, IntEnum
from pathlib import Path

from simulators.base import Faults, VirtualDevice


class Instruction(IntEnum):
    GEN_IMG = 0x01
    IMG2TZ = 0x02
    MATCH = 0x03
    REG_MODEL = 0x05
    STORE = 0x06
    LOAD_CHAR = 0x07
    UP_CHAR = 0x08
    DOWN_CHAR = 0x09
    DELETE_CHAR = 0x0C
    READ_SYS_PARA = 0x0F
    SET_PASSWORD = 0x12
    VERIFY_PASSWORD = 0x13
    TEMPLATE_NUM = 0x1D
    READ_INDEX = 0x1F
    AURA_LED = 0x35
    GET_FIRMWARE = 0x3A
    READ_PRODUCT = 0x3C


PARAMETERS: dict[int, int] = {
    Instruction.GEN_IMG: 0,
    Instruction.IMG2TZ: 1,
    Instruction.MATCH: 0,
    Instruction.REG_MODEL: 0,
    Instruction.STORE: 3,
    Instruction.LOAD_CHAR: 3,
    Instruction.UP_CHAR: 1,
    Instruction.DOWN_CHAR: 1,
    Instruction.DELETE_CHAR: 4,
    Instruction.READ_SYS_PARA: 0,
    Instruction.SET_PASSWORD: 4,
    Instruction.VERIFY_PASSWORD: 4,
    Instruction.TEMPLATE_NUM: 0,
    Instruction.READ_INDEX: 1,
    Instruction.AURA_LED: 4,
    Instruction.GET_FIRMWARE: 0,
    Instruction.READ_PRODUCT: 0,
}
"""Bytes that follow each instruction."""

OK = b"\x00"
PACKET_ERROR = b"\x01"
NO_FINGER = b"\x02"
NO_MATCH = b"\x08"
CANNOT_MERGE = b"\x0a"
NO_SUCH_PAGE = b"\x0b"
INVALID_TEMPLATE = b"\x0c"
CANNOT_SEND = b"\x0d"
WRONG_PASSWORD = b"\x13"
NO_IMAGE = b"\x15"
MUST_VERIFY = b"\x21"
UNSUPPORTED = b"\xfc"

DATA, LAST_DATA = 0x02, 0x08
"""Packets that carry a template: all but the last, and the last."""
TEMPLATE_BYTES = 1536
NAME_BYTES = 64

READY = b"\x55"
"""Sent once after power-on, when commands may come."""
OTHER_SCORE = 8
"""What two different fingers score."""


def template_of(finger: str) -> bytes:
    """The name of the finger, and a pattern that follows from it up to the last byte."""
    name = finger.encode()
    head = struct.pack(">H", len(name)) + name
    return head + hashlib.shake_256(name).digest(TEMPLATE_BYTES - len(head))


def finger_in(template: bytes) -> str:
    """Whose template it is; of no finger that anybody has if a single byte is wrong."""
    size = min(int.from_bytes(template[:2], "big"), NAME_BYTES)
    name = template[2 : 2 + size].decode(errors="replace")
    return name if template_of(name) == template else f"damaged {template.hex()}"


class Mishap(Enum):
    """What may happen, once, to the answer of one instruction."""

    LOST = "acted on, never answered"
    LATE = "answered only when the next command has come"
    BAD_SUM = "answered with a wrong checksum"
    MISHEARD = "not understood: packet error"


class FingerprintModule(VirtualDevice):
    def __init__(
        self,
        name: Path,
        faults: Faults | None = None,
        *,
        address: int = 0xFFFFFFFF,
        password: int = 0,
        capacity: int = 200,
        security: int = 3,
        baud: int = 57600,
        packet_bytes: int = 128,
        serial: str = "10080307",
        lacks_aura: bool = False,
        wake_needs_password: bool = False,
    ) -> None:
        super().__init__(name, faults)
        self.address = address
        self.password = password
        self.capacity = capacity
        self.security = security
        self.baud = baud
        self.serial = serial
        """Eight characters, each module its own."""
        self.packet_bytes = packet_bytes
        """Of data packets; 32, 64, 128 or 256."""
        self.wake_needs_password = wake_needs_password
        """Wants the password after power-on even if it is the factory's."""
        self.lacks: set[int] = {Instruction.AURA_LED} if lacks_aura else set()
        """Instructions this model answers with FC, unsupported."""
        self.ignores: set[int] = set()
        """Instructions this model does not answer at all."""
        self.templates: dict[int, str] = {}
        self.finger: str | None = None
        """What lies on the glass."""
        self.match_score = 120
        self.poor_next = 0
        """So many of the next feature extractions fail with `poor_code`."""
        self.poor_code = 0x06
        self.empty_code = INVALID_TEMPLATE[0]
        """Answer to loading an empty slot: 0C, on newer firmware 22."""
        self.refusals: dict[int, int] = {}
        """Instruction to the code with which its next use is refused."""
        self.mishaps: dict[int, Mishap] = {}
        self.spoilt_data = 0
        """So many of the next data packets arrive with a wrong checksum."""
        self.garbles = False
        """Keeps another template than the one it is given."""
        self.pull_after: int | None = None
        """Unplugged after so many more data packets have come."""
        self.light: list[tuple[int, int, int, int]] = []
        """Every ring light command: mode, speed, colour, count."""
        self._heard = bytearray()
        self._late = b""
        self._image: str | None = None
        self._buffers: dict[int, str] = {}
        self._coming: tuple[int, bytearray] | None = None
        """The buffer that data packets are for, and what has come."""
        self._verified = False
        self._asleep = False
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []

    # -- hands ------------------------------------------------------------------------------------

    def touch(self, finger: str) -> None:
        self.finger = finger

    def lift(self) -> None:
        self.finger = None

    async def lay_down_twice(self, finger: str) -> None:
        """As somebody does who teaches it a finger: lifted once it was seen, and down again once missed."""
        for _ in range(2):
            self.touch(finger)
            await self.asked_for(Instruction.IMG2TZ)
            self.lift()
            await self.asked_for(Instruction.GEN_IMG)

    def teach(self, slot: int, finger: str) -> None:
        self.templates[slot] = finger

    def doze(self) -> None:
        """Power off until the next command, as wake-on-touch circuits do. That command is lost."""
        self._asleep = True

    async def asked_for(self, instruction: int) -> None:
        """Until the host has next given this command, and it was dealt with."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((instruction, done))
        await done

    # -- power and line ---------------------------------------------------------------------------

    def powered(self) -> None:
        self._heard.clear()
        self._late = b""
        self._image = None
        self._buffers.clear()
        self._coming = None
        self._verified = not (self.password or self.wake_needs_password)
        self._asleep = False
        self.send(READY)

    def received(self, data: bytes) -> None:
        if termios.tcgetattr(self._slave)[4] != getattr(termios, f"B{self.baud}"):
            return  # at another speed these are no bytes
        if self._asleep:
            self.powered()
            return
        self._heard += data
        while (packet := self._packet()) is not None:
            self._deal_with(packet)

    def _packet(self) -> bytes | None:
        """The next whole packet: PID, length, content and sum."""
        start = self._heard.find(b"\xef\x01" + struct.pack(">I", self.address))
        if start < 0 or len(self._heard) < start + 9:
            return None
        end = start + 9 + int.from_bytes(self._heard[start + 7 : start + 9], "big")
        if len(self._heard) < end:
            return None
        packet = bytes(self._heard[start + 6 : end])
        del self._heard[:end]
        return packet

    def _deal_with(self, packet: bytes) -> None:
        if packet[0] in (DATA, LAST_DATA):
            self._data(packet)
        if len(packet) < 6 or packet[0] != 0x01:
            return
        self._coming = None  # a command ends a transfer, whether it was whole or not
        instruction, parameters = packet[3], packet[4:-2]
        whole = int.from_bytes(packet[-2:], "big") == sum(packet[:-2]) & 0xFFFF
        mishap = self.mishaps.pop(instruction, None)
        if not whole or mishap is Mishap.MISHEARD:
            self._answer(PACKET_ERROR)
        elif instruction not in self.ignores:
            answer = self._gate(instruction, parameters)
            self._answer(answer, mishap)
            if instruction == Instruction.UP_CHAR and answer == OK:
                self._send_data(_template(self._buffers[parameters[0]]))
        for awaited in [one for one in self._awaited if one[0] == instruction]:
            self._awaited.remove(awaited)
            if not awaited[1].done():
                awaited[1].set_result(None)

    def _data(self, packet: bytes) -> None:
        """One piece of a template. It is never answered; what cannot be used spoils the transfer."""
        content, total = packet[3:-2], int.from_bytes(packet[-2:], "big")
        if self.spoilt_data:
            self.spoilt_data -= 1
            total ^= 0x01
        if self._coming is not None:
            buffer, received = self._coming
            right = total == sum(packet[:-2]) & 0xFFFF and len(content) <= self.packet_bytes
            if not right or len(received) + len(content) > 4 * TEMPLATE_BYTES:
                self._coming = None
            else:
                received += content
                if packet[0] == LAST_DATA:
                    self._buffers[buffer] = finger_in(bytes(received[::-1] if self.garbles else received))
                    self._coming = None
        if self.pull_after is not None:
            self.pull_after -= 1
            if self.pull_after <= 0:
                self.pull_after = None
                self.unplug()

    def _send_data(self, content: bytes) -> None:
        for start in range(0, len(content), self.packet_bytes):
            piece = content[start : start + self.packet_bytes]
            last = start + self.packet_bytes >= len(content)
            body = struct.pack(">BH", LAST_DATA if last else DATA, len(piece) + 2) + piece
            total = struct.pack(">H", sum(body) & 0xFFFF)
            self.send(b"\xef\x01" + struct.pack(">I", self.address) + body + total)

    def _answer(self, content: bytes, mishap: Mishap | None = None) -> None:
        body = b"\x07" + struct.pack(">H", len(content) + 2) + content
        total = sum(body) + (mishap is Mishap.BAD_SUM)
        packet = b"\xef\x01" + struct.pack(">I", self.address) + body + struct.pack(">H", total & 0xFFFF)
        late, self._late = self._late, b""
        self.send(late)
        if mishap is Mishap.LATE:
            self._late = packet
        elif mishap is not Mishap.LOST:
            self.send(packet)

    # -- commands ---------------------------------------------------------------------------------

    def _gate(self, instruction: int, parameters: bytes) -> bytes:
        if instruction in self.lacks or instruction not in PARAMETERS:
            return UNSUPPORTED
        if len(parameters) != PARAMETERS[instruction]:
            return PACKET_ERROR
        if instruction == Instruction.VERIFY_PASSWORD:
            self._verified = int.from_bytes(parameters, "big") == self.password
            return OK if self._verified else WRONG_PASSWORD
        if not self._verified:
            return MUST_VERIFY
        if instruction in self.refusals:
            return bytes([self.refusals.pop(instruction)])
        return self._obey(instruction, parameters)

    def _obey(self, instruction: int, parameters: bytes) -> bytes:
        match instruction:
            case Instruction.GEN_IMG:
                self._image = self.finger
                return OK if self.finger else NO_FINGER
            case Instruction.IMG2TZ:
                return self._extract(parameters[0])
            case Instruction.MATCH:
                return self._match()
            case Instruction.REG_MODEL:
                return self._merge()
            case Instruction.STORE:
                return self._store(*struct.unpack(">BH", parameters))
            case Instruction.LOAD_CHAR:
                return self._load(*struct.unpack(">BH", parameters))
            case Instruction.UP_CHAR:
                return OK if parameters[0] in self._buffers else CANNOT_SEND
            case Instruction.DOWN_CHAR:
                self._buffers.pop(parameters[0], None)
                self._coming = (parameters[0], bytearray())
                return OK
            case Instruction.DELETE_CHAR:
                return self._delete(*struct.unpack(">HH", parameters))
            case Instruction.READ_SYS_PARA:
                size = (self.packet_bytes // 32).bit_length() - 1
                told = (0, 0, self.capacity, self.security, self.address, size, self.baud // 9600)
                return OK + struct.pack(">HHHHIHH", *told)
            case Instruction.GET_FIRMWARE:
                return OK + b"1.0.1".ljust(32, b"\0")
            case Instruction.READ_PRODUCT:
                return OK + self._product()
            case Instruction.SET_PASSWORD:
                self.password = int.from_bytes(parameters, "big")
                return OK
            case Instruction.TEMPLATE_NUM:
                return OK + struct.pack(">H", len(self.templates))
            case Instruction.READ_INDEX:
                return OK + self._index_page(parameters[0])
            case _:
                mode, speed, colour, count = parameters
                self.light.append((mode, speed, colour, count))
                return OK

    def _extract(self, buffer: int) -> bytes:
        if self._image is None:
            return NO_IMAGE
        if self.poor_next:
            self.poor_next -= 1
            return bytes([self.poor_code])
        self._buffers[buffer] = self._image
        return OK

    def _match(self) -> bytes:
        one, two = self._buffers.get(1), self._buffers.get(2)
        if one is not None and one == two:
            return OK + struct.pack(">H", self.match_score)
        return NO_MATCH + struct.pack(">H", OTHER_SCORE)

    def _merge(self) -> bytes:
        one, two = self._buffers.get(1), self._buffers.get(2)
        return OK if one is not None and one == two else CANNOT_MERGE

    def _store(self, buffer: int, slot: int) -> bytes:
        if slot >= self.capacity:
            return NO_SUCH_PAGE
        if buffer not in self._buffers:
            return INVALID_TEMPLATE
        self.templates[slot] = self._buffers[buffer]
        return OK

    def _load(self, buffer: int, slot: int) -> bytes:
        if slot >= self.capacity:
            return NO_SUCH_PAGE
        if slot not in self.templates:
            return bytes([self.empty_code])
        self._buffers[buffer] = self.templates[slot]
        return OK

    def _delete(self, slot: int, count: int) -> bytes:
        if slot + count > self.capacity:
            return NO_SUCH_PAGE
        for number in range(slot, slot + count):
            self.templates.pop(number, None)
        return OK

    def _product(self) -> bytes:
        """Model, batch, serial number, hardware; sensor, its width and height; template size, capacity."""
        made = (b"R5xx1111", b"1111", self.serial.encode(), 1, 1, b"GR192RGB")
        return struct.pack(">16s4s8sBB8sHHHH", *made, 192, 192, TEMPLATE_BYTES, self.capacity)

    def _index_page(self, page: int) -> bytes:
        """32 bytes for 256 slots, lowest slot in the lowest bit of the first byte."""
        bitmap = bytearray(32)
        for slot in self.templates:
            if slot // 256 == page:
                bitmap[slot % 256 // 8] |= 1 << slot % 8
        return bytes(bitmap)


def _template(finger: str) -> bytes:
    """What is in a buffer, as it came."""
    return (
        bytes.fromhex(finger.removeprefix("damaged "))
        if finger.startswith("damaged ")
        else template_of(finger)
    )
