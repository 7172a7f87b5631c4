"""A rollout's steps: who is next, when it waits, and what stops it; whatever devices say and when."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from agent.fleet.rollout import (
    FAILURES_OF,
    WHOLE,
    Kinds,
    Outcome,
    Rollout,
    Seen,
    State,
    aborted,
    given,
    place,
    plan,
    resumed,
    step,
    uncertain,
)
from agent.fleet.rollout_file import BadRollout, Change, RolloutFile, dumped, loaded
from agent.fleet.rollout_sight import Heard

VAN: Kinds = ("em4100", "line", "ssi")
LOCKER: Kinds = ("cu48", "line")
SOAK, PATIENCE = 100.0, 50.0
WELL, BAD, SILENT, AWAY = Seen(True, True), Seen(True, False, "no room"), Seen(True), Seen(False)


def fleet_of(vans: int, lockers: int = 0) -> dict[str, Kinds | None]:
    found: dict[str, Kinds | None] = {f"van-{number:04d}": VAN for number in range(vans)}
    return found | {f"locker-{number:03d}": LOCKER for number in range(lockers)}


def planned(vans: int = 200, lockers: int = 3, away: tuple[str, ...] = (), id_: str = "r-1") -> Rollout:
    return plan(id_, "bundle/roster", fleet_of(vans, lockers), away, soak_s=SOAK, patience_s=PATIENCE)


class Field:
    """Devices that answer as they are told to, and a rollout among them."""

    def __init__(self, rollout: Rollout, answers: Mapping[str, Seen] | None = None) -> None:
        self.rollout = rollout
        self.answers = dict(answers or {})
        self.now = 1000.0
        self.order: list[str] = []
        """Who was given it, as they were."""

    def step(self, later: float = 0.0) -> tuple[str, ...]:
        self.now += later
        seen = {
            name: self.answers.get(name, WELL) if name in self.order else SILENT
            for name in self.rollout.members
        }
        for name, answer in self.answers.items():
            if answer is AWAY:
                seen[name] = AWAY
        self.rollout, due = step(self.rollout, seen, self.now)
        self.order += due
        self.rollout = given(self.rollout, dict.fromkeys(due, 7), self.now)
        return due

    def run(self, steps: int = 40) -> State:
        for _ in range(steps):
            self.step(SOAK)
        return self.rollout.state


# -- order ----------------------------------------------------------------------------------------


def test_a_device_s_place_is_the_hash_of_both_names() -> None:
    assert place("r-1", "van-0042") == 80
    assert {place(f"r-{number}", "van-0042") for number in range(50)} != {80}


def test_the_stages_are_shares_of_the_fleet_in_order_of_place() -> None:
    field = Field(planned(1000, 0))
    counts = []
    for _ in range(4):
        counts.append(len(field.step()))
        field.step(1)
        field.now += SOAK
    assert sum(counts) == 1000
    shares = [sum(counts[: number + 1]) / 1000 for number in range(4)]
    assert shares == pytest.approx([0.01, 0.1, 0.5, 1.0], abs=0.03)
    places = [place("r-1", name) for name in field.order]
    assert places == sorted(places)


def test_every_hardware_kind_has_a_canary() -> None:
    rollout = planned(300, 2)
    canaries = [each for each in rollout.members.values() if each.canary]
    assert {each.kinds for each in canaries} == {VAN, LOCKER}


def test_of_a_kind_that_needs_a_canary_one_is_taken_that_is_there() -> None:
    rollout = planned(0, 3)
    (first,) = (name for name, each in rollout.members.items() if each.canary)
    (other,) = (name for name, each in planned(0, 3, away=(first,)).members.items() if each.canary)
    assert other != first


def test_there_is_a_canary_even_where_nobody_has_ever_said_what_it_is() -> None:
    rollout = plan("r-1", "config", dict.fromkeys(("van-0001", "van-0002", "van-0003")))
    assert sum(each.canary for each in rollout.members.values()) == 1


# -- going on and stopping ------------------------------------------------------------------------


def test_all_goes_well_and_it_is_done() -> None:
    field = Field(planned())
    assert field.run() is State.DONE
    assert sorted(field.order) == sorted(field.rollout.members)
    assert {each.outcome for each in field.rollout.members.values()} == {Outcome.SUCCEEDED}


def test_a_stage_is_soaked_before_the_next() -> None:
    field = Field(planned())
    field.step()
    assert field.step(1) == ()
    assert field.step(SOAK - 1) == ()
    assert field.step(1) != ()


def test_a_canary_that_fails_halts_it_at_once_and_is_named() -> None:
    field = Field(planned())
    canary = field.step()[0]
    field.answers[canary] = BAD
    assert field.step(1) == ()
    assert field.rollout.state is State.HALTED
    assert field.rollout.why == f"canary {canary} failed: no room"
    before = list(field.order)
    assert field.run() is State.HALTED
    assert field.order == before


def test_a_canary_that_says_nothing_has_failed_in_the_end() -> None:
    field = Field(planned())
    canary = field.step()[0]
    field.answers[canary] = SILENT
    field.step(PATIENCE - 1)
    assert field.rollout.state is State.RUNNING
    field.step(1)
    assert field.rollout.why == f"canary {canary} failed: online, and said nothing for 50 s"


def test_one_that_went_well_and_goes_back_later_has_failed() -> None:
    field = Field(planned())
    canary = field.step()[0]
    field.step(1)
    field.answers[canary] = BAD
    field.step(1)
    assert field.rollout.state is State.HALTED


def test_one_that_goes_back_when_all_is_done_is_noted_and_stops_nothing() -> None:
    field = Field(planned())
    assert field.run() is State.DONE
    canary = field.order[0]
    field.answers[canary] = BAD
    field.step(1)
    assert field.rollout.state is State.DONE
    assert field.rollout.members[canary].outcome is Outcome.FAILED


def test_one_that_is_away_holds_nobody_up_and_is_no_failure() -> None:
    field = Field(planned())
    field.step()
    away = [name for name, each in field.rollout.members.items() if not each.canary]
    field.answers.update(dict.fromkeys(away[:50], AWAY))
    assert field.run() is State.DONE
    assert field.rollout.members[away[0]].outcome is Outcome.GIVEN


def test_canaries_that_are_all_away_hold_it_up() -> None:
    rollout = planned()
    canaries = [name for name, each in rollout.members.items() if each.canary]
    field = Field(rollout, dict.fromkeys(canaries, AWAY))
    assert field.run() is State.RUNNING
    assert sorted(field.order) == sorted(canaries)
    field.answers.clear()
    assert field.run() is State.DONE


@pytest.mark.parametrize(
    ("answered", "failed", "halted"),
    [
        (19, 2, False),
        (20, 0, False),
        (20, 1, True),
        (49, 1, True),
        (50, 1, False),
        (51, 1, False),
        (100, 2, False),
        (100, 3, True),
    ],
)
def test_more_than_two_in_a_hundred_are_too_many_once_twenty_have_answered(
    answered: int, failed: int, halted: bool
) -> None:
    rollout = plan("r-1", "bundle/roster", fleet_of(1000), stages=(1, WHOLE), soak_s=0.0, patience_s=1e9)
    field = Field(rollout)
    for _ in range(4):
        field.step(1)
    assert len(field.order) == 1000
    canaries = [name for name, each in rollout.members.items() if each.canary]
    others = [name for name in field.order if name not in canaries]
    told = dict.fromkeys(canaries, WELL)
    told |= dict.fromkeys(others[:failed], BAD)
    told |= dict.fromkeys(others[failed : answered - len(canaries)], WELL)
    after, _ = step(_unanswered(field.rollout), told, field.now)
    assert (after.state is State.HALTED) is halted
    assert answered < FAILURES_OF or not halted or after.why == f"{failed} of {answered} failed: no room"


def _unanswered(rollout: Rollout) -> Rollout:
    members = {name: replace(each, outcome=Outcome.GIVEN) for name, each in rollout.members.items()}
    return replace(rollout, members=members, state=State.RUNNING)


# -- people ---------------------------------------------------------------------------------------


def halted() -> tuple[Field, str]:
    field = Field(planned())
    canary = field.step()[0]
    field.answers[canary] = BAD
    field.step(1)
    assert field.rollout.state is State.HALTED
    return field, canary


def test_whoever_resumes_excuses_what_has_failed_and_says_why() -> None:
    field, canary = halted()
    field.rollout = resumed(field.rollout, "op-7", "its disk is broken", field.now)
    assert field.run() is State.DONE
    assert field.rollout.members[canary].excused
    assert [(each.what, each.who) for each in field.rollout.deeds] == [("halted", ""), ("resumed", "op-7")]
    assert len(field.order) == len(field.rollout.members)


def test_it_may_be_given_again_to_those_who_failed() -> None:
    field, canary = halted()
    field.answers.clear()
    field.rollout = resumed(field.rollout, "op-7", "repaired", field.now, again=True)
    assert field.step(1) == (canary,)
    assert field.run() is State.DONE
    assert field.rollout.members[canary].outcome is Outcome.SUCCEEDED


def test_another_canary_that_fails_halts_it_again() -> None:
    field, canary = halted()
    field.rollout = resumed(field.rollout, "op-7", "known", field.now)
    other = next(name for name in field.order if name != canary)
    field.answers[other] = BAD
    field.step(1)
    assert field.rollout.why == f"canary {other} failed: no room"


def test_what_was_aborted_is_given_to_nobody_any_more() -> None:
    field = Field(planned())
    field.step()
    field.rollout = aborted(field.rollout, "op-7", "the wrong file", field.now)
    before = list(field.order)
    assert field.run() is State.ABORTED
    assert field.order == before
    assert resumed(field.rollout, "op-7", "please", field.now) == field.rollout


# -- whatever happens -----------------------------------------------------------------------------

ANSWERS = st.sampled_from([WELL, WELL, WELL, WELL, BAD, SILENT, AWAY])


@over(
    st.integers(1, 60),
    st.integers(0, 3),
    st.data(),
    st.lists(st.floats(0, 2 * SOAK), min_size=1, max_size=30),
)
def test_nobody_gets_it_before_their_stage_twice_or_after_a_halt(
    vans: int, lockers: int, data: st.DataObject, waits: list[float]
) -> None:
    field = Field(planned(vans, lockers))
    for wait in waits:
        if data.draw(st.booleans()):
            field.answers[data.draw(st.sampled_from(sorted(field.rollout.members)))] = data.draw(ANSWERS)
        before = field.rollout
        due = field.step(wait)
        assert set(due) <= set(field.rollout.of_stage())
        if before.state is not State.RUNNING or field.rollout.state is not State.RUNNING:
            assert not due
        broken = [each for each in field.rollout.members.values() if each.canary and each.failed]
        assert not broken or field.rollout.state is State.HALTED or before.state is State.DONE
        assert field.rollout.stage - before.stage in (0, 1)
    assert len(field.order) == len(set(field.order))


@over(st.integers(1, 60), st.lists(st.floats(0, 2 * SOAK), min_size=1, max_size=20), st.data())
def test_one_that_was_interrupted_and_read_again_goes_on_as_it_would_have(
    vans: int, waits: list[float], data: st.DataObject
) -> None:
    whole, broken = Field(planned(vans, 1)), Field(planned(vans, 1))
    for wait in waits:
        name, answer = data.draw(st.sampled_from(sorted(whole.rollout.members))), data.draw(ANSWERS)
        whole.answers[name] = broken.answers[name] = answer
        broken.rollout = loaded(dumped(Change(broken.rollout, {}))).rollout
        assert broken.step(wait) == whole.step(wait)
    assert broken.rollout == whole.rollout


# -- the file -------------------------------------------------------------------------------------


def test_what_may_not_have_been_left_at_the_broker_is_known_after_an_interruption(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "roster.rollout")
    file.create(planned(), {"file": "roster.csv"})
    with file.changing() as change:
        change.rollout, due = step(change.rollout, {}, 1000.0)
    again = RolloutFile(tmp_path / "roster.rollout").read()
    assert sorted(uncertain(again.rollout)) == sorted(due)
    assert not uncertain(given(again.rollout, dict.fromkeys(due, 3), 1001.0))
    assert again.source == {"file": "roster.csv"}


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "roster.rollout")
    file.create(planned(), {})
    before = file.path.read_bytes()

    def interrupted() -> None:
        with file.changing() as change:
            change.rollout = aborted(change.rollout, "op-7", "no", 1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert file.path.read_bytes() == before


def test_a_rollout_that_is_not_over_is_not_written_over(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "roster.rollout")
    file.create(planned(), {})
    with pytest.raises(BadRollout, match="which is running: resume or abort it"):
        file.create(planned(id_="r-2"), {})
    with file.changing() as change:
        change.rollout = aborted(change.rollout, "op-7", "no", 1.0)
    file.create(planned(id_="r-2"), {})
    assert file.read().rollout.id == "r-2"


def test_one_process_at_a_time_gives_it_out(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "roster.rollout")
    file.create(planned(), {})
    with file.running():
        with pytest.raises(BadRollout, match="another process"), RolloutFile(file.path).running():
            pass
        with RolloutFile(file.path).changing() as change:
            change.rollout = aborted(change.rollout, "op-7", "no", 1.0)
    assert file.read().rollout.state is State.ABORTED


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"form": 2}', b'{"form": 1, "source": {}}'])
def test_a_file_that_is_no_rollout_is_told_as_such(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "roster.rollout"
    path.write_bytes(raw)
    with pytest.raises(BadRollout, match="expected a rollout"):
        RolloutFile(path).read()


@pytest.mark.parametrize("kind", ["bundle", "config"])
def test_what_came_before_its_head_was_lost_on_the_way_and_has_not_failed(kind: str) -> None:
    heard = Heard()
    refusal = {"type": f"postern.fleet.{kind}_refused", "time": "2026-11-24T12:00:00Z"}
    heard.take({**refusal, "data": {"reason": "not_in_head"}})
    assert not heard.refused
    heard.take({**refusal, "data": {"reason": "mixed"}})
    assert list(heard.refused) == [kind]
