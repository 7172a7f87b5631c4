"""What a device is told at its birth: what time it is, and the roots that it has missed."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.admission import Audience
from agent.clock import NS
from agent.commands import RESEND_MOST, Resend
from agent.documents import Role
from agent.envelope import Kind
from agent.fleet import wishes
from agent.fleet.answers import Answers
from agent.fleet.collect import Collector
from agent.fleet.gaps import Gap
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.signing import Desk
from agent.trust import Trusted
from tests.brokers import BROKERS, AnyBroker, broker_of, connected, running, server
from tests.fleets import DEVICE, TENANT, ceremony, enrolled, replaced
from tests.moments import moment

NONCE = "A" * 22
VAN = Audience(tenant=TENANT, device=DEVICE)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return ceremony(tmp_path / "keys")


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


def all_roots_changed(keyring: Keyring, times: int) -> None:
    """None of the keys that a device knew signs the last of these."""
    for _ in range(times):
        replaced(keyring, Role.ROOT, keyring.root.kids(Role.ROOT))


def test_a_device_that_missed_roots_is_led_to_the_newest(keyring: Keyring) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    all_roots_changed(keyring, 3)
    now = replace(moment(0), utc_ns=(keyring.root_at + 60) * NS)
    told = Answers(keyring.folder)(DEVICE, {"trust": {"root": 1}})
    assert [name for name, _ in told] == ["root"] * 3
    for _, raw in told:
        trusted = trusted.take(Kind.ROOT, raw, now).trusted
    assert trusted.root.raw == keyring.document.raw


@pytest.mark.parametrize(
    "birth",
    [
        {},
        {"trust": None, "time_nonce": None},
        {"trust": {"root": 1}},
        {"trust": {"root": 2}},
        {"trust": {"root": 0}},
        {"trust": {"root": -1}},
        {"trust": {"root": "1"}},
        {"trust": [], "time_nonce": "short"},
        {"time_nonce": ["A" * 22]},
    ],
)
def test_whoever_asks_for_nothing_is_told_nothing(keyring: Keyring, birth: dict[str, Any]) -> None:
    assert Answers(keyring.folder)(DEVICE, birth) == []


def test_the_time_is_signed_for_the_nonce_and_the_device(keyring: Keyring) -> None:
    ((name, raw),) = Answers(keyring.folder)(DEVICE, {"time_nonce": NONCE})
    told = Trusted.pin(keyring.document.raw, VAN).open(Kind.TIME, raw)
    assert (name, told.body.nonce) == ("time", NONCE)
    assert abs(told.body.utc // 1000 - told.claims.iat) <= 1


def test_keys_that_go_missing_meanwhile_answer_nothing(keyring: Keyring) -> None:
    answers = Answers(keyring.folder)
    (keyring.folder / "time-1.key").unlink()
    assert answers(DEVICE, {"time_nonce": NONCE}) == []
    with pytest.raises(KeyringError, match="expected a key of role time"):
        Answers(keyring.folder)


async def test_a_birth_is_answered_on_the_way_down(broker: AnyBroker, keyring: Keyring) -> None:
    all_roots_changed(keyring, 2)
    birth = {"online": True, "trust": {"root": 1}, "time_nonce": NONCE}
    collector = Collector(server(broker.port, "fleet"), answer=Answers(keyring.folder))
    async with connected(broker.port, DEVICE) as van, running(collector.run()):
        await van.subscribe(f"postern/v1/{DEVICE}/down/root", f"postern/v1/{DEVICE}/down/time")
        await collector.online.wait()
        await van.publish(f"postern/v1/{DEVICE}/up/state", json.dumps(birth).encode(), retain=True)
        came: list[tuple[str, bytes]] = []
        while len(came) < 3:
            message = await van.receive()
            van.acknowledge(message)
            came.append((message.topic.rpartition("/")[2], message.payload))
    assert came[:2] == [("root", raw) for raw in keyring.roots()[1:]]
    assert came[2][0] == "time"


# -- a config on trial ----------------------------------------------------------------------------


def on_trial(keyring: Keyring, **changes: Any) -> dict[str, Any]:
    """The birth of a device that tries the config it was sent, and is well."""
    enrolled(keyring)
    body = wishes.body("[broker]\n", timeout_s=600, units=None, min_agent="0", dry_run=False)
    with keyring.locked():
        document = Desk(keyring, keyring.root_at).config(DEVICE, body)
    told = {"version": document.ver, "sha256": document.sha256, "state": "trial", "ready": True, **changes}
    return {"time_nonce": NONCE, "config": told}


def words(answers: Answers, birth: dict[str, Any]) -> list[bytes]:
    return [raw for name, raw in answers(DEVICE, birth) if name == "command"]


def test_a_device_that_is_well_with_what_it_was_sent_is_told_to_keep_it(keyring: Keyring) -> None:
    birth, answers = on_trial(keyring), Answers(keyring.folder)
    (raw,) = words(answers, birth)
    command = Trusted.pin(keyring.document.raw, VAN).open(Kind.COMMAND, raw).body
    config = birth["config"]
    assert (command.rank, command.name, command.nonce) == ("B", "confirm_config", NONCE)
    assert command.args == {"version": config["version"], "sha256": config["sha256"]}
    assert not words(answers, birth)
    (again,) = words(answers, {**birth, "time_nonce": "B" * 21 + "A"})
    assert again != raw


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"sha256": "0" * 64},
        {"ready": False},
        {"ready": 1},
        {"state": "reverted"},
        {"version": "1"},
    ],
)
def test_a_device_that_tries_anything_else_or_is_not_well_is_told_nothing(
    keyring: Keyring, changes: dict[str, Any]
) -> None:
    assert not words(Answers(keyring.folder), on_trial(keyring, **changes))


@pytest.mark.parametrize(
    "config", [None, [], "trial", 7, {}, {"state": "trial"}, {"state": "trial", "ready": True}]
)
def test_what_a_device_says_of_its_config_may_be_anything(keyring: Keyring, config: object) -> None:
    assert not words(Answers(keyring.folder), {"time_nonce": NONCE, "config": config})


# -- what is missing ------------------------------------------------------------------------------

MISSING = Gap(DEVICE, "e1", 5, 10**6, None)


def test_what_is_missing_is_asked_for_as_far_as_one_command_may(keyring: Keyring) -> None:
    enrolled(keyring)
    raw = Answers(keyring.folder).missing(MISSING, {"time_nonce": NONCE})
    assert raw is not None
    command = Trusted.pin(keyring.document.raw, VAN).open(Kind.COMMAND, raw).body
    assert (command.rank, command.name, command.nonce) == ("A", "resend", NONCE)
    assert Resend.model_validate(command.args) == Resend(first=5, last=4 + RESEND_MOST, epoch="e1")


def test_a_device_that_was_never_enrolled_is_not_commanded(keyring: Keyring) -> None:
    assert Answers(keyring.folder).missing(MISSING, {"time_nonce": NONCE}) is None
