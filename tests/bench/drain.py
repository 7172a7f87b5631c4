"""How fast a backlog leaves, with and without a long way to the broker.

Each contestant sends what is ready before it connects. The time taken is from its first message at the
broker to its last, plus one round trip: from the first byte sent to the last acknowledgement.
"""

import contextlib
import gzip
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import backlog, rig
from tests.bench.figures import Broken, Figure, Missing, Target
from tests.bench.sizes import Sizes
from tests.bench.wires import Ear, Heard
from tests.mosquitto import Mosquitto, free_port

ROUND_TRIPS_S = (0.0, 0.05)
WINDOW = 20
"""mosquitto's own Receive Maximum, which the agent respects."""
WITHIN = round(1 / 1.5, 2)
"""Half as slow again at most."""
FAR_SINGLES_S = 2.5
"""About so long does publishing one by one over the long way go on."""
SHORTEST_S = 1e-4
"""What arrives together cannot be told apart in time."""
FILLING = 100
"""Messages in flight while the bridge is given what it is to pass on."""


def drain(folder: Path, sizes: Sizes) -> Iterator[Figure | Missing]:
    """The agent, paho alone with the same batches, mosquitto's bridge and one by one: entries per second.

    What paho has to do is read the same entries from the same file, compress them and publish them; how fast
    it is with batches that were made before it began is told beside that, and no target: nobody who has a
    backlog on disk can send it without reading it.
    """
    full = folder / "full"
    full.mkdir()
    backlog.fill(full, sizes.backlog)
    for rtt in ROUND_TRIPS_S:
        scratch = folder / f"rtt-{rtt * 1000:g}"
        scratch.mkdir()
        yield from _drained(scratch, full, sizes, rtt)


def _drained(folder: Path, full: Path, sizes: Sizes, rtt: float) -> Iterator[Figure | Missing]:
    race = _Race(folder, rtt, sizes.quiet)
    ours, batches = race.agent(full, sizes.backlog)
    lines = [line for batch in batches for line in batch]
    packed = [gzip.compress(b"\n".join(batch), 1) for batch in batches]

    def beside(what: str, limit: float, target: Target | None = None) -> Figure:
        name = f"drain over {rtt * 1000:g} ms, beside {what}"
        return Figure(name=name, value=ours, unit="/s", beside=what, limit=limit, target=target)

    stored = race.publisher(len(lines), WINDOW, _copied(folder, full), str(max(map(len, batches))))
    yield beside("paho reading, packing", stored, Target(">=", WITHIN))
    yield beside("paho, ready batches", race.publisher(len(lines), WINDOW, _ready(folder, packed)))
    singly = _ready(folder, lines)
    yield beside("a bridge", race.bridge(len(lines), singly), Target(">=", 2))
    singles = sizes.singles if not rtt else max(2, min(sizes.singles, round(FAR_SINGLES_S / rtt)))
    yield beside("one by one", race.publisher(singles, 1, _ready(folder, lines[:singles])))
    if rtt:
        yield Figure(
            name="sent for each entry of a backlog, all told",
            value=race.carried() / len(lines),
            unit="B",
            beside="as stored",
            limit=sum(map(len, lines)) / len(lines),
        )


@dataclass(frozen=True, slots=True)
class _Race:
    """The same way to the same kind of broker for everyone. Results are entries per second."""

    folder: Path
    rtt: float
    quiet: float

    def agent(self, full: Path, entries: int) -> tuple[float, list[list[bytes]]]:
        """Its batches as well. On a copy, for its journal remembers what was sent."""
        shutil.copytree(full, self.folder, dirs_exist_ok=True)
        with self._wires() as (ear, port), rig.agent(self.folder, port):
            rate, heard = self._heard(ear, entries)
        return rate, [lines for each in heard if (lines := _entries(each))]

    def publisher(self, entries: int, window: int, *source: str) -> float:
        with self._wires() as (ear, port):
            argv = [sys.executable, "-m", "tests.bench.publisher", str(port), rig.BARE_TOPIC, str(window)]
            with rig.Program([*argv, *source], self.folder / "publisher.log"):
                return self._heard(ear, entries)[0]

    def bridge(self, entries: int, source: str) -> float:
        """A broker on the device passes on what it is given: filled first, then started with the way open."""
        with self._wires() as (ear, port):
            with _bridge(self.folder, free_port()) as filling:
                argv = [sys.executable, "-m", "tests.bench.publisher", str(filling.port), rig.BARE_TOPIC]
                subprocess.run([*argv, str(FILLING), source], cwd=rig.ROOT, check=True, timeout=120)
            with _bridge(self.folder, port):
                return self._heard(ear, entries)[0]

    def carried(self) -> int:
        """Bytes that the way took to the broker while the agent sent, all that MQTT adds among them."""
        return int(re.findall(r"carried (\d+) bytes", (self.folder / "relay.log").read_text())[0])

    @contextlib.contextmanager
    def _wires(self) -> Iterator[tuple[Ear, int]]:
        """An ear at a broker, and the port behind which that broker is so far away."""
        with rig.broker(self.folder) as server, rig.ear(server.port) as ear:
            if not self.rtt:
                yield ear, server.port
                return
            with rig.way(self.folder, server.port, rtt=self.rtt) as near:
                yield ear, near

    def _heard(self, ear: Ear, entries: int) -> tuple[float, list[Heard]]:
        """Entries per second once all have come, and the messages they came in."""
        heard = ear.until_quiet(first=20.0, quiet=self.quiet + 4 * self.rtt)
        found = [(each.at, _entries(each)) for each in heard]
        numbers = {json.loads(line)["sequence"] for _, lines in found for line in lines}
        if len(numbers) != entries:
            raise Broken(f"expected {entries} entries at the broker, got {len(numbers)}")
        last = max(at for at, lines in found if lines)
        return entries / max(SHORTEST_S, last - heard[0].at + self.rtt), heard


def _entries(heard: Heard) -> list[bytes]:
    """Those of the backlog: the agent has more to tell, that it was started and is connected."""
    return [line for line in heard.text().splitlines() if b'"postern.custody.seen"' in line]


def _ready(folder: Path, payloads: list[bytes]) -> str:
    path = folder / "payloads"
    path.write_bytes(pickle.dumps(payloads))
    return str(path)


def _copied(folder: Path, full: Path) -> str:
    path = folder / "lines.db"
    shutil.copyfile(full / "journal.db", path)
    return str(path)


def _bridge(folder: Path, port: int) -> Mosquitto:
    """Tuned: nothing is dropped, the store is saved every second, and everything may be in flight."""
    lines = [
        *rig.BROKER_LINES,
        "max_inflight_messages 0",
        "autosave_interval 1",
        "connection up",
        f"address 127.0.0.1:{port}",
        f"topic {rig.BARE_TOPIC} out 1",
        "remote_clientid bench-bridge",
        "local_clientid bench-bridge-local",
        "cleansession false",
        "notifications false",
        "try_private false",
        "bridge_attempt_unsubscribe false",
    ]
    return Mosquitto(folder, config_lines=lines, persistence=True)
