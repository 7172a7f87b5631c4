"""A mistaken scan or handover is taken back: with the whole agent, its roster and its journal.

Nothing that was written is changed; who has the parcel, the export and the fleet's story follow.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import epcis
from agent.correction import LATELY, MOST, OWN_S, SHIFT_S
from agent.desk import CourierDesk
from agent.fleet.story import Told, holder, tell
from drivers.readings import Scanned
from tests.schemas import unlike
from tests.test_unlock import SUE, SUES_BADGE, with_sue
from tests.van import ANNA, BORIS, PIN, Van, running

LABEL = "RB473124829DE"
PARCEL = f"s10:{LABEL}"

Entry = dict[str, Any]


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    async with running(with_sue(tmp_path)) as van:
        van.hear_the_fleet()
        yield van


async def login(van: Van, subject: str = ANNA) -> None:
    if subject == SUE:
        await van.tell("badges", Scanned(data=SUES_BADGE))
    else:
        await van.badge(subject)
    opened = (await van.tell("pad", Scanned(data=PIN)))[-1]
    assert (opened["type"], opened["subject"]) == ("postern.custody.session_opened", subject)


async def later(van: Van, seconds: float) -> None:
    van.clock.seconds += seconds
    van.hear_the_fleet()
    van.app.decider.heed()
    await van.app.decider.alive()
    await van.entries()


async def scan(van: Van, text: str = LABEL) -> Entry:
    """The last entry of what comes of it."""
    van.clock.seconds += 5
    return (await van.scan(text))[-1]


async def correct(van: Van, words: str = "") -> Entry:
    opened = await scan(van, f"POSTERN:CORRECT{words}")
    assert opened["type"] == "postern.custody.correction_opened"
    return await scan(van)


def custody(van: Van) -> dict[str, str]:
    desk = van.app.decider.desk
    assert isinstance(desk, CourierDesk)
    assert len(desk.parcels) == desk.state.held
    return {label: parcel.holder for label, parcel in desk.parcels.items()}


def reason(entry: Entry) -> str:
    assert entry["type"] == "postern.custody.refused"
    told: str = entry["data"]["reason"]
    return told


async def all_entries(van: Van) -> list[Entry]:
    return [json.loads(each.line) for each in await van.app.journal.read(0, entries=1000, size=1 << 20)]


async def handed_over(van: Van) -> Entry:
    await scan(van)
    await scan(van, "POSTERN:HANDOVER:RECIPIENT")
    await scan(van)
    van.clock.seconds += 5
    (entry, _) = await van.scan("POSTERN:DONE")
    assert entry["type"] == "postern.custody.handed_over"
    return entry


async def test_a_parcel_that_was_scanned_by_mistake_is_nobodys_again(van: Van) -> None:
    await login(van)
    accepted = await scan(van)
    said = await correct(van)
    assert (said["type"], said["subject"]) == ("postern.custody.corrected", PARCEL)
    what = {name: said["data"][name] for name in ("by", "corrects", "what", "reason", "holder")}
    assert what == {
        "by": ANNA,
        "corrects": accepted["id"],
        "what": "custody.accepted",
        "reason": "did_not_occur",
        "holder": None,
    }
    assert custody(van) == {}
    assert (await scan(van))["type"] == "postern.custody.accepted", "it can come for good"
    entries = await all_entries(van)
    assert accepted in entries, "what was written stays as it is"
    assert not unlike(entries)


async def test_a_handover_that_was_a_mistake_gives_the_parcel_back(van: Van) -> None:
    await login(van)
    wrong = await handed_over(van)
    assert custody(van) == {}
    said = await correct(van, ":WRONG_RECEIVER")
    assert (said["data"]["corrects"], said["data"]["reason"]) == (wrong["id"], "wrong_receiver")
    assert custody(van) == {PARCEL: ANNA}
    await scan(van, "POSTERN:HANDOVER:RECIPIENT")
    assert (await scan(van))["type"] == "postern.custody.offered"


async def test_one_parcel_is_taken_off_the_table_and_an_exception_is_taken_back(van: Van) -> None:
    await login(van)
    await scan(van)
    await scan(van, "POSTERN:HANDOVER:DRIVER")
    await scan(van)
    assert (await correct(van))["data"]["what"] == "custody.offered"
    assert (await scan(van))["type"] == "postern.custody.offered"
    await scan(van, "POSTERN:CANCEL")
    await scan(van, "POSTERN:EXCEPTION:DAMAGED")
    noted = await scan(van)
    assert (await correct(van))["data"]["corrects"] == noted["id"]
    assert custody(van) == {PARCEL: ANNA}


async def test_an_entry_is_taken_back_once(van: Van) -> None:
    await login(van)
    await scan(van)
    await correct(van)
    assert reason(await correct(van)) == "nothing_to_correct"


async def test_another_drivers_entry_is_a_supervisors_to_correct(van: Van) -> None:
    await login(van)
    await scan(van)
    await login(van, BORIS)
    assert reason(await correct(van)) == "not_yours"
    assert custody(van) == {PARCEL: ANNA}
    await login(van, SUE)
    said = await correct(van)
    assert (said["data"]["by"], said["data"]["holder"]) == (SUE, None)
    assert custody(van) == {}


async def test_after_a_quarter_of_an_hour_only_a_supervisor_may_and_after_a_shift_nobody(van: Van) -> None:
    await login(van)
    await scan(van)
    await later(van, OWN_S)
    await login(van)
    assert reason(await correct(van)) == "too_late"
    await login(van, SUE)
    await later(van, SHIFT_S)
    await login(van, SUE)
    assert reason(await correct(van)) == "nothing_to_correct"
    assert custody(van) == {PARCEL: ANNA}


async def test_it_waits_half_a_minute_for_the_parcel(van: Van) -> None:
    await login(van)
    await scan(van)
    await scan(van, "POSTERN:CORRECT")
    await later(van, 31)
    assert reason(await scan(van)) == "already_held"
    kinds = [each["type"] for each in await all_entries(van)]
    assert kinds.count("postern.custody.correction_lapsed") == 1
    await scan(van, "POSTERN:CORRECT")
    assert (await scan(van, "POSTERN:CANCEL"))["type"] == "postern.custody.correction_cancelled"
    assert reason(await scan(van)) == "already_held"


@pytest.mark.parametrize("words", ["POSTERN:CORRECT:NOT_MY_DAY", "POSTERN:CORRECT:A:B"])
async def test_a_reason_that_nobody_knows_is_refused(van: Van, words: str) -> None:
    await login(van)
    assert (await scan(van, words))["type"] == "postern.custody.control_refused"


async def test_over_a_restart_the_last_entry_can_still_be_taken_back(tmp_path: Path) -> None:
    async with running(with_sue(tmp_path)) as van:
        van.hear_the_fleet()
        await login(van)
        wrong = await handed_over(van)
        at = van.clock.seconds
    async with running(Van(tmp_path)) as van:
        van.clock.seconds = at
        van.hear_the_fleet()
        await login(van)
        said = await correct(van)
        assert said["data"]["corrects"] == wrong["id"]
        assert custody(van) == {PARCEL: ANNA}


async def test_what_is_remembered_is_bounded(van: Van, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST <= 1000
    monkeypatch.setattr("agent.desk.MOST", 3)
    await login(van)
    for number in range(5):
        await scan(van, f"parcel-{number}")
    kept = [key for key in van.app.journal.records if key.startswith(LATELY)]
    assert sorted(kept) == [f"{LATELY}text:parcel-{number}" for number in (2, 3, 4)]
    await later(van, SHIFT_S)
    await login(van)
    await scan(van, "parcel-9")
    assert [key for key in van.app.journal.records if key.startswith(LATELY)] == [f"{LATELY}text:parcel-9"]


async def test_export_and_the_fleets_story_follow(van: Van) -> None:
    await login(van)
    wrong = await handed_over(van)
    await correct(van)
    entries = [each for each in await all_entries(van) if each["subject"] == PARCEL]
    events = epcis.document(entries, "2026-11-27T12:00:00Z")["epcisBody"]["eventList"]
    first, again = (
        each for each in events if each["eventID"] == epcis.event_id(wrong["source"], wrong["id"])
    )
    assert "errorDeclaration" not in first
    assert again["errorDeclaration"]["reason"] == "did_not_occur"
    told = [Told(device="van", ledger=1, sequence=int(each["sequence"]), entry=each) for each in entries]
    steps = tell(told)
    assert steps[-1].what == f"taken back by {ANNA}: entry {wrong['id']} is wrong, did_not_occur"
    assert holder(steps, PARCEL) == f"in the custody of {ANNA}"
    assert holder(steps[:-1], PARCEL).startswith("with recipient")


async def test_a_correction_finds_the_journal_full_or_the_van(
    van: Van, monkeypatch: pytest.MonkeyPatch
) -> None:
    await login(van)
    await handed_over(van)
    desk = van.app.decider.desk
    assert isinstance(desk, CourierDesk)
    with monkeypatch.context() as full:
        full.setattr("agent.taking_back.HELD_LIMIT", 0)
        assert reason(await correct(van)) == "too_many"
    await scan(van, "POSTERN:CORRECT")
    with monkeypatch.context() as full:
        full.setattr(type(van.app.upkeep), "full", True)
        assert reason(await scan(van)) == "journal_full"
    assert (await correct(van))["type"] == "postern.custody.corrected"
