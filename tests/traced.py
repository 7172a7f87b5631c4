"""A disk that is slow or fails, for one process: strace answers in the kernel's place.

What these make are commands to be put before the agent's.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

SYNCS = "fdatasync,fsync"


def slow_syncs(microseconds: int) -> list[str]:
    """Each sync takes so much longer. Skips where it cannot be."""
    return injected(SYNCS, f"delay_exit={microseconds}")


def failing(calls: str, error: str, when: str, *, path: Path | None = None) -> list[str]:
    """Calls fail with this error, `when` as strace counts them: `3` is the third, `3+` each from there on."""
    return injected(calls, f"error={error}:when={when}", path=path)


def injected(calls: str, what: str, *, path: Path | None = None) -> list[str]:
    require_strace()
    return [*_strace(calls), *(["-P", str(path)] if path else []), "-e", f"inject={calls}:{what}"]


def require_strace() -> None:
    """Skip the test that asks where strace cannot trace; in CI, fail it."""
    if why := cannot_trace():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def _strace(calls: str) -> list[str]:
    strace = shutil.which("strace") or "strace"
    return [strace, "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}"]


@cache
def cannot_trace() -> str:
    """Why not, or nothing."""
    command = [*_strace(SYNCS), "-e", f"inject={SYNCS}:delay_exit=1", "true"]
    try:
        tried = subprocess.run(command, capture_output=True, check=False, text=True)
    except OSError as error:
        return f"strace cannot trace here: {error}"
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else ""
