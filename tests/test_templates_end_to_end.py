"""From the fleet's list to the glass: a template pushed, stored, opening a session, revoked, and gone.

A real agent, a real mosquitto, the fleet's own commands, and a fingerprint module on a real line.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulators.em4100 import Em4100Reader
from simulators.r503 import FingerprintModule, Instruction, template_of
from simulators.stage import postern
from tests.fleets import DEVICE
from tests.site import Site
from tests.test_collect import collecting
from tests.test_fingers_command import fingers
from tests.test_fleet_down import ANNA, BADGE, BORIS, CONFIG, OTHER, Fleet

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

FINGERS = (
    CONFIG.partition("[policy.session]")[0]
    + """\
[policy.session]
sets = [["badge", "slot"]]

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.finger]
kind = "r503"
port = "{dev}/finger"
"""
)
SLOT, OTHER_SLOT, FOREIGN = 7, 9, 20


class Van:
    """What stands around the agent."""

    def __init__(self, site: Site, fleet: Fleet) -> None:
        self.site, self.fleet = site, fleet
        self.badge = site.plug(Em4100Reader(site.dev / "badge"))
        self.module = site.plug(FingerprintModule(site.dev / "finger"))

    async def push(self, *fingers: tuple[str, int]) -> None:
        """Everybody's badge, and the templates of these: Anna's and Boris's fingers have their names."""
        lines = ["kind,subject,secret,finger,template"]
        for subject, badge, slot in ((ANNA, BADGE, SLOT), (BORIS, OTHER, OTHER_SLOT)):
            lines.append(f"badge,{subject},{badge},finger:{slot},")
        for subject, slot in fingers:
            (self.fleet.folder / f"{subject}.tpl").write_bytes(template_of(subject))
            lines.append(f"template,{subject},,finger:{slot},{subject}.tpl")
        path = self.fleet.folder / "roster.csv"
        path.write_text("\n".join(lines))
        await self.fleet.online("push", "roster", str(path), "--device", DEVICE)

    async def heard(self, kind: str, count: int = 1) -> None:
        await self.site.until(lambda: len(self.site.of(kind)) >= count, f"{count} {kind}")

    def told(self, kind: str) -> list[tuple[int, str | None]]:
        return [(entry["data"]["slot"], entry["data"]["subject_ref"]) for entry in self.site.of(kind)]

    async def swap(self, **templates: str) -> None:
        """Another module of the same make in its place."""
        self.module.unplug()
        await self.heard("device.lost", len(self.site.of("device.lost")) + 1)
        self.module.templates = {int(slot[1:]): finger for slot, finger in templates.items()}
        self.module.plug()

    async def log_in(self, badge: str, finger: str) -> None:
        shown, opened = (
            len(self.site.of(kind)) for kind in ("identity.factor_shown", "custody.session_opened")
        )
        self.badge.present(badge)
        await self.heard("identity.factor_shown", shown + 1)
        for _ in range(5):
            # Who was asked before may still be listened for: then the finger is laid on once more.
            self.module.touch(finger)
            with contextlib.suppress(AssertionError):
                await self.site.until(lambda: len(self.site.of("custody.session_opened")) > opened, "it", 2.0)
                break
            self.module.lift()
            await self.module.asked_for(Instruction.GEN_IMG)
        await self.heard("custody.session_opened", opened + 1)
        self.badge.remove()
        self.module.lift()


@contextlib.asynccontextmanager
async def van(folder: Path, place: type[Site] = Site) -> AsyncIterator[Van]:
    async with place(folder, config=FINGERS, device=DEVICE) as site:
        fleet = Fleet(folder, site)
        await fleet.ceremony()
        await fleet.enrol()
        made = Van(site, fleet)
        at = ("--host", "127.0.0.1", "--port", str(site.broker.port), "--plain")
        async with collecting(*at, "--keys", str(fleet.keys)):
            await site.start_agent()
            await site.ready("badge", "finger")
            await made.heard("clock.corrected")
            yield made
            await site.kill_agent()
        assert not site.of("agent.fault", "fleet.page_refused")


async def test_a_pushed_template_opens_a_session_until_its_subject_is_revoked(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.push((ANNA, SLOT), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        assert made.module.templates == {SLOT: ANNA, OTHER_SLOT: BORIS}
        assert made.told("identity.template_stored") == [(SLOT, ANNA), (OTHER_SLOT, BORIS)]
        await made.log_in(BADGE, ANNA)

        await made.fleet.online("revoke", "--subject", ANNA)
        await made.heard("identity.template_deleted")
        assert made.module.templates == {OTHER_SLOT: BORIS}
        assert made.told("identity.template_deleted") == [(SLOT, ANNA)]
        await made.heard("custody.session_closed")
        assert len(made.site.of("device.ready")) == 2, "in the connection in which it was stored"
        await made.log_in(OTHER, BORIS)
        assert not made.site.of("identity.inventory_mismatch", "identity.peripheral_changed")


async def test_a_module_with_a_foreign_template_is_doubted_until_its_index_fits(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.push((ANNA, SLOT), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        await made.swap(s7=ANNA, s8="stranger", s9=BORIS)
        await made.heard("identity.inventory_mismatch")
        (mismatch,) = made.site.of("identity.inventory_mismatch")
        assert (mismatch["data"]["foreign"], mismatch["data"]["missing"]) == ([8], [])
        made.badge.present(BADGE)
        made.module.touch(ANNA)
        await made.heard("identity.refused")
        assert made.site.of("identity.refused")[0]["data"]["outcome"] == "doubted"
        made.badge.remove()
        made.module.lift()
        await made.swap(s7=ANNA, s9=BORIS)
        await made.heard("identity.inventory_matched")
        await made.log_in(OTHER, BORIS)


async def test_an_exchanged_module_is_given_the_templates_again(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.push((ANNA, SLOT), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        await made.swap()
        await made.heard("identity.template_stored", 4)
        assert made.module.templates == {SLOT: ANNA, OTHER_SLOT: BORIS}
        await made.log_in(BADGE, ANNA)


async def test_who_is_taken_out_while_the_agent_is_dead_is_deleted_when_it_is_back(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.push((ANNA, SLOT), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        await made.site.kill_agent()
        await seen_to(made)
        await made.push((BORIS, OTHER_SLOT))
        await made.site.start_agent()
        await made.heard("identity.template_deleted")
        assert made.module.templates == {OTHER_SLOT: BORIS}
        assert made.told("identity.template_deleted") == [(SLOT, None)], "no name is kept beside a slot"
        assert not made.site.of("identity.inventory_mismatch")


async def seen_to(made: Van) -> None:
    """Somebody has put a finger in, and an operator finds it and takes it out."""
    made.module.teach(FOREIGN, "mallory")
    told = json.loads((await fingers(made.site.config, made.module, "list", "finger", "--json"))[1])
    assert told["slots"] == {str(SLOT): "fleet", str(OTHER_SLOT): "fleet", str(FOREIGN): "foreign"}
    code, _, err = await fingers(made.site.config, made.module, "teach", "finger", str(SLOT))
    assert (code, err) == (1, f"finger: slot {SLOT} holds or held a finger of the fleet's: take another\n")
    assert (await fingers(made.site.config, made.module, "forget", "finger", str(FOREIGN)))[0] == 0


async def test_a_wipe_takes_the_templates_out_of_the_module_as_well(tmp_path: Path) -> None:
    async with van(tmp_path) as made:
        await made.push((ANNA, SLOT), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        await postern("wipe", "--yes", DEVICE, "--config", str(made.site.config))
        await made.heard("identity.template_deleted", 2)
        assert made.module.templates == {}
