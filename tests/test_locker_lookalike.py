"""T2 at a locker: a board in the fingerprint module's place that says yes to whatever it is asked."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from agent.policy import Policy
from simulators.line import LineScanner
from simulators.r503 import OK, FingerprintModule
from simulators.stage import postern
from tests.locker_hall import Hall
from tests.locker_site import COURIER, LockerSite

SLOT = 7
CLAIM = "0100b71c02"
"""A badge that names a slot of the module."""

MORE = """
[policy.deposit]
sets = [["badge", "slot"]]

[unit.claim]
kind = "line"
role = "badge"
port = "{dev}/claim"

[unit.finger]
kind = "r503"
port = "{dev}/finger"
"""


class LookAlike(FingerprintModule):
    """Answers "match" for any slot and any finger."""

    def _load(self, buffer: int, slot: int) -> bytes:
        self._buffers[buffer] = "anybody"
        return OK

    def _match(self) -> bytes:
        return OK + struct.pack(">H", 0xFFFF)


@pytest.mark.broker
@pytest.mark.timeout(150)
async def test_a_module_that_agrees_with_everybody_opens_nothing(tmp_path: Path) -> None:
    async with LockerSite(tmp_path, more=MORE) as site:
        claim = site.plug(LineScanner(site.dev / "claim"))
        genuine = site.plug(FingerprintModule(site.dev / "finger"))
        genuine.teach(SLOT, "thumb")
        add = ("roster", "add", COURIER, "badge", "--finger", f"finger:{SLOT}", "--config", str(site.config))
        await postern(*add, stdin=CLAIM)
        await site.start()
        await site.ready("finger")

        genuine.unplug()
        await site.count("device.lost", 1)
        board = site.plug(LookAlike(genuine.name, serial="00000001"))
        await site.count("identity.peripheral_changed", 1)
        changes = site.of("identity.peripheral_changed")[0]["data"]["changes"]
        assert changes["serial"] == {"expected": "1111-10080307", "found": "1111-00000001"}
        assert "index" in changes
        board.touch("somebody")
        for restarted in (False, True):
            if restarted:
                await site.kill_agent()
                await site.start()
                await site.count("identity.peripheral_changed", 2)
            refused = len(site.of("identity.refused"))
            claim.scan(CLAIM)
            await site.count("identity.refused", refused + 1)
            assert site.of("identity.refused")[-1]["data"]["outcome"] == "doubted"
            site.gun.scan("POSTERN:SIZE:S")
            site.gun.scan("RB473124829DE")
            await site.count("locker.refused", 1 + restarted)
        assert not site.of("locker.session_opened")
        assert site.pulses == 0

        board.unplug()
        genuine.plug()
        genuine.touch("thumb")
        await site.count("identity.peripheral_believed", 1)
        claim.scan(CLAIM)
        await site.count("locker.session_opened", 1)


@pytest.mark.parametrize(("level", "opens"), [(0, True), (2, False), (3, False)])
def test_above_level_1_no_module_is_enough_however_well_it_is_copied(level: int, opens: bool) -> None:
    sets = (frozenset({"fido2"}), frozenset({"badge", "slot"}))
    at = Hall(replace(Hall().rules, deposit=Policy(sets, level=level)))
    at.prove("drv-1", "badge", "slot")
    at.control("size", "S")
    at.scan("p1")
    at.wait(1)
    assert (at.state.session is not None, bool(at.pulses)) == (opens, opens)
