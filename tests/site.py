"""Where end-to-end tests take place: a real mosquitto, a way to it that can be cut, one agent, and the fleet.

    async with Site(tmp_path, config=CONFIG) as site:
        await site.start_agent()
        await site.until(lambda: site.of("custody.seen"), "a scan at the fleet")
        await site.kill_agent()

The agent is a process of its own, started as anyone would start it, and reaches the broker through the
relay. The fleet's collector reaches it directly and is the truth: what it holds was delivered.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.fleet.collect import Collector
from agent.mqtt import Server
from simulators.base import VirtualDevice
from simulators.broker import Broker
from simulators.relay import Relay
from tests.mosquitto import Mosquitto, free_port

PATIENCE = 20.0
"""Longest that any one thing may take on the slowest machine; nothing is measured by it."""
LONG = bool(os.environ.get("POSTERN_LONG"))
"""Run the long form of every test that has one."""
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
"""An agent that outlived a test run killed hard would open the devices of the runs to come."""
LOG_TAIL, LOG_WIDTH = 25, 400
LINE_LIMIT = 1024 * 1024
"""Characters in a line of the agent's log: a traceback is one line."""

Entry = Mapping[str, Any]
D = TypeVar("D", bound=VirtualDevice)


class Site:
    """Everything is there once entered, the agent excepted; nothing is left once exited."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str,
        device: str,
        mosquitto: Iterable[str] = (),
        broker: Broker | None = None,
    ) -> None:
        """`broker` is one that runs already, for what mosquitto cannot play."""
        self.folder = folder
        self.device = device
        self.dev = folder / "dev"
        self.dev.mkdir()
        self.config = folder / "postern.toml"
        self.broker = Mosquitto(folder, config_lines=["max_queued_messages 0", *mosquitto])
        self._other = broker
        self.entries: list[Entry] = []
        """What the fleet has, without duplicates, as it arrived."""
        self.events: list[Entry] = []
        """What the agent of now has logged."""
        self.agent: subprocess.Popen[bytes] | None = None
        self.devices: list[VirtualDevice] = []
        self._config = config
        self._stack = contextlib.AsyncExitStack()
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            broker = self._other or stack.enter_context(self.broker)
            # Not a port of the kernel's choice: see `free_port`.
            relay = Relay(to_host=broker.host, to_port=broker.port, port=free_port())
            self.relay = await stack.enter_async_context(relay)
            where = {"host": broker.host, "port": self.relay.port, "dev": self.dev}
            self.config.write_text(self._config.format(state=self.folder / "state", **where))
            server = Server(host=broker.host, port=broker.port, client_id="the-fleet")
            self.fleet = Collector(server, self._arrived, device=self.device)
            self.fleet.online = Bell(self.look)
            await stack.enter_async_context(running(self.fleet.run()))
            await self.until(self.fleet.online.is_set, "the fleet online")
            stack.push_async_callback(self.kill_agent)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            said = [str(event)[:LOG_WIDTH] for event in self.events[-LOG_TAIL:]]
            error.add_note("\n".join(["the agent's last words:", *said]))
        await self._stack.__aexit__(kind, error, trace)

    # -- devices ----------------------------------------------------------------------------------

    def plug(self, device: D) -> D:
        """Have a device until the end; whatever it obeys wakes those who wait."""
        self._stack.enter_context(device)
        self.devices.append(device)
        return device

    async def listen(self, obeyed: asyncio.Event) -> None:
        """Look again whenever a device has obeyed."""
        await self._stack.enter_async_context(running(self._pass_on(obeyed)))

    async def _pass_on(self, obeyed: asyncio.Event) -> None:
        while True:
            await obeyed.wait()
            obeyed.clear()
            self.look()

    # -- the agent --------------------------------------------------------------------------------

    async def start_agent(self, *prefix: str) -> None:
        """Start it, through the command `prefix` if there is one. Await `ready` before relying on it."""
        await self.kill_agent()
        self.events = []
        self.agent = started([*(DIES_WITH_US if prefix else ()), *prefix, *self.command()])
        said = asyncio.StreamReader(limit=LINE_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), self.agent.stderr)
        self._reading = asyncio.create_task(self._read_log(said), name="the agent's log")

    def command(self) -> list[str]:
        agent = [sys.executable, "-m", "agent", "--log-format", "json", "run", "--config", str(self.config)]
        return [*DIES_WITH_US, *agent]

    async def ready(self, *units: str) -> None:
        """Until the agent has opened these units; what they say from now on is read."""
        await self.until(
            lambda: set(units) <= {event.get("unit") for event in self.logged("ready")}, f"{units} ready"
        )

    async def stop_agent(self) -> None:
        """As systemd stops it."""
        await self._end(signal.SIGTERM)

    async def kill_agent(self) -> None:
        """SIGKILL, as a power cut would to the process: nothing more is written."""
        await self._end(signal.SIGKILL)

    @property
    def alive(self) -> bool:
        return self.agent is not None and self.agent.poll() is None

    def logged(self, event: str) -> list[Entry]:
        """What the agent of now has logged under this name."""
        return [each for each in self.events if each.get("event") == event]

    async def _end(self, number: signal.Signals) -> None:
        if self.agent is None or self._reading is None:
            return
        if self.alive:
            # The group: what stands before the agent in the command line must not survive it.
            os.killpg(self.agent.pid, number)
        async with asyncio.timeout(PATIENCE):
            await self._reading
            await asyncio.to_thread(self.agent.wait)
        self.agent = self._reading = None
        # An exclusive open lasts until the last close, and each device holds its end of the line open. A
        # device that is plugged in anew comes on a line that nobody has locked.
        for device in self.devices:
            if device.plugged:
                device.unplug()
                device.plug()

    async def _read_log(self, said: asyncio.StreamReader) -> None:
        async for line in said:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": line.decode(errors="replace").rstrip()})
            self.look()

    # -- the fleet --------------------------------------------------------------------------------

    def _arrived(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.look()

    async def restart_broker(self, *, kill: bool = False) -> None:
        """Its sessions are gone with it. The way is cut and stays cut: whatever the broker takes while the
        fleet is not there yet, nobody will ever hear of.
        """
        self.relay.cut()
        self.broker.stop(kill=kill)
        await self.until(lambda: not self.fleet.online.is_set(), "the fleet to hear the last of it")
        self.broker.start()
        await self.until(self.fleet.online.is_set, "the fleet online", 90)

    def of(self, *types: str) -> list[Entry]:
        """Entries of these types at the fleet, `postern.` left out."""
        return [entry for entry in self.entries if entry["type"].removeprefix("postern.") in types]

    def in_order(self) -> None:
        """Fails unless the fleet has each entry once, none is missing, and each lane is in order."""
        assert self.whole()
        (epoch,) = {entry["id"].rpartition("-")[0] for entry in self.entries}
        assert all(entry["id"] == f"{epoch}-{entry['sequence']}" for entry in self.entries)
        assert max(Counter(entry["id"] for entry in self.entries).values()) == 1
        for lane in ("custody", "state", "telemetry"):
            own = [int(entry["sequence"]) for entry in self.entries if entry["lane"] == lane]
            assert own == sorted(own)

    def whole(self) -> bool:
        """Whether there is no gap: of a long backlog the less urgent lanes come last."""
        sequences = {int(entry["sequence"]) for entry in self.entries}
        return len(sequences) == max(sequences, default=0)

    # -- waiting ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Something has happened: wake whoever waits."""
        self._news.set()

    async def until(self, claim: Callable[[], object], what: str, within: float = PATIENCE) -> None:
        """Wait until `claim()` holds; it is asked again after every entry, log line and order obeyed."""
        try:
            async with asyncio.timeout(within):
                while not claim():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"waited {within:g} s for {what}") from None


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """Not asyncio's own way to start a process: that waits for it in a thread which nobody can wait for."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, start_new_session=True
    )


async def written(file: Path) -> None:
    """Wait for the whole line that another program writes to a file and does not tell of."""
    async with asyncio.timeout(PATIENCE):
        while not (file.exists() and file.read_text().endswith("\n")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Bell(asyncio.Event):
    """An event that tells when it changes."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        super().set()
        self._ring()

    def clear(self) -> None:
        super().clear()
        self._ring()


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """A task for as long as the context lasts. What it raises is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
