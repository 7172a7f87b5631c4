"""Entries that will not come are followed by their hashes, and nobody can use that to make one disappear."""

import random
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fleet.audit import Work
from agent.fleet.claim_book import Account
from agent.fleet.claims import Declaration, Why, declaration
from agent.fleet.device_log import BadEntry, parse_entry
from agent.fleet.findings import Kind
from agent.fleet.store import Ledger
from agent.ledger import leaf_hash
from agent.workflow import Lane
from tests.desk import NOW, Desk, Journal, batch
from tests.site import LONG
from tests.test_collect import DEVICE, line


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Desk(tmp_path / "fleet.db")) as made:
        yield made


def ledger(desk: Desk, epoch: str = "e1") -> Ledger:
    found = desk.store.known_ledger(DEVICE, epoch)
    assert found is not None
    return found


def accounts(desk: Desk) -> dict[str, Account]:
    """By lane, checked against what the device has signed."""
    now = ledger(desk)
    found = desk.store.claims.accounts(now.id, now.accounted)
    assert sum(each.produced for each in found) == now.accounted
    return {each.lane: each for each in found}


# -- what an entry declares -----------------------------------------------------------------------


def told(raw: bytes) -> Declaration | None:
    entry, _, sequence = parse_entry(raw, DEVICE)
    return declaration(entry, sequence)


def test_a_device_s_own_declaration_is_read_as_it_was_meant() -> None:
    journal = Journal().grow(20).lose(3, 4, 9)
    found = told(journal.lines[20])
    assert found is not None
    assert found.leaves == {n: leaf_hash(journal.lines[n - 1]) for n in (3, 4, 9)}
    assert (found.why, found.lane) == (Why.LOST, "telemetry")


def loss(**changes: Any) -> bytes:
    """A declaration of entries 3 and 4 by entry 9, changed."""
    data = {"lane": "telemetry", "count": 2, "ranges": [[3, 4]], "leaves": b64encode(bytes(64)).decode()}
    return line(9, type="postern.journal.declared_loss", data={**data, **changes})


def passed_over(sequence: int, lost: object, leaf: object) -> bytes:
    data = {"sequence": lost, "bytes": 70_000, "reason": "0x95", "lane": "custody", "leaf": leaf}
    return line(sequence, type="postern.uplink.entry_passed_over", data=data, lane="custody")


ONE = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "raw",
    [
        loss(count=3),
        loss(count=-2),
        loss(count="2"),
        loss(ranges=[[3, 5]]),
        loss(ranges=[[4, 3]]),
        loss(ranges=[[3, 3], [3, 3]]),
        loss(ranges=[[4, 4], [3, 3]]),
        loss(ranges=[[8, 9]]),
        loss(ranges=[[0, 1]]),
        loss(ranges=[[1, 2**62]]),
        loss(ranges=[3, 4]),
        loss(ranges=None),
        loss(leaves="?"),
        loss(leaves=7),
        loss(leaves=ONE[:-4]),
        loss(unwritten=1),
        passed_over(9, "9", ONE),
        passed_over(9, "0", ONE),
        passed_over(9, 3, ONE),
        passed_over(9, "3", ""),
        passed_over(9, "3", None),
        passed_over(9, "3", b64encode(bytes(64)).decode()),
    ],
)
def test_a_declaration_that_does_not_add_up_is_told_of_and_not_believed(raw: bytes, desk: Desk) -> None:
    with pytest.raises(BadEntry):
        told(raw)
    desk.take(batch(raw))
    assert desk.kinds == [Kind.CONTRADICTION]
    assert ledger(desk).whole == 0


def test_an_entry_of_an_older_agent_that_gives_no_hash_declares_nothing() -> None:
    data = {"sequence": "3", "bytes": 70_000, "reason": "0x95"}
    assert told(line(9, type="postern.uplink.entry_passed_over", data=data)) is None


# -- the books go on ------------------------------------------------------------------------------


def test_a_declared_loss_is_followed_by_its_hashes(desk: Desk) -> None:
    journal = Journal().grow(300, lane="custody").lose(*range(100, 150), 200).grow(19, lane="state")
    desk.take(journal.born(), journal.sent(), journal.noted(64), journal.noted())
    assert desk.cosigned(journal) == 320
    assert not desk.told
    assert accounts(desk) == {
        "custody": Account(lane="custody", delivered=249),
        "state": Account(lane="state", delivered=20),
        "telemetry": Account(lane="telemetry", declared=51),
    }


def test_what_the_broker_would_never_take_is_followed_by_its_hash(desk: Desk) -> None:
    journal = Journal().grow(30, lane="custody")
    leaf = b64encode(leaf_hash(journal.lines[16])).decode()
    journal.lines.append(passed_over(31, "17", leaf))
    journal.gone.add(17)
    desk.take(journal.born(), journal.sent(), journal.noted())
    assert desk.cosigned(journal) == 31
    assert accounts(desk) == {"custody": Account(lane="custody", delivered=30, passed_over=1)}


def test_what_was_dropped_before_it_had_a_sequence_is_counted_beside(desk: Desk) -> None:
    journal = Journal().grow(3, lane="custody").drop_unwritten(40)
    desk.take(journal.born(), journal.sent(), journal.noted())
    assert accounts(desk)["telemetry"] == Account(lane="telemetry", unwritten=40)
    assert accounts(desk)["state"].delivered == 1


def test_a_line_that_comes_after_it_was_declared_lost_is_delivered(desk: Desk) -> None:
    journal = Journal().grow(20, lane="telemetry").lose(5, 6)
    desk.take(journal.born(), journal.sent(), journal.noted())
    outcome = desk.take(batch(journal.lines[4]))
    assert [entry["sequence"] for entry in outcome.entries] == ["5"]
    assert not desk.told
    assert accounts(desk)["telemetry"] == Account(lane="telemetry", delivered=19, declared=1)


@pytest.mark.timeout(180)
@settings(max_examples=300 if LONG else 40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 60))
def test_in_any_order_what_is_produced_is_delivered_or_declared(chance: random.Random, size: int) -> None:
    journal = Journal()
    lanes = [lane.name.lower() for lane in Lane]
    while len(journal.lines) < size:
        journal.grow(1, lane=chance.choice(lanes))
        # A declaration itself is never dropped.
        there = [each for each in journal.there() if b"declared" not in journal.lines[each - 1]]
        if chance.random() < 0.2 and there:
            journal.lose(*sorted(chance.sample(there, min(len(there), 3))))
    total = len(journal.lines)
    work: list[Work] = [journal.sent(number) for number in journal.there()]
    work += [journal.noted(chance.randint(1, total)) for _ in range(3)]
    forged = [batch(line(chance.randint(1, total), subject="forged")) for _ in range(3)]
    work += [*forged, journal.noted()]
    chance.shuffle(work)
    with tempfile.TemporaryDirectory() as folder, closing(Desk(Path(folder) / "fleet.db")) as desk:
        desk.take(journal.born())
        while work:
            count = chance.randint(1, len(work))
            desk.take(*work[:count])
            del work[:count]
        # Whatever was forged, the next checkpoint settles it.
        journal.grow(1, lane="state")
        desk.take(journal.sent(total + 1), journal.noted())
        found, open_ones = accounts(desk), [each.finding.kind for each in desk.store.findings.all()]
    assert desk.cosigned(journal) == total + 1
    assert not set(open_ones) - {Kind.GAP}
    assert sum(each.declared for each in found.values()) == len(journal.gone)


# -- lies -----------------------------------------------------------------------------------------


def test_a_false_hash_is_found_by_the_signed_root_and_never_cosigned(desk: Desk) -> None:
    journal = Journal().grow(20)
    false = journal.copy(20)
    false.lines[4] = line(5, subject="another")
    journal.lines.append(false.lose(5).lines[20])
    journal.gone.add(5)
    desk.take(journal.born(), journal.sent(), journal.noted(4), journal.noted())
    assert desk.kinds == [Kind.FORK]
    assert desk.cosigned(journal) == 4


def test_a_device_that_signs_for_a_false_hash_of_what_is_here_is_cosigned_no_more(desk: Desk) -> None:
    journal = Journal().grow(20)
    false = journal.copy(20)
    false.lines[4] = line(5, subject="another")
    journal.lines.append(false.lose(5).lines[20])
    desk.take(journal.born(), journal.sent(), journal.noted(20), journal.noted())
    assert desk.told == [(Kind.FORK, "entry 21 declares another hash for entry 5 than was signed")]
    assert desk.receipt is None


def test_nobody_can_declare_lost_what_was_only_withheld(desk: Desk) -> None:
    """Whoever carries the entries has seen entry 10, and knows its hash."""
    journal = Journal().grow(64)
    forged = journal.copy(64).lose(10).lines[64]
    desk.take(journal.born(), journal.sent(*range(1, 10), *range(11, 65)), batch(forged), journal.noted())
    assert ledger(desk).agreed.size == 64
    assert desk.receipt is None
    journal.grow(64)
    desk.take(journal.sent(*range(65, 129)), journal.noted())
    assert ledger(desk).agreed.size == 128
    assert ledger(desk).accounted == 9
    assert desk.receipt is None
    assert Kind.CONTRADICTION in desk.kinds
    desk.take(now=NOW + 1000)
    assert desk.told[-1] == (Kind.GAP, "of the 128 entries signed, 1 missing: 10")
    desk.take(journal.sent(10))
    assert desk.cosigned(journal) == 128
    assert not list(desk.store.findings.all())


def test_a_forged_declaration_alone_fills_no_gap(desk: Desk) -> None:
    journal = Journal().grow(64)
    forged = journal.copy(64).lose(10).lines[64]
    desk.take(journal.born(), journal.sent(*range(1, 10), *range(11, 65)), journal.noted())
    desk.take(now=NOW + 1000)
    desk.take(batch(forged), now=NOW + 2000)
    desk.take(now=NOW + 3000)
    (gap,) = desk.store.findings.all()
    assert gap.finding.text == "of the 64 entries signed, 1 missing: 10"


def test_a_receipt_waits_until_the_declaration_itself_is_signed_for(desk: Desk) -> None:
    journal = Journal().grow(64).lose(10).grow(9)
    desk.take(journal.born(), journal.sent(), journal.noted(64))
    assert (ledger(desk).agreed.size, ledger(desk).accounted) == (64, 9)
    assert desk.receipt is None
    desk.take(journal.noted())
    assert desk.cosigned(journal) == 74


def test_a_forged_line_for_what_was_declared_lost_gives_way(desk: Desk) -> None:
    journal = Journal().grow(20).lose(5)
    forged = batch(line(5, subject="forged"))
    desk.take(journal.born(), journal.sent(), forged)
    desk.take(journal.noted())
    assert desk.kinds == [Kind.CONTRADICTION]
    assert desk.cosigned(journal) == 21
    assert accounts(desk)["telemetry"].declared == 1
    assert desk.store.line(ledger(desk).id, 5) is None


def test_forgeries_that_came_first_and_second_are_both_sorted_out(desk: Desk) -> None:
    journal = Journal().grow(20)
    desk.take(journal.born(), batch(line(5, subject="forged"), line(6, subject="forged")))
    desk.take(journal.sent(), batch(line(7, subject="forged"), line(5, subject="other")))
    desk.take(journal.noted())
    assert desk.cosigned(journal) == 20
    assert set(desk.kinds) == {Kind.CONTRADICTION}
    assert not list(desk.store.findings.all())


def test_a_fork_that_was_a_forgery_is_settled_when_the_device_s_own_entry_comes(desk: Desk) -> None:
    journal = Journal().grow(20)
    others = [n for n in range(1, 21) if n != 5]
    desk.take(journal.born(), batch(line(5, subject="forged")), journal.sent(*others), journal.noted())
    assert desk.kinds == [Kind.FORK]
    journal.grow(1)
    desk.take(journal.sent(5, 21), journal.noted())
    assert desk.cosigned(journal) == 21
    assert not list(desk.store.findings.all())
    assert len(list(desk.store.findings.all(settled=True))) == 2


# -- findings -------------------------------------------------------------------------------------


def test_a_gap_is_settled_when_it_is_filled_and_can_open_again(desk: Desk) -> None:
    journal = Journal().grow(64)
    desk.take(journal.born(), journal.sent(*range(1, 11), *range(13, 60)), journal.noted())
    desk.take(now=NOW + 1000)
    (gap,) = desk.store.findings.all()
    assert gap.finding.text == "of the 64 entries signed, 7 missing: 11-12, 60-64"
    desk.take(journal.sent(11, 12), now=NOW + 2000)
    assert not list(desk.store.findings.all())
    desk.take(now=NOW + 3000)
    (gap,) = desk.store.findings.all()
    assert gap.finding.text == "of the 64 entries signed, 5 missing: 60-64"
    desk.take(journal.sent(*range(60, 65)), now=NOW + 4000)
    assert [each.settled for each in desk.store.findings.all(settled=True)] == [NOW + 2000, NOW + 4000]
    assert desk.cosigned(journal) == 64


def test_a_device_that_outgrew_its_old_copy_before_it_was_heard_is_rolled_back_all_the_same(
    desk: Desk,
) -> None:
    journal = Journal().grow(200)
    old = journal.copy(100).grow(200, subject="another")
    desk.take(journal.born(), journal.sent(), journal.noted())
    desk.take(old.sent(*range(101, 301)), old.noted())
    assert desk.kinds == [Kind.CONTRADICTION, Kind.ROLLBACK]
    assert desk.cosigned(journal) == 200
