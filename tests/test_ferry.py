"""Carrying signed documents to a device without a network, with a real fleet's keys and real agents."""

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent import cargo
from agent.cargo import BadCargo, Label
from agent.cli import main
from agent.ferry import spool
from tests.test_cli import Postern
from tests.test_wipe import entries, status

TENANT, LOCKER, VAN = "parcels", "locker-07", "van-0042"
ROWS = 40


class Carried(Postern):
    """A device of its own id in a folder of its own; its broker is never there."""

    def __init__(self, folder: Path, device: str, more: str = "") -> None:
        folder.mkdir()
        self.device = device
        super().__init__(folder)
        self.write(more)

    def write(self, more: str) -> None:
        super().write(more)
        self.config.write_text(self.config.read_text().replace(VAN, self.device))

    def ferry(self, *words: object) -> tuple[int, str, str]:
        return self.run("ferry", *words, "--config", self.config)


class Fleet:
    """The far side, by its own commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.keys, self._capsys = folder, folder / "fleet-keys", capsys
        secret = folder / "passphrase"
        secret.write_text("correct horse battery\n")
        self.do("keys", "init", "--tenant", TENANT, "--passphrase-file", secret, "--json")

    def do(self, *words: object) -> str:
        self._capsys.readouterr()
        code = main(["fleet", *map(str, words), "--keys", str(self.keys)])
        said = self._capsys.readouterr()
        assert code == 0, said.err
        return said.out

    def enrol(self, device: Carried) -> None:
        request, welcome = device.folder / "request.jws", device.folder / "welcome.json"
        code, out, err = device.run("enrol", "--config", device.config, "--out", request)
        assert code == 0, err
        shown = next(line.strip() for line in out.splitlines() if line.startswith("  "))
        told = self.do("enrol", request, "--out", welcome, "--fingerprint", shown, "--json")
        root = json.loads(told)["root_fingerprint"]
        accept = ("enrol", "--config", device.config, "--accept", welcome, "--root-fingerprint", root)
        code, _, err = device.run(*accept)
        assert code == 0, err

    def cargo(self, device: str) -> Path:
        out = self.folder / f"{device}.cargo"
        self.do("ferry", device, "--out", out)
        return out

    def roster(self, device: str, rows: int = ROWS) -> None:
        """What a push would sign, without the broker that it would need."""
        from agent.fleet import row_files
        from agent.fleet.keyring import Keyring
        from agent.fleet.signing import Desk

        file = self.folder / "roster.csv"
        with file.open("w", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(["subject", "kind", "secret"])
            writer.writerows([f"drv-{number:06}", "badge", f"01{number:08x}"] for number in range(rows))
        keyring = Keyring(self.keys)
        with keyring.locked():
            desk = Desk(keyring, now())
            desk.bundle(device, "roster", row_files.read("roster", file), scope="all")


def now() -> int:
    import time

    return int(time.time())


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fleet:
    return Fleet(tmp_path, capsys)


@pytest.fixture
def locker(tmp_path: Path, fleet: Fleet) -> Carried:
    made = Carried(tmp_path / "locker", LOCKER)
    fleet.enrol(made)
    return made


def seen(device: Carried, kind: str) -> list[dict[str, Any]]:
    return [
        entry["data"] for entry in entries(device, kind.partition(".")[0]) if entry["type"].endswith(kind)
    ]


def rows_of(device: Carried) -> int:
    import sqlite3

    with contextlib.closing(sqlite3.connect(device.state / "roster.db")) as store:
        return int(store.execute("SELECT count(*) FROM sealed").fetchone()[0])


# -- by file --------------------------------------------------------------------------------------


def test_a_locker_without_a_network_learns_who_may_open_it(fleet: Fleet, locker: Carried) -> None:
    fleet.roster(LOCKER)
    carried = fleet.cargo(LOCKER)
    with locker.agent():
        code, out, err = locker.ferry("import", carried)
        assert (code, out, err) == (0, "unloaded: 1\n", "")
        told = status(locker)["fleet"]
        assert (told["complete"], told["lacking"], told["head"]) == (True, 0, 1)
    assert rows_of(locker) == ROWS
    accepted = seen(locker, "fleet.head_accepted") + seen(locker, "fleet.bundle_accepted")
    assert {entry["via"] for entry in accepted} == {"ferry"}
    (unloaded,) = seen(locker, "ferry.unloaded")
    assert unloaded["for"] == LOCKER
    assert unloaded["brought"]["head"] == 1
    assert not list((locker.state / "ferry" / "in").iterdir())


def test_what_was_carried_to_a_stopped_device_is_taken_at_its_start(fleet: Fleet, locker: Carried) -> None:
    fleet.roster(LOCKER)
    code, out, _ = locker.ferry("import", fleet.cargo(LOCKER))
    assert (code, out) == (0, "no agent runs here: it is taken at the next start\n")
    with locker.agent():
        assert locker.ferry("import", fleet.cargo(LOCKER))[0] == 0
        assert status(locker)["fleet"]["complete"]
    assert len(seen(locker, "ferry.unloaded")) == 2


def test_an_older_cargo_takes_nothing_back(fleet: Fleet, locker: Carried) -> None:
    fleet.roster(LOCKER)
    old = fleet.cargo(LOCKER).rename(fleet.folder / "old.cargo")
    fleet.roster(LOCKER, ROWS + 5)
    with locker.agent():
        assert locker.ferry("import", fleet.cargo(LOCKER))[0] == 0
        code, out, err = locker.ferry("import", old)
        assert (code, out) == (1, "unloaded: 1\n")
        assert f"{old}: refused head: rolled_back\n" in err
        assert status(locker)["fleet"]["head"] == 2
    assert rows_of(locker) == ROWS + 5
    assert {entry["reason"] for entry in seen(locker, "fleet.head_refused")} == {"rolled_back"}


def test_a_cargo_that_somebody_has_changed_changes_nothing(fleet: Fleet, locker: Carried) -> None:
    fleet.roster(LOCKER)
    carried = fleet.cargo(LOCKER)
    forged = [(name, raw[:-4] + b"AAAA" if name == "head" else raw) for name, raw in cargo.pieces(carried)]
    cargo.write(carried, Label(TENANT, LOCKER), forged)
    with locker.agent():
        code, _, err = locker.ferry("import", carried)
        assert (code, err) == (1, f"{carried}: refused head: bad_signature\n")
        assert status(locker)["fleet"]["head"] is None
    assert rows_of(locker) == 0
    assert seen(locker, "fleet.head_refused")[0]["reason"] == "bad_signature"


def test_a_cargo_is_carried_on_for_another_device_and_handed_out_as_a_file(
    tmp_path: Path, fleet: Fleet, locker: Carried
) -> None:
    van = Carried(tmp_path / "van", VAN)
    fleet.roster(LOCKER)
    carried = fleet.cargo(LOCKER)
    out = tmp_path / "handed.cargo"
    with van.agent():
        assert van.ferry("import", carried)[:2] == (0, "loaded: 1\n")
        assert status(van)["on_board"] == {LOCKER: carried.stat().st_size}
        assert van.ferry("export", "--for", LOCKER, "--out", out)[0] == 0
        assert van.ferry("export", "--for", "locker-08", "--out", out)[0] == 1
    assert out.read_bytes() == carried.read_bytes()
    with locker.agent():
        assert locker.ferry("import", out)[0] == 0
    assert rows_of(locker) == ROWS


def test_no_more_is_kept_on_board_than_the_config_says(tmp_path: Path, fleet: Fleet, locker: Carried) -> None:
    van = Carried(tmp_path / "van", VAN, "[ferry]\ncarry_mib = 0\n")
    with van.agent():
        code, out, err = van.ferry("import", fleet.cargo(LOCKER))
        assert (code, out) == (1, "refused: 1\n")
        assert "refused expected at most 0 bytes on board, got " in err
        assert status(van)["on_board"] == {}
    assert "expected at most 0 bytes on board" in seen(van, "ferry.refused")[0]["reason"]


def test_a_device_that_was_never_enrolled_takes_nothing(
    tmp_path: Path, fleet: Fleet, locker: Carried
) -> None:
    stray = Carried(tmp_path / "stray", LOCKER)
    with stray.agent():
        assert stray.ferry("import", fleet.cargo(LOCKER))[0] == 1
    assert seen(stray, "ferry.refused")[0]["reason"] == "no root was put here that could vouch for it"


# -- the file itself ------------------------------------------------------------------------------


def lines(*rest: bytes) -> bytes:
    return b'{"postern_cargo":1,"tenant":"parcels","device":"locker-07"}\n' + b"".join(rest)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "line 1: expected a whole line"),
        (b"{}\n", "line 1: expected a cargo of layout 1"),
        (b"[" * 100_000 + b"\n", "line 1: expected JSON"),
        (b'{"postern_cargo":1,"tenant":"parcels","device":"../../etc"}\n', "line 1: expected the names"),
        (lines(b'{"name":"command","raw":""}\n'), "line 2: expected a document that may be carried"),
        (lines(b'{"name":"page/../x","raw":""}\n'), "line 2: expected a document that may be carried"),
        (lines(b'{"name":"head","raw":"?"}\n'), "line 2: expected base64"),
        (lines(b'{"name":"head","raw":""}'), "line 2: expected a whole line"),
        (lines(b'{"name":"head","raw":"' + b"A" * 200_000 + b'"}\n'), "line 2: expected a whole line"),
        (lines(b"7\n"), "line 2: expected an object"),
    ],
)
def test_what_is_no_cargo_is_named_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.cargo"
    path.write_bytes(content)
    with pytest.raises(BadCargo, match=told):
        list(cargo.pieces(path))


def test_commands_and_the_time_are_not_carried(tmp_path: Path) -> None:
    path = tmp_path / "x.cargo"
    digest = "ab" * 32
    given = [("command", b"1"), ("head", b"2"), ("time", b"3"), (f"page/{digest}", b"4"), ("receipt", b"5")]
    assert cargo.write(path, Label(TENANT, LOCKER), given) == 2
    assert list(cargo.pieces(path)) == [("head", b"2"), (f"page/{digest}", b"4")]


def test_what_is_larger_than_any_cargo_is_not_even_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.cargo"
    path.write_bytes(lines())
    os.truncate(path, cargo.CARGO_LIMIT + 1)
    with pytest.raises(BadCargo, match="expected at most 50331648 bytes, got 50331649"):
        spool(tmp_path, path)
    assert not (tmp_path / "ferry").exists()


def test_the_same_cargo_is_laid_ready_once(tmp_path: Path) -> None:
    path = tmp_path / "x.cargo"
    cargo.write(path, Label(TENANT, LOCKER), [("head", b"2")])
    assert spool(tmp_path, path) == spool(tmp_path, path)
