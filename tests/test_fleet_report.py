"""One parcel over several devices, told as one story; each step with how far it is to be trusted."""

import json
import re
import sqlite3
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import rfc3339
from agent.fleet.audit import Auditor
from agent.fleet.store import Store
from agent.fleet.story import Told, tell
from agent.fleet.story_page import page
from tests.desk import FLEET
from tests.parcels import MORNING, OTHER, PARCEL, Machine, Way, to_the_locker
from tests.test_fleet_books import Said, fleet, objects

STORY = [
    ("van-0042", "accepted by drv-7f3a91"),
    ("van-0042", "laid on the table by drv-7f3a91"),
    ("van-0042", "handed over by drv-7f3a91 to driver drv-2c88e0 (badge + pin)"),
    ("van-0043", "accepted by drv-2c88e0"),
    ("van-0043", "damaged, noted by drv-2c88e0"),
    ("locker-hall-3", "scanned at the locker"),
    ("locker-hall-3", "opening of B7 for deposit ordered by drv-2c88e0"),
    ("locker-hall-3", "lock of B7 released"),
    ("locker-hall-3", "B7 opened"),
    ("locker-hall-3", "B7 closed"),
    ("locker-hall-3", "put into B7 by drv-2c88e0, sensor says occupied"),
    ("van-0043", "handed over by drv-2c88e0 to locker locker-hall-3 door B7"),
    ("locker-hall-3", "opening of B7 for pickup ordered by a grant"),
    ("locker-hall-3", "lock of B7 released"),
    ("locker-hall-3", "B7 opened"),
    ("locker-hall-3", "B7 closed"),
    ("locker-hall-3", "collected from B7, sensor says empty"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def auditor(path: Path) -> Iterator[Auditor]:
    store = Store(path)
    yield Auditor(store, FLEET)
    store.close()


@pytest.fixture
def way(auditor: Auditor) -> Way:
    made = to_the_locker()
    made.deliver(auditor)
    return made


def report(path: Path, *words: object, parcel: str = PARCEL) -> int:
    return fleet("report", parcel, "--store", path, *words)


def test_a_parcel_s_way_over_three_devices_is_one_story(way: Way, path: Path, capsys: Said) -> None:
    assert report(path, "--json") == 0
    steps = objects(capsys)
    assert [(each["device"], each["what"]) for each in steps] == STORY
    times = [each["time"] for each in steps]
    assert times == sorted(times)


def test_a_time_that_was_corrected_later_is_told_with_what_it_rests_on(
    way: Way, path: Path, capsys: Said
) -> None:
    report(path, "--json")
    (step,) = (each for each in objects(capsys) if each["what"].startswith("damaged"))
    assert (step["time"], step["recorded"]) == (
        "2026-11-24T08:31:40.000000Z",
        "2026-11-24T07:31:40.000000Z",
    )
    assert (step["trust"], step["ordered"]) == ("gps", True)


def test_each_step_says_which_checkpoint_and_receipt_cover_it(
    way: Way, auditor: Auditor, path: Path, capsys: Said
) -> None:
    way.locker.say("custody.seen", PARCEL, 9000, unit="desk")
    signed = len(way.locker.lines) - 1
    auditor.take(way.locker.work(signed), MORNING + 90_000)
    assert report(path, "--json", "--receipt-key", FLEET.verifier.text) == 0
    *before, last = objects(capsys)
    assert last["proof"] == {"checkpoint": None, "receipt": None, "signers": [], "failure": None}
    assert {each["proof"]["receipt"] for each in before if each["device"] == "locker-hall-3"} == {signed}
    assert all(each["proof"]["signers"] == ["fleet-main"] for each in before)


def test_a_line_that_was_changed_in_the_file_is_not_proven(
    way: Way, auditor: Auditor, path: Path, capsys: Said
) -> None:
    auditor.store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entry SET line = CAST(replace(line, 'damaged', 'refused') AS BLOB)")
    connection.close()
    assert report(path, "--json") == 3
    (bad,) = (each for each in objects(capsys) if each["proof"]["failure"])
    assert (bad["what"], bad["proof"]["failure"]) == (
        "refused, noted by drv-2c88e0",
        "the line is not the one that was signed",
    )


def test_as_text_it_says_who_has_it_now(way: Way, path: Path, capsys: Said) -> None:
    assert report(path) == 0
    first, heading, *rows = capsys.readouterr().out.splitlines()
    assert first == f"{PARCEL}: collected"
    assert heading.split() == ["TIME", "BY", "DEVICE", "WHERE", "PROOF", "WHAT"]
    assert len(rows) == len(STORY)
    assert report(path, parcel=OTHER) == 0
    assert capsys.readouterr().out.startswith(f"{OTHER}: in the custody of drv-7f3a91")


def test_a_parcel_that_nobody_has_seen_is_told_as_such(way: Way, path: Path, capsys: Said) -> None:
    assert report(path, parcel="sscc:000000000000000000") == 1
    assert "expected entries about it, got none" in capsys.readouterr().err


# -- the page -------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Its text, the elements in it and whatever they could fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.active += [
            name for name, _ in attrs if name.startswith("on") or name in ("src", "href", "style")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_tells_all_of_it_and_fetches_nothing(way: Way, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "parcel.html"
    assert report(path, "--html", file) == 0
    found = read(file.read_text("utf-8"))
    text = " ".join(found.text)
    for _, what in STORY:
        assert what in text
    for part in (
        "Collected",
        "Handovers",
        "Exceptions",
        "corrected later (it said",
        "receipt",
        "first sight",
    ):
        assert part in text
    assert not found.active
    assert not found.tags & {"script", "img", "link", "iframe", "form", "object"}
    assert "url(" not in file.read_text("utf-8")


def test_no_code_and_no_receipt_gets_into_it(way: Way, path: Path, tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "parcel.html"
    report(path, "--html", file)
    shown = file.read_text("utf-8") + capsys.readouterr().out
    assert not re.search("SECRETGRANT|SEALEDCODE|RECEIPTTEXT", shown)


@given(st.text(max_size=40), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_whatever_a_device_says_it_is_text(subject: str, by: str) -> None:
    machine = Machine("van-0042")
    subject = f"<script>{subject}</script>\"'"
    subject = subject.encode(errors="replace").decode()
    machine.say("custody.accepted", subject, 1, unit="<b onload=x>", by=by)
    entry = json.loads(machine.lines[0])
    steps = tell([Told(device="van-0042", ledger=1, sequence=1, entry=entry)])
    found = read(page(subject, steps, [], "now"))
    assert not found.tags & {"script", "b"}
    assert not found.active


# -- EPCIS ----------------------------------------------------------------------------------------


def test_as_epcis_it_is_the_same_story(way: Way, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "parcel.json"
    assert report(path, "--epcis", file) == 0
    document = json.loads(file.read_text("utf-8"))
    events = document["epcisBody"]["eventList"]
    assert [each["postern:entryType"].removeprefix("postern.") for each in events] == [
        "custody.accepted",
        "custody.offered",
        "custody.handed_over",
        "custody.accepted",
        "custody.exception_noted",
        "locker.deposited",
        "custody.handed_over",
        "locker.collected",
    ]
    assert [each["eventTime"] for each in events] == sorted(each["eventTime"] for each in events)


# -- order ----------------------------------------------------------------------------------------


def told(device: str, *moments: tuple[float, str]) -> list[Told]:
    machine, found = Machine(device), []
    for sequence, (at_s, trust) in enumerate(moments, 1):
        machine.trust = trust
        machine.say("custody.seen", PARCEL, at_s, unit="belt")
        entry: dict[str, Any] = json.loads(machine.lines[-1])
        found.append(Told(device=device, ledger=1, sequence=sequence, entry=entry))
    return found


MOMENT = st.tuples(st.floats(0, 1000), st.sampled_from(["gps", "none", "rtc"]))


@given(st.lists(MOMENT, max_size=8), st.lists(MOMENT, max_size=8))
def test_a_device_s_own_entries_keep_their_order(one: list[Any], other: list[Any]) -> None:
    steps = tell([*told("van-0001", *one), *told("van-0002", *other)])
    assert len(steps) == len(one) + len(other)
    for device in ("van-0001", "van-0002"):
        own = [step.told.sequence for step in steps if step.told.device == device]
        assert own == sorted(own)


@given(st.lists(st.floats(0, 1000), max_size=8), st.lists(st.floats(0, 1000), max_size=8))
def test_entries_with_trusted_times_are_in_the_order_of_their_times(
    one: list[float], other: list[float]
) -> None:
    def trusted(device: str, times: list[float]) -> list[Told]:
        return told(device, *((time, "gps") for time in sorted(times)))

    steps = tell([*trusted("van-0001", one), *trusted("van-0002", other)])
    times = [step.time for step in steps]
    assert times == sorted(times)


@pytest.mark.parametrize("wrong", [-1e9, 0.0, 1e6])
def test_a_clock_that_nobody_trusts_places_an_entry_between_its_neighbours(wrong: float) -> None:
    one = told("van-0001", (10, "gps"), (wrong, "none"), (30, "gps"))
    two = told("van-0002", (5, "gps"), (35, "gps"))
    steps = tell([*one, *two])
    assert [(each.told.device[-1], each.told.sequence) for each in steps] == [
        ("2", 1),
        ("1", 1),
        ("1", 2),
        ("1", 3),
        ("2", 2),
    ]
    assert steps[2].recorded == rfc3339(int((MORNING + wrong) * 10**9))
    assert "clock not set" in steps[2].time_words
