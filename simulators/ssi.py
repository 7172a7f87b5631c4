"""A Zebra scanner on the Simple Serial Interface, written from the SE955 and DS9908 guides.

It starts, as from the factory, with raw decode data: until the host sets parameter EE to 1 (packeted), a
scan leaves as plain text with CR and nobody acknowledges it. In packeted mode it sends, waits for CMD_ACK,
and sends twice more with the retransmit bit; then it declares a transmission error. It sleeps until the
first byte from the host, and loses that byte.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from simulators.base import Faults, VirtualDevice

ACK, NAK = 0xD0, 0xD1
SEGMENT_ACK = 0x74
RESEND, BAD_CONTEXT, DENIED = 1, 2, 6
MALFORMED_NAK = bytes.fromhex("04 D1 00 06 FF 20")
"""As one published driver sends it: the length forgets the cause, and the sum is wrong."""

BEEPS = {0x00: "good", 0x01: "ask", 0x05: "bad", 0x06: "bad", 0x07: "bad"}
"""One and two short high beeps; one to three short low ones."""

CHARACTER_TIMEOUT = 0.2
"""Host character time-out: after such a pause what came before is discarded."""

TEXT_IN_PACKET = 0xFF - 5
TEXT_IN_FIRST_SEGMENT = 0xFF - 14
TEXT_IN_SEGMENT = 0xFF - 5


def checksum(body: bytes) -> bytes:
    """16-bit two's complement of the sum, high byte first."""
    return (-sum(body) & 0xFFFF).to_bytes(2, "big")


def from_decoder(opcode: int, data: bytes = b"", status: int = 0) -> bytes:
    body = bytes([4 + len(data), opcode, 0x00, status]) + data
    return body + checksum(body)


def resent(packet: bytes) -> bytes:
    body = packet[:3] + bytes([packet[3] | 1]) + packet[4:-2]
    return body + checksum(body)


@dataclass(eq=False)
class Scan:
    """Packets of one scan, the first one being the next to be acknowledged."""

    packets: deque[bytes]
    done: asyncio.Future[bool]
    tries: int = 0


class SsiScanner(VirtualDevice):
    """Scans what it is shown, and obeys the host."""

    def __init__(
        self,
        name: Path,
        faults: Faults | None = None,
        *,
        answer_within: float = 2.0,
        segments: bool = False,
        revision: str = "PAAABS00-001-R01 0000 0 00",
    ) -> None:
        super().__init__(name, faults)
        self.answer_within = answer_within
        """Host serial response time-out."""
        self.segments = segments
        """Long data leaves in packets of opcode 73 instead of continued DECODE_DATA."""
        self.revision = revision
        self.refuses: dict[int, int] = {}
        """Opcode, or parameter number of a PARAM_SEND, to the cause of the NAK it gets."""
        self.tones: list[str] = []
        """`good`, `ask` or `bad`, oldest first; a code that is none of them as two hex digits."""
        self.beep_codes: list[int] = []
        self.naks: list[int] = []
        """Causes of the NAKs the host has sent."""
        self.acks = 0
        self.requests: list[bytes] = []
        """Every right packet from the host, oldest first."""
        self.obeyed = asyncio.Event()
        """Set whenever a packet from the host was acted upon; whoever waits for the next one clears it."""
        self._scans: deque[Scan] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = bytearray()
        self._heard_at = 0.0
        self.powered()

    def powered(self) -> None:
        """Temporary parameters are lost with the power."""
        self.asleep = True
        self.enabled = True
        self.triggered = False
        self.permanent_writes = 0
        self.parameters = {0xEE: 0, 0x38: 1}
        self._heard.clear()

    @property
    def packeted(self) -> bool:
        return self.parameters[0xEE] == 1

    def unplug(self) -> None:
        self._stop_timer()
        while self._scans:
            self._settle(self._scans.popleft(), False)
        super().unplug()

    # -- hands ------------------------------------------------------------------------------------

    def scan(self, label: str | bytes, code_type: int = 0x03) -> asyncio.Future[bool]:
        """Read one label. The future tells whether the host acknowledged it; raw data nobody does."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        data = label.encode() if isinstance(label, str) else label
        if not self.enabled:
            done.set_result(False)
        elif not self.packeted:
            self.send(data + b"\r")
            done.set_result(False)
        else:
            self._scans.append(Scan(deque(self._packets(data, code_type)), done))
            if len(self._scans) == 1:
                self._transmit()
        return done

    def misbehave(self) -> None:
        """Send the malformed NAK."""
        self.send(MALFORMED_NAK)

    def _packets(self, data: bytes, code_type: int) -> list[bytes]:
        if self.segments and len(data) > TEXT_IN_PACKET:
            return self._in_segments(data, code_type)
        starts = range(0, max(1, len(data)), TEXT_IN_PACKET)
        return [
            from_decoder(
                0xF3,
                bytes([code_type]) + data[at : at + TEXT_IN_PACKET],
                0x02 if at + TEXT_IN_PACKET < len(data) else 0x00,
            )
            for at in starts
        ]

    def _in_segments(self, data: bytes, code_type: int) -> list[bytes]:
        head = bytes([0, 0xF3, 0, 0, 0, 0, code_type, 0]) + len(data).to_bytes(2, "big")
        packets = [from_decoder(0x73, head + data[:TEXT_IN_FIRST_SEGMENT])]
        for at in range(TEXT_IN_FIRST_SEGMENT, len(data), TEXT_IN_SEGMENT):
            packets.append(from_decoder(0x73, bytes([len(packets)]) + data[at : at + TEXT_IN_SEGMENT]))
        return packets

    # -- send, wait, send again -------------------------------------------------------------------

    def _transmit(self) -> None:
        self._stop_timer()
        if not self._scans:
            return
        scan = self._scans[0]
        if scan.tries == 3:
            self._finish(False)
            return
        packet = scan.packets[0]
        scan.tries += 1
        self._timer = asyncio.get_running_loop().call_later(self.answer_within, self._transmit)
        self.send(packet if scan.tries == 1 else resent(packet))

    def _acknowledged(self) -> None:
        self.acks += 1
        if not self._scans:
            return
        scan = self._scans[0]
        scan.packets.popleft()
        scan.tries = 0
        if scan.packets:
            self._transmit()
        else:
            self._finish(True)

    def _finish(self, acknowledged: bool) -> None:
        self._settle(self._scans.popleft(), acknowledged)
        self._transmit()

    def _settle(self, scan: Scan, acknowledged: bool) -> None:
        if not scan.done.done():
            scan.done.set_result(acknowledged)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what the host says -----------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self.asleep and data:
            self.asleep = False
            data = data[1:]
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > CHARACTER_TIMEOUT:
            self._heard.clear()
        self._heard_at = now
        self._heard += data
        while self._heard:
            if self._heard[0] < 4:  # WAKEUP, or noise
                del self._heard[0]
                continue
            size = self._heard[0] + 2
            if len(self._heard) < size:
                return
            packet = bytes(self._heard[:size])
            del self._heard[:size]
            if checksum(packet[:-2]) == packet[-2:] and packet[2] == 0x04:
                self.requests.append(packet)
                self._obey(packet[1], packet[4:-2], packet[3])
                self.obeyed.set()
            else:
                self._refuse(RESEND)

    def _obey(self, opcode: int, data: bytes, status: int) -> None:
        if opcode in (ACK, SEGMENT_ACK):
            self._acknowledged()
        elif opcode == NAK:
            self._nak(data[0])
        elif opcode in self.refuses:
            self._refuse(self.refuses[opcode])
        elif opcode == 0xA3:
            self.send(from_decoder(0xA4, self.revision.encode()))
        elif opcode == 0xC6:
            self._set(data, permanent=bool(status & 0x08))
        elif opcode == 0xE6:
            self._beep(data[0])
        elif opcode in (0xE4, 0xE5):
            self.triggered = opcode == 0xE4
            self.send(from_decoder(ACK))
        elif opcode in (0xE9, 0xEA):
            self.enabled = opcode == 0xE9
            self.send(from_decoder(ACK))
        else:
            self._refuse(BAD_CONTEXT)

    def _nak(self, cause: int) -> None:
        self.naks.append(cause)
        if not self._scans:
            return
        if cause == RESEND:
            self._transmit()
        else:
            self._finish(False)

    def _set(self, data: bytes, *, permanent: bool) -> None:
        parameter, value = data[1], data[2]
        if parameter in self.refuses:
            self._refuse(self.refuses[parameter])
            return
        self.permanent_writes += permanent
        self.parameters[parameter] = value
        self.send(from_decoder(ACK))

    def _beep(self, code: int) -> None:
        if code > 0x1A:
            self._refuse(DENIED)
            return
        self.beep_codes.append(code)
        self.tones.append(BEEPS.get(code, f"{code:02x}"))
        self.send(from_decoder(ACK))

    def _refuse(self, cause: int) -> None:
        self.send(from_decoder(NAK, bytes([cause])))
