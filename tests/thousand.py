"""A fleet of many real agents and one mosquitto, for tests and the bench: 1,000 devices, or a few dozen.

with Thousand(folder, devices=24) as fleet:
    code, said = await fleet.types("push", "roster", str(roster), "--all")
    async with fleet.heard() as heard:
        await heard.until(lambda: heard.sums["online"] == 24)
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from agent.fleet.collect import Collector
from agent.fleet.device_log import DeviceLog, Entry
from agent.mqtt import Server
from tests.brokers import News, running
from tests.mosquitto import Mosquitto

ROOT = Path(__file__).parent.parent
LIMITS = ("max_queued_messages 0", "set_tcp_nodelay true", "log_type error")
"""The rest of mosquitto's own limits does for a thousand devices."""
ENDS_WITHIN_S = 60.0
SESSION_S = 3600


class Thousand:
    """Broker and devices run from `__enter__` to `__exit__`."""

    def __init__(
        self, folder: Path, *, devices: int, hardware: Sequence[str] = ("van",), rate: float = 6.0
    ) -> None:
        self.folder, self.devices, self.hardware = folder, devices, hardware
        self.rate = rate
        self.broker = Mosquitto(folder, config_lines=LIMITS, persistence=True)
        self.home = folder / "f"
        """Where the devices live: its path may not be long."""
        self.keys = self.home / "keys"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.broker.start()
        argv = [sys.executable, "-m", "simulators", "fleet", "--json", "--devices", str(self.devices)]
        argv += ["--folder", str(self.home), "--rate", str(self.rate)]
        argv += ["--hardware", ",".join(self.hardware)]
        argv += ["--host", self.broker.host, "--port", str(self.broker.port)]
        with (self.folder / "fleet.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=ENDS_WITHIN_S)
        finally:
            process.kill()
            process.wait()
            self.broker.stop()
        assert process.returncode == 0, (self.folder / "fleet.log").read_text()[-2000:]

    def config(self, hardware: str) -> Path:
        """What all devices of this hardware run with, as it could be pushed."""
        return self.home / f"{hardware}.toml"

    async def types(self, *words: str, within: float) -> tuple[int, list[dict[str, Any]]]:
        """Type `postern fleet WORDS`: exit code, and what it says."""
        at = ["--host", self.broker.host, "--port", str(self.broker.port), "--plain"]
        argv = [
            "-m",
            "agent",
            "--log-level",
            "error",
            "fleet",
            *words,
            "--keys",
            str(self.keys),
            *at,
            "--json",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, cwd=ROOT, stdin=DEVNULL, stdout=PIPE
        )
        said = b""
        try:
            async with asyncio.timeout(within):
                said, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
        return code, [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]

    @contextlib.asynccontextmanager
    async def heard(self) -> AsyncIterator["Heard"]:
        """What the fleet hears, and what the devices say of themselves. The broker keeps what comes while
        nobody listens."""
        broker = self.broker
        server = Server(host=broker.host, port=broker.port, client_id="the-fleet", session_expiry=SESSION_S)
        heard = Heard()
        heard.collector = Collector(server, heard.take, on_state=heard.took_state)
        assert self._process is not None
        assert self._process.stdout is not None
        said = os.fdopen(os.dup(self._process.stdout.fileno()), "rb", 0)
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), said
        )
        try:
            async with running(heard.collector.run()), running(heard.read(reader)):
                await heard.collector.online.wait()
                yield heard
        finally:
            transport.close()
            # A transport closes what it reads at the next turn of the loop.
            await asyncio.sleep(0)


class Heard:
    """The fleet's side."""

    collector: Collector

    def __init__(self) -> None:
        self.sums: Mapping[str, Any] = {"online": 0, "backlog": 0, "revoked": 0}
        """What the devices of all processes say of themselves, once a second."""
        self.history: list[tuple[float, Mapping[str, Any]]] = []
        self.entries: list[Entry] = []
        """Those about connections."""
        self.news = News()
        self._ended = False
        """Whether the simulator has ended by itself."""

    def take(self, entry: Entry) -> None:
        if entry["type"].startswith("postern.uplink."):
            self.entries.append(entry)
        self.news.look()

    def took_state(self, _: DeviceLog) -> None:
        self.news.look()

    async def read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            # Whoever listened before may have taken half a line with them.
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if "online" in told:
                    self.sums = told
                    self.history.append((time.monotonic(), told))
                    self.news.look()
        self._ended = True
        self.news.look()

    def calm(self, devices: int) -> bool:
        """Whether all are online, and have not more to send than comes in about a second."""
        return bool(self.sums["online"] == devices and self.sums["backlog"] <= 1 + devices // 20)

    @property
    def states(self) -> dict[str, Mapping[str, Any]]:
        """What each device said last of itself."""
        return {name: log.state or {} for name, log in self.collector.devices.items()}

    def with_bundle(self, name: str, ver: int) -> int:
        """How many have this version of a bundle in force, and all of it."""
        trusts = [state.get("trust") or {} for state in self.states.values()]
        return sum(each.get("complete") is True and each["documents"].get(name) == ver for each in trusts)

    async def until(self, claim: Callable[[], object], what: str, within: float) -> None:
        try:
            await self.news.until(lambda: self._ended or claim(), within)
        except TimeoutError:
            raise AssertionError(f"waited {within:g} s for {what}; {self.sums}") from None
        assert not self._ended, f"the fleet ended by itself before {what}"
