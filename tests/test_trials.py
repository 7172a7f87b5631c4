"""Which polarity follows from doors that were opened and shut by hand, and which lines for the config."""

import pytest

from agent.locker.trials import Trial, moved, proposal, switches
from drivers.doors import Board, Fact


def board(polarity: str = "1_locked", inverted: tuple[int, ...] = ()) -> Board:
    return Board.model_validate({"address": 3, "locks": 4, "polarity": polarity, "inverted": list(inverted)})


def tried(shut: str) -> list[Trial]:
    """The bit of each lock while its door was shut; `?` for one that was left out."""
    return [
        Trial(lock=lock, shut=bit == "1", open=bit == "0") for lock, bit in enumerate(shut, 1) if bit != "?"
    ]


@pytest.mark.parametrize(
    ("of", "shut", "line"),
    [
        (board(), "1111", 'polarity = "1_locked"'),
        (board("0_locked"), "1111", 'polarity = "1_locked"'),
        (board(), "0000", 'polarity = "0_locked"'),
        (board(), "1101", 'polarity = "1_locked", inverted = [3]'),
        (board(), "0100", 'polarity = "0_locked", inverted = [2]'),
        (board(), "0011", 'polarity = "1_locked", inverted = [1, 2]'),
        (board("0_locked"), "0011", 'polarity = "0_locked", inverted = [3, 4]'),
        (board("1_closed"), "0000", 'polarity = "0_closed"'),
        (board(inverted=(3,)), "11??", 'polarity = "1_locked", inverted = [3]'),
    ],
)
def test_the_config_gets_what_most_doors_have_and_the_exceptions(of: Board, shut: str, line: str) -> None:
    assert proposal(of, tried(shut)).line == f"{{ address = 3, locks = 4, {line} }}"


@pytest.mark.parametrize("polarity", ["1_locked", "0_locked"])
@pytest.mark.parametrize("inverted", [(), (2,), (1, 2)])
@pytest.mark.parametrize("shut", ["1111", "0000", "1011", "0110", "?0??"])
def test_a_board_that_is_configured_as_proposed_reads_every_door_as_it_was(
    polarity: str, inverted: tuple[int, ...], shut: str
) -> None:
    before = board(polarity, inverted)
    made = proposal(before, tried(shut))
    after = board(made.polarity, made.inverted)
    for trial in tried(shut):
        assert trial.shut is not None
        assert after.means(Fact.HOOK, trial.lock, trial.shut)
        assert not after.means(Fact.HOOK, trial.lock, not trial.shut)
    for lock in made.unproven:
        assert after.means(Fact.HOOK, lock, True) == before.means(Fact.HOOK, lock, True)
    assert proposal(after, tried(shut)).as_configured


def test_what_was_not_seen_both_ways_proves_nothing() -> None:
    stuck = Trial(lock=1, shut=True, open=True, instead=(2,))
    assert not stuck.proven
    assert not Trial(lock=1).proven
    assert proposal(board(), [stuck, *tried("?111")]).unproven == (1,)


def test_the_bits_of_contacts_go_before_those_of_hooks_and_only_wired_ones_count() -> None:
    levels = {Fact.HOOK: [True] * 16, Fact.CONTACT: [False] * 16, Fact.CONTENT: [True] * 16}
    assert switches(board(), levels) == dict.fromkeys(range(1, 5), False)
    assert switches(board(), {Fact.HOOK: [True] * 16}) == dict.fromkeys(range(1, 5), True)


def test_a_door_that_moves_another_ones_bit_is_seen() -> None:
    before = {1: True, 2: True, 3: None}
    assert moved(before, {1: True, 2: False, 3: None}) == (2,)
    assert moved(before, before) == ()
