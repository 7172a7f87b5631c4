"""Journal, uplink, broker, collector and store together: what the device is told is what the fleet has."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.fleet.claim_book import Account
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.fleet.device_log import Entry
from agent.fleet.findings import Finding, Kind
from agent.fleet.store import Store
from agent.journal import Journal
from agent.ledger import TILE
from agent.note import VerifierKey
from agent.retention import losses
from agent.workflow import Draft, Lane
from tests.brokers import (
    BROKERS,
    AnyBroker,
    News,
    broker_of,
    connected,
    join_child_watchers,
    running,
    server,
)
from tests.test_collect import COMMAND, DEVICE, ROOT, collecting, line
from tests.test_receipts import AT, FLEET, SECRET, van_at


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path, persistence=True) as made:
        yield made


class Killed(Exception):
    """As SIGKILL would, between two statements."""


class Fleet:
    """A collector that keeps books, and what it tells."""

    def __init__(self, port: int, clerk: Clerk, client_id: str, share: str | None) -> None:
        self.entries: list[str] = []
        self.findings: list[Finding] = []
        self.news = News()
        self.dies_at: int | None = None
        """After this many entries told: they are committed then, and not yet acknowledged."""
        kept = server(port, client_id, session_expiry=300)
        self.collector = Collector(kept, self._entry, share=share, clerk=clerk, on_finding=self._finding)

    def _entry(self, entry: Entry) -> None:
        self.entries.append(entry["id"])
        self.news.look()
        if len(self.entries) == self.dies_at:
            raise Killed

    def _finding(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.news.look()


@contextlib.asynccontextmanager
async def fleet_at(
    port: int, folder: Path, client_id: str = "fleet", share: str | None = None
) -> AsyncIterator[Fleet]:
    async with Clerk(folder / "fleet.db", FLEET) as clerk:
        fleet = Fleet(port, clerk, client_id, share)
        async with running(fleet.collector.run()):
            await fleet.collector.online.wait()
            yield fleet


def stored(folder: Path) -> list[bytes]:
    """The lines that the fleet has, in order."""
    with contextlib.closing(sqlite3.connect(folder / "fleet.db")) as connection:
        return [row for (row,) in connection.execute("SELECT line FROM entry ORDER BY ledger, sequence")]


async def test_a_device_learns_how_much_the_fleet_has(broker: AnyBroker, tmp_path: Path) -> None:
    async with fleet_at(broker.port, tmp_path) as fleet, van_at(broker.port, tmp_path) as van:
        for _ in range(2):
            await van.scan(100)
            await van.news.until(lambda: van.size == van.journal.last)
        lines = [each.line for each in await van.journal.read(0, entries=300, size=10**6)]
    assert stored(tmp_path) == lines
    assert not fleet.findings
    assert not van.refusals()


async def test_a_device_that_was_away_is_answered_at_its_birth(broker: AnyBroker, tmp_path: Path) -> None:
    async with van_at(broker.port, tmp_path) as van:
        async with connected(broker.port, "fleet", session_expiry=300) as before:
            await before.subscribe("postern/v1/+/up/#")
        await van.scan(100)
        await van.news.until(lambda: van.uplink.backlog == 0)
    async with fleet_at(broker.port, tmp_path) as fleet:
        await fleet.news.until(lambda: len(fleet.entries) == 100)
        async with van_at(broker.port, tmp_path) as again:
            await again.news.until(lambda: again.size == 100)


async def test_a_collector_that_dies_between_commit_and_acknowledgement_loses_and_doubles_nothing(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with van_at(broker.port, tmp_path) as van:
        with contextlib.suppress(Killed):
            async with fleet_at(broker.port, tmp_path) as fleet:
                fleet.dies_at = 10
                for _ in range(5):
                    await van.scan(50)
                await fleet.news.until(lambda: len(fleet.entries) == 10)
        assert len(fleet.entries) == 10
        async with fleet_at(broker.port, tmp_path) as again:
            await van.news.until(lambda: van.size == 250)
            assert not again.findings
        assert len(stored(tmp_path)) == 250


async def test_a_backlog_that_was_thinned_is_cosigned_over_its_holes(
    broker: AnyBroker, tmp_path: Path
) -> None:
    """Two tiles of positions went unsent; their hashes came with the declaration."""
    journal = Journal(tmp_path / "journal.db", source="/postern/test/van-0042", key=SECRET)
    await journal.open()
    position = Draft("position.tracked", DEVICE, {}, Lane.TELEMETRY)
    for _ in range(10):
        await journal.append([position] * 70 + [Draft("custody.seen", "parcel")], AT, {"position": None})
    for number in (0, 1):
        doomed = await journal.sequences(number, Lane.TELEMETRY)
        leaves = await journal.leaves(number)
        lost = {each: leaves[(each - 1) % TILE] for each in doomed}
        drafts = losses(Lane.TELEMETRY, lost, DEVICE)
        await journal.declare_lost(number, doomed, drafts, AT, {"position": None})
    size = journal.last
    await journal.close()
    async with fleet_at(broker.port, tmp_path) as fleet, van_at(broker.port, tmp_path) as van:
        await van.news.until(lambda: van.size == size == 712)
        assert not fleet.findings
    with contextlib.closing(Store(tmp_path / "fleet.db")) as books:
        (ledger,) = books.ledgers(DEVICE)
        assert books.claims.accounts(ledger.id, size) == [
            Account(lane="custody", delivered=10),
            Account(lane="state", delivered=2),
            Account(lane="telemetry", delivered=195, declared=505),
        ]


async def test_two_collectors_of_one_share_keep_one_file(broker: AnyBroker, tmp_path: Path) -> None:
    async with (
        fleet_at(broker.port, tmp_path, "fleet-1", "fleet") as one,
        fleet_at(broker.port, tmp_path, "fleet-2", "fleet") as two,
        van_at(broker.port, tmp_path) as van,
    ):
        for turn in range(20):
            await van.scan(20)
            if turn % 3 == 0:
                # The broker deals in turn: let neither get all entries and the other all checkpoints.
                van.uplink.announce()
            await van.news.until(lambda: van.uplink.backlog == 0)
        await van.news.until(lambda: van.size == 400)
        assert one.entries
        assert two.entries
        assert len({*one.entries, *two.entries}) == len(one.entries) + len(two.entries) == 400
        assert not {each.kind for each in one.findings + two.findings} - {Kind.GAP}


async def test_a_device_put_back_to_yesterday_s_copy_is_told_of(broker: AnyBroker, tmp_path: Path) -> None:
    now, yesterday = tmp_path / "journal.db", tmp_path / "yesterday.db"
    async with fleet_at(broker.port, tmp_path) as fleet:
        async with van_at(broker.port, tmp_path) as van:
            await van.scan(100)
            await van.news.until(lambda: van.size == 100)
        shutil.copy(now, yesterday)
        async with van_at(broker.port, tmp_path) as van:
            await van.scan(100)
            await van.news.until(lambda: van.size == 200)
        for left in tmp_path.glob("journal.db*"):
            left.unlink()
        shutil.copy(yesterday, now)
        async with van_at(broker.port, tmp_path) as van:
            await van.news.until(lambda: van.refusals() == ["not_signed_here"])
            await van.scan(3, subject="another")
            await fleet.news.until(lambda: Kind.ROLLBACK in {each.kind for each in fleet.findings})
            assert van.size == 100
    assert {each.kind for each in fleet.findings} == {Kind.CONTRADICTION, Kind.ROLLBACK}


# -- the command ----------------------------------------------------------------------------------


async def subscribe_before(port: int) -> None:
    """Have the broker keep messages for the command that is not running yet."""
    async with connected(port, "postern-collect", session_expiry=60) as before:
        await before.subscribe("postern/v1/+/up/#")


async def test_the_command_gives_receipts_tells_of_forks_and_ends_with_3(
    broker: AnyBroker, tmp_path: Path
) -> None:
    arguments = ["--host", "127.0.0.1", "--port", str(broker.port), "--plain", "--keep", "60", "--json"]
    arguments += ["--store", str(tmp_path / "fleet.db"), "--key-file", str(tmp_path / "keys" / "fleet")]
    await subscribe_before(broker.port)
    async with collecting(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stderr.readline() == b"[fleet]\n"
        shown = (await process.stderr.readline()).decode().removeprefix("keys = ")
        fleet = VerifierKey.parse(json.loads(shown)[0])
        assert fleet.name == "fleet-main"
        async with van_at(broker.port, tmp_path, [fleet]) as van:
            note = await van.scan(10)
            await van.news.until(lambda: van.size == 10)
            other = van.fork(note)
            async with connected(broker.port, "someone") as someone:
                await someone.publish(f"postern/v1/{DEVICE}/up/checkpoint", other)
        told = b""
        while b'"finding"' not in told:
            told = await process.stdout.readline()
        assert json.loads(told)["finding"] == "FORK"
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 3


async def test_a_command_killed_at_any_moment_loses_and_doubles_nothing(
    broker: AnyBroker, tmp_path: Path
) -> None:
    arguments = ["--host", "127.0.0.1", "--port", str(broker.port), "--plain", "--keep", "60", "--json"]
    arguments += ["--store", str(tmp_path / "fleet.db")]
    await subscribe_before(broker.port)
    topic = f"postern/v1/{DEVICE}/up/entries"
    told = [0]
    async with connected(broker.port, "a-device") as device:
        for first in (1, 71, 141, 211):
            async with collecting(*arguments) as process:
                assert process.stdout is not None
                for sequence in range(first, first + 70):
                    await device.publish(topic, line(sequence))
                # The last life hears of all; the others end after the first of their own.
                while told[-1] < (280 if first == 211 else first):
                    told.append(int(json.loads(await process.stdout.readline())["sequence"]))
    # What was stored when it was killed may not have been told of; it is there all the same.
    assert len(told) == len(set(told))
    assert stored(tmp_path) == [line(sequence) for sequence in range(1, 281)]


async def test_a_key_without_a_store_is_a_mistake_of_usage(tmp_path: Path) -> None:
    async with collecting("--host", "127.0.0.1", "--plain", "--key-file", str(tmp_path / "key")) as process:
        _, said = await process.communicate()
        assert process.returncode == 2
        assert b"expected --store as well" in said


class Pair:
    """Two commands of one share that keep one file. Each keeps a session of its own at the broker: what was
    dealt to one that is away waits for it there."""

    def __init__(self, port: int, folder: Path) -> None:
        self.told: dict[int, list[str]] = {1: [], 2: []}
        """Ids that each has told of, in all its lives."""
        self.news = News()
        self._port, self._folder = port, folder
        self._lives: list[tuple[Process, asyncio.Task[None]]] = []

    async def start(self, number: int) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, "fleet", "collect", "--host", "127.0.0.1", "--port",
            str(self._port), "--plain", "--json", "--keep", "300", "--share", "g", "--client-id",
            f"fleet-{number}", "--store", str(self._folder / "fleet.db"), stdout=PIPE, stderr=PIPE, cwd=ROOT,
        )  # fmt: skip
        self._lives.append((process, asyncio.create_task(self._listen(number, process))))
        return process

    async def _listen(self, number: int, process: Process) -> None:
        assert process.stdout is not None
        async for row in process.stdout:
            self.told[number].append(json.loads(row)["id"])
            self.news.look()

    async def close(self) -> None:
        for process, listening in self._lives:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await listening
            await process.communicate()
        join_child_watchers()


@pytest.mark.broker
@pytest.mark.timeout(150)
async def test_two_commands_of_one_share_lose_and_double_nothing_when_one_is_killed(tmp_path: Path) -> None:
    async with broker_of("mosquitto", tmp_path, persistence=True) as broker:
        for number in (1, 2):
            async with connected(broker.port, f"fleet-{number}", session_expiry=300) as before:
                await before.subscribe("$share/g/postern/v1/+/up/#")
        pair, topic = Pair(broker.port, tmp_path), f"postern/v1/{DEVICE}/up/entries"
        try:
            first, _ = await pair.start(1), await pair.start(2)
            async with connected(broker.port, "a-device") as device:
                for sequence in range(1, 201):
                    await device.publish(topic, line(sequence))
                await pair.news.until(lambda: all(len(told) > 20 for told in pair.told.values()), 60)
                first.kill()
                for sequence in range(201, 401):
                    await device.publish(topic, line(sequence))
                await pair.start(1)
                await pair.news.until(lambda: len(stored(tmp_path)) == 400, 60)
        finally:
            await pair.close()
    assert stored(tmp_path) == [line(sequence) for sequence in range(1, 401)]
    # What was stored when it was killed may not have been told of; nothing was told of twice.
    everything = [*pair.told[1], *pair.told[2]]
    assert len(everything) == len(set(everything))
