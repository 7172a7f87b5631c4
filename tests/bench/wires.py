"""The wires of the bench: a tty with a scanner at its end, and an ear at the broker.

Nothing here runs beside the program that is measured: no thread, no task. What is heard is stamped with the
time at which it was read, and understood later.
"""

import gzip
import os
import select
import socket
import time
import tty
from dataclasses import dataclass

from tests.bench.figures import Broken

GOOD_TONE = b"\x1b7,"
"""What the agent tells a Honeywell scanner after an accepted scan."""
PATIENCE_S = 10.0


class Line:
    """A pseudo-terminal; the bench holds the scanner's end."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)

    def fileno(self) -> int:
        return self._master

    def send(self, data: bytes) -> int:
        """Bytes taken: all of them, unless nobody reads."""
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def scan(self, label: bytes) -> float:
        """When it was sent."""
        at = time.perf_counter()
        if self.send(label + b"\r") <= len(label):
            raise Broken("nobody reads the tty")
        return at

    def tone(self, within: float) -> float | None:
        """When a good tone was heard; None if there was none in time."""
        heard = b""
        until = time.perf_counter() + within
        while (left := until - time.perf_counter()) > 0:
            if select.select([self], [], [], left)[0]:
                heard += os.read(self._master, 4096)
                if GOOD_TONE in heard:
                    return time.perf_counter()
        return None

    def close(self) -> None:
        os.close(self._slave)
        os.close(self._master)


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, and when it was read."""

    at: float
    topic: str
    payload: bytes

    def text(self) -> bytes:
        return gzip.decompress(self.payload) if self.payload.startswith(b"\x1f\x8b") else self.payload


class Ear:
    """Subscribes at QoS 0 in the fewest bytes of MQTT 3.1.1: it must cost the machine next to nothing."""

    def __init__(self, port: int, *topics: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._held = b""
        name = b"bench-ear"
        self._send(0x10, b"\0\4MQTT\4\2\0\0" + _counted(name))
        self._send(0x82, b"\0\1" + b"".join(_counted(topic.encode()) + b"\0" for topic in topics))
        answers: list[int] = []
        while 0x90 not in answers:
            answers += [kind for kind, _ in self._packets()]

    def fileno(self) -> int:
        return self._socket.fileno()

    def hear(self, within: float) -> list[Heard]:
        """What there is; nothing if nothing comes in time."""
        if not select.select([self], [], [], max(0.0, within))[0]:
            return []
        packets = self._packets()
        at = time.perf_counter()
        heard = []
        for kind, body in packets:
            if kind & 0xF0 == 0x30:
                end = 2 + int.from_bytes(body[:2], "big")
                heard.append(Heard(at, body[2:end].decode(), body[end:]))
        return heard

    def wait_for(self, word: bytes, within: float = PATIENCE_S) -> float | None:
        """When a message with this word came; None if none did in time."""
        until = time.perf_counter() + within
        while (left := until - time.perf_counter()) > 0:
            for heard in self.hear(left):
                if word in heard.payload or word in heard.text():
                    return heard.at
        return None

    def until_quiet(self, first: float, quiet: float = 1.0) -> list[Heard]:
        """Everything until nothing comes for a while; `first` is how long to wait for the first."""
        all_heard = self.hear(first)
        while heard := self.hear(quiet):
            all_heard += heard
        return all_heard

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: int, body: bytes) -> None:
        self._socket.sendall(bytes([kind, len(body)]) + body)

    def _packets(self) -> list[tuple[int, bytes]]:
        got = self._socket.recv(1 << 18)
        if not got:
            raise Broken("the broker has hung up")
        data, at = self._held + got, 0
        packets = []
        while (found := _length(data, at + 1)) and len(data) >= sum(found):
            start, size = found
            packets.append((data[at], data[start : start + size]))
            at = start + size
        self._held = data[at:]
        return packets


def _counted(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _length(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body begins and how long it is, from MQTT's variable byte integer; None while incomplete."""
    size = 0
    for place, byte in enumerate(data[at : at + 4]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return at + place + 1, size
    return None
