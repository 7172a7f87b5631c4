"""Opening at boot, whatever state the journal's file is in: what is good in a damaged one goes on.

The damaged file is set aside as it is. Its records go into the fresh file's first transaction, so that no
lockout, session or parcel is forgotten; its entries that the fleet may not have are copied while scans are
already accepted, and sent before anything new of theirs is asked for. Until the copying is done a record
named `salvage` says so, and a restart begins it again.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.clock import Moment
from agent.cursors import AGAIN, AHEAD, CURSOR
from agent.journal import SALVAGE, Journal
from agent.salvage import NewerJournal, Salvage, Salvaged, check, newest_set_aside, set_aside
from agent.workflow import Draft
from agent.writer import JournalBusy, JournalFailed

_OF_ITS_FILE = ("epoch", CURSOR, AHEAD, AGAIN, "receipt", SALVAGE)
"""Records that mean something only in the file they were in."""

log = structlog.get_logger("agent")


def examine(path: Path, key: bytes) -> "Rescue | None":
    """Set a damaged file aside and recover its records. Blocking; before the journal is opened.

    None where there is nothing to rescue. Raises JournalFailed for a newer version's file, which is left
    alone, and JournalBusy while another agent has the file.
    """
    try:
        reason = check(path)
        if reason:
            set_aside(path)
        if path.exists() and path.stat().st_size:
            return None
        damaged = newest_set_aside(path)
        return None if damaged is None else Rescue(damaged, reason or "set aside before", key)
    except NewerJournal as newer:
        raise JournalFailed(f"{path}: {newer}") from newer
    except BlockingIOError as held:
        raise JournalBusy(f"{path}: held by another process") from held
    except OSError as error:
        raise JournalFailed(f"{path}: {error.strerror}") from error


async def opened(journal: Journal, path: Path, key: bytes) -> "Rescue | None":
    """Open a journal on what is good in its file. A rescue that is left to be completed, this run's or the
    last one's, or None. Raises JournalFailed."""
    rescue = await asyncio.get_running_loop().run_in_executor(None, examine, path, key)
    await journal.open(rescue.carried() if rescue else None)
    begun = journal.records.get(SALVAGE)
    if rescue is None and begun:
        rescue = Rescue(path.with_name(begun["file"]), begun["reason"], key)
    return rescue


class Rescue:
    """One damaged file, and how far it has been taken over."""

    def __init__(self, damaged: Path, reason: str, key: bytes) -> None:
        public = Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
        self.file, self.reason = damaged.name, reason
        self._salvage = Salvage(damaged, reason, public=public)
        self.recovered = self._salvage.recover_records()

    def carried(self) -> dict[str, Any]:
        """Records for the fresh file."""
        kept = {name: value for name, value in self.recovered.records.items() if name not in _OF_ITS_FILE}
        return {**kept, SALVAGE: {"file": self.file, "reason": self.reason}}

    def previous(self) -> dict[str, Any]:
        """What the first entry of the fresh file says of the old one."""
        note = self.recovered.last_checkpoint
        return {
            "epoch": self.recovered.epoch,
            "file": self.file,
            "note": note.decode(errors="replace") if note else None,
        }

    async def copy(self, journal: Journal) -> Salvaged:
        """Copy the entries that the fleet may not have, in steps that delay no scan."""
        loop, lines = asyncio.get_running_loop(), self._salvage.lines()
        while (batch := await loop.run_in_executor(None, next, lines, None)) is not None:
            await journal.keep_salvaged(batch)
        return self._salvage.result()

    async def complete(
        self, journal: Journal, device: str, stamp: Callable[[], tuple[Moment, Mapping[str, Any]]]
    ) -> None:
        """Copy what the fleet may not have, then say what was saved and what was not."""
        saved = _told(await self.copy(journal))
        log.error("journal was damaged", **saved)
        now, position = stamp()
        await journal.append([Draft("journal.damaged", device, saved)], now, position, {SALVAGE: None})


def _told(saved: Salvaged) -> dict[str, Any]:
    """The data of `journal.damaged`: what was saved and what was not."""
    return {
        "file": saved.file,
        "epoch": saved.epoch,
        "reason": saved.reason,
        "kept": saved.kept,
        "copied": saved.copied,
        "last": saved.last,
        "lost": [list(span) for span in saved.lost[:100]],
        "lost_ranges": len(saved.lost),
        "more_may_be_lost": saved.open_end or saved.older_lost,
        "records_lost": list(saved.lost_records),
        "records_doubtful": list(saved.doubtful_records),
    }
