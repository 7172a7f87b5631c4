"""`postern fingers`, as an operator at a depot runs it, and what the agent makes of the module afterwards."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.app import App
from agent.cli import main
from agent.config import load
from agent.templates import Ours
from simulators.em4100 import Em4100Reader
from simulators.r503 import FingerprintModule, Instruction, Mishap, template_of
from simulators.stage import postern
from tests.site import Site

ANNA, BADGE = "drv-5f2e81", "0100a3e9ae"

CONFIG = """\
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "127.0.0.1"
port = 9
plain = true

[unit.finger]
kind = "r503"
port = "{finger}"
password_file = "{password}"
answer_within = 0.5
"""


@dataclass
class Depot:
    """A module on a desk, and no agent."""

    folder: Path
    module: FingerprintModule

    @property
    def password(self) -> Path:
        return self.folder / "finger.password"

    @property
    def coming(self) -> Path:
        return self.folder / "finger.password.next"

    @property
    def config(self) -> Path:
        return self.folder / "postern.toml"

    async def run(self, *words: str, hand: str | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error. `hand` is a finger that is laid down twice."""
        return await fingers(self.config, self.module, *words, hand=hand)


async def fingers(
    config: Path, module: FingerprintModule, *words: str, hand: str | None = None
) -> tuple[int, str, str]:
    laying = asyncio.create_task(module.lay_down_twice(hand)) if hand else None
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = await asyncio.to_thread(typed, "fingers", *words, "--config", str(config))
    if laying is not None:
        laying.cancel()
        await asyncio.gather(laying, return_exceptions=True)
    return code, out.getvalue(), err.getvalue()


def typed(*words: str) -> int:
    """In this process: a fresh one takes a second to begin."""
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


@pytest.fixture
async def depot(tmp_path: Path) -> AsyncIterator[Depot]:
    with FingerprintModule(tmp_path / "finger") as module:
        made = Depot(tmp_path, module)
        names = {"state": tmp_path / "state", "finger": module.name, "password": made.password}
        made.config.write_text(CONFIG.format_map(names))
        made.password.write_text("00000000\n")
        yield made


async def test_a_finger_is_taught_listed_taken_out_for_the_fleet_and_forgotten(depot: Depot) -> None:
    template = depot.folder / "anna.tpl"
    code, out, _ = await depot.run("teach", "finger", "7", "--template", str(template), hand="anna")
    assert (code, depot.module.templates) == (0, {7: "anna"})
    assert "--finger finger:7" in out
    assert template.read_bytes() == template_of("anna")
    assert template.stat().st_mode & 0o777 == 0o600
    told = json.loads((await depot.run("list", "finger", "--json"))[1])
    assert (told["slots"], told["differs"]) == ({"7": "here"}, {})
    code, _, err = await depot.run("teach", "finger", "7")
    assert (code, "that slot holds a finger already" in err) == (1, True)
    assert (await depot.run("forget", "finger", "7"))[:2] == (0, "slot 7 of finger is empty\n")
    assert not depot.module.templates
    assert (await depot.run("forget", "finger", "7"))[2] == "finger: slot 7 is empty\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("list", "gun"), 2, "expected one of the fingerprint modules finger, got 'gun'"),
        (("forget", "finger", "-1"), 2, "-1"),
        (("forget", "finger", "65536"), 2, "expected a slot from 0 to 65535, got '65536'"),
        (("teach", "finger", "7", "--template", "/dev/null"), 2, "expected a file that is not there yet"),
        (("forget", "finger", "7"), 1, "slot 7 is empty"),
        (("teach", "finger", "200"), 1, "finger: expected a slot below 200, got 200"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_line(
    depot: Depot, words: tuple[str, ...], code: int, said: str
) -> None:
    ended, out, err = await depot.run(*words)
    assert (ended, out) == (code, "")
    assert said in err


async def test_an_index_that_the_config_names_has_to_be_named_anew(depot: Depot) -> None:
    depot.config.write_text(depot.config.read_text() + 'expect = { index = "0123456789abcdef" }\n')
    code, _, err = await depot.run("teach", "finger", "7", hand="anna")
    told = json.loads((await depot.run("list", "finger", "--json"))[1])
    assert code == 0
    assert f"the config expects another index: write {told['about']['index']} there" in err
    assert told["differs"] == {"index": {"expected": "0123456789abcdef", "found": told["about"]["index"]}}


async def test_a_slot_whose_template_another_module_may_bring_back_is_left_alone(depot: Depot) -> None:
    """The fleet's once: whoever is taken out of the list meanwhile would else come back as taught here."""

    async def stored(app: App) -> None:
        now, position = app.stamp()
        ours = Ours(owner="a digest", digest="another", stored=True).dump()
        await app.journal.append([], now, position, {"template/finger/7": ours})

    await App(load(depot.config)).visit(stored)
    code, _, err = await depot.run("teach", "finger", "7")
    assert (code, err) == (1, "finger: slot 7 holds or held a finger of the fleet's: take another\n")
    depot.module.teach(7, "anna")
    assert json.loads((await depot.run("list", "finger", "--json"))[1])["slots"] == {"7": "fleet"}


async def test_a_module_that_is_not_there_or_answers_another_password_is_told(depot: Depot) -> None:
    depot.module.password = 1
    depot.module.powered()
    assert await depot.run("list", "finger") == (1, "", "finger: wrong password\n")
    depot.password.write_text("correct horse")
    code, _, err = await depot.run("list", "finger")
    assert (code, err) == (1, f"finger: {depot.password}: expected 8 hex digits, got something else\n")
    depot.password.write_text("00000001")
    depot.module.unplug()
    assert (await depot.run("list", "finger"))[2] == f"finger: absent: {depot.module.name}\n"


async def test_a_module_that_cannot_list_its_slots_is_told_as_one(depot: Depot) -> None:
    depot.module.lacks |= {Instruction.TEMPLATE_NUM, Instruction.READ_INDEX}
    code, out, _ = await depot.run("list", "finger")
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "It cannot list its slots")
    code, _, err = await depot.run("teach", "finger", "7")
    assert (code, "expected a module that lists its slots" in err) == (1, True)


# -- its password -----------------------------------------------------------------------------------


def fits(depot: Depot) -> bool:
    return int(depot.password.read_text(), 16) == depot.module.password


async def test_a_module_gets_a_password_of_its_own_that_nobody_has_seen(depot: Depot) -> None:
    depot.password.unlink()
    passwords = {depot.module.password}
    for _ in range(2):
        code, out, err = await depot.run("password", "finger")
        assert (code, err) == (0, "")
        assert fits(depot)
        assert depot.password.read_text().strip() not in out
        passwords.add(depot.module.password)
    assert len(passwords) == 3
    assert depot.password.stat().st_mode & 0o777 == 0o600
    assert not depot.coming.exists()
    depot.module.unplug()
    depot.module.plug()
    assert (await depot.run("list", "finger"))[0] == 0


async def test_a_yes_that_was_lost_is_found_out_by_asking(depot: Depot) -> None:
    depot.module.mishaps[Instruction.SET_PASSWORD] = Mishap.LOST
    assert (await depot.run("password", "finger"))[0] == 0
    assert fits(depot)
    assert depot.module.password


async def test_a_password_that_the_module_never_heard_of_is_not_taken_for_its_own(depot: Depot) -> None:
    depot.module.ignores = {Instruction.SET_PASSWORD}
    said = "finger: the module did not take a new password; it wants the one it had\n"
    assert await depot.run("password", "finger") == (1, "", said)
    assert fits(depot)
    depot.module.ignores = set()
    assert (await depot.run("password", "finger"))[0] == 0
    assert fits(depot)
    assert depot.module.password


async def test_a_module_that_takes_none_keeps_the_one_it_has(depot: Depot) -> None:
    depot.module.refusals[Instruction.SET_PASSWORD] = 0x18
    code, _, err = await depot.run("password", "finger")
    assert (code, err) == (1, "finger: SetPwd: flash_failed\n")
    assert (depot.module.password, depot.password.read_text()) == (0, "00000000\n")
    assert (await depot.run("password", "finger"))[0] == 0
    assert fits(depot)


@pytest.mark.parametrize("name", ["finger.password", "finger.password.next"])
async def test_a_file_that_holds_no_password_is_named_and_nothing_is_changed(depot: Depot, name: str) -> None:
    (depot.folder / name).write_text("correct horse")
    code, _, err = await depot.run("password", "finger")
    assert (code, err) == (1, f"finger: {depot.folder / name}: expected 8 hex digits, got something else\n")
    assert depot.module.password == 0


async def test_where_no_password_can_be_kept_the_module_is_told_none(depot: Depot) -> None:
    depot.coming.with_name("finger.password.next.new").mkdir()
    code, _, err = await depot.run("password", "finger")
    assert (code, err) == (1, f"finger: {depot.coming}: Is a directory; the module was not told\n")
    assert depot.module.password == 0


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("first", [True, False])
async def test_after_a_cut_in_the_middle_one_of_two_passwords_fits(
    depot: Depot, taken: bool, first: bool
) -> None:
    depot.coming.write_text("cafe4711\n")
    if first:
        depot.password.unlink()
    if taken:
        depot.module.password = 0xCAFE4711
    depot.module.powered()
    assert (await depot.run("password", "finger"))[0] == 0
    assert fits(depot)
    assert (depot.module.password == 0xCAFE4711) is taken
    assert not depot.coming.exists()


# -- and the agent ----------------------------------------------------------------------------------

WATCHED = """\
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "127.0.0.1"
port = {port}
plain = true

[custody]
session = [["badge", "slot"]]

[unit.badge]
kind = "em4100"
port = "{dev}/badge"

[unit.finger]
kind = "r503"
port = "{dev}/finger"
"""


@pytest.mark.broker
@pytest.mark.timeout(150)
async def test_what_is_taught_by_command_is_believed_and_what_is_not_is_doubted_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    """T2, and the operator's way out of it."""
    async with Site(tmp_path, config=WATCHED, device="van-0042") as site:
        badge = site.plug(Em4100Reader(site.dev / "badge"))
        module = site.plug(FingerprintModule(site.dev / "finger"))
        at = ("--config", str(site.config))
        await postern("roster", "add", *at, "--finger", "finger:7", ANNA, "badge", stdin=BADGE)
        await site.start_agent()
        await site.ready("badge", "finger")
        code, _, err = await fingers(site.config, module, "list", "finger")
        assert (code, err) == (2, "finger: an agent runs and holds it; stop the agent first\n")

        await site.stop_agent()
        assert (await fingers(site.config, module, "teach", "finger", "7", hand="anna"))[0] == 0
        module.teach(8, "mallory")
        await site.start_agent()
        await site.until(lambda: site.of("identity.peripheral_changed"), "the foreign template found out")
        assert site.of("device.finger_enrolled")[0]["data"]["slot"] == 7
        badge.present(BADGE)
        module.touch("anna")
        await site.until(lambda: site.of("identity.refused"), "a refusal")
        assert site.of("identity.refused")[0]["data"]["outcome"] == "doubted"
        badge.remove()
        module.lift()

        await site.stop_agent()
        code, out, _ = await fingers(site.config, module, "list", "finger")
        assert "slot 7         taught here\nslot 8         put there by nobody we know\n" in out
        assert "doubted: index: expected " in out
        assert (await fingers(site.config, module, "forget", "finger", "8"))[0] == 0
        await site.start_agent()
        await site.ready("badge", "finger")
        badge.present(BADGE)
        module.touch("anna")
        await site.until(lambda: site.of("custody.session_opened"), "a session")
        assert len(site.of("identity.peripheral_changed")) == 1
        assert not site.of("agent.fault")
        site.in_order()
