"""Lines of text from scanners: the codec alone, then the driver against a scanner on a real pty."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from drivers.base import Unsupported
from drivers.line import CAP, LineCodec, LineDriver, LineOptions, aim_identifier
from drivers.port import Address, PortGone, open_port
from drivers.readings import (
    Action,
    EnableScanning,
    Reading,
    Scanned,
    SetPower,
    Signal,
    Tone,
    Trigger,
)
from simulators.line import LineScanner
from tests.codec_law import obey

GS1 = b"]C10109501101530003\x1d10ABC"


def codec(**options: Any) -> LineCodec:
    return LineCodec(LineOptions(**options))


# -- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "end"),
    [
        ("any", b"\r"),
        ("any", b"\n"),
        ("any", b"\r\n"),
        ("any", b"\x03"),
        ("cr", b"\r"),
        ("cr", b"\r\n"),
        ("lf", b"\n"),
        ("lf", b"\r\n"),
        ("crlf", b"\r\n"),
        ("tab", b"\t"),
        ("etx", b"\x03"),
    ],
)
def test_the_codec_law_holds_for_every_suffix(suffix: str, end: bytes) -> None:
    texts = [b"5449000000996", GS1, b"A" * 40, "Straße".encode()]
    vectors = [(text + end, text) for text in texts]
    obey(
        lambda: codec(suffix=suffix, cap=40),
        vectors,
        checksummed=False,
        limit=40 + 4,
        over_long=b"B" * 5000 + end,
        garbage=b"\0\0",
    )


@pytest.mark.parametrize(
    ("options", "sent", "lines"),
    [
        pytest.param({}, b"\x02ABC\x03", [b"ABC"], id="STX and ETX"),
        pytest.param({}, b"\x02ABC\x03\r\n", [b"ABC"], id="STX, ETX and CR LF"),
        pytest.param({"prefix": "@1:"}, b"@1:ABC\r", [b"ABC"], id="a prefix is taken off"),
        pytest.param({"prefix": "@1:"}, b"ABC\r", [b"ABC"], id="a missing prefix is not missed"),
        pytest.param({"prefix": "@"}, b"\x02@@A\r", [b"@A"], id="a prefix is taken off once, after STX"),
        pytest.param({}, b"AB\tC\r", [b"AB\tC"], id="TAB is data unless asked for"),
        pytest.param({"suffix": "tab"}, b"A\rB\nC\t", [b"A\rB\nC"], id="with TAB, CR and LF are data"),
        pytest.param({"suffix": "etx"}, b"A\r\nB\x03", [b"A\r\nB"], id="with ETX, CR LF is data"),
        pytest.param({"suffix": "crlf"}, b"A\rB\nC\r\n", [b"A\rB\nC"], id="with CR LF, each alone is data"),
        pytest.param({}, b"\r\n\r\r\n\x03", [], id="empty lines are nothing"),
        pytest.param({"prefix": "P"}, b"P\r\x02\x03", [], id="framing without content is nothing"),
        pytest.param(
            {}, b"[)>\x1e06\x1d1P\x1c\x1f\x04\r", [b"[)>\x1e06\x1d1P\x1c\x1f\x04"], id="RS GS FS US EOT"
        ),
        pytest.param({}, b"\x99\x88\xff\x11\x13\r", [b"\x99\x88\xff\x11\x13"], id="any byte is kept"),
        pytest.param({"gs": "<GS>"}, b"10AB<GS>21X\r", [b"10AB\x1d21X"], id="a substitute becomes GS"),
        pytest.param({"gs": "|"}, b"10AB|21X|\r", [b"10AB\x1d21X\x1d"], id="every substitute"),
        pytest.param({}, b"10AB<GS>21X\r", [b"10AB<GS>21X"], id="a substitute is never guessed"),
    ],
)
def test_what_stands_between_prefix_and_suffix_is_the_line(
    options: dict[str, Any], sent: bytes, lines: list[bytes]
) -> None:
    whole = codec(**options)
    assert whole.feed(sent) == lines
    assert not whole.waiting
    bytewise = codec(**options)
    assert [line for byte in sent for line in bytewise.feed(bytes([byte]))] == lines


def test_nuls_of_a_break_are_counted_and_are_no_line() -> None:
    scanner = codec()
    assert scanner.feed(b"\0\0\0\r\0ABC\r") == [b"ABC"]
    assert scanner.noise == {"nul": 4}


def test_a_nul_within_a_line_is_kept() -> None:
    assert codec().feed(b"A\0B\r") == [b"A\0B"]


def test_an_endless_break_is_no_over_long_line() -> None:
    scanner = codec(cap=10)
    assert scanner.feed(b"\0" * 100) == []
    assert scanner.feed(b"ABC\r") == [b"ABC"]
    assert scanner.noise == {"nul": 100}


@pytest.mark.parametrize("suffix", ["any", "crlf"])
def test_an_over_long_line_is_counted_once_and_thrown_away_up_to_its_end(suffix: str) -> None:
    scanner = codec(suffix=suffix)
    cuts = [b"A" * 5000, b"B" * 5000, b"tail\r", b"\nABC\r\n"]
    assert [line for cut in cuts for line in scanner.feed(cut)] == [b"ABC"]
    assert scanner.noise == {"too_long": 1}
    assert not scanner.waiting


def test_the_longest_barcode_fits_with_all_its_framing() -> None:
    label = b"]Q1" + b"7" * CAP
    bytewise = codec(prefix="scanner-1:")
    sent = b"\x02scanner-1:" + label + b"\r"
    assert [line for byte in sent for line in bytewise.feed(bytes([byte]))] == [label]


def test_one_character_more_than_the_longest_barcode_does_not_fit() -> None:
    scanner = codec()
    assert scanner.feed(b"7" * (CAP + 1) + b"\rABC\r") == [b"ABC"]
    assert scanner.noise == {"too_long": 1}


def test_silence_ends_a_line_that_has_no_suffix() -> None:
    scanner = codec(suffix="none", idle_ms=50)
    assert scanner.feed(b"AB") == []
    assert scanner.feed(b"C\r\nD") == []
    assert scanner.silence() == [b"ABC\r\nD"]
    assert scanner.silence() == []


def test_silence_ends_an_over_long_line_too() -> None:
    scanner = codec(suffix="none", idle_ms=50, cap=3)
    assert scanner.feed(b"ABCDEFGHIJK") == []
    assert scanner.feed(b"\0") == []
    assert scanner.waiting
    assert scanner.silence() == []
    assert scanner.feed(b"ABC") == []
    assert scanner.silence() == [b"ABC"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"]C10109501101530003", "]C1"),
        (b"]d2010", "]d2"),
        (b"]E05449000000996", "]E0"),
        (b"]X0", "]X0"),
        (b"5449]C1", None),
        (b"]C", None),
        (b"]11x", None),
        (b"]C x", None),
        (b"", None),
    ],
)
def test_an_aim_identifier_is_told_only_from_the_front(data: bytes, told: str | None) -> None:
    assert aim_identifier(data) == told


# -- the options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"suffix": "none"},
        {"suffix": "cr", "idle_ms": 50},
        {"suffix": "none", "idle_ms": 19},
        {"suffix": "none", "idle_ms": 2001},
        {"cap": 0},
        {"cap": CAP + 1},
        {"gs": ""},
        {"gs": "\x1d"},
        {"prefix": "ü"},
        {"suffix": "nul"},
        {"commands": "zebra"},
        {"colour": "red"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LineOptions(**options)


# -- the driver -----------------------------------------------------------------------------------


@dataclass
class Bench:
    driver: LineDriver
    readings: asyncio.Queue[Reading]
    work: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(10):
            return await self.readings.get()


@contextlib.asynccontextmanager
async def reading(scanner: LineScanner, **options: Any) -> AsyncIterator[Bench]:
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    with scanner:
        port = await open_port(Address.parse(str(scanner.name)), baud=9600)
        driver = LineDriver(port, readings.put, LineOptions(**options))
        assert await driver.identify() == {}
        work = asyncio.create_task(driver.run())
        try:
            yield Bench(driver, readings, work)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, PortGone):
                await work
            port.close()


async def test_a_scan_is_emitted_with_the_identifier_the_scanner_told(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.scan("0109501101530003\x1d10ABC", aim="]C1")
        assert await bench.next() == Scanned(data=GS1, symbology="]C1")
        scanner.scan("5449000000996")
        assert await bench.next() == Scanned(data=b"5449000000996")


async def test_a_pause_does_not_cut_a_line_that_has_a_suffix(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", suffix=b"\r\n")
    scanner.faults.byte_gap = 0.06
    async with reading(scanner, suffix="crlf") as bench:
        scanner.scan("1234")
        assert await bench.next() == Scanned(data=b"1234")
        assert not bench.driver.noise


async def test_scans_are_emitted_byte_by_byte_and_in_order(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", prefix=b"\x02", suffix=b"\x03\r\n")
    scanner.faults.byte_gap = -1
    async with reading(scanner) as bench:
        for number in range(20):
            scanner.scan(f"label {number}")
        for number in range(20):
            assert await bench.next() == Scanned(data=b"label %d" % number)


async def test_without_a_suffix_silence_ends_each_scan(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", suffix=b"")
    async with reading(scanner, suffix="none", idle_ms=20) as bench:
        for label in (b"first", b"second"):
            scanner.scan(label)
            assert await bench.next() == Scanned(data=label)


async def test_noise_before_a_scan_is_counted(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner")
    scanner.faults.garbage = b"\0\0\r\0"
    async with reading(scanner) as bench:
        scanner.scan("ABC")
        assert await bench.next() == Scanned(data=b"ABC")
        assert bench.driver.noise == {"nul": 3}


async def test_a_mute_scanner_emits_nothing(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.faults.mute = True
        scanner.scan("unheard")
        scanner.faults.mute = False
        scanner.scan("heard")
        assert await bench.next() == Scanned(data=b"heard")


async def test_a_scanner_unplugged_within_a_line_emits_nothing_and_is_gone(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.faults.halve_next = 1
        scanner.scan("half of this")
        scanner.unplug()
        with pytest.raises(PortGone):
            await bench.work
        assert bench.readings.empty()


async def obeyed(scanner: LineScanner) -> None:
    async with asyncio.timeout(10):
        await scanner.obeyed.wait()
    scanner.obeyed.clear()


@pytest.mark.parametrize(
    ("speaks", "tone", "heard"),
    [
        ("honeywell", Tone.GOOD, "good"),
        ("honeywell", Tone.BAD, "bad"),
        ("honeywell", Tone.ASK, "ask"),
        ("datalogic", Tone.GOOD, "good"),
        ("datalogic", Tone.BAD, "bad"),
        ("datalogic", Tone.ASK, "bad"),
    ],
)
async def test_every_tone_is_heard_and_only_good_sounds_good(
    tmp_path: Path, speaks: str, tone: Tone, heard: str
) -> None:
    scanner = LineScanner(tmp_path / "scanner", speaks=speaks)
    async with reading(scanner, commands=speaks) as bench:
        await bench.driver.perform(Signal(tone=tone))
        await obeyed(scanner)
        assert scanner.tones == [heard]
        assert not scanner.misheard


@pytest.mark.parametrize(
    ("commands", "action", "sent"),
    [
        ("honeywell", Trigger(pulled=True), "16 54 0D"),
        ("honeywell", Trigger(pulled=False), "16 55 0D"),
        ("datalogic", EnableScanning(enabled=True), "45"),
        ("datalogic", EnableScanning(enabled=False), "44"),
        ("datalogic", Signal(tone=Tone.GOOD), "01"),
        ("datalogic", Signal(tone=Tone.BAD), "46 45"),
    ],
)
async def test_commands_are_those_of_the_manual(
    tmp_path: Path, commands: str, action: Action, sent: str
) -> None:
    scanner = Listener(tmp_path / "scanner")
    async with reading(scanner, commands=commands) as bench:
        await bench.driver.perform(action)
        assert await scanner.hear(len(bytes.fromhex(sent))) == bytes.fromhex(sent)


class Listener(LineScanner):
    """Keeps what the host says."""

    def __init__(self, name: Path) -> None:
        super().__init__(name)
        self._bytes: asyncio.Queue[int] = asyncio.Queue()

    def received(self, data: bytes) -> None:
        for byte in data:
            self._bytes.put_nowait(byte)

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            return bytes([await self._bytes.get() for _ in range(count)])


async def test_the_trigger_follows_the_action(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", speaks="honeywell")
    async with reading(scanner, commands="honeywell") as bench:
        await bench.driver.perform(Trigger(pulled=True))
        await obeyed(scanner)
        assert scanner.triggered
        await bench.driver.perform(Trigger(pulled=False))
        await obeyed(scanner)
        assert not scanner.triggered


async def test_a_bad_tone_does_not_leave_the_scanner_stopped(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", speaks="datalogic")
    async with reading(scanner, commands="datalogic") as bench:
        await bench.driver.perform(Signal(tone=Tone.BAD))
        await obeyed(scanner)
        while not scanner.enabled:
            await obeyed(scanner)
        assert scanner.scan("ABC")
        assert await bench.next() == Scanned(data=b"ABC")


async def test_a_bad_tone_does_not_start_a_scanner_that_was_stopped(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", speaks="datalogic")
    async with reading(scanner, commands="datalogic") as bench:
        await bench.driver.perform(EnableScanning(enabled=False))
        await bench.driver.perform(Signal(tone=Tone.BAD))
        await bench.driver.perform(Signal(tone=Tone.GOOD))
        while scanner.tones != ["bad", "good"]:
            await obeyed(scanner)
        assert not scanner.scan("ABC")


@pytest.mark.parametrize(
    ("commands", "performs"),
    [
        ("none", set()),
        ("honeywell", {Signal, Trigger}),
        ("datalogic", {Signal, EnableScanning}),
    ],
)
async def test_a_driver_performs_what_its_commands_can(
    tmp_path: Path, commands: str, performs: set[type]
) -> None:
    scanner = LineScanner(tmp_path / "scanner")
    async with reading(scanner, commands=commands) as bench:
        assert bench.driver.performs == performs
        with pytest.raises(Unsupported):
            await bench.driver.perform(SetPower(dbm=20.0))


async def test_bytes_that_are_no_command_are_misheard(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "scanner", speaks="honeywell")
    async with reading(scanner, commands="honeywell") as bench:
        await bench.driver.link.write(b"?\x16?")
        await bench.driver.perform(Trigger(pulled=True))
        await obeyed(scanner)
        assert scanner.misheard == b"?\x16?"
