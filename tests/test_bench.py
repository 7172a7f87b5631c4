"""Every measure of the bench comes to its end and yields numbers. How good they are is no test's business."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.figures import Figure, Missing, Target, head, percentile, row, shown
from tests.bench.sizes import QUICK
from tests.mosquitto import require_mosquitto

TINY = dataclasses.replace(
    QUICK,
    scans=3,
    slow_scans=2,
    codes=3,
    burst=200,
    lone=1,
    lone_wait=0.3,
    backlog=600,
    singles=5,
    thin=2,
    quiet=0.3,
    starts=1,
    queued=500,
    settle=0.2,
    idle=0.5,
    drivers=5,
    rows=50,
    lookups=20,
    collected=3_200,
    fleet=3,
)
MANY = Figure(
    name="scans", value=3000, unit="/s", beside="bare loop", limit=4000, target=Target(">=", 2000, "/s")
)


@pytest.mark.broker
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", bench.MEASURES)
def test_every_measure_yields_figures(name: str, tmp_path: Path) -> None:
    require_mosquitto()
    for found in bench.MEASURES[name](tmp_path, TINY):
        if isinstance(found, Missing):
            assert found.why
            continue
        assert math.isfinite(found.value)
        assert found.value > 0
        assert found.limit is None or found.limit > 0
        assert row(found)
        assert json.dumps(found.as_json())


def test_a_figure_shows_its_ratio_and_whether_the_target_is_met() -> None:
    assert " ".join(row(MANY).split()) == "met scans 3,000/s 0.75x at least 2,000/s 4,000/s bare loop"


def test_a_target_without_a_unit_is_about_the_ratio() -> None:
    latency = Figure(name="scan", value=3.0, unit="ms", limit=1.0, target=Target("<=", 1.5))
    assert latency.met is False
    assert "NOT MET" in row(latency)
    assert dataclasses.replace(latency, value=1.5).met is True


def test_a_figure_without_a_target_is_neither_met_nor_missed() -> None:
    assert dataclasses.replace(MANY, target=None).met is None


def test_a_ratio_to_nothing_does_not_meet_a_target() -> None:
    assert Figure(name="scan", value=1.0, unit="ms", target=Target("<=", 1.5)).met is False


def test_what_cannot_be_measured_says_why() -> None:
    assert row(Missing(name="scan", why="no strace")).endswith("not measured: no strace")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.5"),
        (12.34, "12.3"),
        (100, "100"),
        (999.6, "1000"),
        (23456.7, "23,457"),
    ],
)
def test_three_digits_are_shown(number: float, text: str) -> None:
    assert shown(number) == text


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.99, 4), (0.25, 1)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], share) == value


@pytest.fixture
def one_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MEASURES", {"burst": lambda _folder, _sizes: iter([MANY])})


@pytest.mark.broker
@pytest.mark.usefixtures("one_measure")
def test_figures_come_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_mosquitto()
    assert bench.main(["--quick", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert head() in told
    assert row(MANY) in told
    assert "1 targets met, 0 not met" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.broker
@pytest.mark.usefixtures("one_measure")
def test_figures_come_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_mosquitto()
    assert bench.main(["--json", "--only", "burst", "--folder", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["figures"] == [MANY.as_json()]
    assert set(told["machine"]) >= {"processors", "kernel", "python", "SQLite", "mosquitto"}
    assert not told["broken"]


@pytest.mark.broker
def test_a_measure_that_breaks_is_told_and_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_folder: Path, _sizes: object) -> None:
        raise OSError("no tty left")

    require_mosquitto()
    monkeypatch.setattr(bench, "MEASURES", {"durable": breaks, "burst": lambda _f, _s: iter([MANY])})
    assert bench.main(["--folder", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "BROKEN  durable: OSError: no tty left" in told
    assert row(MANY) in told
