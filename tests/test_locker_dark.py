"""Days of deposits and pickups with no network, doors that jam, boards that go and power that fails.

`POSTERN_LONG=1 pytest tests/test_locker_dark.py` plays 72 hours with 200 deposits; otherwise it is a day
with thirty.

What the judge in `tests/locker_judge.py` must not let pass, and has been seen to catch when it was planted:

- a spent grant that opens again: its mark forgotten, not durable, given back after a crash with the door
  open, by somebody's release, or because a pulse had no effect; a third try; one too late, or in another boot
- a pulse with no intent on the disk before it, with another's intent, of itself after a jam, or at boot
- the wrong door; two pulses at once, without a gap, or more than a coil stands
- a jammed door, one that was pushed shut, or a parcel left behind, booked as collected; a door nobody
  watched, as used
- a quarantine that is not set, that ends by itself, at boot or with a retrieval, or that keeps out no code
  and no deposit
- a deposit that is booked twice, or whose codes are made twice
"""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from agent import performer
from agent.locker.turn import MINTED
from simulators.stage import postern
from tests.locker_dark import House, PlayedClock, Wall
from tests.locker_days import TECH_BADGE, TECH_PIN, TECHNICIAN, Days, label_of
from tests.locker_judge import judge
from tests.locker_site import SIZES, LockerSite
from tests.site import LONG

HOURS, DEPOSITS = (72, 200) if LONG else (24, 30)

WITHOUT_CARDS = "".join(
    f'\n[policy.{each}]\nsets = [["badge", "pin"]]\n' for each in ("retrieve", "technician")
)
"""Nobody can read a card here."""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3600 if LONG else 180)]


async def test_whatever_happens_in_the_dark_no_door_opens_twice_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(performer, "GRID_NS", 1)
    async with LockerSite(tmp_path, more=WITHOUT_CARDS) as site:
        site.add(TECHNICIAN, "badge", TECH_BADGE, role="technician")
        site.add(TECHNICIAN, "pin", TECH_PIN, role="technician")
        wall = Wall(list(SIZES), sensors=frozenset({"a2", "b2", "c1", "c2"}))
        days = Days(site, random.Random(72), PlayedClock(time.time_ns()), wall, HOURS, DEPOSITS)
        house = await days.play()
        assert_true(house, wall, days)
        await delivered(site, house)


def assert_true(house: House, wall: Wall, days: Days) -> None:
    """What the journal says is what has happened at the wall."""
    kinds = Counter(entry["type"].removeprefix("postern.") for entry in house.entries)
    assert not kinds["agent.fault"]
    assert judge(wall.diary, house.entries) == []
    assert days.lives > 3
    assert days.replayed > 3
    assert kinds["locker.deposited"] == len(days.codes) >= DEPOSITS
    assert kinds["locker.collected"] + kinds["locker.retrieved"] + kinds["locker.taken_out"] > DEPOSITS / 2
    rows = [key for key in house.app.journal.records if key.startswith(MINTED)]
    assert len(rows) == 2 * len(days.codes), "no code opens anything that no deposit tells of"
    for entry in house.of("locker.collected"):
        assert label_of(entry) not in wall.content.values()
    for name, each in house.app.decider.desk.told()["compartments"].items():
        if each["state"] == "free":
            assert name not in wall.content, f"{name} is said to be free"


async def delivered(site: LockerSite, house: House) -> None:
    """The network is back: everything that was made arrives, in order, and the journal verifies."""
    await site.start_agent()
    made = {int(entry["sequence"]): entry for entry in house.entries}
    await site.until(lambda: len(site.entries) > len(made), f"{len(made)} entries", 60)
    await site.stop_agent()
    arrived = {int(entry["sequence"]): entry for entry in site.entries}
    assert len(arrived) == len(site.entries)
    assert {number: arrived.get(number) for number in made} == made
    assert house.app.journal.notary is not None
    key = house.app.journal.notary.verifier.text
    await postern("journal", "verify", str(site.folder / "state" / "journal.db"), "--key", key)
