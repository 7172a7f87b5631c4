"""The kiosk's table of the config file, and the short way to have one."""

from pathlib import Path

import pytest

from agent.cli import main
from agent.config import parse
from agent.mistakes import BadConfig

COURIER = """\
[device]
id = "van-1"
tenant = "lab"

[broker]
host = "broker"
plain = true
"""
LOCKER = (
    COURIER
    + """
[unit.bus]
kind = "cu16"
port = "/dev/bus"
boards = [{ address = 0, locks = 2 }]

[locker.compartment.a1]
unit = "bus"
door = 1
"""
)


def test_without_a_table_there_is_no_kiosk() -> None:
    assert parse(LOCKER).file.kiosk is None


def test_an_empty_table_is_enough() -> None:
    kiosk = parse(LOCKER + "[kiosk]\n").file.kiosk
    assert kiosk is not None
    assert (kiosk.port, kiosk.language) == (8480, "en")


def test_the_short_way_adds_a_table_and_leaves_one_that_is_there_alone() -> None:
    short = parse(LOCKER).with_kiosk().file.kiosk
    assert short == parse(LOCKER + "[kiosk]\n").file.kiosk
    longer = parse(LOCKER + '[kiosk]\nport = 9000\nlanguage = "de"\n')
    assert longer.with_kiosk() is longer


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (COURIER + "[kiosk]\n", "kiosk: expected a [locker] to be the screen of"),
        (LOCKER + "[kiosk]\nport = 80\n", "kiosk.port"),
        (LOCKER + '[kiosk]\nlanguage = "nl"\n', "kiosk.language"),
        (LOCKER + '[kiosk]\nhost = "0.0.0.0"\n', "kiosk.host"),
        (
            LOCKER + '[kiosk]\n[unit.kiosk]\nkind = "line"\nport = "/dev/gun"\n',
            "unit.kiosk: expected a name that the kiosk's page does not go by",
        ),
    ],
)
def test_a_mistake_is_named(text: str, mistake: str) -> None:
    with pytest.raises(BadConfig) as bad:
        parse(text)
    assert mistake in str(bad.value)


def test_the_short_way_needs_a_locker_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "van.toml"
    file.write_text(COURIER)
    assert main(["run", "--config", str(file), "--kiosk"]) == 2
    assert "expected a [locker] to be the screen of" in capsys.readouterr().err
