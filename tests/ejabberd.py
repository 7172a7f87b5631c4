"""A real ejabberd of two nodes on this host, for a test: Debian's package, unpacked, on loopback alone.

    with Cluster(tmp_path, write) as cluster:  # `write(folder, port)` leaves ejabberd.yml, and what it names
        connect(cluster.a.port)
        cluster.a.kill()
        cluster.a.start()

Nodes find each other through a port mapper of their own, and know each other by a cookie made for the test.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.debian import NotUnpacked, libraries, unpacked
from tests.mosquitto import free_port, listens
from tests.site import DIES_WITH_US

STARTED_WITHIN = 60.0
DONE_WITHIN = 40.0
TRIES = 4
LOOPBACK = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]


class ClusterFailed(Exception):
    """A node did not do as asked; the message holds its log."""


def require_ejabberd() -> Path:
    """The folder it is unpacked in. Skip the test that asks where it cannot be had; in CI, fail it."""
    try:
        return unpacked("ejabberd")
    except (NotUnpacked, OSError) as error:
        why = f"no ejabberd: Debian's package could not be unpacked into .tools: {error}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Erlang:
    """How a program of the unpacked package is run."""

    def __init__(self, root: Path, cookie: str, mapper_port: int) -> None:
        self.mapper_port = mapper_port
        self._cookie = cookie
        (self._home,) = root.glob("usr/lib/erlang")
        (self._binaries,) = self._home.glob("erts-*/bin")
        modules = next(root.glob("usr/lib/*/ejabberd-*/ebin"))
        self._environ = {
            "ROOTDIR": str(self._home),
            "BINDIR": str(self._binaries),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_LIBS": str(modules.parent.parent),
            "LD_LIBRARY_PATH": libraries(root),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": "/dev/null",
            "PATH": os.environ.get("PATH", os.defpath),
        }

    def mapper(self) -> list[str]:
        return [str(self._binaries / "epmd"), "-port", str(self.mapper_port), "-address", "127.0.0.1"]

    def command(self, name: str, *arguments: str) -> list[str]:
        program = str(self._binaries / "erlexec")
        return [program, "-sname", f"{name}@localhost", *LOOPBACK, "-noinput", *arguments]

    def environ(self, folder: Path) -> dict[str, str]:
        """Of a program whose home is this folder: the cookie lies there, and on no command line."""
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
        config = {"EJABBERD_CONFIG_PATH": f"{folder}/ejabberd.yml", "CONFIG_DIR": str(folder)}
        return {**self._environ, **config, "HOME": str(folder), "EJABBERD_LOG_PATH": f"{folder}/ejabberd.log"}


class Node:
    """One node, for as many lives as a test needs."""

    host = "127.0.0.1"

    def __init__(self, name: str, folder: Path, erlang: Erlang) -> None:
        self.name, self.folder, self.port = name, folder, free_port()
        self._erlang = erlang
        self._process: subprocess.Popen[bytes] | None = None
        self._said = folder / "said.log"

    def start(self) -> None:
        """Return once it listens."""
        arguments = ["-mnesia", "dir", f'"{self.folder}/spool"', "-s", "ejabberd"]
        command = [*DIES_WITH_US, *self._erlang.command(self.name, *arguments)]
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                command,
                env=self._erlang.environ(self.folder),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        process = self._process
        _until(lambda: listens(process.pid, self.port), process, self._said)

    @property
    def alive(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """SIGKILL: nothing more is said or written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def do(self, *words: str) -> str:
        """As `ejabberdctl` does it."""
        name = f"ctl-{secrets.token_hex(4)}"
        arguments = [
            "-hidden",
            "-s",
            "ejabberd_ctl",
            "-extra",
            f"{self.name}@localhost",
            "--no-timeout",
            *words,
        ]
        try:
            done = subprocess.run(
                self._erlang.command(name, *arguments),
                env=self._erlang.environ(self.folder),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DONE_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterFailed(f"{words} took longer than {DONE_WITHIN:g} s") from late
        if done.returncode:
            raise ClusterFailed(f"{words} failed with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


class Cluster:
    """Two nodes that are one broker."""

    def __init__(self, folder: Path, write: Callable[[Path, int], None]) -> None:
        """`write` leaves a node's config in its folder; it is told the port to listen on."""
        root = require_ejabberd()
        self._erlang = Erlang(root, secrets.token_hex(16), free_port())
        self._mapper: subprocess.Popen[bytes] | None = None
        self._said = folder / "mapper.log"
        self._tries = TRIES
        self.a, self.b = (Node(name, folder / name, self._erlang) for name in ("a", "b"))
        for node in self.nodes:
            node.folder.mkdir()
            write(node.folder, node.port)

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b

    def __enter__(self) -> Self:
        try:
            with self._said.open("ab") as said:
                self._mapper = subprocess.Popen(
                    [*DIES_WITH_US, *self._erlang.mapper()],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            mapper, port = self._mapper, self._erlang.mapper_port
            _until(lambda: listens(mapper.pid, port), mapper, self._said)
            while not self._joined():
                self._anew()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _joined(self) -> bool:
        """Start both, and have one join the other: now and then the one that joins hangs over it."""
        for node in self.nodes:
            node.start()
        try:
            self.b.do("join_cluster", "a@localhost")
        except ClusterFailed:
            return False
        # It has started anew within its process: as a program it does so in a known way.
        self.b.kill()
        self.b.start()
        return all(len(node.do("list_cluster").split()) == len(self.nodes) for node in self.nodes)

    def _anew(self) -> None:
        self._tries -= 1
        if not self._tries:
            raise ClusterFailed("the nodes did not become one cluster")
        for node in self.nodes:
            node.kill()
            shutil.rmtree(node.folder / "spool")

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


def _until(claim: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while not claim():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClusterFailed(said.read_text(errors="replace")[-4000:])
        time.sleep(0.02)
