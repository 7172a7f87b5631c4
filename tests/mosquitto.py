"""A real mosquitto: finding one, unpacking one where none is installed, and running it for a test.

    with Mosquitto(tmp_path) as broker:
        connect(broker.host, broker.port)
        broker.stop(kill=True)
        broker.start()  # the same port

`python -m tests.mosquitto` makes sure that there is one, in `.tools` if need be, and exits 1 with the reason
if it cannot. Nothing is installed and no service is started.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pytest

from tests.debian import SBIN, TOOLS, NotUnpacked, libraries, unpacked

UNPACKED = TOOLS / "mosquitto" / "run"
STARTED_WITHIN = 10.0
STOPPED_WITHIN = 10.0


def find_mosquitto() -> Path | None:
    installed = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + SBIN)
    if installed:
        return Path(installed)
    return UNPACKED if UNPACKED.exists() else None


def require_mosquitto() -> Path:
    """Skip the test that asks where there is none; in CI, fail it."""
    found = find_mosquitto()
    if found:
        return found
    why = "no mosquitto on PATH, in /usr/sbin or in .tools; `./postern test` would unpack Debian's"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class BrokerFailed(Exception):
    """The broker did not start or stop as asked; the message holds its log."""


class Mosquitto:
    """One broker on one port of this host, for as many lives as a test needs."""

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        *,
        config_lines: Iterable[str] = (),
        port: int | None = None,
        anonymous: bool = True,
        persistence: bool = False,
        config: str | None = None,
    ) -> None:
        """`config` is a whole file that names `port`; without it, one is made of the others."""
        self.program = require_mosquitto()
        self.port = port or free_port()
        self.log = folder / f"mosquitto-{self.port}.log"
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} {self.host}", f"allow_anonymous {str(anonymous).lower()}"]
        if config is not None:
            lines = [config]
        if os.geteuid() == 0:
            lines.append("user root")
        if persistence:
            lines += ["persistence true", f"persistence_location {folder}/"]
        self._config.write_text("\n".join([*lines, "log_dest stderr", "log_type all", *config_lines, ""]))

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BrokerFailed("expected a running broker, got a stopped one")
        return self._process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> Self:
        """Return once it listens, and only if what listens on the port is the process started here."""
        if self._process is not None:
            raise BrokerFailed("expected a stopped broker, got a running one")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program), "-c", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + STARTED_WITHIN
        while not listens(self._process.pid, self.port):
            ended = self._ended(within=0.01)
            if ended or time.monotonic() > deadline:
                self._kill()
                raise BrokerFailed(
                    f"port {self.port} was not opened by the broker started:\n{self.log_text()}"
                )
        return self

    def stop(self, *, kill: bool = False) -> None:
        """End it, politely or as a power cut would. A stopped broker stays stopped."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        if not self._ended(within=STOPPED_WITHIN):
            self._kill()
            raise BrokerFailed(
                f"still running {STOPPED_WITHIN} s after it was asked to stop:\n{self.log_text()}"
            )
        self._process = None

    def restart(self, *, kill: bool = False) -> Self:
        self.stop(kill=kill)
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ended(self, *, within: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None


def free_port() -> int:
    """A port that nobody has, below those the kernel gives to outgoing connections.

    Among those, a client that keeps trying a stopped broker sooner or later connects to itself.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((Mosquitto.host, port))
            except OSError:
                continue
            return port
    raise BrokerFailed("100 ports tried, none free")


def listens(pid: int, port: int) -> bool:
    """Whether this very process holds the listening socket of this port."""
    listening = "0A"
    try:
        rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it closed a file meanwhile, or has just ended: what is left of it cannot be looked into
        return False
    ports = {f"socket:[{row[9]}]": int(row[1].split(":")[1], 16) for row in rows if row[3] == listening}
    return any(ports.get(each) == port for each in held)


def unpack_mosquitto() -> None:
    """Put Debian's mosquitto, with the libraries this machine lacks, into `.tools`. Raises NotUnpacked."""
    root = unpacked("mosquitto")
    paths = libraries(root).replace(str(root), "$here")
    script = f'#!/bin/sh\nhere=${{0%/*}}\nLD_LIBRARY_PATH="{paths}" exec "$here/usr/sbin/mosquitto" "$@"\n'
    fresh = UNPACKED.with_suffix(".new")
    fresh.write_text(script)
    fresh.chmod(0o755)
    fresh.replace(UNPACKED)


def main() -> int:
    if find_mosquitto():
        return 0
    sys.stderr.write("postern: unpacking mosquitto into .tools for the tests, this once\n")
    try:
        unpack_mosquitto()
    except (NotUnpacked, OSError) as why:
        sys.stderr.write(f"postern: no mosquitto, so the tests that need one cannot run: {why}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
