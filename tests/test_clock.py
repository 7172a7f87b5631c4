"""The clock: what moves it, what does not, and how far it can be trusted. Its sources are played."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.clock import (
    BUILT_UTC_NS,
    HOLDOVER_S,
    NS,
    Moment,
    SystemClock,
    Trust,
    mono_ns,
    ntp_age_s,
    rfc3339,
)
from tests.moments import NOON_NS

DAY = 86_400


@dataclass
class Board:
    """A machine whose clocks the test turns by hand."""

    mono_ns: int = 20 * NS
    wall_ns: int = NOON_NS
    ntp_age_s: float | None = None

    def pass_time(self, seconds: float) -> None:
        self.mono_ns += round(seconds * NS)
        self.wall_ns += round(seconds * NS)

    def clock(self, *, rtc: bool = False, floor_ns: int = 0) -> SystemClock:
        return SystemClock(
            boot="boot-1",
            floor_ns=floor_ns,
            has_rtc=rtc,
            mono=lambda: self.mono_ns,
            wall=lambda: self.wall_ns,
            ntp_age=lambda: self.ntp_age_s,
        )


def test_a_moment_counts_seconds_of_its_boot() -> None:
    assert Moment("boot-1", 5 * NS, 0).since(2 * NS) == 3.0


def test_a_board_without_rtc_that_wakes_in_1970_starts_at_the_build_date_and_trusts_nothing() -> None:
    now = Board(wall_ns=3 * NS).clock().now()
    assert (now.utc_ns, now.trust, now.error_s) == (BUILT_UTC_NS, Trust.NONE, None)


def test_an_rtc_that_lost_its_battery_is_worth_nothing() -> None:
    now = Board(wall_ns=3 * NS).clock(rtc=True).now()
    assert (now.utc_ns, now.trust, now.error_s) == (BUILT_UTC_NS, Trust.NONE, None)


def test_an_rtc_is_trusted_a_little_and_less_every_day() -> None:
    board = Board()
    clock = board.clock(rtc=True)
    assert (clock.now().utc_ns, clock.now().trust, clock.now().error_s) == (NOON_NS, Trust.RTC, 60.0)
    board.pass_time(DAY)
    assert clock.now().error_s == 65.0


def test_a_remembered_floor_outweighs_an_older_wall_clock() -> None:
    board = Board(wall_ns=NOON_NS - 30 * DAY * NS)
    clock = board.clock(rtc=True)
    clock.remember_floor(NOON_NS)
    board.pass_time(5)
    assert (clock.now().utc_ns, clock.now().trust) == (NOON_NS + 5 * NS, Trust.NONE)


@pytest.mark.parametrize("floor_ns", [0, BUILT_UTC_NS - 1, NOON_NS - 1])
def test_a_lower_floor_changes_nothing(floor_ns: int) -> None:
    clock = Board().clock(floor_ns=NOON_NS)
    clock.remember_floor(floor_ns)
    assert clock.floor_ns == clock.next_floor_ns == NOON_NS


@pytest.mark.parametrize("jump_s", [-10 * 365 * DAY, -3600, 3600, 10 * 365 * DAY])
def test_a_wall_clock_set_while_running_moves_nothing(jump_s: int) -> None:
    board = Board()
    clock = board.clock()
    before = clock.now()
    board.wall_ns += jump_s * NS
    board.pass_time(2)
    assert clock.now().utc_ns - before.utc_ns == 2 * NS
    assert clock.observe_ntp() is None
    assert clock.now().trust is Trust.NONE


def test_the_first_good_time_of_a_boot_is_a_correction_for_everything_before() -> None:
    board = Board(wall_ns=0)
    clock = board.clock()
    before = clock.now()
    correction = clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5)
    assert correction is not None
    assert (correction.old_trust, correction.trust, correction.boot) == (Trust.NONE, Trust.GPS, "boot-1")
    assert correction.offset_s == (NOON_NS - BUILT_UTC_NS) / NS
    assert before.mono_ns + correction.epoch_ns == NOON_NS
    assert before.mono_ns + correction.old_epoch_ns == before.utc_ns
    assert (clock.now().utc_ns, clock.now().error_s) == (NOON_NS, 0.5)


RANKED = [
    (Trust.RTC, Trust.FLEET, True),
    (Trust.RTC, Trust.NTP, True),
    (Trust.FLEET, Trust.GPS, True),
    (Trust.GPS, Trust.FLEET, False),
    (Trust.NTP, Trust.FLEET, False),
    (Trust.NTP, Trust.RTC, False),
]


@pytest.mark.parametrize(("held", "offered", "taken"), RANKED)
def test_better_knowledge_is_taken_and_worse_is_not(held: Trust, offered: Trust, taken: bool) -> None:
    board = Board()
    clock = board.clock(rtc=True)
    if held is not Trust.RTC:
        clock.observe(held, NOON_NS, board.mono_ns, 0.5)
    told = clock.observe(offered, NOON_NS + 2 * NS, board.mono_ns, 2.0)
    assert (told is not None) is taken
    assert clock.now().trust is (offered if taken else held)


def test_of_two_equals_the_smaller_error_wins_and_time_does_not_jump_to_and_fro() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5)
    clock.observe(Trust.NTP, NOON_NS + NS // 4, board.mono_ns, 0.1)
    assert (clock.now().trust, clock.now().utc_ns) == (Trust.NTP, NOON_NS + NS // 4)
    assert clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5) is None
    assert (clock.now().trust, clock.now().utc_ns) == (Trust.NTP, NOON_NS + NS // 4)


def test_a_faked_satellite_does_not_outweigh_a_time_server() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    assert clock.observe(Trust.GPS, NOON_NS + 3650 * DAY * NS, board.mono_ns, 0.5) is None
    assert clock.now().utc_ns == NOON_NS


def test_an_equal_takes_over_once_the_drift_is_larger_than_its_error() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    board.pass_time(DAY / 2)
    clock.observe(Trust.GPS, NOON_NS + DAY // 2 * NS, board.mono_ns, 0.5)
    assert clock.now().trust is Trust.GPS


def test_a_source_silent_for_a_day_gives_way_to_a_lesser_one() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5)
    board.pass_time(HOLDOVER_S + 1)
    assert clock.now().trust is Trust.GPS
    told = clock.observe(Trust.FLEET, NOON_NS + (DAY + 4) * NS, board.mono_ns, 1.0)
    assert told is not None
    assert (told.trust, told.offset_s) == (Trust.FLEET, 3.0)


@pytest.mark.parametrize("trust", list(Trust))
def test_time_below_the_floor_is_no_knowledge(trust: Trust) -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS)
    assert clock.observe(trust, NOON_NS - 1, board.mono_ns, 0.1) is None
    assert clock.now().trust is Trust.NONE


def test_a_steady_source_only_jitters_and_its_error_says_so() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5)
    assert clock.observe(Trust.GPS, NOON_NS + NS * 3 // 10, board.mono_ns, 0.5) is None
    assert (clock.now().utc_ns, clock.now().error_s) == (NOON_NS, 0.8)


@pytest.mark.parametrize(("step_s", "told"), [(0.4, False), (0.9, False), (1.0, True), (-3600.0, True)])
def test_a_step_is_told_and_drift_is_not(step_s: float, told: bool) -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    there = NOON_NS + round(step_s * NS)
    correction = clock.observe(Trust.NTP, there, board.mono_ns, 0.1)
    assert (correction is not None) is told
    assert clock.now().utc_ns == there


def test_small_steps_that_add_up_are_told_together() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    assert clock.observe(Trust.NTP, NOON_NS + NS * 6 // 10, board.mono_ns, 0.1) is None
    correction = clock.observe(Trust.NTP, NOON_NS + NS * 12 // 10, board.mono_ns, 0.1)
    assert correction is not None
    assert correction.offset_s == pytest.approx(1.2)


def test_error_grows_by_five_seconds_a_day_and_shrinks_with_the_next_word() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    board.pass_time(DAY / 2)
    assert clock.now().error_s == 2.6
    clock.observe(Trust.NTP, NOON_NS + DAY // 2 * NS, board.mono_ns, 0.1)
    assert clock.now().error_s == 0.1


@pytest.mark.parametrize(
    ("age_s", "trust", "error_s"),
    [
        (None, Trust.NONE, None),
        (0.0, Trust.NTP, 0.1),
        (DAY / 2, Trust.NTP, 2.6),
        (DAY + 1.0, Trust.NONE, None),
    ],
)
def test_the_system_clock_is_followed_while_it_was_synchronised_of_late(
    age_s: float | None, trust: Trust, error_s: float | None
) -> None:
    board = Board(wall_ns=BUILT_UTC_NS)
    clock = board.clock()
    board.wall_ns, board.ntp_age_s = NOON_NS, age_s
    told = clock.observe_ntp()
    assert (told is not None) is (trust is Trust.NTP)
    assert (clock.now().trust, clock.now().error_s) == (trust, error_s)


@pytest.mark.parametrize(
    ("trust", "ahead_s", "rise_s"),
    [
        (Trust.NTP, 3600, 3600),
        (Trust.FLEET, 3600, 3600),
        (Trust.NTP, 3650 * DAY, 7 * DAY + 20),
        (Trust.FLEET, 300 * DAY, 300 * DAY),
        (Trust.FLEET, 3650 * DAY, 366 * DAY + 20),
        (Trust.GPS, 3600, 0),
        (Trust.RTC, 3600, 0),
    ],
)
def test_the_next_floor_rises_by_what_servers_say_and_never_far(
    trust: Trust, ahead_s: int, rise_s: int
) -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS)
    clock.observe(trust, NOON_NS + ahead_s * NS, board.mono_ns, 0.1)
    assert clock.next_floor_ns == NOON_NS + rise_s * NS
    assert clock.floor_ns == NOON_NS


@pytest.mark.parametrize("wall_ns", [0, NOON_NS, NOON_NS + 3650 * DAY * NS])
def test_the_next_floor_rises_with_the_time_that_passes_for_sure_whatever_the_clock_is_set_to(
    wall_ns: int,
) -> None:
    """Or a device that is cut off would know anew each time it is switched on how it was last told."""
    board = Board(wall_ns=wall_ns)
    clock = board.clock(floor_ns=NOON_NS)
    board.pass_time(3 * DAY)
    passed_s = (clock.next_floor_ns - NOON_NS) / NS
    assert 3 * DAY - 300 < passed_s < 3 * DAY - 15, "never ahead of a clock that is off by 5 s a day"
    clock.observe(Trust.NTP, NOON_NS + 3 * DAY * NS, board.mono_ns, 0.1)
    assert clock.next_floor_ns == NOON_NS + 3 * DAY * NS
    woken = Board(wall_ns=0).clock(floor_ns=clock.next_floor_ns)
    assert woken.now().utc_ns == NOON_NS + 3 * DAY * NS
    assert not woken.now().assured


def test_a_lie_about_the_far_future_is_taken_back_by_the_truth() -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS - NS)
    clock.observe(Trust.NTP, NOON_NS + 3650 * DAY * NS, board.mono_ns, 0.1)
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    assert clock.now().utc_ns == NOON_NS


YEARS_NS = 3650 * DAY * NS


@pytest.mark.parametrize("liar", [Trust.GPS, Trust.NTP])
@pytest.mark.parametrize("off_ns", [-20 * DAY * NS, -10 * NS, 10 * NS, YEARS_NS])
def test_what_the_fleet_has_signed_for_us_outweighs_whoever_says_otherwise(liar: Trust, off_ns: int) -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS - YEARS_NS)
    clock.observe(liar, NOON_NS + off_ns, board.mono_ns, 0.5)
    told = clock.observe(Trust.FLEET, NOON_NS, board.mono_ns, 1.0)
    assert told is not None
    assert (clock.now().utc_ns, clock.now().trust, clock.now().assured) == (NOON_NS, Trust.FLEET, True)
    assert clock.observe(liar, NOON_NS + off_ns, board.mono_ns, 0.5) is None
    assert (clock.now().utc_ns, clock.disputed) == (NOON_NS, liar)
    board.pass_time(HOLDOVER_S + 1)
    held, later = clock.now().utc_ns, NOON_NS + off_ns + round((HOLDOVER_S + 1) * NS)
    clock.observe(liar, later, board.mono_ns, 0.5)
    far_back = liar is Trust.GPS and off_ns < -DAY * NS
    assert clock.now().utc_ns == (held if far_back else later), "who was heard a day ago has no more say"


@pytest.mark.parametrize("teller", [Trust.FLEET, Trust.NTP])
def test_satellites_cannot_set_back_what_was_told_however_long_ago_that_is(teller: Trust) -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS - 3 * DAY * NS)
    clock.observe(teller, NOON_NS, board.mono_ns, 0.1)
    board.pass_time(3 * DAY)
    held = clock.now().utc_ns
    assert clock.observe(Trust.GPS, NOON_NS + DAY * NS, board.mono_ns, 0.5) is None
    assert (clock.now().utc_ns, clock.disputed) == (held, Trust.GPS)
    clock.observe(Trust.GPS, NOON_NS + 3 * DAY * NS, board.mono_ns, 0.5)
    assert (clock.now().trust, clock.disputed) == (Trust.GPS, None), "but what they say rightly is heard"


def test_satellites_cannot_set_back_the_time_that_has_passed_in_this_run() -> None:
    board = Board(wall_ns=0)
    clock = board.clock(floor_ns=NOON_NS)
    board.pass_time(DAY)
    assert clock.observe(Trust.GPS, NOON_NS + 60 * NS, board.mono_ns, 0.5) is None
    assert clock.observe(Trust.GPS, NOON_NS + DAY * NS, board.mono_ns, 0.5) is not None


def test_a_source_that_agrees_with_the_fleet_again_is_disputed_no_more() -> None:
    board = Board()
    clock = board.clock()
    clock.observe(Trust.FLEET, NOON_NS, board.mono_ns, 1.0)
    clock.observe(Trust.GPS, NOON_NS + 60 * NS, board.mono_ns, 0.5)
    disputed = [clock.disputed]
    clock.observe(Trust.GPS, NOON_NS + NS, board.mono_ns, 0.5)
    assert [*disputed, clock.disputed] == [Trust.GPS, None]
    assert clock.now().trust is Trust.GPS


def test_satellites_are_evidence_until_the_fleet_says_the_same() -> None:
    board = Board()
    clock = board.clock()
    assert not clock.now().assured
    clock.observe(Trust.GPS, NOON_NS, board.mono_ns, 0.5)
    assert not clock.now().assured
    assert clock.observe(Trust.FLEET, NOON_NS, board.mono_ns, 1.0) is None
    assert (clock.now().trust, clock.now().assured) == (Trust.GPS, True)
    board.pass_time(HOLDOVER_S + 1)
    assert not clock.now().assured


@pytest.mark.parametrize("trust", [Trust.NTP, Trust.FLEET, Trust.RTC])
def test_a_battery_or_somebody_who_knows_makes_time_sure(trust: Trust) -> None:
    board = Board()
    clock = board.clock(rtc=trust is Trust.RTC)
    if trust is not Trust.RTC:
        clock.observe(trust, NOON_NS, board.mono_ns, 0.1)
    assert clock.now().assured


def test_what_was_signed_later_moves_a_clock_that_knows_nothing_and_its_floor() -> None:
    board = Board(wall_ns=0)
    clock = board.clock(floor_ns=NOON_NS)
    told = clock.at_least(NOON_NS + 3600 * NS)
    assert told is not None
    assert (clock.now().utc_ns, clock.now().trust) == (NOON_NS + 3600 * NS, Trust.NONE)
    assert (clock.next_floor_ns, clock.floor_ns) == (NOON_NS + 3600 * NS, NOON_NS)
    assert clock.at_least(NOON_NS) is None, "and never back"
    assert clock.now().utc_ns == NOON_NS + 3600 * NS


def test_what_was_signed_moves_a_clock_seven_days_at_most_however_often() -> None:
    board = Board(wall_ns=0)
    clock = board.clock(floor_ns=NOON_NS)
    for days in range(1, 100):
        clock.at_least(NOON_NS + days * DAY * NS)
    furthest = NOON_NS + 7 * DAY * NS + board.mono_ns
    assert (clock.now().utc_ns, clock.next_floor_ns) == (furthest, furthest)


def test_what_was_signed_does_not_move_a_clock_that_knows_the_time() -> None:
    board = Board()
    clock = board.clock(floor_ns=NOON_NS - DAY * NS)
    clock.observe(Trust.NTP, NOON_NS, board.mono_ns, 0.1)
    assert clock.at_least(NOON_NS + 60 * NS) is None
    assert clock.now().utc_ns == NOON_NS


def test_the_real_clocks_of_this_machine_agree() -> None:
    clock = SystemClock()
    before, now, after = mono_ns(), clock.now(), mono_ns()
    assert before <= now.mono_ns <= after
    assert now.utc_ns >= BUILT_UTC_NS
    assert len(now.boot) == 36


def test_the_sign_of_synchronisation_ages(tmp_path: Path) -> None:
    sign = tmp_path / "synchronized"
    assert ntp_age_s(sign) is None
    sign.touch()
    age_s = ntp_age_s(sign)
    assert age_s is not None
    assert age_s < 60
    os.utime(sign, (0, 0))
    assert (ntp_age_s(sign) or 0) > DAY


@pytest.mark.parametrize(
    ("utc_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (NOON_NS, "2026-11-24T12:00:00.000000Z"),
        (NOON_NS + 123_456_789, "2026-11-24T12:00:00.123456Z"),
        (NOON_NS + NS - 1, "2026-11-24T12:00:00.999999Z"),
    ],
)
def test_time_is_written_as_rfc_3339(utc_ns: int, text: str) -> None:
    assert rfc3339(utc_ns) == text
