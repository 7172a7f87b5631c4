"""The policy alone: levels, ages and declarations, from figures."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS, Moment, Trust, rfc3339
from agent.entry import compact
from agent.retention import DAY_S, RANGES, Level, Limits, age_s, crossing, judge, losses, unwritten
from agent.workflow import Lane
from tests.moments import NOON_NS, moment

LIMITS = Limits(size=1000, days={Lane.CUSTODY: 30, Lane.STATE: 7, Lane.TELEMETRY: 1})


def line(at: Moment) -> bytes:
    clock = {"boot": at.boot, "mono_ns": at.mono_ns, "trust": at.trust, "error_s": None}
    return compact({"time": rfc3339(at.utc_ns), "data": {"clock": clock}})


# -- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "before", "level"),
    [
        (0, Level.NORMAL, Level.NORMAL),
        (799, Level.NORMAL, Level.NORMAL),
        (800, Level.NORMAL, Level.WARN),
        (700, Level.WARN, Level.WARN),
        (699, Level.WARN, Level.NORMAL),
        (900, Level.NORMAL, Level.THIN),
        (850, Level.THIN, Level.THIN),
        (849, Level.THIN, Level.WARN),
        (949, Level.THIN, Level.THIN),
        (950, Level.THIN, Level.FULL),
        (920, Level.FULL, Level.FULL),
        (919, Level.FULL, Level.THIN),
        (100, Level.FULL, Level.NORMAL),
        (2000, Level.NORMAL, Level.FULL),
    ],
)
def test_a_level_is_reached_at_its_share_and_left_well_below_it(
    used: int, before: Level, level: Level
) -> None:
    assert judge(used, LIMITS, before) is level


@given(st.integers(0, 2000), st.sampled_from(Level))
def test_a_level_once_judged_stays_while_nothing_changes(used: int, before: Level) -> None:
    level = judge(used, LIMITS, before)
    assert judge(used, LIMITS, level) is level


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (Level.NORMAL, Level.WARN, ["journal.filling"]),
        (Level.NORMAL, Level.FULL, ["journal.filling", "journal.filled"]),
        (Level.WARN, Level.THIN, []),
        (Level.THIN, Level.FULL, ["journal.filled"]),
        (Level.FULL, Level.THIN, ["journal.recovered"]),
        (Level.FULL, Level.NORMAL, ["journal.recovered"]),
        (Level.WARN, Level.NORMAL, []),
    ],
)
def test_what_filling_up_and_recovering_have_to_say(before: Level, after: Level, said: list[str]) -> None:
    drafts = crossing(before, after, 900, LIMITS, "van-0042")
    assert [draft.type for draft in drafts] == said
    assert all(draft.data == {"used": 900, "size": 1000} for draft in drafts)


def test_each_lane_is_kept_for_its_own_time() -> None:
    assert [LIMITS.keep_s(lane) / DAY_S for lane in Lane] == [30, 7, 1]


# -- age ------------------------------------------------------------------------------------------


def test_within_a_boot_the_age_is_what_nobody_can_set() -> None:
    made = Moment("boot-1", 5 * NS, 0, Trust.NONE)
    assert age_s(line(made), moment(65)) == 60


def test_across_boots_the_age_is_told_by_two_trusted_clocks() -> None:
    now = Moment("boot-2", 5 * NS, NOON_NS + 3600 * NS, Trust.GPS)
    assert age_s(line(moment(0)), now) == 3600


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.RTC])
def test_a_clock_that_is_not_trusted_tells_no_age(trust: Trust) -> None:
    assert age_s(line(moment(0)), moment(60, trust=trust)) is None
    assert age_s(line(moment(0, "boot-0", trust)), moment(60)) is None


# -- declarations ---------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 600)))
def test_declarations_name_every_lost_entry_once_with_its_hash(lost: set[int]) -> None:
    hashes = {sequence: sequence.to_bytes(32, "big") for sequence in sorted(lost)}
    named: list[int] = []
    for draft in losses(Lane.TELEMETRY, hashes, "van-0042"):
        ranges = draft.data["ranges"]
        assert 0 < len(ranges) <= RANGES
        these = [sequence for first, last in ranges for sequence in range(first, last + 1)]
        assert draft.data["count"] == len(these)
        assert b64decode(draft.data["leaves"]) == b"".join(hashes[sequence] for sequence in these)
        assert (draft.data["lane"], draft.lane) == ("telemetry", Lane.STATE)
        named += these
    assert named == sorted(lost)


def test_neighbours_are_one_range() -> None:
    (draft,) = losses(Lane.TELEMETRY, dict.fromkeys([3, 4, 5, 9], bytes(32)), "van-0042")
    assert draft.data["ranges"] == [[3, 5], [9, 9]]


def test_what_was_never_written_is_declared_without_sequences() -> None:
    assert unwritten(7, "van-0042").data == {
        "lane": "telemetry",
        "count": 7,
        "ranges": [],
        "unwritten": 7,
    }
