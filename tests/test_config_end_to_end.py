"""A config pushed by the fleet to a real agent: kept when all is well and confirmed, gone when it is not.

The agent is a process of its own and reaches a real mosquitto; the fleet is its own commands.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.trial import CRASHES
from simulators.stage import postern
from tests.fleets import DEVICE
from tests.site import Site
from tests.test_fleet_down import CONFIG, Fleet, Van

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


def wished(site: Site, more: str = "") -> Path:
    """The config as the fleet would have it: without what only the device says of itself."""
    path = site.folder / "wished.toml"
    _, _, rest = site.config.read_text().partition("[broker]")
    path.write_text(f"[broker]{rest}{more}")
    return path


async def status(site: Site) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await postern("status", "--json", "--config", str(site.config)))[
        "config"
    ]
    return told


async def test_a_config_is_tried_confirmed_and_kept_over_a_restart(tmp_path: Path) -> None:
    async with Site(tmp_path, config=CONFIG, device=DEVICE) as site:
        fleet, van = Fleet(tmp_path, site), Van(site)
        await fleet.ceremony()
        await fleet.enrol()
        await van.start()
        path = wished(site, "\n[journal]\nsize_mib = 512\n")
        pushed = await fleet.online("push", "config", str(path), "--device", DEVICE, "--wait", "60")
        assert pushed["config"] == 1
        await site.until(lambda: site.of("config.confirmed"), "the config confirmed", 60)
        begun = site.of("config.trial_begun")[0]["data"]
        assert begun["units"] == ["badge", "keypad"]
        assert [change["path"] for change in begun["changes"]] == ["journal.size_mib"]
        assert (await status(site))["in_force"] == "fleet"
        await site.stop_agent()
        await van.start()
        told = await status(site)
        assert (told["in_force"], told["version"], told["last"]["state"]) == ("fleet", 1, "confirmed")
        said = await postern("config", "revert", "--config", str(site.config))
        assert said == f"config 1 is no longer in force: {site.config} is\n"
        await site.until(lambda: site.of("config.reverted"), "the config reverted", 60)
        assert site.of("config.reverted")[0]["data"]["reasons"][0]["path"] == "operator"


async def test_an_agent_that_is_killed_again_and_again_on_trial_is_back_with_the_old_config(
    tmp_path: Path,
) -> None:
    async with Site(tmp_path, config=CONFIG, device=DEVICE) as site:
        fleet, van = Fleet(tmp_path, site), Van(site)
        await fleet.ceremony()
        await fleet.enrol()
        await van.start()
        path = wished(site, "\n[journal]\nsize_mib = 512\n")
        await fleet.online("push", "config", str(path), "--device", DEVICE)
        for start in range(1, CRASHES + 1):
            await site.until(lambda n=start: starts(site) >= n, f"start {start} of the trial", 60)  # type: ignore[misc]
            await site.kill_agent()
            await van.start()
        await site.until(lambda: site.of("config.reverted"), "the config reverted", 60)
        told = await status(site)
        assert (told["in_force"], told["last"]["state"]) == ("device", "reverted")
        assert starts(site) == CRASHES


def starts(site: Site) -> int:
    """How many lives of the agent are known to have been on trial."""
    return max((entry["data"]["starts"] for entry in site.of("config.trial_started")), default=0)
