"""What an operator does to a whole fleet: 1,000 devices in the long form, two dozen in the short.

The devices are real agents on one real mosquitto, several in a process (`simulators.fleet`).
"""

import sys
from collections.abc import Iterator

import pytest

from tests.mosquitto import require_mosquitto
from tests.site import LONG
from tests.thousand import Heard, Thousand

DEVICES = 1000 if LONG else 24
PATIENCE = 900.0 if LONG else 90.0
HARDWARE = ("van", "van", "dock")
ROSTER = "kind,subject,secret\nbadge,drv-7f3a91,0100a3e9ae\nbadge,drv-2c88e0,0100b71c02\n"
SUBJECT = "drv-7f3a91"
SHUTTING_DOWN = 0x8B
"""Reason code with which a broker that ends may say goodbye; any other is a refusal."""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3000 if LONG else 240)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thousand]:
    require_mosquitto()
    folder = tmp_path_factory.mktemp("t")
    (folder / "roster.csv").write_text(ROSTER)
    with Thousand(folder, devices=DEVICES, hardware=HARDWARE) as made:
        yield made


async def all_online(heard: Heard) -> None:
    await heard.until(lambda: heard.calm(DEVICES), "all online", PATIENCE)


def tell(figure: str) -> None:
    """For whoever runs the long form with `-s`."""
    sys.stdout.write(f"\n{figure}\n")


def roster_of(fleet: Thousand) -> str:
    return str(fleet.folder / "roster.csv")


async def test_a_roster_change_reaches_every_device(fleet: Thousand) -> None:
    async with fleet.heard() as heard:
        await all_online(heard)
        code, said = await fleet.types("push", "roster", roster_of(fleet), "--all", within=PATIENCE)
        assert code == 0
        assert {each["device"] for each in said} == heard.states.keys()
        (ver,) = {each["ver"] for each in said}
        await heard.until(
            lambda: heard.with_bundle("bundle/roster", ver) == DEVICES, "the roster everywhere", PATIENCE
        )


async def test_a_revocation_comes_into_force_on_every_device(fleet: Thousand) -> None:
    async with fleet.heard() as heard:
        await all_online(heard)
        code, _ = await fleet.types("revoke", "--subject", SUBJECT, within=PATIENCE)
        assert code == 0
        await heard.until(lambda: heard.sums["revoked"] == DEVICES, "the revocation everywhere", PATIENCE)
        wave = heard.sums["took"]["revocations"]
        assert wave["count"] >= DEVICES
        # How long it may take is judged by the bench, which nothing else disturbs.
        tell(f"in force at most {wave['longest'] * 1000:.0f} ms after its arrival, on {DEVICES} devices")


async def test_a_rollout_with_one_bad_kind_of_hardware_halts_at_the_canary(fleet: Thousand) -> None:
    """A config for vans finds nothing at the ports of docks: none but the canaries is ever given it."""
    state = fleet.folder / "config.rollout"
    async with fleet.heard() as heard:
        await all_online(heard)
        words = ("rollout", "start", "config", str(fleet.config("van")), "--state", str(state))
        code, said = await fleet.types(*words, "--soak", "0.1", "--quiet", "0.5", within=PATIENCE)
        assert code == 3
        end = said[-1]
        assert (end["state"], end["stage"]) == ("halted", 1)
        canaries = next(each["devices"] for each in said if "devices" in each)
        assert end["waiting"] == DEVICES - canaries > 0
        assert end["why"].startswith("canary dock-")
        assert "a port that is there" in end["why"]
        given = {each["device"] for each in said if each.get("outcome") == "given"}
        assert len(given) == canaries
        on_trial = {name for name, told in heard.states.items() if told.get("config", {}).get("state")}
        assert on_trial <= given


async def test_after_the_broker_s_restart_all_come_back_and_nothing_is_lost(fleet: Thousand) -> None:
    async with fleet.heard() as heard:
        await all_online(heard)
        fleet.broker.stop()
        await heard.until(lambda: heard.sums["online"] == 0, "all offline", PATIENCE)
        fleet.broker.start()
        back = len(heard.history)
        await all_online(heard)
        curve = [told["online"] for _, told in heard.history[back:]]
        tell(f"online, second by second: {curve}")
        codes = {each["data"].get("code") for each in heard.entries if each["type"] == "postern.uplink.lost"}
        assert codes <= {None, SHUTTING_DOWN}
        passed_over = [each for each in heard.entries if each["type"].endswith("entry_passed_over")]
        assert not passed_over
        logs = heard.collector.devices.values()
        await heard.until(lambda: not any(log.gaps for log in logs), "every entry", PATIENCE)
        assert len(logs) == DEVICES
