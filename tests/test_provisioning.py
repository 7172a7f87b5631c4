"""What a device does about the templates that are listed for its modules, and what it remembers of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.bundle import Bundles
from agent.clock import NS, Moment
from agent.fleet.sealing import RowOf
from agent.inventory import Inventory
from agent.journal import Journal
from agent.jws import encoded
from agent.provisioning import AGAIN_S, IN_MEMORY, Provisioning
from agent.roster import Roster
from agent.row_seal import Keys
from agent.templates import token
from agent.workflow import Draft, Order
from drivers.readings import (
    ActionDone,
    DeleteFinger,
    DeviceLost,
    DeviceReady,
    FingerEnrolled,
    Reading,
    SlotsListed,
    StoreTemplate,
)
from simulators.r503 import template_of
from tests.bundles import ADDRESS, Press, badges
from tests.moments import moment

ANNA, BORIS = "drv-anna-5f2e81", "drv-boris-77c0d4"
ABOUT = {"capacity": "200", "index": "5f2e81"}


def template(subject: str, slot: int, unit: str = "finger", **more: Any) -> RowOf:
    body = {"subject": subject, "unit": unit, "slot": slot, "template": encoded(template_of(subject))}
    return RowOf("template", token(subject, unit, slot), {**body, **more})


class Van:
    """A device with a module that does as it is told, unless a test answers for it."""

    def __init__(self, folder: Path) -> None:
        self.press = Press()
        self.roster = Roster(folder / "roster.db", Keys(bytes(range(32)), bytes(range(32, 64))))
        key = Ed25519PrivateKey.generate().private_bytes_raw()
        self.journal = Journal(folder / "journal.db", source="/postern/acme/van-0042", key=key)
        self.at: Moment = replace(moment(100), utc_ns=1_790_000_100 * NS)
        self.out: frozenset[str] = frozenset()
        self.orders: list[Any] = []
        self.awaiting = False
        self.start()

    def start(self) -> None:
        self.inventory = Inventory()
        self.provisioning = Provisioning(
            self.roster, self.inventory, self.journal, self.order, modules=("finger",), house=self
        )
        self.bundles = Bundles(
            self.roster.rows, self.press.seal, ADDRESS, self.report, self.provisioning.arrived
        )

    async def close(self) -> None:
        self.bundles.close()
        await self.journal.close()
        self.roster.close()

    # -- the house --------------------------------------------------------------------------------

    def stamp(self) -> tuple[Moment, dict[str, Any]]:
        return self.at, {"position": None}

    def seek(self, values: Sequence[bytes]) -> None:
        self.bundles.seek(values)

    def revoked(self) -> frozenset[str]:
        return self.out

    def awaits_roster(self) -> bool:
        return self.awaiting

    def units_changed(self) -> None:
        self.provisioning.look()

    async def report(self, draft: Draft) -> None:
        pass

    def order(self, committed: Any, orders: tuple[Order, ...], _: None) -> None:
        self.orders += [order.action for order in orders]

    # -- what a test does -------------------------------------------------------------------------

    async def push(self, *rows: RowOf) -> None:
        await self.bundles.accepted(self.press.print([*badges(range(3)), *rows]))
        await self.fetch()
        self.provisioning.look()

    async def fetch(self) -> int:
        """Bring what is wanted; how many pages that were."""
        count = 0
        while wanted := self.bundles.wanted():
            count += await self.bundles.page(self.press.pages[wanted[0]])
        return count

    def saw(self, *readings: Reading) -> None:
        for reading in readings:
            self.provisioning.saw("finger", reading)

    def open(self, *taken: int) -> None:
        self.saw(DeviceReady(port="/dev/ttyS0", about=ABOUT), SlotsListed(slots=frozenset(taken)))

    def obey(self) -> list[Any]:
        """Everything that is ordered is done; what it was."""
        done = []
        while self.orders:
            action = self.orders.pop(0)
            done.append(action)
            self.saw(ActionDone(action=action, ok=True))
        return done

    async def told(self, what: str) -> list[dict[str, Any]]:
        await self.journal.save()
        found = await self.journal.read(0, entries=1000, size=10**7)
        entries = [json.loads(stored.line) for stored in found]
        return [entry["data"] for entry in entries if entry["type"] == f"postern.identity.{what}"]


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    made = Van(tmp_path)
    await made.journal.open()
    yield made
    await made.close()


def stores(*slots: tuple[str, int]) -> list[Any]:
    return [StoreTemplate(slot=slot, template=template_of(subject)) for subject, slot in slots]


# -- storing --------------------------------------------------------------------------------------


async def test_what_is_listed_is_stored_one_after_the_other(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7), template(BORIS, 9))
    assert len(van.orders) == 1
    assert sorted(van.obey(), key=lambda action: action.slot) == stores((ANNA, 7), (BORIS, 9))
    stored = await van.told("template_stored")
    assert sorted((each["unit"], each["slot"], each["subject_ref"]) for each in stored) == [
        ("finger", 7, ANNA),
        ("finger", 9, BORIS),
    ]
    assert van.provisioning.status() == {"finger": {"listed": 2, "stored": 2}}
    assert van.bundles.wanted() == []


async def test_what_is_kept_names_nobody_and_holds_no_template(van: Van, tmp_path: Path) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    records = {key: each for key, each in van.journal.records.items() if key.startswith("template/")}
    assert set(records) == {"template/finger/7"}, "remembered before it is sent"
    assert records["template/finger/7"]["stored"] is False
    van.obey()
    assert ANNA not in str(van.journal.records)
    held = (tmp_path / "roster.db").read_bytes()
    assert ANNA.encode() not in held
    assert template_of(ANNA)[100:116] not in held
    assert template_of(ANNA)[100:116] not in (tmp_path / "journal.db").read_bytes()


async def test_without_its_module_a_template_is_fetched_again_when_that_comes(van: Van) -> None:
    await van.push(template(ANNA, 7))
    assert van.bundles.wanted() == []
    van.open()
    assert len(van.bundles.wanted()) == 1
    assert van.bundles.versions() == {"roster": 1}, "its rows are in force all the while"
    await van.fetch()
    assert van.obey() == stores((ANNA, 7))


async def test_an_exchanged_module_is_filled_again(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    van.obey()
    van.saw(DeviceLost(reason="gone"))
    van.open()
    await van.fetch()
    assert van.obey() == stores((ANNA, 7))


async def test_another_finger_in_a_slot_is_stored_once_the_one_before_is_deleted(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    van.obey()
    await van.push(template(BORIS, 7))
    await van.fetch()
    assert van.obey() == [DeleteFinger(slot=7), *stores((BORIS, 7))]


async def test_a_slot_that_is_listed_twice_holds_nothing(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    van.obey()
    await van.push(template(ANNA, 7), template(BORIS, 7))
    assert van.obey() == [DeleteFinger(slot=7)]


async def test_more_than_fits_into_memory_is_stored_in_turn(van: Van) -> None:
    van.open()
    slots = range(IN_MEMORY // 1536 + 40)
    await van.push(*(template(ANNA, slot) for slot in slots))
    done: list[Any] = []
    while van.orders:
        done += van.obey()
        await van.fetch()
    assert sorted(action.slot for action in done) == list(slots)


# -- what goes wrong ------------------------------------------------------------------------------


async def test_what_a_module_refuses_is_told_and_tried_again_later(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    (action,) = van.orders
    van.orders.clear()
    van.saw(ActionDone(action=action, ok=False, reason="Store: library_full"))
    (told,) = await van.told("template_not_stored")
    assert (told["slot"], told["subject_ref"], told["reason"]) == (7, ANNA, "Store: library_full")
    assert "template/finger/7" not in van.journal.records
    van.provisioning.look()
    assert van.orders == []
    van.at = replace(van.at, mono_ns=van.at.mono_ns + int(AGAIN_S) * NS)
    van.provisioning.look()
    await van.fetch()
    assert van.orders == stores((ANNA, 7))


async def test_a_template_that_may_have_been_stored_is_deleted_and_stored_anew(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    (action,) = van.orders
    van.orders.clear()
    van.saw(ActionDone(action=action, ok=False, reason="outcome_unknown", unknown=True))
    van.saw(DeviceLost(reason="gone"))
    van.open(7)
    assert not van.inventory.doubts("finger"), "it is ours"
    await van.fetch()
    assert van.orders == [DeleteFinger(slot=7)]
    done = van.obey()
    await van.fetch()
    assert [*done, *van.obey()] == [DeleteFinger(slot=7), *stores((ANNA, 7))]


async def test_after_a_kill_what_was_being_stored_is_ours(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    await van.journal.save()
    van.orders.clear()
    van.bundles.close()
    van.start()
    van.open(7)
    assert not van.inventory.doubts("finger")
    assert van.orders == [DeleteFinger(slot=7)]


async def test_a_module_that_is_lost_over_a_slot_again_and_again_gets_a_rest(van: Van) -> None:
    await van.push(template(ANNA, 7))
    tries = 0
    for _ in range(5):
        van.open()
        await van.fetch()
        for action in van.orders:
            tries += 1
            van.saw(ActionDone(action=action, ok=False, reason="outcome_unknown", unknown=True))
        van.orders.clear()
        van.saw(DeviceLost(reason="gone"))
    assert tries == 2


async def test_a_unit_that_is_not_there_or_cannot_tell_is_told_of_once(van: Van) -> None:
    await van.push(template(ANNA, 7), template(ANNA, 7, unit="other"))
    for _ in range(3):
        van.saw(DeviceReady(port="/dev/ttyS0", about={"capacity": "200"}))
    reasons = [(each["unit"], each["reason"]) for each in await van.told("template_not_stored")]
    assert sorted(reasons) == [("finger", "no_index"), ("other", "unknown_unit")]
    assert van.orders == []


async def test_an_order_that_no_unit_took_is_told(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7))
    (action,) = van.orders
    assert van.provisioning.undone("finger", ActionDone(action=action, ok=False, reason="busy"))
    assert [each["reason"] for each in await van.told("template_not_stored")] == ["busy"]
    assert not van.provisioning.undone("finger", ActionDone(action=action, ok=False, reason="busy"))


# -- taking out -----------------------------------------------------------------------------------


async def stocked(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7), template(BORIS, 9))
    van.obey()


async def test_who_is_revoked_is_deleted_at_once(van: Van) -> None:
    await stocked(van)
    van.out = frozenset({ANNA, "drv-somebody"})
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=7)]
    (deleted,) = await van.told("template_deleted")
    assert (deleted["slot"], deleted["subject_ref"]) == (7, ANNA)
    assert "template/finger/7" not in van.journal.records
    assert van.bundles.wanted() == []


async def test_a_template_that_is_revoked_by_its_value_is_deleted(van: Van) -> None:
    await stocked(van)
    value = van.roster.rows.slots("roster")["finger", 9].value
    van.roster.authority = replace(van.roster.authority, is_revoked=lambda _, credential: credential == value)
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=9)]


async def test_who_is_revoked_while_the_module_is_away_is_deleted_when_it_is_back(van: Van) -> None:
    await stocked(van)
    van.saw(DeviceLost(reason="gone"))
    van.out = frozenset({ANNA})
    van.provisioning.look()
    assert van.orders == []
    van.bundles.close()
    van.start()
    van.open()
    assert van.obey() == [], "another module: the one that holds it may come back"
    van.saw(DeviceLost(reason="gone"))
    van.open(7, 9)
    assert van.obey() == [DeleteFinger(slot=7)]


async def test_who_is_no_longer_listed_is_deleted(van: Van) -> None:
    await stocked(van)
    await van.push(template(BORIS, 9))
    assert van.obey() == [DeleteFinger(slot=7)]


async def test_whose_time_is_up_is_deleted(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7, until=1_790_000_200))
    van.obey()
    van.at = replace(van.at, utc_ns=1_790_000_201 * NS)
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=7)]


async def test_who_is_erased_here_is_deleted_and_does_not_come_back(van: Van) -> None:
    await stocked(van)
    rows = van.roster.rows
    assert (rows.owned(ANNA), rows.disown(ANNA)) == (1, 1)
    rows.erased = frozenset({rows.erasure(ANNA)})
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=7)]
    van.press.laid = None
    await van.push(template(ANNA, 7), template(BORIS, 9))
    assert van.obey() == []


async def test_after_a_wipe_everything_of_ours_is_deleted(van: Van) -> None:
    await stocked(van)
    await asyncio.to_thread(van.roster.wipe)
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=7), DeleteFinger(slot=9)]


async def test_a_template_that_cannot_be_deleted_is_told_and_stays_ours(van: Van) -> None:
    await stocked(van)
    van.out = frozenset({ANNA})
    van.provisioning.look()
    (action,) = van.orders
    van.orders.clear()
    van.saw(ActionDone(action=action, ok=False, reason="not_deleted"))
    (told,) = await van.told("template_not_deleted")
    assert (told["slot"], told["subject_ref"], told["reason"]) == (7, ANNA, "not_deleted")
    van.open(7, 9)
    assert van.obey() == [DeleteFinger(slot=7)]


# -- belief ---------------------------------------------------------------------------------------


async def test_a_foreign_template_costs_belief_until_the_index_fits(van: Van) -> None:
    await stocked(van)
    van.open(7, 8, 9)
    assert van.inventory.doubts("finger")
    van.open(7, 8, 9)
    (mismatch,) = await van.told("inventory_mismatch")
    assert (mismatch["foreign"], mismatch["missing"]) == ([8], [])
    van.open(7, 9)
    assert not van.inventory.doubts("finger")
    assert len(await van.told("inventory_matched")) == 1


async def test_a_doubted_module_is_given_nobodys_finger(van: Van) -> None:
    await stocked(van)
    van.open(8)
    assert van.bundles.wanted() == []
    assert van.orders == []
    van.out = frozenset({ANNA})
    van.open(7, 8)
    assert van.obey() == [DeleteFinger(slot=7)], "but what is ours is taken back"


async def test_what_was_taught_here_before_the_fleet_came_is_left_as_it_is(van: Van) -> None:
    van.open(3, 4)
    await van.push(template(ANNA, 7), template(BORIS, 4))
    assert van.obey() == stores((ANNA, 7))
    assert not van.inventory.doubts("finger")
    (kept,) = await van.told("template_not_stored")
    assert (kept["slot"], kept["reason"]) == (4, "taught_here")
    van.saw(FingerEnrolled(slot=5, ok=True), ActionDone(action=DeleteFinger(slot=3), ok=True))
    van.open(4, 5, 7)
    assert not van.inventory.doubts("finger")
    van.open(5, 7)
    assert (await van.told("inventory_mismatch"))[0]["missing"] == [4]


async def test_at_first_sight_of_a_module_that_the_fleet_fills_nothing_is_taken_for_taught_here(
    van: Van,
) -> None:
    await van.push(template(ANNA, 7))
    van.open(8)
    assert van.inventory.doubts("finger")


async def test_a_module_that_the_fleet_says_nothing_of_is_nobodys_business_here(van: Van) -> None:
    van.open(3)
    await van.push()
    van.open(3, 4)
    assert not van.inventory.doubts("finger"), "what it tells of itself is looked at elsewhere"
    assert van.orders == []


# -- a list that is lost --------------------------------------------------------------------------


async def test_while_the_list_is_lost_fingers_stay_but_for_those_who_are_revoked(van: Van) -> None:
    van.open()
    await van.push(template(ANNA, 7), template(BORIS, 9))
    van.obey()
    van.roster.rows.drop("roster")
    van.awaiting = True
    van.provisioning.look()
    assert van.orders == []
    van.out = frozenset({BORIS})
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=9)]
    assert van.bundles.wanted() == []

    van.awaiting = False
    van.provisioning.look()
    assert van.obey() == [DeleteFinger(slot=7)], "once it is known that the fleet lists nobody"
