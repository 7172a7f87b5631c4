"""What a cut has left: the journal as it stands there, and the agent started again on it."""

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.powercut.cut import Cut, Image
from tests.powercut.disk import mounted, run
from tests.powercut.record import Bench, Recording
from tests.rig import ACCEPTING, label_of
from tests.site import Entry

AFTERWARDS = "after the cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One cut, and everything that is wrong with what it left."""

    cut: Cut
    at_risk: int
    promised: int
    lost: int
    wrong: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.lost and not self.wrong

    def __str__(self) -> str:
        return "; ".join([f"{self.cut}: {self.lost} of {self.promised} promised lost", *self.wrong])


@dataclass(frozen=True, slots=True)
class Left:
    """The content of a journal."""

    lines: tuple[bytes, ...]
    sequences: tuple[int, ...]
    cursor: int
    sound: str
    """`ok`, or what SQLite has found to be broken."""

    @property
    def entries(self) -> list[Entry]:
        return [json.loads(line) for line in self.lines]


NOTHING = Left((), (), 0, "ok")


def read_journal(state: Path) -> Left:
    """By another program than the one that wrote it. Raises sqlite3.Error."""
    file = state / "journal.db"
    if not file.exists():
        return NOTHING
    with closing(sqlite3.connect(file)) as connection:
        sound = "; ".join(str(row[0]) for row in connection.execute("PRAGMA integrity_check"))
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return Left((), (), 0, sound)
        rows = connection.execute("SELECT sequence, line FROM entry ORDER BY sequence").fetchall()
        cursor = connection.execute("SELECT value FROM record WHERE key = 'cursor'").fetchone()
    sequences, lines = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
    return Left(lines, sequences, int(json.loads(cursor[0])) if cursor else 0, sound)


def check_journal(folder: Path, image: Image, recording: Recording) -> Verdict:
    """Mount the image and read the journal that is on it."""
    file = folder / "cut.img"
    file.write_bytes(image.content)
    try:
        with mounted(file, folder / "cut"):
            left = read_journal(folder / "cut")
        run("e2fsck", "-f", "-n", str(file))  # Of a file system that is not whole, nothing could be said.
    except sqlite3.Error as error:
        return _verdict(image, recording, NOTHING, [f"journal: {error}"])
    finally:
        file.unlink()
    return _verdict(image, recording, left, _wrongs(left, image.cut, recording))


def _wrongs(left: Left, cut: Cut, recording: Recording) -> Iterator[str]:
    """What must never be, whatever was cut when."""
    if left.sound != "ok":
        yield f"integrity_check: {left.sound}"
    if left.sequences != tuple(range(1, len(left.sequences) + 1)):
        yield "a gap in the sequence"
    entries = left.entries
    if [entry["sequence"] for entry in entries] != [str(sequence) for sequence in left.sequences]:
        yield "an entry in the place of another"
    if len({entry["id"] for entry in entries}) != len(entries):
        yield "an id twice"
    taken = accepted(entries)
    if taken != list(recording.scanned[: len(taken)]):
        yield "labels not as they were scanned"
    received = [arrival.entry for arrival in recording.arrivals if arrival.at <= cut.at]
    if received != entries[: len(received)]:
        yield "the fleet has received what is not there"
    if left.cursor > min(len(recording.arrivals), len(entries)):
        yield f"the cursor at {left.cursor} is ahead of what was sent or of what is there"


def accepted(entries: list[Entry]) -> list[str]:
    """The labels that were taken, as they were scanned."""
    return [label_of(each) for each in entries if each["type"].removeprefix("postern.") in ACCEPTING]


async def check_restart(folder: Path, image: Image, recording: Recording) -> Verdict:
    """Start the agent on the image, with the broker there, and have it scan and deliver.

    Raises AssertionError when it does not start, scan or deliver by itself.
    """
    # What came later was lost with the power, and its numbers are given anew.
    before = _by_sequence(each.entry for each in recording.arrivals if each.at <= image.cut.at)
    with tempfile.TemporaryDirectory(prefix="again", dir=folder) as name:
        again, file = Path(name), Path(name) / "disk.img"
        file.write_bytes(image.content)
        with mounted(file, again / "state"):
            try:
                arrived = await _live_again(again, before)
            except AssertionError as error:
                error.add_note(str(image.cut))
                raise
            left = read_journal(again / "state")
    return _verdict(image, recording, left, _not_continued(left, arrived, before, recording))


async def _live_again(folder: Path, before: Mapping[int, Entry]) -> list[Entry]:
    """What arrives of a start, a scan and everything that waited."""
    async with Bench(folder) as bench:
        gun = await bench.begin()
        gun.scan(AFTERWARDS)
        await bench.until(lambda: gun.tones, "a tone after the cut")
        await bench.until(lambda: AFTERWARDS in accepted(bench.entries), "the scan at the fleet")
        # Of a long backlog custody leaves first: what is less urgent comes after the scan.
        await bench.until(lambda: _whole(bench.entries, before), "the rest at the fleet")
        await bench.kill_agent()
        return bench.entries


def _by_sequence(entries: Iterable[Entry]) -> dict[int, Entry]:
    return {int(entry["sequence"]): entry for entry in entries}


def _whole(arrived: list[Entry], before: Mapping[int, Entry]) -> bool:
    """Whether the fleet lacks nothing up to the newest that has arrived."""
    there = {**before, **_by_sequence(arrived)}
    return all(sequence in there for sequence in range(1, max(_by_sequence(arrived), default=0) + 1))


def _not_continued(
    left: Left, arrived: list[Entry], before: Mapping[int, Entry], recording: Recording
) -> Iterator[str]:
    """The fleet has all of it: what arrived before the cut, and the rest from after it."""
    entries = left.entries
    if left.sound != "ok":
        yield f"integrity_check: {left.sound}"
    if [int(entry["id"].rpartition("-")[2]) for entry in entries] != list(range(1, len(entries) + 1)):
        yield "the ids do not go on"
    taken = accepted(entries)
    if taken != [*recording.scanned[: len(taken) - 1], AFTERWARDS]:
        yield "labels not as they were scanned"
    after = _by_sequence(arrived)
    there = {**before, **after}
    if [there.get(sequence) for sequence in range(1, max(after) + 1)] != entries[: max(after)]:
        yield "the fleet has not received what is there"


def _verdict(image: Image, recording: Recording, left: Left, wrong: Iterable[str]) -> Verdict:
    promised = [promise.label for promise in recording.promises if promise.at <= image.cut.at]
    lost = set(promised) - set(accepted(left.entries))
    return Verdict(
        cut=image.cut, at_risk=image.at_risk, promised=len(promised), lost=len(lost), wrong=tuple(wrong)
    )
