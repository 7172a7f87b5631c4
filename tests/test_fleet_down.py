"""From the ceremony to the door: keys, an enrolled device, a roster pushed to it, and who gets in with it.

A real agent, a real mosquitto, and the fleet's own commands.
"""

import asyncio
import contextlib
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.admission import LEAP
from agent.documents import Role
from agent.envelope import Kind, issue
from agent.fleet.issued import Issued
from agent.fleet.keyring import Keyring
from agent.fleet.publish import send
from simulators.em4100 import Em4100Reader
from simulators.line import LineScanner
from simulators.stage import postern
from tests.brokers import connected
from tests.fleets import DEVICE, TENANT
from tests.schemas import unlike
from tests.site import Site
from tests.test_collect import collecting

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

ANNA, BADGE, PIN = "drv-7f3a91", "0100a3e9ae", "84612075"
BORIS, OTHER = "drv-2c88e0", "0100b71c02"
CROWD = 2000

CONFIG = """\
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[policy.session]
sets = [["badge", "pin"]]

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{dev}/keypad"
"""


class Fleet:
    """The fleet's commands, as an operator types them."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.site = site
        (folder / "passphrase").write_text("correct horse battery")

    async def offline(self, *arguments: str) -> Any:
        said = await postern("--log-level", "error", "fleet", *arguments, "--keys", str(self.keys), "--json")
        return json.loads(next(line for line in said.splitlines() if line.startswith("{")))

    async def online(self, *arguments: str) -> Any:
        at = ["--host", "127.0.0.1", "--port", str(self.site.broker.port), "--plain"]
        return await self.offline(*arguments, *at)

    async def ceremony(self) -> None:
        secret = str(self.folder / "passphrase")
        await self.offline("keys", "init", "--tenant", TENANT, "--passphrase-file", secret)

    async def enrol(self) -> None:
        """The device asks, the fleet answers, and each fingerprint goes another way than the files."""
        asked, welcome = self.folder / "request.jws", self.folder / "welcome.json"
        config = ("--config", str(self.site.config))
        said = await postern("enrol", "--out", str(asked), *config)
        (shown,) = re.findall("((?:[0-9a-f]{4} ){15}[0-9a-f]{4})", said)
        told = await self.offline("enrol", str(asked), "--fingerprint", shown, "--out", str(welcome))
        root = told["root_fingerprint"]
        await postern("enrol", "--accept", str(welcome), "--root-fingerprint", root, *config)

    def roster(self, crowd: Iterable[int]) -> Path:
        """Anna with badge and PIN, Boris with a badge, and a crowd of others."""
        lines = [
            "kind,subject,secret",
            f"badge,{ANNA},{BADGE}",
            f"pin,{ANNA},{PIN}",
            f"badge,{BORIS},{OTHER}",
        ]
        lines += [f"badge,drv-{number:06d},02{number:08d}" for number in crowd]
        path = self.folder / "roster.csv"
        path.write_text("\n".join(lines))
        return path

    async def push(self, crowd: Iterable[int]) -> Any:
        return await self.online("push", "roster", str(self.roster(crowd)), "--device", DEVICE)


class Van:
    """What stands around the agent."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.badge = site.plug(Em4100Reader(site.dev / "badge"))
        self.keypad = site.plug(LineScanner(site.dev / "keypad"))

    async def start(self) -> None:
        await self.site.start_agent()
        await self.site.ready("badge", "keypad")

    async def completed(self, ver: int) -> dict[str, Any]:
        """What the device tells of a roster once it is all there."""
        await self.site.until(lambda: self._told(ver), f"roster {ver}", 60)
        return self._told(ver)[0]

    def _told(self, ver: int) -> list[dict[str, Any]]:
        found = [entry["data"] for entry in self.site.of("fleet.bundle_completed")]
        return [data for data in found if data["ver"] == ver]

    async def heard(self, kind: str, count: int = 1) -> None:
        await self.site.until(lambda: len(self.site.of(kind)) >= count, f"{count} {kind}")

    async def tells(self, claim: Callable[[Mapping[str, Any]], object]) -> None:
        """Until `postern status` says so. Each answer is waited for: it takes its time."""
        async with asyncio.timeout(30):
            while True:
                said = await postern("status", "--json", "--config", str(self.site.config))
                if claim(json.loads(said)):
                    return

    async def head(self, ver: int) -> None:
        await self.site.until(
            lambda: self.site.of("fleet.head_accepted")[-1]["data"]["ver"] == ver, f"head {ver}"
        )

    async def anna_begins(self) -> None:
        """Badge and PIN, once what the fleet says of them is known to be of today."""
        await self.tells(lambda status: status["knowledge"]["freshness"] == "fresh")
        self.badge.present(BADGE)
        await self.heard("identity.factor_shown")
        self.keypad.scan(PIN)
        await self.heard("custody.session_opened")


@contextlib.asynccontextmanager
async def acme(folder: Path) -> AsyncIterator[tuple[Fleet, Van]]:
    """A fleet after its ceremony, and a van that it has enrolled, its agent running."""
    async with Site(folder, config=CONFIG, device=DEVICE) as site:
        fleet, van = Fleet(folder, site), Van(site)
        await fleet.ceremony()
        await fleet.enrol()
        at = ("--host", "127.0.0.1", "--port", str(site.broker.port), "--plain")
        async with collecting(*at, "--keys", str(fleet.keys)):
            await van.start()
            # Nobody is let in on knowledge whose age nobody knows.
            await van.heard("clock.corrected")
            yield fleet, van
            await site.kill_agent()


async def test_who_is_in_the_pushed_roster_gets_in_and_who_is_revoked_does_not(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        pushed = await fleet.push(range(CROWD))
        completed = await van.completed(1)
        assert completed["rows"] == pushed["rows"] == CROWD + 3
        assert completed["changed"] == pushed["pages"] == pushed["new"]
        await van.anna_begins()
        assert van.site.of("custody.session_opened")[0]["subject"] == ANNA
        van.badge.remove()

        lost = tmp_path / "lost.csv"
        lost.write_text(f"kind,subject,secret\npin,{ANNA},{PIN}\n")
        await fleet.online("revoke", "--credentials", str(lost))
        await van.heard("custody.session_closed")
        assert van.site.of("custody.session_closed")[0]["data"]["reason"] == "revoked"

        await fleet.online("revoke", "--subject", ANNA)
        await van.heard("fleet.revocations_accepted", 2)
        van.badge.present(BADGE)
        await van.heard("identity.refused")
        assert van.site.of("identity.refused")[0]["data"]["outcome"] == "revoked"
        van.badge.present(OTHER)
        await van.heard("identity.factor_shown", 2)
        assert not van.site.of("agent.fault", "fleet.page_refused", "fleet.bundle_refused")
        van.site.in_order()


async def test_a_change_is_fetched_as_one_page(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        await fleet.push(range(CROWD))
        await van.completed(1)
        pushed = await fleet.push(range(1, CROWD))
        assert (pushed["new"], pushed["cleared"]) == (1, 1)
        completed = await van.completed(2)
        assert (completed["changed"], completed["rows"]) == (1, CROWD + 2)


async def test_a_download_cut_by_a_kill_goes_on_where_it_was(tmp_path: Path) -> None:
    """Half of the pages are at the broker when the agent is killed; the other half comes while it is dead."""
    async with acme(tmp_path) as (fleet, van):
        await fleet.push(range(CROWD))
        total = (await van.completed(1))["pages"]
        # The same people under a new epoch key: every page is new, and none is in force before all are here.
        await fleet.offline("keys", "rotate", "epoch")
        issued = await sealed_and_not_sent(fleet)
        half = dict(list(issued.items())[: total // 2])
        rest = {name: raw for name, raw in issued.items() if name not in half}
        listed = {name: raw for name, raw in rest.items() if not name.startswith("page/")}
        async with connected(van.site.broker.port, "operator") as operator:
            await send(operator, DEVICE, {**half, **listed})
            lacking = total - total // 2
            await van.tells(lambda status: status["fleet"]["lacking"] == lacking)
            await van.site.kill_agent()
            await send(operator, DEVICE, rest)
        van.badge.present(OTHER)
        await van.start()
        completed = await van.completed(2)
        assert completed["pages"] == total
        assert completed["changed"] == total - total // 2, (
            "what was here before the kill is not fetched again"
        )


async def test_a_forged_page_is_told_of_and_does_no_harm(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        await fleet.push(range(100))
        await van.completed(1)
        issued = await sealed_and_not_sent(fleet)
        *_, forged = (name for name in issued if name.startswith("page/"))
        async with connected(van.site.broker.port, "whoever") as whoever:
            await send(whoever, DEVICE, {**issued, forged: b"noise"})
        await van.heard("fleet.page_refused")
        assert van.site.of("fleet.page_refused")[0]["data"]["reason"] == "unwanted"
        assert not unlike(van.site.entries)
        assert (await fleet.online("head", "--device", DEVICE))["sent"] >= 2
        assert (await van.completed(2))["rows"] == CROWD + 3
        assert not van.site.of("agent.fault")


async def sealed_and_not_sent(fleet: Fleet) -> dict[str, bytes]:
    """What a push leaves at the broker, without leaving it there."""
    from agent.fleet import row_files
    from agent.fleet.signing import Desk

    keyring = Keyring(fleet.keys)
    last = Issued(fleet.keys).document(DEVICE, "head")
    assert last is not None
    desk = Desk(keyring, last.claims.iat + 1)
    desk.bundle(DEVICE, "roster", row_files.read("roster", fleet.roster(range(CROWD))), scope="all")
    desk.head(DEVICE)
    return desk.outgoing(DEVICE)


async def test_a_command_is_told_its_outcome(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        await fleet.online("head", "--device", DEVICE)
        await van.heard("fleet.head_accepted")
        told = await fleet.online(
            "command", "checkpoint", "--device", DEVICE, "--operator", "op-1", "--reason", "test"
        )
        assert told["type"] == "postern.command.succeeded"
        await van.heard("command.succeeded")
        assert not unlike(van.site.entries)


async def test_a_fleet_whose_head_key_was_stolen_or_whose_folder_was_lost_has_its_devices_back(
    tmp_path: Path,
) -> None:
    """A thief drives the head as far as it goes; later the record of what was issued is gone."""
    async with acme(tmp_path) as (fleet, van):
        await fleet.push([])
        await van.completed(1)
        thief = Keyring(fleet.keys).signers(Role.HEAD)
        now = int(time.time())
        stolen = issue(
            Kind.HEAD, {"documents": {}}, thief, aud="acme/van-0042", iat=now, exp=now + 60, ver=LEAP
        )
        async with connected(van.site.broker.port, "thief") as there:
            await send(there, DEVICE, {"head": stolen})
        await van.head(LEAP)

        secret = ("--passphrase-file", str(fleet.folder / "passphrase"))
        await fleet.offline("keys", "revoke", thief[0].kid, *secret)
        assert (await fleet.online("head", "--device", DEVICE))["sent"] >= 2
        await van.head(2)

        shutil.rmtree(fleet.keys / "issued")
        await fleet.push(range(10))
        await van.heard("fleet.head_refused")
        assert van.site.of("fleet.head_refused")[0]["data"]["reason"] == "rolled_back"
        await fleet.offline("keys", "restart", *secret)
        await fleet.online("head", "--device", DEVICE)
        await van.site.until(
            lambda: any(each["data"]["rows"] == 13 for each in van.site.of("fleet.bundle_completed")),
            "the list of everybody",
        )
        await van.tells(lambda status: status["fleet"]["complete"] and not status["fleet"]["lacking"])
        month_s = 31 * 86_400
        await van.tells(lambda status: 0 <= time.time() + month_s - status["knowledge"]["rows_until"] < 3600)
