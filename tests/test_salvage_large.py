"""Ten megabytes with any kind of place damaged: the device boots, loses what the damage touches, and says so.

As it goes in life: a quick look at the start, everything looked over in use, and another start where that
found something. `POSTERN_LONG=1` tries many places of each kind.
"""

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.clock import Moment
from agent.journal import SALVAGE, Journal
from agent.ledger import TILE
from agent.rescue import examine
from agent.salvage import Salvaged, suspect
from agent.soundness import schema
from agent.sqlite_file import File
from agent.sqlite_pages import parse_page, walk
from tests import wreck
from tests.salvaging import PAGE, REACHED, damage, holds, numbers, outcome
from tests.site import LONG
from tests.wreck import EPOCH, SECRET, Written

ENTRIES = 9000
AT = Moment(boot="boot-9", mono_ns=1, utc_ns=1_800_000_000_000_000_000)
KINDS = (
    "the file header",
    "the schema",
    "an interior page",
    "a leaf's header",
    "a leaf's cell pointers",
    "a cell's head",
    "a line",
    "the end of a page",
    "an overflow page",
    "the records",
    "the tiles",
    "the checkpoints",
)


@dataclass(frozen=True, slots=True)
class Large:
    """A big journal, the places of each kind in it, and where each entry's bytes lie."""

    written: Written
    places: dict[str, list[tuple[int, int]]]
    """Offset and size."""
    pages: dict[int, set[int]]
    """By sequence."""

    def touched(self, at: int, size: int) -> set[int]:
        """Entries on the pages that these bytes are of."""
        bad = set(range(at // PAGE, (at + size - 1) // PAGE + 1))
        return {sequence for sequence, pages in self.pages.items() if pages & bad}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    folder = tmp_path_factory.mktemp("large")
    written = wreck.write(folder, ENTRIES, group=16, cursor=REACHED, sizes=(300, 1200))
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert written.path.stat().st_size > 10_000_000
    return Large(written, _places(written.path), _pages(written))


def _pages(written: Written) -> dict[int, set[int]]:
    """Lines lie nearly in order: each piece is looked for near the last, then everywhere."""
    data, near, found = written.path.read_bytes(), 0, dict[int, set[int]]()
    for sequence, line in written.lines.items():
        pieces = [line[:60], *(line[at : at + 40] for at in range(60, len(line) - 40, 300)), line[-40:]]
        found[sequence] = set()
        for piece in pieces:
            at = data.find(piece, max(0, near - 40 * PAGE), near + 40 * PAGE)
            at = data.find(piece) if at < 0 else at
            if at >= 0:  # else it lies across two pages of a chain, which other pieces are on
                found[sequence].add(at // PAGE)
                near = at
    return found


def _places(path: Path) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    found["the file header"], found["the schema"] = [(0, 100)], [(100, PAGE - 100)]
    with File(path) as file:
        roots, _ = schema(file)
        leaves = {leaf.page for leaf in walk(file, roots["entry"])}
        others = {leaf.page: name for name in ("tile", "checkpoint") for leaf in walk(file, roots[name])}
        for number in range(2, file.pages + 1):
            base, image = (number - 1) * PAGE, file.read(number)
            if number in leaves:
                cells = parse_page(image, PAGE).cells
                found["a leaf's header"].append((base, 8))
                found["a leaf's cell pointers"].append((base + 8, 2 * len(cells)))
                found["a cell's head"] += [(base + cell, 8) for cell in cells]
                found["a line"] += [(base + cell + 20, 60) for cell in cells if cell < PAGE - 80]
                found["the end of a page"].append((base + PAGE - 16, 16))
            elif number in others:
                found[f"the {others[number]}s"].append((base, PAGE))
            elif image[0] == 5:
                found["an interior page"].append((base, PAGE))
            elif image[0] in (2, 10):
                found["the records"].append((base, PAGE))
            else:
                found["an overflow page"].append((base, PAGE))
    return found


async def lived_through(path: Path) -> tuple[Salvaged | None, dict[int, bytes]]:
    """Start until nothing is wrong any more; what was saved, and all lines that go on, by sequence."""
    saved: Salvaged | None = None
    for _ in range(3):
        rescue = examine(path, SECRET)
        journal = Journal(path, source="/postern/acme/van-0042", key=SECRET)
        await journal.open(rescue.carried() if rescue else None)
        try:
            if rescue is not None:
                saved = await rescue.copy(journal)
                await journal.append([], AT, {}, {SALVAGE: None})
            for number in range(journal.last // TILE + 1):
                if not journal.failed.done():
                    await journal.look_over(number)
        finally:
            await journal.close()
        if not journal.failed.done():
            return saved, _going_on(path)
        suspect(path, str(journal.failed.result()))
    raise AssertionError("expected the third start at the latest to find nothing wrong")


def _going_on(path: Path) -> dict[int, bytes]:
    with closing(sqlite3.connect(path)) as connection:
        lines = connection.execute("SELECT line FROM salvaged UNION ALL SELECT line FROM entry").fetchall()
    prefix = f'"id":"{EPOCH}-'.encode()
    return {
        int(line.partition(prefix)[2].partition(b'"')[0]): line for (line,) in lines if prefix in line[:128]
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_place_of_any_kind_costs_what_it_touches_and_every_loss_is_named(
    kind: str, large: Large, tmp_path: Path
) -> None:
    chance = random.Random(kind)
    places = large.places[kind]
    assert places
    for at, size in chance.sample(places, min(len(places), 40 if LONG else 1)):
        byte = chance.choice((1, size))
        first = at if byte == size else at + chance.randrange(size)
        written = large.written.copied(tmp_path / f"at-{first}-{byte}")
        damage(written.path, first, bytes(255 - each for each in read(written.path, first, byte)))
        saved, there = await lived_through(written.path)
        missing = {n for n in large.written.lines if n > REACHED} - there.keys()
        altered = {n for n, line in there.items() if line != large.written.lines[n]}
        assert missing | altered <= large.touched(first, byte)
        if missing or altered:
            assert saved is not None
            named = numbers(saved.lost) | numbers(saved.lost_or_pruned)
            assert missing <= named or (saved.open_end and max(missing) > saved.last)
            assert altered <= numbers(saved.doubtful) | set(range(max(written.notes) + 1, ENTRIES + 1))
        for part in written.path.parent.iterdir():
            part.unlink()


def read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


@pytest.mark.parametrize("seed", range(4))
def test_ten_megabytes_with_bad_pages_lose_those_pages_alone(seed: int, large: Large, tmp_path: Path) -> None:
    written = large.written.copied(tmp_path / "copy")
    dice = random.Random(seed)
    bad = dice.sample(range(10, written.path.stat().st_size // PAGE), 5)
    for number in bad:
        damage(written.path, (number - 1) * PAGE, dice.randbytes(PAGE))
    found = outcome(written.path)
    missing = holds(written, found)
    assert missing <= {n for number in bad for n in large.touched((number - 1) * PAGE, PAGE)}
    assert found.told.kept >= ENTRIES - len(missing) - REACHED
