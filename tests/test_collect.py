"""The fleet's side: what counts as an entry, what is new, and what is acknowledged."""

import asyncio
import contextlib
import gzip
import json
import random
import signal
import sys
import zlib
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fleet.collect import UNPACKED_MOST, BadBatch, Collector, unpack
from agent.fleet.device_log import DeviceLog, Duplicate, Entry, New, Ranges, Rejected
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, join_child_watchers, running, server

ROOT = Path(__file__).parent.parent
DEVICE = "van-0042"


def line(number: int, epoch: str = "e1", /, **changes: Any) -> bytes:
    entry: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{epoch}-{number}",
        "source": f"/postern/test/{DEVICE}",
        "type": "postern.custody.seen",
        "subject": "parcel",
        "time": "2026-11-24T08:15:30.123456Z",
        "sequence": str(number),
        "data": {},
    }
    entry.update(changes)
    return json.dumps({name: value for name, value in entry.items() if value is not None}).encode()


# -- one device -----------------------------------------------------------------------------------


def test_an_entry_is_new_once() -> None:
    log = DeviceLog(DEVICE)
    assert isinstance(log.take(line(1)), New)
    assert isinstance(log.take(line(1)), Duplicate)
    assert (log.entries, log.duplicates) == (1, 1)


def test_the_same_sequence_of_another_journal_is_another_entry() -> None:
    log = DeviceLog(DEVICE)
    assert isinstance(log.take(line(1, "e1")), New)
    assert isinstance(log.take(line(1, "e2")), New)
    assert list(log.epochs) == ["e1", "e2"]


def test_what_is_missing_is_known_until_it_comes() -> None:
    log = DeviceLog(DEVICE)
    for sequence in (7, 8, 12, 10):
        log.take(line(sequence))
    assert log.gaps == [("e1", 9, 9), ("e1", 11, 11)]
    assert log.summary()["missing"] == 2
    for sequence in (9, 11):
        log.take(line(sequence))
    assert log.gaps == []
    assert log.highest == 12


def test_entries_are_counted_by_type() -> None:
    log = DeviceLog(DEVICE)
    for sequence, kind in enumerate(["seen", "handed_over", "seen"], 1):
        log.take(line(sequence, type=f"postern.custody.{kind}"))
    assert log.summary()["types"] == {"postern.custody.handed_over": 1, "postern.custody.seen": 2}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "expected one JSON object on one line"),
        (b"[" * 100_000, "expected one JSON object on one line"),
        (b"\xff", "expected one JSON object on one line"),
        (b"[1]", "expected a JSON object, got list"),
        (line(1, specversion="0.3"), "expected CloudEvents 1.0, got specversion '0.3'"),
        (line(1, id=None), "id: expected text, got None"),
        (line(1, type=""), "type: expected text, got ''"),
        (line(1, time=7), "time: expected text, got 7"),
        (line(1, data=None), "data: expected an object, got NoneType"),
        (line(1, source="/postern/test/van-0043"), "source: expected one of van-0042"),
        (line(1, sequence="2"), "id: expected one ending in -2, got 'e1-1'"),
        (line(1, id="1"), "id: expected one ending in -1, got '1'"),
        (line(1, id="e1-01", sequence="01"), "sequence: expected a decimal number from 1, got '01'"),
        (line(1, id="e1-0", sequence="0"), "sequence: expected a decimal number from 1, got '0'"),
        (line(1, id="e1-٣", sequence="٣"), "sequence: expected a decimal number from 1, got '٣'"),
        (line(1, id="e1-x", sequence="x"), "sequence: expected a decimal number from 1, got 'x'"),
    ],
)
def test_a_line_that_is_no_entry_of_this_device_is_rejected(bad: bytes, reason: str) -> None:
    log = DeviceLog(DEVICE)
    taken = log.take(bad)
    assert isinstance(taken, Rejected)
    assert taken.reason.startswith(reason)
    assert (log.entries, log.rejected) == (0, 1)


@given(st.lists(st.integers(1, 40)))
def test_ranges_are_a_set_of_numbers(numbers: list[int]) -> None:
    ranges, held = Ranges(), set[int]()
    for number in numbers:
        assert ranges.add(number) is (number not in held)
        held.add(number)
    missing = [number for first, last in ranges.gaps for number in range(first, last + 1)]
    assert ranges.highest == max(held, default=0)
    assert missing == [
        number for number in range(min(held, default=0), max(held, default=0)) if number not in held
    ]


# -- batches --------------------------------------------------------------------------------------


def test_a_batch_is_one_entry_a_line() -> None:
    assert unpack(b"a\nb\n\nc\n", None) == [b"a", b"b", b"c"]
    assert unpack(gzip.compress(b"a\nb"), "gzip") == [b"a", b"b"]


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(b"a" * 1000, mtime=0)[:-9], "gzip"),
        (gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0), "gzip"),
        (gzip.compress(bytes(UNPACKED_MOST + 1), mtime=0), "gzip"),
        (zlib.compress(b"a"), "gzip"),
        (b"a", "br"),
    ],
)
def test_a_payload_that_is_no_batch_is_told_as_such(payload: bytes, encoding: str) -> None:
    with pytest.raises(BadBatch):
        unpack(payload, encoding)


@given(st.binary(max_size=200))
def test_no_payload_is_a_surprise(payload: bytes) -> None:
    with contextlib.suppress(BadBatch):
        unpack(payload, "gzip")


# -- with a broker --------------------------------------------------------------------------------


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path, persistence=True) as made:
        yield made


class Store:
    """Where a collector's entries go."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.news = News()
        self.refuses: set[str] = set()

    def keep(self, entry: Entry) -> None:
        if entry["id"] in self.refuses:
            raise OSError(28, "no space left")
        self.ids.append(entry["id"])
        self.news.look()

    async def has(self, *sequences: int) -> None:
        wanted = {f"e1-{sequence}" for sequence in sequences}
        await self.news.until(lambda: wanted <= set(self.ids))
        assert len(self.ids) == len(set(self.ids))


def collector_at(port: int, store: Store, client_id: str = "fleet", **options: Any) -> Collector:
    kept = server(port, client_id, session_expiry=300)
    return Collector(kept, store.keep, on_state=store.news.look, **options)


async def publish(port: int, *batches: Iterable[int], device: str = DEVICE) -> None:
    async with connected(port, "a-device") as connection:
        for batch in batches:
            payload = b"\n".join(line(sequence, source=f"/postern/test/{device}") for sequence in batch)
            await connection.publish(
                f"postern/v1/{device}/up/entries",
                gzip.compress(payload),
                properties=[("content-encoding", "gzip")],
            )


async def test_entries_are_taken_once_and_counted(broker: AnyBroker) -> None:
    store = Store()
    collector = collector_at(broker.port, store)
    async with running(collector.run()):
        await collector.online.wait()
        await publish(broker.port, range(1, 200), range(150, 300), range(301, 310))
        await store.has(*range(1, 300), *range(301, 310))
    summary = collector.devices[DEVICE].summary()
    assert (summary["entries"], summary["duplicates"], summary["missing"]) == (308, 50, 1)


async def test_what_could_not_be_kept_is_brought_again(broker: AnyBroker) -> None:
    store = Store()
    store.refuses = {"e1-3"}
    collector = collector_at(broker.port, store)
    task = asyncio.create_task(collector.run())
    await collector.online.wait()
    await publish(broker.port, [1], [2, 3], [4])
    with pytest.raises(OSError, match="no space left"):
        await task
    assert store.ids == ["e1-1", "e1-2"]
    store.refuses.clear()
    later = Store()
    async with running(collector_at(broker.port, later).run()):
        await later.has(2, 3, 4)


async def test_a_queue_that_the_broker_brings_all_at_once_is_taken_whole(broker: AnyBroker) -> None:
    """As mosquitto 2.0.11 does with what a session has queued, whatever was agreed."""
    async with connected(broker.port, "fleet", session_expiry=300) as before:
        await before.subscribe("postern/v1/+/up/#")
    await publish(broker.port, *([sequence] for sequence in range(1, 1001)))
    store = Store()
    async with running(collector_at(broker.port, store).run()):
        await store.has(*range(1, 1001))


async def test_a_collector_outlives_its_broker(broker: AnyBroker) -> None:
    store = Store()
    collector = collector_at(broker.port, store)
    async with running(collector.run()):
        await collector.online.wait()
        await publish(broker.port, [1])
        await store.has(1)
        await broker.stop()
        await broker.start()
        await publish(broker.port, [2])
        await store.has(1, 2)


async def test_birth_and_will_are_the_last_state(broker: AnyBroker) -> None:
    store = Store()
    collector = collector_at(broker.port, store)
    async with connected(broker.port, "a-device") as device:
        topic = f"postern/v1/{DEVICE}/up/state"
        await device.publish(topic, b'{"online":true,"version":"1"}', retain=True)
        async with running(collector.run()):
            await store.news.until(lambda: DEVICE in collector.devices and collector.devices[DEVICE].online)
            await device.publish(topic, b'{"online":false}', retain=True)
            await store.news.until(lambda: not collector.devices[DEVICE].online)


async def test_one_device_can_be_picked(broker: AnyBroker) -> None:
    store = Store()
    collector = collector_at(broker.port, store, device="van-0001")
    async with running(collector.run()):
        await collector.online.wait()
        await publish(broker.port, [1], device="van-0002")
        await publish(broker.port, [2], device="van-0001")
        await store.has(2)
    assert list(collector.devices) == ["van-0001"]


async def test_collectors_that_share_divide_the_messages(broker: AnyBroker) -> None:
    stores = [Store(), Store()]
    collectors = [
        collector_at(broker.port, store, f"fleet-{number}", share="fleet")
        for number, store in enumerate(stores)
    ]
    stores[1].news = stores[0].news
    async with running(collectors[0].run()), running(collectors[1].run()):
        for collector in collectors:
            await collector.online.wait()
        await publish(broker.port, *([sequence] for sequence in range(1, 101)))
        await stores[0].news.until(lambda: len(stores[0].ids) + len(stores[1].ids) == 100)
    assert not set(stores[0].ids) & set(stores[1].ids)
    assert all(store.ids for store in stores)


async def test_nonsense_is_counted_and_does_not_come_again(broker: AnyBroker) -> None:
    store, rng = Store(), random.Random(1)
    collector = collector_at(broker.port, store)
    up = f"postern/v1/{DEVICE}/up"
    async with running(collector.run()):
        await collector.online.wait()
        async with connected(broker.port, "a-device") as device:
            await device.publish(
                f"{up}/entries", rng.randbytes(500), properties=[("content-encoding", "gzip")]
            )
            await device.publish(f"{up}/entries", b"nonsense\n" + line(1))
            await device.publish(f"{up}/entries", b"")
            await device.publish(f"{up}/state", b"nonsense")
            await device.publish(f"{up}/state", b"[]")
            await device.publish(f"{up}/checkpoint", b"note")
            await device.publish(f"{up}/of/something", b"x")
            await device.publish("postern/v1/NOT A DEVICE/up/entries", line(1))
        await publish(broker.port, [2])
        await store.has(1, 2)
    log = collector.devices[DEVICE]
    assert (log.rejected, log.others, collector.rejected) == (4, 1, 2)
    async with connected(broker.port, "fleet", session_expiry=300) as left:
        await left.publish("elsewhere", b"")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await left.receive()


# -- the command ----------------------------------------------------------------------------------

COMMAND = """
import argparse, sys
from agent import logs
from agent.fleet.command import add_commands
logs.configure("critical")
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers(required=True))
given = parser.parse_args()
sys.exit(given.run(given))
"""


@contextlib.asynccontextmanager
async def collecting(*arguments: str, action: str = "collect") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "fleet", action, *arguments, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        join_child_watchers()


@pytest.mark.parametrize("as_json", [False, True])
async def test_entries_are_printed_until_interrupted(broker: AnyBroker, as_json: bool) -> None:
    async with connected(broker.port, "a-device") as device:
        await device.publish(f"postern/v1/{DEVICE}/up/state", b'{"online":true}', retain=True)
        arguments = ["--host", "127.0.0.1", "--port", str(broker.port), "--plain", "--keep", "60"]
        async with collecting(*arguments, *(["--json"] if as_json else [])) as process:
            assert process.stdout is not None
            if not as_json:
                assert await process.stdout.readline() == b"van-0042: online\n"
            # Its subscription may be a moment away: it is published until somebody has subscribed.
            payload = line(1, subject="par\x1b[2Jcel")
            while await device.publish(f"postern/v1/{DEVICE}/up/entries", payload) == 0x10:
                pass
            printed = (await process.stdout.readline()).decode()
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
            assert process.returncode == 0
    if as_json:
        assert json.loads(printed)["id"] == "e1-1"
        assert json.loads(said)["entries"] == 1
    else:
        assert printed == "2026-11-24T08:15:30.123456Z  van-0042      1  custody.seen  par?[2Jcel\n"
        assert said.decode().startswith("van-0042: 1 entries up to 1, 0 missing, 0 duplicates")


async def test_a_file_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path) -> None:
    arguments = ["--host", "127.0.0.1", "--password-file", str(tmp_path / "none")]
    async with collecting(*arguments) as process:
        _, said = await process.communicate()
        assert process.returncode == 2
        assert said.startswith(b"postern fleet collect: ")
