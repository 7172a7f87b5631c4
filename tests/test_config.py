"""The config file: what it may say, and how every mistake in it is named."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent.config import FILE_LIMIT, Config, load, parse
from agent.config_file import File
from agent.intake import Role
from agent.mistakes import BadConfig
from drivers import KINDS

GOOD = """
[device]
id = "van-0042"
tenant = "parcels"
state = "/var/lib/postern"

[broker]
host = "mqtt.example"

[unit.gun]
kind = "line"
port = "/dev/serial/by-id/usb-Honeywell-if00"
suffix = "crlf"

[unit.badge]
kind = "em4100"
port = "usb:0403:6001:A1"

[unit.gps]
kind = "nmea"
port = "tcp:localhost:4001"
baud = 38400
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(BadConfig) as bad:
        parse(text)
    return [str(mistake) for mistake in bad.value.mistakes]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_gives_units_ready_to_be_opened() -> None:
    config = parse(GOOD)
    assert config.source == "/postern/parcels/van-0042"
    assert config.topic == "postern/v1/van-0042"
    assert config.state == Path("/var/lib/postern")
    assert [(unit.name, unit.kind, unit.role, unit.baud) for unit in config.units] == [
        ("gun", "line", Role.PARCEL, 9600),
        ("badge", "em4100", Role.BADGE, 9600),
        ("gps", "nmea", Role.POSITION, 38400),
    ]


def test_a_fingerprint_card_is_enough_alone() -> None:
    """It is held, and it has matched its holder's finger: two factors in one."""
    sets = '[["fido2"], ["badge", "slot"], ["badge", "pin"]]'
    rules = parse(GOOD.replace("[unit.gun]", f"[custody]\nsession = {sets}\n[unit.gun]")).rules()
    assert rules.session.sets == (
        frozenset({"fido2"}),
        frozenset({"badge", "slot"}),
        frozenset({"badge", "pin"}),
    )


def test_the_least_file_is_good() -> None:
    config = parse('[device]\nid = "abc"\ntenant = "abc"\n[broker]\nhost = "localhost"\n')
    assert config.units == ()
    assert config.rules().attended


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_configured_with_nothing_but_its_port(kind: str) -> None:
    (unit,) = parse(GOOD.partition("[unit")[0] + f'[unit.it]\nkind = "{kind}"\nport = "/dev/it"').units
    assert unit.kind == kind


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('id = "van-0042"', "", "device.id: expected a value, got nothing"),
        ("[broker]\nhost", "[other]\nhost", "broker: expected a value, got nothing"),
        (
            "[broker]\nhost",
            "[other]\nhost",
            f"other: expected one of the settings {', '.join(sorted(File.model_fields))}, got an unknown one",
        ),
        ('id = "van-0042"', "id = 42", "device.id: expected a valid string, got 42"),
        (
            'id = "van-0042"',
            'id = "Van 42"',
            "device.id: expected text that matches '^[a-z0-9][a-z0-9-]{2,39}$', got 'Van 42'",
        ),
        ('"/var/lib/postern"', '"postern"', "device.state: expected an absolute path, got 'postern'"),
        ('"/var/lib/postern"', '"/a\\u0000b"', "device.state: expected an absolute path, got '/a\\x00b'"),
        (
            '"/var/lib/postern"',
            f'"/{"x" * 99}"',
            f"device.state: expected a path of at most 90 bytes, got '/{'x' * 55}...",
        ),
        ('"mqtt.example"', '""', "broker.host: expected a host name or an address, got ''"),
        ('"mqtt.example"', '"a"\nport = 0', "broker.port: expected greater than or equal to 1, got 0"),
        ('"mqtt.example"', '"a"\nport = "8883"', "broker.port: expected a valid integer, got '8883'"),
        ('"mqtt.example"', '"a"\nport = true', "broker.port: expected a valid integer, got True"),
        (
            '"mqtt.example"',
            '"a"\n[broker.tls]\nkey = "/k"',
            "broker.tls: expected certificate and key together, got only one of them",
        ),
        (
            '"mqtt.example"',
            '"a"\nplain = true\ntls = { ca = "/ca" }',
            "broker.plain: expected either TLS or plain, got both",
        ),
        (
            '"mqtt.example"',
            '"a"\n[broker.tls]\ncafile = "/k"',
            "broker.tls.cafile: expected one of the settings ca, certificate, key, got an unknown one",
        ),
        (
            "[unit.gun]",
            "[custody]\nidle = nan\n[unit.gun]",
            "custody.idle: expected a finite number, got nan",
        ),
        (
            "[unit.gun]",
            "[position]\nfresh = inf\n[unit.gun]",
            "position.fresh: expected a finite number, got inf",
        ),
        (
            "[unit.gun]",
            '[custody]\ntones = "horn"\n[unit.gun]',
            "custody.tones: expected one of the units badge, gps, gun, got 'horn'",
        ),
        (
            "[unit.gun]",
            '[custody]\nsession = [["badge", "badge"]]\n[unit.gun]',
            "custody.session[0]: expected two different factors, one of them more than a badge, "
            "or a fingerprint card, got ['badge', 'badge']",
        ),
        (
            "[unit.gun]",
            '[custody]\nhandover = [["slot"]]\n[unit.gun]',
            "custody.handover[0]: expected two different factors, one of them more than a badge, "
            "or a fingerprint card, got ['slot']",
        ),
        (
            "[unit.gun]",
            '[custody]\nhandover = [["badge", "face"]]\n[unit.gun]',
            "custody.handover[0][1]: expected 'badge', 'fido2', 'pin', 'slot' or 'static', got 'face'",
        ),
        (
            "[unit.gun]",
            "[custody]\nsession = []\n[unit.gun]",
            "custody.session: expected at least one set of factors, got none: nobody could ever do it",
        ),
        ('kind = "line"', "", "unit.gun.kind: expected a value, got nothing"),
        ('kind = "line"', 'kind = "lime"', f"unit.gun.kind: expected one of {', '.join(KINDS)}, got 'lime'"),
        (
            'kind = "line"',
            'kind = "line"\nrole = "finger"',
            "unit.gun.role: expected one of parcel, badge, token, keypad, got 'finger'",
        ),
        (
            "usb:0403:6001:A1",
            "COM3",
            "unit.badge.port: expected an absolute path, usb:VID:PID[:SERIAL] or tcp:HOST:PORT, got 'COM3'",
        ),
        (
            "usb:0403:6001:A1",
            "/dev/serial/by-id/usb-Honeywell-if00",
            "unit.badge.port: expected a port of its own, got the port of unit.gun",
        ),
        ("baud = 38400", "baud = 50", "unit.gps.baud: expected greater than or equal to 300, got 50"),
        (
            "[unit.gps]\n",
            '[unit.cards]\nkind = "pn532"\nport = "/dev/x"\npresence_ms = 200\npoll_ms = 150\n[unit.gps]\n',
            "unit.cards: expected presence_ms of two looks (300), got 200",
        ),
        (
            "[unit.gps]\n",
            '[unit.f]\nkind = "r503"\nport = "/dev/x"\npassword_file = "/a"\npassword = 5\n[unit.gps]\n',
            "unit.f: expected a password or a password_file, got both",
        ),
        (
            'suffix = "crlf"',
            'suffix = "none"',
            "unit.gun: expected suffix none needs idle_ms: without it no line would ever end, "
            "got {'suffix': 'none'}",
        ),
        (
            "[unit.gun]",
            '[unit."Gun 1"]',
            'unit: expected names that match ^[a-z][a-z0-9_-]{0,31}$, got "Gun 1"',
        ),
        ("[unit.gun]", "[unit]\nx = []\n[other]", "unit.x: expected a table, got []"),
        ("[unit.gps]\n", "[unit]\ngps = 5\n[unit.other]\n", "unit.gps: expected a table, got 5"),
    ],
)
def test_a_mistake_is_named_with_its_path_what_was_expected_and_what_was_found(
    old: str, new: str, told: str
) -> None:
    assert told in mistakes(changed(old, new))


def test_a_setting_that_the_driver_does_not_know_is_named_with_those_it_does() -> None:
    (told,) = mistakes(changed("suffix =", "sufix ="))
    assert told.startswith(
        "unit.gun.sufix: expected one of the settings baud, cap, commands, expect, gs, idle_ms, kind"
    )


def test_all_mistakes_are_named_at_once() -> None:
    text = (
        changed('"van-0042"', '"?"')
        .replace('"line"', '"lime"')
        .replace("38400", "50")
        .replace("mqtt.ex", "/")
    )
    assert [told.partition(":")[0] for told in mistakes(text)] == [
        "device.id",
        "broker.host",
        "unit.gun.kind",
        "unit.gps.baud",
    ]


def test_a_faulty_unit_that_sounds_the_tones_is_one_mistake() -> None:
    text = changed("[unit.gun]", '[custody]\ntones = "gun"\n[unit.gun]').replace('"crlf"', '"smoke"')
    assert [told.partition(":")[0] for told in mistakes(text)] == ["unit.gun.suffix"]


@pytest.mark.parametrize(
    "text",
    [
        "[device",
        "id = ",
        "[device]\n[device]\n",
        "a = " + "[" * 50_000,
        "a = " + "{a=" * 50_000,
        "a = " + "9" * 5000,
        "\0",
    ],
)
def test_what_is_not_toml_is_a_mistake_of_syntax(text: str) -> None:
    (told,) = mistakes(text)
    assert told.startswith("syntax: expected TOML, got ")
    assert len(told) < 200


@pytest.mark.parametrize(
    ("setting", "got"),
    [
        ("host" + ".a" * 2000 + " = 1", "something too long to show (dict)"),
        ("host = 0x" + "f" * 60_000, "something too long to show (int)"),
        ("host = [" + "1," * 30_000 + "]", "[1, 1, 1"),
    ],
)
def test_what_is_found_is_shown_short_however_long_it_is(setting: str, got: str) -> None:
    (told,) = mistakes(changed('host = "mqtt.example"', setting))
    assert told.startswith(f"broker.host: expected a valid string, got {got}")
    assert len(told) < 200


@given(st.text(max_size=200))
def test_no_text_does_anything_but_pass_or_be_refused(text: str) -> None:
    for whole in (text, GOOD + text):
        with contextlib.suppress(BadConfig):
            parse(whole)


@pytest.mark.parametrize(
    "setting",
    [
        'password = "hunter2"',
        'password_file = "hunter2"',
        'password_file = ["hunter2"]',
        'password_file = "/hunter2"',
        'tls = { password = "hunter2" }',
        'username = [{ password = "hunter2" }]',
    ],
)
def test_a_password_is_never_shown(setting: str) -> None:
    with pytest.raises(BadConfig) as bad:
        parse(changed('host = "mqtt', f'{setting}\nhost = "mqtt')).server()
    assert "hunter2" not in str(bad.value)


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "file: expected a readable file, got bytes that are not UTF-8 (at 0)"),
        (b"#" * (FILE_LIMIT + 1), f"file: expected at most {FILE_LIMIT} bytes, got more"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "postern.toml"
    path.write_bytes(content)
    with pytest.raises(BadConfig) as bad:
        load(path)
    assert str(bad.value) == f"{path}: {told}"


def test_a_missing_file_and_a_folder_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No such file or directory"):
        load(tmp_path / "missing.toml")
    with pytest.raises(BadConfig, match="Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "postern.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).file.device.id == "van-0042"


# -- the broker's secrets ---------------------------------------------------------------------------


def with_broker(*settings: str) -> Config:
    return parse(changed('host = "mqtt.example"', "\n".join(('host = "mqtt.example"', *settings))))


@pytest.mark.parametrize("content", ["s3cret", "s3cret\n", "s3cret\r\nmore\n"])
def test_the_password_is_the_first_line_of_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_text(content, newline="")
    server = with_broker("plain = true", f'password_file = "{tmp_path}/password"').server()
    assert (server.username, server.password) == ("van-0042", "s3cret")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected a password on the first line, got an empty line"),
        (b"\nsecond\n", "expected a password on the first line, got an empty line"),
        (b"\xff\n", "expected a readable file, got bytes that are not UTF-8 (at 0)"),
        (None, "expected a readable file, got No such file or directory"),
    ],
)
def test_a_password_that_cannot_be_used_says_why(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    with pytest.raises(BadConfig) as bad:
        with_broker(f'password_file = "{tmp_path}/password"').server()
    assert str(bad.value) == f"config: broker.password_file: {told}"


def certificate(folder: Path, *, passphrase: bytes | None = None) -> None:
    """A certificate and its key, as `cert.pem` and `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "van-0042")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    signed = built.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    )


def tls(folder: Path) -> Config:
    files = [
        f'{name} = "{folder}/{file}.pem"'
        for name, file in (("ca", "cert"), ("certificate", "cert"), ("key", "key"))
    ]
    return with_broker("[broker.tls]", *files)


def test_the_certificates_are_used(tmp_path: Path) -> None:
    certificate(tmp_path)
    context = tls(tmp_path).server().tls
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) <= 1


def test_a_key_behind_a_passphrase_is_refused_and_nobody_is_asked_for_one(tmp_path: Path) -> None:
    certificate(tmp_path, passphrase=b"xyzzy")
    with pytest.raises(BadConfig, match=r"broker.tls.certificate: expected .* not encrypted"):
        tls(tmp_path).server()


def test_every_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    settings = [f'ca = "{tmp_path}/cert.pem"', f'certificate = "{tmp_path}/none"', f'key = "{tmp_path}/none"']
    with pytest.raises(BadConfig) as bad:
        with_broker(f'password_file = "{tmp_path}/none"', "[broker.tls]", *settings).server()
    assert [mistake.path for mistake in bad.value.mistakes] == [
        "broker.password_file",
        "broker.tls.ca",
        "broker.tls.certificate",
    ]


def test_the_fleets_root_lies_with_the_state_unless_it_is_said_where() -> None:
    plain = parse(GOOD)
    assert plain.root == plain.state / "root.jws"
    assert (plain.audience.name, plain.audience.groups) == ("parcels/van-0042", frozenset())
    said = parse(GOOD + '\n[trust]\nroot = "/etc/postern/root.jws"\n[fleet]\ngroups = ["north", "vans"]\n')
    assert str(said.root) == "/etc/postern/root.jws"
    assert said.audience.groups == {"north", "vans"}
