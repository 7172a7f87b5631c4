"""A device whose case is opened, with everything at work: who is on duty, what is recorded, what opens."""

import json
from pathlib import Path

import pytest

from simulators.em4100 import Em4100Reader
from simulators.line import LineScanner
from simulators.modbus_relay import RelayBus
from simulators.stage import postern
from tests.audits import audit_file
from tests.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

DEVICE, COURIER = "locker-0001", "drv-7f3a91"
BADGE, SPARE, PIN = "0100a3e9ae", "0100b71c02", "84612075"
CONFIG = """\
[device]
id = "locker-0001"
tenant = "lab"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[custody]
session = [["badge", "pin"]]
handover = [["badge", "pin"]]

[tamper]
unit = "relays"
input = 1
closed = true
hold = 0.05

[unit.relays]
kind = "modbus_relay"
port = "{dev}/relays"
boards = [{{ address = 1, locks = 2, inputs = 1 }}]

[unit.gun]
kind = "line"
port = "{dev}/gun"

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{dev}/keypad"
"""


async def test_a_device_whose_case_is_opened_wipes_itself_and_goes_on_recording(tmp_path: Path) -> None:
    async with Site(tmp_path, config=CONFIG, device=DEVICE) as site:
        relays = site.plug(RelayBus(site.dev / "relays", {1: 2}, inputs=1))
        gun, keypad = (site.plug(LineScanner(site.dev / name)) for name in ("gun", "keypad"))
        badge = site.plug(Em4100Reader(site.dev / "badge"))
        add = ("roster", "add", "--config", str(site.config), COURIER)
        await postern(*add, "badge", stdin=BADGE)
        await postern(*add, "pin", stdin=PIN)
        await postern(*add, "badge", stdin=SPARE)
        await site.start_agent()
        await site.ready("relays", "gun", "badge", "keypad")
        await site.until(lambda: site.of("identity.tamper_armed"), "the switch at rest")
        badge.present(BADGE)
        await site.until(lambda: site.of("identity.factor_shown"), "the badge")
        badge.remove()
        keypad.scan(PIN)
        await site.until(lambda: site.of("custody.session_opened"), "the courier on duty")
        gun.scan("RB473124829DE")
        await site.until(lambda: site.of("custody.accepted"), "a parcel")

        relays.boards[1].inputs[0] = True
        await site.until(lambda: site.of("identity.wiped"), "the wipe")
        (wiped,) = site.of("identity.wiped")
        assert (wiped["data"]["by"], wiped["data"]["rows"]) == ("tamper", 3)
        (closed,) = site.of("custody.session_closed")
        assert closed["data"]["reason"] == "wiped"
        assert int(site.of("identity.wipe_begun")[0]["sequence"]) < int(wiped["sequence"])

        relays.boards[1].inputs[0] = False
        badge.present(SPARE)
        await site.until(lambda: site.of("identity.refused"), "a badge that opens nothing any more")
        assert site.of("identity.refused")[0]["data"]["subject_ref"] is None
        gun.scan("1Z5R89390357567127")
        await site.until(lambda: site.of("custody.refused"), "a scan that nobody is on duty for")
        told = json.loads(await postern("status", "--config", str(site.config), "--json"))
        assert (told["wiped_by"], told["session"], set(told["keys"])) == ("tamper", None, {"device"})
        assert len(site.of("identity.wiped")) == 1
        site.in_order()
        await site.stop_agent()
    assert audit_file(tmp_path / "state" / "journal.db", told["key"]).verdict == "PASS"


async def test_a_case_that_was_opened_while_the_power_was_off_is_wiped_at_the_start(tmp_path: Path) -> None:
    async with Site(tmp_path, config=CONFIG, device=DEVICE) as site:
        relays = site.plug(RelayBus(site.dev / "relays", {1: 2}, inputs=1))
        await site.start_agent()
        await site.until(lambda: site.of("identity.tamper_armed"), "the switch at rest")
        await site.kill_agent()
        relays.boards[1].inputs[0] = True
        await site.start_agent()
        await site.until(lambda: site.of("identity.wiped"), "the wipe")
        assert site.of("identity.wiped")[0]["data"]["by"] == "tamper"
