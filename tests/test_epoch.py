"""Epochs, dates and news about fixes: values in, values out."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import ValidationError

from drivers.epoch import Epochs, Observation, judge, merge
from drivers.fixes import FixNews, FixOptions
from drivers.gpstime import RELEASED, Calendar, unroll
from drivers.readings import Fix, FixLost

# -- week rollover and calendar -------------------------------------------------------------------

TODAY = date(2026, 11, 24)


@pytest.mark.parametrize("rollovers", [-1, 0, 1, 2])
def test_a_date_is_moved_by_whole_rollovers_to_the_reference(rollovers: int) -> None:
    for day in (TODAY, TODAY + timedelta(days=3000), TODAY - timedelta(days=3000)):
        assert unroll(day - rollovers * timedelta(weeks=1024), TODAY) == day


def test_a_clock_that_was_never_set_is_no_reference() -> None:
    assert unroll(TODAY, date(1970, 1, 1)) == TODAY
    assert unroll(date(1999, 8, 22), date(1970, 1, 1)) == unroll(date(1999, 8, 22), RELEASED)


def test_a_time_of_day_has_no_utc_before_a_date_was_told() -> None:
    assert Calendar().utc(1.0) is None


def test_a_date_is_carried_on_over_midnight_both_ways() -> None:
    calendar = Calendar()
    calendar.told(TODAY, 86399.0)
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    assert calendar.utc(None) is None
    assert calendar.utc(86399.0) == midnight - 1
    assert calendar.utc(0.0) == midnight
    assert calendar.utc(86398.0) == midnight - 2
    for hour in range(48):
        assert calendar.utc(hour % 24 * 3600.0) == midnight + hour * 3600


def test_a_leap_second_is_the_second_of_the_midnight_after_it() -> None:
    calendar = Calendar()
    calendar.told(date(2016, 12, 31), 86399.0)
    assert calendar.utc(86400.0) == datetime(2017, 1, 1, tzinfo=UTC).timestamp()
    assert calendar.utc(0.0) == datetime(2017, 1, 1, tzinfo=UTC).timestamp()


# -- epochs and news ------------------------------------------------------------------------------


def at(time: float | None, **facts: object) -> Observation:
    return replace(Observation(time=time, position=(48.0, 11.0)), **facts)  # type: ignore[arg-type]


def test_the_sentences_of_an_epoch_are_told_together_once_the_next_begins() -> None:
    epochs = Epochs()
    assert epochs.take("RMC", at(1.0, speed_mps=3.0)) == []
    assert epochs.take("GGA", at(1.0, hdop=0.9)) == []
    assert epochs.take("RMC", at(2.0)) == [at(1.0, speed_mps=3.0, hdop=0.9)]


def test_once_the_kinds_are_known_an_epoch_is_told_with_its_last_sentence() -> None:
    epochs = Epochs()
    for kind in ("RMC", "GGA"):
        epochs.take(kind, at(1.0))
    epochs.take("RMC", at(2.0))
    assert epochs.take("GGA", at(2.0, hdop=0.9)) == [at(2.0, hdop=0.9)]
    assert epochs.take("GLL", at(2.0)) == [], "late for an epoch that was told"
    assert epochs.take("RMC", at(3.0)) == []


def test_an_epoch_that_lost_a_sentence_is_told_when_the_next_begins() -> None:
    epochs = Epochs()
    for kind in ("RMC", "GGA"):
        epochs.take(kind, at(1.0))
    epochs.take("RMC", at(2.0))
    assert epochs.take("RMC", at(3.0)) == [at(2.0)]
    assert epochs.take("GGA", at(3.0, hdop=0.9)) == [at(3.0, hdop=0.9)]


def test_a_sentence_can_complete_the_epoch_before_it_and_its_own() -> None:
    epochs = Epochs()
    epochs.take("RMC", at(1.0))
    assert epochs.take("RMC", at(2.0)) == [at(1.0), at(2.0)]


def test_epochs_of_a_receiver_without_time_begin_with_the_same_kind() -> None:
    epochs = Epochs()
    cold = Observation(time=None, refused="no_fix")
    assert [epochs.take(kind, cold) for kind in ("RMC", "GGA", "RMC", "GGA")] == [[], [], [cold], [cold]]


def test_a_sentence_said_twice_is_heard_once() -> None:
    assert merge([at(1.0, hdop=0.9), at(1.0, hdop=3.0)]) == at(1.0, hdop=0.9)


def test_one_refusal_refuses_the_epoch() -> None:
    epoch = merge(
        [at(1.0), Observation(time=1.0, refused="estimated"), Observation(time=1.0, refused="no_fix")]
    )
    assert judge(epoch, None, max_hdop=20) == FixLost(reason="estimated")


def test_an_epoch_without_position_has_no_fix() -> None:
    assert judge(Observation(time=1.0), None, max_hdop=20) == FixLost(reason="no_fix")


def test_a_diluted_position_is_no_fix() -> None:
    assert judge(at(1.0, hdop=20.1), None, max_hdop=20) == FixLost(reason="hdop")
    assert judge(at(1.0, hdop=20.0), 5.0, max_hdop=20) == Fix(lat=48.0, lon=11.0, utc=5.0, hdop=20.0)


FIX = Fix(lat=48.0, lon=11.0, utc=None)
LOST = FixLost(reason="no_fix")


def test_a_loss_is_news_once() -> None:
    news = FixNews(1.0)
    verdicts: list[tuple[Fix | FixLost, bool]] = [
        (LOST, True),
        (LOST, False),
        (FIX, True),
        (LOST, True),
        (FixLost(reason="hdop"), False),
    ]
    assert [news.is_news(verdict, 0.0) for verdict, _ in verdicts] == [expected for _, expected in verdicts]


def test_a_fix_is_news_once_in_an_interval() -> None:
    news = FixNews(1.0)
    assert [n for n in range(21) if news.is_news(FIX, 1_800_000_000 + n * 0.2)] == [0, 5, 10, 15, 20]


def test_a_fix_regained_within_the_interval_is_news() -> None:
    news = FixNews(60.0)
    verdicts: list[Fix | FixLost] = [FIX, FIX, LOST, FIX]
    assert [news.is_news(verdict, n) for n, verdict in enumerate(verdicts)] == [True, False, True, True]


def test_a_clock_set_back_does_not_silence_the_receiver() -> None:
    news = FixNews(1.0)
    assert news.is_news(FIX, 1000.0)
    assert news.is_news(FIX, 10.0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_hdop": 0},
        {"max_hdop": float("nan")},
        {"interval_ms": -1},
        {"silence": 0},
        {"baud": 1},
        {"interval_ms": 1.5},
    ],
    ids=str,
)
def test_options_out_of_bounds_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FixOptions.model_validate(options)
