"""The whole agent, a real broker and a wall of doors: what a message from afar can open, and what not."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent import control
from simulators.cu16 import Cu16Bus
from tests.authority import Authority, fresh
from tests.operator import Operator, operating
from tests.site import Site

LOCKER = """\
[device]
id = "locker-17"
tenant = "acme"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true
keepalive = 5

[trust]
root = "{state}/../root.jws"

[custody]
attended = false

[unit.doors]
kind = "cu16"
port = "{dev}/doors"
"""
COMPARTMENTS = "".join(
    f'\n[locker.compartment.a{door}]\nunit = "doors"\ndoor = {door}\n' for door in range(1, 17)
)
anywhere = pytest.mark.parametrize("more", ["", COMPARTMENTS], ids=["doors", "locker"])
"""On a bare wall of doors, and where a locker's workflow minds each of them."""
WRONG = 10_000
DOOR = {"unit": "doors", "door": 7}

pytestmark = pytest.mark.broker


class Locker:
    """A site with sixteen doors, and an operator who knows the time."""

    def __init__(self, site: Site, bus: Cu16Bus, operator: Operator, minded: bool) -> None:
        self.site, self.bus, self.operator, self.minded = site, bus, operator, minded
        self.seq = 0

    @property
    def pulses(self) -> int:
        return sum(door.pulses for board in self.bus.boards.values() for door in board.doors)

    async def start(self) -> None:
        """Until the doors are read and the clock has been set by the fleet."""
        served = len(self.site.of("locker.in_service"))
        await self.site.start_agent()
        await self.site.ready("doors")
        await self.site.until(self.knows_time, "the time of the fleet")
        if self.minded:
            await self.site.until(
                lambda: len(self.site.of("locker.in_service")) > served, "the doors in service"
            )

    def knows_time(self) -> bool:
        return any(each["trust"] == "fleet" for each in self.site.logged("clock corrected"))

    def open_door(self, **changes: Any) -> bytes:
        return self.command("open_door", **{"args": DOOR, **changes})

    def command(self, name: str, **changes: Any) -> bytes:
        self.seq += 1
        return self.operator.command(name, self.seq, **changes)

    def outcomes(self) -> list[str]:
        types = ("command.succeeded", "command.failed", "command.outcome_unknown")
        return [entry["type"].removeprefix("postern.command.") for entry in self.site.of(*types)]


@contextlib.asynccontextmanager
async def locker_at(folder: Path, more: str = "") -> AsyncIterator[Locker]:
    fleet = Authority()
    (folder / "root.jws").write_bytes(fleet.root())
    async with Site(folder, config=LOCKER + more, device="locker-17") as site:
        bus = site.plug(Cu16Bus(site.dev / "doors", {0: 16}))
        async with operating(site.broker.port, fleet, "locker-17") as operator:
            yield Locker(site, bus, operator, minded=bool(more))


@anywhere
async def test_a_door_is_opened_from_afar_once_and_its_outcome_is_the_answer(
    tmp_path: Path, more: str
) -> None:
    async with locker_at(tmp_path, more) as locker:
        await locker.start()
        raw = locker.open_door()
        await locker.operator.tell("command", raw)
        await locker.site.until(locker.outcomes, "the outcome")
        assert (locker.outcomes(), locker.bus.door(0, 7).pulses) == (["succeeded"], 1)
        (accepted,), (done,) = locker.site.of("command.accepted"), locker.site.of("command.succeeded")
        assert int(accepted["sequence"]) < int(done["sequence"])
        assert accepted["data"]["command"] == done["data"]["command"]
        assert (accepted["data"]["operator"], accepted["data"]["args"]) == ("op-1", DOOR)
        await locker.operator.tell("command", raw)
        await locker.site.until(lambda: len(locker.outcomes()) == 2, "the answer to the same again")
        assert locker.site.of("command.succeeded")[1]["data"]["again"]
        assert locker.pulses == 1


@anywhere
@pytest.mark.timeout(180)
async def test_whatever_a_broker_without_keys_sends_opens_nothing(tmp_path: Path, more: str) -> None:
    """Forged, expired, replayed, of another device, of another role, and noise."""
    async with locker_at(tmp_path, more) as locker:
        await locker.start()
        right = locker.open_door()
        await locker.operator.tell("command", right)
        await locker.site.until(locker.outcomes, "the outcome of the right one")
        stranger, config = fresh(), locker.operator.fleet.signers["config"]
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: locker.open_door(by=[stranger]),
            lambda: locker.open_door(iat=int(time.time()) - 600),
            lambda: right,
            lambda: locker.open_door(aud="acme/locker-18"),
            lambda: locker.open_door(by=config),
            lambda: right[:-8] + b"AAAAAAAA",
            lambda: locker.open_door(exp_in=121),
            lambda: b"17",
        )
        each = WRONG // len(makers)
        await locker.operator.flood("command", [make() for make in makers for _ in range(each)])
        last = locker.command("status", **{"class": "A"})
        await locker.operator.tell("command", last)
        await locker.site.until(lambda: len(locker.outcomes()) == 3, "the answer to the last one", 120)
        assert locker.pulses == 1
        assert len(locker.site.of("command.accepted")) == 2
        assert [each["data"].get("again") for each in locker.site.of("command.succeeded")] == [
            None,
            True,
            None,
        ]
        refused = locker.site.of("fleet.command_refused")
        assert {entry["data"]["reason"] for entry in refused} == {
            "bad_signature",
            "expired",
            "malformed",
            "not_permitted",
            "unknown_key",
            "wrong_audience",
        }
        assert len(refused) < 60, "a flood is counted, not copied"


@anywhere
async def test_of_fifty_right_commands_the_first_three_open(tmp_path: Path, more: str) -> None:
    """A thief with the command key."""
    async with locker_at(tmp_path, more) as locker:
        await locker.start()
        doors = [{"unit": "doors", "door": number % 16 + 1} for number in range(50)]
        for door in doors:
            await locker.operator.tell("command", locker.open_door(args=door))
        await locker.site.until(lambda: len(locker.outcomes()) == 3, "three outcomes")
        await locker.site.until(
            lambda: [e for e in locker.site.of("fleet.command_refused") if e["data"]["times"] == 10],
            "an alert",
        )
        assert [door.pulses for door in locker.bus.boards[0].doors] == [1, 1, 1, *[0] * 13]
        assert {each["data"]["reason"] for each in locker.site.of("fleet.command_refused")} == {"budget"}
        await locker.site.kill_agent()
        await locker.start()
        await locker.operator.tell("command", locker.open_door())
        await locker.site.until(lambda: locker.site.of("fleet.command_refused")[2:], "the refusal again")
        assert locker.pulses == 3
        if locker.minded:
            assert len(locker.site.of("locker.opening_intended")) == 3


@anywhere
async def test_what_was_begun_when_the_power_failed_is_reported_and_not_begun_again(
    tmp_path: Path, more: str
) -> None:
    async with locker_at(tmp_path, more) as locker:
        await locker.start()
        locker.bus.boards[0].mute = True  # the board hears and pulses, and its answer never comes
        raw = locker.open_door()
        await locker.operator.tell("command", raw)
        await locker.site.until(lambda: locker.site.of("command.accepted"), "the intent")
        await locker.site.kill_agent()
        locker.bus.boards[0].mute = False
        pulsed = locker.pulses
        await locker.start()
        await locker.site.until(locker.outcomes, "the report")
        assert locker.outcomes() == ["outcome_unknown"]
        await locker.operator.tell("command", raw)
        await locker.site.until(lambda: len(locker.outcomes()) == 2, "the answer to the same again")
        assert locker.outcomes() == ["outcome_unknown"] * 2
        assert locker.pulses == pulsed <= 1


@anywhere
async def test_the_emergency_lock_keeps_doors_shut_until_it_is_released(tmp_path: Path, more: str) -> None:
    async with locker_at(tmp_path, more) as locker:
        await locker.start()
        emergency = locker.operator.fleet.signers["emergency"]
        words = {"class": "E", "by": emergency}
        await locker.operator.tell("command", locker.command("emergency_lock", **words))
        await locker.site.until(lambda: len(locker.outcomes()) == 1, "the lock")
        await locker.site.kill_agent()
        await locker.start()
        await locker.operator.tell("command", locker.open_door())
        await locker.site.until(lambda: locker.site.of("fleet.command_refused"), "the refusal")
        assert locker.pulses == 0
        await locker.operator.tell("command", locker.command("emergency_release", **words))
        await locker.site.until(lambda: len(locker.outcomes()) == 2, "the release")
        await locker.operator.tell("command", locker.open_door())
        await locker.site.until(lambda: len(locker.outcomes()) == 3, "the door")
        assert locker.pulses == 1


async def test_a_root_file_that_rots_away_takes_nothing_with_it(tmp_path: Path) -> None:
    async with locker_at(tmp_path) as locker:
        await locker.start()
        await locker.site.kill_agent()
        (tmp_path / "root.jws").write_bytes(b"\0" * 100)
        await locker.start()
        await locker.operator.tell("command", locker.open_door())
        await locker.site.until(locker.outcomes, "the outcome")
        assert locker.pulses == 1
        (refused,) = locker.site.of("fleet.root_refused")
        assert (refused["data"]["reason"], refused["data"]["remembered"]) == ("malformed", True)


async def test_a_root_that_was_never_good_leaves_nobody_in_authority(tmp_path: Path) -> None:
    async with locker_at(tmp_path) as locker:
        (tmp_path / "root.jws").write_bytes(Authority().root()[:-40])
        await locker.site.start_agent()
        await locker.site.until(lambda: locker.site.of("fleet.root_refused"), "the refusal")
        assert not locker.site.of("fleet.root_refused")[0]["data"]["remembered"]
        await locker.site.until(lambda: locker.operator.births, "the birth")
        assert locker.operator.births[-1]["trust"] is None
        status = await control.ask(tmp_path / "state" / control.SOCKET, "status")
        assert (status["fleet"], status["knowledge"]["freshness"]) == (None, "closed")


async def test_status_says_what_is_believed(tmp_path: Path) -> None:
    async with locker_at(tmp_path) as locker:
        await locker.start()
        fleet, now = locker.operator.fleet, int(time.time())
        lists = fleet.revocations(3, of={"subjects": ["drv-7"]}, iat=now)
        head = fleet.head(5, {"revocations": lists}, iat=now)
        await locker.operator.tell("head", head, retain=True)
        await locker.operator.tell("revocations", lists, retain=True)
        complete = lambda: locker.operator.births[-1]["trust"]["complete"]  # noqa: E731
        await locker.operator.news.until(complete)
        status = await control.ask(tmp_path / "state" / control.SOCKET, "status")
        said = status["fleet"]
        assert said.pop("head_age_s") < 60
        assert said == {
            "root": 1,
            "head": 5,
            "complete": True,
            "documents": {"revocations": 3},
            "lacking": 0,
            "waiting": [],
            "revoked": 1,
            "locked": False,
            "refused": {},
        }
        assert status["knowledge"]["freshness"] == "fresh"
