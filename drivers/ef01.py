"""The packets of R30x, R50x and ZFM fingerprint modules: bytes to frames, commands to bytes. No I/O.

`EF 01 | ADDRESS(4) | PID | LENGTH(2) | CONTENT | SUM(2)`, big-endian. LENGTH counts CONTENT and SUM; SUM is
the 16-bit sum of PID, LENGTH and CONTENT. It does not cover the address, so the codec compares that itself.

An acknowledgement does not say what it acknowledges. All there is to tell one from another is how long it
is, so every command here knows the length of its answer.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Self

from drivers.base import ActionRefused, BadFrame, FrameCodec
from drivers.checksums import sum16

HEADER = b"\xef\x01"
HEAD_SIZE = 9
SUM_SIZE = 2
ANY_MODULE = 0xFFFFFFFF
"""The factory address."""


class Pid(IntEnum):
    COMMAND = 0x01
    DATA = 0x02
    ACK = 0x07
    END_OF_DATA = 0x08


class Confirm(IntEnum):
    """Confirmation codes, the first byte of every acknowledgement."""

    OK = 0x00
    PACKET_ERROR = 0x01
    NO_FINGER = 0x02
    IMAGE_FAILED = 0x03
    MESSY = 0x06
    FEW_FEATURES = 0x07
    NO_MATCH = 0x08
    NOT_FOUND = 0x09
    CANNOT_MERGE = 0x0A
    NO_SUCH_SLOT = 0x0B
    INVALID_TEMPLATE = 0x0C
    CANNOT_SEND = 0x0D
    CANNOT_RECEIVE = 0x0E
    DELETE_FAILED = 0x10
    WRONG_PASSWORD = 0x13
    NO_PRIMARY_IMAGE = 0x15
    FLASH_FAILED = 0x18
    UNDEFINED = 0x19
    LIBRARY_FULL = 0x1F
    WRONG_ADDRESS = 0x20
    MUST_VERIFY_PASSWORD = 0x21
    EMPTY_TEMPLATE = 0x22
    EMPTY_LIBRARY = 0x24
    TIMED_OUT = 0x26
    ALREADY_EXISTS = 0x27
    SENSOR_FAULT = 0x29
    UNSUPPORTED = 0xFC
    HARDWARE_FAULT = 0xFD
    EXECUTION_FAILED = 0xFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    pid: Pid
    content: bytes = field(repr=False)
    """Kept out of every `repr`: on a line that echoes, it may be the password."""


def encode(frame: Frame, address: int = ANY_MODULE) -> bytes:
    summed = struct.pack(">BH", frame.pid, len(frame.content) + SUM_SIZE) + frame.content
    return HEADER + struct.pack(">I", address) + summed + struct.pack(">H", sum16(summed))


class Ef01Codec(FrameCodec[Frame]):
    """Frames from and to one module address."""

    HEADERS: ClassVar[tuple[bytes, ...]] = (HEADER,)
    LIMIT: ClassVar[int] = HEAD_SIZE + 256 + SUM_SIZE
    """The largest data packet a module can be set to."""

    def __init__(self, address: int = ANY_MODULE) -> None:
        super().__init__()
        self._address = struct.pack(">I", address)

    def measure(self, head: bytes) -> int | None:
        if not self._address.startswith(head[2:6]):
            raise BadFrame("address")
        if len(head) < HEAD_SIZE:
            return None
        pid, length = struct.unpack_from(">BH", head, 6)
        if pid not in tuple(Pid):
            raise BadFrame("packet_id")
        if length <= SUM_SIZE:
            raise BadFrame("length")
        return HEAD_SIZE + int(length)

    def decode(self, raw: bytes) -> Frame:
        if raw[-SUM_SIZE:] != struct.pack(">H", sum16(raw[6:-SUM_SIZE])):
            raise BadFrame("checksum")
        return Frame(pid=Pid(raw[6]), content=raw[HEAD_SIZE:-SUM_SIZE])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What the module answered to one command."""

    command: str
    code: int
    payload: bytes = b""

    def check(self) -> Self:
        """Itself if it says yes. Raises ActionRefused with the command and the word for its code."""
        if self.code != Confirm.OK:
            raise ActionRefused(f"{self.command}: {word(self.code)}")
        return self


def word(code: int) -> str:
    try:
        return Confirm(code).name.lower()
    except ValueError:
        return f"code 0x{code:02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str
    """As the manual calls it."""
    content: bytes = field(repr=False)
    """Instruction and parameters."""
    payload: int = 0
    """Bytes that follow the confirmation code of a yes."""
    reserve: int = 0
    """Bytes that some firmware says after these."""
    slowness: int = 1
    """How many times the usual time its answer may take."""
    repeatable: bool = True
    """Whether doing it twice is the same as doing it once."""
    stands_alone: bool = True
    """Whether it needs nothing that earlier commands left in the module, which a restart forgets."""

    def answered_by(self, frame: Frame) -> bool:
        """Whether the frame can be this command's answer.

        A no may come without its payload: the manual shows both forms.
        """
        if frame.pid is not Pid.ACK:
            return False
        whole = len(frame.content) - 1 in (self.payload, self.payload + self.reserve)
        return whole or (len(frame.content) == 1 and frame.content[0] != Confirm.OK)

    def accepted_by(self, frame: Frame) -> bool:
        """Whether the frame is a yes of this command's length."""
        return self.answered_by(frame) and frame.content[0] == Confirm.OK

    def may_be_repeated(self, ack: Ack | None) -> bool:
        """Whether it may be sent again after this answer, or after none."""
        if ack is not None and ack.code == Confirm.MUST_VERIFY_PASSWORD:
            return self.stands_alone
        return self.repeatable and (ack is None or ack.code == Confirm.PACKET_ERROR)

    def read(self, frame: Frame) -> Ack:
        """The answer in a frame that `answered_by` accepted."""
        return Ack(command=self.name, code=frame.content[0], payload=frame.content[1:])


GEN_IMG = Command(name="GenImg", content=b"\x01", slowness=2)
MATCH = Command(name="Match", content=b"\x03", payload=2, stands_alone=False)
# Merging leaves the result in both buffers: a second run would merge the result with itself.
REG_MODEL = Command(name="RegModel", content=b"\x05", repeatable=False, stands_alone=False)
READ_SYS_PARA = Command(name="ReadSysPara", content=b"\x0f", payload=16)
TEMPLATE_NUM = Command(name="TemplateNum", content=b"\x1d", payload=2)
GET_FW_VER = Command(name="GetFwVer", content=b"\x3a", payload=32)
READ_PROD_INFO = Command(name="ReadProdInfo", content=b"\x3c", payload=46, reserve=4)


def img2tz(buffer: int) -> Command:
    return Command(name="Img2Tz", content=bytes([0x02, buffer]), stands_alone=False)


def store(buffer: int, slot: int) -> Command:
    content = struct.pack(">BBH", 0x06, buffer, slot)
    return Command(name="Store", content=content, slowness=3, repeatable=False, stands_alone=False)


def load_char(buffer: int, slot: int) -> Command:
    return Command(name="LoadChar", content=struct.pack(">BBH", 0x07, buffer, slot), stands_alone=False)


def up_char(buffer: int) -> Command:
    """Its yes is followed by the buffer in data packets."""
    return Command(name="UpChar", content=bytes([0x08, buffer]), slowness=6, stands_alone=False)


def down_char(buffer: int) -> Command:
    """After its yes the module takes data packets, and answers none of them."""
    return Command(name="DownChar", content=bytes([0x09, buffer]), repeatable=False)


def data_packets(content: bytes, size: int) -> Iterator[Frame]:
    """Cut to the size that the module is set to; the last one says that it is the last."""
    for start in range(0, len(content), size):
        last = start + size >= len(content)
        yield Frame(
            pid=Pid.END_OF_DATA if last else Pid.DATA,
            content=content[start : start + size],
        )


def delete_char(slot: int) -> Command:
    content = struct.pack(">BHH", 0x0C, slot, 1)
    return Command(name="DeletChar", content=content, slowness=3, repeatable=False)


def verify_password(password: int) -> Command:
    return Command(name="VfyPwd", content=struct.pack(">BI", 0x13, password))


def set_password(password: int) -> Command:
    """From its yes on the module wants this one; it is kept in its flash."""
    return Command(name="SetPwd", content=struct.pack(">BI", 0x12, password), slowness=3, repeatable=False)


def read_index_table(page: int) -> Command:
    """One page tells of 256 slots."""
    return Command(name="ReadIndexTable", content=bytes([0x1F, page]), payload=32)


class Colour(IntEnum):
    """What every ring can show. Newer ones have four more."""

    RED = 1
    BLUE = 2
    PURPLE = 3


class Mode(IntEnum):
    BREATHE = 1
    FLASH = 2
    OFF = 4


def aura_led(mode: Mode, colour: Colour, *, speed: int = 0x64, count: int = 0) -> Command:
    """The ring light. A count of 0 goes on for ever; speed 0 is the fastest."""
    return Command(name="AuraLedConfig", content=bytes([0x35, mode, speed, colour, count]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What ReadSysPara tells."""

    capacity: int
    security: int
    """1 to 5: fewer false accepts against fewer false rejects."""
    address: int
    packet_bytes: int
    baud: int

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """From the 16 bytes after the confirmation code."""
        _status, _system, capacity, security, address, size, speed = struct.unpack(">HHHHIHH", payload)
        return cls(
            capacity=capacity,
            security=security,
            address=address,
            packet_bytes=32 << min(size, 3),
            baud=9600 * speed,
        )


def product(payload: bytes) -> dict[str, str]:
    """From what ReadProdInfo tells: model (16 bytes), batch (4), serial number (8), hardware version (2)."""
    return {
        "model": _text(payload[:16]),
        "serial": f"{_text(payload[16:20])}-{_text(payload[20:28])}",
        "hardware": f"{payload[28]}.{payload[29]}",
    }


def firmware(payload: bytes) -> str:
    """From what GetFwVer tells."""
    return _text(payload)


def _text(field: bytes) -> str:
    """Text as it is, padding left out; in hex what is none."""
    text = field.rstrip(b"\0 ").decode("latin-1")
    return text if text.isascii() and text.isprintable() else field.hex()


def slots_in(page: int, bitmap: bytes) -> Iterable[int]:
    """The taken slots in one index page: lowest slot first, lowest bit of each byte first."""
    for number in range(len(bitmap) * 8):
        if bitmap[number // 8] >> number % 8 & 1:
            yield page * 256 + number


def index_digest(slots: Iterable[int]) -> str:
    """The same 16 hex digits for every module in which just these slots are taken."""
    listed = ",".join(str(slot) for slot in sorted(slots))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]
