"""The operator's log: what stays out of it even where somebody logs without care."""

import json
from typing import Any

import pytest
import structlog

from agent import logs
from agent.secret import Secret

TOKEN = "8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture(params=["json", "text"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def logged(capsys: pytest.CaptureFixture[str], style: str, **fields: Any) -> str:
    logs.configure("debug", style)
    try:
        structlog.get_logger("a test").error("happened", **fields)
    finally:
        logs.configure("critical")
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [
        {"token": TOKEN},
        {"pin": TOKEN},
        {"data": TOKEN.encode()},
        {"data": bytearray(TOKEN.encode())},
        {"reading": {"uid": TOKEN, "raw": TOKEN.encode()}},
        {"rows": [("badge", {"secret": TOKEN})]},
        {"key": Secret(TOKEN.encode())},
    ],
)
def test_a_secret_that_is_logged_by_mistake_is_not_in_the_line(
    capsys: pytest.CaptureFixture[str], style: str, fields: dict[str, Any]
) -> None:
    said = logged(capsys, style, **fields)
    assert "happened" in said
    assert TOKEN not in said


def test_what_is_no_secret_is_logged_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(logged(capsys, "json", unit="gun", count=3, raw=b"abc", units={"gun": "ssi"}))
    assert (said["unit"], said["count"], said["raw"], said["units"]) == (
        "gun",
        3,
        "<3 bytes>",
        {"gun": "ssi"},
    )


def test_a_traceback_is_logged_without_the_values_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    token = TOKEN
    try:
        raise ValueError("what went wrong")
    except ValueError as error:
        said = logged(capsys, "json", exc_info=error)
    assert "what went wrong" in said
    assert token not in said
