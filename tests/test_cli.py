"""The `postern` command as an operator runs it: a process of its own, its exit code and its words."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import VERSION, cli
from agent.devices import Found
from drivers import KINDS
from simulators.line import LineScanner
from simulators.r503 import FingerprintModule

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0

CONFIG = """
[device]
id = "van-0042"
tenant = "parcels"
state = "{state}"

[broker]
host = "127.0.0.1"
port = 9
plain = true
"""

FINGER = """
[unit.finger]
kind = "r503"
port = "/dev/nowhere"
"""


class Postern:
    """One folder with a config file and the state of one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "postern.toml"
        self.last_words = ""
        """What the last agent logged after it had started."""
        self.write("")

    def write(self, more: str) -> None:
        self.config.write_text(CONFIG.format(state=self.state) + more)

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "agent", *map(str, words)]

    def run(self, *words: object, said: bytes = b"", **environment: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; never a traceback."""
        ended = subprocess.run(
            self.command(*words),
            check=False,
            cwd=ROOT,
            input=said,
            capture_output=True,
            timeout=PATIENCE,
            env={**os.environ, **environment},
        )
        out, err = ended.stdout.decode(), ended.stderr.decode()
        assert "Traceback" not in err, err
        return ended.returncode, out, err

    @contextlib.contextmanager
    def agent(self) -> Iterator[subprocess.Popen[str]]:
        """A running agent that has said that it started."""
        command = self.command("--log-format", "json", "run", "--config", self.config)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    if json.loads(line)["event"] == "started":
                        break
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                self.last_words = process.communicate(timeout=PATIENCE)[1]


@pytest.fixture
def postern(tmp_path: Path) -> Postern:
    return Postern(tmp_path)


# -- typed wrongly ----------------------------------------------------------------------------------


def test_the_version_is_told(postern: Postern) -> None:
    assert postern.run("--version") == (0, f"postern {VERSION}\n", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("run", "--fast"), "unrecognized arguments: --fast"),
        (("--log-level", "loud", "run"), "invalid choice: 'loud'"),
        (("roster",), "the following arguments are required: ACTION"),
        (("roster", "add", "d-1", "face"), "invalid choice: 'face'"),
        (("roster", "add", "d-1", "badge", "--role", "king"), "invalid choice: 'king'"),
        (("roster", "add", "d-1", "badge", "--days", "0"), "expected 1 to 31, got '0'"),
        (("roster", "add", "d-1", "badge", "--days", "soon"), "expected 1 to 31, got 'soon'"),
    ],
)
def test_what_is_typed_wrongly_is_told_with_exit_code_2(
    postern: Postern, words: tuple[str, ...], told: str
) -> None:
    code, out, err = postern.run(*words)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("run", "--config"),
        ("status", "--config"),
        ("devices", "--config"),
        ("roster", "add", "d-1", "badge", "--config"),
        ("roster", "forget", "badge", "--config"),
    ],
)
def test_every_command_tells_of_a_config_that_is_not_there(postern: Postern, words: tuple[str, ...]) -> None:
    missing = postern.folder / "missing.toml"
    told = f"{missing}: file: expected a readable file, got No such file or directory\n"
    assert postern.run(*words, missing) == (2, "", told)


# -- check ------------------------------------------------------------------------------------------


def test_a_good_file_is_told_so_with_its_units(postern: Postern) -> None:
    postern.write(
        '[unit.gun]\nkind = "line"\nport = "/dev/nowhere"\n[unit.null]\nkind = "ssi"\nport = "/dev/null"\n'
    )
    assert postern.run("check", postern.config) == (
        0,
        "unit gun: line as parcel on /dev/nowhere  (not there now)\n"
        "unit null: ssi as parcel on /dev/null\n"
        f"{postern.config}: good; 2 units\n",
        "",
    )


def test_every_mistake_is_named_with_its_path_what_was_expected_and_what_was_found(postern: Postern) -> None:
    postern.write(
        'fast = 1\n[unit.gun]\nkind = "lime"\nport = "/dev/x"\n'
        '[unit.gps]\nkind = "nmea"\nport = "COM3"\nrole = "finger"\nbaud = 1\nspeed = 1\n'
    )
    code, out, err = postern.run("check", postern.config)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{postern.config}: broker.fast: expected one of the settings host, keepalive, others, "
        "password_file, plain, port, tls, username, got an unknown one",
        f"{postern.config}: unit.gun.kind: expected one of {', '.join(KINDS)}, got 'lime'",
        f"{postern.config}: unit.gps.port: expected an absolute path, usb:VID:PID[:SERIAL] or tcp:HOST:PORT, "
        "got 'COM3'",
        f"{postern.config}: unit.gps.baud: expected greater than or equal to 300, got 1",
        next(
            line for line in err.splitlines() if "unit.gps.speed: expected one of the settings baud, " in line
        ),
        f"{postern.config}: unit.gps.role: expected one of position, got 'finger'",
    ]


def test_check_says_what_a_file_would_change_in_another(postern: Postern) -> None:
    other = postern.folder / "other.toml"
    other.write_text(postern.config.read_text() + "[journal]\nsize_mib = 64\n")
    code, out, err = postern.run("check", other, "--against", postern.config)
    assert (code, err) == (0, "")
    assert "    journal.size_mib: 2048 -> 64" in out.splitlines()


def test_explain_names_the_drivers_that_a_config_would_lock_out(postern: Postern) -> None:
    postern.write(
        '[unit.badge]\nkind = "em4100"\nport = "/dev/a"\n'
        '[unit.keys]\nkind = "line"\nrole = "keypad"\nport = "/dev/b"\n'
    )
    other, roster = postern.folder / "other.toml", postern.folder / "roster.csv"
    other.write_text(postern.config.read_text().replace('role = "keypad"', 'role = "parcel"'))
    roster.write_text("kind,subject,secret\nbadge,drv-1,04a1b2c3d4\npin,drv-1,73919283\n")
    code, out, err = postern.run("explain", postern.config, other, "--roster", roster, "--json")
    assert (code, err) == (0, "")
    effects = [(each["what"], each["subject"], each["grave"]) for each in json.loads(out)["effects"]]
    assert effects == [
        ("unit_reopened", "keys", False),
        ("locked_out", "drv-1", True),
        ("locked_out", "drv-1", True),
    ]


def test_a_password_file_that_is_not_there_is_told_by_check(postern: Postern) -> None:
    postern.write('password_file = "/nowhere/at/all"\n')
    told = "broker.password_file: expected a readable file, got No such file or directory"
    assert postern.run("check", postern.config) == (2, "", f"{postern.config}: {told}\n")


def test_a_path_that_is_no_text_is_told_all_the_same(postern: Postern) -> None:
    odd = os.fsencode(postern.folder) + b"/\xff.toml"
    os.rename(postern.config, odd)
    assert postern.run("check", os.fsdecode(odd))[0] == 0
    code, _, err = postern.run("check", os.fsdecode(odd) + "x")
    assert code == 2
    assert "\\udcff.tomlx: file: expected a readable file" in err


# -- run and status ---------------------------------------------------------------------------------


def test_status_is_told_by_a_running_agent_and_by_no_other(postern: Postern) -> None:
    with postern.agent():
        code, out, err = postern.run("status", "--config", postern.config, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["device"] == "van-0042"
        assert out.count("\n") == 1
        assert postern.run("status", "--config", postern.config)[1].startswith("{\n")
    code, out, err = postern.run("status", "--config", postern.config)
    assert (code, out) == (1, "")
    assert err.startswith(f"no agent answers at {postern.state}/control.sock: ")


def test_a_second_agent_on_the_same_state_is_refused_with_75(postern: Postern) -> None:
    with postern.agent():
        code, _, err = postern.run("run", "--config", postern.config)
        assert code == 75
        assert (
            err == f"another agent holds the journal: {postern.state}/journal.db: held by another process\n"
        )
        assert postern.run("status", "--config", postern.config)[0] == 0


def test_an_agent_told_to_stop_stops_in_order(postern: Postern) -> None:
    for _ in range(2):
        with postern.agent() as process:
            pass
        assert process.returncode == 0, postern.last_words
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        lines = [json.loads(line) for (line,) in store.execute("SELECT line FROM entry ORDER BY sequence")]
    types = [line["type"].removeprefix("postern.agent.") for line in lines if ".agent." in line["type"]]
    assert types == ["started", "stopped"] * 2


def test_a_journal_of_another_version_is_left_alone_and_told_with_74(postern: Postern) -> None:
    with postern.agent():
        pass
    with contextlib.closing(sqlite3.connect(postern.state / "journal.db")) as store:
        store.execute("ALTER TABLE record ADD COLUMN more")
        store.execute("PRAGMA user_version=2")
        store.commit()
    code, _, err = postern.run("run", "--config", postern.config)
    assert code == 74
    assert err.startswith(f"the journal failed: {postern.state}/journal.db: ")
    assert not list(postern.state.glob("*damaged*"))


def test_what_is_no_journal_at_all_is_set_aside_and_the_device_goes_on(postern: Postern) -> None:
    postern.state.mkdir()
    (postern.state / "journal.db").write_bytes(b"no journal" * 1000)
    with postern.agent():
        assert postern.run("status", "--config", postern.config)[0] == 0
    assert (postern.state / "journal.damaged-1.db").read_bytes() == b"no journal" * 1000


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("", "File exists"),
        ("roster.db/pages", "unable to open database file"),
        ("keys/pepper", "expected a key of 32 bytes, got 10"),
    ],
)
def test_a_state_that_cannot_be_used_is_told_in_one_line(postern: Postern, spoil: str, told: str) -> None:
    spoilt = postern.state / spoil
    spoilt.parent.mkdir(parents=True, exist_ok=True)
    spoilt.write_bytes(b"no such it")
    code, _, err = postern.run("run", "--config", postern.config)
    assert code == 1
    assert err.startswith(f"cannot start on {postern.state}: ")
    assert told in err
    assert err.count("\n") == 1


# -- devices ----------------------------------------------------------------------------------------


async def test_devices_tells_what_answers_where(postern: Postern) -> None:
    scanner = LineScanner(postern.folder / "gun")
    module = FingerprintModule(postern.folder / "finger")
    units = {"gun": "line", "finger": "r503", "lost": "line"}
    postern.write(
        "".join(
            f'[unit.{name}]\nkind = "{kind}"\nport = "{postern.folder}/{name}"\n'
            for name, kind in units.items()
        )
    )
    with scanner, module:
        # The devices live on this loop, so it must go on meanwhile.
        code, out, err = await asyncio.to_thread(postern.run, "devices", "--config", postern.config, "--json")
    assert (code, err) == (0, "")
    found = {line["unit"]: line for line in map(json.loads, out.splitlines()) if line["unit"]}
    assert list(found) == list(units)
    assert (found["gun"]["about"], found["gun"]["problem"]) == ({}, "")
    assert found["finger"]["about"]["capacity"]
    assert found["lost"]["problem"] == f"absent: {postern.folder}/lost"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            Found(port="/dev/ttyUSB0", unit="gun", kind="line", about={}),
            "/dev/ttyUSB0             gun          line     open",
        ),
        (
            Found(port="/dev/ttyUSB0", hardware="usb:0403:6001", problem="busy: held"),
            "/dev/ttyUSB0             usb:0403:6001          busy: held",
        ),
        (
            Found(port="/dev/ttyUSB0", unit="gun", kind="ssi", about={"revision": "A\x1b[2J\n", "n": "1"}),
            "/dev/ttyUSB0             gun          ssi      revision=A?[2J? n=1",
        ),
    ],
)
def test_a_device_is_one_line_and_does_not_steer_the_terminal(found: Found, line: str) -> None:
    assert cli._as_line(found) == line


# -- roster -----------------------------------------------------------------------------------------


def test_a_credential_is_added_and_forgotten_with_its_secret_from_standard_input(postern: Postern) -> None:
    postern.write(FINGER)
    add, forget = (
        ("roster", "add", "--config", postern.config),
        ("roster", "forget", "--config", postern.config),
    )
    told = "badge of d-1 is good for 31 days; 1 rows\n"
    assert postern.run(*add, "d-1", "badge", "--finger", "finger:7", said=b"0A1B2C3D4E\n") == (0, told, "")
    told = "pin of d-1 is good for 2 days; 2 rows\n"
    assert postern.run(*add, "d-1", "pin", "--days", "2", said=b"1234") == (0, told, "")
    assert postern.run(*forget, "pin", "--subject", "d-2", said=b"1234\n")[:2] == (
        1,
        "no row opens with that\n",
    )
    assert postern.run(*forget, "pin", "--subject", "d-1", said=b"1234\n") == (0, "forgotten\n", "")
    assert postern.run(*forget, "badge", said=b"0A1B2C3D4E\n") == (0, "forgotten\n", "")
    assert postern.run(*forget, "badge", said=b"0A1B2C3D4E\n")[:2] == (1, "no row opens with that\n")


@pytest.mark.parametrize(
    ("words", "said", "told"),
    [
        (("add", "d-1", "badge"), b"", "standard input: expected the badge on the first line, got nothing"),
        (
            ("add", "d-1", "badge"),
            b" \n",
            "standard input: expected the badge on the first line, got nothing",
        ),
        (("add", "d-1", "static"), b"short\n", "expected a token of at least 128 bits"),
        (("add", "", "badge"), b"x\n", "subject: expected the driver's reference, got ''"),
        (("add", "d\n1", "badge"), b"x\n", "subject: expected the driver's reference, got 'd\\n1'"),
        (("add", "d-1", "badge", "--finger", "7"), b"x\n", "--finger: expected UNIT:SLOT, got '7'"),
        (
            ("add", "d-1", "badge", "--finger", "finger:x"),
            b"x\n",
            "--finger: expected UNIT:SLOT, got 'finger:x'",
        ),
        (
            ("add", "d-1", "badge", "--finger", "thumb:1"),
            b"x\n",
            "--finger: expected one of the fingerprint modules finger, got 'thumb'",
        ),
        (("forget", "pin"), b"1234\n", "subject: expected the driver's reference, got ''"),
        (("forget", "badge"), b"", "standard input: expected the badge on the first line, got nothing"),
    ],
)
def test_a_credential_that_makes_no_sense_is_refused(
    postern: Postern, words: tuple[str, ...], said: bytes, told: str
) -> None:
    postern.write(FINGER)
    action, *rest = words
    code, out, err = postern.run("roster", action, "--config", postern.config, *rest, said=said)
    assert (code, out) == (2, "")
    assert err.startswith(told)
    assert err.count("\n") == 1


def test_a_secret_that_is_no_text_is_a_secret_all_the_same(postern: Postern) -> None:
    add, forget = (
        ("roster", "add", "--config", postern.config),
        ("roster", "forget", "--config", postern.config),
    )
    assert postern.run(*add, "d-1", "badge", said=b"\xff\xfe\x80\n")[0] == 0
    assert postern.run(*forget, "badge", said=b"\xff\xfe\x80\n") == (0, "forgotten\n", "")


def test_no_secret_is_ever_told(postern: Postern) -> None:
    for words in (("add", "d-1", "static"), ("forget", "static")):
        for said in (b"s3cr\xff", b"s3cret-s3cret-s3cret-s3cret-s3cret"):
            _, out, err = postern.run("roster", words[0], "--config", postern.config, *words[1:], said=said)
            assert "s3cr" not in out + err


def test_a_roster_that_cannot_be_opened_is_told(postern: Postern) -> None:
    postern.state.write_text("in the way")
    code, _, err = postern.run("roster", "add", "--config", postern.config, "d-1", "badge", said=b"x\n")
    assert code == 1
    assert err.startswith(f"roster in {postern.state}: ")


# -- the terminal -----------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_fault(postern: Postern) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            postern.command("check", postern.config),
            check=False,
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
