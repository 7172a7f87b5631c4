"""Debian's packages unpacked beside the checkout: nothing is installed, no service starts, no root is needed.

root = unpacked("ejabberd")     # .tools/ejabberd
"""

import os
import subprocess
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


class NotUnpacked(Exception):
    """A package could not be had; the message says why."""


def unpacked(package: str) -> Path:
    """The folder with a package and all that this machine lacks of what it depends on. Raises NotUnpacked."""
    there = TOOLS / package
    if there.exists():
        return there
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        work, root = Path(scratch), Path(scratch) / package
        for folder in ("lists/partial", "cache/archives/partial", package):
            (work / folder).mkdir(parents=True)
        # Lists of our own, because the machine's may be missing and are root's to refresh.
        options = [f"Dir::State::lists={work}/lists", f"Dir::Cache={work}/cache", "APT::Sandbox::User=root"]
        apt = ["apt-get", "-q", *(f"-o{option}" for option in options)]
        _output([*apt, "update"], work)
        plan = _output([*apt, "--simulate", "--no-install-recommends", "install", package], work)
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        _output([*apt, "download", *names], work)
        for each in work.glob("*.deb"):
            _output(["dpkg-deb", "--extract", str(each), str(root)], work)
        if not there.exists():
            root.replace(there)
    return there


def libraries(root: Path) -> str:
    """Where the shared libraries of an unpacked package lie, as LD_LIBRARY_PATH has it."""
    return ":".join(sorted({str(each.parent) for each in root.rglob("*.so.*")}))


def _output(argv: list[str], cwd: Path) -> str:
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath) + SBIN}
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise NotUnpacked(f"`{argv[0]}` cannot be run: {error.strerror}") from error
    if done.returncode:
        raise NotUnpacked(f"`{' '.join(argv[:8])}` failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
