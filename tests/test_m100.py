"""UHF modules that speak `BB .. 7E`: codec and tags on bytes, the driver on a real pty with a virtual one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers.base import ActionRefused, BadFrame, NoReply, Unsupported
from drivers.m100 import ANSWER, COMMAND, NOTICE, Frame, M100Codec, M100Driver, M100Options, Tag
from drivers.port import Address, PortGone, open_port
from drivers.presence import Presence
from drivers.readings import EnableScanning, Reading, SetPower, TagArrived, TagLeft, Trigger
from simulators.m100 import M100Reader, VirtualTag
from simulators.m100 import frame as said_by_the_module
from tests.codec_law import obey

EPC = "30751FEB705C5904E3D50D70"
OTHER = "E200001D731501652140" + "8FC6"
CONFUSING = "BB01FF000115167E" + "7EBB7EBB"
"""An EPC that holds the whole "no tag" frame."""
LONGEST = "BB7E" * 31

TAG = bytes.fromhex("BB 02 22 00 11 C9 34 00 30 75 1F EB 70 5C 59 04 E3 D5 0D 70 3A 76 EF 7E")
OTHER_TAG = bytes.fromhex("BB 02 22 00 11 C4 30 00 E2 00 00 1D 73 15 01 65 21 40 8F C6 B8 3E C2 7E")
NO_TAG = bytes.fromhex("BB 01 FF 00 01 15 16 7E")

SAMPLES = {
    "single inventory": ("BB 00 22 00 00 22 7E", Frame(COMMAND, 0x22)),
    "poll 10000 rounds": ("BB 00 27 00 03 22 27 10 83 7E", Frame(COMMAND, 0x27, b"\x22\x27\x10")),
    "stop": ("BB 00 28 00 00 28 7E", Frame(COMMAND, 0x28)),
    "power 20 dBm": ("BB 00 B6 00 02 07 D0 8F 7E", Frame(COMMAND, 0xB6, b"\x07\xd0")),
    "hardware?": ("BB 00 03 00 01 00 04 7E", Frame(COMMAND, 0x03, b"\x00")),
    "hardware": (
        "BB 01 03 00 0B 00 4D 31 30 30 20 56 31 2E 30 30 22 7E",
        Frame(ANSWER, 0x03, b"\x00M100 V1.00"),
    ),
    "tag": (TAG.hex(), Frame(NOTICE, 0x22, TAG[5:-2])),
    "second tag": (OTHER_TAG.hex(), Frame(NOTICE, 0x22, OTHER_TAG[5:-2])),
    "no tag": (NO_TAG.hex(), Frame(ANSWER, 0xFF, b"\x15")),
}


def report_of(epc_hex: str) -> bytes:
    epc = bytes.fromhex(epc_hex)
    return VirtualTag(epc, -55, len(epc) // 2 << 11).report()


# -- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "frame"), SAMPLES.values(), ids=SAMPLES.keys())
def test_a_sample_is_read_and_written(raw: str, frame: Frame) -> None:
    assert M100Codec().feed(bytes.fromhex(raw)) == [frame]
    assert frame.encode() == bytes.fromhex(raw)


def test_the_codec_obeys_the_law() -> None:
    # Not with a whole frame inside: nothing is escaped, so that one shows when the outer header is spoilt.
    reports = [Frame(NOTICE, 0x22, report_of(epc)) for epc in ("BB02220011C97E7E", LONGEST)]
    obey(
        M100Codec,
        [(frame.encode(), frame) for _, frame in SAMPLES.values()] + [(f.encode(), f) for f in reports],
        checksummed=True,
        limit=M100Codec.LIMIT,
        over_long=Frame(NOTICE, 0x22, bytes(1200)).encode(),
    )


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        ("checksum", "BB 01 FF 00 01 15 17 7E"),
        ("trailer", "BB 01 FF 00 01 15 16 7F"),
        ("type", "BB 03 FF 00 01 15 18 7E"),
        ("too_long", "BB 02 22 04 00"),
    ],
)
def test_a_bad_frame_is_counted_by_reason_and_costs_nothing_else(reason: str, raw: str) -> None:
    codec = M100Codec()
    assert codec.feed(bytes.fromhex(raw) + NO_TAG) == [Frame(ANSWER, 0xFF, b"\x15")]
    assert codec.noise[reason] == 1


def test_frames_inside_a_frame_are_its_data() -> None:
    report = report_of(CONFUSING)
    assert NO_TAG in report
    assert M100Codec().feed(Frame(NOTICE, 0x22, report).encode()) == [Frame(NOTICE, 0x22, report)]


def test_only_an_answer_of_the_error_kind_is_an_error() -> None:
    assert Frame(ANSWER, 0xFF, b"\x15").error == 0x15
    assert Frame(ANSWER, 0xFF).error is None
    assert Frame(NOTICE, 0x22, b"\x15").error is None


# -- tags -----------------------------------------------------------------------------------------


def test_a_tag_is_read_with_its_signal_strength_and_control_word() -> None:
    assert Tag.parse(TAG[5:-2]) == Tag(rssi_dbm=-55, pc=0x3400, epc=bytes.fromhex(EPC))
    assert Tag.parse(OTHER_TAG[5:-2]) == Tag(rssi_dbm=-60, pc=0x3000, epc=bytes.fromhex(OTHER))


@pytest.mark.parametrize("words", range(1, 32))
def test_the_control_word_tells_the_length_of_the_epc(words: int) -> None:
    epc = bytes(range(2 * words))
    assert Tag.parse(VirtualTag(epc, -70, words << 11).report()).epc == epc


@pytest.mark.parametrize(
    ("reason", "parameter"),
    [
        ("tag_length", b""),
        ("tag_length", TAG[5:-3]),
        ("tag_length", TAG[5:-2] + b"\0"),
        ("tag_crc", TAG[5:-3] + b"\x77"),
        ("tag_without_epc", VirtualTag(b"", -55, 0).report()),
    ],
)
def test_a_report_that_cannot_be_a_tag_is_refused(reason: str, parameter: bytes) -> None:
    with pytest.raises(BadFrame, match=reason):
        Tag.parse(parameter)


def test_no_flipped_bit_on_the_air_passes_the_crc_of_the_tag() -> None:
    report = TAG[5:-2]
    # The first byte is the module's own measure of the signal, which the tag cannot cover.
    for bit in range(8, len(report) * 8):
        flipped = bytearray(report)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadFrame, match="tag_"):
            Tag.parse(bytes(flipped))


# -- the driver -----------------------------------------------------------------------------------


@dataclass
class Service:
    driver: M100Driver
    readings: asyncio.Queue[Reading]
    running: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(5):
            return await self.readings.get()


@contextlib.asynccontextmanager
async def idle(
    module: M100Reader, options: M100Options | None = None, *, slow_inbox: float = 0.0
) -> AsyncIterator[tuple[M100Driver, asyncio.Queue[Reading]]]:
    """The driver on the module's open port, not running; `slow_inbox` seconds to hand on each reading."""
    readings: asyncio.Queue[Reading] = asyncio.Queue()

    async def emit(reading: Reading) -> None:
        await readings.put(reading)
        await asyncio.sleep(slow_inbox)

    port = await open_port(Address.parse(str(module.name)), baud=M100Driver.BAUD)
    options = options or M100Options(presence_ms=200, round_ms=20)
    try:
        yield M100Driver(port, emit, options), readings
    finally:
        port.close()


@contextlib.asynccontextmanager
async def service(
    module: M100Reader, options: M100Options | None = None, *, slow_inbox: float = 0.0
) -> AsyncIterator[Service]:
    """The driver running on the module's port."""
    async with idle(module, options, slow_inbox=slow_inbox) as (driver, readings):
        running = asyncio.create_task(driver.run())
        try:
            yield Service(driver, readings, running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def arrived(epc_hex: str, rssi_dbm: int = -55) -> TagArrived:
    epc = bytes.fromhex(epc_hex)
    return TagArrived(uid=epc, technology="epc-gen2", rssi_dbm=rssi_dbm, pc=len(epc) // 2 << 11)


def left(epc_hex: str) -> TagLeft:
    return TagLeft(uid=bytes.fromhex(epc_hex), technology="epc-gen2")


def after(seconds: float, hand: Callable[[], None]) -> None:
    """Somebody does something a little later."""
    asyncio.get_running_loop().call_later(seconds, hand)


async def test_the_module_names_its_hardware(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal", hardware="M100 V1.00") as module:
        async with idle(module) as (driver, _):
            assert await driver.identify() == {"hardware": "M100 V1.00"}


async def test_a_module_that_cannot_tell_its_hardware_is_there_all_the_same(tmp_path: Path) -> None:
    class Clone(M100Reader):
        def _obey(self, command: int, parameter: bytes) -> None:
            super()._obey(0x99 if command == 0x03 else command, parameter)

    with Clone(tmp_path / "portal") as module:
        async with idle(module) as (driver, _):
            assert await driver.identify() == {}


async def test_a_module_left_polling_is_stopped_before_it_is_asked(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        module.received(bytes.fromhex("BB 00 27 00 03 22 27 10 83 7E"))
        assert module.polls_left > 9000
        async with idle(module) as (driver, _):
            assert await driver.identify() == {"hardware": "M100 V1.00"}
            assert module.polls_left == 0


async def test_a_sleeping_module_is_woken_and_asked(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.sleep()
        async with idle(module) as (driver, _):
            assert await driver.identify() == {"hardware": "M100 V1.00"}


async def test_a_tag_left_in_the_field_is_one_reading(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            module.present(EPC, rssi=-71)
            after(0.3, lambda: module.remove(EPC))
            assert await at.next() == arrived(EPC, -71)
            assert await at.next() == left(EPC)
            assert module.rounds > 5
            assert at.readings.empty()
            assert not at.driver.noise


async def test_several_tags_of_one_round_come_and_go_on_their_own(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        module.present(OTHER, rssi=-60)
        async with service(module) as at:
            assert [await at.next(), await at.next()] == [arrived(EPC), arrived(OTHER, -60)]
            module.remove(EPC)
            assert await at.next() == left(EPC)
            module.present(EPC)
            assert await at.next() == arrived(EPC)


@pytest.mark.parametrize("epc", [CONFUSING, LONGEST, "3075"], ids=["frame inside", "496 bits", "16 bits"])
async def test_an_epc_of_any_length_and_content_arrives(tmp_path: Path, epc: str) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(epc)
        async with service(module) as at:
            assert await at.next() == arrived(epc)


async def test_a_tag_is_read_byte_by_byte(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.faults.byte_gap = -1
        module.present(CONFUSING)
        async with service(module) as at:
            assert await at.next() == arrived(CONFUSING)


@pytest.mark.parametrize("garbage", [b"\x00\xff", b"\xbb", b"\xbb\xbb\x7e", b"\x7e"], ids=lambda g: g.hex())
async def test_a_tag_is_read_through_noise(tmp_path: Path, garbage: bytes) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.faults.garbage = garbage
        module.present(EPC)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)
            assert at.driver.noise.total() > 0


async def test_garbage_that_looks_like_a_header_costs_one_question(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module) as at:
            module.send(bytes.fromhex("BB 02 22 00 F0"))
            assert await at.next() == arrived(EPC)


@pytest.mark.parametrize("fault", ["flip_next", "halve_next", "drop_next", "twice_next"])
async def test_a_spoilt_answer_costs_one_round(tmp_path: Path, fault: str) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        setattr(module.faults, fault, 1)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)


async def test_hearing_its_own_questions_does_not_confuse_the_driver(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.faults.echo = True
        module.present(EPC)
        async with service(module, M100Options(presence_ms=200, round_ms=20, power_dbm=20)) as at:
            assert await at.next() == arrived(EPC)
            assert module.power == 2000
            module.remove(EPC)
            assert await at.next() == left(EPC)
            assert at.driver.noise["unexpected_frame"] > 0


async def test_a_misread_tag_does_not_arrive_and_is_counted(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(OTHER, wrong_crc=True)
        module.present(EPC)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)
            assert at.driver.noise["tag_crc"] >= 1
            assert at.readings.empty()


async def test_errors_other_than_an_empty_field_are_counted(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module) as at:
            module.send(bytes.fromhex("BB 01 FF 00 01 20 21 7E"))
            assert await at.next() == arrived(EPC)
            module.remove(EPC)
            assert await at.next() == left(EPC)
            assert at.driver.noise["error_20"] == 1


async def test_more_tags_than_can_be_followed_are_counted(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        module.present(OTHER)
        async with service(module) as at:
            at.driver.presence = Presence(0.2, capacity=1)
            assert await at.next() == arrived(EPC)
            module.remove(EPC)
            assert await at.next() == left(EPC)
            assert await at.next() == arrived(OTHER)
            assert at.driver.noise["too_many_tags"] >= 1


async def test_a_full_inbox_makes_nobody_leave(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module, M100Options(presence_ms=100, round_ms=20), slow_inbox=0.4) as at:
            assert await at.next() == arrived(EPC)
            module.present(OTHER)
            assert await at.next() == arrived(OTHER)
            after(0.5, lambda: module.remove(EPC))
            assert await at.next() == left(EPC)
            assert at.readings.empty()


# -- losing the module ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["mute", "deaf"])
async def test_a_module_that_says_nothing_cannot_be_identified(tmp_path: Path, fault: str) -> None:
    with M100Reader(tmp_path / "portal") as module:
        setattr(module.faults, fault, True)
        async with idle(module) as (driver, _):
            with pytest.raises(NoReply, match="no answer to a question of 8 bytes"):
                await driver.identify()


async def test_a_module_that_falls_mute_is_noticed_and_makes_nobody_leave(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)
            module.faults.mute = True
            with pytest.raises(NoReply, match="no answer to 3 inventory rounds"):
                await at.running
            assert at.readings.empty()


async def test_a_module_that_falls_mute_is_noticed_while_scanning_is_disabled(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            at.driver.ALIVE_EVERY = 0.1
            await at.driver.perform(EnableScanning(enabled=False))
            after(0.3, lambda: setattr(module.faults, "mute", True))
            with pytest.raises(NoReply, match="no answer to a question"):
                await at.running


async def test_a_module_unplugged_in_the_middle_of_a_frame_is_gone(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        module.faults.halve_next = 1
        async with service(module) as at:
            after(0.2, module.unplug)
            with pytest.raises(PortGone, match="gone"):
                await at.running
            assert at.driver.codec.waiting
            assert at.readings.empty()


# -- settings and actions -------------------------------------------------------------------------


async def test_power_is_sent_after_every_opening(tmp_path: Path) -> None:
    options = M100Options(presence_ms=200, round_ms=20, power_dbm=20)
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        for _ in range(2):
            async with service(module, options) as at:
                assert await at.next() == arrived(EPC)
                assert module.power == 2000
                module.unplug()
                with pytest.raises(PortGone):
                    await at.running
            module.plug()
            assert module.power != 2000


async def test_power_is_sent_again_to_a_module_that_slept(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)
            await at.driver.perform(SetPower(dbm=12.5))
            assert module.power == 1250
            module.sleep()
            module.present(OTHER)
            assert await at.next() == arrived(OTHER)
            assert module.power == 1250


async def test_power_that_the_module_refuses_is_counted_and_it_scans_without(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module, M100Options(power_dbm=33)) as at:
            assert await at.next() == arrived(EPC)
            assert at.driver.noise["power_refused"] == 1


async def test_power_that_the_module_refuses_is_refused(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            with pytest.raises(ActionRefused, match="33 dBm answered by 17"):
                await at.driver.perform(SetPower(dbm=33))


@pytest.mark.parametrize("dbm", [-0.1, 33.1, float("nan"), float("inf")])
async def test_power_out_of_bounds_is_not_sent(tmp_path: Path, dbm: float) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            with pytest.raises(ActionRefused, match="expected 0 to 33 dBm, got"):
                await at.driver.perform(SetPower(dbm=dbm))


async def test_tags_leave_while_scanning_is_disabled_and_arrive_again(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        module.present(EPC)
        async with service(module) as at:
            assert await at.next() == arrived(EPC)
            await at.driver.perform(EnableScanning(enabled=False))
            assert await at.next() == left(EPC)
            rounds = module.rounds
            await at.driver.perform(SetPower(dbm=10))
            assert (module.rounds, module.power) == (rounds, 1000)
            await at.driver.perform(EnableScanning(enabled=True))
            assert await at.next() == arrived(EPC)


async def test_what_comes_late_while_scanning_is_disabled_still_counts(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            await at.driver.perform(EnableScanning(enabled=False))
            module.send(OTHER_TAG)
            assert await at.next() == arrived(OTHER, -60)


async def test_it_has_no_trigger(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        async with service(module) as at:
            with pytest.raises(Unsupported, match="m100 cannot Trigger"):
                await at.driver.perform(Trigger(pulled=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presence_ms": 300, "round_ms": 200}, r"expected presence_ms of two rounds \(400\), got 300"),
        ({"round_ms": 10}, "round_ms"),
        ({"round_ms": 6000}, "round_ms"),
        ({"power_dbm": 40}, "power_dbm"),
        ({"power_dbm": float("nan")}, "power_dbm"),
        ({"power_dbm": "20"}, "power_dbm"),
        ({"power": 20}, "power"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        M100Options.model_validate(options)


# -- the virtual module ---------------------------------------------------------------------------


def test_the_virtual_module_says_what_was_captured() -> None:
    first = VirtualTag(bytes.fromhex(EPC), -55, 0x3400)
    second = VirtualTag(bytes.fromhex(OTHER), -60, 0x3000)
    assert said_by_the_module(2, 0x22, first.report()) == TAG
    assert said_by_the_module(2, 0x22, second.report()) == OTHER_TAG
    assert said_by_the_module(1, 0xFF, b"\x15") == NO_TAG


async def test_the_virtual_module_ends_its_polling_when_its_rounds_are_over(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        port = await open_port(Address.parse(str(module.name)), baud=M100Driver.BAUD)
        await port.write(Frame(COMMAND, 0x27, b"\x22\x00\x03").encode())
        heard = b""
        async with asyncio.timeout(5):
            while heard != 3 * NO_TAG:
                heard += await port.read()
        port.close()
        assert module.polls_left == 0


async def test_the_virtual_module_passes_over_what_is_no_question(tmp_path: Path) -> None:
    with M100Reader(tmp_path / "portal") as module:
        port = await open_port(Address.parse(str(module.name)), baud=M100Driver.BAUD)
        for heard in ("00 BB 00 22 00 00 23 7E BB", "BB", "00 22 00", "00", "22 7E"):
            module.received(bytes.fromhex(heard))
        async with asyncio.timeout(5):
            assert await port.read() == NO_TAG
        port.close()


@pytest.mark.parametrize("epc", ["30", "00" * 64])
def test_an_epc_is_whole_words_and_at_most_496_bits(tmp_path: Path, epc: str) -> None:
    with pytest.raises(ValueError, match="expected whole 16-bit words, at most 62 bytes"):
        M100Reader(tmp_path / "portal").present(epc)
