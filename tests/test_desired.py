"""Whether a config from afar could be used here: a refusal says where, what was expected, what was found."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.bounds import completed
from agent.config import Config, parse
from agent.desired import Gates, candidate, fitting, read, required
from agent.mistakes import BadConfig
from agent.note import SignerKey
from tests.test_explain import LOCKER, VAN, changed

HERE = changed(VAN, "[journal]", "[trust]\nroot = '/etc/postern/root.jws'\n\n[journal]")
BADGES = HERE.partition("[unit.keys]")[0]
"""A device at which nobody can prove anything: it has a reader of badges alone."""
BROKER = '[broker]\nhost = "mqtt.example"\n'


def body(text: str = VAN, **more: Any) -> dict[str, Any]:
    return {"schema": "1.0", "toml": text.split("\n"), **more}


def refusals(bad: pytest.ExceptionInfo[BadConfig]) -> list[str]:
    return [str(mistake) for mistake in bad.value.mistakes]


def refused(text: str, here: str = HERE) -> list[str]:
    with pytest.raises(BadConfig) as bad:
        candidate(text, parse(here), "config 7")
    return refusals(bad)


def unread(**more: Any) -> list[str]:
    with pytest.raises(BadConfig) as bad:
        read(body(**more), "config 7")
    return refusals(bad)


def test_a_document_is_read_with_its_defaults() -> None:
    desired = read(body(), "config 7")
    assert desired.text == VAN
    assert (desired.confirm_timeout, desired.dry_run, desired.gates.units) == (600, False, None)


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ({"schema": "2.0"}, "schema: expected 1.x, got '2.0'"),
        ({"schema": "11.0"}, "schema: expected 1.x, got '11.0'"),
        ({"schema": 1}, "schema: expected a valid string, got 1"),
        ({"min_agent": "99.0"}, "min_agent: expected at most 0.1.0, got 99.0"),
        ({"min_agent": "0.1.1"}, "min_agent: expected at most 0.1.0, got 0.1.1"),
        ({"confirm_timeout": 119}, "confirm_timeout: expected greater than or equal to 120, got 119"),
        ({"confirm_timeout": 3601}, "confirm_timeout: expected less than or equal to 3600, got 3601"),
        ({"confirm_timeout": True}, "confirm_timeout: expected a valid integer, got True"),
        (
            {"gates": {"units": ["A"]}},
            "gates.units[0]: expected text that matches '^[a-z][a-z0-9_-]{0,31}$', got 'A'",
        ),
        ({"toml": "text"}, "toml: expected a valid list, got 'text'"),
    ],
)
def test_a_body_that_is_not_understood_is_refused(more: dict[str, Any], mistake: str) -> None:
    assert unread(**more) == [mistake]


def test_an_unknown_key_of_the_body_is_refused() -> None:
    (mistake,) = unread(force=True)
    assert mistake.startswith("force: expected one of the settings ")


def test_a_config_from_afar_need_not_say_who_the_device_is() -> None:
    config = candidate('[broker]\nhost = "mqtt.example"\n', parse(HERE), "config 7")
    assert config.file.device == parse(HERE).file.device
    assert config.file.trust == parse(HERE).file.trust


def test_what_the_device_believes_is_kept_where_the_config_is_silent() -> None:
    here = parse(HERE + f'\n[fleet]\nkeys = ["{_key()}"]\n')
    assert completed({"broker": {"host": "b"}}, here)["fleet"] == {"keys": [_key()]}
    assert completed({"fleet": {"groups": ["north"]}}, here)["fleet"] == {
        "keys": [_key()],
        "groups": ["north"],
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[device]\nid = "van-0043"\ntenant = "acme"\n' + BROKER, "device.id"),
        ('[device]\nid = "van-0042"\ntenant = "other"\n' + BROKER, "device.tenant"),
        ('[device]\nid = "van-0042"\ntenant = "acme"\nstate = "/tmp/x"\n' + BROKER, "device.state"),
        ('[trust]\nroot = "/tmp/root.jws"\n' + BROKER, "trust.root"),
        (BROKER + "plain = true\n", "broker.plain"),
        (BROKER + "[custody]\nattended = false\n", "custody.attended"),
        (
            BROKER
            + '[tamper]\nunit = "gun"\ninput = 1\nclosed = true\n'
            + '[unit.gun]\nkind = "line"\nport = "/dev/x"\n',
            "tamper",
        ),
        (BROKER + "[identity]\nstale_hours = 337\n", "identity.stale_hours"),
        (BROKER + "[identity]\ntries = 6\n", "identity.tries"),
        (BROKER + "[identity]\nwait = 1\n", "identity.wait"),
        (BROKER + "[identity]\nlast_try = 51\n", "identity.last_try"),
        (BROKER + "[custody]\nsession = [['badge']]\n", "custody.session[0]"),
    ],
)
def test_what_no_config_from_afar_may_loosen(text: str, path: str) -> None:
    assert [mistake.partition(":")[0] for mistake in refused(text)] == [path]


def test_tls_may_be_turned_on_from_afar_but_not_off() -> None:
    plain = changed(HERE, 'host = "mqtt.example"', 'host = "mqtt.example"\nplain = true')
    assert not candidate(BROKER, parse(plain), "config 7").file.broker.plain
    (mistake,) = refused(BROKER + "plain = true\n")
    assert mistake == "broker.plain: expected false: TLS is not turned off from afar, got true"


def test_who_vouches_for_the_broker_is_settled_at_the_device() -> None:
    here = changed(HERE, 'host = "mqtt.example"', 'host = "mqtt.example"\ntls = { ca = "/etc/ca.pem" }')
    assert refused(BROKER, here) == [
        "broker.tls.ca: expected /etc/ca.pem, as it is at the device, got nothing"
    ]
    assert refused(BROKER + 'tls = { ca = "/etc/all.pem" }\n', here) == [
        "broker.tls.ca: expected /etc/ca.pem, as it is at the device, got /etc/all.pem"
    ]
    kept = BROKER + 'tls = { ca = "/etc/ca.pem", certificate = "/c", key = "/k" }\n'
    assert candidate(kept, parse(here), "config 7").file.broker.tls.certificate == "/c"


def test_who_enrolment_says_vouches_for_the_broker_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").touch()
    here = changed(HERE, 'tenant = "acme"', f'tenant = "acme"\nstate = "{tmp_path}"')
    (mistake,) = refused(BROKER + 'tls = { certificate = "/c", key = "/k" }\n', here)
    assert mistake.startswith("broker.tls.ca: expected ")


def test_nobody_is_given_the_right_to_give_receipts_from_afar() -> None:
    here = HERE + f'\n[fleet]\nkeys = ["{_key()}"]\n'
    (mistake,) = refused(BROKER + f'[fleet]\nkeys = ["{_key()}", "{_key(2)}"]\n', here)
    assert mistake.startswith("fleet.keys: expected keys that are believed at the device, got ")
    (mistake,) = refused(BROKER + "[fleet]\nkeys = []\n", here)
    assert (
        mistake == "fleet.keys: expected at least one of the keys that are believed at the device, got none"
    )


def _key(seed: int = 1) -> str:
    return SignerKey("fleet-main", Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)).verifier.text


# -- as the device is now -----------------------------------------------------------------------------


def unfit(text: str, here: str = HERE, gates: Gates = Gates()) -> list[str]:  # noqa: B008
    running = parse(here)
    with pytest.raises(BadConfig) as bad:
        fitting(candidate(text, running, "config 7"), running, gates)
    return refusals(bad)


def test_a_port_must_be_there_unless_it_was_absent_before() -> None:
    gone = '[unit.gun]\nkind = "line"\nport = "/dev/no-such"\n'
    assert unfit(BROKER + gone, BADGES) == [
        "unit.gun.port: expected a port that is there, got /dev/no-such, which is not"
    ]
    same = '[unit.gun]\nkind = "line"\nport = "/dev/ttyUSB0"\n'
    fitting(_config(BROKER + same), parse(BADGES), Gates())


def test_a_port_must_be_a_device(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (mistake,) = unfit(BROKER + f'[unit.gun]\nkind = "line"\nport = "{file}"\n', BADGES)
    assert mistake == f"unit.gun.port: expected a character device, got {file}"


def test_files_that_the_connection_needs_must_be_readable() -> None:
    (mistake,) = unfit(BROKER + 'password_file = "/no/such"\n', BADGES)
    assert mistake == "broker.password_file: expected a readable file, got No such file or directory"


def test_gates_must_name_units() -> None:
    assert unfit(BROKER, gates=Gates(units=["gun"])) == [
        "gates.units: expected units of this config (none), got gun",
        "policy.session.sets: expected a set whose factors the units can read, got units for none",
        "policy.handover.sets: expected a set whose factors the units can read, got units for none",
    ]


def test_units_that_nobody_could_prove_anything_at_are_refused() -> None:
    without = HERE.partition("[unit.keys]")[0]
    assert unfit(without) == [
        "policy.session.sets: expected a set whose factors the units can read, got units for badge",
        "policy.handover.sets: expected a set whose factors the units can read, got units for badge",
    ]


def test_a_device_that_never_asked_anybody_is_not_held_to_ask() -> None:
    fitting(parse(LOCKER), parse(LOCKER), Gates())


def test_units_that_were_ready_and_those_that_are_new_must_be_ready_again() -> None:
    here = parse(HERE)
    config = _config(changed(HERE, "USB2", "null").replace("/dev/ttynull", "/dev/null"))
    assert required(config, here, ["gun"], Gates()) == ("gun", "keys")
    assert required(config, here, ["gun"], Gates(units=["badge"])) == ("badge",)


def _config(text: str) -> Config:
    return candidate(text, parse(HERE), "config 7")
