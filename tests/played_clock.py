"""The clock of a machine as a test wants it, under a real agent that knows nothing of it.

    clock = PlayedClock(tmp_path)
    clock.set_wall(datetime(1970, 1, 1))
    await site.start_agent(*clock.command())
    clock.pass_time(3600)

`clock_shim.c` is loaded into the agent and answers in the kernel's place. Timers and sleeps are not touched.
"""

import atexit
import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from agent.clock import NS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(__file__).with_name("clock_shim.c")
_ADDED = struct.Struct("=qq")
_ASKS = (
    "import json, sys, time; from agent import clock; from pathlib import Path; sys.stdout.write(json.dumps("
    "[time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), clock.BOOT_ID.read_text(), clock.ntp_age_s(),"
    " Path('/dev/rtc0').exists()]))"
)


class PlayedClock:
    """Wall time, time since boot, boot id and NTP's sign, for whatever is started by `command`."""

    def __init__(self, folder: Path) -> None:
        """Skips where it cannot be, and fails there in CI."""
        self._shim = shim()
        self._machine = folder / "machine"
        self._machine.mkdir()
        self._file = folder / "clock"
        self._wall_ns = self._boot_ns = self._passed_ns = 0
        self.boot(since_s=None)

    def command(self) -> list[str]:
        """What starts a program under this clock."""
        said = {"LD_PRELOAD": self._shim, "POSTERN_CLOCK": self._file, "POSTERN_MACHINE": self._machine}
        return ["env", *(f"{name}={value}" for name, value in said.items())]

    # -- what the test does -----------------------------------------------------------------------

    def boot(self, *, since_s: float | None) -> str:
        """A new boot, so many seconds ago; None leaves the machine's own time since boot. Its id."""
        boot = str(uuid.uuid4())
        (self._machine / "boot_id").write_text(f"{boot}\n")
        self._boot_ns = 0 if since_s is None else round(since_s * NS) - _boottime_ns()
        self._write()
        return boot

    def set_wall(self, utc_s: float) -> None:
        """The wall clock is set; nothing else moves."""
        self._wall_ns = round(utc_s * NS) - time.time_ns()
        self._write()

    def jump(self, seconds: float) -> None:
        """The wall clock is moved; nothing else moves."""
        self._wall_ns += round(seconds * NS)
        self._write()

    def pass_time(self, seconds: float) -> None:
        """So much time passes at once, for everything but timers."""
        self._wall_ns += round(seconds * NS)
        self._boot_ns += round(seconds * NS)
        self._passed_ns += round(seconds * NS)
        self._write()

    def synchronise(self) -> None:
        """NTP sets the wall clock, and leaves its sign."""
        self.set_wall(self.true_s)
        sign = self._machine / "synchronized"
        sign.touch()
        os.utime(sign, (self.true_s, self.true_s))

    @property
    def true_s(self) -> float:
        """What time it is, whatever the wall clock says: seconds since 1970, UTC."""
        return (time.time_ns() + self._passed_ns) / NS

    def _write(self) -> None:
        """In place: it is mapped. Sixteen bytes are written at once."""
        raw = _ADDED.pack(self._wall_ns, self._boot_ns)
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, raw, 0)
        finally:
            os.close(file)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def shim() -> Path:
    """Compiled once a run. Skips where it cannot be, and fails there in CI."""
    made, why = _compiled()
    if why and os.environ.get("CI"):
        pytest.fail(why)
    if why:
        pytest.skip(why)
    return made


def no_clock() -> str:
    """Why no clock can be played here, or nothing."""
    return _compiled()[1]


@functools.cache
def _compiled() -> tuple[Path, str]:
    """Where it is, and why it is of no use."""
    folder = Path(tempfile.mkdtemp(prefix="postern-clock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "clock_shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return made, "no C compiler for the clock shim"
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return made, f"clock shim: {done.stderr.strip()}" if done.returncode else _doubts(made, folder)


def _doubts(made: Path, folder: Path) -> str:
    """Why it is of no use, if a Python does not ask it for everything that the agent asks."""
    (folder / "boot_id").write_text("played\n")
    (folder / "clock").write_bytes(_ADDED.pack(-1000 * NS, 500 * NS))
    environ = {**os.environ, "LD_PRELOAD": str(made)}
    environ |= {"POSTERN_CLOCK": str(folder / "clock"), "POSTERN_MACHINE": str(folder)}
    before = (time.time(), _boottime_ns() / NS)
    asked = [sys.executable, "-c", _ASKS]
    done = subprocess.run(asked, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"clock shim: {done.stderr.strip()}"
    wall, boot, boot_id, ntp, rtc = json.loads(done.stdout)
    right = abs(wall - before[0] + 1000) < 100 and abs(boot - before[1] - 500) < 100
    if right and boot_id == "played\n" and ntp is None and not rtc:
        return ""
    return f"clock shim: this Python does not ask it: {done.stdout}"
