"""OSDP readers: our way to the line, with libosdp's own reader at the other end of it.

The packets that are looked at here are those of IEC 60839-11-5 as captured from real readers: what libosdp
says on the line is compared with them, so that both ends of one library do not only please each other.
"""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.base import ActionRefused, NoReply
from drivers.osdp import DEAF_S, ROUSE_S, Keypad, OsdpDriver, OsdpOptions, Watchdog
from drivers.port import Address, Port, open_port
from drivers.readings import Reading, Scanned, Signal, TagArrived, Tone

if sys.version_info[:2] == (3, 12):
    pytest.skip("libosdp has no wheel for Python 3.12", allow_module_level=True)

from simulators.osdp import OsdpReader

KEY = secrets.token_bytes(16)


@dataclass
class Bench:
    reader: OsdpReader
    driver: OsdpDriver
    port: Port
    readings: asyncio.Queue[Reading]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def next(self) -> Reading:
        async with asyncio.timeout(20):
            return await self.readings.get()

    def run(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.driver.run())
        self.tasks.append(task)
        return task


@contextlib.asynccontextmanager
async def bench(folder: Path, key: bytes = KEY) -> AsyncIterator[Bench]:
    key_file = folder / "key"
    key_file.write_text(key.hex())
    reader = OsdpReader(folder / "reader", KEY)
    with reader:
        port = await open_port(Address.parse(str(folder / "reader")), baud=9600)
        readings: asyncio.Queue[Reading] = asyncio.Queue()
        driver = OsdpDriver(port, readings.put, OsdpOptions(key_file=str(key_file)))
        made = Bench(reader, driver, port, readings)
        try:
            yield made
        finally:
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            port.close()


async def until(made: Bench, claim: Callable[[], bool]) -> None:
    """Look again whenever the reader has been asked something."""
    async with asyncio.timeout(40):
        while not claim():
            made.reader.asked.clear()
            await made.reader.asked.wait()


async def test_a_reader_tells_who_it_is_once_the_channel_is_secure(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        about = await made.driver.identify()
        assert about["vendor_code"] == "c0ffee"
        assert about["serial_number"] == "2a"


async def test_the_first_words_on_the_line_are_those_of_the_standard(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        heard = bytearray()
        received = made.reader.received

        def listen(data: bytes) -> None:
            heard.extend(data)
            received(data)

        made.reader.received = listen  # type: ignore[method-assign]
        await made.driver.identify()
        # osdp_ID to address 1, sequence 0, CRC: as in annex E and in a capture of a real panel.
        assert bytes.fromhex("53 01 09 00 04 61 00 60 23") in heard


async def test_a_card_and_what_is_typed_are_readings(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.driver.identify()
        made.run()
        made.reader.present(bytes.fromhex("00010203"))
        assert await made.next() == TagArrived(uid=bytes.fromhex("00010203"), technology="wiegand")
        made.reader.press("2026")
        made.reader.press("1127#")
        assert await made.next() == Scanned(data=b"20261127")


async def test_a_tone_is_a_beep_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.driver.identify()
        made.run()
        for tone in (Tone.GOOD, Tone.BAD):
            made.reader.obeyed.clear()
            await made.driver.perform(Signal(tone=tone))
            async with asyncio.timeout(20):
                await made.reader.obeyed.wait()
        assert made.reader.beeps == [(1, 1), (4, 3)]


@pytest.mark.timeout(90)
async def test_a_reader_that_was_away_is_back_long_before_libosdp_would_look_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.driver.identify()
        made.run()
        made.reader.faults.mute = True
        await until(made, lambda: made.driver.noise["roused"] > 0)
        made.reader.faults.mute = False
        made.reader.powered()
        await until(made, lambda: made.driver.secure)
        await made.driver.perform(Signal(tone=Tone.GOOD))


@pytest.mark.timeout(60)
async def test_another_key_opens_no_channel_and_nothing_is_said_in_clear(tmp_path: Path) -> None:
    async with bench(tmp_path, key=secrets.token_bytes(16)) as made:
        with pytest.raises(NoReply, match="no secure channel with address 1"):
            await made.driver.identify()


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (None, "FileNotFoundError"),
        ("not hex", "ValueError"),
        ("00" * 15, "expected a key of 16 bytes, got 15"),
    ],
)
async def test_a_key_that_cannot_be_used_is_named_by_its_place_alone(
    tmp_path: Path, held: str | None, told: str
) -> None:
    async with bench(tmp_path) as made:
        key_file = tmp_path / "key"
        key_file.unlink()
        if held is not None:
            key_file.write_text(held)
        with pytest.raises(ActionRefused) as refused:
            await made.driver.identify()
        assert str(key_file) in str(refused.value)
        assert told in str(refused.value)
        assert held is None or held not in str(refused.value)


async def test_a_tone_for_a_reader_that_is_away_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        with pytest.raises(ActionRefused, match="away"):
            await made.driver.perform(Signal(tone=Tone.GOOD))


def test_the_watchdog_rouses_every_few_seconds_and_gives_up_in_the_end() -> None:
    watch = Watchdog(0.0)
    assert not watch.look(online=True, now=100.0)
    assert not watch.look(online=False, now=100.0 + ROUSE_S - 0.1)
    assert watch.look(online=False, now=100.0 + ROUSE_S)
    assert not watch.look(online=False, now=100.0 + 2 * ROUSE_S - 0.1)
    assert watch.look(online=False, now=100.0 + 2 * ROUSE_S)
    with pytest.raises(NoReply):
        watch.look(online=False, now=100.0 + DEAF_S)


def test_keys_are_one_line_when_enter_ends_them() -> None:
    keypad = Keypad()
    assert keypad.press(b"12") == []
    assert keypad.press(b"34#56\r") == [b"1234", b"56"]
    assert keypad.press(b"99\x7f1#") == [b"1"]
    assert keypad.press(b"##") == []


def test_keys_without_an_end_are_forgotten_and_counted() -> None:
    keypad = Keypad()
    assert keypad.press(b"7" * 33 + b"1#") == [b"1"]
    assert keypad.forgotten == 1
