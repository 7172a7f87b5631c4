"""What this machine is: the first lines of every report."""

import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path

from tests.mosquitto import find_mosquitto


def facts(folder: Path) -> dict[str, str]:
    """For people; `folder` is where the measures write."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "processors": f"{os.cpu_count()} ({_model()}), load {load}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "mosquitto": _mosquitto(),
        "disk": _disk(folder),
    }


def _model() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^(?:model name|Model)\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _mosquitto() -> str:
    program = find_mosquitto()
    if program is None:
        return "none"
    said = subprocess.run([str(program), "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", said)
    return found[1] if found else "of unknown version"


def _disk(folder: Path) -> str:
    """The file system that holds `folder`."""
    path = folder.resolve()
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if path.is_relative_to(mount[1])]
    device, _, kind = max(holding, key=lambda mount: len(mount[1]), default=["unknown", "", "unknown"])
    return f"{kind} on {device}" + (": syncs cost nothing there" if kind == "tmpfs" else "")
