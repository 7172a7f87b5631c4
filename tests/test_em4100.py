"""EM4100 badge readers: the codec on bytes, the driver on a real pty with a virtual reader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers.base import Unsupported
from drivers.em4100 import Em4100Codec, Em4100Driver, Em4100Options
from drivers.port import Address, PortGone, open_port
from drivers.presence import Presence
from drivers.readings import Reading, SetPower, TagArrived, TagLeft
from simulators.em4100 import Em4100Reader, Layout
from simulators.em4100 import frame as said_by_the_reader
from tests.codec_law import obey

NUMBER = bytes.fromhex("010063E9AE")
OTHER = bytes.fromhex("0C0012D687")

RDM6300 = bytes.fromhex("02 30 31 30 30 36 33 45 39 41 45 32 35 03")
ID12 = RDM6300[:-1] + b"\r\n\x03"
LOWER_CASE = b"\x02010063e9ae25\x03"
BINARY = bytes.fromhex("02 0A 02 06 00 8E 6D 5D B0 03")

SAMPLES = {
    "rdm6300": (RDM6300, NUMBER),
    "id-12": (ID12, NUMBER),
    "lower case": (LOWER_CASE, NUMBER),
    "binary": (BINARY, bytes.fromhex("06008E6D5D")),
}

REJECTED = {
    "checksum": bytes.fromhex("02 31 30 30 30 32 36 46 34 34 34 32 36 03"),
    "trailer": RDM6300[:-1] + b"\r",
    "not_hex": b"\x02010063G9AE25\x03",
    "tag_type": bytes.fromhex("02 0A 01 06 00 8E 6D 5D B3 03"),
}

samples = pytest.mark.parametrize(("raw", "number"), SAMPLES.values(), ids=SAMPLES.keys())


# -- the codec ------------------------------------------------------------------------------------


@samples
def test_a_sample_is_read(raw: bytes, number: bytes) -> None:
    assert Em4100Codec().feed(raw) == [number]


def test_the_printed_number_is_the_low_bytes_in_decimal() -> None:
    assert int.from_bytes(NUMBER[1:], "big") == 6547886
    assert (NUMBER[2], int.from_bytes(NUMBER[3:], "big")) == (99, 59822)


@pytest.mark.parametrize(("reason", "raw"), REJECTED.items(), ids=REJECTED.keys())
def test_a_bad_frame_is_counted_by_reason_and_costs_nothing_else(reason: str, raw: bytes) -> None:
    codec = Em4100Codec()
    assert codec.feed(raw + RDM6300) == [NUMBER]
    assert codec.noise[reason] == 1


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        ("trailer", ID12[:-1] + b"\x02"),
        ("trailer", BINARY[:-1] + b"\x04"),
        ("checksum", BINARY[:-2] + b"\xb1\x03"),
    ],
)
def test_the_other_layouts_are_checked_as_well(reason: str, raw: bytes) -> None:
    codec = Em4100Codec()
    assert codec.feed(raw) == []
    assert codec.noise[reason] == 1


def test_the_codec_obeys_the_law() -> None:
    # Bit flips have a test of their own, below.
    obey(
        Em4100Codec,
        list(SAMPLES.values()),
        checksummed=False,
        limit=Em4100Codec.LIMIT,
        over_long=b"\x02" + b"0" * 5000 + b"\x03",
    )


@samples
def test_no_flipped_bit_passes_but_one_that_changes_only_the_case(raw: bytes, number: bytes) -> None:
    # Bit 5 of an ASCII letter is its case, and readers send hex digits in either: that flip is no change.
    is_text = raw[1] != 0x0A
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        only_case = is_text and bit % 8 == 5 and chr(raw[bit // 8]).isalpha()
        assert Em4100Codec().feed(bytes(flipped)) == ([number] if only_case else [])


def test_a_frame_cut_short_does_not_cost_the_next_one() -> None:
    for cut in range(1, len(RDM6300)):
        assert Em4100Codec().feed(RDM6300[:cut] + RDM6300) == [NUMBER]


def test_a_number_that_holds_the_bytes_of_the_frame_is_read() -> None:
    number = bytes.fromhex("02030A0D02")
    assert Em4100Codec().feed(said_by_the_reader(number, "binary")) == [number]


# -- the driver -----------------------------------------------------------------------------------


@dataclass
class Service:
    driver: Em4100Driver
    readings: asyncio.Queue[Reading]
    running: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(5):
            return await self.readings.get()


@contextlib.asynccontextmanager
async def service(
    reader: Em4100Reader, *, presence_ms: int = 200, slow_inbox: float = 0.0
) -> AsyncIterator[Service]:
    """The driver running on the reader's port. Each reading takes `slow_inbox` seconds to hand on."""
    readings: asyncio.Queue[Reading] = asyncio.Queue()

    async def emit(reading: Reading) -> None:
        await readings.put(reading)
        await asyncio.sleep(slow_inbox)

    port = await open_port(Address.parse(str(reader.name)), baud=Em4100Driver.BAUD)
    driver = Em4100Driver(port, emit, Em4100Options(presence_ms=presence_ms))
    running = asyncio.create_task(driver.run())
    try:
        yield Service(driver, readings, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        port.close()


def arrived(number: bytes) -> TagArrived:
    return TagArrived(uid=number, technology="em4100")


def left(number: bytes) -> TagLeft:
    return TagLeft(uid=number, technology="em4100")


def after(seconds: float, hand: Callable[[], None]) -> None:
    """Somebody does something a little later."""
    asyncio.get_running_loop().call_later(seconds, hand)


@pytest.mark.parametrize("layout", ["rdm6300", "id12", "binary"])
@pytest.mark.parametrize("lower_case", [False, True])
async def test_a_badge_left_at_the_reader_is_one_reading(
    tmp_path: Path, layout: Layout, lower_case: bool
) -> None:
    with Em4100Reader(tmp_path / "badge", layout=layout, lower_case=lower_case) as reader:
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            after(0.3, reader.remove)
            assert [await at.next(), await at.next()] == [arrived(NUMBER), left(NUMBER)]
            assert reader.said >= 4
            assert at.readings.empty()
            assert not at.driver.noise


async def test_a_badge_that_comes_back_arrives_again(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            for _ in range(2):
                reader.present(NUMBER.hex())
                assert await at.next() == arrived(NUMBER)
                reader.remove()
                assert await at.next() == left(NUMBER)


async def test_a_badge_swapped_for_another_arrives_before_the_first_has_left(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.present(OTHER.hex())
            assert await at.next() == arrived(OTHER)
            assert await at.next() == left(NUMBER)


async def test_a_badge_is_read_byte_by_byte(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        reader.faults.byte_gap = -1
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.remove()
            assert await at.next() == left(NUMBER)


@pytest.mark.parametrize(
    "garbage", [b"\xff\x00", b"\x02", b"\x0201", b"\x02\x0a\x02", b"\x03"], ids=lambda g: g.hex()
)
async def test_a_badge_is_read_through_noise(tmp_path: Path, garbage: bytes) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        reader.faults.garbage = garbage
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            assert at.driver.noise.total() > 0


async def test_spoilt_repeats_are_counted_and_make_nobody_leave(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader, presence_ms=400) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.faults.flip_next = reader.faults.halve_next = 1
            after(0.3, reader.remove)
            assert await at.next() == left(NUMBER)
            assert at.driver.noise.total() > 0


async def test_half_a_frame_is_dropped_after_silence(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader, presence_ms=300) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.remove()
            reader.send(RDM6300[:6])
            assert await at.next() == left(NUMBER)
            assert at.driver.noise == {"half_frame": 1}
            assert not at.driver.codec.waiting


async def test_a_full_inbox_makes_nobody_leave(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader, presence_ms=100, slow_inbox=0.4) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            after(0.6, lambda: reader.present(OTHER.hex()))
            assert await at.next() == arrived(OTHER)
            assert await at.next() == left(NUMBER)


async def test_more_badges_than_can_be_followed_are_counted(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            at.driver.presence = Presence(0.2, capacity=1)
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.present(OTHER.hex())
            assert await at.next() == left(NUMBER)
            assert await at.next() == arrived(OTHER)
            assert at.driver.noise["too_many_tags"] >= 1


async def test_a_mute_reader_is_an_empty_field(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            assert await at.next() == arrived(NUMBER)
            reader.faults.mute = True
            assert await at.next() == left(NUMBER)
            assert not at.running.done()


async def test_the_reader_says_nothing_about_itself_and_is_not_waited_for(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            assert await at.driver.identify() == {}


async def test_a_reader_unplugged_in_the_middle_of_a_frame_is_gone(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        reader.faults.halve_next = 1
        async with service(reader) as at:
            reader.present(NUMBER.hex())
            after(0.02, reader.unplug)
            with pytest.raises(PortGone, match="gone"):
                await at.running
            assert at.driver.codec.waiting
            assert at.readings.empty()


async def test_a_reader_that_was_replugged_reads_on_another_node(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        reader.unplug()
        reader.present(NUMBER.hex())
        reader.plug()
        async with service(reader) as at:
            assert await at.next() == arrived(NUMBER)


async def test_it_cannot_be_asked_for_anything(tmp_path: Path) -> None:
    with Em4100Reader(tmp_path / "badge") as reader:
        async with service(reader) as at:
            with pytest.raises(Unsupported, match="em4100 cannot SetPower"):
                await at.driver.perform(SetPower(dbm=20))


@pytest.mark.parametrize("presence_ms", [0, 99, 60_001, "400"])
def test_a_presence_time_out_of_bounds_is_refused(presence_ms: object) -> None:
    with pytest.raises(ValidationError):
        Em4100Options.model_validate({"presence_ms": presence_ms})


# -- the virtual reader ---------------------------------------------------------------------------


def test_the_virtual_reader_says_what_was_captured() -> None:
    assert said_by_the_reader(NUMBER, "rdm6300") == RDM6300
    assert said_by_the_reader(NUMBER, "rdm6300", lower_case=True) == LOWER_CASE
    assert said_by_the_reader(NUMBER, "id12") == ID12
    assert said_by_the_reader(bytes.fromhex("06008E6D5D"), "binary") == BINARY


def test_a_badge_number_is_ten_digits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 10 hex digits, got '0063E9AE'"):
        Em4100Reader(tmp_path / "badge").present("0063E9AE")
