"""A disk that is full, fails or is read-only: nothing is acknowledged that is not on it, and it is said.

Real file systems, mounted for the test, and strace for what a healthy disk does not do. All of it takes root
or tracing, and is skipped without, with the reason.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import control
from tests.powercut.disk import MIB, DiskFailed, mkfs, mounted, run
from tests.rig import Rig, labels
from tests.site import running
from tests.traced import failing

pytestmark = [pytest.mark.broker, pytest.mark.root, pytest.mark.timeout(120)]

EXIT_JOURNAL = 74
"""What the agent ends with when its journal has failed."""

Mount = Callable[[Path], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def mounted_tmpfs(state: Path, options: str) -> Iterator[None]:
    state.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", options, "postern-test", str(state))
    try:
        yield
    finally:
        run("umount", str(state))


@contextlib.contextmanager
def small_tmpfs(state: Path) -> Iterator[None]:
    with mounted_tmpfs(state, "size=6m"):
        yield


@contextlib.contextmanager
def small_ext4(state: Path) -> Iterator[None]:
    image = state.with_suffix(".img")
    if not image.exists():
        image.touch()
        os.truncate(image, 8 * MIB)
        mkfs(image)
    with mounted(image, state):
        yield


@contextlib.asynccontextmanager
async def site_on(folder: Path, mount: Mount) -> AsyncIterator[Rig]:
    """A rig whose state is on a file system of its own. Skips where nothing can be mounted."""
    with mountable(mount(folder / "state")):
        async with Rig(folder) as rig:
            rig.alarmed = True
            yield rig


@contextlib.contextmanager
def mountable(mount: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(mount)
        except (DiskFailed, OSError) as why:
            if os.environ.get("CI") and os.geteuid() == 0:
                pytest.fail(str(why))
            pytest.skip(f"nothing can be mounted here: {why}")
        yield


async def status(rig: Rig) -> dict[str, Any]:
    return await control.ask(rig.folder / "state" / control.SOCKET, "status")


def fill(state: Path) -> Path:
    """Take all the room there is. The file that takes it."""
    ballast = state / "ballast"
    file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            while os.write(file, bytes(4096)):
                pass
    finally:
        os.close(file)
    return ballast


async def until_refused(rig: Rig, name: str) -> int:
    """Scan into a disk that takes no more until it is noticed. How many were answered well before."""
    before, heard = len(rig.promised), len(rig.gun.tones)
    async with running(rig.scan_all(labels(name, 20_000))):
        await rig.until(lambda: rig.logged("journal cannot write"), "the disk to be noticed")
    # The tone of a scan that found room just before may come after it.
    await rig.until(lambda: "bad" in rig.gun.tones[heard:], "the alarm")
    return len(rig.promised) - before


@pytest.mark.parametrize("mount", [small_ext4, small_tmpfs], ids=["ext4", "tmpfs"])
async def test_a_full_disk_is_said_and_waited_out(mount: Mount, tmp_path: Path) -> None:
    async with site_on(tmp_path, mount) as rig:
        await rig.start()
        await rig.scan_and_hear(*labels("before", 10))
        ballast = fill(tmp_path / "state")
        await until_refused(rig, "full")
        said = await status(rig)
        assert "full" in said["journal"]["trouble"]
        promised = len(rig.promised)
        rig.scan("nobody answers")
        await status(rig)
        assert len(rig.promised) == promised
        ballast.unlink()
        await rig.until(lambda: rig.logged("journal writes again"), "room to be noticed")
        await rig.quiet()
        await rig.scan_and_hear("after")
        assert (await status(rig))["journal"]["trouble"] is None
        await rig.until(lambda: rig.of("journal.recovered"), "the entry that says so")
        await rig.delivered()
        assert {"nobody answers", "after"} <= set(rig.promised)


@pytest.mark.parametrize("mount", [small_ext4, small_tmpfs], ids=["ext4", "tmpfs"])
async def test_an_agent_killed_on_a_full_disk_keeps_its_promises(mount: Mount, tmp_path: Path) -> None:
    async with site_on(tmp_path, mount) as rig:
        rig.relay.cut()
        await rig.start()
        ballast = fill(tmp_path / "state")
        await until_refused(rig, "full")
        await rig.kill_agent()
        ballast.unlink()
        rig.relay.restore()
        await rig.start()
        await rig.scan_and_hear("after")
        await rig.delivered()


async def test_an_agent_started_on_a_full_disk_delivers_and_accepts_once_there_is_room(
    tmp_path: Path,
) -> None:
    async with site_on(tmp_path, small_ext4) as rig:
        rig.relay.cut()
        await rig.start()
        await rig.scan_and_hear(*labels("before", 20))
        await rig.kill_agent()
        ballast = fill(tmp_path / "state")
        rig.relay.restore()
        await rig.start()
        await rig.until(lambda: rig.logged("journal cannot write"), "the disk to be noticed")
        await rig.until(lambda: set(rig.taken()) == set(rig.promised), "what it had at the fleet")
        rig.scan("in the dark")
        ballast.unlink()
        await rig.until(lambda: rig.logged("journal writes again"), "room to be noticed")
        await rig.quiet()
        await rig.delivered()
        assert rig.promised[-1] == "in the dark"


async def test_a_disk_without_room_for_another_file_is_no_trouble_while_it_runs(tmp_path: Path) -> None:
    async with site_on(tmp_path, lambda state: mounted_tmpfs(state, "size=16m,nr_inodes=64")) as rig:
        await rig.start()
        await rig.scan_and_hear("before")
        with contextlib.suppress(OSError):
            for number in range(64):
                (tmp_path / "state" / f"file-{number}").touch()
        await rig.scan_all(labels("none left", 500))
        assert not rig.logged("journal cannot write")
        await rig.delivered()


async def test_a_start_without_room_for_another_file_is_refused_in_words_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async with site_on(tmp_path, lambda state: mounted_tmpfs(state, "size=16m,nr_inodes=64")) as rig:
        rig.relay.cut()
        await rig.start()
        await rig.scan_and_hear(*labels("before", 20))
        await rig.stop_agent()
        taken = []
        with contextlib.suppress(OSError):
            for number in range(64):
                file = tmp_path / "state" / f"file-{number}"
                file.touch()
                taken.append(file)
        assert await ended(rig) in (1, EXIT_JOURNAL)
        assert any("cannot start on" in said or "the journal failed" in said for said in lines(rig))
        for file in taken:
            file.unlink()
        rig.relay.restore()
        await rig.start()
        await rig.scan_and_hear("after")
        await rig.delivered()


async def ended(rig: Rig, *prefix: str) -> int:
    """Start an agent that ends by itself. What with."""
    await rig.start_agent(*prefix)
    return await code(rig)


async def code(rig: Rig) -> int:
    """What the agent of now ends with."""
    assert rig.agent is not None
    async with asyncio.timeout(30):
        return await asyncio.to_thread(rig.agent.wait)


def lines(rig: Rig) -> list[str]:
    return [str(event.get("event")) for event in rig.events]


# -- a file system that takes no more writes ------------------------------------------------------


async def test_a_file_system_gone_read_only_is_said_and_costs_no_promise(tmp_path: Path) -> None:
    """As ext4 does it to itself at an error: only mounting it anew makes it writable again."""
    async with Rig(tmp_path) as rig:
        rig.alarmed = True
        rig.relay.cut()
        with mountable(small_ext4(tmp_path / "state")):
            await rig.start()
            await rig.scan_and_hear(*labels("before", 10))
            run("mount", "-o", "remount,abort", str(tmp_path / "state"))
            await until_refused(rig, "read only")
            assert (await status(rig))["journal"]["trouble"]
            assert rig.agent is not None
            os.killpg(rig.agent.pid, signal.SIGTERM)
            assert await code(rig) == EXIT_JOURNAL, "what was not remembered is not passed over at the end"
            await rig.kill_agent()
            assert await ended(rig) in (1, EXIT_JOURNAL)
            assert any("ead-only" in said or "readonly" in said for said in lines(rig))
            await rig.kill_agent()
        rig.relay.restore()
        with mountable(small_ext4(tmp_path / "state")):
            await rig.start()
            await rig.scan_and_hear("after")
            await rig.delivered()
            await rig.kill_agent()


@pytest.mark.parametrize("error", ["EROFS", "EIO", "ENOSPC", "EDQUOT"])
async def test_writes_that_are_refused_for_a_while_are_waited_out(error: str, tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.alarmed = True
        await rig.start(*failing("pwrite64", error, "200..205"))
        await until_refused(rig, "refused")
        await rig.until(lambda: rig.logged("journal writes again"), "writes to be taken again")
        await rig.quiet()
        await rig.scan_and_hear("after")
        await rig.until(lambda: rig.of("journal.recovered"), "the entry that says so")
        await rig.delivered()


# -- a disk that fails ----------------------------------------------------------------------------


async def test_after_a_failed_sync_the_agent_ends_and_what_it_promised_is_there(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start(*failing("fdatasync,fsync", "EIO", "60+"))
        async with running(rig.scan_all(labels("failing", 20_000))):
            assert await code(rig) == EXIT_JOURNAL
        assert any("the journal failed" in said and "disk I/O error" in said for said in lines(rig))
        await rig.kill_agent()
        assert rig.promised
        await rig.start()
        await rig.scan_and_hear("after")
        await rig.delivered()


async def test_a_sync_that_failed_once_is_not_tried_again_on_the_same_file(tmp_path: Path) -> None:
    """The kernel may have thrown away what it could not write, and would call the next sync a success."""
    async with Rig(tmp_path) as rig:
        await rig.start(*failing("fdatasync,fsync", "EIO", "60"))
        async with running(rig.scan_all(labels("once", 20_000))):
            assert await code(rig) == EXIT_JOURNAL
        await rig.kill_agent()
        await rig.start()
        await rig.scan_and_hear("after")
        await rig.delivered()
