"""What a module should hold, what it holds, what of that is ours: and what is to be done."""

import random

import pytest

from agent.templates import Ours, Plan, Wanted, plan

ANNA = Wanted(value=bytes(16), owner="a" * 16, digest="d1" * 8)
BORIS = Wanted(value=bytes(16), owner="b" * 16, digest="d2" * 8)


def ours(wanted: Wanted, *, stored: bool = True) -> Ours:
    return Ours(owner=wanted.owner, digest=wanted.digest, stored=stored)


NOTHING: frozenset[int] = frozenset()
AT_7 = frozenset({7})

CASES = {
    "nothing anywhere": ({}, {}, NOTHING, NOTHING, Plan()),
    "wanted and not there": ({7: ANNA}, {}, NOTHING, NOTHING, Plan(store=(7,))),
    "wanted, ours and there": ({7: ANNA}, {7: ours(ANNA)}, NOTHING, AT_7, Plan()),
    "wanted, ours and gone: the module was exchanged": (
        {7: ANNA},
        {7: ours(ANNA)},
        NOTHING,
        NOTHING,
        Plan(store=(7,)),
    ),
    "ours, there and not wanted": ({}, {7: ours(ANNA)}, NOTHING, AT_7, Plan(delete=(7,))),
    "ours and not wanted, in a module that is away": ({}, {7: ours(ANNA)}, NOTHING, NOTHING, Plan()),
    "another person's now": ({7: BORIS}, {7: ours(ANNA)}, NOTHING, AT_7, Plan(delete=(7,))),
    "cut off while it was stored": (
        {7: ANNA},
        {7: ours(ANNA, stored=False)},
        NOTHING,
        AT_7,
        Plan(delete=(7,)),
    ),
    "cut off before it was stored": (
        {7: ANNA},
        {7: ours(ANNA, stored=False)},
        NOTHING,
        NOTHING,
        Plan(store=(7,)),
    ),
    "there and nobody's": ({}, {}, NOTHING, AT_7, Plan(foreign=(7,))),
    "there, nobody's, and wanted": ({7: ANNA}, {}, NOTHING, AT_7, Plan(foreign=(7,))),
    "taught here": ({}, {}, AT_7, AT_7, Plan()),
    "taught here and gone": ({}, {}, AT_7, NOTHING, Plan(missing=(7,))),
    "taught here and wanted": ({7: ANNA}, {}, AT_7, AT_7, Plan(kept=(7,))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_slot_is_judged(name: str) -> None:
    wanted, have, local, present, expected = CASES[name]
    assert plan(wanted, have, local, present) == expected


def test_only_what_nobody_put_there_or_took_away_costs_belief() -> None:
    assert Plan(store=(1,), delete=(2,), kept=(3,)).is_believed
    assert not Plan(foreign=(1,)).is_believed
    assert not Plan(missing=(1,)).is_believed


def test_a_plan_that_is_followed_leaves_nothing_to_do() -> None:
    """From any state that a module and our record of it can be in, whatever else is in the module."""
    seed = random.Random(7)
    for _ in range(2000):
        slots = range(6)
        wanted = {slot: seed.choice((ANNA, BORIS)) for slot in slots if seed.random() < 0.5}
        have = {
            slot: ours(seed.choice((ANNA, BORIS)), stored=seed.random() < 0.7)
            for slot in slots
            if seed.random() < 0.5
        }
        present = frozenset(slot for slot in slots if seed.random() < 0.5)
        local = frozenset(slot for slot in present if slot not in have and seed.random() < 0.3)
        before = plan(wanted, have, local, present)
        for _ in range(2):
            now = plan(wanted, have, local, present)
            for slot in now.delete:
                present -= {slot}
                del have[slot]
            for slot in now.store:
                present |= {slot}
                have[slot] = ours(wanted[slot])
        after = plan(wanted, have, local, present)
        assert (after.delete, after.store) == ((), ())
        assert (after.foreign, after.missing) == (before.foreign, before.missing), (
            "and nobody else's is touched"
        )
        held = {slot for slot in wanted if slot not in {*after.foreign, *after.kept, *after.missing}}
        assert held <= present
