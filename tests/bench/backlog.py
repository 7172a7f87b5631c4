"""A journal full of entries that the broker has not got yet."""

import asyncio
from pathlib import Path

from agent.clock import SystemClock
from agent.journal import Journal
from agent.workflow import Draft, Lane
from tests.bench import rig

AT_ONCE = 500
POSITION = {"position": None, "position_missing": "no_receiver"}
SOURCE = f"/postern/bench/{rig.DEVICE}"


def fill(folder: Path, entries: int, lane: Lane = Lane.CUSTODY, *, source: str = SOURCE) -> None:
    """Write entries such as scans make into the journal of an agent that is to run in this folder."""
    asyncio.run(_fill(folder, entries, lane, source))


def _draft(number: int, lane: Lane) -> Draft:
    label = f"BACK{number:08d}"
    scan = {"raw": "QkFDSzAwMDAwMDAw", "symbology": None, "driver": "line", "scheme": "text"}
    return Draft("custody.seen", f"text:{label}", {"unit": "gun", "scan": scan}, lane)


async def _fill(folder: Path, entries: int, lane: Lane, source: str) -> None:
    journal, clock = Journal(folder / "journal.db", source=source), SystemClock()
    await journal.open()
    for first in range(0, entries, AT_ONCE):
        drafts = [_draft(number, lane) for number in range(first, min(first + AT_ONCE, entries))]
        await journal.append(drafts, clock.now(), POSITION)
    await journal.close()
