"""One device that the fleet sends configs to: a real broker, real ptys, an agent that starts anew at will.

    async with TrialBench(tmp_path) as bench:
        sent = await bench.push("[broker]\\nhost = 'nowhere.invalid'\\n")
        assert (await bench.end(sent))["state"] == "refused"
        await bench.reachable("device")

Time-outs are those of the documents, played at a `Pace`. The fleet holds all keys, and confirms at will.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from agent.app import App
from agent.changeover import Pace
from agent.clock import BOOT_ID, mono_ns
from agent.config import load
from agent.desired import SCHEMA
from agent.envelope import CAPS, Envelope, Kind
from agent.fleet.collect import unpack
from agent.jws import sign
from agent.mqtt import Connection, ConnectionLost
from agent.shelf import InForce, take_up
from agent.strict_json import dumps
from simulators.em4100 import Em4100Reader
from simulators.line import LineScanner
from simulators.r503 import FingerprintModule
from tests.authority import Authority
from tests.brokers import News, server
from tests.mosquitto import Mosquitto
from tests.site import LONG

DEVICE = "locker-17"
DOWN, UP = f"postern/v1/{DEVICE}/down/", f"postern/v1/{DEVICE}/up/"
PATIENCE = 60.0
PACE = Pace(probe=5.0) if LONG else Pace(second=0.04, probe=2.0, samples=10)
"""In the short form the shortest time-out, two minutes, is over in five seconds."""

FILE = """
[device]
id = "locker-17"
tenant = "acme"
state = "{state}"

[broker]
host = "127.0.0.1"
port = {port}
plain = true

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.finger]
kind = "r503"
port = "{dev}/finger"

[unit.gun]
kind = "line"
port = "{dev}/gun"
"""


class TrialBench:
    """Everything is there once entered; the agent runs until the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dev = folder, folder / "dev"
        self.dev.mkdir()
        self.broker = Mosquitto(folder)
        self.devices = (
            Em4100Reader(self.dev / "badge"),
            FingerprintModule(self.dev / "finger"),
            LineScanner(self.dev / "gun"),
        )
        self.fleet = Authority()
        self.news = News()
        self.file = folder / "postern.toml"
        self.reported: dict[str, Any] = {}
        """What `up/config` said last."""
        self.birth: dict[str, Any] = {}
        self.entries: list[Mapping[str, Any]] = []
        self.starts: list[InForce] = []
        """What each life of the agent began with."""
        self.confirms = False
        """Whether the fleet lets what is well stay."""
        self._ending = False
        self._ver = self._seq = 0
        self._confirmed: set[object] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self.broker)
            for device in self.devices:
                stack.enter_context(device)
            state = self.folder / "state"
            self.file.write_text(FILE.format(state=state, port=self.broker.port, dev=self.dev))
            state.mkdir(mode=0o700)
            (state / "root.jws").write_bytes(self.fleet.root(iat=now(), exp_in=10**9))
            self.connection = Connection(server(self.broker.port, "the-fleet"))
            stack.push_async_callback(self.connection.close)
            await self.connection.connect()
            await self.connection.subscribe(f"{UP}#")
            await stack.enter_async_context(working(self._hear()))
            await self.enter(stack)
            self._stack = stack.pop_all()
        return self

    async def enter(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the agent, and have it end with the rest."""
        task = asyncio.create_task(self._live())
        stack.push_async_callback(self._stop, task)
        await self.until(lambda: self.well(), "the agent online with all units")

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _live(self) -> None:
        """As `postern run` does it, but in this process."""
        while True:
            in_force = take_up(load(self.file), BOOT_ID.read_text().strip(), mono_ns())
            self.starts.append(in_force)
            self.app = App(in_force.config, in_force=in_force, pace=PACE)
            await self.app.run()
            if not self.app.restarting or self._ending:
                return

    async def _stop(self, task: "asyncio.Task[None]") -> None:
        self._ending = True
        if not task.done():
            self.app.stop()
        await task

    # -- the fleet ------------------------------------------------------------------------------------

    def whole(self, broker: str = "", more: str = "") -> str:
        """The config at the device without who it is, with another broker or more of anything."""
        _, _, rest = self.file.read_text().partition("[broker]")
        here, _, units = rest.partition("\n\n")
        return f"[broker]{broker or here}\n\n{units}\n{more}"

    async def push(self, text: str, **body: Any) -> bytes:
        """Sign a config, and the head that names it."""
        made = {"schema": SCHEMA, "toml": text.split("\n"), "confirm_timeout": 120, **body}
        return await self.send(self.config(made))

    def config(self, body: Mapping[str, Any]) -> bytes:
        self._ver += 1
        return self.fleet.made(Kind.CONFIG, body, self._ver, iat=now())

    def oversized(self) -> bytes:
        """As nobody in their right mind would sign it: over the cap, and signed all the same."""
        raw = self.config({"schema": SCHEMA, "toml": []})
        claims = Envelope.parse(Kind.CONFIG, raw).claims(Kind.CONFIG).model_dump()
        claims["body"] = {"schema": SCHEMA, "toml": ["[" * 4000] * 19}
        big = sign(dumps(claims), Kind.CONFIG.typ, self.fleet.signers["config"])
        assert len(big) > CAPS[Kind.CONFIG]
        return big

    async def send(self, raw: bytes, pin: tuple[int, str] | None = None) -> bytes:
        head = self.fleet.head(self._ver, {"config": pin or raw}, iat=now())
        for name, message in (("config", raw), ("head", head)):
            await self.connection.publish(DOWN + name, message, retain=True)
        return raw

    async def command(self, name: str, rank: str, **args: Any) -> Mapping[str, Any]:
        """Have the device do something, and the entry that tells the outcome."""
        self._seq += 1
        body = {"class": rank, "name": name, "args": args, "operator": "op-1", "reason": "why"}
        body["nonce"] = self.birth["time_nonce"]
        raw = self.fleet.made(Kind.COMMAND, body, self._seq, iat=now(), exp_in=120)
        jti = Envelope.parse(Kind.COMMAND, raw).claims(Kind.COMMAND).jti

        def outcomes() -> list[Mapping[str, Any]]:
            ends = ("succeeded", "failed", "outcome_unknown")
            told = [entry for entry in self.entries if entry["type"].rpartition(".")[2] in ends]
            return [entry for entry in told if entry["data"].get("command") == jti]

        await self.connection.publish(f"{DOWN}command", raw)
        await self.until(outcomes, f"the outcome of {name}")
        return outcomes()[0]

    async def end(self, sent: bytes) -> Mapping[str, Any]:
        """What the device says became of a config."""
        name = identity(sent)
        await self.until(
            lambda: (
                (self.reported.get("version"), self.reported.get("sha256")) == name
                and self.reported["state"] != "trial"
            ),
            f"the end of config {name[0]}",
            PATIENCE if not LONG else 400,
        )
        return self.reported

    async def reachable(self, source: str) -> Mapping[str, Any]:
        """The device does as it is told, with all its units, on this config. Its status."""
        await self.until(lambda: self.well() and self.birth["config"]["in_force"] == source, f"the {source}")
        outcome = await self.command("status", "A")
        assert outcome["type"] == "postern.command.succeeded", outcome
        status: Mapping[str, Any] = outcome["data"]["status"]
        assert status["config"]["in_force"] == source
        return status

    def well(self) -> bool:
        units = self.birth.get("units", {})
        ready = {name for name, unit in units.items() if unit["state"] == "ready"}
        return bool(self.birth.get("online")) and {"badge", "finger", "gun"} <= ready

    async def _hear(self) -> None:
        """For ever: note what the device says, and confirm what is well where that is wanted."""
        with contextlib.suppress(ConnectionLost):
            while True:
                message = await self.connection.receive()
                self.connection.acknowledge(message)
                match message.topic.removeprefix(UP):
                    case "entries":
                        lines = unpack(message.payload, message.properties.get("content-encoding"))
                        self.entries += map(json.loads, lines)
                    case "config":
                        self.reported = json.loads(message.payload)
                    case "state":
                        self.birth = json.loads(message.payload)
                        await self._answer()
                self.news.look()

    async def _answer(self) -> None:
        config, nonce = self.birth.get("config", {}), self.birth.get("time_nonce")
        if not self.confirms or config.get("ready") is not True or nonce in self._confirmed:
            return
        self._confirmed.add(nonce)
        await self.confirm(config["version"], config["sha256"])

    async def confirm(self, version: int, sha256: str) -> None:
        self._seq += 1
        args = {"version": version, "sha256": sha256}
        body = {"class": "B", "name": "confirm_config", "args": args, "operator": "f", "reason": "well"}
        body["nonce"] = self.birth["time_nonce"]
        raw = self.fleet.made(Kind.COMMAND, body, self._seq, iat=now(), exp_in=120)
        await self.connection.publish(f"{DOWN}command", raw)

    async def until(self, claim: Callable[[], object], what: str, within: float = PATIENCE) -> None:
        try:
            await self.news.until(claim, within)
        except TimeoutError:
            raise AssertionError(f"waited {within:g} s for {what}; {self.reported}") from None


def identity(raw: bytes) -> tuple[int, str]:
    envelope = Envelope.parse(Kind.CONFIG, raw)
    return envelope.claims(Kind.CONFIG).ver, envelope.sha256


def now() -> int:
    return int(time.time())


@contextlib.asynccontextmanager
async def working(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
