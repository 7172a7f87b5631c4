"""A restart for a config waits until nobody is at work, but not for ever."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.desk import CourierDesk, people_at_work
from agent.locker.desk import doors_at_work
from agent.lull import lull
from agent.session import Login
from agent.workflow import Decision
from tests.fleets import DEVICE
from tests.locker_hall import Hall
from tests.site import LONG
from tests.test_config_end_to_end import wished
from tests.test_fleet_down import ANNA, acme
from tests.trial_bench import PATIENCE, TrialBench

pytestmark = [pytest.mark.broker, pytest.mark.timeout(450 if LONG else 150)]

JAMMED = ("compartment a1",)
MORE = "[journal]\nsize_mib = {}\n"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[TrialBench]:
    async with TrialBench(tmp_path) as made:
        yield made


def told(bench: TrialBench, what: str) -> list[Mapping[str, Any]]:
    """Data of the entries of this type: some come twice, where an agent starts anew."""
    return [entry["data"] for entry in bench.entries if entry["type"] == f"postern.{what}"]


def logging_in(bench: TrialBench, login: Login | None) -> None:
    """Somebody is half way through proving who they are, or no longer."""
    desk = bench.app.decider.desk
    assert isinstance(desk, CourierDesk)
    desk.become(Decision(state=replace(desk.state, login=login)))


async def test_a_trial_begins_when_the_session_has_ended(tmp_path: Path) -> None:
    async with acme(tmp_path) as (fleet, van):
        await fleet.push(range(1))
        await van.completed(1)
        await van.anna_begins()
        await fleet.online("push", "config", str(wished(van.site, MORE.format(512))), "--device", DEVICE)
        await van.heard("config.trial_postponed")
        assert van.site.of("config.trial_postponed")[0]["data"]["at_work"] == ["session"]
        assert not van.site.of("config.trial_begun")
        await fleet.online("revoke", "--subject", ANNA)
        await van.heard("config.trial_begun")
        assert van.site.of("config.trial_begun")[0]["data"]["interrupts"] == []
        kinds = [entry["type"].removeprefix("postern.") for entry in van.site.entries]
        assert kinds.index("custody.session_closed") < kinds.index("config.trial_begun")


async def test_a_trial_waits_for_a_login_and_a_newer_config_takes_its_place(bench: TrialBench) -> None:
    moment = bench.app.clock.now()
    login = Login(
        subject="drv-1",
        kinds=("badge",),
        level=0,
        unit="badge",
        finger=None,
        boot=moment.boot,
        mono_ns=moment.mono_ns,
    )
    logging_in(bench, login)
    await bench.push(bench.whole(more=MORE.format(512)), confirm_timeout=3600)
    await bench.until(lambda: "waiting" in bench.reported, "the word that it waits")
    assert bench.reported["waiting"]["at_work"] == ["login"]
    bench.confirms = True
    newer = await bench.push(bench.whole(more=MORE.format(1024)), confirm_timeout=3600)
    await bench.until(lambda: bench.reported.get("waiting", {}).get("version") == 2, "the newer one to wait")
    logging_in(bench, None)
    assert (await bench.end(newer))["state"] == "confirmed"
    assert {each["version"] for each in told(bench, "config.trial_begun")} == {2}


async def test_a_door_that_is_jammed_open_is_waited_for_and_then_named(bench: TrialBench) -> None:
    bench.app.at_work = lambda: JAMMED  # type: ignore[method-assign]
    await bench.push(bench.whole(more=MORE.format(512)))
    await bench.until(lambda: told(bench, "config.trial_begun"), "the trial", 300 if LONG else PATIENCE)
    begun = told(bench, "config.trial_begun")[0]
    assert begun["interrupts"] == list(JAMMED)
    assert begun["waited_s"] > 0


async def test_nobody_at_work_is_not_waited_for() -> None:
    assert await lull(lambda: (), 0.0) == ()
    assert await lull(lambda: JAMMED, 0.0) == JAMMED
    assert await lull(lambda: JAMMED, 60.0, lambda: True) == JAMMED


def test_a_locker_is_at_work_from_the_code_to_the_latch_and_while_a_door_stands_open() -> None:
    hall = Hall()
    assert not people_at_work(hall.state)
    hall.courier()
    assert people_at_work(hall.state) == ["session"]
    name = hall.deposit("p1")
    hall.control("end")
    assert (people_at_work(hall.state), doors_at_work(hall.state)) == ([], [])
    hall.show("g1", parcel="p1")
    assert doors_at_work(hall.state) == [f"compartment {name}"]
    hall.opens(name)
    hall.wait(1)
    assert doors_at_work(hall.state) == []
    hall.door("b2", latched=False)
    assert doors_at_work(hall.state) == ["compartment b2"]
