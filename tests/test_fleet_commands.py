"""`postern fleet` on its own side: the ceremony, enrolment and what is said of mistakes. No broker."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.documents import Role
from agent.fleet.enrolment import devices, read_request
from agent.fleet.keyring import Keyring
from agent.fleet.signing import Desk
from tests.fleets import DEVICE, TENANT, request

ORDER = ["--device", DEVICE, "--host", "x", "--operator", "op-1", "--reason", "test"]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery\n")
    return path


@pytest.fixture
def keys(tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "keys"
    told = run(capsys, "keys", "init", "--tenant", TENANT, "--passphrase-file", str(secret), keys=folder)
    assert (told["tenant"], told["root"], told["epoch"]) == (TENANT, 1, 1)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str, keys: Path) -> Any:
    """What it prints as JSON."""
    assert main(["fleet", *arguments, "--keys", str(keys), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fail(capsys: pytest.CaptureFixture[str], *arguments: str, keys: Path) -> str:
    """What it says on standard error, in one line."""
    capsys.readouterr()
    assert main(["fleet", *arguments, "--keys", str(keys)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_ceremony_is_shown_again_by_show(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "keys", "show", keys=keys)
    assert told["roles"]["root"]["threshold"] == 2
    assert told["fingerprint"] == Keyring(keys).fingerprint
    assert main(["fleet", "keys", "show", "--keys", str(keys)]) == 0
    said = capsys.readouterr().out
    assert f"fingerprint {told['fingerprint']}" in said
    assert "root         2 of 3" in said


def test_a_role_is_rotated_and_a_key_retired_or_revoked(
    keys: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(capsys, "keys", "show", keys=keys)["roles"]
    told = run(capsys, "keys", "rotate", "bundle", "--passphrase-file", str(secret), keys=keys)
    assert told["root"] == 2
    old, _ = told["roles"]["bundle"]["kids"]
    assert [old] == before["bundle"]["kids"]
    told = run(capsys, "keys", "retire", old, "--passphrase-file", str(secret), keys=keys)
    assert old not in told["roles"]["bundle"]["kids"]
    gone, *stay = before["command"]["kids"]
    told = run(capsys, "keys", "revoke", gone, "--passphrase-file", str(secret), keys=keys)
    assert told["root"] == 4
    assert set(stay) < set(told["roles"]["command"]["kids"])
    assert gone not in told["roles"]["command"]["kids"]
    revocations = Desk(Keyring(keys), 0).current(DEVICE)["revocations"]
    assert revocations.body.keys == [gone]
    assert run(capsys, "keys", "rotate", "epoch", keys=keys)["epoch"] == 2


def test_all_versions_start_anew_with_a_root_of_the_next_epoch(
    keys: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(capsys, "keys", "show", keys=keys)
    told = run(capsys, "keys", "restart", "--passphrase-file", str(secret), keys=keys)
    assert (before["root"], before["root_epoch"], told["root"], told["root_epoch"]) == (1, 1, 2, 2)
    assert told["roles"] == before["roles"]
    assert told["epoch"] == before["epoch"], "the key that rows are sealed under is another thing"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["keys", "rotate", "nothing"], "expected one of root, head, config"),
        (["keys", "revoke", "0" * 16], "expected a key that the root names"),
        (["keys", "retire", "0" * 16], "expected a key that the root names"),
        (["keys", "restart"], "expected --passphrase-file or a terminal"),
        (["keys", "rotate", "head"], "expected --passphrase-file or a terminal"),
        (["enrol", "/nonexistent/request.jws"], "No such file"),
        (["push", "roster", "/dev/null", "--device", "van-1", "--host", "x"], "expected one of the enrolled"),
        (["head", "--all", "--host", "x"], "expected enrolled devices, got none"),
        (["command", "fly", *ORDER], "expected one of status, checkpoint, locate"),
        (["command", "open_door", *ORDER, "--arg", "unit=board"], "--arg: door: Field required"),
        (["command", "diagnostics", *ORDER], "--out: expected it for diagnostics"),
        (["command", "status", *ORDER, "--out", "x"], "--out: expected it for diagnostics"),
        (["revoke", "--host", "x"], "expected --subject, --grant or --credentials, got none"),
        (["revoke", "--host", "x", "--credentials", "/nonexistent"], "file: expected a readable file"),
    ],
)
def test_a_mistake_is_one_line_and_ends_with_2(
    keys: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in fail(capsys, *arguments, keys=keys)


def test_a_folder_without_keys_says_what_makes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`postern fleet keys init` makes one" in fail(capsys, "keys", "show", keys=tmp_path)


def test_a_short_passphrase_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short").write_text("hunter2")
    arguments = ["keys", "init", "--tenant", TENANT, "--passphrase-file", str(tmp_path / "short")]
    assert "at least 12 characters" in fail(capsys, *arguments, keys=tmp_path / "keys")


def test_each_root_key_may_have_a_passphrase_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: list[str] = []
    for number in range(1, 4):
        (tmp_path / f"p{number}").write_text(f"correct horse {number}")
        files += ["--passphrase-file", f"root-{number}={tmp_path / f'p{number}'}"]
    run(capsys, "keys", "init", "--tenant", TENANT, *files, keys=tmp_path / "keys")
    assert run(capsys, "keys", "rotate", "time", *files, keys=tmp_path / "keys")["root"] == 2
    first = ["--passphrase-file", str(tmp_path / "p1")]
    assert "root-2.key" in fail(capsys, "keys", "rotate", "time", *first, keys=tmp_path / "keys")


# -- enrolment ------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "request.jws"
    path.write_bytes(request(claim="4711-0815"))
    return path


def test_a_device_is_enrolled_with_the_fingerprint_it_shows(
    keys: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = read_request(asked.read_bytes(), TENANT).fingerprint
    out = tmp_path / "welcome.json"
    told = run(capsys, "enrol", str(asked), "--fingerprint", shown, "--out", str(out), keys=keys)
    assert told["root_fingerprint"] == Keyring(keys).fingerprint
    assert json.loads(out.read_text())["root"].encode() == Keyring(keys).document.raw
    assert set(devices(keys)) == {DEVICE}


@pytest.mark.parametrize("shown", ["0000 " * 16, ""])
def test_another_fingerprint_enrols_nobody(
    keys: Path, asked: Path, capsys: pytest.CaptureFixture[str], shown: str
) -> None:
    arguments = ["--fingerprint", shown] if shown else []
    capsys.readouterr()
    assert main(["fleet", "enrol", str(asked), *arguments, "--keys", str(keys)]) == 2
    assert "expected the device's own fingerprint, got another" in capsys.readouterr().err
    assert devices(keys) == {}


@pytest.mark.parametrize(("code", "enrolled"), [("4711-0815", True), ("4711-0816", False)])
def test_a_one_time_code_has_to_be_the_one_that_was_given(
    keys: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, enrolled: bool
) -> None:
    (tmp_path / "claim").write_text(code)
    shown = read_request(asked.read_bytes(), TENANT).fingerprint
    out = str(tmp_path / "welcome.json")
    arguments = ["enrol", str(asked), "--fingerprint", shown, "--claim-file", str(tmp_path / "claim")]
    assert main(["fleet", *arguments, "--out", out, "--keys", str(keys)]) == (0 if enrolled else 2)
    assert (DEVICE in devices(keys)) == enrolled


def test_no_private_key_is_ever_printed(keys: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["fleet", "keys", "show", "--keys", str(keys)])
    main(["fleet", "keys", "rotate", "head", "--passphrase-file", str(secret), "--keys", str(keys)])
    said = "".join(capsys.readouterr())
    keyring = Keyring(keys)
    for role in Role:
        for signer in [] if role is Role.ROOT else keyring.signers(role):
            assert signer.private.private_bytes_raw().hex() not in said
    assert "PRIVATE" not in said
    assert "correct horse" not in said
