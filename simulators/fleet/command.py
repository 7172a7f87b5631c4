"""`python -m simulators fleet`: enrols the devices, starts their hosts, and shows how they are.

Exit codes: 0 ended with SIGINT or SIGTERM, 1 a host ended by itself or the broker did not start, 2 a mistake
in what was typed or with the keys.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from agent.config import STATE_LIMIT
from agent.enrolment import EnrolmentError
from agent.fleet.keyring import Keyring, KeyringError
from simulators.fleet.enrolling import bring_in, keys_in, receipt_key
from simulators.fleet.hardware import HARDWARE, MIX, Device, devices, shared
from simulators.fleet.host import Spec
from simulators.fleet.view import View
from simulators.stage import broker, end

EXIT_FAILED, EXIT_USAGE = 1, 2
PORT, TLS_PORT = 1883, 8883
FILES = 12
"""Descriptors that one agent holds: its database and log, roster, sockets, and some while it starts."""
PER_HOST = 250
"""Devices in one process; more than that share the processors all the same."""
ENDS_WITHIN_S = 60.0
"""Every agent ends in good order, and they share the processors."""
FOLDER_LIMIT = STATE_LIMIT - len("/locker-0001")
"""Bytes of the folder's path: each device keeps its state in one of its own."""


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if mistake := _mistake(given):
        parser.error(mistake)
    _allow_files(max(given.devices, min(given.devices, PER_HOST) * FILES))
    try:
        with _folder(given.folder) as folder:
            return asyncio.run(_run(given, folder))
    except (KeyringError, EnrolmentError, OSError, RuntimeError) as error:
        sys.stderr.write(f"simulators fleet: {error}\n")
        return EXIT_FAILED if isinstance(error, RuntimeError) else EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulators fleet",
        description="Many devices with the real agent's logic against one broker, to try operations on. What"
        " is plugged into their ports is made up, and so are their clocks.",
    )
    add = parser.add_argument
    add("--devices", type=int, default=20, metavar="N", help="how many (20)")
    add(
        "--keys",
        type=Path,
        metavar="DIR",
        help="the fleet's keys, made if need be; devices are enrolled there (keys in the folder)",
    )
    add("--folder", type=Path, metavar="DIR", help="keeps the devices; otherwise they are gone at the end")
    add("--host", help="a broker that runs already; without it one is started here")
    add("--port", type=int, help=f"of the broker ({PORT}; {TLS_PORT} with --ca)")
    add("--ca", type=Path, help="certificates that may vouch for the broker: TLS, with each its certificate")
    add("--hardware", type=_kinds, default=MIX, metavar="KIND,...", help=f"in turn: {', '.join(HARDWARE)}")
    add("--rate", type=float, default=2.0, help="scans a minute and device (2)")
    add("--skew", type=float, default=2.0, metavar="S", help="how far a device's clock is off at most (2)")
    add("--cold", type=float, default=0.0, metavar="SHARE", help="of devices with no clock when they start")
    add(
        "--processes", type=int, metavar="N", help=f"a processor's number, or one for each {PER_HOST} devices"
    )
    add("--tenant", default="demo", help="where keys have to be made (demo)")
    add("--second", type=float, default=1.0, help="what a second of a config's trial lasts (1)")
    add("--seed", type=int, default=1)
    add("--json", action="store_true", help="an object a second instead of a line for people")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := [each for each in found if each not in HARDWARE]:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(HARDWARE)}, got {unknown[0]!r}")
    return found


def _mistake(given: argparse.Namespace) -> str | None:
    if not 1 <= given.devices <= 9999:
        return f"--devices: expected 1 to 9999, got {given.devices}"
    if given.ca and not given.host:
        return "--ca: expected --host as well, got none"
    for name, most in (("rate", 6000.0), ("skew", 1e9), ("cold", 1.0)):
        if not 0 <= getattr(given, name) <= most:
            return f"--{name}: expected 0 to {most:g}, got {getattr(given, name):g}"
    if given.second <= 0 or (given.processes is not None and given.processes < 1):
        return "--second, --processes: expected more than 0"
    return None


def _allow_files(count: int) -> None:
    """As many descriptors as we may: hosts, and the broker that is started here, inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        told = f"a process may open {most} files here, and {count} may be needed"
        sys.stderr.write(f"simulators fleet: {told}\n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    """Where the devices live; a temporary one is gone at the end."""
    if named is None:
        with tempfile.TemporaryDirectory(prefix="fleet-") as made:
            yield Path(made)
        return
    if len(os.fsencode(named.resolve())) > FOLDER_LIMIT:
        raise OSError(f"--folder: expected a path of at most {FOLDER_LIMIT} bytes, got {named.resolve()}")
    named.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield named.resolve()


async def _run(given: argparse.Namespace, folder: Path) -> int:
    view = View(devices=given.devices, as_json=given.json)
    keyring = keys_in(given.keys or folder / "keys", given.tenant)
    async with _broker(given, folder, view) as (host, port):
        table = _broker_table(given, host, port)
        made = _enrolled(given, keyring, folder, table, view)
        view.said(**_facts(given, keyring, host, port, folder))
        return await _hosted(given, made, folder, view)


@contextlib.asynccontextmanager
async def _broker(given: argparse.Namespace, folder: Path, view: View) -> AsyncIterator[tuple[str, int]]:
    if given.host:
        yield given.host, given.port or (TLS_PORT if given.ca else PORT)
        return
    async with broker(folder, given.port or PORT) as (port, what):
        view.said(broker=what)
        yield "127.0.0.1", port


def _broker_table(given: argparse.Namespace, host: str, port: int) -> str:
    lines = [f'host = "{host}"', f"port = {port}", f"plain = {'false' if given.ca else 'true'}"]
    return "\n".join(lines)


def _enrolled(
    given: argparse.Namespace, keyring: Keyring, folder: Path, table: str, view: View
) -> list[Device]:
    """All devices, known to the fleet; and a config for each hardware, as it could be pushed."""
    made = devices(given.devices, given.hardware, folder)
    receipts = receipt_key(keyring.folder)
    for hardware in dict.fromkeys(given.hardware):
        (folder / f"{hardware}.toml").write_text(shared(hardware, table, receipts))
    ca = given.ca.read_text() if given.ca else None
    bring_in(keyring, made, table, receipts, ca, lambda done: view.progress("enrolled", done))
    return made


def _facts(
    given: argparse.Namespace, keyring: Keyring, host: str, port: int, folder: Path
) -> dict[str, object]:
    at = f"--host {host} --port {port} {f'--ca {given.ca}' if given.ca else '--plain'}"
    return {"devices": given.devices, "keys": keyring.folder, "folder": folder, "broker at": at}


async def _hosted(given: argparse.Namespace, made: Sequence[Device], folder: Path, view: View) -> int:
    """Until we are told to stop. The exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    count = given.processes or max(min(os.cpu_count() or 1, len(made)), math.ceil(len(made) / PER_HOST))
    hosts = [await _host(given, made[number::count], folder, number) for number in range(count)]
    reading = [asyncio.create_task(_read(view, number, host)) for number, host in enumerate(hosts)]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([*reading, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked = stopping.done()
        view.ended()
        await asyncio.gather(*(end(host, ENDS_WITHIN_S) for host in hosts))
        stopping.cancel()
        await asyncio.wait([*reading, stopping])
    if not asked:
        sys.stderr.write(f"simulators fleet: a host ended by itself; its last words are in {folder}/host-*\n")
    return 0 if asked else EXIT_FAILED


async def _host(
    given: argparse.Namespace, share: Sequence[Device], folder: Path, number: int
) -> asyncio.subprocess.Process:
    spec = Spec(
        devices=[(each.name, each.hardware, str(each.state)) for each in share],
        rate=given.rate,
        skew=given.skew,
        cold=given.cold,
        second=given.second,
        seed=given.seed,
    )
    path = folder / f"host-{number}.json"
    spec.write(path)
    # Standard input is the leash: it ends when we do, however we end. A session of its own, so that an
    # interrupt at the terminal is ours alone to pass on.
    with (folder / f"host-{number}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulators.fleet.host", str(path),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip


async def _read(view: View, number: int, host: asyncio.subprocess.Process) -> None:
    assert host.stdout is not None
    async for line in host.stdout:
        view.told(number, json.loads(line))
