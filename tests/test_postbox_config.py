"""Configs and the word that keeps one, as the postbox takes them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.envelope import Kind
from tests.authority import Authority
from tests.test_postbox import Device

DIGEST = "0" * 64


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    fleet = Authority()
    made = Device(tmp_path, fleet, fleet.root(), X25519PrivateKey.generate())
    await made.start()
    yield made
    await made.stop()


def confirmation(device: Device, seq: int, version: int, **more: Any) -> bytes:
    args = {"version": version, "sha256": DIGEST}
    body = {
        "class": "B",
        "name": "confirm_config",
        "args": args,
        "operator": "fleet",
        "reason": "well",
        **more,
    }
    return device.fleet.made(Kind.COMMAND, body, seq, exp_in=120)


async def test_a_config_is_handed_over_once_its_set_is_whole_and_again_at_each_start(device: Device) -> None:
    config, roster = device.fleet.made(Kind.CONFIG, {"any": 1}, 3), device.fleet.bundle("roster", 1)
    await device.told(("config", config))
    assert not device.wished
    await device.told(("head", device.fleet.head(1, {"config": config, "bundle/roster": roster})))
    assert not device.wished
    await device.told(("bundle/roster", roster))
    assert device.wished == [3]
    await device.told(("config", config))
    assert device.wished == [3]
    await device.stop()
    await device.start()
    assert device.wished == [3, 3]


async def test_an_older_config_is_refused_whatever_became_of_the_newer(device: Device) -> None:
    new, old = (device.fleet.made(Kind.CONFIG, {"any": ver}, ver) for ver in (3, 2))
    await device.told(("head", device.fleet.head(1, {"config": new})), ("config", new))
    await device.told(("head", device.fleet.head(2, {"config": old})), ("config", old))
    assert device.wished == [3]
    assert {each["reason"] for each in await device.entries("fleet.head_refused")} == {"rolled_back"}


async def test_a_config_is_kept_on_a_word_that_was_made_for_this_connection(device: Device) -> None:
    nonce = device.post.ask()
    await device.told(
        ("command", confirmation(device, 1, 7)),
        ("command", confirmation(device, 2, 8, nonce=nonce)),
        ("command", confirmation(device, 3, 7, nonce=nonce)),
    )
    assert device.premises.asked == [(8, DIGEST), (7, DIGEST)]
    failed = [each["detail"] for each in await device.entries("command.failed")]
    assert failed == ["expected the nonce of this connection", "another_config"]
    assert len(await device.entries("command.succeeded")) == 1


async def test_a_word_for_another_connection_changes_nothing(device: Device) -> None:
    nonce = device.post.ask()
    device.post.connected()
    device.post.ask()
    await device.told(("command", confirmation(device, 1, 7, nonce=nonce)))
    assert not device.premises.asked
    assert [each["reason"] for each in await device.entries("fleet.command_refused")] == ["replayed"]
