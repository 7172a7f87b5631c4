"""Zebra and Symbol scanners, and low-cost engines, that speak the Simple Serial Interface (SSI).

    LENGTH OPCODE SOURCE STATUS data... CHECKSUM(2)

LENGTH counts itself up to the last data byte; CHECKSUM is the two's complement of the sum of all that,
high byte first. There is no magic number: a packet begins where length, opcode and source are plausible.

Both sides wait for an answer to each packet and send it again, with the retransmit bit, when none comes.
CMD_ACK tells the scanner that its packet arrived, no more; whether the scan counts is told later, by tone.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

from pydantic import Field

from drivers.base import ActionRefused, Codec, Dialogue, Driver, Emit, Link, NoReply, Options
from drivers.checksums import minus16
from drivers.readings import Action, EnableScanning, Scanned, Signal, Tone, Trigger

HOST = 0x04
RETRANSMIT = 0x01
CONTINUED = 0x02

CHECKSUM_SIZE = 2
LONGEST = 0xFF + CHECKSUM_SIZE
HEADER_SIZE = 4
CAP = 7089
"""Characters in the longest barcode there is, a QR code of version 40 with digits only."""

RESENDS = 2
QUIET = 0.2
"""Host inter-character time-out: a pause this long inside a packet means the rest is lost."""
SLOWEST_ANSWER = 9.9
"""Longest response time-out a scanner can be set to (2.0, 5.0, 7.5 or 9.9 s)."""
NEXT_PACKET = SLOWEST_ANSWER + 0.6
"""Seconds within which the next packet of one message comes; 0.6 are two packets at 9600 baud."""
RESEND_SPAN = (1 + RESENDS) * NEXT_PACKET
"""Seconds after which no resend of an accepted packet can come any more."""


class Opcode(IntEnum):
    SEGMENT = 0x73
    SEGMENT_ACK = 0x74
    MANAGEMENT = 0x80
    REQUEST_REVISION = 0xA3
    REPLY_REVISION = 0xA4
    IMAGE = 0xB1
    PARAM_SEND = 0xC6
    ACK = 0xD0
    NAK = 0xD1
    CAPABILITIES = 0xD4
    BATCH = 0xD6
    START_DECODE = 0xE4
    STOP_DECODE = 0xE5
    BEEP = 0xE6
    SCAN_ENABLE = 0xE9
    SCAN_DISABLE = 0xEA
    DECODE_DATA = 0xF3
    EVENT = 0xF6


# A packet from the decoder begins like this; at the end of what has arrived, as much of it as is there.
# SOURCE of the decoder is 0; segments of long messages were seen with 2.
_START = re.compile(
    rb"[\x04-\xff](?:(?:[\x73\x80\xa4\xb1\xc6\xd0\xd1\xd4\xd6\xf3\xf6]\x00|\x73\x02)"
    rb"|[\x73\x80\xa4\xb1\xc6\xd0\xd1\xd4\xd6\xf3\xf6]?\Z)"
)

_REFUSALS = {1: "resend", 2: "bad_context", 6: "denied", 10: "cancelled"}

# Barcode type byte to AIM identifier, where one follows from the other. Left out: Code 39, I 2of5, PDF417,
# Data Matrix and QR, whose modifier (a check digit, FNC1) the type byte does not tell, and UPC-A and UPC-E,
# which AIM knows only as the 13 digits of an EAN-13, which SSI does not send.
AIM = {0x03: "]C0", 0x0A: "]E4", 0x0B: "]E0", 0x0F: "]C1", 0x19: "]C0"}
AIM |= dict.fromkeys((0x30, 0x31, 0x32), "]e0")
_AIM_IN_DATA = re.compile(rb"\][A-Za-z][0-9A-Z]")

# Beep codes 0-4 are one to five short high beeps, 5-9 one to five short low ones.
BEEPS = {Tone.GOOD: 0x00, Tone.ASK: 0x01, Tone.BAD: 0x07}

# With RTS/CTS bypassed, a sleeping scanner is woken by the first byte it hears, and loses it.
WAKEUP = b"\x00"
NO_BEEP = 0xFF
BEEP_AFTER_GOOD_DECODE = 0x38
DECODE_DATA_PACKETED = 0xEE

_SUFFIXES = {"none": b"", "cr": b"\r", "lf": b"\n", "crlf": b"\r\n", "tab": b"\t"}


class SsiOptions(Options):
    suffix: Literal["none", "cr", "lf", "crlf", "tab"] = Field(
        "none", description="what the scanner is set to add to its data; taken off where it is present"
    )
    own_beep: bool = Field(
        False, description="leave the scanner's own good-decode beep on; it sounds before the scan is stored"
    )
    answer_within: float = Field(
        2.0, ge=0.05, le=10.0, description="seconds the scanner may take to answer a command"
    )
    check_every: float = Field(
        20.0, ge=0.05, le=300.0, description="seconds of silence after which the scanner is set up again"
    )


def framed(opcode: int, data: bytes = b"", *, status: int = 0) -> bytes:
    """A packet from the host."""
    body = bytes([HEADER_SIZE + len(data), opcode, HOST, status]) + data
    return body + minus16(body).to_bytes(CHECKSUM_SIZE, "big")


ACK = framed(Opcode.ACK)
SEGMENT_ACK = framed(Opcode.SEGMENT_ACK)
NAK_RESEND = framed(Opcode.NAK, b"\x01")


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from the scanner whose length and checksum agree."""

    opcode: Opcode
    data: bytes = b""
    status: int = 0

    @property
    def resent(self) -> bool:
        return bool(self.status & RETRANSMIT)

    @property
    def continued(self) -> bool:
        return bool(self.status & CONTINUED)


class SsiCodec(Codec[Packet]):
    """Packets from the decoder. What was clearly a packet and came spoilt is kept in `spoilt`."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0
        """Bytes fed since the start."""
        self.spoilt: bytes | None = None
        """The first packet with a wrong checksum or a lost end since someone set this to None."""

    def feed(self, data: bytes) -> list[Packet]:
        self.heard += len(data)
        self._buffer += data
        packets: list[Packet] = []
        while self._hunt():
            size = self._buffer[0] + CHECKSUM_SIZE
            if len(self._buffer) < size:
                break
            raw = bytes(self._buffer[:size])
            if minus16(raw[:-CHECKSUM_SIZE]) == int.from_bytes(raw[-CHECKSUM_SIZE:], "big"):
                packets.append(Packet(Opcode(raw[1]), raw[HEADER_SIZE:-CHECKSUM_SIZE], raw[3]))
                del self._buffer[:size]
            else:
                self._spoil(raw)
                self.noise["checksum"] += 1
                del self._buffer[0]
        return packets

    def reset(self) -> None:
        if len(self._buffer) >= HEADER_SIZE:
            self._spoil(bytes(self._buffer))
        super().reset()

    def _spoil(self, raw: bytes) -> None:
        if self.spoilt is None:
            self.spoilt = raw

    def _hunt(self) -> bool:
        """Bring the next possible start to the front; False while there is none."""
        match = _START.search(bytes(self._buffer))
        skipped = match.start() if match else len(self._buffer)
        if skipped:
            self.noise["skipped_bytes"] += skipped
            del self._buffer[:skipped]
        return bool(self._buffer)


@dataclass(slots=True)
class _Message:
    """What has arrived of a scan too long for one packet."""

    code_type: int
    text: bytes = b""
    size: int | None = None
    """Length of the whole text, where the first packet told it."""
    segments: int = 0
    too_long: bool = False

    def add(self, text: bytes) -> None:
        self.too_long = self.too_long or len(self.text) + len(text) > CAP
        self.text = b"" if self.too_long else self.text + text


class Assembler:
    """Packets to scans: resends dropped, long messages joined, over-long ones refused whole.

    Time is an argument, in seconds of any steady clock.
    """

    def __init__(self, noise: Counter[str], suffix: bytes = b"") -> None:
        self._noise = noise
        self._suffix = suffix
        self._accepted: Packet | None = None
        self._accepted_at = 0.0
        self._heard_at = 0.0
        self._message: _Message | None = None

    def take(self, packet: Packet, now: float) -> Scanned | None:
        """The scan that `packet` completes. Give it DECODE_DATA and SEGMENT packets only."""
        late = now - self._heard_at > NEXT_PACKET
        self._heard_at = now
        first = replace(packet, status=packet.status & ~RETRANSMIT)
        if packet.resent and first == self._accepted and now - self._accepted_at < RESEND_SPAN:
            self._noise["resent"] += 1
            return None
        self._accepted, self._accepted_at = first, now
        if late:
            self._abandon()
        return self._segment(packet) if packet.opcode is Opcode.SEGMENT else self._decoded(packet)

    def begun(self, spoilt: bytes) -> None:
        """A packet came spoilt. If it was new, a resend to come is not of the one accepted before it."""
        if not spoilt[3] & RETRANSMIT:
            self._accepted = None

    def _decoded(self, packet: Packet) -> Scanned | None:
        if not packet.data:
            self._noise["empty"] += 1
            return None
        code_type, text = packet.data[0], packet.data[1:]
        if self._message is None or self._message.size is not None or self._message.code_type != code_type:
            self._abandon()
            self._message = _Message(code_type)
        self._message.add(text)
        return None if packet.continued else self._finish(self._message)

    def _segment(self, packet: Packet) -> Scanned | None:
        """Segment 0: index, F3, 4 bytes, type, 1 byte, length (2), text. The others: index, text."""
        index, text = packet.data[0] if packet.data else -1, packet.data[1:]
        if index == 0 and len(text) >= 9 and text[0] == Opcode.DECODE_DATA:
            self._abandon()
            self._message = _Message(text[5], size=int.from_bytes(text[7:9], "big"))
            text = text[9:]
        message = self._message
        if message is None or message.size is None or index != message.segments:
            self._abandon()
            self._noise["stray_segment"] += 1
            return None
        message.segments += 1
        message.add(text)
        return self._finish(message) if message.too_long or len(message.text) >= message.size else None

    def _abandon(self) -> None:
        if self._message is not None:
            self._noise["half_message"] += 1
            self._message = None

    def _finish(self, message: _Message) -> Scanned | None:
        self._message = None
        text = message.text[: message.size].removesuffix(self._suffix)
        if message.too_long or not text:
            self._noise["too_long" if message.too_long else "empty"] += 1
            return None
        told = _AIM_IN_DATA.match(text)
        return Scanned(data=text, symbology=told[0].decode() if told else AIM.get(message.code_type))


class SsiDialogue(Dialogue[Packet]):
    SETTLE = 0.3
    """The longest packet takes 268 ms at 9600 baud; a scan on its way is not thrown away for a question."""


class SsiDriver(Driver):
    """Acknowledges every packet, emits every scan once, and keeps the scanner in packeted mode.

    Parameters are set for the time until power is lost, never for good: the scanner's memory wears, and
    what was set for good would outlive us.
    """

    kind = "ssi"
    ANSWERS = True
    OptionsType = SsiOptions
    performs = frozenset({Signal, EnableScanning, Trigger})

    def __init__(self, link: Link, emit: Emit, options: SsiOptions) -> None:
        super().__init__(link, emit, options)
        self.codec = SsiCodec()
        self._dialogue = SsiDialogue(link, self.codec, within=options.answer_within)
        self._assembler = Assembler(self.codec.noise, _SUFFIXES[options.suffix])
        self._heard = 0
        self._spoke_at = 0.0

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        await self._dialogue.tell(WAKEUP)
        about: dict[str, str] = {}
        with contextlib.suppress(ActionRefused):
            reply = await self._ask(Opcode.REQUEST_REVISION, answer=Opcode.REPLY_REVISION)
            about["revision"] = reply.data.decode("ascii", "backslashreplace").strip()
        return about | await self._set_up()

    async def run(self) -> None:
        self._spoke_at = self._now()
        while True:
            packet = await self._dialogue.listen(QUIET)
            if packet is not None:
                self._spoke_at = self._now()
                self.codec.spoilt = None
                await self._take(packet)
            elif self.codec.heard == self._heard:
                await self._quiet()
                await self._dialogue.stirred(self._spoke_at + self.options.check_every - self._now())
            self._heard = self.codec.heard

    async def perform(self, action: Action) -> None:
        match action:
            case Signal(tone=tone):
                await self._ask(Opcode.BEEP, bytes([BEEPS[tone]]))
            case EnableScanning(enabled=enabled):
                await self._ask(Opcode.SCAN_ENABLE if enabled else Opcode.SCAN_DISABLE)
            case Trigger(pulled=pulled):
                await self._ask(Opcode.START_DECODE if pulled else Opcode.STOP_DECODE)
            case _:
                await super().perform(action)

    # -- what the scanner says --------------------------------------------------------------------

    async def _take(self, packet: Packet) -> None:
        match packet.opcode:
            case Opcode.DECODE_DATA | Opcode.EVENT:
                await self.link.write(ACK)
            case Opcode.SEGMENT:
                await self.link.write(SEGMENT_ACK)
        if packet.opcode not in (Opcode.DECODE_DATA, Opcode.SEGMENT):
            self.noise["unasked"] += 1
            return
        scan = self._assembler.take(packet, self._now())
        if scan is not None:
            await self.emit(scan)

    async def _quiet(self) -> None:
        """Nothing came for a while: whatever was half there will not be completed."""
        self.codec.reset()
        spoilt, self.codec.spoilt = self.codec.spoilt, None
        # "It is not necessary to respond to a valid ACK or NAK": a spoilt one ends in our own resend.
        if spoilt is not None and spoilt[1] not in (Opcode.ACK, Opcode.NAK):
            self._assembler.begun(spoilt)
            await self.link.write(NAK_RESEND)
        if self._now() - self._spoke_at >= self.options.check_every:
            await self._set_up()
            self._spoke_at = self._now()

    # -- what the scanner is asked ----------------------------------------------------------------

    async def _set_up(self) -> dict[str, str]:
        """Packeted data, and no beep but ours. What the scanner refused, by name.

        Repeated from time to time: it tells a deaf scanner from an idle one, and a scanner that lost its
        power behind our back is in raw mode again.
        """
        refused: dict[str, str] = {}
        for name, parameter, value in (
            ("packeted", DECODE_DATA_PACKETED, 1),
            ("own_beep", BEEP_AFTER_GOOD_DECODE, int(self.options.own_beep)),
        ):
            try:
                await self._ask(Opcode.PARAM_SEND, bytes([NO_BEEP, parameter, value]))
            except ActionRefused as refusal:
                refused[name] = str(refusal)
        return refused

    async def _ask(self, opcode: Opcode, data: bytes = b"", *, answer: Opcode = Opcode.ACK) -> Packet:
        """Raises ActionRefused with the cause of the NAK, NoReply after the last resend."""
        for attempt in range(1 + RESENDS):
            request = framed(opcode, data, status=RETRANSMIT if attempt else 0)
            with contextlib.suppress(NoReply):
                reply = await self._dialogue.ask(request, lambda heard: heard.opcode in (answer, Opcode.NAK))
                if reply.opcode is answer:
                    return reply
                cause = _REFUSALS.get(int.from_bytes(reply.data[:1], "big"), reply.data.hex())
                if cause != "resend":
                    raise ActionRefused(f"{opcode.name.lower()}: {cause}")
        raise NoReply(f"no answer to {opcode.name.lower()}")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
