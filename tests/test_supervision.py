"""A supervisor on the spot: whose wait ends, whose does not, and what is remembered of it."""

from typing import Any

import pytest

from agent.lockout import FREE_TRIES, LAST_TRY, Tries, subject_failed, subject_may_try, subject_pardoned
from agent.workflow import Decision, Lane, Outcome, Pardon
from drivers.readings import Tone
from tests.counter import ANNA, BORIS, RULES, Counter, on_duty, tones, types
from tests.moments import moment

GOOD, BAD, ASK = Tone.GOOD, Tone.BAD, Tone.ASK
SUE = "drv-sue"


def supervised() -> Counter:
    """Sue, a supervisor, has scanned the code and waits for a badge."""
    counter = Counter()
    counter.show("badge", SUE, role="supervisor")
    counter.show("pin", SUE)
    counter.control("unlock")
    return counter


def said(decision: Decision[Any]) -> tuple[list[str], list[tuple[str, Tone]], Pardon | None]:
    return types(decision), tones(decision), decision.pardon


def test_a_supervisor_is_asked_for_the_badge() -> None:
    counter = Counter()
    counter.show("badge", SUE, role="supervisor")
    counter.show("pin", SUE)
    decision = counter.control("unlock")
    assert said(decision) == (["identity.unlock_opened"], [("gun", ASK)], None)
    assert (decision.entries[0].subject, decision.entries[0].data) == (SUE, {"unit": "gun"})


@pytest.mark.parametrize("role", [None, "driver", "technician"])
def test_nobody_else_can(role: str | None) -> None:
    counter = Counter()
    counter.show("badge", BORIS, role=role)
    counter.show("pin", BORIS)
    decision = counter.control("unlock")
    assert said(decision) == (["custody.control_refused"], [("gun", BAD)], None)
    assert decision.entries[0].data["reason"] == "not_supervisor"
    assert counter.state.unlocking is None


def test_a_role_belongs_to_who_shows_it() -> None:
    """Sue's badge, then Boris's own login: what he is, his own rows say."""
    counter = Counter()
    counter.show("badge", SUE, role="supervisor")
    counter.login(BORIS)
    assert counter.state.session is not None
    assert counter.state.session.role is None


def test_the_badge_of_somebody_who_waits_ends_the_wait() -> None:
    counter = supervised()
    decision = counter.show("badge", ANNA, Outcome.LOCKED)
    assert said(decision) == (["identity.subject_unlocked"], [("badges", GOOD)], Pardon(subject=ANNA))
    entry = decision.entries[0]
    assert (entry.subject, entry.data, entry.lane) == (ANNA, {"unit": "badges", "by": SUE}, Lane.CUSTODY)
    assert counter.state.unlocking is None
    assert counter.state.session is not None, "she stays on duty"


def test_one_code_is_for_one_badge() -> None:
    counter = supervised()
    counter.show("badge", ANNA, Outcome.LOCKED)
    assert said(counter.show("badge", BORIS, Outcome.LOCKED)) == (
        ["identity.refused"],
        [("badges", BAD)],
        None,
    )


def test_a_reader_that_rests_is_woken_first_and_asks_again() -> None:
    counter = supervised()
    decision = counter.show("badge", None, Outcome.PAUSED)
    assert said(decision) == (["identity.reader_unlocked"], [("badges", ASK)], Pardon(reader="badges"))
    assert (decision.entries[0].subject, decision.entries[0].data["by"]) == ("badges", SUE)
    assert counter.show("badge", ANNA, Outcome.LOCKED).pardon == Pardon(subject=ANNA)


def test_the_badge_that_silences_the_reader_wakes_it_as_well() -> None:
    decision = supervised().show("badge", ANNA, Outcome.LOCKED, reader_paused=True)
    assert decision.pardon == Pardon(subject=ANNA, reader="badges")


@pytest.mark.parametrize(
    ("outcome", "subject", "reason"),
    [
        (Outcome.DISABLED, ANNA, "disabled"),
        (Outcome.GRANTED, ANNA, "not_locked"),
        (Outcome.LOCKED, SUE, "own"),
    ],
)
def test_what_a_supervisor_cannot_lift_is_refused_and_says_why(
    outcome: Outcome, subject: str, reason: str
) -> None:
    counter = supervised()
    decision = counter.show("badge", subject, outcome)
    assert said(decision) == (["identity.unlock_refused"], [("badges", BAD)], None)
    assert decision.entries[0].data == {"unit": "badges", "by": SUE, "reason": reason}
    assert counter.state.unlocking is None
    assert counter.state.login is None, "it was no login either"


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.REVOKED, Outcome.EXPIRED])
def test_a_badge_that_is_nobodys_is_refused_as_ever(outcome: Outcome) -> None:
    counter = supervised()
    decision = counter.show("badge", None, outcome)
    assert said(decision) == (["identity.refused"], [("badges", BAD)], None)
    assert counter.show("badge", ANNA, Outcome.LOCKED).pardon == Pardon(subject=ANNA)


def test_a_badge_that_does_not_come_is_told() -> None:
    counter = supervised()
    counter.later(RULES.login)
    decision = counter.wake()
    assert (types(decision), decision.entries[0].subject) == (["identity.unlock_lapsed"], SUE)
    assert types(counter.show("badge", ANNA, Outcome.LOCKED)) == ["identity.refused"]


def test_cancelling_waits_no_longer() -> None:
    counter = supervised()
    assert said(counter.control("cancel")) == (["identity.unlock_cancelled"], [("gun", GOOD)], None)
    assert types(counter.show("badge", ANNA, Outcome.LOCKED)) == ["identity.refused"]


@pytest.mark.parametrize("how", ["end", "reboot"])
def test_the_wait_ends_with_its_session(how: str) -> None:
    counter = supervised()
    if how == "end":
        counter.control("end")
    else:
        counter.reboot()
    assert counter.show("badge", ANNA, Outcome.LOCKED).pardon is None


def test_a_restart_still_waits() -> None:
    counter = supervised()
    counter.restart()
    assert counter.wake(started=True).entries == ()
    assert counter.show("badge", ANNA, Outcome.LOCKED).pardon == Pardon(subject=ANNA)


def test_without_the_code_a_locked_badge_is_refused() -> None:
    assert on_duty(ANNA).show("badge", BORIS, Outcome.LOCKED).pardon is None


# -- what a pardon is worth -----------------------------------------------------------------------


def failed(tries: Tries, times: int) -> Tries:
    for _ in range(times):
        tries = subject_failed(tries, moment(1000))
    return tries


def test_a_pardon_gives_the_free_tries_again_and_takes_nothing_off_the_count() -> None:
    locked = failed(Tries(), FREE_TRIES)
    pardoned = subject_pardoned(locked)
    assert not subject_may_try(locked, moment(1000))
    assert subject_may_try(failed(pardoned, FREE_TRIES - 1), moment(1000))
    assert not subject_may_try(failed(pardoned, FREE_TRIES), moment(1000))
    assert pardoned.failures == FREE_TRIES


def test_no_number_of_pardons_gets_beyond_the_last_try() -> None:
    tries = Tries()
    for _ in range(LAST_TRY // FREE_TRIES):
        tries = subject_pardoned(failed(tries, FREE_TRIES))
    assert not subject_may_try(tries, moment(1e6))
    assert tries.disabled
