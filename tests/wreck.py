"""Journals to be damaged: real files, written by SQLite as the agent writes them, and what was written."""

import json
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.ledger import TILE, Frontier, leaf_hash
from agent.note import Checkpoint, SignerKey, sign
from agent.soundness import SCHEMA, TABLES

EPOCH, OLDER = "0123456789ab", "fedcba987654"
ORIGIN = f"acme/van-0042/{EPOCH}"
SECRET = bytes(32)
SIGNER = SignerKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(SECRET))
PUBLIC = SIGNER.verifier.public
SIGNED_EVERY = 64


@dataclass(slots=True)
class Written:
    """What a journal was given."""

    path: Path
    lines: dict[int, bytes] = field(default_factory=dict)
    older: dict[int, bytes] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    notes: dict[int, bytes] = field(default_factory=dict)

    def copied(self, folder: Path) -> "Written":
        """The same files in another folder, to be damaged there."""
        folder.mkdir(exist_ok=True)
        for part in parts(self.path):
            shutil.copy(part, folder / part.name)
        return Written(folder / self.path.name, self.lines, self.older, self.records, self.notes)


def parts(path: Path) -> list[Path]:
    """The file and its log, as far as there are any."""
    return [part for part in (path, log(path)) if part.exists()]


def log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def line(sequence: int, size: int, epoch: str = EPOCH) -> bytes:
    text = "".join(random.Random(sequence).choices("abcdefgh ", k=size))
    entry = {
        "specversion": "1.0",
        "id": f"{epoch}-{sequence}",
        "source": "/postern/acme/van-0042",
        "type": "postern.custody.scanned",
        "subject": f"sscc:{sequence:018}",
        "time": "2026-11-24T08:00:00.123456Z",
        "sequence": str(sequence),
        "data": {"text": text, "clock": {"boot": "boot-1", "mono_ns": sequence, "trust": "ntp"}},
    }
    return json.dumps(entry, separators=(",", ":")).encode()


def write(
    folder: Path,
    entries: int,
    *,
    seed: int = 1,
    long: int = 40,
    older: int = 0,
    cursor: int = 0,
    logged: int = 0,
    group: int = 3,
    sizes: tuple[int, int] = (100, 600),
) -> Written:
    """A journal of so many entries, one in `long` with overflow pages; the last `logged` in the log only."""
    folder.mkdir(exist_ok=True)
    written = Written(folder / "journal.db")
    dice = random.Random(seed)
    live = folder / "live.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        for name, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {name} {columns}")
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        _older(connection, written, older)
        record(connection, written, "epoch", EPOCH)
        record(connection, written, "cursor", cursor)
        for n in range(30):
            record(connection, written, f"tries:subject-{n}", {"failures": n, "boot": "boot-1", "mono_ns": n})
        record(connection, written, "custody", {"parcels": [f"sscc:{n:018}" for n in range(400)]})
        connection.execute("COMMIT")
        tree = Frontier()
        for first in range(1, entries + 1, group):
            if logged and first > entries - logged:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
                logged = 0
            rows = {
                n: line(n, dice.randrange(5000, 12000) if n % long == 0 else dice.randrange(*sizes))
                for n in range(first, min(first + group, entries + 1))
            }
            connection.execute("BEGIN")
            tree = append(connection, written, tree, rows)
            connection.execute("COMMIT")
        for part, copy in ((live, written.path), (log(live), log(written.path))):
            if part.exists():
                shutil.copy(part, copy)
    for part in parts(live):
        part.unlink()
    return written


def append(
    connection: sqlite3.Connection, written: Written, tree: Frontier, rows: dict[int, bytes]
) -> Frontier:
    """One transaction's entries, with the tiles and checkpoints that they complete."""
    for sequence, text in rows.items():
        connection.execute("INSERT INTO entry VALUES (?, 1, ?)", (sequence, text))
        written.lines[sequence] = text
        tree = tree.append(leaf_hash(text))
        if sequence % TILE == 0:
            leaves = [leaf_hash(written.lines[n]) for n in range(sequence - TILE + 1, sequence + 1)]
            root = Frontier().append(*leaves).root()
            connection.execute("INSERT INTO tile VALUES (?, ?, NULL)", (sequence // TILE - 1, root))
        if sequence % SIGNED_EVERY == 0:
            note = sign(Checkpoint(ORIGIN, sequence, tree.root()).text, SIGNER)
            connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (sequence, note))
            written.notes[sequence] = note
    record(connection, written, f"tries:subject-{max(rows) % 30}", {"failures": max(rows), "boot": "boot-2"})
    return tree


def record(connection: sqlite3.Connection, written: Written, key: str, value: Any) -> None:
    connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (key, json.dumps(value).encode()))
    written.records[key] = value


def _older(connection: sqlite3.Connection, written: Written, count: int) -> None:
    for number in range(1, count + 1):
        text = line(number + 500, 200, OLDER)
        connection.execute("INSERT INTO salvaged VALUES (?, ?)", (number, text))
        written.older[number] = text
