"""Scanners, keypads, badge readers and terminals that send lines of text.

There is no header, no length and no checksum: a line is what stands between two suffixes, and a framing
error on the wire is silent. What a line means is decided elsewhere; here it is cut, and nothing in it is
changed except that a configured substitute for GS becomes GS again.

Such a device cannot be asked who it is: its answer would come on the road the scans take and could not
be told from one. So `identify` asks nothing.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from drivers.base import Codec, Driver, Emit, Link, Options, Unsupported
from drivers.readings import Action, EnableScanning, Scanned, Signal, Tone, Trigger

Suffix = Literal["any", "cr", "lf", "crlf", "tab", "etx", "none"]

CAP = 7089
"""Characters in the longest barcode there is, a QR code of version 40 with digits only."""

GS = b"\x1d"
STX = b"\x02"
NOT_ON_FILE = b"F"
ENABLE = b"E"

# A single LF or CR that belongs to CR LF is part of the end, whichever of the two was configured.
_ENDS: dict[Suffix, re.Pattern[bytes]] = {
    "any": re.compile(rb"[\r\n\x03]"),
    "cr": re.compile(rb"\r"),
    "lf": re.compile(rb"\r?\n"),
    "crlf": re.compile(rb"\r\n"),
    "tab": re.compile(rb"\t"),
    "etx": re.compile(rb"\x03"),
    "none": re.compile(rb"(?!)"),
}

# ISO/IEC 15424: flag, code character, modifier. `]X0` is "other".
_AIM = re.compile(rb"\][A-Za-z][0-9A-Z]")

# Honeywell, "Host ACK Responses": ESC 7 is a good and ESC 8 an unsuccessful communication with the host,
# ESC a the double beep of an accepted menu change; "comma is the terminator". They are obeyed in Host ACK
# mode only. SYN T CR and SYN U CR press and release the trigger.
# Datalogic, "RS-232 Host Commands": 01 sounds the good-read tone "regardless of beep setting", F is "not
# on file", a long series of beeps. There is no third sound, and what asks must never sound like a good read.
COMMANDS: Mapping[str, Mapping[Action, bytes]] = {
    "none": {},
    "honeywell": {
        Signal(tone=Tone.GOOD): b"\x1b7,",
        Signal(tone=Tone.BAD): b"\x1b8,",
        Signal(tone=Tone.ASK): b"\x1ba,",
        Trigger(pulled=True): b"\x16T\r",
        Trigger(pulled=False): b"\x16U\r",
    },
    "datalogic": {
        Signal(tone=Tone.GOOD): b"\x01",
        Signal(tone=Tone.BAD): NOT_ON_FILE,
        Signal(tone=Tone.ASK): NOT_ON_FILE,
        EnableScanning(enabled=True): ENABLE,
        EnableScanning(enabled=False): b"D",
    },
}


class LineOptions(Options):
    """How one scanner was set up to send, and which commands it understands."""

    prefix: str = Field(
        "",
        max_length=32,
        pattern=r"^[\x01-\x7f]*$",
        description="ASCII text the device sends before each line; taken off where it is present",
    )
    suffix: Suffix = Field(
        "any", description="what ends a line; `any` is CR, LF, CR LF or ETX, but not TAB: labels may hold it"
    )
    idle_ms: int | None = Field(
        None,
        ge=20,
        le=2000,
        description="milliseconds of silence that end a line, with suffix `none` only; 50 to 100 is usual",
    )
    gs: str | None = Field(
        None,
        min_length=1,
        max_length=8,
        pattern=r"^[\x20-\x7e]+$",
        description="text the device sends in place of GS (hex 1D), such as `<GS>` or `|`; never guessed",
    )
    cap: int = Field(CAP, ge=1, le=CAP, description="characters a line may have, AIM identifier not counted")
    commands: Literal["none", "honeywell", "datalogic"] = Field(
        "none", description="language of the commands for tones, trigger and enabling"
    )

    @model_validator(mode="after")
    def _one_way_to_end_a_line(self) -> Self:
        if self.suffix == "none" and self.idle_ms is None:
            raise ValueError("suffix none needs idle_ms: without it no line would ever end")
        if self.suffix != "none" and self.idle_ms is not None:
            raise ValueError("idle_ms needs suffix none: a pause must not cut a line that has a suffix")
        return self


def aim_identifier(data: bytes) -> str | None:
    """The AIM symbology identifier that `data` begins with."""
    match = _AIM.match(data)
    return match[0].decode("ascii") if match else None


class LineCodec(Codec[bytes]):
    """Lines without prefix and suffix. Empty lines are nothing; over-long ones are counted, tail and all."""

    def __init__(self, options: LineOptions) -> None:
        super().__init__()
        self._end = _ENDS[options.suffix]
        # No label begins with NUL: it is how a break on the wire reads, as when a plug goes in. And with CR
        # as the end, an LF before a line is the rest of the CR LF before that.
        self._before_a_line = b"\0\n" if options.suffix == "cr" else b"\0"
        self._prefix = options.prefix.encode("ascii")
        self._gs = options.gs.encode("ascii") if options.gs else None
        self._cap = options.cap
        self._limit = options.cap + len(STX) + len(self._prefix) + len("]C1")
        self._discarding = False

    def feed(self, data: bytes) -> list[bytes]:
        held = len(self._buffer)
        text = bytes(self._buffer) + data
        lines: list[bytes] = []
        begin = 0
        # A CR LF may have been cut in two, so the last byte held is looked at again.
        for end in self._end.finditer(text, max(0, held - 1)):
            self._finish(text[begin : end.start()], lines)
            begin = end.end()
        self._hold(text[begin:])
        return lines

    def silence(self) -> list[bytes]:
        """The line that a pause has ended, if one is held: for scanners that send no suffix."""
        lines: list[bytes] = []
        self._finish(bytes(self._buffer), lines)
        self._buffer.clear()
        return lines

    def reset(self) -> None:
        super().reset()
        self._discarding = False

    def _hold(self, rest: bytes) -> None:
        if not self._discarding:
            rest = self._begin(rest)
            if len(rest) > self._limit:
                self.noise["too_long"] += 1
                self._discarding = True
        # Of a line that is being thrown away the last byte is enough: it may be the first half of its end.
        self._buffer[:] = rest[-1:] if self._discarding else rest

    def _finish(self, line: bytes, lines: list[bytes]) -> None:
        if self._discarding:
            self._discarding = False
            return
        text = self._begin(line).removeprefix(STX).removeprefix(self._prefix)
        if len(text) - len(aim_identifier(text) or "") > self._cap:
            self.noise["too_long"] += 1
        elif text:
            lines.append(text.replace(self._gs, GS) if self._gs else text)

    def _begin(self, text: bytes) -> bytes:
        line = text.lstrip(self._before_a_line)
        if nuls := text[: len(text) - len(line)].count(0):
            self.noise["nul"] += nuls
        return line


class LineDriver(Driver):
    """Emits every line as `Scanned`. What it can be asked to do depends on the commands the device knows."""

    kind = "line"
    OptionsType = LineOptions

    def __init__(self, link: Link, emit: Emit, options: LineOptions) -> None:
        super().__init__(link, emit, options)
        self.codec = LineCodec(options)
        self._commands = COMMANDS[options.commands]
        self.performs = frozenset(type(action) for action in self._commands)
        self._pause = None if options.idle_ms is None else options.idle_ms / 1000
        self._stopped = False

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        return {}

    async def run(self) -> None:
        while True:
            for line in await self._lines():
                await self.emit(Scanned(data=line, symbology=aim_identifier(line)))

    async def _lines(self) -> list[bytes]:
        try:
            async with asyncio.timeout(self._pause if self.codec.waiting else None):
                data = await self.link.read()
        except TimeoutError:
            return self.codec.silence()
        return self.codec.feed(data)

    async def perform(self, action: Action) -> None:
        request = self._commands.get(action)
        if request is None:
            raise Unsupported(f"commands {self.options.commands}: no {type(action).__name__}")
        if isinstance(action, EnableScanning):
            self._stopped = not action.enabled
        if request == NOT_ON_FILE and not self._stopped:
            # Magellan 800i: "Illumination disabled ... Must send the E command to re-enable scanner."
            request += ENABLE
        await self.link.write(request)
