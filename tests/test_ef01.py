"""The packets of fingerprint modules, as pure functions. The modules themselves are in `test_r503.py`."""

import pytest

from drivers.base import ActionRefused
from drivers.ef01 import (
    GEN_IMG,
    MATCH,
    READ_PROD_INFO,
    READ_SYS_PARA,
    REG_MODEL,
    TEMPLATE_NUM,
    Ack,
    Colour,
    Command,
    Ef01Codec,
    Frame,
    Mode,
    Parameters,
    Pid,
    aura_led,
    delete_char,
    encode,
    firmware,
    img2tz,
    index_digest,
    load_char,
    product,
    read_index_table,
    slots_in,
    store,
    verify_password,
)
from tests.codec_law import obey

START = bytes.fromhex("EF01 FFFFFFFF")


def ack(content: str) -> Frame:
    return Frame(pid=Pid.ACK, content=bytes.fromhex(content))


# Sample packets of the R503 manual; the system parameters are built from its field table.
ANSWERS = [
    ("07 0003 00 000A", ack("00")),
    ("07 0003 02 000C", ack("02")),
    ("07 0007 00 0005 0064 0077", ack("00 0005 0064")),
    ("07 0007 09 0000 0000 0017", ack("09 0000 0000")),
    (
        "07 0013 00 0000 0000 00C8 0003 FFFFFFFF 0002 0006 04E9",
        ack("00 0000 0000 00C8 0003 FFFFFFFF 0002 0006"),
    ),
]
VECTORS = [(START + bytes.fromhex(raw), frame) for raw, frame in ANSWERS]

COMMANDS = [
    (verify_password(0), "01 0007 13 00000000 001B"),
    (GEN_IMG, "01 0003 01 0005"),
    (img2tz(1), "01 0004 02 01 0008"),
    (delete_char(5), "01 0007 0C 0005 0001 001A"),
    (TEMPLATE_NUM, "01 0003 1D 0021"),
    (READ_SYS_PARA, "01 0003 0F 0013"),
    (aura_led(Mode.BREATHE, Colour.BLUE), "01 0007 35 01 64 02 00 00A4"),
    (Command(name="Search", content=bytes.fromhex("04 01 0000 00C8")), "01 0008 04 01 0000 00C8 00D6"),
    (Command(name="Empty", content=b"\x0d"), "01 0003 0D 0011"),
]


@pytest.mark.parametrize(("command", "raw"), COMMANDS, ids=lambda part: getattr(part, "name", ""))
def test_commands_are_the_bytes_of_the_manual(command: Command, raw: str) -> None:
    assert encode(Frame(pid=Pid.COMMAND, content=command.content)) == START + bytes.fromhex(raw)


def test_a_command_carries_the_address_of_its_module() -> None:
    sent = encode(Frame(pid=Pid.COMMAND, content=b"\x01"), 0x01020304)
    assert sent == bytes.fromhex("EF01 01020304 01 0003 01 0005")


def test_the_codec_obeys_the_law_though_the_checksum_leaves_out_the_address() -> None:
    longest = Frame(pid=Pid.DATA, content=bytes(256))
    obey(
        Ef01Codec,
        [*VECTORS, (encode(longest), longest)],
        checksummed=True,
        limit=Ef01Codec.LIMIT,
        over_long=encode(Frame(pid=Pid.DATA, content=bytes(257))),
    )


def test_the_codec_obeys_the_law_for_an_address_of_its_own() -> None:
    obey(
        lambda: Ef01Codec(0x01EF0155),
        [(encode(frame, 0x01EF0155), frame) for _, frame in VECTORS],
        checksummed=True,
        limit=Ef01Codec.LIMIT,
    )


SPOILT = [
    ("EF01 FFFFFFFE 07 0003 00 000A", "address"),
    ("EF01 FFFFFFFF 03 0003 00 0006", "packet_id"),
    ("EF01 FFFFFFFF 07 0002 0009", "length"),
    ("EF01 FFFFFFFF 07 0000", "length"),
    ("EF01 FFFFFFFF 07 0103 00 000A", "too_long"),
    ("EF01 FFFFFFFF 07 0003 00 000B", "checksum"),
    ("55", "skipped_bytes"),
]


@pytest.mark.parametrize(("raw", "reason"), SPOILT)
def test_what_is_no_frame_is_counted_and_the_next_one_read(raw: str, reason: str) -> None:
    codec = Ef01Codec()
    good, frame = VECTORS[0]
    assert codec.feed(bytes.fromhex(raw) + good) == [frame]
    assert codec.noise[reason] >= 1


def test_the_boot_byte_costs_nothing_but_itself() -> None:
    codec = Ef01Codec()
    assert codec.feed(b"\x55" + VECTORS[0][0]) == [VECTORS[0][1]]
    assert codec.noise == {"skipped_bytes": 1}


FITS = [
    (GEN_IMG, "00", True),
    (GEN_IMG, "02", True),
    (GEN_IMG, "00 0000", False),
    (MATCH, "00 0078", True),
    (MATCH, "08 0000", True),
    (MATCH, "08", True),
    (MATCH, "00", False),
    (READ_SYS_PARA, "00 0078", False),
    (READ_SYS_PARA, "21", True),
]


@pytest.mark.parametrize(("command", "content", "fits"), FITS)
def test_an_answer_is_told_from_others_by_its_length(command: Command, content: str, fits: bool) -> None:
    assert command.answered_by(ack(content)) is fits


def test_the_echo_of_a_command_is_no_answer() -> None:
    assert not GEN_IMG.answered_by(Frame(pid=Pid.COMMAND, content=GEN_IMG.content))


def test_only_a_yes_is_accepted() -> None:
    assert GEN_IMG.accepted_by(ack("00"))
    assert not GEN_IMG.accepted_by(ack("02"))
    assert not GEN_IMG.accepted_by(ack("00 0000"))


REPEATS = [
    (GEN_IMG, None, True),
    (GEN_IMG, 0x00, False),
    (GEN_IMG, 0x01, True),
    (GEN_IMG, 0x02, False),
    (GEN_IMG, 0x21, True),
    (MATCH, None, True),
    (MATCH, 0x21, False),
    (load_char(2, 5), 0x21, False),
    (delete_char(5), None, False),
    (delete_char(5), 0x01, False),
    (delete_char(5), 0x21, True),
    (store(1, 5), None, False),
    (store(1, 5), 0x21, False),
    (REG_MODEL, None, False),
    (REG_MODEL, 0x01, False),
]


@pytest.mark.parametrize(("command", "code", "again"), REPEATS)
def test_only_what_is_harmless_twice_is_repeated(command: Command, code: int | None, again: bool) -> None:
    answer = None if code is None else Ack(command=command.name, code=code)
    assert command.may_be_repeated(answer) is again


def test_a_no_is_refused_by_name() -> None:
    yes = GEN_IMG.read(ack("00"))
    assert yes.check() is yes
    with pytest.raises(ActionRefused, match=r"^GenImg: sensor_fault$"):
        GEN_IMG.read(ack("29")).check()
    with pytest.raises(ActionRefused, match=r"^GenImg: code 0x77$"):
        GEN_IMG.read(ack("77")).check()


def test_system_parameters_are_read_from_their_sixteen_bytes() -> None:
    assert Parameters.parse(VECTORS[-1][1].content[1:]) == Parameters(
        capacity=200, security=3, address=0xFFFFFFFF, packet_bytes=128, baud=57600
    )


def test_a_module_tells_its_maker_s_numbers() -> None:
    """The fields of the R503 manual (1.2.1), with what a real one has said in them."""
    told = (
        b"R5xx1111".ljust(16, b"\0") + b"1111" + b"10080307" + b"\x01\x01" + b"GR192RGB"
        + bytes.fromhex("00C0 00C0 0600 00C8")
    )  # fmt: skip
    for reserve in (b"", bytes(4)):
        frame = Frame(pid=Pid.ACK, content=b"\0" + told + reserve)
        assert READ_PROD_INFO.accepted_by(frame)
        said = product(READ_PROD_INFO.read(frame).payload)
        assert said == {"model": "R5xx1111", "serial": "1111-10080307", "hardware": "1.1"}
    assert not READ_PROD_INFO.answered_by(Frame(pid=Pid.ACK, content=b"\0" + told + b"\0"))


def test_a_number_that_is_no_text_is_told_in_hex() -> None:
    told = bytes(16) + b"\x01\x02\x03\x04" + b"\xff" * 8 + bytes(18)
    assert product(told) == {"model": "", "serial": "01020304-ffffffffffffffff", "hardware": "0.0"}
    assert firmware(b"\x1b[2J".ljust(32, b"\0")).startswith("1b5b324a")


def test_index_pages_begin_with_the_lowest_bit() -> None:
    assert list(slots_in(0, bytes([0b0010_0001, 0x80]))) == [0, 5, 15]
    assert list(slots_in(1, bytes([0x01]) + bytes(31))) == [256]
    assert read_index_table(1).payload == 32


def test_an_index_digest_depends_on_the_slots_and_not_on_their_order() -> None:
    assert index_digest([7, 5]) == index_digest(frozenset({5, 7}))
    assert index_digest([5, 7]) != index_digest([57])
    assert index_digest([]) == "e3b0c44298fc1c14"


def test_a_password_is_in_no_repr() -> None:
    command = verify_password(0xCAFE4711)
    assert repr(command) == repr(verify_password(0))
    assert "cafe" not in repr(Frame(pid=Pid.COMMAND, content=command.content)).lower()
