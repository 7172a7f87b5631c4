"""A device whose state was put back to an older copy: the fleet proves it, and the device itself is told."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.control import ask
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from agent.fleet.findings import Finding, Kind
from agent.mqtt import Server
from agent.note import SignerKey
from tests.rig import BELT, Rig, labels
from tests.site import running

pytestmark = pytest.mark.broker

FLEET = SignerKey("fleet-main", Ed25519PrivateKey.generate())
CONFIG = f'{BELT}\n[fleet]\nkeys = ["{FLEET.verifier.text}"]\n'


@asynccontextmanager
async def books(rig: Rig, path: Path) -> AsyncIterator[list[Finding]]:
    """The fleet keeps books beside the truth that the rig keeps; yields what it finds."""
    findings: list[Finding] = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        rig.look()

    where = Server(host=rig.broker.host, port=rig.broker.port, client_id="the-books")
    async with Clerk(path, FLEET) as clerk:
        collector = Collector(where, clerk=clerk, on_finding=found)
        async with running(collector.run()):
            await collector.online.wait()
            yield findings


async def cosigned(rig: Rig, size: int) -> None:
    """Until the agent has been told that the fleet has so many entries."""
    await rig.until(
        lambda: any(each["size"] >= size for each in rig.logged("receipt")), f"a receipt for {size}", 40
    )


def suspended(state: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the journal of an agent that is not running remembers of it, and all entries that say so."""
    with sqlite3.connect(state / "journal.db") as journal:
        (record,) = journal.execute("SELECT value FROM record WHERE key = 'rolled_back'").fetchone()
        lines = journal.execute("SELECT line FROM entry WHERE instr(line, ?)", (b"journal.rolled_back",))
        told = [json.loads(line)["data"] for (line,) in lines]
    journal.close()
    return json.loads(record), told


@pytest.mark.timeout(180)
async def test_a_state_folder_put_back_is_a_rollback_at_the_first_reconnect(tmp_path: Path) -> None:
    async with Rig(tmp_path, config=CONFIG) as rig, books(rig, tmp_path / "fleet.db") as findings:
        state, snapshot = tmp_path / "state", tmp_path / "yesterday"
        await rig.start()
        await rig.scan_all(labels("monday", 80))
        await cosigned(rig, 64)
        await rig.stop_agent()
        shutil.copytree(state, snapshot, ignore=shutil.ignore_patterns("*.sock"))
        await rig.start()
        await rig.scan_all(labels("tuesday", 130))
        await cosigned(rig, 192)
        await rig.kill_agent()
        assert not findings

        shutil.rmtree(state)
        shutil.copytree(snapshot, state)
        await rig.start()
        await rig.until(lambda: Kind.ROLLBACK in {each.kind for each in findings}, "the fleet's proof", 40)
        shown = (await ask(state / "control.sock", "status"))["journal"]["rolled_back"]
        assert shown["cosigned"] >= 192 > shown["size"]
        await rig.stop_agent()
        record, (told,) = suspended(state)
        assert record == shown
        assert {name: told[name] for name in shown} == shown
        # Once is enough: it stays so, over every start.
        await rig.start()
        await rig.scan_and_hear("wednesday")
        await rig.until(lambda: rig.logged("receipt refused"), "the fleet's receipt", 40)
        await rig.stop_agent()
        assert suspended(state) == (record, [told])
        assert {each.kind for each in findings} <= {Kind.CONTRADICTION, Kind.ROLLBACK}


@pytest.mark.timeout(120)
async def test_a_device_that_only_lost_its_power_is_not_suspended(tmp_path: Path) -> None:
    async with Rig(tmp_path, config=CONFIG) as rig, books(rig, tmp_path / "fleet.db") as findings:
        for turn in range(3):
            await rig.start()
            await rig.scan_all(labels(f"turn-{turn}", 70))
            await cosigned(rig, 64)
            await rig.kill_agent()
        await rig.start()
        await cosigned(rig, 192)
        assert (await ask(tmp_path / "state" / "control.sock", "status"))["journal"]["rolled_back"] is None
        assert not rig.of("journal.rolled_back")
        assert not findings
