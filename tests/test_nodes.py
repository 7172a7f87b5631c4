"""A broker of several nodes, played by mosquittos that know nothing of each other: less is shared by none."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from agent.cli import main
from agent.config import parse
from agent.mistakes import BadConfig
from agent.mqtt import Server
from agent.mqtt_words import node
from tests.brokers import PATIENCE, connected
from tests.fleets import DEVICE, ceremony, enrolled
from tests.mosquitto import Mosquitto, free_port
from tests.rig import BELT, Rig
from tests.trial_bench import TrialBench

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mqtt.example.org", ("mqtt.example.org", 8883)),
        ("mqtt.example.org:8884", ("mqtt.example.org", 8884)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[2001:db8::1]:8884", ("2001:db8::1", 8884)),
        ("[2001:db8::1]", ("2001:db8::1", 8883)),
        ("2001:db8::1", ("2001:db8::1", 8883)),
    ],
)
def test_a_node_is_a_host_and_maybe_a_port(text: str, found: tuple[str, int]) -> None:
    assert node(text, 8883) == found


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "a:", "a:b", "a:0", "a:65536", "[::1]:0", "a:1:2", "[a]:1"]
)
def test_what_is_no_node_is_refused_in_a_config_with_its_place(text: str) -> None:
    belt = BELT.format(state="/s", host="h", port=1, dev="/dev")
    with pytest.raises(BadConfig) as bad:
        parse(belt.replace("plain", f"others = [{json.dumps(text)}]\nplain"))
    assert [each.path for each in bad.value.mistakes] == ["broker.others[0]"]


def test_every_device_tries_every_node_and_a_fleet_begins_at_all_of_them() -> None:
    firsts = set()
    for n in range(64):
        server = Server(host="a", port=1, client_id=f"van-{n:04d}", others=(("b", 2), ("c", 3)))
        turn = [each.where for each in islice(server.in_turn(by_name=True), 6)]
        assert sorted(turn[:3]) == ["a:1", "b:2", "c:3"]
        assert turn[:3] == turn[3:]
        firsts.add(turn[0])
        assert [each.where for each in islice(server.in_turn(), 3)] == ["a:1", "b:2", "c:3"]
    assert len(firsts) == 3


async def test_whoever_loses_a_node_goes_to_the_next(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as other:
        config = BELT.replace("keepalive", f'others = ["127.0.0.1:{other.port}"]\nkeepalive')
        async with Rig(tmp_path, config=config) as rig:
            rig.relay.cut()
            await rig.start()
            await rig.until(lambda: at(rig, other.port), "the one that is there")
            rig.relay.restore()
            other.stop(kill=True)
            await rig.until(lambda: at(rig, rig.relay.port), "the one that is left")
            await rig.scan_and_hear("A")
            await rig.delivered()


async def test_nodes_that_are_away_in_turn_are_told_of_once_each(tmp_path: Path) -> None:
    away = free_port()
    config = BELT.replace("keepalive", f'others = ["127.0.0.1:{away}"]\nkeepalive')
    async with Rig(tmp_path, config=config) as rig:
        rig.relay.cut()
        await rig.start()
        await rig.until(lambda: len(rig.logged("not connected")) >= 4, "both nodes tried twice")
        rig.relay.restore()
        await rig.until(lambda: rig.of("uplink.connected"), "the way back", 60)
        reasons = [entry["data"]["reason"] for entry in rig.of("uplink.lost")]
        assert len(reasons) >= 2
        assert max(Counter(reasons).values()) == 1


def at(rig: Rig, port: int) -> bool:
    return any(each["broker"].endswith(f":{port}") for each in rig.logged("connected"))


# -- a config that names several ------------------------------------------------------------------


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[TrialBench]:
    async with TrialBench(tmp_path) as made:
        yield made


def nodes(bench: TrialBench, port: int, *others: int) -> str:
    named = json.dumps([f"127.0.0.1:{each}" for each in others])
    return bench.whole(f'\nhost = "127.0.0.1"\nport = {port}\nplain = true\nothers = {named}')


async def test_one_node_that_is_there_is_enough_to_try_a_config_and_the_others_are_named(
    bench: TrialBench,
) -> None:
    away = free_port()
    bench.confirms = True
    sent = await bench.push(nodes(bench, away, bench.broker.port), confirm_timeout=3600)
    assert (await bench.end(sent))["state"] == "confirmed"
    begun = next(each["data"] for each in bench.entries if each["type"] == "postern.config.trial_begun")
    assert [why.partition(": ")[0] for why in begun["brokers_away"]] == [f"127.0.0.1:{away}"]
    (moved,) = (each for each in begun["effects"] if each["what"] == "broker_moved")
    assert moved["subject"].endswith(f"-> 127.0.0.1:{away}, 127.0.0.1:{bench.broker.port}")
    await bench.reachable("fleet")


async def test_a_config_none_of_whose_nodes_is_there_is_refused_with_what_each_says(
    bench: TrialBench,
) -> None:
    away = [free_port() for _ in range(3)]
    end = await bench.end(await bench.push(nodes(bench, *away)))
    assert end["state"] == "refused"
    found = [each["found"].partition(": ")[0] for each in end["reasons"] if each["path"] == "broker"]
    assert found == [f"127.0.0.1:{port}" for port in away]


# -- the fleet's side -----------------------------------------------------------------------------


def test_what_devices_are_to_know_is_left_at_each_node_and_one_that_is_away_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keyring = ceremony(tmp_path / "keys")
    enrolled(keyring)
    with Mosquitto(tmp_path) as one, Mosquitto(tmp_path) as two:
        at = [word for each in (one, two) for word in ("--host", f"127.0.0.1:{each.port}")]
        head = ["fleet", "head", "--device", DEVICE, "--keys", str(keyring.folder), "--plain", *at]
        assert main(head) == 0
        assert asyncio.run(retained(one.port)) == asyncio.run(retained(two.port))
        two.stop()
        assert main(head) == 1
        assert f"127.0.0.1:{two.port}" in capsys.readouterr().err
        newest = asyncio.run(retained(one.port))
        two.start()
        assert asyncio.run(retained(two.port)) != newest
        assert main(head) == 0
        assert asyncio.run(retained(one.port)) == asyncio.run(retained(two.port)) != newest


async def retained(port: int) -> bytes | None:
    """The head that a node has for a device that comes there; None where it has none."""
    topic, fence = f"postern/v1/{DEVICE}/down/head", f"postern/v1/{DEVICE}/down/fence"
    async with connected(port, DEVICE) as device, asyncio.timeout(PATIENCE):
        await device.subscribe(topic, fence)
        fenced = device.publish(fence, b"")
        found = None
        while (message := await device.receive()).topic != fence:
            found = message.payload
        await fenced
        return found
