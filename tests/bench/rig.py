"""The programs of the bench as processes, and what the kernel says of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.bench.figures import Broken
from tests.bench.wires import PATIENCE_S, Ear, Line
from tests.mosquitto import Mosquitto, free_port, listens

ROOT = Path(__file__).resolve().parent.parent.parent
DEVICE = "bench-0001"
BARE_TOPIC = "bare/entries"
SLOW_SYNC_US = 10_000

BROKER_LINES = ("set_tcp_nodelay true", "max_queued_messages 0", "log_type none")
"""Without the first the broker may hold a message back until the last one was acknowledged: up to 40 ms."""


class Program:
    """A process under measurement, and what the kernel says of it."""

    def __init__(self, argv: Sequence[str], log: Path, *, slow_sync: bool = False) -> None:
        self.log = log
        # On a device there is no `fleet` extra, and structlog would load what is in it.
        shim = log.parent / "without_fleet"
        shim.mkdir(exist_ok=True)
        (shim / "rich.py").write_text('raise ImportError("not on a device")\n')
        environ = {**os.environ, **unit_environment(), "PYTHONPATH": f"{shim}:{ROOT}"}
        with log.open("ab") as out:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                [*(slow_syncs() if slow_sync else ()), *argv],
                cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._proc = Path(f"/proc/{self._process.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> None:
        """Raises Broken with the last it said if it has ended."""
        if self._process.poll() is not None:
            raise Broken(f"ended with {self._process.returncode}: {self.log.read_text()[-600:]}")

    def resident(self, field: str = "VmRSS") -> float:
        """Megabytes: `VmRSS` now, `VmHWM` at most so far."""
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise Broken(f"no {field} of a process that has ended")

    def cpu_s(self) -> float:
        """Seconds on a processor, all threads, to the nanosecond."""
        tasks = (self._proc / "task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def written(self) -> int:
        """Bytes of the pages it dirtied in files: what the kernel then writes to the disk for it."""
        for line in (self._proc / "io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise Broken("the kernel does not account for I/O")

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def unit_environment() -> dict[str, str]:
    """What the service unit gives the agent."""
    lines = (ROOT / "systemd" / "postern.service").read_text().splitlines()
    pairs = (line.removeprefix("Environment=") for line in lines if line.startswith("Environment="))
    return dict(pair.split("=", 1) for pair in pairs)


def slow_syncs() -> tuple[str, ...]:
    """What makes each sync of a program 10 ms longer, as on an SD card, and leaves it its process id."""
    calls = "fdatasync,fsync"
    tracing = ("-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", f"trace={calls}")
    return ("strace", *tracing, "-e", f"inject={calls}:delay_exit={SLOW_SYNC_US}", "--")


def cannot_slow_syncs() -> str:
    """Why not, or nothing."""
    try:
        done = subprocess.run(
            [*slow_syncs(), "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no strace that works here ({error})"
    return f"strace cannot: {done.stderr.strip()}" if done.returncode else ""


def agent(
    folder: Path, port: int, units: str = "", *, log: str = "agent.log", slow_sync: bool = False
) -> Program:
    """An agent that nobody attends, in `folder`. Keeps the journal that it finds there."""
    config = folder / "postern.toml"
    config.write_text(
        f'[device]\nid = "{DEVICE}"\ntenant = "bench"\nstate = "{folder}"\n'
        f'[broker]\nhost = "127.0.0.1"\nport = {port}\nplain = true\n'
        f"[custody]\nattended = false\n{units}"
    )
    argv = [sys.executable, "-m", "agent", "--log-format", "json", "run", "--config", str(config)]
    return Program(argv, folder / log, slow_sync=slow_sync)


def scanner(line: Line, *, tones: bool = False) -> str:
    """The table of a unit on this line."""
    commands = "honeywell" if tones else "none"
    return f'[unit.gun]\nkind = "line"\nport = "{line.path}"\ncommands = "{commands}"\n'


def bare(folder: Path, port: int, line: Line, *, slow_sync: bool = False) -> Program:
    """The bare loop, in `folder`."""
    argv = [sys.executable, "-m", "tests.bench.bare", line.path, str(port), str(folder / "bare.db")]
    return Program([*argv, BARE_TOPIC], folder / "bare.log", slow_sync=slow_sync)


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Mosquitto]:
    with Mosquitto(folder, config_lines=BROKER_LINES) as running:
        yield running


@contextlib.contextmanager
def way(folder: Path, port: int, *, rtt: float, rate: float | None = None) -> Iterator[int]:
    """A port behind which that of a broker is so many seconds away, there and back, and as thin as that."""
    near = free_port()
    argv = [sys.executable, "-m", "simulators.relay", "--to", f"127.0.0.1:{port}", "--port", str(near)]
    argv += ["--rtt", str(rtt), *(("--rate", str(rate)) if rate else ())]
    with Program(argv, folder / "relay.log") as relay:
        until = time.monotonic() + PATIENCE_S
        while not listens(relay.pid, near):
            relay.alive()
            if time.monotonic() > until:
                raise Broken("the relay does not listen")
            time.sleep(0.02)
        yield near


@contextlib.contextmanager
def ear(port: int) -> Iterator[Ear]:
    made = Ear(port, f"postern/v1/{DEVICE}/up/entries", BARE_TOPIC)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def line() -> Iterator[Line]:
    made = Line()
    try:
        yield made
    finally:
        made.close()


def first_heard(program: Program, wire: Line, listener: Ear, within: float = 20.0) -> float:
    """Scan until a scan arrives at the broker, and everything before it too. When the first did."""
    until = time.perf_counter() + within
    number = 0
    while time.perf_counter() < until:
        program.alive()
        number += 1
        wire.send(b"WARM%08d\r" % number)
        if (at := listener.wait_for(b"WARM", 0.02)) is not None:
            listener.until_quiet(0.5, 0.5)
            return at
    raise Broken(f"nothing at the broker within {within:g} s: {program.log.read_text()[-600:]}")


def first_tone(program: Program, wire: Line, within: float = 20.0) -> float:
    """Scan until a good tone is heard. When it was."""
    until = time.perf_counter() + within
    number = 0
    while time.perf_counter() < until:
        program.alive()
        number += 1
        wire.send(b"WARM%08d\r" % number)
        if (at := wire.tone(0.02)) is not None:
            while wire.tone(0.3):
                pass
            return at
    raise Broken(f"no good tone within {within:g} s: {program.log.read_text()[-600:]}")
