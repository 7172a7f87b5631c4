"""The fleet to try against: what is typed, and what its made-up devices do."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import parse
from agent.fleet.keyring import Keyring
from drivers.base import NoReply
from drivers.port import Address, PortGone
from simulators.fleet import command
from simulators.fleet.enrolling import PASSPHRASE, bring_in, keys_in, receipt_key
from simulators.fleet.hardware import HARDWARE, MIX, devices, whole
from simulators.fleet.host import Spec
from simulators.fleet.synthetic import Hands
from simulators.fleet.view import View

ROOT = Path(__file__).parent.parent
TABLE = 'host = "127.0.0.1"\nport = 1883\nplain = true'


@pytest.mark.parametrize("words", [["--devices", "0"], ["--ca", "x"], ["--rate", "-1"], ["--hardware", "x"]])
def test_a_mistake_is_named_and_nothing_starts(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_the_module_says_what_it_can_do() -> None:
    done = subprocess.run([sys.executable, "-m", "simulators"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "fleet" in done.stderr


@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_config_of_each_hardware_is_one_that_an_agent_takes(hardware: str, tmp_path: Path) -> None:
    (device,) = devices(1, [hardware], tmp_path)
    config = parse(whole(device, "demo", TABLE, receipt_key(tmp_path)))
    assert {unit.address.text: unit.kind for unit in config.units} == HARDWARE[hardware]


def test_the_first_few_devices_are_of_every_hardware(tmp_path: Path) -> None:
    made = devices(12, MIX, tmp_path)
    assert {each.hardware for each in made[:4]} == set(HARDWARE)
    assert len({each.name for each in made}) == 12


def test_devices_that_are_known_are_not_enrolled_again(tmp_path: Path) -> None:
    keyring = keys_in(tmp_path / "keys", "demo")
    made, receipts = devices(2, MIX, tmp_path), receipt_key(tmp_path / "keys")
    for _ in range(2):
        bring_in(keyring, made, TABLE, receipts, None, lambda _done: None)
    known = (tmp_path / "keys" / "certificates.json").read_text()
    assert known.count('"name"') == 2
    assert keys_in(tmp_path / "keys", "another").fingerprint == keyring.fingerprint
    assert len(Keyring(tmp_path / "keys").root_signers(lambda _path: PASSPHRASE)) == 2


async def test_at_a_port_where_something_else_is_plugged_in_nobody_answers() -> None:
    wiring = Hands("ring-0001", HARDWARE["ring"], 1.0, 1).wiring
    port = await wiring.open(Address.parse("/sim/gun"), 9600)

    async def emit(_: object) -> None:
        raise AssertionError("it said something")

    assert await wiring.driver("ssi")(port, emit, None).identify()
    with pytest.raises(NoReply):
        await wiring.driver("line")(port, emit, None).identify()
    with pytest.raises(PortGone):
        await wiring.open(Address.parse("/sim/gate"), 9600)


def test_a_host_is_told_by_a_file(tmp_path: Path) -> None:
    spec = Spec(devices=[["a", "van", "/x"]], rate=1.0, skew=2.0, cold=0.5, second=1.0, seed=3)
    spec.write(tmp_path / "host.json")
    assert Spec.read(tmp_path / "host.json") == spec


def test_what_the_hosts_say_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(devices=3, as_json=False)
    sums = {"backlog": 0, "entries": 1200, "scans": 7, "revoked": 0, "starts": 1, "failures": 0, "late": 0.0}
    took = {"revocations": {"count": 2, "longest": 0.012}, "root": {"count": 2, "longest": 0.5}}
    view.told(1, {**sums, "online": 1, "took": {}})
    view.told(0, {**sums, "online": 2, "took": took})
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("3 of 3 online; 14 scans; 2,400 entries")
    assert line.endswith("last revocations: 2, at most 12 ms from arrival to force")
