"""The NMEA driver on a real pty with a virtual receiver."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drivers import driver_for
from drivers.base import NoReply, Unsupported
from drivers.fixes import FixOptions
from drivers.nmea import NmeaDriver
from drivers.port import Address, PortGone, open_port
from drivers.readings import Fix, FixLost, Reading, Signal, Tone
from simulators.gnss import GnssReceiver

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Service:
    driver: NmeaDriver
    readings: asyncio.Queue[Reading]
    running: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(5):
            return await self.readings.get()

    async def next_fix(self) -> Fix:
        reading = await self.next()
        assert isinstance(reading, Fix)
        return reading


def wall_clock() -> float:
    return NOON.timestamp()


@contextlib.asynccontextmanager
async def service(receiver: GnssReceiver, **options: object) -> AsyncIterator[Service]:
    """The driver running on the receiver's port."""
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    port = await open_port(Address.parse(str(receiver.name)), baud=NmeaDriver.BAUD)
    driver = NmeaDriver(port, readings.put, FixOptions.model_validate(options), wall_clock=wall_clock)
    running = asyncio.create_task(driver.run())
    try:
        yield Service(driver, readings, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        port.close()


def receiver_at(tmp_path: Path, **more: object) -> GnssReceiver:
    """A receiver whose epochs pass when it is told, one second each."""
    return GnssReceiver(tmp_path / "gps", **{"rate": 0, "step": 1.0, "start": NOON, **more})  # type: ignore[arg-type]


def fix(seconds: int, **facts: object) -> Fix:
    """The virtual receiver's fix so many seconds after noon."""
    munich = Fix(
        lat=48.1173,
        lon=11.516667,
        utc=NOON.timestamp() + seconds,
        hdop=0.9,
        altitude_m=545.4,
        speed_mps=0.0,
        satellites=8,
    )
    return replace(munich, **facts)  # type: ignore[arg-type]


def ticks(receiver: GnssReceiver, count: int) -> None:
    for _ in range(count):
        receiver.tick()


def test_the_registry_knows_the_driver() -> None:
    assert driver_for("nmea") is NmeaDriver


@pytest.mark.parametrize("byte_gap", [0, -1], ids=["at once", "byte by byte"])
async def test_every_epoch_of_the_receiver_is_one_fix(tmp_path: Path, byte_gap: float) -> None:
    with receiver_at(tmp_path) as receiver:
        receiver.faults.byte_gap = byte_gap
        async with service(receiver) as at_work:
            ticks(receiver, 4)
            assert [await at_work.next() for _ in range(4)] == [fix(n) for n in range(4)]
            assert at_work.readings.empty()
            assert not at_work.driver.noise


@pytest.mark.parametrize(
    "kinds", [("GGA", "RMC"), ("GLL", "GSV", "RMC", "GGA", "ZDA"), ("ZDA", "GNS", "RMC")], ids="-".join
)
async def test_the_sentences_may_come_in_any_order(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with receiver_at(tmp_path, kinds=kinds) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 3)
            assert [await at_work.next() for _ in range(3)] == [fix(n) for n in range(3)]


async def test_a_receiver_that_says_only_rmc_has_fixes_without_height(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("RMC",)) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            bare = fix(0, hdop=None, altitude_m=None, satellites=None)
            assert [await at_work.next(), await at_work.next()] == [
                bare,
                replace(bare, utc=NOON.timestamp() + 1),
            ]


async def test_a_date_only_from_zda_is_enough(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("ZDA", "GGA")) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            assert await at_work.next() == fix(0, speed_mps=None)


async def test_without_any_date_there_is_a_fix_without_utc(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("GGA",)) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            assert [await at_work.next() for _ in range(2)] == [fix(0, utc=None, speed_mps=None)] * 2


async def test_time_goes_on_over_midnight(tmp_path: Path) -> None:
    start = datetime(2026, 11, 24, 23, 59, 58, tzinfo=UTC)
    with receiver_at(tmp_path, kinds=("GGA", "RMC"), start=start) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 4)
            told = [(await at_work.next_fix()).utc for _ in range(4)]
            assert told == [start.timestamp() + n for n in range(4)]


@pytest.mark.parametrize("weeks", [0, 1024, 2048])
@pytest.mark.parametrize("kinds", [("RMC",), ("ZDA", "GGA")], ids="-".join)
async def test_a_receiver_that_missed_a_rollover_is_put_right(
    tmp_path: Path, weeks: int, kinds: tuple[str, ...]
) -> None:
    with receiver_at(tmp_path, kinds=kinds, weeks_back=weeks) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            assert (await at_work.next_fix()).utc == NOON.timestamp()


async def test_a_moving_van_is_followed(tmp_path: Path) -> None:
    with receiver_at(tmp_path) as receiver:
        receiver.at(-33.9, -70.5)
        receiver.drive_to(-33.89, -70.5, over=100)
        async with service(receiver) as at_work:
            ticks(receiver, 103)
            fixes = [await at_work.next_fix() for _ in range(103)]
            assert [f.lat for f in fixes[:100]] == sorted(f.lat for f in fixes[:100])
            assert fixes[50].lat == pytest.approx(-33.895)
            assert fixes[50].speed_mps == pytest.approx(11.12, abs=0.01)
            assert (fixes[-1].lat, fixes[-1].lon, fixes[-1].speed_mps) == (-33.89, -70.5, 0.0)


async def test_more_epochs_than_asked_for_are_not_told(tmp_path: Path) -> None:
    with receiver_at(tmp_path, step=0.2) as receiver:
        async with service(receiver, interval_ms=2000) as at_work:
            ticks(receiver, 21)
            assert [(await at_work.next_fix()).utc for _ in range(3)] == [
                NOON.timestamp() + n for n in (0, 2, 4)
            ]
            assert at_work.readings.empty()


@pytest.mark.parametrize("kinds", [("RMC", "GGA"), ("GNS", "GLL")], ids="-".join)
@pytest.mark.parametrize("forget_time", [False, True])
async def test_a_fix_lost_is_told_once_and_regained_at_once(
    tmp_path: Path, kinds: tuple[str, ...], forget_time: bool
) -> None:
    with receiver_at(tmp_path, kinds=kinds) as receiver:
        async with service(receiver, interval_ms=60_000) as at_work:
            ticks(receiver, 2)
            assert isinstance(await at_work.next(), Fix)
            receiver.lose_fix(forget_time=forget_time)
            ticks(receiver, 5)
            assert await at_work.next() == FixLost(reason="no_fix")
            receiver.regain()
            ticks(receiver, 2)
            assert isinstance(await at_work.next(), Fix)
            assert at_work.readings.empty()


async def test_a_receiver_that_starts_under_a_roof_says_so_once(tmp_path: Path) -> None:
    with receiver_at(tmp_path) as receiver:
        receiver.lose_fix(forget_time=True)
        async with service(receiver) as at_work:
            ticks(receiver, 5)
            assert await at_work.next() == FixLost(reason="no_fix")
            receiver.regain()
            receiver.tick()
            assert await at_work.next() == fix(5)


async def test_a_diluted_fix_is_lost(tmp_path: Path) -> None:
    with receiver_at(tmp_path) as receiver:
        async with service(receiver, max_hdop=5) as at_work:
            ticks(receiver, 2)
            await at_work.next()
            await at_work.next()
            receiver.sky.hdop = 5.1
            ticks(receiver, 2)
            assert await at_work.next() == FixLost(reason="hdop")


async def test_an_implausible_position_loses_the_fix_and_is_counted(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("RMC",)) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            await at_work.next()
            await at_work.next()
            receiver.say("GNRMC,120002.00,A,9916.200,N,01131.000,E,0,,241126,,,A,V")
            assert await at_work.next() == FixLost(reason="implausible")
            assert at_work.driver.noise == {"implausible": 1}


async def test_a_sentence_with_a_bad_field_costs_only_itself(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("RMC",)) as receiver:
        async with service(receiver) as at_work:
            receiver.say("GNRMC,999999,A,4807.038,N,01131.000,E,10.0,084.4,241126,,,A,V")
            ticks(receiver, 2)
            assert (await at_work.next_fix()).utc == NOON.timestamp()
            assert at_work.driver.noise == {"time": 1}


@pytest.mark.parametrize("garbage", [b"\xff\x00\r", b"$GP", b"!", b"$GPGGA,12*00\r\n", b"*47\r\n"], ids=repr)
async def test_fixes_are_read_through_noise(tmp_path: Path, garbage: bytes) -> None:
    with receiver_at(tmp_path) as receiver:
        receiver.faults.garbage = garbage
        async with service(receiver) as at_work:
            ticks(receiver, 3)
            assert [await at_work.next() for _ in range(3)] == [fix(n) for n in range(3)]
            assert at_work.driver.noise.total() > 0


async def test_a_spoilt_sentence_delays_the_epoch_and_gives_no_wrong_one(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("RMC", "GGA")) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            receiver.faults.flip_next = 1
            ticks(receiver, 2)
            fixes = [await at_work.next_fix() for _ in range(4)]
            assert fixes == [fix(0), fix(1), fix(2, speed_mps=None), fix(3)]
            assert at_work.driver.noise.total() > 0


async def test_the_first_sentence_identifies_the_talker_and_is_waited_for(tmp_path: Path) -> None:
    with receiver_at(tmp_path, talker="GP", rate=100) as receiver:
        port = await open_port(Address.parse(str(receiver.name)), baud=9600)
        readings: asyncio.Queue[Reading] = asyncio.Queue()
        driver = NmeaDriver(port, readings.put, FixOptions(), wall_clock=wall_clock)
        assert await driver.identify() == {"talker": "GP"}
        running = asyncio.create_task(driver.run())
        async with asyncio.timeout(5):
            assert isinstance(await readings.get(), Fix)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        port.close()


async def test_a_receiver_that_never_speaks_is_not_identified(tmp_path: Path) -> None:
    with receiver_at(tmp_path, rate=100) as receiver:
        receiver.faults.mute = True
        async with service(receiver) as at_work:
            at_work.running.cancel()
            silent = NmeaDriver(at_work.driver.link, at_work.readings.put, FixOptions(silence=0.05))
            with pytest.raises(NoReply, match=r"nothing sensible for 0\.05 s"):
                await silent.identify()


@pytest.mark.parametrize("noise", [b"", b"\xf8\x80\x1c\r"], ids=["mute", "wrong line speed"])
async def test_a_receiver_that_says_nothing_sensible_is_deaf(tmp_path: Path, noise: bytes) -> None:
    with receiver_at(tmp_path) as receiver:
        async with service(receiver, silence=0.3) as at_work:
            ticks(receiver, 2)
            assert isinstance(await at_work.next(), Fix)
            receiver.send(noise)
            with pytest.raises(NoReply):
                await at_work.running


async def test_a_receiver_unplugged_in_the_middle_of_a_sentence_is_gone(tmp_path: Path) -> None:
    with receiver_at(tmp_path, kinds=("RMC",)) as receiver:
        async with service(receiver) as at_work:
            ticks(receiver, 2)
            assert isinstance(await at_work.next(), Fix)
            receiver.faults.halve_next = 1
            receiver.tick()
            assert await at_work.next() == replace(fix(1), hdop=None, altitude_m=None, satellites=None)
            receiver.unplug()
            with pytest.raises(PortGone, match="gone"):
                await at_work.running


async def test_it_cannot_be_asked_for_anything(tmp_path: Path) -> None:
    with receiver_at(tmp_path) as receiver:
        async with service(receiver) as at_work:
            with pytest.raises(Unsupported, match="nmea cannot Signal"):
                await at_work.driver.perform(Signal(tone=Tone.GOOD))


def test_the_virtual_receiver_knows_no_other_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected RMC, GGA, GNS, GLL, ZDA or GSV, got 'XYZ'"):
        receiver_at(tmp_path, kinds=("XYZ",)).tick()
