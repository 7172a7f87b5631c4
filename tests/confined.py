"""A process with less memory or less of a processor than there is: a control group of its own.

    with confined(memory=96 * MIB) as group:
        await rig.start(*group.command())

Both versions of the kernel's interface are spoken. It takes root, and a hierarchy that may be written to.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
EMPTY_WITHIN_S = 10.0
"""Longest that the kernel may take to bury who was killed."""


@dataclass(frozen=True, slots=True)
class Group:
    """Its folders: one of the newer interface, one for each controller of the older."""

    folders: tuple[Path, ...]

    def command(self) -> list[str]:
        """What starts a program in it."""
        joins = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in self.folders)
        return ["sh", "-c", f'{joins} && exec "$@"', "sh"]

    @property
    def killed(self) -> int:
        """Processes that were killed for want of memory."""
        for folder in self.folders:
            for name in ("memory.oom_control", "memory.events"):
                said = folder / name
                if said.exists():
                    return int(dict(line.split() for line in said.read_text().splitlines())["oom_kill"])
        raise FileNotFoundError("no account of processes killed")


@contextlib.contextmanager
def confined(*, memory: int | None = None, cores: float | None = None) -> Iterator[Group]:
    """So many bytes, page cache included, and so much of a processor. Skips where no group can be made."""
    made: list[Path] = []
    try:
        try:
            made += _groups(memory, cores)
        except OSError as why:
            said = f"no control group can be made here: {why}"
            if os.environ.get("CI") and os.geteuid() == 0:
                pytest.fail(said)
            pytest.skip(said)
        yield Group(tuple(made))
    finally:
        for folder in made:
            _remove(folder)


def _groups(memory: int | None, cores: float | None) -> Iterator[Path]:
    name = f"postern-test-{uuid.uuid4().hex[:8]}"
    if (ROOT / "cgroup.controllers").exists():
        yield _newer(ROOT / name, memory, cores)
        return
    if memory is not None:
        limits = {"memory.limit_in_bytes": memory, "memory.swappiness": 0}
        yield _made(ROOT / "memory" / name, limits)
    if cores is not None:
        limits = {"cpu.cfs_period_us": PERIOD_US, "cpu.cfs_quota_us": round(cores * PERIOD_US)}
        yield _made(ROOT / "cpu" / name, limits)


def _newer(folder: Path, memory: int | None, cores: float | None) -> Path:
    (ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
    limits: dict[str, object] = {}
    if memory is not None:
        limits = {"memory.max": memory, "memory.swap.max": 0}
    if cores is not None:
        limits["cpu.max"] = f"{round(cores * PERIOD_US)} {PERIOD_US}"
    return _made(folder, limits)


def _made(folder: Path, limits: "dict[str, int] | dict[str, object]") -> Path:
    folder.mkdir()
    try:
        for name, value in limits.items():
            (folder / name).write_text(str(value))
    except OSError:
        folder.rmdir()
        raise
    return folder


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + EMPTY_WITHIN_S
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
