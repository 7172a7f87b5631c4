"""The stage of the demo: a tour's virtual devices, a broker, and one agent as a process of its own.

The agent is started as anyone would start it, from a config file, and provisioned through its own command
line. What happens on this stage is told by the devices: a scan counts as accepted when its scanner was
told to sound the good tone.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from simulators.base import VirtualDevice
from simulators.broker import Broker
from simulators.em4100 import Em4100Reader
from simulators.gnss import GnssReceiver
from simulators.line import LineScanner
from simulators.m100 import M100Reader
from simulators.pn532 import Pn532Reader
from simulators.r503 import FingerprintModule
from simulators.ssi import SsiScanner

CONFIG = """\
[device]
id = "van-0042"
tenant = "demo"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[custody]
tones = "gun"          # sounds for what cannot beep: the RFID tunnel, the badge reader
session = [["fido2"], ["badge", "slot"], ["badge", "pin"]]
handover = [["fido2"], ["badge", "pin"], ["badge", "slot"]]
window = 1.0

[unit.gun]             # a Zebra handheld in packet mode
kind = "ssi"
port = "{dev}/gun"

[unit.desk]            # a Honeywell scanner in text mode
kind = "line"
port = "{dev}/desk"
commands = "honeywell"

[unit.tunnel]          # a UHF reader module over the van's door
kind = "m100"
port = "{dev}/tunnel"
presence_ms = 800

[unit.badge]           # a 125 kHz badge reader
kind = "em4100"
port = "{dev}/badge"

[unit.finger]          # a fingerprint module
kind = "r503"
port = "{dev}/finger"

[unit.cards]           # a reader for fingerprint cards
kind = "pn532"
port = "{dev}/cards"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{dev}/keypad"

[unit.gps]
kind = "nmea"
port = "{dev}/gps"
"""


@dataclass
class Devices:
    """Everything that is wired to the van's agent."""

    gun: SsiScanner
    desk: LineScanner
    tunnel: M100Reader
    badge: Em4100Reader
    finger: FingerprintModule
    cards: Pn532Reader
    keypad: LineScanner
    gps: GnssReceiver

    def all(self) -> Mapping[str, VirtualDevice]:
        return dict(vars(self))

    @property
    def good(self) -> int:
        """Good-read tones that were sounded."""
        return self.gun.tones.count("good") + self.desk.tones.count("good")

    @property
    def bad(self) -> int:
        return self.gun.tones.count("bad") + self.desk.tones.count("bad")


@asynccontextmanager
async def devices(folder: Path) -> AsyncIterator[Devices]:
    """Plug everything in; unplug it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Devices(
        gun=SsiScanner(folder / "gun"),
        desk=LineScanner(folder / "desk", speaks="honeywell"),
        tunnel=M100Reader(folder / "tunnel"),
        badge=Em4100Reader(folder / "badge"),
        finger=FingerprintModule(folder / "finger"),
        cards=Pn532Reader(folder / "cards"),
        keypad=LineScanner(folder / "keypad"),
        gps=GnssReceiver(folder / "gps", rate=5.0),
    )
    with contextlib.ExitStack() as plugs:
        for device in made.all().values():
            plugs.enter_context(device)
        yield made


@asynccontextmanager
async def broker(folder: Path, port: int = 0) -> AsyncIterator[tuple[int, str]]:
    """A broker on this port, or one of its own, and what it is: a real mosquitto where there is one."""
    found = _mosquitto()
    if found is None:
        async with Broker(port=port) as small:
            yield small.port, "the small broker of this project"
        return
    port = port or _free_port()
    conf = folder / "mosquitto.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n{_as_user()}")
    with (folder / "mosquitto.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(found, "-c", str(conf), stdout=log, stderr=log)
    try:
        await _listening(port, process)
        yield port, "mosquitto"
    finally:
        await end(process)


def _mosquitto() -> str | None:
    # Debian keeps it where a user's PATH does not look.
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which("mosquitto", path=os.pathsep.join(places))


def _as_user() -> str:
    return "user root\n" if os.geteuid() == 0 else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(10):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"mosquitto ended with {process.returncode}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def postern(*arguments: str, stdin: str | None = None) -> str:
    """Run one `postern` command to its end and return what it said. Raises RuntimeError if it failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate((stdin or "").encode())
    if process.returncode:
        raise RuntimeError(f"postern {' '.join(arguments)}: {said.decode().strip()}")
    return said.decode()


@asynccontextmanager
async def agent(config: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running agent; ended politely."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "--log-format", "json", "run", "--config", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield process
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process, within: float = 15.0) -> None:
    """SIGTERM, and SIGKILL for what has not gone within so many seconds."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def log_tail(path: Path, lines: int = 15) -> list[str]:
    """The end of an agent's log, for whoever wants to know why."""
    with contextlib.suppress(OSError):
        return [_event(line) for line in path.read_text().splitlines()[-lines:]]
    return []


def _event(line: str) -> str:
    try:
        event = json.loads(line)
        return " ".join([str(event.pop("event", "")), *(f"{key}={value}" for key, value in event.items())])
    except ValueError:
        return line
