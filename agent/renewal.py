"""New keys of a device that is known already: asked for, answered, tried out, and only then in force.

    rotate -> keys made, kept, and asked for on `up/renewal`, signed by the device's own key
    confirm_keys -> the certificate is what was asked for -> on trial
    trial -> a second connection with it, while the first one stands -> in force, or dropped
    seal key -> both open pages until all that is in force came in pages sealed to the new one

A request has a number that only rises, also after a journal that was lost: it follows the clock. What is
asked for is remembered with its entry before it is sent, and the pair in force is touched by nothing until
the broker has let in the new one.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from agent.certificate import BadCertificate, Life, check_renewed, in_file, key_of, make_key
from agent.clock import NS, Moment
from agent.config import Config
from agent.config_file import Tls
from agent.journal import Journal
from agent.key_request import key_request
from agent.keyfile import BadKeyFile
from agent.keystore import NEXT_SEAL, Keystore, Level
from agent.mistakes import BadConfig
from agent.mqtt import Server
from agent.probe import why_not
from agent.tls_files import NextPair, tls_level
from agent.workflow import Draft, Lane

TOPIC = "renewal"
"""Below `up/`."""
RECORD = "keys/request"
WARNED = "keys/warned"
"""The end of the certificate of which it was told that it is near."""
CERTIFICATE, SEAL = "certificate", "seal"
ROTATED = (CERTIFICATE, SEAL)
"""Keys that can be made anew."""
RENEW_AT, WARN_AT = 1 / 3, 1 / 6
"""Shares of a certificate's life: with less left a new one is asked for, and somebody should look."""
TRIES = 3
"""Times that the broker may fail with the new pair while it answers with the old one."""

log = structlog.get_logger("renewal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things may take, in seconds."""

    look: float = 600.0
    again: float = 2.0
    """Between two tries of a new pair."""
    probe: float = 20.0
    after_refusal: float = 86_400.0
    """Until the device asks by itself once more."""


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def announce(self) -> None:
        """Say anew how the device is."""
        ...

    def online(self) -> str | None:
        """Why the broker is not there; None while it is."""
        ...

    def connect_with(self, server: Server) -> None:
        """From the next connection on."""
        ...

    def reseal(self) -> None:
        """The keys that pages may be sealed to are others now."""
        ...

    async def sealed_to(self, secret: bytes) -> bool:
        """Whether all that is in force came in pages sealed to this key."""
        ...


class Renewal:
    """One request at a time."""

    def __init__(
        self, config: Config, keystore: Keystore, journal: Journal, *, house: House, pace: Pace | None = None
    ) -> None:
        self._config, self._keystore, self._journal = config, keystore, journal
        self._house, self._pace = house, pace or Pace()
        self._device = config.file.device.id
        self._next = NextPair(config.state)
        self._wake = asyncio.Event()
        self._failed = 0
        self._refused_at: int | None = None
        self._made: tuple[object, bytes] | None = None
        """The last request that was signed, and what for."""
        self._life = self._read_life()

    # -- what others ask --------------------------------------------------------------------------

    @property
    def open(self) -> list[str]:
        """What was asked for, and is neither in force nor given up."""
        return list(self._record["open"])

    def status(self) -> dict[str, Any] | None:
        """Until when the certificate is good, and how far a new one is; None where there is none."""
        if self._life is None:
            return None
        asked = "asked" if CERTIFICATE in self.open else "in_force"
        return {
            "until": self._life.ends.isoformat(),
            "level": None if self._configured else tls_level(self._config.state),
            "state": "on_trial" if self._next.on_trial else asked,
        }

    def request(self) -> bytes | None:
        """What is asked of the fleet; empty where nothing is any more, None where nothing ever was."""
        asking = [name for name in self.open if name != CERTIFICATE or not self._next.on_trial]
        number = self._record["number"]
        if not asking:
            return b"" if number else None
        if self._made is None or self._made[0] != (number, asking):
            try:
                self._made = (number, asking), self._signed(number, asking)
            except (OSError, BadKeyFile, BadCertificate) as error:
                log.error("keys cannot be asked for", reason=str(error))
                return b""
        return self._made[1]

    async def rotate(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        """Make new keys and ask for them; all that can be made anew where none are named. The number of the
        request, and why there is none."""
        if keys is None:
            keys = [name for name in ROTATED if not self._problem(name)] or ROTATED
        problems = {name: problem for name in keys if (problem := self._problem(name))}
        if problems:
            return 0, "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        fresh = [name for name in keys if name not in self.open]
        if fresh:
            try:
                self._make(fresh)
            except (OSError, BadKeyFile) as error:
                return 0, f"storage: {error}"[:200]
            number = max(self._record["number"] + 1, self._house.stamp()[0].utc_ns // NS)
            record = {**self._record, "number": number, "open": sorted({*self.open, *fresh})}
            data = {"request": number, "keys": dict.fromkeys(fresh, "file"), "reason": why}
            await self._remember("keys.requested", data, record)
            log.info("keys requested", request=number, keys=fresh)
            self._house.announce()
        return int(self._record["number"]), ""

    async def confirm(self, number: int, chain: Sequence[str]) -> str:
        """The fleet has taken what was asked for; why it counts for nothing, or nothing."""
        if number != self._record["number"] or not self.open:
            return "not_asked"
        if SEAL in self.open:
            still = [name for name in self.open if name != SEAL]
            await self._remember("keys.seal_taken", {"request": number}, self._now(still, sealing=True))
        problem = ""
        if CERTIFICATE in self.open and not self._next.on_trial:
            problem = await self._take(chain)
        self._house.announce()
        return problem

    def look(self) -> None:
        """Something has changed that a key may have waited for."""
        self._wake.set()

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: try what is on trial, and ask by itself when it is time."""
        await self._resume()
        while True:
            await self._change_seal()
            wait = await self._try() if self._next.on_trial else await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            self._wake.clear()

    async def _resume(self) -> None:
        """The last run may have been stopped at any step."""
        if CERTIFICATE not in self.open:
            # Told of already, or never asked for.
            self._next.done() if self._next.in_force else self._next.drop()
        elif self._next.in_force:
            await self._kept()
        elif not self._next.on_trial and self._next.key() is None:
            await self._refuse("key_lost")

    async def _look(self) -> float:
        now, _ = self._house.stamp()
        if self._life is None or self._problem(CERTIFICATE):
            return self._pace.look
        left, ends = self._life.left(now.utc_ns / NS), self._life.ends.isoformat()
        if left < RENEW_AT and CERTIFICATE not in self.open and not self._waits(now):
            await self.rotate([CERTIFICATE], "expiring")
        if left < WARN_AT and self._journal.records.get(WARNED) != ends:
            log.warning("certificate expires", until=ends)
            draft = Draft("keys.certificate_expiring", self._device, {"until": ends}, Lane.STATE)
            stamp = self._house.stamp()
            await self._journal.append([draft], *stamp, {WARNED: ends})
        return self._pace.look

    def _waits(self, now: Moment) -> bool:
        return self._refused_at is not None and now.since(self._refused_at) < self._pace.after_refusal

    # -- a trial ----------------------------------------------------------------------------------

    async def _take(self, chain: Sequence[str]) -> str:
        """Put an answer on trial; why not, or nothing."""
        try:
            self._next.try_out(self._checked(chain))
        except BadCertificate as bad:
            # The same request would be given the same again.
            await self._refuse(str(bad))
            return str(bad)[:200]
        except OSError as error:
            return f"storage: {error.strerror}"
        self._wake.set()
        return ""

    async def _try(self) -> float:
        """Whether the broker lets us in with the new pair. Where one name may connect once, it ends the old
        connection in the same moment: the proof is that it is let in."""
        online = self._house.online() is None
        try:
            server = self._config.server(self._next.path)
        except BadConfig as bad:
            await self._refuse(str(bad))
            return self._pace.look
        if (why := await self._shut_out(server)) is None:
            self._next.put_in_force()
            self._house.connect_with(self._config.server())
            await self._kept()
            return self._pace.look
        # That no broker answers at all says nothing about the pair.
        self._failed += online
        log.warning("new certificate not taken", reason=why, attempt=self._failed)
        if self._failed < TRIES:
            return self._pace.again
        await self._refuse(why)
        return self._pace.look

    async def _shut_out(self, server: Server) -> str | None:
        """Why no node of the broker lets us in; None once one does."""
        why: str | None = None
        for node in server.nodes():
            if (why := await why_not(node, self._pace.probe)) is None:
                break
        return why

    async def _kept(self) -> None:
        self._life = self._read_life()
        assert self._life is not None
        await self._settle("keys.certificate_renewed", {"until": self._life.ends.isoformat()})
        self._next.done()
        self._house.announce()

    async def _refuse(self, why: str) -> None:
        """The pair in force stays."""
        self._refused_at = self._house.stamp()[0].mono_ns
        await self._settle("keys.certificate_refused", {"reason": why[:200]})
        self._next.drop()
        self._house.announce()

    async def _settle(self, what: str, data: Mapping[str, Any]) -> None:
        self._failed = 0
        number, still = self._record["number"], [name for name in self.open if name != CERTIFICATE]
        log.info(what.partition(".")[2].replace("_", " "), request=number)
        await self._remember(what, {"request": number, **data}, self._now(still, self._record["sealing"]))

    # -- the seal key -----------------------------------------------------------------------------

    async def _change_seal(self) -> None:
        """The old key goes when nothing that is in force needed it."""
        if self._keystore.wiped and (self._record["sealing"] or SEAL in self.open):
            # Gone with the rest.
            still = [name for name in self.open if name != SEAL]
            self._journal.ride({RECORD: self._now(still, sealing=False)})
        if not self._record["sealing"]:
            return
        following = self._keystore.find(NEXT_SEAL)
        if following is not None and not await self._house.sealed_to(following.reveal()):
            return
        # Without a next key the last run was stopped between changing it and telling of it.
        if self._keystore.change_seal() or following is None:
            self._house.reseal()
            log.info("seal key changed", request=self._record["number"])
            data = {"request": self._record["number"]}
            await self._remember("keys.seal_changed", data, self._now(self.open, sealing=False))

    # -- keys and requests ------------------------------------------------------------------------

    def _make(self, keys: Sequence[str]) -> None:
        """What is left of a request that was never remembered is not used."""
        if CERTIFICATE in keys:
            self._next.drop()
            self._next.keep_key(make_key())
        if SEAL in keys:
            self._keystore.prepare_seal()
            self._house.reseal()

    def _checked(self, chain: Sequence[str]) -> bytes:
        """Raises BadCertificate."""
        now, _ = self._house.stamp()
        path = self._config.tls().certificate
        assert path is not None
        return check_renewed(
            chain,
            key_of(self._next.key() or b"", "next key"),
            self._device,
            before=in_file(Path(path)),
            now_s=now.utc_ns / NS,
        )

    def _signed(self, number: int, asking: Sequence[str]) -> bytes:
        now, _ = self._house.stamp()
        following = self._keystore.find(NEXT_SEAL) if SEAL in asking else None
        return key_request(
            self._config.audience,
            number,
            self._keystore.load("device").reveal(),
            at=now.utc_ns // NS,
            tls_key=self._next.key() if CERTIFICATE in asking else None,
            seal_key=following.reveal() if following else None,
            levels=self._keystore.levels(),
        )

    def _problem(self, name: str) -> str:
        """Why a key cannot be made anew; nothing where it can."""
        if name == CERTIFICATE:
            return "configured" if self._configured else "" if self._life is not None else "no_certificate"
        if self._keystore.wiped:
            return "wiped"
        if self._record["sealing"]:
            return "under_way"
        return "" if self._keystore.level(SEAL) is Level.FILE else "credential"

    @property
    def _configured(self) -> bool:
        """Files that the config names are not ours to replace."""
        return self._config.file.broker.tls != Tls()

    def _read_life(self) -> Life | None:
        path = None if self._config.file.broker.plain else self._config.tls().certificate
        if path is None:
            return None
        try:
            return Life.of(in_file(Path(path)))
        except BadCertificate as bad:
            log.error("certificate cannot be read", reason=str(bad))
            return None

    # -- what is remembered -----------------------------------------------------------------------

    @property
    def _record(self) -> Mapping[str, Any]:
        return self._journal.records.get(RECORD) or {"number": 0, "open": [], "sealing": False}

    def _now(self, still: Sequence[str], sealing: bool) -> Mapping[str, Any]:
        """The record, with what is still open, and whether pages of a new seal key are awaited."""
        return {**self._record, "open": list(still), "sealing": sealing}

    async def _remember(self, what: str, data: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        now, position = self._house.stamp()
        draft = Draft(what, self._device, data, Lane.STATE)
        await self._journal.append([draft], now, position, {RECORD: record})
