"""What a code is worth, and what wrong ones cost."""

import pytest

from agent.clock import NS, Trust
from agent.locker.grants import (
    COOL_DOWN_MOST_S,
    COOL_DOWN_S,
    WRONG_A_DAY,
    Grant,
    Guard,
    Refusal,
    Use,
    Way,
    may_open,
    past,
    spend,
)
from tests.moments import NOON_NS, moment

NOON_S = NOON_NS // NS
GRANT = Grant(jti="g", way=Way.QR, exp=NOON_S + 86_400, parcel="p")


def used(pulses: int = 1, *, opened: bool = False, at: float = 0.0) -> Use:
    use: Use | None = None
    for _ in range(pulses):
        use = spend(GRANT, use, moment(at), "a1")
    assert use is not None
    return Use(**{**use.dump(), "opened": opened})


@pytest.mark.parametrize(
    ("use", "at", "why"),
    [
        (None, 0, None),
        (None, 86_400, Refusal.EXPIRED),
        (used(), 10, None),
        (used(), 301, Refusal.SPENT),
        (used(2), 10, Refusal.SPENT),
        (used(opened=True), 1, Refusal.SPENT),
    ],
)
def test_a_grant_opens_once_and_is_tried_twice_at_most(
    use: Use | None, at: float, why: Refusal | None
) -> None:
    assert may_open(GRANT, use, moment(at)) is why


def test_a_grant_is_good_from_its_first_second_to_before_its_last() -> None:
    early = Grant(jti="g", way=Way.QR, nbf=NOON_S + 60, exp=NOON_S + 120)
    assert may_open(early, None, moment(59)) is Refusal.NOT_YET
    assert may_open(early, None, moment(60)) is None
    assert may_open(early, None, moment(120)) is Refusal.EXPIRED


def test_a_revoked_grant_is_refused_before_anything_else() -> None:
    revoked = Grant(jti="g", way=Way.QR, exp=NOON_S - 1, revoked=True)
    assert may_open(revoked, None, moment(0)) is Refusal.REVOKED


@pytest.mark.parametrize(
    ("trust", "why"),
    [(Trust.NTP, None), (Trust.FLEET, None), (Trust.GPS, Refusal.SPENT), (Trust.RTC, Refusal.SPENT)],
)
def test_after_a_reboot_only_a_trusted_clock_tells_that_it_is_not_too_late(
    trust: Trust, why: Refusal | None
) -> None:
    assert may_open(GRANT, used(at=100), moment(130, boot="boot-2", trust=trust)) is why


def test_a_spent_grant_is_forgotten_a_week_after_it_expired() -> None:
    use = used(opened=True)
    assert not past(use.exp, moment(8 * 86_400 - 1))
    assert past(use.exp, moment(8 * 86_400 + 1))


def test_three_wrong_pins_pause_pins_for_ever_longer_up_to_an_hour() -> None:
    guard, now, pauses = Guard(), 0.0, []
    for _ in range(6):
        for _ in range(3):
            assert guard.refuses(Way.PIN, moment(now)) is None
            guard = guard.failed(moment(now))
        pauses.append(guard.pause_s)
        assert guard.refuses(Way.PIN, moment(now + guard.pause_s - 1)) is Refusal.PAUSED
        now += guard.pause_s
    assert pauses == [COOL_DOWN_S, 600, 1200, 2400, COOL_DOWN_MOST_S, COOL_DOWN_MOST_S]


def test_a_pause_begins_again_at_a_reboot() -> None:
    guard = Guard()
    for _ in range(3):
        guard = guard.failed(moment(1000))
    assert guard.refuses(Way.PIN, moment(200, boot="boot-2")) is Refusal.PAUSED
    assert guard.refuses(Way.PIN, moment(301, boot="boot-2")) is None


def test_codes_that_cannot_be_guessed_are_not_paused() -> None:
    guard = Guard()
    for _ in range(WRONG_A_DAY):
        guard = guard.failed(moment(0))
    assert guard.refuses(Way.QR, moment(1)) is None
    assert guard.refuses(Way.CODE, moment(1)) is None


def test_thirty_wrong_ones_a_day_end_pins_until_somebody_says_otherwise() -> None:
    guard = Guard()
    for _ in range(WRONG_A_DAY):
        guard = guard.failed(moment(0)).succeeded()
    assert guard.refuses(Way.PIN, moment(7 * 86_400)) is Refusal.PIN_OFF


def test_a_clock_set_back_gives_no_new_tries() -> None:
    guard = Guard().failed(moment(86_400 * 2)).failed(moment(0))
    assert guard.wrong == 2


def test_what_is_remembered_is_read_back() -> None:
    guard = Guard().failed(moment(1)).failed(moment(2)).failed(moment(3))
    assert Guard.load(guard.dump()) == guard
    assert Guard.load(None) == Guard()
    assert Use.load(used().dump()) == used()


def test_a_year_of_guessing_as_fast_as_is_allowed_opens_next_to_nothing() -> None:
    guard, now, tries = Guard(), 0.0, 0
    for day in range(365):
        now = max(now, day * 86_400.0)
        while now < (day + 1) * 86_400:
            why = guard.refuses(Way.PIN, moment(now))
            if why is Refusal.PIN_OFF:
                # Somebody turns them on again every morning: the worst that can be.
                guard = Guard(day=guard.day, wrong=0)
                break
            if why is Refusal.PAUSED:
                now += guard.pause_s
                continue
            guard = guard.failed(moment(now))
            tries += 1
    parcels, selectors, pins = 200, 36**4, 10**6
    assert tries <= 365 * WRONG_A_DAY
    assert tries * parcels / (selectors * pins) < 1e-3
