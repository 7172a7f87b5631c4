"""SSI packets: the codec, the assembler, then the driver against a scanner on a real pty."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.base import ActionRefused, NoReply, Unsupported
from drivers.checksums import minus16
from drivers.port import Address, PortGone, open_port
from drivers.readings import EnableScanning, Reading, Scanned, SetPower, Signal, Tone, Trigger
from drivers.ssi import (
    ACK,
    CAP,
    LONGEST,
    NAK_RESEND,
    NEXT_PACKET,
    RESEND_SPAN,
    Assembler,
    Opcode,
    Packet,
    SsiCodec,
    SsiDriver,
    SsiOptions,
    framed,
)
from simulators.base import Faults
from simulators.ssi import MALFORMED_NAK, SsiScanner
from tests.codec_law import obey

ABC123 = bytes.fromhex("0B F3 00 00 03 41 42 43 31 32 33 FD A3")
ABC123_AGAIN = bytes.fromhex("0B F3 00 01 03 41 42 43 31 32 33 FD A2")
SCANNED = Scanned(data=b"ABC123", symbology="]C0")


def from_scanner(opcode: int, data: bytes, *, status: int = 0, source: int = 0) -> bytes:
    body = bytes([4 + len(data), opcode, source, status]) + data
    return body + minus16(body).to_bytes(2, "big")


# -- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "manual"),
    [
        (ACK, "04 D0 04 00 FF 28"),
        (NAK_RESEND, "05 D1 04 00 01 FF 25"),
        (framed(Opcode.BEEP, b"\x00"), "05 E6 04 00 00 FF 11"),
        (framed(Opcode.START_DECODE), "04 E4 04 00 FF 14"),
        (framed(Opcode.STOP_DECODE), "04 E5 04 00 FF 13"),
        (framed(Opcode.SCAN_ENABLE), "04 E9 04 00 FF 0F"),
        (framed(Opcode.SCAN_DISABLE), "04 EA 04 00 FF 0E"),
        (framed(Opcode.REQUEST_REVISION), "04 A3 04 00 FF 55"),
        (framed(Opcode.PARAM_SEND, b"\xff\xee\x01"), "07 C6 04 00 FF EE 01 FD 41"),
        (framed(Opcode.PARAM_SEND, b"\x00\x8a\x08", status=0x08), "07 C6 04 08 00 8A 08 FE 95"),
    ],
)
def test_packets_to_the_scanner_are_those_of_the_manual(sent: bytes, manual: str) -> None:
    assert sent == bytes.fromhex(manual)


@pytest.mark.parametrize(
    ("raw", "packet"),
    [
        ("04 D0 00 00 FF 2C", Packet(Opcode.ACK)),
        ("05 D1 00 00 06 FF 24", Packet(Opcode.NAK, b"\x06")),
        (ABC123.hex(), Packet(Opcode.DECODE_DATA, b"\x03ABC123")),
        (ABC123_AGAIN.hex(), Packet(Opcode.DECODE_DATA, b"\x03ABC123", 1)),
    ],
)
def test_packets_from_the_scanner_are_those_of_the_manual(raw: str, packet: Packet) -> None:
    assert SsiCodec().feed(bytes.fromhex(raw)) == [packet]


def test_the_codec_law_holds() -> None:
    longest = b"\x1c" + bytes(range(250))
    obey(
        SsiCodec,
        [
            (ABC123, Packet(Opcode.DECODE_DATA, b"\x03ABC123")),
            (ABC123_AGAIN, Packet(Opcode.DECODE_DATA, b"\x03ABC123", 1)),
            (bytes.fromhex("04 D0 00 00 FF 2C"), Packet(Opcode.ACK)),
            (bytes.fromhex("05 D1 00 00 06 FF 24"), Packet(Opcode.NAK, b"\x06")),
            (from_scanner(0xA4, b"NBRXXAAC 1 2"), Packet(Opcode.REPLY_REVISION, b"NBRXXAAC 1 2")),
            (from_scanner(0x73, b"\x00\xf3", source=2), Packet(Opcode.SEGMENT, b"\x00\xf3")),
            (from_scanner(0xF3, longest, status=2), Packet(Opcode.DECODE_DATA, longest, 2)),
        ],
        checksummed=True,
        limit=LONGEST,
    )


@pytest.mark.parametrize("raw", [MALFORMED_NAK, ABC123[:-1] + b"\xa2"])
def test_a_packet_with_a_wrong_sum_is_kept_as_spoilt(raw: bytes) -> None:
    codec = SsiCodec()
    assert codec.feed(raw) == []
    assert codec.spoilt == raw
    assert codec.noise["checksum"] == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"plain text of a scanner in raw mode\r", id="raw mode"),
        pytest.param(bytes.fromhex("04 D0 04 00 FF 28"), id="our own packet, echoed"),
        pytest.param(bytes.fromhex("03 D0 00 00 FF 2D"), id="a length below the header's"),
        pytest.param(from_scanner(0x42, b"x"), id="an opcode no decoder sends"),
    ],
)
def test_what_is_no_packet_of_a_decoder_is_noise_and_not_spoilt(raw: bytes) -> None:
    codec = SsiCodec()
    assert codec.feed(raw) == []
    codec.reset()
    assert codec.spoilt is None
    assert codec.noise.total() > 0


def test_a_packet_after_something_that_looked_like_a_header_is_read() -> None:
    assert SsiCodec().feed(b"\x05\xf3\x00" + ABC123) == [Packet(Opcode.DECODE_DATA, b"\x03ABC123")]


def test_only_the_first_spoilt_packet_is_kept() -> None:
    codec = SsiCodec()
    codec.feed(ABC123[:-1] + b"\xa2" + ABC123[:5])
    codec.reset()
    assert codec.spoilt == ABC123[:-1] + b"\xa2"


@pytest.mark.parametrize(("held", "spoilt"), [(3, None), (4, ABC123[:4]), (12, ABC123[:12])])
def test_half_a_packet_is_spoilt_once_its_header_is_there(held: int, spoilt: bytes | None) -> None:
    codec = SsiCodec()
    codec.feed(ABC123[:held])
    codec.reset()
    assert codec.spoilt == spoilt
    assert codec.noise == {"half_frame": 1}


# -- the assembler --------------------------------------------------------------------------------


def decode(text: bytes, *, code_type: int = 0x03, status: int = 0) -> Packet:
    return Packet(Opcode.DECODE_DATA, bytes([code_type]) + text, status)


def segment(index: int, text: bytes, *, size: int | None = None, code_type: int = 0x1C) -> Packet:
    told = b"" if size is None else bytes([0xF3, 0, 0, 0, 0, code_type, 0]) + size.to_bytes(2, "big")
    return Packet(Opcode.SEGMENT, bytes([index]) + told + text)


def assembled(*packets: Packet, suffix: bytes = b"") -> tuple[list[bytes], Counter[str]]:
    noise: Counter[str] = Counter()
    assembler = Assembler(noise, suffix)
    scans = [scan for packet in packets if (scan := assembler.take(packet, 100.0))]
    return [scan.data for scan in scans], noise


@pytest.mark.parametrize(
    ("code_type", "text", "symbology"),
    [
        (0x03, b"ABC123", "]C0"),
        (0x0A, b"40170725", "]E4"),
        (0x0B, b"5449000000996", "]E0"),
        (0x0F, b"0109501101530003", "]C1"),
        (0x19, b"A99991312345600", "]C0"),
        (0x30, b"0109501101530003", "]e0"),
        (0x01, b"CODE39", None),
        (0x08, b"012345678905", None),
        (0x1B, b"data matrix", None),
        (0xEE, b"unknown", None),
        (0x1B, b"]d2010950110153000310AB", "]d2"),
        (0x03, b"]C2ABC", "]C2"),
    ],
)
def test_the_identifier_is_told_where_one_is_certain(
    code_type: int, text: bytes, symbology: str | None
) -> None:
    scan = Assembler(Counter()).take(decode(text, code_type=code_type), 0.0)
    assert scan == Scanned(data=text, symbology=symbology)


@pytest.mark.parametrize(
    ("packets", "texts", "noise"),
    [
        pytest.param([decode(b"A"), decode(b"A", status=1)], [b"A"], {"resent": 1}, id="a resend is dropped"),
        pytest.param(
            [decode(b"A"), decode(b"A", status=1), decode(b"A", status=1)],
            [b"A"],
            {"resent": 2},
            id="so are two",
        ),
        pytest.param([decode(b"A"), decode(b"A")], [b"A", b"A"], {}, id="the same label scanned twice"),
        pytest.param([decode(b"A", status=1)], [b"A"], {}, id="a resend of what never came"),
        pytest.param([decode(b"A"), decode(b"B", status=1)], [b"A", b"B"], {}, id="a resend of another"),
        pytest.param(
            [decode(b"A"), decode(b"A", status=1, code_type=0x01)],
            [b"A", b"A"],
            {},
            id="a resend of another type",
        ),
        pytest.param(
            [decode(b"A", status=2), decode(b"B", status=2), decode(b"C")],
            [b"ABC"],
            {},
            id="continued packets",
        ),
        pytest.param(
            [decode(b"A", status=2), decode(b"A", status=3), decode(b"A")],
            [b"AA"],
            {"resent": 1},
            id="a resend within a message",
        ),
        pytest.param(
            [decode(b"A", status=2), decode(b"B", code_type=0x0B)],
            [b"B"],
            {"half_message": 1},
            id="a message cut off by another code",
        ),
        pytest.param(
            [decode(b"7" * 250, status=2)] * 28 + [decode(b"7" * 90), decode(b"ABC")],
            [b"ABC"],
            {"too_long": 1},
            id="over the cap there is nothing, not even the tail",
        ),
        pytest.param(
            [decode(b"7" * 250, status=2)] * 28 + [decode(b"7" * 89)],
            [b"7" * CAP],
            {},
            id="the longest label",
        ),
        pytest.param([Packet(Opcode.DECODE_DATA), decode(b"")], [], {"empty": 2}, id="no data"),
        pytest.param([segment(0, b"AB", size=4), segment(1, b"CD")], [b"ABCD"], {}, id="segments"),
        pytest.param(
            [segment(0, b"AB", size=4), segment(1, b"CDpad")], [b"ABCD"], {}, id="a filled last segment"
        ),
        pytest.param([segment(1, b"CD")], [], {"stray_segment": 1}, id="a segment without a first one"),
        pytest.param([Packet(Opcode.SEGMENT)], [], {"stray_segment": 1}, id="a segment without data"),
        pytest.param([segment(0, b"")], [], {"stray_segment": 1}, id="a first segment without a size"),
        pytest.param(
            [segment(0, b"AB", size=6), segment(2, b"EF")],
            [],
            {"half_message": 1, "stray_segment": 1},
            id="a segment is missing",
        ),
        pytest.param(
            [segment(0, b"AB", size=6), segment(0, b"XY", size=2)],
            [b"XY"],
            {"half_message": 1},
            id="begun anew",
        ),
        pytest.param(
            [segment(0, b"AB", size=6), decode(b"XY", code_type=0x1C)],
            [b"XY"],
            {"half_message": 1},
            id="a packet does not continue segments",
        ),
        pytest.param(
            [decode(b"AB", status=2, code_type=0x1C), segment(1, b"XY")],
            [],
            {"half_message": 1, "stray_segment": 1},
            id="a segment does not continue packets",
        ),
        pytest.param(
            [segment(0, b"7" * 240, size=9000)] + [segment(n, b"7" * 250) for n in range(1, 36)],
            [],
            {"too_long": 1, "stray_segment": 7},
            id="segments over the cap",
        ),
    ],
)
def test_packets_make_scans(packets: list[Packet], texts: list[bytes], noise: dict[str, int]) -> None:
    assert assembled(*packets) == (texts, noise)


def test_a_suffix_the_scanner_adds_is_taken_off() -> None:
    assert assembled(decode(b"ABC\r\n"), decode(b"ABC"), suffix=b"\r\n") == ([b"ABC", b"ABC"], {})


def test_long_after_a_scan_the_same_bytes_with_the_retransmit_bit_are_a_new_scan() -> None:
    assembler = Assembler(Counter())
    assert assembler.take(decode(b"A"), 0.0)
    assert assembler.take(decode(b"A", status=1), RESEND_SPAN - 0.1) is None
    assert assembler.take(decode(b"A", status=1), RESEND_SPAN)


def test_a_resend_of_a_spoilt_packet_is_a_new_scan_even_of_the_same_label() -> None:
    assembler = Assembler(Counter())
    assert assembler.take(decode(b"A"), 0.0)
    assembler.begun(b"\x06\xf3\x00\x00")
    assert assembler.take(decode(b"A", status=1), 1.0)


def test_a_spoilt_resend_makes_no_second_scan_of_the_next_resend() -> None:
    assembler = Assembler(Counter())
    assert assembler.take(decode(b"A"), 0.0)
    assembler.begun(b"\x06\xf3\x00\x01")
    assert assembler.take(decode(b"A", status=1), 1.0) is None


def test_a_message_is_not_continued_when_no_resend_could_come_any_more() -> None:
    noise: Counter[str] = Counter()
    assembler = Assembler(noise)
    assembler.take(decode(b"A", status=2), 0.0)
    assembler.take(decode(b"A", status=3), NEXT_PACKET - 0.1)
    assert assembler.take(decode(b"B", status=2), 2 * NEXT_PACKET - 0.2) is None
    assert assembler.take(decode(b"C"), 4 * NEXT_PACKET) == Scanned(data=b"C", symbology="]C0")
    assert noise == {"resent": 1, "half_message": 1}


# -- the driver -----------------------------------------------------------------------------------


@dataclass
class Bench:
    driver: SsiDriver
    about: dict[str, str]
    readings: asyncio.Queue[Reading]
    work: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(10):
            return await self.readings.get()


@contextlib.asynccontextmanager
async def driven(scanner: SsiScanner, **options: Any) -> AsyncIterator[SsiDriver]:
    """A driver on the open port; nobody has asked the scanner anything yet."""
    with scanner:
        port = await open_port(Address.parse(str(scanner.name)), baud=9600)
        readings: asyncio.Queue[Reading] = asyncio.Queue()
        try:
            yield SsiDriver(port, readings.put, SsiOptions(**options))
        finally:
            port.close()


@contextlib.asynccontextmanager
async def reading(scanner: SsiScanner, **options: Any) -> AsyncIterator[Bench]:
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    async with driven(scanner, **options) as driver:
        driver.emit = readings.put
        about = dict(await driver.identify())
        work = asyncio.create_task(driver.run())
        try:
            yield Bench(driver, about, readings, work)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, PortGone, NoReply):
                await work


async def test_the_scanner_is_woken_and_set_to_packeted_data_for_now_only(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        assert bench.about == {"revision": scanner.revision}
        assert scanner.parameters == {0xEE: 1, 0x38: 0}
        assert scanner.permanent_writes == 0
        assert scanner.requests[1] == bytes.fromhex("07 C6 04 00 FF EE 01 FD 41")


async def test_the_scanners_own_beep_is_left_on_when_asked(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner, own_beep=True):
        assert scanner.parameters[0x38] == 1


async def test_what_the_scanner_refuses_is_told(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    scanner.refuses = {0xA3: 2, 0x38: 6, 0xEE: 10}
    async with reading(scanner) as bench:
        assert bench.about == {"packeted": "param_send: cancelled", "own_beep": "param_send: denied"}


async def test_a_mute_scanner_makes_no_reply(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    scanner.faults.mute = True
    async with driven(scanner, answer_within=0.05) as driver:
        with pytest.raises(NoReply, match="request_revision"):
            await driver.identify()
        assert [request[3] for request in scanner.requests] == [0, 1, 1]


async def test_a_scan_is_acknowledged_and_emitted(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        assert await scanner.scan("ABC123")
        assert await bench.next() == SCANNED
        assert not bench.driver.noise


@pytest.mark.parametrize("segments", [False, True])
async def test_a_long_label_in_many_packets_is_one_scan(tmp_path: Path, segments: bool) -> None:
    scanner = SsiScanner(tmp_path / "scanner", segments=segments)
    label = bytes(range(256)) * 10
    async with reading(scanner) as bench:
        assert await scanner.scan(label, code_type=0x1C)
        assert await bench.next() == Scanned(data=label)
        assert scanner.acks == 11


async def test_a_label_over_the_cap_is_acknowledged_and_counted(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        assert await scanner.scan("7" * (CAP + 1), code_type=0x1C)
        assert await scanner.scan("ABC123")
        assert await bench.next() == SCANNED
        assert bench.driver.noise == {"too_long": 1}


async def test_a_scan_byte_by_byte_is_emitted(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.faults.byte_gap = -1
        assert await scanner.scan("ABC123")
        assert await bench.next() == SCANNED


async def test_noise_before_every_packet_costs_nothing_but_itself(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.faults.garbage = b"\x99\x88\x05\xf3\x00"
        assert await scanner.scan("ABC123")
        assert await bench.next() == SCANNED
        assert scanner.naks == []


@pytest.mark.parametrize("spoil", ["flip_next", "halve_next"])
async def test_a_spoilt_packet_is_asked_for_again_and_emitted_once(tmp_path: Path, spoil: str) -> None:
    in_the_text = Faults(seed=5)
    scanner = SsiScanner(tmp_path / "scanner", in_the_text, answer_within=5.0)
    async with reading(scanner) as bench:
        assert await scanner.scan("ABC123")
        setattr(scanner.faults, spoil, 1)
        assert await scanner.scan("ABC123")
        assert scanner.naks == [1]
        assert [await bench.next(), await bench.next()] == [SCANNED, SCANNED]
        assert bench.readings.empty()


async def test_a_lost_packet_is_emitted_when_it_is_sent_again(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner", answer_within=0.1)
    async with reading(scanner) as bench:
        scanner.faults.drop_next = 1
        assert await scanner.scan("ABC123")
        assert await bench.next() == SCANNED


async def test_a_scan_whose_acknowledgement_was_lost_is_emitted_once(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner", answer_within=0.1)
    async with reading(scanner) as bench:
        scanner.faults.deaf = True
        assert not await scanner.scan("ABC123")
        scanner.faults.deaf = False
        assert await scanner.scan("XYZ")
        assert await bench.next() == SCANNED
        assert await bench.next() == Scanned(data=b"XYZ", symbology="]C0")
        assert bench.driver.noise == {"resent": 2}


async def test_a_malformed_nak_is_counted_and_not_answered(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner, check_every=0.5) as bench:
        scanner.obeyed.clear()
        scanner.misbehave()
        async with asyncio.timeout(10):
            await scanner.obeyed.wait()
        assert scanner.requests[-1][1] == Opcode.PARAM_SEND
        assert scanner.naks == []
        assert bench.driver.noise["checksum"] == 1


async def test_events_are_acknowledged_and_other_packets_are_counted(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.send(from_scanner(Opcode.EVENT, b"\x03") + from_scanner(Opcode.BATCH, b""))
        assert await scanner.scan("ABC123")
        assert scanner.acks == 2
        assert bench.driver.noise == {"unasked": 2}


async def test_a_scanner_unplugged_within_a_packet_emits_nothing_and_is_gone(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.faults.halve_next = 1
        scan = scanner.scan("ABC123")
        scanner.unplug()
        with pytest.raises(PortGone):
            await bench.work
        assert not await scan
        assert bench.readings.empty()


@pytest.mark.parametrize(
    ("tone", "code"), [(Tone.GOOD, 0x00), (Tone.ASK, 0x01), (Tone.BAD, 0x07)], ids=["good", "ask", "bad"]
)
async def test_every_tone_is_heard(tmp_path: Path, tone: Tone, code: int) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        await bench.driver.perform(Signal(tone=tone))
        assert scanner.tones == [tone.value]
        assert scanner.beep_codes == [code]


async def test_scanning_is_enabled_and_disabled(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        await bench.driver.perform(EnableScanning(enabled=False))
        assert not await scanner.scan("ABC123")
        await bench.driver.perform(EnableScanning(enabled=True))
        assert await scanner.scan("ABC123")


async def test_the_trigger_is_pulled_and_released(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        await bench.driver.perform(Trigger(pulled=True))
        assert scanner.triggered
        await bench.driver.perform(Trigger(pulled=False))
        assert not scanner.triggered


async def test_a_command_the_scanner_denies_is_refused_with_the_cause(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.refuses = {0xE4: 2, 0xE5: 0x63}
        with pytest.raises(ActionRefused, match="start_decode: bad_context"):
            await bench.driver.perform(Trigger(pulled=True))
        with pytest.raises(ActionRefused, match="stop_decode: 63"):
            await bench.driver.perform(Trigger(pulled=False))


async def test_a_command_the_scanner_never_understands_has_no_reply(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        scanner.refuses = {0xE6: 1}
        with pytest.raises(NoReply, match="beep"):
            await bench.driver.perform(Signal(tone=Tone.GOOD))
        assert scanner.tones == []


async def test_an_action_it_does_not_know_is_unsupported(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        with pytest.raises(Unsupported):
            await bench.driver.perform(SetPower(dbm=20.0))


async def test_tones_and_scans_do_not_disturb_each_other(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner) as bench:
        for number in range(20):
            scan = scanner.scan(f"label {number}")
            await bench.driver.perform(Signal(tone=Tone.GOOD))
            assert await scan
            assert await bench.next() == Scanned(data=b"label %d" % number, symbology="]C0")
        assert len(scanner.tones) == 20


async def test_a_scanner_that_lost_its_power_unseen_is_set_to_packeted_again(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner, check_every=0.05, answer_within=0.3) as bench:
        scanner.powered()
        async with asyncio.timeout(10):
            while not await scanner.scan("ABC123"):
                await scanner.obeyed.wait()
                scanner.obeyed.clear()
        assert await bench.next() == SCANNED


async def test_a_scanner_that_falls_silent_is_noticed(tmp_path: Path) -> None:
    scanner = SsiScanner(tmp_path / "scanner")
    async with reading(scanner, check_every=0.05, answer_within=0.05) as bench:
        scanner.faults.mute = True
        async with asyncio.timeout(10):
            with pytest.raises(NoReply, match="param_send"):
                await bench.work
