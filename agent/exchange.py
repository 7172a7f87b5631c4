"""Two agents on one line: each hands over what it carries for the other, and takes what the other has for it.

    -> hello {tenant, device}              again and again, by both
    <- offer sha256, size                  there is a cargo on board for that device
    -> take sha256, offset                 one piece after the other, from where the last line was cut
    <- data sha256, offset, bytes
    -> done sha256                         it is here, whole, and was taken; the carrier lets go of it

Nobody proves on this line who they are, and nobody has to: documents are verified and pages are sealed.
Somebody who pretends to be a locker gets what is of no use to them, and costs that locker a cargo. Somebody
who pretends to be a carrier is heard for one cargo every half a minute, and only for this very device.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from agent.cargo import CARGO_LIMIT, DEVICE, Label
from agent.ferry import FOLDER, Ferry, digest_of
from drivers.readings import PeerSaid, TellPeer

HELLO, OFFER, TAKE, DATA, DONE = 1, 2, 3, 4, 5
DIGEST, NUMBER = 32, 4
HELLO_EVERY_S = 2.0
PIECE = 900
"""Bytes of a cargo in one frame."""
REST_TICKS = 15
"""Hellos after a cargo until the next is asked for: each one is an entry, and a hostile end has plenty."""
REMEMBERED = 64
"""Cargoes of which it is known what became of them."""
PARTIAL = "partial"

log = structlog.get_logger("ferry")


class Exchange:
    """One line. Says what is to be said next; does not know the line itself."""

    def __init__(self, state: Path, label: Label, ferry: Ferry, say: Callable[[TellPeer], object]) -> None:
        self._partial = state / FOLDER / PARTIAL
        self._label, self._ferry, self._say = label, ferry, say
        self._peer = ""
        """Whom the other end says that it is."""
        self._settled: dict[bytes, bool] = {}
        """Cargoes that came whole, oldest first: whether they were taken. None is asked for again."""
        self._wanted: tuple[bytes, int] | None = None
        """Hash and size of the cargo that is being taken."""
        self._rest = 0
        """Ticks for which no other cargo is asked for."""
        self._offered: dict[tuple[Path, int, int], bytes] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            self.tick()
            await asyncio.sleep(HELLO_EVERY_S)

    def tick(self) -> None:
        """Every now and then: say who we are, and ask again for what did not come."""
        self._rest = max(0, self._rest - 1)
        self._tell(HELLO, json.dumps({"tenant": self._label.tenant, "device": self._label.device}).encode())
        if self._wanted is not None:
            self._ask(*self._wanted)

    async def heard(self, said: PeerSaid) -> None:
        """A frame; one that makes no sense is nothing. A disk that has no room now is asked again later."""
        try:
            await self._heed(said)
        except OSError as error:
            log.warning("cargo not kept", reason=error.strerror)

    async def _heed(self, said: PeerSaid) -> None:
        digest, rest = said.body[:DIGEST], said.body[DIGEST:]
        number = int.from_bytes(rest[:NUMBER], "big")
        match said.kind:
            case 1:
                await self._greeted(said.body)
            case 2 if len(rest) == NUMBER:
                await self._offer_heard(digest, number)
            case 3 if len(rest) == NUMBER:
                await self._give(digest, number)
            case 4 if len(rest) > NUMBER:
                await self._took(digest, number, rest[NUMBER:])
            case 5 if not rest and self._peer:
                self._ferry.landed(self._peer, digest.hex())
            case _:
                pass

    # -- giving -----------------------------------------------------------------------------------

    async def _greeted(self, body: bytes) -> None:
        try:
            said: Any = json.loads(body)
            tenant, device = said["tenant"], said["device"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if tenant != self._label.tenant or device == self._label.device or not _is_device(device):
            return
        self._peer = device
        path = self._ferry.held_for(device)
        if path is not None:
            size = path.stat().st_size
            self._tell(OFFER, await self._digest(path) + size.to_bytes(NUMBER, "big"))

    async def _give(self, digest: bytes, offset: int) -> None:
        path = self._ferry.held_for(self._peer) if self._peer else None
        if path is None or await self._digest(path) != digest:
            return
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read(PIECE)
        if piece:
            self._tell(DATA, digest + offset.to_bytes(NUMBER, "big") + piece)

    async def _digest(self, path: Path) -> bytes:
        about = path.stat()
        key = (path, about.st_mtime_ns, about.st_size)
        if key not in self._offered:
            self._offered = {key: bytes.fromhex(await asyncio.to_thread(digest_of, path))}
        return self._offered[key]

    # -- taking -----------------------------------------------------------------------------------

    async def _offer_heard(self, digest: bytes, size: int) -> None:
        if digest in self._settled:
            if self._settled[digest]:
                self._tell(DONE, digest)
        elif 0 < size <= CARGO_LIMIT and self._wanted != (digest, size) and not self._rest:
            self._drop_all_but(digest)
            if self._here(digest) >= size:
                # All of it came before, and nobody was there any more to take it.
                await self._whole(digest)
                return
            self._wanted = (digest, size)
            self._ask(digest, size)

    def _ask(self, digest: bytes, size: int) -> None:
        self._tell(TAKE, digest + min(self._here(digest), size).to_bytes(NUMBER, "big"))

    async def _took(self, digest: bytes, offset: int, piece: bytes) -> None:
        wanted = self._wanted
        if wanted is None or wanted[0] != digest or offset != self._here(digest):
            return
        path = self._path(digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece[: wanted[1] - offset])
        if self._here(digest) < wanted[1]:
            self._ask(*wanted)
            return
        self._wanted = None
        await self._whole(digest)

    async def _whole(self, digest: bytes) -> None:
        path = self._path(digest)
        self._rest = REST_TICKS
        if await asyncio.to_thread(digest_of, path) != digest.hex():
            # Begun anew with a later offer.
            path.unlink()
            return
        taken = await self._ferry.take(path)
        self._settled[digest] = taken
        if len(self._settled) > REMEMBERED:
            del self._settled[next(iter(self._settled))]
        if taken:
            # Of what was refused the carrier lets not go: who can use it may yet be found.
            self._tell(DONE, digest)

    def _here(self, digest: bytes) -> int:
        path = self._path(digest)
        return path.stat().st_size if path.exists() else 0

    def _path(self, digest: bytes) -> Path:
        return self._partial / digest.hex()

    def _drop_all_but(self, digest: bytes) -> None:
        """One cargo is taken at a time: what is left of another would only lie there."""
        others: Iterable[Path] = self._partial.glob("*")
        for path in others:
            if path != self._path(digest):
                path.unlink(missing_ok=True)

    def _tell(self, kind: int, body: bytes) -> None:
        self._say(TellPeer(kind=kind, body=body))


def _is_device(name: object) -> bool:
    return isinstance(name, str) and DEVICE.fullmatch(name) is not None
