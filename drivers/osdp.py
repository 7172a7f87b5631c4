"""OSDP readers (IEC 60839-11-5): cards and keys over RS-485, in an encrypted and authenticated channel.

The protocol is libosdp's (an optional package, `postern[osdp]`); here are the way to the port and what goes
wrong in the field. The line is asked every 20 ms, on the event loop: a turn takes well under a millisecond.

A control panel that loses its reader falls silent for 300 s before it looks again. `Watchdog` takes the
reader out and puts it in every few seconds instead, which brings the secure channel back in half a second.
Clear text is never fallen back to: without a key of its own no reader is spoken to.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from drivers.base import ActionRefused, Driver, Emit, Link, NoReply, Options
from drivers.readings import Action, Scanned, Signal, TagArrived, Tone

TURN_S = 0.02
"""Between two turns: libosdp polls a reader every 50 ms, and gives it 200 ms to answer (`osdp_common.h`)."""
ONLINE_WITHIN_S = 12.0
"""For the secure channel to be up at first: two attempts, with the 8 s in between that a reader may take."""
ROUSE_S = 4.0
"""A reader that is away is taken out and put in again this often."""
DEAF_S = 30.0
"""Away for longer, the port is opened anew."""
KEY_BYTES = 16
KEYS_MOST = 32
"""Keys typed without an end; what is longer is forgotten."""
ENTER, CLEAR = b"#\r", b"*\x7f"
"""0x0D and 0x7F are how readers send # and * (IEC 60839-11-5, osdp_KEYPAD)."""

TONES: Mapping[Tone, tuple[int, int]] = {Tone.GOOD: (1, 1), Tone.BAD: (4, 3), Tone.ASK: (1, 2)}
"""How long a beep lasts, in tenths of a second, and how many there are."""


class OsdpOptions(Options):
    key_file: str = Field(default="/etc/postern/osdp.key", pattern=r"^/")
    """File of the reader's secure channel key, 32 hex digits: never in the config itself."""
    address: int = Field(default=1, ge=0, le=126)


@dataclass
class Pipe:
    """What libosdp reads from and writes to: memory on this side of the port."""

    heard: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    id: int = 0

    def read(self, most: int) -> bytes:
        data = bytes(self.heard[:most])
        del self.heard[:most]
        return data

    def write(self, data: bytes) -> int:
        self.said += data
        return len(data)

    def flush(self) -> None:
        self.heard.clear()


class Watchdog:
    """Says when a reader that is away is to be roused, and when to give it up. Pure."""

    def __init__(self, now: float) -> None:
        self._seen = self._roused = now

    def look(self, online: bool, now: float) -> bool:
        """Whether to rouse it now. Raises NoReply once it has been away for too long."""
        if online:
            self._seen = self._roused = now
            return False
        if now - self._seen >= DEAF_S:
            raise NoReply(f"no secure channel for {DEAF_S:g} s")
        if now - self._roused < ROUSE_S:
            return False
        self._roused = now
        return True


class Keypad:
    """Keys one by one, until # or Enter ends them. Pure."""

    def __init__(self) -> None:
        self._typed = bytearray()
        self.forgotten = 0

    def press(self, keys: bytes) -> list[bytes]:
        """What these keys complete."""
        lines = []
        for key in keys:
            if key in ENTER:
                lines.append(bytes(self._typed))
                self._typed.clear()
            elif key in CLEAR:
                self._typed.clear()
            elif len(self._typed) < KEYS_MOST:
                self._typed.append(key)
            else:
                self._typed.clear()
                self.forgotten += 1
        return [line for line in lines if line]


class OsdpDriver(Driver):
    """One reader on one line."""

    kind = "osdp"
    OptionsType = OsdpOptions
    BAUD = 9600
    ANSWERS = True
    performs = frozenset({Signal})

    def __init__(self, link: Link, emit: Emit, options: OsdpOptions) -> None:
        super().__init__(link, emit, options)
        self._noise: Counter[str] = Counter()
        self._pipe = Pipe()
        self._events: deque[dict[str, Any]] = deque(maxlen=64)
        self._keypad = Keypad()
        self._panel: Any = None
        self._library: Any = None

    @property
    def noise(self) -> Counter[str]:
        return self._noise

    async def identify(self) -> Mapping[str, str]:
        """Once the secure channel is up. Raises NoReply, and ActionRefused for a key or package not there."""
        self._library = _library()
        self._panel = self._library.ControlPanel([self._reader()])
        self._panel.set_event_callback(self._heard)
        watch = Watchdog(self._now())
        ends = self._now() + ONLINE_WITHIN_S
        while not self.secure:
            if self._now() >= ends:
                raise NoReply(f"no secure channel with address {self.options.address}")
            await self._turn(watch)
        about = self._panel.get_pd_id(0) or {}
        told = ("version", "model", "vendor_code", "serial_number", "firmware_version")
        return {name: f"{about[name]:x}" for name in told if name in about}

    async def run(self) -> None:
        watch = Watchdog(self._now())
        while True:
            await self._turn(watch)
            while self._events:
                await self._tell(self._events.popleft())
            if self._keypad.forgotten:
                self._noise["too_many_keys"] += self._keypad.forgotten
                self._keypad.forgotten = 0

    async def perform(self, action: Action) -> None:
        if not isinstance(action, Signal) or not self.secure:
            raise ActionRefused("the reader is away")
        tenths, count = TONES[action.tone]
        beeps = {
            "command": self._library.CMD_BUZZER,
            "reader": 0,
            "control_code": 2,
            "on_count": tenths,
            "off_count": 1,
            "rep_count": count,
        }
        if not self._panel.submit_command(0, beeps):
            raise ActionRefused("the reader took no order")

    # -- the line ---------------------------------------------------------------------------------

    async def _turn(self, watch: Watchdog) -> None:
        """Hear what has arrived, let libosdp have its turn, say what it says; then wait for the next."""
        self._pipe.heard += self.link.pending()
        self._panel.refresh()
        said, self._pipe.said = bytes(self._pipe.said), bytearray()
        if said:
            await self.link.write(said)
        if watch.look(self.secure, self._now()):
            self._noise["roused"] += 1
            self._panel.disable_pd(0)
            self._panel.enable_pd(0)
        await asyncio.sleep(TURN_S)

    @property
    def secure(self) -> bool:
        """Whether the reader is there, in a channel that nobody else can read or write."""
        return self._panel is not None and bool(self._panel.sc_status() & 1)

    def _heard(self, _reader: int, event: dict[str, Any]) -> int:
        self._events.append(event)
        return 0

    async def _tell(self, event: dict[str, Any]) -> None:
        if event.get("event") == self._library.EVENT_CARDREAD:
            await self.emit(TagArrived(uid=bytes(event["data"]), technology="wiegand"))
        elif event.get("event") == self._library.EVENT_KEYPRESS:
            for line in self._keypad.press(bytes(event["data"])):
                await self.emit(Scanned(data=line))

    def _reader(self) -> dict[str, Any]:
        return {
            "name": f"reader-{self.options.address}",
            "address": self.options.address,
            "flags": self._library.FLAG_ENFORCE_SECURE,
            "scbk": _key(Path(self.options.key_file)),
            "channel": self._pipe,
            # Of readers only; the panel's own are not told to anybody.
            **dict.fromkeys(("version", "model", "vendor_code", "serial_number", "firmware_version"), 1),
        }

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _library() -> Any:
    try:
        import osdp_sys
    except ImportError:
        raise ActionRefused("expected the package libosdp: pip install 'postern[osdp]'") from None
    osdp_sys.set_loglevel(osdp_sys.LOG_EMERG)
    return osdp_sys


def _key(path: Path) -> bytes:
    """Raises ActionRefused, and never says what the file holds."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise ActionRefused(f"{path}: expected 32 hex digits ({type(error).__name__})") from None
    if len(key) != KEY_BYTES:
        raise ActionRefused(f"{path}: expected a key of {KEY_BYTES} bytes, got {len(key)}")
    return key
