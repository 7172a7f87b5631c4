"""One config from its publishing to the device's report: what it would change, and that it is kept."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.desired import SCHEMA
from agent.envelope import Envelope, Kind
from agent.mqtt import Connection, Message, Server
from tests.authority import Authority
from tests.bench import rig
from tests.bench.figures import Broken, Figure, Missing
from tests.bench.sizes import Sizes

PATIENCE_S = 120.0
LASTS_S = 3600
DOWN, UP = f"postern/v1/{rig.DEVICE}/down/", f"postern/v1/{rig.DEVICE}/up/"


def config(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """A dry run, which is an answer alone; then a trial, for which the agent starts anew."""
    fleet, now = Authority(), int(time.time())
    signers = fleet.roots[:2]
    root = fleet.made(Kind.ROOT, fleet.root_body(), 1, signers, aud="bench/*", iat=now, exp_in=10**8)
    (folder / "root.jws").write_bytes(root)
    with rig.broker(folder) as broker:
        echo, told, started, kept = asyncio.run(_changed(folder, broker.port, fleet))
    yield Figure(
        name="config published to report of what it changes",
        value=told * 1e3,
        unit="ms",
        beside="there and back alone",
        limit=echo * 1e3,
    )
    yield Figure(
        name="config published to report that it is kept",
        value=kept,
        unit="s",
        beside="start to birth",
        limit=started,
    )


async def _changed(folder: Path, port: int, fleet: Authority) -> tuple[float, float, float, float]:
    """Seconds: there and back, to the answer of a dry run, of a start, to a config that is kept."""
    connection = Connection(Server(host="127.0.0.1", port=port, client_id="the-fleet"))
    device = _Device(connection, fleet)
    try:
        await connection.connect()
        await connection.subscribe(f"{UP}#", "bench/echo")
        began = time.perf_counter()
        with rig.agent(folder, port):
            await device.until(lambda: device.birth.get("online"))
            started = time.perf_counter() - began
            text = (folder / "postern.toml").read_text()
            echo = await device.echo()
            told = await device.sends(f"{text}\n[journal]\nsize_mib = 512\n", dry_run=True)
            kept = await device.sends(f"{text}\n[journal]\nsize_mib = 768\n", dry_run=False)
            return echo, told, started, kept
    finally:
        await connection.close()


class _Device:
    """As the fleet sees it."""

    def __init__(self, connection: Connection, fleet: Authority) -> None:
        self.birth: Mapping[str, Any] = {}
        self._report: Mapping[str, Any] = {}
        self._connection, self._fleet = connection, fleet
        self._ver = self._seq = 0
        self._echoed = False
        self._confirmed: set[object] = set()

    async def until(self, claim: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not claim():
                    message = await self._connection.receive()
                    self._connection.acknowledge(message)
                    await self._hear(message)
                return
        raise Broken(f"nothing came of it: {dict(self._report)}")

    async def echo(self) -> float:
        began = time.perf_counter()
        await self._connection.publish("bench/echo", b"x" * 2000)
        await self.until(lambda: self._echoed)
        return time.perf_counter() - began

    async def sends(self, text: str, *, dry_run: bool) -> float:
        """Seconds until it has said what comes of this config."""
        self._ver += 1
        body = {"schema": SCHEMA, "toml": text.split("\n"), "confirm_timeout": 120, "dry_run": dry_run}
        raw = self._made(Kind.CONFIG, body, self._ver)
        pin = {"ver": self._ver, "sha256": Envelope.parse(Kind.CONFIG, raw).sha256}
        head = self._made(Kind.HEAD, {"documents": {"config": pin}}, self._ver)
        began = time.perf_counter()
        self._connection.publish(f"{DOWN}config", raw, retain=True)
        self._connection.publish(f"{DOWN}head", head, retain=True)
        await self.until(lambda: self._answered(dry_run=dry_run))
        return time.perf_counter() - began

    def _answered(self, *, dry_run: bool) -> bool:
        report = self._report
        told = report.get("checked") or {} if dry_run else report
        return bool(told.get("version") == self._ver and (dry_run or report.get("state") == "confirmed"))

    def _made(self, kind: Kind, body: Mapping[str, Any], ver: int) -> bytes:
        aud = f"bench/{rig.DEVICE}"
        return self._fleet.made(kind, body, ver, aud=aud, iat=int(time.time()), exp_in=LASTS_S)

    async def _hear(self, message: Message) -> None:
        match message.topic.removeprefix(UP):
            case "state":
                self.birth = json.loads(message.payload)
                self._confirm()
            case "config":
                self._report = json.loads(message.payload)
            case "bench/echo":
                self._echoed = True

    def _confirm(self) -> None:
        """Let it keep what it tries as soon as it is well on it: once for each of its connections."""
        told, nonce = self.birth.get("config", {}), self.birth.get("time_nonce")
        if told.get("ready") is not True or nonce in self._confirmed:
            return
        self._confirmed.add(nonce)
        self._seq += 1
        args = {"version": told["version"], "sha256": told["sha256"]}
        body = {"class": "B", "name": "confirm_config", "args": args, "operator": "bench", "reason": "well"}
        raw = self._made(Kind.COMMAND, {**body, "nonce": nonce}, self._seq)
        self._connection.publish(f"{DOWN}command", raw)
