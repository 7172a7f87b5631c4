"""The service manager's side of the notification socket is played here by a real one."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.health import Check, Notifier, feed_watchdog
from agent.journal import Journal
from tests.test_writer import Gate


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@postern-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(name.replace("@", "\0", 1))
        made.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield made


async def heard(manager: socket.socket) -> str:
    async with asyncio.timeout(10):
        return (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()


async def test_the_manager_hears_every_line_in_one_message(manager: socket.socket) -> None:
    Notifier().send("READY=1", "STATUS=3 units")
    assert await heard(manager) == "READY=1\nSTATUS=3 units"


async def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().send("READY=1")


@pytest.mark.parametrize("name", ["/nowhere/notify", "@nobody-listens-here", "/" + "x" * 200])
async def test_a_manager_that_cannot_be_reached_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    Notifier().send("READY=1")
    assert "service manager not reached" in "".join(capsys.readouterr())


async def test_a_manager_that_does_not_read_does_not_hold_us_up(manager: socket.socket) -> None:
    notifier = Notifier()
    for _ in range(2000):
        notifier.send("STATUS=" + "x" * 1000)
    assert (await heard(manager)).startswith("STATUS=")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, 0.0),
        ("", None, 0.0),
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", 0.0),
        ("soon", None, 0.0),
        ("-5", None, 0.0),
    ],
)
async def test_the_manager_says_how_often_it_wants_to_hear_from_which_process(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert Notifier().watchdog_s == seconds


@asynccontextmanager
async def fed(*checks: Check) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(feed_watchdog(Notifier(), checks, 0.001))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_watchdog_is_fed_while_everything_goes_on(manager: socket.socket, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", source="/postern/t/d")
    await journal.open()
    async with fed(journal.alive):
        for _ in range(5):
            assert await heard(manager) == "WATCHDOG=1"
    await journal.close()


async def test_the_watchdog_is_not_fed_while_the_journals_writer_is_stuck(
    manager: socket.socket, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.db", source="/postern/t/d")
    await journal.open()
    asked = asyncio.Event()

    async def alive() -> None:
        waiting = asyncio.ensure_future(journal.alive())
        asked.set()
        await waiting

    gate = Gate()
    held = journal._writer.submit(gate)
    await gate.reached()
    async with fed(alive):
        await asked.wait()
        # A hundred times as long as it is fed at.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.get_running_loop().sock_recv(manager, 4096)
        gate.open()
        await held
        assert await heard(manager) == "WATCHDOG=1"
    await journal.close()


async def test_every_part_that_matters_is_asked_before_the_watchdog_is_fed(manager: socket.socket) -> None:
    order: list[str] = []
    reached, second = asyncio.Event(), asyncio.Event()

    async def first_part() -> None:
        order.append("first")

    async def second_part() -> None:
        order.append("second")
        reached.set()
        await second.wait()

    async with fed(first_part, second_part):
        await reached.wait()
        assert order == ["first", "second"]
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        second.set()
        assert await heard(manager) == "WATCHDOG=1"
