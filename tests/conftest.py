"""After every test nothing is left: no task, no thread, no file descriptor, and no log configured.

The order of the fixtures is the point. `_nothing_left` is torn down last, when the event loop of the test is
closed and its executor has ended; `_no_task_left` while that loop can still be asked.
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog


def _descriptors() -> set[str]:
    """Every open descriptor and what it is open on."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            # The one that the folder itself was read through.
            continue
    return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("pytest_timeout")}


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads, descriptors = _threads(), _descriptors()
    yield
    structlog.reset_defaults()
    for thread in _threads() - threads:
        if "waitpid-" in thread.name:
            # It tells of a process that has ended, and then ends: not later than this.
            thread.join(timeout=5)
    assert not _threads() - threads, "threads left running"
    assert not _descriptors() - descriptors, "descriptors left open"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder like `tmp_path` whose own path is short: what holds a local socket has to be."""
    with tempfile.TemporaryDirectory(prefix="postern-") as name:
        yield Path(name)


@pytest.fixture
async def _watched_loop() -> AsyncIterator[None]:
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    cancelled = {task for task in left if task.cancelling()}
    if cancelled:
        # Whoever cancels a task need not wait for its end, but an end there must be.
        await asyncio.wait(cancelled, timeout=5)
    assert not {task for task in left if not task.done()}, "tasks left running"


@pytest.fixture(autouse=True)
def _no_task_left(request: pytest.FixtureRequest, _nothing_left: None) -> None:
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_watched_loop")
