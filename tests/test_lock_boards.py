"""The frames of the lock boards, and what each kind has of its own."""

from pathlib import Path

import pytest

from drivers.base import ActionRefused, Unconfirmed
from drivers.bcc import BccCodec
from drivers.bcc import Frame as Bcc
from drivers.boards import BoardsDriver
from drivers.cu12 import Ask, Cu12Codec
from drivers.cu12 import Frame as Cu12
from drivers.cu48 import Cu48Codec
from drivers.cu48 import Frame as Cu48
from drivers.winnsen import Frame as Winnsen
from drivers.winnsen import WinnsenCodec
from drivers.wkly import Frame as Wkly
from drivers.wkly import WklyCodec
from simulators.base import Faults
from simulators.bcc import BccBus
from simulators.cu12 import Cu12Bus
from simulators.winnsen import WinnsenBus
from simulators.wkly import WklyBus
from tests.bus_bench import at_work, bus_bench, hook
from tests.codec_law import obey

# Samples as vendors and public projects print them; every checksum is right.
CU48 = [
    ("02 00 00 60 03 65", Cu48(0, 0, 0x60)),
    ("02 00 00 61 03 66", Cu48(0, 0, 0x61)),
    ("02 00 00 75 06 FF FF FF FF FF FF 77", Cu48(0, 0, 0x75, b"\xff" * 6)),
    ("02 00 07 75 00 7E", Cu48(0, 7, 0x75)),
]
CU12 = [
    ("02 00 00 80 00 00 03 85", Cu12(0, 0, 0x80)),
    ("02 00 00 80 10 02 03 99 02 00", Cu12(0, 0, 0x80, Ask.DONE, b"\x02\x00")),
    ("02 00 02 81 10 00 03 98", Cu12(0, 2, 0x81, Ask.DONE)),
]
BCC_SENT = [
    ("8A 01 01 11 9B", Bcc(0x8A, 1, b"\x01\x11")),
]
BCC = [
    *BCC_SENT,
    ("8A 01 0B 00 80", Bcc(0x8A, 1, b"\x0b\x00")),
    ("80 01 01 01 01 33 B3", Bcc(0x80, 1, b"\x01\x01\x01")),
    ("80 01 00 00 02 33 B0", Bcc(0x80, 1, b"\x00\x00\x02")),
    ("82 01 03 00 80", Bcc(0x82, 1, b"\x03\x00")),
    ("82 01 03 11 91", Bcc(0x82, 1, b"\x03\x11")),
    ("80 02 FF FF FF FF 33 B1", Bcc(0x80, 2, b"\xff\xff\xff\xff")),
]
WKLY = [
    ("57 4B 4C 59 09 00 82 01 83", Wkly(0, 0x82, b"\x01")),
    ("57 4B 4C 59 0B 00 82 00 01 00 81", Wkly(0, 0x82, b"\x00\x01\x00")),
    ("57 4B 4C 59 0A 00 81 00 01 83", Wkly(0, 0x81, b"\x00\x01")),
    ("57 4B 4C 59 0B 01 82 00 04 00 85", Wkly(1, 0x82, b"\x00\x04\x00")),
    ("57 4B 4C 59 0E 00 96 00 00 00 FF FF 01 90", Wkly(0, 0x96, b"\x00\x00\x00\xff\xff\x01")),
]
WINNSEN = [
    ("90 06 05 01 01 03", Winnsen(0x05, 1, b"\x01")),
    ("90 07 02 01 FF FF 03", Winnsen(0x02, 1, b"\xff\xff")),
    ("90 07 82 01 01 00 03", Winnsen(0x82, 1, b"\x01\x00")),
    ("90 07 85 01 01 01 03", Winnsen(0x85, 1, b"\x01\x01")),
]


def test_the_cu48_codec_obeys_the_law() -> None:
    obey(Cu48Codec, [(bytes.fromhex(raw), frame) for raw, frame in CU48], checksummed=True, limit=12)


def test_the_cu12_codec_obeys_the_law() -> None:
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in CU12]
    obey(Cu12Codec, vectors, checksummed=True, limit=24)


def test_the_bcc_codec_obeys_the_law() -> None:
    """Garbage of its own: the usual one holds a header of this family."""
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in BCC]
    obey(lambda: BccCodec({1: 3, 2: 4}), vectors, checksummed=True, limit=11, garbage=b"\x01\x33\x11")


def test_the_wkly_codec_obeys_the_law() -> None:
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in WKLY]
    over_long = b"WKLY\xff" + bytes(250)
    obey(WklyCodec, vectors, checksummed=True, limit=64, over_long=over_long)


def test_the_winnsen_codec_obeys_the_law() -> None:
    vectors = [(bytes.fromhex(raw), frame) for raw, frame in WINNSEN]
    obey(WinnsenCodec, vectors, checksummed=False, limit=7)


@pytest.mark.parametrize(("raw", "frame"), [*CU48, *CU12, *BCC, *WKLY, *WINNSEN])
def test_frames_are_written_as_in_the_samples(raw: str, frame: Cu48 | Cu12 | Bcc | Wkly | Winnsen) -> None:
    assert frame.encode() == bytes.fromhex(raw)


@pytest.mark.parametrize(
    ("codec", "raw", "reason"),
    [
        (Cu48Codec(), "02 00 00 75 05 FF FF FF FF FF 7F", "command"),
        (Cu12Codec(), "02 00 00 80 10 02 04 99 02 00", "trailer"),
        (BccCodec({1: 3}), "80 07 01 01 01 33 B5", "board"),
        (BccCodec({1: 3}), "80 01 01 01 01 32 B2", "trailer"),
        (BccCodec({1: 3}), "8A 01 01 22 A8", "state"),
        (WklyCodec(), "57 4B 4C 59 07 00 00 0E", "length"),
        (WinnsenCodec(), "90 08 85 01 01 01 03", "length"),
        (WinnsenCodec(), "90 07 85 01 01 02 03", "state"),
        (WinnsenCodec(), "90 07 82 01 01 00 04", "trailer"),
    ],
)
def test_what_no_board_says_is_counted_by_its_reason(
    codec: Cu48Codec | Cu12Codec | BccCodec | WklyCodec | WinnsenCodec, raw: str, reason: str
) -> None:
    assert codec.feed(bytes.fromhex(raw)) == []
    assert codec.noise[reason] >= 1


def test_an_xor_over_the_payload_alone_is_no_wkly_frame() -> None:
    """As several programs have it: it agrees by chance when the length is 9, and never else."""
    assert WklyCodec().feed(bytes.fromhex("57 4B 4C 59 0A 00 81 00 01 80")) == []


def test_the_other_header_of_wkly_firmware_is_read() -> None:
    raw = bytearray(bytes.fromhex("53 4B 4C 59 0B 00 82 00 01 00"))
    checksum = 0
    for byte in raw:
        checksum ^= byte
    assert WklyCodec().feed(bytes(raw) + bytes([checksum])) == [Wkly(0, 0x82, b"\x00\x01\x00")]


# -- CU12 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [Ask.UNKNOWN_COMMAND, Ask.BAD_CHECKSUM])
async def test_a_command_that_a_cu12_did_not_understand_is_refused(tmp_path: Path, ask: Ask) -> None:
    bus = Cu12Bus(tmp_path / "bus", {0: 12})
    bus.refusals = [ask]
    async with at_work(bus, "cu12") as made:
        with pytest.raises(ActionRefused, match=ask.name.lower()):
            await made.open(3)
        assert bus.door(0, 3).pulses == 0


@pytest.mark.parametrize("ask", [Ask.FAILED, Ask.TIMED_OUT])
async def test_a_failure_that_a_cu12_tells_leaves_the_pulse_in_doubt(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus = Cu12Bus(tmp_path / "bus", {0: 12})
    bus.refusals = [ask]
    async with at_work(bus, "cu12") as made:
        with pytest.raises(Unconfirmed):
            await made.open(3)


# -- 8A/80 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jammed", [False, True])
async def test_either_answer_to_an_8a_unlock_shows_that_the_pulse_was_accepted(
    tmp_path: Path, jammed: bool
) -> None:
    """Also "still closed", which is the command byte for byte, once no echo can be mistaken for it."""
    bus = BccBus(tmp_path / "bus", {1: 24}, Faults(echo=True))
    if jammed:
        bus.door(1, 5).jam()
    async with at_work(bus, "bcc") as made:
        await made.open(5)
        assert bus.door(1, 5).pulses == 1


async def test_a_board_that_looks_at_the_lock_before_it_answers_is_waited_for(tmp_path: Path) -> None:
    bus = BccBus(tmp_path / "bus", {1: 24})
    bus.door(1, 5).jam()
    bus.thinks = 0.4
    async with at_work(bus, "bcc", answer_ms=100) as made:
        await made.open(5)


@pytest.mark.parametrize(
    ("locks", "said", "configured"),
    [(8, 3, None), (12, 3, None), (18, 3, None), (24, 3, None), (32, 4, None), (50, 7, None), (8, 2, 2)],
)
async def test_the_bytes_of_state_are_the_boards_affair(
    tmp_path: Path, locks: int, said: int, configured: int | None
) -> None:
    bus = BccBus(tmp_path / "bus", {1: locks})
    bus.status_bytes = said
    bus.door(1, locks).force()
    board = {"address": 1, "locks": locks, "status_bytes": configured}
    async with bus_bench(bus, "bcc", boards=(board,)) as made:
        assert (await made.driver.identify())["open"] == str(locks)


async def test_a_notice_that_nobody_asked_for_disturbs_nothing(tmp_path: Path) -> None:
    bus = BccBus(tmp_path / "bus", {1: 24})
    async with at_work(bus, "bcc") as made:
        bus.door(1, 3).force()
        bus.notice(1, 3)
        assert await made.next() == hook(3, "open")
        bus.door(1, 3).slam()
        assert await made.next() == hook(3, "closed")
        assert made.driver.noise["unasked"] == 1


# -- WKLY -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [b"WKLY", b"SKLY"])
@pytest.mark.parametrize("echo", [False, True])
async def test_a_wkly_board_of_fifty_locks_is_one_long_frame(
    tmp_path: Path, begin: bytes, echo: bool
) -> None:
    bus = WklyBus(tmp_path / "bus", {0: 50}, Faults(echo=echo))
    bus.begin = begin
    async with at_work(bus, "wkly", boards=({"address": 0, "locks": 50},)) as made:
        await made.open(50)
        assert await made.next() == hook(50, "open")


async def test_a_failure_that_a_wkly_board_tells_leaves_the_pulse_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus = WklyBus(tmp_path / "bus", {0: 3})
    bus.door(0, 2).jam()
    async with at_work(bus, "wkly", boards=({"address": 0, "locks": 3},)) as made:
        with pytest.raises(Unconfirmed):
            await made.open(2)
        assert bus.door(0, 2).pulses == 1


async def test_a_switch_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    bus = WklyBus(tmp_path / "bus", {0: 3})
    bus.unreadable = {(0, 2)}
    async with bus_bench(bus, "wkly", boards=({"address": 0, "locks": 3},)) as made:
        made.run()
        assert await made.found(2) == [hook(1, "closed", first=True), hook(3, "closed", first=True)]
        bus.unreadable.clear()
        assert await made.next() == hook(2, "closed", first=True)
        bus.notice(0, 2)
        bus.door(0, 1).force()
        assert await made.next() == hook(1, "open")


# -- Winnsen ----------------------------------------------------------------------------------------


async def test_the_firmware_that_tells_single_locks_only_is_asked_one_by_one(tmp_path: Path) -> None:
    bus = WinnsenBus(tmp_path / "bus", {1: 3})
    bus.one_by_one = True
    board = {"address": 1, "locks": 3, "one_by_one": True}
    async with at_work(bus, "winnsen", boards=(board,)) as made:
        await made.open(3)
        assert await made.next() == hook(3, "open")


async def test_a_lock_that_cools_down_leaves_the_second_pulse_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus = WinnsenBus(tmp_path / "bus", {1: 3})
    async with at_work(bus, "winnsen", boards=({"address": 1, "locks": 3},)) as made:
        await made.open(2)
        await made.until(hook(2, "open"))
        bus.door(1, 2).slam()
        await made.until(hook(2, "closed"))
        with pytest.raises(Unconfirmed):
            await made.open(2)
        assert bus.door(1, 2).pulses == 1


async def test_a_yes_that_the_lock_itself_does_not_confirm_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus = WinnsenBus(tmp_path / "bus", {1: 3})
    bus.door(1, 2).jam()
    bus.lies = 1
    async with at_work(bus, "winnsen", boards=({"address": 1, "locks": 3},)) as made:
        with pytest.raises(Unconfirmed):
            await made.open(2)


async def test_an_answer_that_names_another_lock_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoardsDriver, "WATCH_S", 0.1)
    bus = WinnsenBus(tmp_path / "bus", {1: 3})
    bus.door(1, 2).force()
    bus.names = 3
    async with at_work(bus, "winnsen", boards=({"address": 1, "locks": 3},), answer_ms=200) as made:
        with pytest.raises(Unconfirmed):
            await made.open(2)


async def test_a_level_seen_only_once_is_not_believed_without_a_checksum(tmp_path: Path) -> None:
    bus = WinnsenBus(tmp_path / "bus", {1: 3})
    async with at_work(bus, "winnsen", boards=({"address": 1, "locks": 3},)) as made:
        question = bytes.fromhex("90 07 02 01")
        await bus.asked_for(question)
        bus.door(1, 1).force()
        await bus.asked_for(question)
        bus.door(1, 1).slam()
        bus.door(1, 3).force()
        assert await made.next() == hook(3, "open")
        assert made.readings.empty()
