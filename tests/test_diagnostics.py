"""What a device says of itself when it is asked from afar: bounded, and nobody is in it."""

import gzip
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent import logs
from agent.commands import LINES
from agent.diagnostics import LIMIT, bundle, machine
from agent.logs import KEPT, recent

STATUS = {"version": "1.2", "journal": {"last": 7}, "session": {"driver": "drv-1"}, "position": {"lat": 1.0}}


def opened(payload: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(gzip.decompress(payload))
    return told


def test_of_the_status_only_what_names_nobody_is_in_it(tmp_path: Path) -> None:
    made = bundle("van-0042", "c1", STATUS, machine(tmp_path, "0" * 64), [])
    told = opened(made.payload)
    assert (told["version"], told["journal"], told["command"]) == ("1.2", {"last": 7}, "c1")
    assert not {"session", "position"} & set(told)
    assert told["machine"]["disk"]["free"] > 0
    assert made.told == {"sha256": sha256(made.payload).hexdigest(), "bytes": len(made.payload), "lines": 0}


def test_of_a_line_only_named_fields_are_in_it() -> None:
    line = {"event": "lost", "unit": "gun", "detail": "drv-1", "subject": "drv-1", "reason": "x" * 5000}
    (told,) = opened(bundle("v", "c", {}, {}, [line]).payload)["log"]
    assert told == {"event": "lost", "unit": "gun", "reason": "x" * 200}


def test_however_long_the_log_is_the_latest_lines_are_in_it_and_it_fits() -> None:
    lines = [{"event": f"{number:04d}", "path": "€" * 200} for number in range(KEPT)]
    made = bundle("v", "c", STATUS, {}, lines)
    told = opened(made.payload)["log"]
    assert len(gzip.decompress(made.payload)) <= LIMIT
    assert made.lines == len(told) < KEPT
    assert [line["event"] for line in told] == [f"{n:04d}" for n in range(KEPT - len(told), KEPT)]


@pytest.fixture
def _logging() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_logging")
def test_the_latest_lines_are_kept_without_secrets_and_with_the_place_of_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    log = structlog.get_logger("test")
    for number in range(KEPT):
        log.info("before", number=number)
    log.debug("nobody wants this")
    try:
        raise ValueError("of drv-7f3a91")
    except ValueError as error:
        log.error("fault", pin="4711", exc_info=error)
    capsys.readouterr()
    *_, last = recent()
    assert len(recent()) == KEPT == LINES
    assert (last["event"], last["pin"], last["level"]) == ("fault", logs.HIDDEN, "error")
    assert last["trace"][0].rpartition("/")[2].startswith("test_diagnostics.py:")
    assert "drv-7f3a91" not in str(last)
