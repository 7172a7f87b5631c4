"""NMEA: the framer on bytes, and what its sentences say."""

import contextlib
import random
from datetime import date

import pytest

from drivers.base import BadFrame
from drivers.epoch import Observation
from drivers.fixes import plausible
from drivers.nmea import LIMIT, NmeaCodec, Sentence, observe
from simulators.gnss import sentence as said_by_the_receiver
from tests.codec_law import obey

GGA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"
RMC_NO_FIX = b"$GPRMC,,V,,,,,,,,,,N*53"
GGA_NO_FIX = b"$GNGGA,,,,,,0,00,99.99,,,,,,*56"

SAMPLES = {
    "gga": (GGA, Sentence("GPGGA", tuple(GGA[7:-3].decode().split(",")))),
    "rmc without fix": (RMC_NO_FIX, Sentence("GPRMC", ("", "V", *[""] * 9, "N"))),
    "gga without fix": (GGA_NO_FIX, Sentence("GNGGA", ("",) * 5 + ("0", "00", "99.99") + ("",) * 6)),
}
MUNICH = (48.1173, 11.5166666667)

samples = pytest.mark.parametrize(("raw", "sentence"), SAMPLES.values(), ids=SAMPLES.keys())


def read(body: str) -> Observation | None:
    """What a sentence with a right checksum is understood to say."""
    [sentence] = NmeaCodec().feed(said_by_the_receiver(body))
    return observe(sentence)


def rmc(time: str = "123519.00", day: str = "241126", *, status: str = "A", mode: str = "A") -> str:
    return f"GNRMC,{time},{status},4807.038,N,01131.000,E,10.0,084.4,{day},,,{mode},V"


# -- the framer -----------------------------------------------------------------------------------


@samples
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\n\r"])
def test_a_sample_is_read_with_any_line_end(raw: bytes, sentence: Sentence, end: bytes) -> None:
    codec = NmeaCodec()
    assert codec.feed(raw + end) == [sentence]
    assert not codec.noise


def test_the_codec_obeys_the_law() -> None:
    # With one CR as the end, as a flipped LF after a CR changes nothing: see below.
    obey(
        NmeaCodec,
        [(raw + b"\r", sentence) for raw, sentence in SAMPLES.values()],
        checksummed=True,
        limit=LIMIT,
        over_long=b"$GPTXT," + b"4" * 5000 + b"*00\r\n",
    )


def test_the_codec_obeys_the_law_with_standard_line_ends() -> None:
    obey(
        NmeaCodec,
        [(raw + b"\r\n", sentence) for raw, sentence in SAMPLES.values()],
        checksummed=False,
        limit=LIMIT,
    )


@samples
def test_a_flipped_line_feed_after_the_carriage_return_is_no_damage(raw: bytes, sentence: Sentence) -> None:
    for bit in range(8):
        codec = NmeaCodec()
        assert codec.feed(raw + b"\r" + bytes([0x0A ^ 1 << bit])) == [sentence]


def test_hex_digits_of_the_checksum_may_be_of_either_case() -> None:
    # Bit 5 of an ASCII letter is its case: a flip of that bit is no change.
    raw = said_by_the_receiver("GPGLL,4916.45,N,12311.12,W,225444,A,A")
    assert raw.endswith(b"*5C\r\n")
    assert NmeaCodec().feed(raw.replace(b"*5C", b"*5c")) == NmeaCodec().feed(raw) != []


REJECTED = {
    "no_checksum": b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,\r\n",
    "checksum": GGA.replace(b"4807", b"4808") + b"\r\n",
    "malformed": b"$GP\x01GGA*00\r\n",
    "half_frame": b"$GPGGA,1235",
    "too_long": b"$GPTXT," + b"4" * 300 + b"*00\r\n",
    "skipped_bytes": bytes.fromhex("B5 62 05 01 02 00 06 01 0F 38"),
}


@pytest.mark.parametrize(("reason", "raw"), REJECTED.items(), ids=REJECTED.keys())
def test_a_bad_sentence_is_counted_by_reason_and_costs_nothing_else(reason: str, raw: bytes) -> None:
    codec = NmeaCodec()
    assert codec.feed(raw + GGA + b"\r\n") == [SAMPLES["gga"][1]]
    assert codec.noise[reason] > 0


@pytest.mark.parametrize("stub", [b"$GP", b"$", b"!AIVDM,1,1", b"$GPGGA,123519,4807.038,N*", b"$$$"])
def test_a_stub_glued_to_a_good_sentence_does_not_cost_it(stub: bytes) -> None:
    codec = NmeaCodec()
    assert codec.feed(stub + GGA + b"\r\n") == [SAMPLES["gga"][1]]
    assert codec.noise == {"half_frame": stub.count(b"$") + stub.count(b"!")}


def test_a_sentence_of_256_characters_is_read_and_one_of_257_is_not() -> None:
    longest = said_by_the_receiver("GPTXT," + "4" * (LIMIT - 10))
    assert len(longest.strip()) == LIMIT
    assert len(NmeaCodec().feed(longest)) == 1
    assert NmeaCodec().feed(said_by_the_receiver("GPTXT," + "4" * (LIMIT - 9))) == []


def test_a_proprietary_sentence_has_its_maker_for_a_talker() -> None:
    [sentence] = NmeaCodec().feed(said_by_the_receiver("PUBX,00,123519"))
    assert (sentence.talker, sentence.kind) == ("PUBX", "")
    assert observe(sentence) is None


# -- what a sentence says -------------------------------------------------------------------------


def test_a_gga_tells_position_quality_and_height() -> None:
    assert observe(SAMPLES["gga"][1]) == Observation(
        time=45319.0,
        position=(48.1173, 11.5166666667),
        hdop=0.9,
        altitude_m=545.4,
        satellites=8,
    )


def test_an_rmc_tells_position_date_and_speed() -> None:
    assert read(rmc()) == Observation(
        time=45319.0,
        day=date(2026, 11, 24),
        position=(48.1173, 11.5166666667),
        speed_mps=10 * 1852 / 3600,
    )


def test_a_gns_tells_position_and_quality() -> None:
    assert read("GNGNS,112257.00,3844.24011,N,00908.43828,W,AN,03,10.5,100.0,46.9,,,V") == Observation(
        time=40977.0, position=(38.7373351667, -9.140638), hdop=10.5, altitude_m=100.0, satellites=3
    )


@pytest.mark.parametrize("mode", ["", ",A"], ids=["before NMEA 2.3", "with a mode"])
def test_a_gll_tells_a_position(mode: str) -> None:
    assert read("GPGLL,4916.45,S,12311.12,W,225444,A" + mode) == Observation(
        time=82484.0, position=(-49.2741666667, -123.1853333333)
    )


def test_a_zda_tells_a_date_alone() -> None:
    assert read("GPZDA,201530.00,04,07,2026,00,00") == Observation(time=72930.0, day=date(2026, 7, 4))
    assert read("GPZDA,201530.00,,,,00,00") == Observation(time=72930.0)


@pytest.mark.parametrize("talker", ["GP", "GN", "GL", "GA", "GB", "BD", "GQ", "QZ", "GI", "II"])
def test_any_talker_is_understood(talker: str) -> None:
    for body in (rmc()[2:], GGA[3:-3].decode(), "GLL,4807.038,N,01131.000,E,123519,A,D"):
        seen = read(talker + body)
        assert seen is not None
        assert seen.position == MUNICH


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (RMC_NO_FIX[1:-3].decode(), "no_fix"),
        (GGA_NO_FIX[1:-3].decode(), "no_fix"),
        ("GPRMC", "no_fix"),
        ("GNGGA", "no_fix"),
        ("GNGNS", "no_fix"),
        ("GPGLL,4916.45,N,12311.12,W,225444,V", "no_fix"),
        (rmc(status="V"), "no_fix"),
        (rmc(mode="N"), "no_fix"),
        (rmc(mode="?"), "no_fix"),
        (rmc(mode="E"), "estimated"),
        (rmc(mode="S"), "estimated"),
        ("GPGGA,123519,4807.038,N,01131.000,E,0,08,0.9,545.4,M,46.9,M,,", "no_fix"),
        ("GPGGA,123519,4807.038,N,01131.000,E,6,08,0.9,545.4,M,46.9,M,,", "estimated"),
        ("GPGGA,123519,4807.038,N,01131.000,E,8,08,0.9,545.4,M,46.9,M,,", "estimated"),
        ("GNGNS,112257.00,3844.24011,N,00908.43828,W,NN,03,10.5,100.0,46.9,,,V", "no_fix"),
        ("GNGNS,112257.00,3844.24011,N,00908.43828,W,EN,03,10.5,100.0,46.9,,,V", "estimated"),
    ],
)
def test_a_position_nobody_vouches_for_is_none(body: str, reason: str) -> None:
    seen = read(body)
    assert seen is not None
    assert (seen.refused, seen.position) == (reason, None)


@pytest.mark.parametrize(
    "place",
    [
        "9916.200,N,01131.000,E",  # latitude 99.27
        "9000.001,N,01131.000,E",
        "4807.038,N,18000.001,E",
        "4875.000,N,01131.000,E",  # minutes 75
        "4807.038,N,01160.000,E",
        "4807.038,E,01131.000,N",
        "4807.038,,01131.000,",
        "4807.038,N,01131.000,X",
        "4807,N,01131,E",
        "-807.038,N,01131.000,E",
        "nan,N,nan,E",
        ",,,",
        ",N,,E",
    ],
)
def test_a_place_that_is_not_on_earth_is_refused(place: str) -> None:
    for body in (f"GPRMC,123519,A,{place},10.0,084.4,241126,,,A", f"GPGGA,123519,{place},1,08,0.9,1,M,1,M,,"):
        seen = read(body)
        assert seen is not None
        assert (seen.refused, seen.position) == ("implausible", None)


@pytest.mark.parametrize("place", ["9000.000,N,00000.000,E", "0000.000,S,18000.000,W"])
def test_the_poles_and_the_date_line_are_on_earth(place: str) -> None:
    seen = read(f"GPGLL,{place},123519,A,A")
    assert seen is not None
    assert seen.position is not None
    assert plausible(*seen.position)


def test_a_leap_second_is_a_time_of_day() -> None:
    seen = read(rmc("235960.00", "311216"))
    assert seen is not None
    assert seen.time == 86400.0


@pytest.mark.parametrize("time", ["235961", "123560", "126000", "240000", "12351", "noon", "-12519"])
def test_a_time_that_does_not_exist_costs_the_sentence(time: str) -> None:
    with pytest.raises(BadFrame, match="time"):
        read(rmc(time))


@pytest.mark.parametrize(
    "body", [rmc(day="310226"), rmc(day="1123"), "GPZDA,201530,31,02,2026,00,00", "GPZDA,201530,4"]
)
def test_a_date_that_does_not_exist_costs_the_sentence(body: str) -> None:
    with pytest.raises(BadFrame, match="date"):
        read(body)


def test_a_field_that_is_no_number_costs_the_sentence() -> None:
    with pytest.raises(BadFrame, match="field"):
        read("GPGGA,123519,4807.038,N,01131.000,E,x,08,0.9,545.4,M,46.9,M,,")


def test_a_sentence_of_odd_fields_is_understood_or_refused_and_nothing_else() -> None:
    chance = random.Random(7)
    odd = [
        "",
        "0",
        "-1",
        "1e999",
        "nan",
        "1_0",
        "N",
        "A",
        "123519",
        "4807.038",
        "01131.000",
        "241126",
        " ",
        "*",
        "x" * 30,
    ]
    for _ in range(20_000):
        kind = chance.choice(["RMC", "GGA", "GNS", "GLL", "ZDA", "GSV"])
        fields = tuple(chance.choice(odd) for _ in range(chance.randrange(16)))
        with contextlib.suppress(BadFrame):
            observe(Sentence("GN" + kind, fields))


def test_a_speed_that_is_not_finite_is_none() -> None:
    for speed in ("nan", "inf", "1e999", ""):
        seen = read(f"GPRMC,123519,A,4807.038,N,01131.000,E,{speed},,241126,,,A")
        assert seen is not None
        assert (seen.position, seen.speed_mps) == (MUNICH, None)


# -- the virtual receiver -------------------------------------------------------------------------


def test_the_virtual_receiver_makes_the_checksums_of_the_samples() -> None:
    for raw, _ in SAMPLES.values():
        assert said_by_the_receiver(raw[1:-3].decode()) == raw + b"\r\n"
