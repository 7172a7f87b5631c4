"""PN532 readers: the codec on bytes, the driver on a real pty with a virtual reader."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers.base import NoReply, Unsupported
from drivers.pn532 import Pn532Driver, Pn532Options, Target
from drivers.pn532_frames import Ack, Answer, Frame, Nack, Pn532Codec, SyntaxFault, encode
from drivers.port import Address, PortGone, open_port
from drivers.readings import CardFailed, CardFailure, Reading, SetPower, TagArrived, TagLeft
from simulators.base import Faults
from simulators.fido_card import FidoCard
from simulators.pn532 import NumberCard, Pn532Reader
from tests.card_bench import bench, obeyed
from tests.codec_law import obey

UID = bytes.fromhex("FB0EE20B")
OTHER = bytes.fromhex("04112233445566")

# From the user manual UM0701-02 and from a module with firmware 1.6, as the manual's readers publish them.
FIRMWARE = bytes.fromhex("00 00 FF 06 FA D5 03 32 01 06 07 E8 00")
CONFIGURED = bytes.fromhex("00 00 FF 02 FE D5 15 16 00")
LISTED = bytes.fromhex("00 00 FF 0C F4 D5 4B 01 01 00 04 08 04 FB 0E E2 0B D8 00")
ACK = bytes.fromhex("00 00 FF 00 FF 00")
NACK = bytes.fromhex("00 00 FF FF 00 00")
SYNTAX = bytes.fromhex("00 00 FF 01 FF 7F 81 00")

SAMPLES: dict[str, tuple[bytes, Frame]] = {
    "ack": (ACK, Ack()),
    "nack": (NACK, Nack()),
    "syntax error": (SYNTAX, SyntaxFault()),
    "firmware": (FIRMWARE, Answer(0x03, bytes.fromhex("32 01 06 07"))),
    "sam configuration": (CONFIGURED, Answer(0x15, b"")),
    "one card": (LISTED, Answer(0x4B, bytes.fromhex("01 01 00 04 08 04 FB 0E E2 0B"))),
}

LONG = b"\x41\x00" + bytes(range(256)) + b"\x61\x2c"
"""The longest answer of one exchange with a card: 258 bytes of it."""


def extended(body: bytes) -> bytes:
    """An extended frame from the chip, put together by hand."""
    size = len(body) + 1
    length = bytes([0xFF, 0xFF, size >> 8, size & 0xFF, -(size >> 8) - (size & 0xFF) & 0xFF])
    return b"\x00\x00\xff" + length + b"\xd5" + body + bytes([-sum(body) - 0xD5 & 0xFF, 0])


# -- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "frame"), SAMPLES.values(), ids=SAMPLES.keys())
def test_a_sample_is_read_without_noise(raw: bytes, frame: Frame) -> None:
    codec = Pn532Codec()
    assert codec.feed(raw) == [frame]
    assert not codec.noise
    assert not codec.waiting


@pytest.mark.parametrize(
    ("command", "raw"),
    [
        ("02", "00 00 FF 02 FE D4 02 2A 00"),
        ("14 01 17 00", "00 00 FF 05 FB D4 14 01 17 00 00 00"),
        ("14 01", "00 00 FF 03 FD D4 14 01 17 00"),
        ("4A 01 00", "00 00 FF 04 FC D4 4A 01 00 E1 00"),
    ],
)
def test_a_command_is_written_as_the_manual_has_it(command: str, raw: str) -> None:
    assert encode(bytes.fromhex(command)) == bytes.fromhex(raw)


def test_a_long_command_goes_out_in_an_extended_frame() -> None:
    raw = encode(b"\x40\x01" + bytes(261))
    assert raw[:8] == bytes.fromhex("00 00 FF FF FF 01 08 F7")
    assert len(raw) == 8 + 264 + 2
    with pytest.raises(ValueError, match="expected at most 264 bytes of command, got 265"):
        encode(bytes(265))


def test_the_codec_obeys_the_law() -> None:
    # From the start code on: what comes before it is no part of the frame, and may be anything.
    obey(
        Pn532Codec,
        [(raw[1:], frame) for raw, frame in SAMPLES.values()]
        + [(extended(LONG)[1:], Answer(0x41, LONG[1:]))],
        checksummed=True,
        limit=Pn532Codec.LIMIT,
        over_long=b"\x00\xff\xff\xff\x10\x00\xf0" + bytes(5000),
    )


@pytest.mark.parametrize("zeros", range(6))
def test_there_may_be_any_number_of_zeros_before_a_frame(zeros: int) -> None:
    assert Pn532Codec().feed(bytes(zeros) + FIRMWARE[1:]) == [SAMPLES["firmware"][1]]


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        ("length_checksum", "00 FF 06 FB D5 03 32 01 06 07 E8 00"),
        ("checksum", "00 FF 06 FA D5 03 32 01 06 07 E9 00"),
        ("postamble", "00 FF 06 FA D5 03 32 01 06 07 E8 01"),
        ("postamble", "00 FF 00 FF 01"),
        ("not_from_chip", "00 FF 02 FE D4 02 2A 00"),
        ("not_from_chip", "00 FF 01 FF D5 2B 00"),
        ("length_checksum", "00 FF FF FF 01 08 F6 D5"),
        ("empty", "00 FF FF FF 00 00 00 D5"),
        ("too_long", "00 FF FF FF 01 0A F5 D5"),
    ],
)
def test_a_bad_frame_is_counted_by_reason_and_costs_nothing_else(reason: str, raw: str) -> None:
    codec = Pn532Codec()
    assert codec.feed(bytes.fromhex(raw) + FIRMWARE) == [SAMPLES["firmware"][1]]
    assert codec.noise[reason] == 1


@pytest.mark.parametrize(
    ("data", "target"),
    [
        ("00", None),
        ("01 01 00 04 08 04 FB 0E E2 0B", Target(UID, speaks_apdus=False)),
        ("01 01 00 44 20 07 04 11 22 33 44 55 66 05 78 80 70 02", Target(OTHER, speaks_apdus=True)),
    ],
)
def test_a_target_is_read(data: str, target: Target | None) -> None:
    assert Target.parse(bytes.fromhex(data)) == target


# -- badges ---------------------------------------------------------------------------------------


async def test_a_reader_tells_what_it_is(tmp_path: Path) -> None:
    with Pn532Reader(tmp_path / "cards") as reader:
        port = await open_port(Address.parse(str(reader.name)), baud=Pn532Driver.BAUD)
        with contextlib.closing(port):
            driver = Pn532Driver(port, asyncio.Queue[Reading]().put, Pn532Options())
            assert await driver.identify() == {"chip": "PN532", "firmware": "1.6"}
            codes = [asked[0] for asked in reader.asked]
            assert codes == [0x14, 0x02, 0x32, 0x52], "first of all the secure module is configured"
            assert reader.asked[2] == bytes.fromhex("32 05 FF 01 02"), "it does not look for cards for ever"


async def test_a_card_in_the_field_is_one_reading_and_one_more_when_it_has_gone(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.present(NumberCard(UID))
        assert await at.next() == TagArrived(uid=UID, technology="iso14443")
        for _ in range(10):
            await obeyed(at.reader, 0x4A)
        assert at.readings.empty()
        at.reader.remove()
        assert await at.next() == TagLeft(uid=UID, technology="iso14443")
        assert not at.driver.noise


async def test_one_card_after_another(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        for uid in (UID, OTHER, UID):
            at.reader.present(NumberCard(uid))
            assert (await at.arrived()).uid == uid
            at.reader.remove()
            assert (await at.left()).uid == uid


@pytest.mark.parametrize("version", ["U2F_V2", "FIDO_2_0"])
async def test_an_arrival_tells_of_the_fido_applet(tmp_path: Path, version: str) -> None:
    async with bench(tmp_path) as at:
        at.reader.present(FidoCard(version=version))
        assert (await at.arrived()).applets == (version,)


async def test_a_card_that_speaks_apdus_and_has_no_such_applet_is_a_badge(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.present(FidoCard(version="something else"))
        assert (await at.arrived()).applets == ()


async def test_a_card_that_is_gone_before_it_was_asked_arrives_when_it_can_be(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard()
        at.reader.pull_at(0x40)
        at.reader.present(card)
        await at.reader.pulled.wait()
        assert at.readings.empty()
        at.reader.present(card)
        assert (await at.arrived()).applets == ("FIDO_2_0",)
        assert at.driver.noise["card_silent"] == 1


# -- the line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"byte_gap": -1.0},
        {"byte_gap": 0.0005},
        {"garbage": b"\x99\x88\x77"},
        {"garbage": bytes(5)},
        {"echo": True},
        {"delay": 0.02},
    ],
    ids=str,
)
async def test_cards_are_read_over_a_bad_line(tmp_path: Path, faults: dict[str, object]) -> None:
    async with bench(tmp_path, Faults(**faults)) as at:  # type: ignore[arg-type]
        card = FidoCard()
        await at.with_credential(card)
        card.touch("thumb")
        assert not isinstance(await at.asserted(), CardFailed)


@pytest.mark.parametrize("fault", ["flip_next", "halve_next", "drop_next", "twice_next"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_spoilt_frame_costs_a_repetition_and_nothing_else(
    tmp_path: Path, fault: str, times: int
) -> None:
    async with bench(tmp_path) as at:
        setattr(at.reader.faults, fault, times)
        at.reader.present(NumberCard(UID))
        assert (await at.arrived()).uid == UID
        assert not at.running.done()


async def test_a_command_that_was_not_heard_is_sent_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.misses_next = 2
        at.reader.present(NumberCard(UID))
        assert (await at.arrived()).uid == UID


async def test_a_command_that_was_misunderstood_is_sent_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.rejects_next = 2
        at.reader.present(NumberCard(UID))
        assert (await at.arrived()).uid == UID


async def test_a_chip_that_understands_nothing_is_given_up(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.rejects_next = 1000
        with pytest.raises(NoReply, match=r"command .. was not understood"):
            await at.running


async def test_a_mute_chip_is_given_up(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.faults.mute = True
        with pytest.raises(NoReply, match=r"command .. was "):
            await at.running


async def test_a_chip_that_acknowledges_and_then_says_nothing_is_given_up(tmp_path: Path) -> None:
    """As one does that was left to look for a card for ever."""
    with Pn532Reader(tmp_path / "cards") as reader:
        port = await open_port(Address.parse(str(reader.name)), baud=Pn532Driver.BAUD)
        with contextlib.closing(port):
            driver = Pn532Driver(port, asyncio.Queue[Reading]().put, Pn532Options())
            await driver.chip.wake()
            with pytest.raises(NoReply, match="command 4a was acknowledged and not answered"):
                await driver.chip.command(0x4A, b"\x01\x00", within=0.3)
            reader.present(NumberCard(UID))
            # Aborted before anything else is asked: the answer that is late now belongs to nobody.
            assert await driver.chip.command(0x02, within=1.0) == bytes.fromhex("32 01 06 07")


async def test_a_reader_that_is_unplugged_is_gone(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.unplug()
        with pytest.raises(PortGone, match="gone"):
            await at.running


async def test_it_cannot_be_asked_for_anything_else(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        with pytest.raises(Unsupported, match="pn532 cannot SetPower"):
            await at.driver.perform(SetPower(dbm=20))


@pytest.mark.parametrize(
    "options", [{"presence_ms": 99}, {"poll_ms": 10}, {"presence_ms": 200, "poll_ms": 150}]
)
def test_options_out_of_bounds_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Pn532Options.model_validate(options)


async def test_a_badge_asked_for_a_signature_cannot_give_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.present(NumberCard(UID))
        await at.arrived()
        assert await at.asserted() == CardFailed(failure=CardFailure.UNFIT)
