"""`postern fleet rollout` with a broker and devices that answer: done, halted, killed and resumed."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import rfc3339
from agent.envelope import Envelope, Kind
from agent.fleet.rollout import Outcome
from agent.fleet.rollout_file import RolloutFile
from agent.mqtt import Connection
from simulators.stage import postern
from tests.brokers import AnyBroker, News, broker_of, connected, running
from tests.fleets import DEVICE, TENANT, ceremony, enrolled
from tests.site import Site
from tests.test_collect import collecting, line
from tests.test_config_end_to_end import wished
from tests.test_fleet_down import CONFIG, Fleet, Van, acme

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

VANS = [f"van-{number:04d}" for number in range(1, 13)]
LOCKER = "locker-0001"
UNITS = {"van": {"gun": {"kind": "ssi", "state": "ready"}}, "locker": {"wall": {"kind": "cu48"}}}


class Devices:
    """Devices as far as a rollout sees them: each takes what it is given, unless it is broken or deaf."""

    def __init__(self, connection: Connection, names: list[str]) -> None:
        self.connection = connection
        self.names = names
        self.broken: set[str] = set()
        self.deaf: set[str] = set()
        self.given: dict[str, list[int]] = {}
        """Versions that were brought to each, in order."""
        self.news = News()
        self._entries = 0

    async def born(self, name: str, ver: int = 0) -> None:
        documents = {"bundle/roster": ver} if ver else {}
        trust = {"root": 1, "head": ver or None, "complete": True, "documents": documents}
        units = UNITS[name.partition("-")[0]]
        birth = {"online": True, "epoch": "e1", "units": units, "trust": trust}
        await self.connection.publish(f"postern/v1/{name}/up/state", json.dumps(birth).encode(), retain=True)

    async def run(self) -> None:
        await self.connection.subscribe("postern/v1/+/down/bundle/roster")
        while True:
            message = await self.connection.receive()
            name = message.topic.split("/")[2]
            ver = Envelope.parse(Kind.BUNDLE, message.payload).claims(Kind.BUNDLE).ver
            self.connection.acknowledge(message)
            if ver not in self.given.setdefault(name, []):
                self.given[name].append(ver)
                await self._answer(name, ver)
            self.news.look()

    async def _answer(self, name: str, ver: int) -> None:
        if name in self.broken:
            self._entries += 1
            data = {"reason": "schema", "detail": "row 3"}
            refusal = line(
                self._entries,
                type="postern.fleet.bundle_refused",
                source=f"/postern/{TENANT}/{name}",
                data=data,
                time=rfc3339(time.time_ns()),
            )
            await self.connection.publish(f"postern/v1/{name}/up/entries", refusal)
        elif name not in self.deaf:
            await self.born(name, ver)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of("mosquitto", tmp_path) as made:
        yield made


@pytest.fixture
async def devices(broker: AnyBroker, tmp_path: Path) -> AsyncIterator[Devices]:
    keyring = ceremony(tmp_path / "keys")
    for name in (*VANS, LOCKER):
        enrolled(keyring, name)
    (tmp_path / "roster.csv").write_text("kind,subject,secret\nbadge,drv-7f3a91,0100a3e9ae\n")
    async with connected(broker.port, "the-devices") as connection:
        made = Devices(connection, [*VANS, LOCKER])
        async with running(made.run()):
            for name in made.names:
                await made.born(name)
            yield made


class Operator:
    """Types commands about the rollout of one roster."""

    def __init__(self, folder: Path, port: int) -> None:
        self.state = folder / "roster.rollout"
        self.folder = folder
        self._keys = ("--keys", str(folder / "keys"))
        self._at = ("--host", "127.0.0.1", "--port", str(port), "--plain", "--quiet", "0.5")

    def words(self, action: str, *words: str) -> tuple[str, ...]:
        away = () if action in ("status", "abort") else (*self._keys, *self._at)
        return (action, *words, "--state", str(self.state), "--json", *away)

    async def types(self, action: str, *words: str) -> tuple[int | None, list[dict[str, Any]]]:
        """Exit code, and what it says."""
        async with collecting(*self.words(action, *words), action="rollout") as process:
            said, _ = await process.communicate()
        return process.returncode, [json.loads(each) for each in said.splitlines()]

    def starts(self, *words: str) -> tuple[str, ...]:
        quick = ("--id", "r-1", "--soak", "0.1", *words)
        return self.words("start", "roster", str(self.folder / "roster.csv"), *quick)

    async def start(self, *words: str) -> tuple[int | None, list[dict[str, Any]]]:
        async with collecting(*self.starts(*words), action="rollout") as process:
            said, _ = await process.communicate()
        return process.returncode, [json.loads(each) for each in said.splitlines()]


@pytest.fixture
def operator(broker: AnyBroker, devices: Devices, tmp_path: Path) -> Operator:
    return Operator(tmp_path, broker.port)


async def test_a_roster_goes_out_in_stages_and_all_have_it(operator: Operator, devices: Devices) -> None:
    code, said = await operator.start()
    assert code == 0
    assert (said[-1]["state"], said[-1]["succeeded"]) == ("done", 13)
    assert devices.given == {name: [1] for name in devices.names}
    stages = [each["devices"] for each in said if "devices" in each]
    assert stages == sorted(stages)
    members = RolloutFile(operator.state).read().rollout.members
    assert {each.kinds for each in members.values() if each.canary} == {("cu48",), ("ssi",)}
    assert "0100a3e9ae" not in operator.state.read_text()
    assert (await operator.types("status"))[1][0]["state"] == "done"


async def test_a_canary_that_fails_halts_it_is_named_and_it_can_be_resumed(
    operator: Operator, devices: Devices
) -> None:
    devices.broken.add(LOCKER)
    code, said = await operator.start()
    assert code == 3
    assert said[-1]["why"] == f"canary {LOCKER} failed: schema: row 3"
    assert len(devices.given) < 4
    code, (status,) = await operator.types("status")
    assert (code, status["members"][LOCKER]["outcome"]) == (3, "failed")
    # Without a reason nobody goes on; with the fault put right it is given again.
    code, _ = await operator.types("resume")
    assert code == 2
    devices.broken.clear()
    code, said = await operator.types("resume", "--retry", "--reason", "repaired", "--operator", "op-7")
    assert (code, said[-1]["state"], said[-1]["succeeded"]) == (0, "done", 13)
    assert devices.given == {LOCKER: [1, 2], **{name: [1] for name in VANS}}


async def test_one_that_was_killed_on_the_way_is_resumed_where_it_was(
    operator: Operator, devices: Devices
) -> None:
    members = None
    async with collecting(*operator.starts("--stages", "50,100"), action="rollout") as process:
        await devices.news.until(lambda: len(devices.given) >= 3, 60)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        members = RolloutFile(operator.state).read().rollout.members
    assert {name for name, each in members.items() if each.given} >= set(devices.given)
    code, said = await operator.types("resume")
    assert (code, said[-1]["state"]) == (0, "done")
    assert sorted(devices.given) == sorted(devices.names)
    # What it was not sure of it left once more: the same rows, under the next version.
    again = {name for name, versions in devices.given.items() if versions != [1]}
    assert again <= {name for name, each in members.items() if each.given and each.ver is None}


async def test_it_is_aborted_by_another_process_while_it_waits(operator: Operator, devices: Devices) -> None:
    devices.deaf.update(devices.names)
    async with collecting(*operator.starts(), action="rollout") as process:
        assert process.stdout is not None
        canaries = json.loads(await process.stdout.readline())["devices"]
        await devices.news.until(lambda: len(devices.given) == canaries, 60)
        given = dict(devices.given)
        code, said = await operator.types("abort", "--reason", "the wrong file", "--operator", "op-7")
        assert (code, said[0]["state"]) == (0, "aborted")
        async with asyncio.timeout(30):
            await process.communicate()
        assert process.returncode == 4
    assert devices.given == given
    assert (await operator.types("resume"))[0] == 4


async def test_a_file_that_has_changed_since_is_not_gone_on_with(
    operator: Operator, devices: Devices
) -> None:
    devices.broken.add(LOCKER)
    assert (await operator.start())[0] == 3
    (operator.folder / "roster.csv").write_text("kind,subject,secret\nbadge,drv-2c88e0,0100b71c02\n")
    code, _ = await operator.types("resume", "--reason", "why not")
    assert code == 2


async def test_a_real_device_says_that_it_has_what_was_rolled_out(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        state = tmp_path / "roster.rollout"
        roster = str(fleet.roster(range(50)))
        await fleet.online("rollout", "start", "roster", roster, "--state", str(state), "--soak", "0.1")
        told = await van.completed(1)
        assert told["rows"] == 53
        (member,) = RolloutFile(state).read().rollout.members.values()
        assert (member.outcome, member.ver, member.kinds) == (Outcome.SUCCEEDED, 1, ("em4100", "line"))
        # The watch tells the same.
        at = ("--host", "127.0.0.1", "--port", str(fleet.site.broker.port), "--plain")
        said = await postern("--log-level", "error", "fleet", "watch", "--once", "--json", *at)
        seen = json.loads(said.splitlines()[0])
        assert (seen["device"], seen["state"], seen["documents"]) == (
            DEVICE,
            "online",
            {"bundle/roster": 1},
        )
        assert seen["complete"] is True
        assert seen["knowledge_at"] is not None


async def test_a_config_is_rolled_out_confirmed_and_one_that_cannot_be_is_halted(tmp_path: Path) -> None:
    async with Site(tmp_path, config=CONFIG, device=DEVICE) as site:
        fleet, van = Fleet(tmp_path, site), Van(site)
        await fleet.ceremony()
        await fleet.enrol()
        await van.start()
        state, soak = tmp_path / "config.rollout", ("--soak", "0.1")
        good = str(wished(site, "\n[journal]\nsize_mib = 512\n"))
        await fleet.online("rollout", "start", "config", good, "--state", str(state), *soak)
        (member,) = RolloutFile(state).read().rollout.members.values()
        assert (member.outcome, member.ver) == (Outcome.SUCCEEDED, 1)
        assert site.of("config.confirmed")[0]["data"]["version"] == 1
        # A unit that is not there can never be ready: the device says at once that it will not try.
        options = ("--require", "printer", "--state", str(state), *soak, "--id", "r-2")
        at = ("--host", "127.0.0.1", "--port", str(site.broker.port), "--plain", "--keys", str(fleet.keys))
        (tmp_path / "wished.toml").write_text(Path(good).read_text().replace("512", "768"))
        async with collecting("start", "config", good, *options, *at, "--json", action="rollout") as process:
            said, _ = await process.communicate()
        assert process.returncode == 3
        told = json.loads(said.splitlines()[-1])
        assert told["why"].startswith(f"canary {DEVICE} failed: refused: ")
