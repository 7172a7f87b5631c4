"""Writes journal files by the schema, and exports by the format, for audits to be tested on.

    made = write_journal(tmp_path / "journal.db", entries=300, pruned=range(10, 20))
    made.vkey, made.lines, made.receipt(256)

It shares no code with the agent: tree, notes and lines are written here a second time, from the standards,
so that writer and verifier cannot agree on one wrong idea. The key of the device is made as the test runs.
"""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

WHOSE, EPOCH = "acme/van-0042", "5f1e0c9a77b2"
ORIGIN = f"{WHOSE}/{EPOCH}"
FLEET = "fleet.acme.example/receipts"
PARCELS = 7
"""Of which entries are about, in turn."""
EVERY = 64

_SCHEMA = """
CREATE TABLE entry (sequence INTEGER PRIMARY KEY, lane INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE record (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tile (number INTEGER PRIMARY KEY, root BLOB NOT NULL, leaves BLOB);
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL);
PRAGMA user_version = 1;
"""


# -- lines ----------------------------------------------------------------------------------------


def parcel(number: int) -> str:
    return f"s10:RB{number:09d}GB"


def entry(sequence: int, /, **changed: Any) -> dict[str, Any]:
    """An entry as a courier's device writes it."""
    data = {
        "unit": "scanner",
        "by": f"drv-{sequence % 3}",
        "scan": {"raw": "UkIxMjM0NTY3ODVHQg==", "symbology": "]C0", "driver": "ssi", "scheme": "s10"},
        "clock": {"boot": "b1", "mono_ns": sequence * 1_000_000_000, "trust": "ntp", "error_s": 0.004},
        "position": {"lat": 51.507351, "lon": -0.127758, "age_s": 0.4, "hdop": None, "source": "gps"},
    }
    whole = {
        "specversion": "1.0",
        "id": f"{EPOCH}-{sequence}",
        "source": f"/postern/{WHOSE}",
        "type": "postern.custody.accepted",
        "subject": parcel(sequence % PARCELS),
        "time": f"2026-11-24T{sequence // 3600 % 24:02}:{sequence // 60 % 60:02}:{sequence % 60:02}.000000Z",
        "sequence": str(sequence),
        "data": data,
    }
    return {**whole, **changed}


def line(sequence: int, /, **changed: Any) -> bytes:
    return written(entry(sequence, **changed))


def written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def loss(sequence: int, *ranges: tuple[int, int]) -> bytes:
    count = sum(last - first + 1 for first, last in ranges)
    data = {"lane": "telemetry", "count": count, "ranges": ranges, "clock": entry(1)["data"]["clock"]}
    return line(sequence, type="postern.journal.declared_loss", subject="van-0042", data=data)


# -- tree -----------------------------------------------------------------------------------------


def leaf(line: bytes) -> bytes:
    return sha256(b"\x00" + line).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def roots(leaves: Sequence[bytes], sizes: Iterable[int]) -> dict[int, bytes]:
    """The roots at some sizes, in one go: a stack of subtrees, as in a binary counter."""
    wanted, stack, found = set(sizes), list[tuple[int, bytes]](), {}
    for size in range(len(leaves) + 1):
        if size:
            node, height = leaves[size - 1], 0
            while stack and stack[-1][0] == height:
                node, height = sha256(b"\x01" + stack.pop()[1] + node).digest(), height + 1
            stack.append((height, node))
        if size in wanted:
            found[size] = _bagged([node for _, node in stack])
    return found


def _bagged(peaks: list[bytes]) -> bytes:
    if not peaks:
        return root([])
    right = peaks.pop()
    while peaks:
        right = sha256(b"\x01" + peaks.pop() + right).digest()
    return right


# -- notes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """A name and a key made on the spot."""

    name: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        return b"\x01" + self.key.public_key().public_bytes_raw()

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(self.public).decode()}"

    def signature(self, text: str) -> str:
        return f"— {self.name} {b64encode(self.id + self.key.sign(text.encode())).decode()}\n"


def note(size: int, root: bytes, *signers: Signer, origin: str = ORIGIN) -> bytes:
    """A checkpoint with a signature of each."""
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n"
    return (text + "\n" + "".join(signer.signature(text) for signer in signers)).encode()


# -- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A journal that was written, and what it takes to tamper with it."""

    path: Path
    device: Signer
    lines: list[bytes]
    fleet: Signer = field(default_factory=lambda: Signer(FLEET))

    @property
    def vkey(self) -> str:
        return self.device.vkey

    def receipt(self, size: int) -> bytes:
        """What the fleet keeps: the device's checkpoint of this size, cosigned."""
        return note(size, root([leaf(line) for line in self.lines[:size]]), self.device, self.fleet)

    def change(self, statement: str, *values: object) -> None:
        """Tamper with the file."""
        connection = sqlite3.connect(self.path)
        with connection:
            assert connection.execute(statement, values).rowcount != 0, "nothing was changed"
        connection.close()


def write_journal(
    path: Path,
    entries: int = 300,
    *,
    lines: Sequence[bytes] | None = None,
    device: Signer | None = None,
    signed: Collection[int] | None = None,
    pruned: Collection[int] = (),
    seen: int = 0,
) -> Made:
    """A journal of so many entries, or of these lines.

    It is signed every 64 entries and at the end, or at `signed`. The fleet has confirmed `seen` entries.
    Lines are pruned from whole tiles only, as an agent does.
    """
    stored = list(lines) if lines is not None else [line(n) for n in range(1, entries + 1)]
    device = device or Signer(ORIGIN)
    leaves = [leaf(each) for each in stored]
    sizes = signed if signed is not None else {*range(EVERY, len(stored) + 1, EVERY), len(stored)}
    known = roots(leaves, {*sizes, seen})
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; BEGIN;" + _SCHEMA)
    gone = frozenset(pruned)
    rows = ((n, 0, each) for n, each in enumerate(stored, 1) if n not in gone)
    connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
    connection.executemany("INSERT INTO tile VALUES (?, ?, ?)", _tiles(leaves, gone))
    notes = ((size, note(size, known[size], device)) for size in sizes if size)
    connection.executemany("INSERT INTO checkpoint VALUES (?, ?)", notes)
    records = {"epoch": EPOCH, "cursor": len(stored)}
    if seen:
        records["receipt"] = {"size": seen, "root": b64encode(known[seen]).decode()}
    connection.executemany("INSERT INTO record VALUES (?, ?)", [(k, written(v)) for k, v in records.items()])
    connection.execute("COMMIT")
    connection.close()
    return Made(path, device, stored)


def _tiles(leaves: Sequence[bytes], gone: frozenset[int]) -> Iterable[tuple[int, bytes, bytes | None]]:
    for number in range(len(leaves) // 256):
        own = leaves[number * 256 : (number + 1) * 256]
        thinned = not gone.isdisjoint(range(number * 256 + 1, (number + 1) * 256 + 1))
        yield number, root(own), b"".join(own) if thinned else None


def write_export(path: Path, made: Made, pruned: Collection[int] = ()) -> Path:
    """The same journal as NDJSON, with the hashes of what is pruned one by one."""
    leaves = [leaf(each) for each in made.lines]
    sizes = {*range(EVERY, len(leaves) + 1, EVERY), len(leaves)} - {0}
    known = roots(leaves, sizes)
    told = [written({"postern_export": 1, "origin": ORIGIN, "from": 1, "to": len(leaves)})]
    for sequence, each in enumerate(made.lines, 1):
        hashes = [b64encode(leaves[sequence - 1]).decode()]
        gone = written({"leaves": {"from": sequence, "hashes": hashes}})
        told.append(gone if sequence in pruned else each)
    notes = (note(size, known[size], made.device) for size in sorted(sizes))
    told += [written({"checkpoint": each.decode()}) for each in notes]
    path.write_bytes(b"".join(each + b"\n" for each in told))
    return path
