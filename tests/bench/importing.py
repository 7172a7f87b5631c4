"""A process that fills a roster from pages in a folder, and tells what that took of it.

    python -m tests.bench.importing FOLDER

The folder holds `list.jws`, `signer`, `seal` and `pages/`; `roster.db` and its keys are made there.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import logs
from agent.bundle import Bundles
from agent.documents import Bundle, Document, read
from agent.envelope import Envelope, Kind
from agent.row_seal import Keys
from agent.rows import Rows
from agent.workflow import Draft
from tests.bundles import ADDRESS


def memory() -> dict[str, float]:
    """Resident memory of this process now and at its highest, in MB."""
    text = Path("/proc/self/status").read_text()
    return {name: int(kib) * 1024 / 1e6 for name, kib in re.findall(r"Vm(RSS|HWM):\s+(\d+) kB", text)}


def listed(folder: Path) -> Document[Bundle]:
    envelope = Envelope.parse(Kind.BUNDLE, (folder / "list.jws").read_bytes())
    public = (folder / "signer").read_bytes()
    kid = envelope.jws.signatures[0].kid
    return read(Kind.BUNDLE, envelope, envelope.signers({kid: public}), envelope.claims(Kind.BUNDLE))


async def fill(folder: Path) -> dict[str, Any]:
    keys = Keys.load(folder / "keys")
    rows = Rows(folder / "roster.db", keys)
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told.set_result(None)

    def report(_: Draft) -> "asyncio.Future[None]":
        return told

    seal = X25519PrivateKey.from_private_bytes((folder / "seal").read_bytes())
    bundles = Bundles(rows, seal, ADDRESS, report)
    await bundles.accepted(listed(folder))
    # The key page brings in what the first page would, whatever their number.
    await bundles.page((folder / "pages" / bundles.wanted()[0]).read_bytes())
    before, began = memory(), time.perf_counter()
    while wanted := bundles.wanted():
        await bundles.page((folder / "pages" / wanted[0]).read_bytes())
    took = time.perf_counter() - began
    bundles.close()
    rows.close()
    return {"seconds": took, "extra": memory()["HWM"] - before["RSS"]}


if __name__ == "__main__":
    logs.configure("error", "json")
    sys.stdout.write(json.dumps(asyncio.run(fill(Path(sys.argv[1])))))
