"""Commands that look into a device and mend it from afar, typed as an operator types them: a real agent, a
real mosquitto."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.commands import Outcome
from agent.fleet.enrolment import devices
from agent.jws import decoded
from agent.key_request import public_of
from tests.fleets import DEVICE
from tests.schemas import unlike
from tests.test_fleet_down import ANNA, BADGE, PIN, Fleet, acme

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]
SAID = ["--device", DEVICE, "--operator", "op-7", "--reason", "asked by phone"]


async def ordered(fleet: Fleet, name: str, *more: str) -> dict[str, Any]:
    """The data of the outcome."""
    told = await fleet.online("command", name, *SAID, *more)
    assert told["type"] == f"postern.command.{Outcome.SUCCEEDED}"
    data: dict[str, Any] = told["data"]
    return data


async def test_a_device_says_how_it_is_and_brings_its_roster_anew(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        await fleet.push(range(300))
        await van.completed(1)
        await van.anna_begins()

        out = tmp_path / "diagnostics.json"
        told = await ordered(fleet, "diagnostics", "--out", str(out))
        found = json.loads(out.read_text())
        assert (found["device"], found["command"]) == (DEVICE, told["command"])
        assert {unit["state"] for unit in found["units"].values()} == {"ready"}
        assert found["machine"]["config_sha256"] == van.site.of("agent.started")[0]["data"]["config"]
        assert {"started", "connected", "command"} <= {line["event"] for line in found["log"]}
        assert not [each for each in (ANNA, BADGE, PIN) if each in out.read_text()]
        assert out.stat().st_mode & 0o777 == 0o600

        # A card that wears out: nobody has read there yet, and it is mended by the way.
        roster = tmp_path / "state" / "roster.db"
        os.truncate(roster, roster.stat().st_size // 2)
        told = await ordered(fleet, "reload_bundle", "--arg", "kind=roster")
        await van.heard("identity.roster_damaged")
        completed = [entry["data"] for entry in van.site.of("fleet.bundle_completed")]
        pages = completed[0]["pages"]
        assert told["counts"] == {"roster": pages}
        await van.heard("fleet.bundle_completed", 2)
        again = van.site.of("fleet.bundle_completed")[1]["data"]
        assert (again["ver"], again["changed"], again["rows"]) == (1, pages, 303)
        assert not unlike(van.site.of("command.accepted", "command.succeeded", "fleet.bundle_completed"))
        assert not van.site.of("agent.fault", "custody.session_closed")


async def test_a_new_seal_key_takes_over_once_everything_came_sealed_to_it(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        keys = van.site.folder / "state" / "keys"
        pages = (await fleet.push(range(300)))["pages"]
        await van.completed(1)
        old = (keys / "seal").read_bytes()
        request = (await ordered(fleet, "rotate_keys"))["request"]
        await van.heard("keys.seal_taken")
        following = (keys / "seal-next").read_bytes()
        known = devices(fleet.keys)[DEVICE]
        assert decoded(known.seal_key) == public_of(following) != public_of(old)

        # Both open pages, over a restart as well: what the old one has brought can still be brought anew.
        await van.site.kill_agent()
        await van.start()
        assert (await ordered(fleet, "reload_bundle"))["counts"] == {"roster": pages}
        await van.heard("fleet.bundle_completed", 2)
        assert (keys / "seal").read_bytes() == old
        assert (await postern_fails(fleet, "rotate_keys"))[
            "detail"
        ] == "certificate: no_certificate; seal: under_way"

        pushed = await fleet.push(range(300))
        assert pushed["new"] == pushed["pages"]
        await van.heard("keys.seal_changed")
        assert van.site.of("keys.seal_changed")[0]["data"]["request"] == request
        assert {path.name for path in keys.iterdir()} == {"device", "epoch", "pepper", "seal"}
        assert (keys / "seal").read_bytes() == following
        await ordered(fleet, "reload_bundle")
        await van.heard("fleet.bundle_completed", 4)
        types = ("requested", "seal_taken", "seal_changed")
        assert not unlike(van.site.of(*(f"keys.{each}" for each in types)))
        assert not van.site.of("agent.fault", "fleet.page_refused")


async def postern_fails(fleet: Fleet, name: str) -> dict[str, Any]:
    """The data of the outcome of a command that is not carried out."""
    with pytest.raises(RuntimeError) as error:
        await ordered(fleet, name)
    line = next(each for each in str(error.value).splitlines() if "{" in each)
    data: dict[str, Any] = json.loads(line[line.index("{") :])["data"]
    return data
