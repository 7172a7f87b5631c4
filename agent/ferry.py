"""Documents that people carry: into this device, or on it to another that has no network.

What lies in `state/ferry/in` is taken in turn, each piece exactly as if the broker had brought it. A cargo
for another device is kept in `state/ferry/hold` until that one has it, the newest for each and within bounds.
The file goes when what it brought is durable; every file that came is an entry.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from agent import cargo, keyfile
from agent.cargo import BadCargo, Label
from agent.workflow import Draft, Lane

FOLDER, IN, HOLD = "ferry", "in", "hold"
SUFFIX = ".cargo"
VIA = "ferry"
PAGE = "page/"
LOOK_EVERY_S = 5.0
MIB = 1024 * 1024

log = structlog.get_logger("ferry")


class Post(Protocol):
    """Who verifies documents, whoever brings them."""

    refused: Counter[tuple[str, str]]
    """What was refused so far: kind and reason."""

    @property
    def wanted(self) -> Sequence[str]:
        """Pages that are lacked."""
        ...

    async def take(self, name: str, raw: bytes, via: str | None = None) -> None:
        """A document; durable when it returns."""
        ...


class Ferry:
    """Takes what was carried here, and keeps what is carried on."""

    def __init__(
        self,
        state: Path,
        label: Label,
        limit_mib: int,
        *,
        post: Callable[[], Post | None],
        report: Callable[[Draft], asyncio.Future[None]],
    ) -> None:
        """`label` names this device; `limit_mib` bounds what is kept for others, 0 for nothing."""
        self._in, self._hold = state / FOLDER / IN, state / FOLDER / HOLD
        self._label, self._limit = label, limit_mib * MIB
        self._post, self._report = post, report
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> Mapping[str, Any]:
        """Take everything that lies there; counts of what came of it, and in words what was wrong."""
        outcomes: Counter[str] = Counter()
        wrong: list[str] = []
        async with self._lock:
            for path in sorted(filter(Path.is_file, self._in.glob(f"*{SUFFIX}"))):
                data = await self._take(path, carried_on=True)
                outcomes[data["outcome"]] += 1
                wrong += [data["reason"]] if "reason" in data else [*data.get("refused", {})]
        return {**outcomes, **({"wrong": wrong} if wrong else {})}

    async def take(self, path: Path) -> bool:
        """Take one file that came for this very device; whether it was any. It is gone afterwards."""
        async with self._lock:
            data = await self._take(path, carried_on=False)
        return "reason" not in data

    def held_for(self, device: str) -> Path | None:
        """The cargo that is on board for a device."""
        path = self._hold / f"{device}{SUFFIX}"
        return path if cargo.DEVICE.fullmatch(device) and path.exists() else None

    def landed(self, device: str, digest: str) -> None:
        """That device has a cargo of this hash: if it still is the one on board, it goes."""
        path = self.held_for(device)
        if path is not None and digest_of(path) == digest:
            path.unlink()
            data = {"device": device, "sha256": digest}
            log.info("handed over", **data)
            self._report(Draft("ferry.handed_over", self._label.device, data, Lane.STATE))

    def on_board(self) -> dict[str, int]:
        """Bytes of what is kept for others, by device."""
        return {path.stem: path.stat().st_size for path in sorted(self._hold.glob(f"*{SUFFIX}"))}

    async def _take(self, path: Path, *, carried_on: bool) -> dict[str, Any]:
        """What its entry says, and the outcome: `unloaded`, `loaded` or `refused`."""
        data: dict[str, Any] = {"file": path.name[:80]}
        try:
            label = cargo.label_of(path)
            data |= {"for": label.device, "sha256": await asyncio.to_thread(digest_of, path)}
            if label == self._label:
                outcome = await self._open(path, data)
            elif carried_on:
                outcome = await asyncio.to_thread(self._load, path, label)
            else:
                raise BadCargo(f"expected cargo for {self._label.device}, got some for {label.device}")
        except (BadCargo, OSError) as error:
            outcome = "refused"
            data["reason"] = str(error)[:200]
        log.info("cargo", outcome=outcome, **data)
        await self._report(Draft(f"ferry.{outcome}", self._label.device, data, Lane.STATE))
        path.unlink(missing_ok=True)
        return {**data, "outcome": outcome}

    async def _open(self, path: Path, data: dict[str, Any]) -> str:
        post = self._post()
        if post is None:
            raise BadCargo("no root was put here that could vouch for it")
        counts: Counter[str] = Counter()
        data["brought"] = counts
        before = post.refused.copy()
        for name, raw in cargo.pieces(path):
            # Tens of megabytes of pages are passed by here, and others want their turn.
            await asyncio.sleep(0)
            if not name.startswith(PAGE):
                await post.take(name, raw, VIA)
                counts[name] += 1
        # What a bundle lacks is known once its list is in force, and more of it once its key page is here.
        wanted: set[str] = set()
        while (now := set(post.wanted)) != wanted:
            wanted = now
            for name, raw in cargo.pieces(path):
                await asyncio.sleep(0)
                if name in wanted:
                    await post.take(name, raw, VIA)
        data["lacking"] = len(wanted)
        if refused := post.refused - before:
            data["refused"] = {f"{kind}: {reason}": times for (kind, reason), times in refused.items()}
        return "unloaded"

    def _load(self, path: Path, label: Label) -> str:
        """Keep it for whom it is for, in place of what was kept before. Raises BadCargo over the bound."""
        if label.tenant != self._label.tenant:
            raise BadCargo(f"expected cargo of {self._label.tenant}, got some of {label.tenant}")
        for _ in cargo.pieces(path):
            # Read to its end: what is no cargo is not carried any further.
            pass
        others = sum(size for device, size in self.on_board().items() if device != label.device)
        if (size := path.stat().st_size) + others > self._limit:
            raise BadCargo(f"expected at most {self._limit} bytes on board, got {size + others}")
        self._hold.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.replace(self._hold / f"{label.device}{SUFFIX}")
        keyfile.sync_folder(self._hold)
        return "loaded"


def spool(state: Path, source: Path) -> Path:
    """Copy a cargo to where it is taken from, whole or not at all. Raises BadCargo and OSError."""
    cargo.label_of(source)
    cargo.bounded(source)
    digest = digest_of(source)
    target = state / FOLDER / IN / f"{digest[:16]}{SUFFIX}"
    keyfile.write(target, source.read_bytes())
    return target


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
