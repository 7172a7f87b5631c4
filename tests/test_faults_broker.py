"""What a broker does in a year: dies between publish and acknowledgement, forgets, refuses, goes silent.

What mosquitto cannot play, the small broker does; there its tap is the truth, which sees each publish
before anything is acknowledged. `POSTERN_LONG=1 pytest tests/test_faults_broker.py` goes on for longer.
"""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from simulators.broker import Broker
from simulators.mqtt5 import Publish
from tests.broker_peer import Peers
from tests.rig import DEVICE, Rig, label_of, labels, scanning
from tests.site import LONG, Entry, running

TOPIC = f"postern/v1/{DEVICE}/up/entries"
DEATHS = 4
"""Of one broker: with each that follows soon the agent waits longer before it tries again."""
TURNS = range(5 if LONG else 1)


class Tap:
    """Every entry that was published, each time that it was."""

    def __init__(self, broker: Broker) -> None:
        self.entries: list[Entry] = []
        self.lines: dict[str, set[bytes]] = {}
        """By id: more than one line would be two truths under one name."""
        broker.tap = self._take

    def _take(self, message: Publish) -> None:
        if message.topic != TOPIC:
            return
        packed = message.payload.startswith(b"\x1f\x8b")
        for line in (gzip.decompress(message.payload) if packed else message.payload).split(b"\n"):
            entry = json.loads(line)
            self.entries.append(entry)
            self.lines.setdefault(entry["id"], set()).add(line)

    @property
    def scanned(self) -> list[str]:
        """Labels in the order in which each was first published."""
        first = {entry["id"]: entry for entry in reversed(self.entries)}.values()
        wanted = [entry for entry in first if entry["type"] == "postern.custody.seen"]
        return [label_of(entry) for entry in sorted(wanted, key=lambda entry: int(entry["sequence"]))]

    @property
    def whole(self) -> bool:
        """Whether no sequence is missing: of a backlog custody leaves first, and the rest after it."""
        sequences = sorted(int(entry_id.rpartition("-")[2]) for entry_id in self.lines)
        return sequences == list(range(1, len(sequences) + 1))

    def told_one_truth(self) -> None:
        """Fails if one id stood for two things."""
        assert all(len(lines) == 1 for lines in self.lines.values())


async def brought(rig: Rig, tap: Tap, broker: Broker, wanted: list[str]) -> None:
    await broker.until(lambda: len(set(tap.scanned)) >= len(wanted) and tap.whole)
    assert tap.scanned == wanted == rig.promised
    tap.told_one_truth()


async def arrived(rig: Rig, scans: int) -> None:
    await rig.until(lambda: len(rig.taken()) >= scans, f"{scans} scans at the fleet")


async def connected(rig: Rig, times: int) -> None:
    await rig.until(lambda: len(rig.logged("connected")) >= times, f"connection {times}")


async def test_a_broker_that_dies_before_it_acknowledges_gets_the_same_again(tmp_path: Path) -> None:
    async with Broker() as broker, Rig(tmp_path, broker=broker) as rig:
        tap = Tap(broker)
        broker.forget_between_publish_and_puback = 3
        await rig.start()
        wanted = labels("twice", 100)
        for label in wanted:
            await rig.scan_and_hear(label)
        await brought(rig, tap, broker, wanted)
        assert not broker.forget_between_publish_and_puback


async def test_a_broker_that_never_acknowledges_is_asked_again_after_it_is_back(tmp_path: Path) -> None:
    async with Broker() as broker, Rig(tmp_path, broker=broker) as rig:
        tap = Tap(broker)
        broker.withhold_puback = True
        await rig.start()
        wanted = labels("withheld", 100)
        await rig.scan_all(wanted)
        await broker.until(lambda: len(set(tap.scanned)) == len(wanted))
        broker.withhold_puback = False
        broker.forget_sessions()
        again = len(tap.entries) + len(wanted)
        await broker.until(lambda: len(tap.entries) >= again)
        await brought(rig, tap, broker, wanted)


@pytest.mark.parametrize("reason", [0x80, 0x83, 0x97], ids=["unspecified", "implementation", "quota"])
async def test_a_broker_that_refuses_for_a_while_gets_everything_later(reason: int, tmp_path: Path) -> None:
    async with Broker() as broker, Rig(tmp_path, broker=broker) as rig:
        tap = Tap(broker)
        broker.puback_reason = reason
        broker.puback_reason_for = lambda message: message.topic == TOPIC
        await rig.start()
        wanted = labels("refused", 20)
        await rig.scan_all(wanted)
        await broker.until(lambda: broker.refused[TOPIC] >= 2)
        broker.puback_reason = 0
        await brought(rig, tap, broker, wanted)


async def test_a_broker_that_lets_nobody_in_is_waited_out(tmp_path: Path) -> None:
    async with Broker() as broker, Rig(tmp_path, broker=broker) as rig:
        tap = Tap(broker)
        broker.refuse_connect = 0x88
        await rig.start()
        wanted = labels("outside", 100)
        await rig.scan_all(wanted)
        await rig.until(lambda: len(rig.logged("not connected")) >= 2, "two tries")
        assert tap.entries == []
        broker.refuse_connect = None
        await brought(rig, tap, broker, wanted)


@pytest.mark.broker
@pytest.mark.timeout(240)
@pytest.mark.parametrize("_turn", TURNS)
async def test_a_mosquitto_killed_amid_scans_that_forgets_everything_costs_no_scan(
    _turn: int, tmp_path: Path
) -> None:
    async with Rig(tmp_path) as rig:
        await rig.start()
        numbered = (f"scan-{number:06}" for number in itertools.count())
        async with running(scanning(rig, numbered)):
            for life in range(1, DEATHS + 1):
                await arrived(rig, 50 * life)
                rig.broker.stop(kill=True)
                await rig.restart_broker()
                rig.relay.restore()
            promised = len(rig.promised)
            await rig.until(lambda: len(rig.promised) > promised, "tones after all that")
        await rig.delivered(60)


@pytest.mark.broker
@pytest.mark.timeout(120)
async def test_someone_who_takes_over_the_client_id_costs_no_scan(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig, Peers(rig.broker.port) as peers:
        await rig.start()
        for turn in range(1, 4):
            await connected(rig, turn)
            await rig.scan_and_hear(*labels(f"before-{turn}", 5))
            thief = await peers.connected(DEVICE)
            await rig.scan_and_hear(*labels(f"after-{turn}", 5))
            await thief.ended()
        await rig.delivered()
        assert len(rig.promised) == 30
