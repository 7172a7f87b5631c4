"""gpsd: the codec on bytes, reports on values, the driver over real TCP with a virtual gpsd."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import pytest

from drivers import driver_for
from drivers.base import BadFrame, NoReply
from drivers.epoch import Observation
from drivers.fixes import FixOptions
from drivers.gpsd import LIMIT, GpsdCodec, GpsdDriver, Report, Sky, observe
from drivers.port import Address, PortGone, open_port
from drivers.readings import Fix, FixLost, Reading
from simulators.gpsd import DEVICE, FakeGpsd
from tests.codec_law import obey

TPV: Report = {
    "class": "TPV",
    "device": DEVICE,
    "mode": 3,
    "time": "2026-11-24T12:00:00.500Z",
    "lat": 48.1173,
    "lon": 11.516667,
    "altMSL": 545.4,
    "speed": 5.0,
}
SKY: Report = {"class": "SKY", "device": DEVICE, "hdop": 0.9, "uSat": 8}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY = NOON.date()

WATCHING: Report = {"class": "WATCH", "enable": True, "json": True}
VECTORS = [(json.dumps(report).encode() + b"\r\n", report) for report in (TPV, SKY, WATCHING)]


# -- the codec ------------------------------------------------------------------------------------


def test_the_codec_obeys_the_law() -> None:
    # Garbage spoils the line it is in: lines have no header to begin anew at.
    obey(
        GpsdCodec,
        VECTORS,
        checksummed=False,
        limit=LIMIT,
        over_long=b'{"class":"TPV","x":"' + b"4" * LIMIT + b'"}\r\n',
        garbage=b"\x99\x88\x77\n",
    )


BAD_LINES = {
    "not_json": [
        b"garbage",
        b'{"class":"TPV",',
        b"\xff\xfe{}",
        b'{"class":"TPV","lat":NaN}',
        b'{"class":"TPV","lat":-Infinity}',
        b'{"class":"TPV","lat":' + b"9" * 5000 + b"}",
        b'{"class":"' + b"]" * 5000 + b'","x":' + b"[" * 5000 + b"}",
    ],
    "not_a_report": [b"[]", b"1", b"null", b'"TPV"', b"{}", b'{"class":1}'],
    "too_deep": [b"[" * 5000, b'{"class":"TPV","x":' + b"[" * 8 + b"]" * 8 + b"}"],
    "too_long": [b'{"class":"TPV","x":"' + b"4" * LIMIT + b'"}', b" " * LIMIT + VECTORS[0][0]],
}


@pytest.mark.parametrize(
    ("reason", "line"), [(reason, line) for reason, lines in BAD_LINES.items() for line in lines]
)
def test_a_bad_line_is_counted_by_reason_and_costs_nothing_else(reason: str, line: bytes) -> None:
    for step in (1, 4096):
        codec = GpsdCodec()
        stream = line + b"\r\n" + VECTORS[0][0]
        reports = [r for at in range(0, len(stream), step) for r in codec.feed(stream[at : at + step])]
        assert reports == [TPV]
        assert codec.noise == {reason: 1}


def test_empty_lines_say_nothing() -> None:
    codec = GpsdCodec()
    assert codec.feed(b"\r\n\n \r\n" + VECTORS[0][0]) == [TPV]
    assert not codec.noise


def test_after_a_reset_an_over_long_line_is_forgotten() -> None:
    codec = GpsdCodec()
    codec.feed(b"4" * (LIMIT + 1))
    codec.reset()
    assert codec.feed(VECTORS[0][0]) == [TPV]


# -- what a report says ---------------------------------------------------------------------------


def seen(changed: Report, sky: Sky | None = None) -> tuple[Observation, float | None]:
    """What the sample TPV says with some members changed, or left out if None."""
    tpv = {name: value for name, value in {**TPV, **changed}.items() if value is not None}
    return observe(tpv, sky or Sky(), TODAY)


def test_a_tpv_and_a_sky_of_the_same_receiver_make_a_fix() -> None:
    observation, utc = seen({}, Sky(device=DEVICE, hdop=0.9, satellites=8))
    assert utc == NOON.timestamp() + 0.5
    assert observation == Observation(
        time=None, position=(48.1173, 11.516667), hdop=0.9, altitude_m=545.4, speed_mps=5.0, satellites=8
    )


def test_the_sky_of_another_receiver_says_nothing_about_this_one() -> None:
    observation, _ = seen({}, Sky(device="/dev/ttyUSB7", hdop=99.0, satellites=1))
    assert (observation.hdop, observation.satellites) == (None, None)


def test_an_older_gpsd_calls_the_height_alt() -> None:
    assert seen({"altMSL": None, "alt": 100.0})[0].altitude_m == 100.0
    assert seen({"altMSL": None})[0].altitude_m is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mode": 0}, "no_fix"),
        ({"mode": 1}, "no_fix"),
        ({"mode": None}, "no_fix"),
        ({"mode": "3"}, "no_fix"),
        ({"mode": []}, "no_fix"),
        ({"mode": True}, "no_fix"),
        ({"status": 5}, "estimated"),
        ({"status": 8}, "estimated"),
        ({"lat": None}, "implausible"),
        ({"lon": None}, "implausible"),
        ({"lat": 99.27}, "implausible"),
        ({"lon": -180.5}, "implausible"),
        ({"lat": "48"}, "implausible"),
        ({"lat": True}, "implausible"),
        ({"lat": float("inf")}, "implausible"),
        ({"lat": 10**400}, "implausible"),
    ],
    ids=str,
)
def test_a_position_nobody_vouches_for_is_none(changed: Report, reason: str) -> None:
    observation, _ = seen(changed)
    assert (observation.refused, observation.position) == (reason, None)


@pytest.mark.parametrize("changed", [{"mode": 2}, {"status": 2}, {"status": 1}], ids=str)
def test_two_dimensions_are_a_fix(changed: Report) -> None:
    assert seen(changed)[0].position == (48.1173, 11.516667)


def test_without_a_time_there_is_a_position_without_utc() -> None:
    observation, utc = seen({"time": None})
    assert observation.position is not None
    assert utc is None


@pytest.mark.parametrize("time", ["2007-04-10T12:00:00.500Z", "1987-08-25T12:00:00.500Z"])
def test_a_missed_rollover_is_put_right(time: str) -> None:
    assert seen({"time": time})[1] == NOON.timestamp() + 0.5


@pytest.mark.parametrize(
    "time", ["noon", "2026-11-24", "2026-11-24T12:00:00", "2026-11-24T12:00:00+02:00", 1795521600, []]
)
def test_a_time_that_is_not_utc_costs_the_report(time: object) -> None:
    with pytest.raises(BadFrame, match="time"):
        seen({"time": time})


@pytest.mark.parametrize(
    ("report", "satellites"),
    [
        ({"uSat": 5, "satellites": []}, 5),
        ({"satellites": [{"used": True}, {"used": False}, {}, "x", {"used": True}]}, 2),
        ({"satellites": []}, 0),
        ({"satellites": 7}, None),
        ({}, None),
    ],
)
def test_satellites_in_use_are_counted(report: Report, satellites: int | None) -> None:
    assert Sky().updated(report).satellites == satellites


def test_what_a_sky_leaves_out_holds_on_for_the_same_receiver() -> None:
    sky = Sky().updated(SKY)
    assert sky.updated({"device": DEVICE}) == sky == Sky(device=DEVICE, hdop=0.9, satellites=8)
    assert sky.updated({"device": "/dev/ttyUSB7"}) == Sky(device="/dev/ttyUSB7")


def test_the_date_of_today_need_only_be_near() -> None:
    for today in (date(1970, 1, 1), date(2020, 1, 1), date(2036, 1, 1)):
        assert observe(TPV, Sky(), today)[1] == NOON.timestamp() + 0.5


# -- the driver -----------------------------------------------------------------------------------


@dataclass
class Service:
    driver: GpsdDriver
    about: Mapping[str, str]
    readings: asyncio.Queue[Reading]
    running: asyncio.Task[None]

    async def next(self) -> Reading:
        async with asyncio.timeout(5):
            return await self.readings.get()


def wall_clock() -> float:
    return NOON.timestamp()


@contextlib.asynccontextmanager
async def service(gpsd: FakeGpsd, **options: object) -> AsyncIterator[Service]:
    """The driver, identified, watching and running."""
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    port = await open_port(Address.parse(f"tcp:127.0.0.1:{gpsd.port}"), baud=GpsdDriver.BAUD)
    driver = GpsdDriver(port, readings.put, FixOptions.model_validate(options), wall_clock=wall_clock)
    with contextlib.closing(port):
        about = await driver.identify()
        running = asyncio.create_task(driver.run())
        try:
            async with asyncio.timeout(5):
                await gpsd.watched.wait()
            yield Service(driver, about, readings, running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def gpsd_at_noon(**more: object) -> FakeGpsd:
    """A gpsd whose epochs pass when it is told, one second each."""
    return FakeGpsd(**{"rate": 0, "step": 1.0, "start": NOON, **more})  # type: ignore[arg-type]


def fix(seconds: int, **facts: object) -> Fix:
    munich = Fix(
        lat=48.1173,
        lon=11.516667,
        utc=NOON.timestamp() + seconds,
        hdop=0.9,
        altitude_m=545.4,
        speed_mps=0.0,
        satellites=8,
        source="gpsd",
    )
    return replace(munich, **facts)  # type: ignore[arg-type]


FIRST = fix(0, hdop=None, satellites=None)
"""Before any SKY."""


def ticks(gpsd: FakeGpsd, count: int) -> None:
    for _ in range(count):
        gpsd.tick()


def test_the_registry_knows_the_driver() -> None:
    assert driver_for("gpsd") is GpsdDriver


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
async def test_every_tpv_is_one_fix(split: bool) -> None:
    async with gpsd_at_noon() as gpsd:
        gpsd.split = split
        async with service(gpsd) as at_work:
            ticks(gpsd, 3)
            assert [await at_work.next() for _ in range(3)] == [FIRST, fix(1), fix(2)]
            assert at_work.about == {"release": "3.25", "protocol": "3.15"}
            assert not at_work.driver.noise


async def test_it_goes_on_by_itself() -> None:
    async with FakeGpsd(rate=100, step=1.0, start=NOON) as gpsd, service(gpsd) as at_work:
        gpsd.drive_to(48.2, 11.6, over=10)
        fixes = [await at_work.next() for _ in range(3)]
        assert all(isinstance(one, Fix) for one in fixes)


async def test_a_gpsd_that_missed_a_rollover_is_put_right() -> None:
    async with gpsd_at_noon(weeks_back=1024) as gpsd, service(gpsd) as at_work:
        gpsd.tick()
        assert await at_work.next() == FIRST


async def test_a_fix_lost_is_told_once_and_regained_at_once() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd, interval_ms=60_000) as at_work:
        ticks(gpsd, 3)
        gpsd.lose_fix()
        ticks(gpsd, 3)
        gpsd.regain()
        gpsd.at(-33.9, -70.5)
        ticks(gpsd, 3)
        assert await at_work.next() == FIRST
        assert await at_work.next() == FixLost(reason="no_fix")
        # The dilution of the first TPV afterwards is still that of no fix.
        assert await at_work.next() == fix(7, lat=-33.9, lon=-70.5)
        assert at_work.readings.empty()


async def test_a_diluted_fix_is_lost() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd, max_hdop=5) as at_work:
        gpsd.sky.hdop = 5.1
        ticks(gpsd, 2)
        assert [await at_work.next(), await at_work.next()] == [FIRST, FixLost(reason="hdop")]


async def test_an_implausible_position_loses_the_fix_and_is_counted() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd) as at_work:
        gpsd.report({**TPV, "lat": 99.27})
        assert await at_work.next() == FixLost(reason="implausible")
        assert at_work.driver.noise == {"implausible": 1}


async def test_noise_and_what_nobody_needs_are_passed_over() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd) as at_work:
        gpsd.say(b"\xff\x00[[[\r\n")
        gpsd.report({"class": "ERROR", "message": "no"})
        gpsd.report({"class": "PPS", "device": DEVICE})
        gpsd.report({**TPV, "time": "noon"})
        gpsd.tick()
        assert await at_work.next() == FIRST
        assert at_work.driver.noise == {"not_json": 1, "refused_by_gpsd": 1, "time": 1}


async def test_a_gpsd_that_falls_silent_is_deaf() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd, silence=0.3) as at_work:
        gpsd.tick()
        assert await at_work.next() == FIRST
        with pytest.raises(NoReply, match=r"nothing sensible for 0\.3 s"):
            await at_work.running


async def test_a_gpsd_that_hangs_up_in_the_middle_of_a_line_is_gone() -> None:
    async with gpsd_at_noon() as gpsd, service(gpsd) as at_work:
        gpsd.tick()
        assert await at_work.next() == FIRST
        gpsd.say(b'{"class":"TPV","mode":3,"lat":4')
        await gpsd.hang_up()
        with pytest.raises(PortGone, match="gone"):
            await at_work.running
        assert at_work.driver.codec.waiting
        assert at_work.readings.empty()


async def test_a_mute_gpsd_is_not_identified() -> None:
    async with gpsd_at_noon() as gpsd:
        gpsd.mute = True
        with pytest.raises(NoReply):
            async with service(gpsd, silence=0.05):
                pytest.fail("it was identified")


async def test_a_service_that_does_not_greet_as_gpsd_does_is_none() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"class":"HELLO"}\n')
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = await open_port(Address.parse(f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"), baud=9600)
    readings: asyncio.Queue[Reading] = asyncio.Queue()
    with pytest.raises(NoReply, match="expected VERSION, got 'HELLO'"):
        await GpsdDriver(port, readings.put, FixOptions()).identify()
    port.close()
    server.close()
    await server.wait_closed()


# -- the virtual gpsd -----------------------------------------------------------------------------


async def test_the_virtual_gpsd_refuses_what_it_does_not_know() -> None:
    async with gpsd_at_noon() as gpsd:
        reader, writer = await asyncio.open_connection("127.0.0.1", gpsd.port)
        for request in (b"?POLL;\n", b'?WATCH={"enable":true,"json":true,"x":"' + b"4" * 80 + b'"};\n'):
            writer.write(request)
        writer.write(b'?WATCH={"enable":false};\n')
        said = [json.loads(await reader.readline())["class"] for _ in range(5)]
        assert said == ["VERSION", "ERROR", "ERROR", "DEVICES", "WATCH"]
        assert not gpsd.watched.is_set()
        writer.close()
        await writer.wait_closed()
