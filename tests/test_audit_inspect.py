"""Which entries are shown, in what order, and as what row."""

from pathlib import Path
from typing import Any

import pytest

from agent.audit.inspect import HEADINGS, Filter, moment, parse, people, plain, row, select
from agent.audit.reader import open_archive
from tests.journals import Made, entry, line, parcel, write_export, write_journal

CLOCK = entry(1)["data"]["clock"]


def handed_over(sequence: int, to: dict[str, Any]) -> bytes:
    data = {"unit": "scanner", "from": "drv-1", "to": to, "of": 1, "clock": CLOCK, "position": None}
    return line(sequence, type="postern.custody.handed_over", subject=parcel(1), data=data)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    lines = [line(n) for n in range(1, 20)]
    lines.append(handed_over(20, {"kind": "driver", "ref": "drv-9", "factors": ["badge", "pin"]}))
    lines.append(line(21, type="postern.custodyx.seen"))
    return write_journal(tmp_path / "journal.db", lines=lines)


def chosen(path: Path, last: int = 0, **wanted: Any) -> list[int]:
    with open_archive(path) as archive:
        return [sequence for sequence, _ in select(archive, Filter(**wanted), last)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, list(range(1, 22))),
        ({"parcel": parcel(1)}, [1, 8, 15, 20]),
        ({"parcel": parcel(99)}, []),
        ({"driver": "drv-9"}, [20]),
        ({"driver": "drv-1", "parcel": parcel(1)}, [1, 20]),
        ({"type": "custody.handed_over"}, [20]),
        ({"type": "postern.custody.handed_over"}, [20]),
        ({"type": "custody"}, list(range(1, 21))),
        ({"since": moment("2026-11-24T00:00:19Z")}, [19, 20, 21]),
        ({"until": moment("2026-11-24T01:00:02+01:00")}, [1, 2]),
        ({"since": moment("2026-11-25")}, []),
    ],
)
def test_only_what_was_asked_for_is_shown(made: Made, wanted: dict[str, Any], expected: list[int]) -> None:
    assert chosen(made.path, **wanted) == expected


def test_an_export_shows_the_same(made: Made, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export.ndjson", made)
    assert chosen(export, parcel=parcel(1)) == [1, 8, 15, 20]


def test_of_many_the_newest_are_shown_the_newest_at_the_bottom(made: Made) -> None:
    assert chosen(made.path, last=3) == [19, 20, 21]
    assert chosen(made.path, last=2, parcel=parcel(1)) == [15, 20]


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2026-11-24 08:15") == "2026-11-24T08:15:00.000000Z"


@pytest.mark.parametrize(
    ("to", "who", "where"),
    [
        ({"kind": "driver", "ref": "drv-9"}, "drv-1 > drv-9", "scanner"),
        ({"kind": "recipient", "evidence": "statement"}, "drv-1 > recipient", "scanner"),
        ({"kind": "locker", "ref": "lock-5", "door": "12"}, "drv-1 > lock-5", "scanner door 12"),
    ],
)
def test_a_handover_says_from_whom_to_whom_and_where(to: dict[str, Any], who: str, where: str) -> None:
    cells = dict(zip(HEADINGS, row(20, parse(handed_over(20, to))), strict=True))
    assert (cells["WHO"], cells["WHERE"]) == (who, where)
    assert cells["TYPE"] == "custody.handed_over"


def test_a_row_says_when_what_who_and_where() -> None:
    assert row(4, entry(4)) == (
        "4",
        "2026-11-24T00:00:04Z",
        "custody.accepted",
        parcel(4),
        "drv-1",
        "scanner 51.507351,-0.127758",
        "",
    )


def test_everyone_who_took_part_is_found() -> None:
    told = {"by": "a", "from": "b", "to": {"ref": "c"}, "holder": "d", "subject_ref": "e"}
    assert people({"subject": "f", "data": told}) == {"a", "b", "c", "d", "e", "f"}


def test_a_label_does_not_steer_the_terminal() -> None:
    assert "\x1b" not in plain(row(1, entry(1, subject="x\x1b[2Jy")))


@pytest.mark.parametrize("bad", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"data":7}'])
def test_a_line_that_cannot_be_read_is_shown_as_such(bad: bytes) -> None:
    assert len(row(1, parse(bad))) == len(HEADINGS)
