"""What the commands that take away or bring in ask of somebody at a terminal, on a real one."""

import contextlib
import json
import os
import pty
import subprocess
import termios
from pathlib import Path

import pytest
import segno

from agent.fingerprint import of_root
from tests.test_cli import PATIENCE, ROOT, Postern
from tests.test_enrol import Fleet, asked
from tests.test_wipe import status

DEVICE = "van-0042"


@pytest.fixture
def postern(tmp_path: Path) -> Postern:
    return Postern(tmp_path)


def at_a_terminal(postern: Postern, *words: object, typed: str = "") -> tuple[int, str]:
    """Exit code, and everything that the terminal showed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (60, 120))
    os.write(ours, typed.encode())
    command = postern.command(*words, "--config", postern.config)
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = bytearray()
        # A terminal whose last program has ended reads as an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown += piece
        code = process.wait(timeout=PATIENCE)
    os.close(ours)
    return code, shown.decode()


def test_the_fingerprint_is_shown_as_a_code_to_be_scanned_as_well(postern: Postern) -> None:
    code, shown = at_a_terminal(postern, "enrol", "--out", postern.folder / "request.jws")
    assert code == 0
    told = shown.partition(f"fingerprint of {DEVICE}:")[2].splitlines()[1]
    meant = segno.make(f"POSTERN:DEVICE:{DEVICE}:{told.replace(' ', '').upper()}", error="m", micro=False)
    assert dark(shown) == [[bool(module) for module in row] for row in meant.matrix_iter()]


def dark(shown: str) -> list[list[bool]]:
    """The modules of the code as a camera sees them, on a terminal of any colour."""
    lines = [line for line in shown.splitlines() if line.startswith("\x1b[97;40m")]
    assert all(line.endswith("\x1b[0m") for line in lines)
    halves = [[(char in "█▀", char in "█▄") for char in line[8:-4]] for line in lines]
    rows = [[not pair[half] for pair in line] for line in halves for half in (0, 1)]
    return rows[: len(rows[0])]


def test_the_roots_fingerprint_is_typed_by_somebody_who_got_it_another_way(postern: Postern) -> None:
    asked(postern)
    root = Fleet().root()
    welcome = postern.folder / "welcome.json"
    welcome.write_text(json.dumps({"root": root.decode()}))
    code, _ = at_a_terminal(postern, "enrol", "--accept", welcome, typed="00\n")
    assert code == 2
    assert not (postern.state / "root.jws").exists()
    code, _ = at_a_terminal(postern, "enrol", "--accept", welcome, typed=of_root(root) + "\n")
    assert code == 0
    assert (postern.state / "root.jws").read_bytes() == root


@pytest.mark.parametrize(("typed", "code"), [("van-0043\n", 2), ("\n", 2), (f"{DEVICE}\n", 0)])
def test_a_wipe_asks_for_the_device_by_name(postern: Postern, typed: str, code: int) -> None:
    with postern.agent():
        assert at_a_terminal(postern, "wipe", typed=typed)[0] == code
        assert status(postern)["wiped_by"] == ("operator" if code == 0 else None)
