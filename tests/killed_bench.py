"""A TrialBench whose agent is a process of its own, dies as planned, and is started again by somebody who
knows nothing of trials, as systemd would.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.keyfile import FRESH
from agent.shelf import COURSE, FOLDER, digest
from tests.killed_agent import FILES, Plan
from tests.site import DIES_WITH_US
from tests.trial_bench import PATIENCE, TrialBench

MORE = "[journal]\nsize_mib = 512\n"
"""What the config on trial has more."""


@dataclass(frozen=True, slots=True)
class Step:
    """In which life, about to do what for the n-th time; and whether the fleet confirms what is well."""

    life: int
    calls: str
    n: int = 1
    confirmed: bool = True

    def __str__(self) -> str:
        return f"{self.life}-{self.calls.strip('/^')}-{'kept' if self.confirmed else 'lost'}"


class KilledBench(TrialBench):
    """The agent dies at its step, once."""

    def __init__(self, folder: Path, step: Step) -> None:
        super().__init__(folder)
        self.step = step
        self.confirms = step.confirmed
        self.deaths: list[int] = []
        """How each process of the agent ended."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "agent.log"

    @property
    def old(self) -> str:
        return self.whole()

    @property
    def new(self) -> str:
        return self.whole(more=MORE)

    def _plan(self) -> Plan:
        step = self.step
        paths = self._files() if step.calls in FILES else ()
        return Plan(life=step.life, calls=step.calls, n=step.n, paths=paths)

    def _files(self) -> tuple[str, ...]:
        """Whatever a trial may touch, by any name that it has meanwhile."""
        folder = self.folder / "state" / FOLDER
        texts = [folder / f"{digest(text)}.toml" for text in (self.old, self.new)]
        names = [folder / COURSE, *texts]
        return tuple(map(str, [folder, *names, *(f"{name}{FRESH}" for name in names)]))

    async def _live(self) -> None:
        plan = self.folder / "plan.json"
        self._plan().save(plan)
        command = [*DIES_WITH_US, sys.executable, "-m", "tests.killed_agent", str(self.file), str(plan)]
        while not self._ending:
            with self._log.open("ab") as log:
                self._process = _started(command, log)
            code = await asyncio.to_thread(self._process.wait)
            Plan().save(plan)
            for device in self.devices:
                # An exclusive open lasts until the last close, and each device holds its end of the line.
                device.unplug()
                device.plug()
            if not self._ending:
                # Not before: what it said last would pass for the word of the one that comes after it.
                await self.until(lambda: not self.birth.get("online"), "the will of the one that died")
            self.deaths.append(code)
            self.news.look()

    async def _stop(self, task: "asyncio.Task[None]") -> None:
        self._ending = True
        self.kill()
        await task

    async def reachable(self, source: str) -> Mapping[str, Any]:
        """Asked again of the one that comes after one that has died over the answer."""
        while True:
            before = len(self.deaths)
            asking = asyncio.create_task(super().reachable(source))
            died = asyncio.create_task(self.died(before))
            await asyncio.wait({asking, died}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and died.exception() is None:
                await _cancelled(asking)
                continue
            await _cancelled(died)
            return await asking

    async def died(self, before: int) -> None:
        """Until another process of the agent has ended."""
        await self.until(lambda: len(self.deaths) > before, "the agent's death", 2 * PATIENCE)

    def kill(self) -> None:
        """SIGKILL, to whatever traces it as well."""
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def told(self, what: str, version: int) -> list[Any]:
        """Data of the entries of this type about this config, each entry once."""
        found = {entry["id"]: entry["data"] for entry in self.entries if entry["type"] == f"postern.{what}"}
        return [data for data in found.values() if data["version"] == version]

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")


def _started(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])
