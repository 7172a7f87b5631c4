"""A device with a journal that is tended: its clock is turned by hand, and the fleet is a dictionary."""

import json
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.clock import NS, Moment, Trust
from agent.journal import Journal
from agent.ledger import TILE
from agent.note import Checkpoint, Note
from agent.retention import MIB, Limits
from agent.upkeep import Upkeep
from agent.workflow import Draft, Lane
from tests.moments import NOON_NS

SECRET = bytes(range(32))
WHOSE = "parcels/van-0042"
DAYS = {Lane.CUSTODY: 30, Lane.STATE: 7, Lane.TELEMETRY: 1}
NOWHERE = {"position": None, "position_missing": "no_receiver"}
FILLING = "x" * 400
"""Makes an entry take about a page."""


@dataclass
class Device:
    """A journal, its upkeep, a clock that is turned by hand, and what the fleet has of it."""

    folder: Path
    size: int = 64 * MIB
    boot: int = 1
    seconds: float = 1000.0
    trust: Trust = Trust.NTP
    fleet: dict[int, bytes] = field(default_factory=dict)
    """Lines that arrived, by sequence."""
    receipt: int = 0

    @property
    def path(self) -> Path:
        return self.folder / "journal.db"

    @property
    def now(self) -> Moment:
        mono_ns = round(self.seconds * NS)
        return Moment(f"boot-{self.boot}", mono_ns, NOON_NS + mono_ns, self.trust, 0.1)

    async def open(self) -> None:
        self.journal = Journal(self.path, source=f"/postern/{WHOSE}", key=SECRET)
        await self.journal.open()
        limits = Limits(size=self.size, days=DAYS)
        self.upkeep = Upkeep(self.journal, limits, "van-0042", lambda: (self.now, NOWHERE))
        self.upkeep.open()

    async def kill(self) -> None:
        """End as SIGKILL would: what is not on the disk now is gone."""
        after = self.folder / f"after-{self.boot}"
        after.mkdir()
        for part in self.folder.glob("journal.db*"):
            shutil.copy(part, after / part.name)
        await self.journal.close()
        self.folder = after
        self.boot += 1
        await self.open()

    async def restart(self) -> None:
        self.upkeep.close()
        await self.journal.close()
        self.boot += 1
        await self.open()

    async def append(self, *lanes: Lane) -> None:
        drafts = [Draft("some.thing", "s", {"n": n, "fill": FILLING}, lane) for n, lane in enumerate(lanes)]
        await self.journal.append(drafts, self.now, NOWHERE)

    async def deliver(self, most: int = 1 << 30) -> None:
        """What the uplink does: read on from the cursor, and move it on the acknowledgement."""
        while most > 0:
            cursor = self.journal.records.get("cursor", 0)
            found = await self.journal.read(cursor, entries=min(most, 300), size=MIB)
            if not found:
                return
            self.fleet.update((stored.sequence, stored.line) for stored in found)
            self.journal.ride({"cursor": found[-1].sequence})
            most -= len(found)

    async def receive(self) -> None:
        """The fleet's receipt for the newest checkpoint that it can follow."""
        self.journal.checkpoint()
        await self.journal.save()
        for size in range(self.journal.records.get("cursor", 0), self.receipt, -1):
            note = await self.journal.checkpoint_at(size)
            if note is not None:
                root = Checkpoint.parse(Note.parse(note).text).root
                self.journal.ride({"receipt": {"size": size, "root": b64encode(root).decode()}})
                self.receipt = size
                return

    async def tend(self) -> None:
        """As many rounds as there is something to do."""
        while await self.upkeep.round():
            pass

    async def lines(self) -> dict[int, bytes]:
        """What the file holds."""
        found = await self.journal._writer.submit(
            lambda connection: connection.execute("SELECT sequence, line FROM entry").fetchall(), reads=True
        )
        return dict(found)


@asynccontextmanager
async def device(folder: Path, **more: Any) -> AsyncIterator[Device]:
    made = Device(folder, **more)
    await made.open()
    try:
        yield made
    finally:
        await made.journal.close()


def declared(lines: Iterable[bytes]) -> list[int]:
    """The sequences that these lines declare lost, each as often as it is."""
    found: list[int] = []
    for line in lines:
        entry = json.loads(line)
        if entry["type"] == "postern.journal.declared_loss":
            for first, last in entry["data"]["ranges"]:
                found += range(first, last + 1)
    return found


def said(lines: Mapping[int, bytes], kind: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for _, line in sorted(lines.items())]
    return [entry["data"] for entry in entries if entry["type"] == f"postern.{kind}"]


def mixed(count: int) -> list[Lane]:
    """Custody, state and telemetry in turn."""
    return [Lane(n % 3) for n in range(count)]


async def fill(at: Device, share: float, *lanes: Lane) -> None:
    """Append until so much of the size is in use."""
    while at.journal.used < share * at.size:
        await at.append(*(lanes * TILE)[:TILE])
    await at.journal.save()
