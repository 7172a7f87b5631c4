"""Bundles on the device: what is asked for, what is taken, when it counts, and what a flood may cost."""

import asyncio
import contextlib
import itertools
import os
import random
import resource
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.bundle import TOTAL, Bundles
from agent.fleet.sealing import Epoch, RowOf
from agent.page import LIMIT
from agent.row_seal import Keys, bucket_of, value_of
from agent.rows import Rows
from agent.workflow import Draft
from tests.bundles import ADDRESS, AS_OF, Press, badge, badges
from tests.site import LONG

KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))


@dataclass
class Van:
    """A device's rows and what fills them, for as many lives as a test needs."""

    path: Path
    press: Press = field(default_factory=Press)
    entries: list[Draft] = field(default_factory=list)

    def start(self) -> None:
        self.rows = Rows(self.path, KEYS)
        self.bundles = Bundles(self.rows, self.press.seal, ADDRESS, self.report)

    def stop(self) -> None:
        self.bundles.close()
        self.rows.close()

    async def report(self, draft: Draft) -> None:
        """Told once it is awaited, and not before."""
        self.entries.append(draft)

    async def fetch(self, most: int = 10**6, pages: dict[str, bytes] | None = None) -> list[str]:
        """Bring what is wanted until nothing is, or `most` pages; which they were."""
        held = pages or self.press.pages
        brought: list[str] = []
        while len(brought) < most and (wanted := self.bundles.wanted()):
            assert await self.bundles.page(held[wanted[0]])
            brought.append(wanted[0])
        return brought

    def subject(self, number: int) -> str | None:
        body = self.rows.open("roster", "badge", badge(number))
        return None if body is None else str(body["subject"])

    def told(self, name: str) -> list[dict[str, Any]]:
        return [dict(draft.data) for draft in self.entries if draft.type == name]


@pytest.fixture
async def van(tmp_path: Path) -> AsyncIterator[Van]:
    made = Van(tmp_path / "roster.db")
    made.start()
    yield made
    made.stop()


# -- asking and taking ----------------------------------------------------------------------------


async def test_a_bundle_is_fetched_page_by_page_and_then_counts(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    assert len(van.bundles.wanted()) == 1, "the key page alone, until the rows have a place to go"
    brought = await van.fetch(most=4)
    assert van.subject(7) is None
    brought += await van.fetch()
    assert sorted(brought) == sorted(van.press.pages)
    assert [van.subject(number) for number in (0, 299, 300)] == ["drv-0", "drv-299", None]
    pages = len(van.press.pages)
    completed = {"kind": "roster", "ver": 1, "rows": 300, "pages": pages, "changed": pages}
    assert van.told("fleet.bundle_completed") == [completed]
    assert van.bundles.versions() == {"roster": 1}
    assert van.rows.as_of("roster") == AS_OF + 1


async def test_a_change_costs_its_page_alone(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    before = set(van.press.pages)
    rows = badges(range(300))
    rows[7] = RowOf("badge", badge(7), {"subject": "drv-new"})
    await van.bundles.accepted(van.press.print(rows))
    assert set(await van.fetch()) == set(van.press.pages) - before
    assert len(set(van.press.pages) - before) == 1
    assert van.subject(7) == "drv-new"
    assert van.told("fleet.bundle_completed")[-1]["changed"] == 1


async def test_a_row_that_is_left_out_is_gone(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    await van.bundles.accepted(van.press.print(badges(number for number in range(300) if number != 7)))
    await van.fetch()
    assert [number for number in range(300) if van.subject(number) is None] == [7]


async def test_a_page_that_is_left_out_takes_its_rows_with_it(van: Van) -> None:
    document = van.press.print(badges(range(300)))
    await van.bundles.accepted(document)
    await van.fetch()
    values = {number: value_of(van.press.epoch.key, "badge", badge(number)) for number in range(300)}
    stay = {number for number, value in values.items() if bucket_of(value, document.body.buckets)}
    assert 0 < len(stay) < 300
    await van.bundles.accepted(van.press.print(badges(stay)))
    assert van.bundles.wanted() == []
    assert {number for number in range(300) if van.subject(number)} == stay
    assert len(van.rows) == len(stay)


async def test_a_download_that_breaks_off_goes_on_with_what_is_lacked(van: Van) -> None:
    document = van.press.print(badges(range(300)))
    await van.bundles.accepted(document)
    first = await van.fetch(most=5)
    van.stop()
    van.start()
    await van.bundles.accepted(document)
    rest = await van.fetch()
    assert sorted(first + rest) == sorted(van.press.pages), "none is fetched twice"
    assert van.subject(299) == "drv-299"


async def test_what_is_in_force_already_asks_for_nothing_and_tells_nothing(van: Van) -> None:
    document = van.press.print(badges(range(300)))
    await van.bundles.accepted(document)
    await van.fetch()
    van.stop()
    van.start()
    await van.bundles.accepted(document)
    assert van.bundles.wanted() == []
    assert len(van.told("fleet.bundle_completed")) == 1
    assert van.subject(7) == "drv-7"


async def test_a_newer_list_takes_over_while_an_older_one_is_fetched(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch(most=5)
    await van.bundles.accepted(van.press.print(badges(range(200))))
    await van.fetch()
    assert (van.subject(199), van.subject(200)) == ("drv-199", None)
    assert [each["ver"] for each in van.told("fleet.bundle_completed")] == [2]


async def test_a_new_epoch_key_replaces_everything_at_once(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    old = set(van.press.pages)
    van.press.epoch = Epoch(2, bytes(32))
    await van.bundles.accepted(van.press.print(badges(range(200), "new")))
    assert not old & set(van.press.pages)
    await van.fetch(most=len(van.press.pages) - 1)
    assert (van.subject(7), van.subject(299)) == ("drv-7", "drv-299"), "until the last page is here"
    await van.fetch()
    assert (van.subject(7), van.subject(299)) == ("new-7", None)
    assert len(van.rows) == 200


async def test_an_empty_bundle_takes_everything_away(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    empty = {**van.press.print([]).body.model_dump(), "pages": []}
    await van.bundles.accepted(van.press.signed(empty))
    assert (van.subject(7), len(van.rows)) == (None, 0)
    assert van.told("fleet.bundle_completed")[-1]["rows"] == 0


async def test_a_bundle_without_rows_but_with_a_key_does_so_too(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    await van.bundles.accepted(van.press.print([]))
    await van.fetch()
    assert (van.subject(7), len(van.rows)) == (None, 0)


async def test_the_bundles_of_a_device_are_filled_side_by_side(van: Van) -> None:
    parcels = Press(seal=van.press.seal, signer=van.press.signer, kind="manifest")
    rows = [RowOf("parcel", b"sscc:%018d" % number, {"stop": f"s-{number}"}) for number in range(50)]
    await van.bundles.accepted(van.press.print(badges(range(50))))
    await van.bundles.accepted(parcels.print(rows))
    await van.fetch(pages=van.press.pages | parcels.pages)
    assert van.subject(7) == "drv-7"
    assert van.rows.open("manifest", "parcel", b"sscc:%018d" % 7) == {"stop": "s-7"}
    assert van.rows.open("roster", "parcel", b"sscc:%018d" % 7) is None
    assert van.bundles.versions() == {"roster": 1, "manifest": 1}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_order_of_lists_pages_and_restarts_the_last_list_is_what_counts(
    van: Van, seed: int
) -> None:
    rng = random.Random(seed)
    pages: dict[str, bytes] = {}
    chosen: set[int] = set()
    for _ in range(rng.randint(2, 5)):
        if rng.random() < 0.3:
            van.press.epoch = Epoch(van.press.epoch.id + 1, rng.randbytes(32))
        chosen = set(rng.sample(range(400), rng.randint(0, 300)))
        document = van.press.print(badges(chosen))
        pages |= van.press.pages
        await van.bundles.accepted(document)
        for _ in range(rng.randint(0, 30)):
            await van.bundles.page(rng.choice(list(pages.values())))
        if rng.random() < 0.5:
            van.stop()
            van.start()
            await van.bundles.accepted(document)
    await van.fetch()
    assert {number for number in range(400) if van.subject(number)} == chosen
    assert len(van.rows) == len(chosen)


async def test_a_list_that_is_signed_anew_costs_no_page(van: Van) -> None:
    """A key that signs bundles was thrown out: nothing opens until another has signed the same pages."""
    document = van.press.print(badges(range(300)))
    await van.bundles.accepted(document)
    await van.fetch()
    await van.bundles.forgotten("roster")
    assert (van.subject(7), van.bundles.versions()) == (None, {})
    van.press.signer = Press().signer
    await van.bundles.accepted(van.press.signed(document.body.model_dump()))
    assert van.bundles.wanted() == []
    assert van.subject(7) == "drv-7"
    assert van.told("fleet.bundle_completed")[-1]["changed"] == 0


async def test_a_list_that_nobody_signs_anew_leaves_nothing(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    for _ in range(2):
        await van.bundles.forgotten("roster")
        van.stop()
        van.start()
        assert van.subject(7) is None
    assert len(van.rows) == 0


# -- what is not taken ----------------------------------------------------------------------------


async def test_pages_that_nobody_lacks_are_dropped_and_counted(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    for raw in (b"", b"noise", bytes(LIMIT + 1), next(reversed(van.press.pages.values()))):
        assert not await van.bundles.page(raw)
    assert van.bundles.dropped == {"unwanted": 4}
    assert [each["times"] for each in van.told("fleet.page_refused")] == [1], "not one entry for each"
    await van.bundles.accepted(van.press.print(badges(range(300))))
    assert van.told("fleet.refusals_counted") == [{"times": {"page: unwanted": 4}}]
    await van.fetch()
    assert van.subject(7) == "drv-7"


async def test_a_page_for_another_device_is_not_asked_for_again(van: Van) -> None:
    """The fleet signed a list of pages that this device cannot open: that is told, and changes nothing."""
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    elsewhere = Press(signer=van.press.signer, ver=5)
    await van.bundles.accepted(elsewhere.print(badges(range(10), "other")))
    (wanted,) = van.bundles.wanted()
    assert not await van.bundles.page(elsewhere.pages[wanted])
    assert van.bundles.wanted() == []
    (refused,) = van.told("fleet.page_refused")
    assert (refused["kind"], refused["bucket"], refused["reason"]) == ("roster", -1, "bad_page")
    assert van.subject(7) == "drv-7"
    await van.bundles.accepted(van.press.print(badges(range(20), "again")))
    await van.fetch()
    assert van.subject(7) == "again-7"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("no key page", "expected a key page, got none"),
        ("rows without pages", "expected pages for 10 rows, got none"),
        ("too much", f"expected at most {TOTAL} bytes of pages"),
    ],
)
async def test_a_list_that_cannot_be_right_changes_nothing(van: Van, wrong: str, said: str) -> None:
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch()
    body = van.press.print(badges(range(10))).body.model_dump()
    match wrong:
        case "no key page":
            body["pages"] = [each for each in body["pages"] if each["bucket"] != -1]
        case "rows without pages":
            body["pages"] = []
        case "too much":
            many = range(TOTAL // LIMIT + 1)
            body["buckets"] = 512
            body["pages"] = [
                {
                    "bucket": at,
                    "ver": 1,
                    "sha256": sha256(bytes([at & 255, at >> 8])).hexdigest(),
                    "size": LIMIT,
                }
                for at in many
            ]
    await van.bundles.accepted(van.press.signed(body))
    assert van.bundles.wanted() == []
    (refused,) = van.told("fleet.page_refused")
    assert refused["reason"] == "schema"
    assert said in refused["detail"]
    assert van.subject(299) == "drv-299"


async def test_a_declared_size_that_is_not_the_page_s_is_no_page(van: Van) -> None:
    body = van.press.print(badges(range(300))).body.model_dump()
    body["pages"] = [{**each, "size": each["size"] + 1} for each in body["pages"]]
    await van.bundles.accepted(van.press.signed(body))
    (wanted,) = van.bundles.wanted()
    assert not await van.bundles.page(van.press.pages[wanted])
    assert van.bundles.dropped == {"size": 1}


async def test_a_page_with_rows_of_another_bucket_changes_nothing(van: Van) -> None:
    """Only a fleet that errs signs such a list."""
    document = van.press.print(badges(range(300)))
    body = document.body.model_dump()
    one, two = body["pages"][1:3]
    one["bucket"], two["bucket"] = two["bucket"], one["bucket"]
    await van.bundles.accepted(van.press.signed(body))
    assert await van.bundles.page(van.press.pages[van.bundles.wanted()[0]])
    for each in (one, two):
        assert not await van.bundles.page(van.press.pages[each["sha256"]])
    assert not {one["sha256"], two["sha256"]} & set(van.bundles.wanted())
    await van.fetch()
    assert van.subject(7) is None
    assert van.told("fleet.bundle_completed") == []


async def test_a_full_disk_costs_nothing_but_time(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(3000))))
    await van.fetch(most=2)
    wanted = van.bundles.wanted()
    with room_for(van.path.stat().st_size):
        while await van.bundles.page(van.press.pages[wanted[0]]):
            wanted = van.bundles.wanted()
    assert van.bundles.dropped == {"storage": 1}
    assert van.bundles.wanted() == wanted
    await van.fetch()
    assert van.subject(2999) == "drv-2999"


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of ours grows over this size, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_flood_of_pages_takes_no_room(van: Van) -> None:
    """A gibibyte of chunks, in the long form: disk and memory stay as they were."""
    await van.bundles.accepted(van.press.print(badges(range(300))))
    await van.fetch(most=3)
    folder = van.path.parent
    before = sum(file.stat().st_size for file in folder.iterdir())
    noise = os.urandom(LIMIT)
    tracemalloc.start()
    for number in range((1024 if LONG else 32) * 1024 * 1024 // LIMIT):
        assert not await van.bundles.page(number.to_bytes(4, "big") + noise[4:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    declared = sum(len(raw) for raw in van.press.pages.values())
    assert (
        sum(file.stat().st_size for file in folder.iterdir()) <= before + LIMIT <= declared + before + LIMIT
    )
    assert peak < 8 * LIMIT
    assert len(van.entries) < 6
    await van.fetch()
    assert van.subject(299) == "drv-299"


async def test_looking_up_goes_on_while_pages_come(van: Van) -> None:
    await van.bundles.accepted(van.press.print(badges(range(2000))))
    await van.fetch()
    await van.bundles.accepted(van.press.print(badges(range(2000), "new")))
    seen: set[str | None] = set()
    taking = asyncio.create_task(van.fetch())
    for number in itertools.cycle(range(2000)):
        seen.add((van.subject(number) or "").partition("-")[0])
        await asyncio.sleep(0)
        if taking.done():
            break
    assert seen == {"drv", "new"}
    with contextlib.suppress(asyncio.CancelledError):
        await taking
    assert van.subject(1999) == "new-1999"


# -- anew -------------------------------------------------------------------------------------------


async def test_what_is_reloaded_is_fetched_to_the_last_page_and_in_force_meanwhile(van: Van) -> None:
    document = van.press.print(badges(range(300)))
    await van.bundles.accepted(document)
    brought = await van.fetch()
    assert await van.bundles.reload(document) == len(van.press.pages)
    again = await van.fetch(most=3)
    assert van.subject(7) == "drv-7"
    van.stop()
    van.start()
    await van.bundles.accepted(document)
    again += await van.fetch()
    assert sorted(again) == sorted(brought)
    assert (van.subject(7), len(van.rows), van.bundles.versions()) == ("drv-7", 300, {"roster": 1})
