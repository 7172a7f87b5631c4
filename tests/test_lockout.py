"""How often one may fail: per subject, per reader, across reboots."""

import json

import pytest

from agent.clock import Moment
from agent.lockout import (
    BURST,
    BURST_PAUSE_S,
    BURST_WINDOW_S,
    FREE_TRIES,
    LAST_TRY,
    WAIT_S,
    Burst,
    Limits,
    Tries,
    reader_failed,
    reader_may_try,
    subject_failed,
    subject_may_try,
)
from tests.moments import moment


def failed(times: int, at: Moment) -> Tries:
    tries = Tries()
    for _ in range(times):
        tries = subject_failed(tries, at)
    return tries


def burst(times: int, at: Moment, before: Burst | None = None) -> Burst:
    burst = before or Burst()
    for _ in range(times):
        burst = reader_failed(burst, at)
    return burst


def test_the_values_are_those_that_were_decided() -> None:
    assert (FREE_TRIES, WAIT_S, LAST_TRY) == (5, 30.0, 50)
    assert (BURST, BURST_WINDOW_S, BURST_PAUSE_S) == (20, 600.0, 300.0)


@pytest.mark.parametrize(
    ("failures", "after_s", "may"),
    [
        (0, 0, True),
        (4, 0, True),
        (5, 0, False),
        (5, 29.9, False),
        (5, 30, True),
        (6, 29.9, False),
        (49, 30, True),
        (50, 30, False),
        (50, 1e7, False),
    ],
)
def test_five_failures_cost_a_wait_before_each_try_and_fifty_the_credential(
    failures: int, after_s: float, may: bool
) -> None:
    tries = failed(failures, moment(1000))
    assert subject_may_try(tries, moment(1000 + after_s)) is may


@pytest.mark.parametrize(("uptime_s", "may"), [(1, False), (29.9, False), (30, True)])
def test_after_a_reboot_the_wait_begins_again_at_boot(uptime_s: float, may: bool) -> None:
    tries = failed(5, moment(1000))
    assert subject_may_try(tries, moment(uptime_s, boot="boot-2")) is may


def test_a_disabled_credential_stays_disabled_across_reboots() -> None:
    assert not subject_may_try(failed(50, moment(1000)), moment(1e6, boot="boot-2"))


def test_a_reader_rests_with_the_twentieth_failure() -> None:
    assert reader_may_try(burst(19, moment(1000)), moment(1000))
    assert not reader_may_try(burst(20, moment(1000)), moment(1000))


@pytest.mark.parametrize(("after_s", "may"), [(299.9, False), (300, True)])
def test_a_reader_rests_for_five_minutes(after_s: float, may: bool) -> None:
    assert reader_may_try(burst(20, moment(1000)), moment(1000 + after_s)) is may


@pytest.mark.parametrize(("uptime_s", "may"), [(299.9, False), (300, True)])
def test_after_a_reboot_a_reader_rests_anew(uptime_s: float, may: bool) -> None:
    resting = burst(20, moment(1000))
    assert reader_may_try(resting, moment(uptime_s, boot="boot-2")) is may


def test_after_its_rest_a_reader_counts_from_one() -> None:
    rested = burst(1, moment(1300), burst(20, moment(1000)))
    assert (len(rested.failed_ns), rested.paused) == (1, False)


@pytest.mark.parametrize(("gap_s", "paused"), [(599.9, True), (600, False)])
def test_the_window_slides(gap_s: float, paused: bool) -> None:
    """Nineteen at the end of one window and one at the start of the next are twenty within ten minutes."""
    assert burst(1, moment(1000 + gap_s), burst(19, moment(1000))).paused is paused


def test_failures_spread_out_never_stop_a_reader() -> None:
    one = Burst()
    for at in range(0, 100_000, 40):
        one = reader_failed(one, moment(at))
        assert not one.paused
        assert len(one.failed_ns) < BURST


@pytest.mark.parametrize(("uptime_s", "paused"), [(1, True), (599, True), (600, False)])
def test_failures_before_a_reboot_count_as_if_at_boot(uptime_s: float, paused: bool) -> None:
    assert burst(1, moment(uptime_s, boot="boot-2"), burst(19, moment(1000))).paused is paused


def test_failures_of_an_older_boot_leave_the_window_too() -> None:
    before = burst(1, moment(10, boot="boot-2"), burst(18, moment(1000)))
    assert before.failed_ns == (*(0,) * 18, moment(10).mono_ns)
    assert len(burst(1, moment(605, boot="boot-2"), before).failed_ns) == 2


# -- stricter, never looser -----------------------------------------------------------------------

STRICT = Limits(tries=2, wait=60.0, last_try=4, burst=10, pause=900.0)


def strictly_failed(times: int) -> Tries:
    tries = Tries()
    for _ in range(times):
        tries = subject_failed(tries, moment(1000), STRICT)
    return tries


@pytest.mark.parametrize(
    ("failures", "after_s", "may"),
    [(1, 0, True), (2, 59.9, False), (2, 60, True), (3, 59.9, False), (4, 1e7, False)],
)
def test_a_stricter_config_is_heeded(failures: int, after_s: float, may: bool) -> None:
    assert subject_may_try(strictly_failed(failures), moment(1000 + after_s), STRICT) is may


def test_a_stricter_config_counts_what_failed_before_it() -> None:
    before = failed(3, moment(1000))
    assert subject_may_try(before, moment(1001))
    assert not subject_may_try(before, moment(1001), STRICT)
    assert not subject_may_try(failed(4, moment(1000)), moment(1e6), STRICT)


@pytest.mark.parametrize("failures", [2, 4])
def test_a_config_that_is_less_strict_again_lifts_no_lock(failures: int) -> None:
    locked = Tries.load(json.loads(json.dumps(strictly_failed(failures).dump())))
    assert not subject_may_try(locked, moment(1029))
    assert subject_may_try(locked, moment(1030)) is (failures < STRICT.last_try)


def test_a_reader_rests_as_soon_and_as_long_as_the_config_says() -> None:
    resting = Burst()
    for _ in range(10):
        resting = reader_failed(resting, moment(1000), STRICT)
    assert not reader_may_try(resting, moment(1899), STRICT)
    assert reader_may_try(resting, moment(1900), STRICT)


def test_a_count_written_down_before_waits_were_is_judged_by_its_number() -> None:
    old = Tries.load({"failures": 5, "boot": "boot-1", "mono_ns": moment(1000).mono_ns})
    assert not subject_may_try(old, moment(1001))
    assert subject_may_try(old, moment(1030))


@pytest.mark.parametrize("tries", [Tries(), failed(7, moment(1000))])
def test_tries_survive_being_written_down(tries: Tries) -> None:
    assert Tries.load(json.loads(json.dumps(tries.dump()))) == tries


@pytest.mark.parametrize("kept", [Burst(), burst(7, moment(1000)), burst(20, moment(1000))])
def test_a_burst_survives_being_written_down(kept: Burst) -> None:
    assert Burst.load(json.loads(json.dumps(kept.dump()))) == kept


def test_nothing_written_down_is_a_clean_record() -> None:
    assert Tries.load(None) == Tries()
    assert Burst.load(None) == Burst()
