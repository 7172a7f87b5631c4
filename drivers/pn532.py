"""PN532 readers for 13.56 MHz cards, on their high-speed UART: badges by number, fingerprint cards by CTAP2.

A card of ISO/IEC 14443-4 is asked, once when it comes, whether it has the FIDO applet. Asked for a signature
later, it verifies its holder by itself: no finger and no template ever leaves it. Frames are in
`pn532_frames`, the conversation with the chip in `pn532_dialogue`, that with a card in `isodep` and
`fido_card`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from drivers.base import BadFrame, Driver, Emit, Link, NoReply, Options
from drivers.fido_card import have_asserted, have_made, select_fido
from drivers.isodep import Card, CardSilent
from drivers.pn532_dialogue import Pn532Dialogue
from drivers.presence import Presence, Sighting
from drivers.readings import (
    Action,
    AssertCard,
    CardAsserted,
    CardFailed,
    CardFailure,
    CredentialMade,
    MakeCredential,
    TagArrived,
    TagLeft,
)

TECHNOLOGY = "iso14443"

GET_FIRMWARE_VERSION = 0x02
SAM_CONFIGURATION = 0x14
RF_CONFIGURATION = 0x32
IN_LIST_PASSIVE_TARGET = 0x4A
IN_RELEASE = 0x52

SAM_NORMAL = bytes.fromhex("01 17 00")
"""No secure module; time-out of 23 x 50 ms, which does not matter in normal mode; no IRQ pin."""
MAX_RETRIES = bytes.fromhex("05 FF 01 02")
"""Item 5: ATR for ever, PSL once, activation three times. By default the chip looks for a card for ever."""
ONE_106A = bytes.fromhex("01 00")
ALL_TARGETS = b"\x00"

ISO_DEP = 0x20
"""In SEL_RES: the card speaks ISO/IEC 14443-4."""
ANSWER_WITHIN = 1.0
"""Seconds that the chip may take for a plain command; looking for a card takes it 30 ms."""
SELECT_WITHIN = 2.0
"""Seconds that a card may take to say whether it has the applet."""
GRACE = 2.0
"""Seconds beyond the holder's time in which a card that waits silently may still say that it was too long."""


@dataclass(frozen=True, slots=True)
class Target:
    """A card that was activated."""

    uid: bytes = field(repr=False)
    speaks_apdus: bool

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """From `NbTg [Tg SENS_RES(2) SEL_RES UID-length UID..]`; None for an empty field. Raises BadFrame."""
        if not data:
            raise BadFrame("target")
        if not data[0]:
            return None
        uid = data[6 : 6 + data[5]] if len(data) > 5 else b""
        if not uid or len(uid) != data[5]:
            raise BadFrame("target")
        return cls(uid, bool(data[4] & ISO_DEP))


class Pn532Options(Options):
    presence_ms: int = Field(default=600, ge=100, le=60_000)
    """Without a sighting for so long, a card has left. Several looks: one may miss it."""
    poll_ms: int = Field(default=150, ge=20, le=5_000)
    """From the start of one look for a card to the next."""

    @model_validator(mode="after")
    def _presence_spans_looks(self) -> Self:
        if self.presence_ms < 2 * self.poll_ms:
            raise ValueError(
                f"expected presence_ms of two looks ({2 * self.poll_ms}), got {self.presence_ms}"
            )
        return self


class Pn532Driver(Driver):
    """One reading when a card comes into the field, one when it has gone."""

    kind: ClassVar[str] = "pn532"
    ANSWERS = True
    OptionsType: ClassVar[type[Options]] = Pn532Options
    BAUD: ClassVar[int] = 115200
    performs: frozenset[type[Any]] = frozenset({AssertCard, MakeCredential})

    def __init__(self, link: Link, emit: Emit, options: Pn532Options) -> None:
        super().__init__(link, emit, options)
        self.chip = Pn532Dialogue(link)
        self.presence = Presence(options.presence_ms / 1000)
        self._field = asyncio.Lock()
        """One card is active at a time, for one thing at a time."""

    @property
    def noise(self) -> Counter[str]:
        return self.chip.codec.noise

    async def identify(self) -> Mapping[str, str]:
        await self.chip.wake()
        # The first thing a chip that has just woken is to be told; before that it may not answer others.
        await self._ask(SAM_CONFIGURATION, SAM_NORMAL)
        said = await self._ask(GET_FIRMWARE_VERSION)
        if len(said) != 4:
            raise NoReply(f"expected 4 bytes of firmware version, got {len(said)}")
        await self._ask(RF_CONFIGURATION, MAX_RETRIES)
        # A card that is active still, from before the port was reopened, would not answer a call to all.
        await self._ask(IN_RELEASE, ALL_TARGETS)
        return {"chip": f"PN5{said[0]:02x}", "firmware": f"{said[1]}.{said[2]}"}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            looked = loop.time()
            async with self._field:
                await self._look()
            await asyncio.sleep(max(0.0, looked + self.options.poll_ms / 1000 - loop.time()))

    async def perform(self, action: Action) -> None:
        match action:
            case AssertCard() | MakeCredential():
                async with self._field:
                    await self._have_done(action)
            case _:
                await super().perform(action)

    # -- who is there -----------------------------------------------------------------------------

    async def _look(self) -> None:
        # The moment it was asked: the time `emit` waits for a full inbox makes no card leave.
        now = asyncio.get_running_loop().time()
        async with self._activated() as target:
            if target is not None:
                await self._sight(target, now)
        for uid in self.presence.leave(now):
            await self.emit(TagLeft(uid=uid, technology=TECHNOLOGY))

    async def _sight(self, target: Target, now: float) -> None:
        match self.presence.sighted(target.uid, now):
            case Sighting.ARRIVED:
                try:
                    applets = await self._applets(target)
                except CardSilent:
                    # Not quite in the field yet: it arrives when it can be spoken to.
                    self.noise["card_silent"] += 1
                    self.presence.forget(target.uid)
                    return
                await self.emit(TagArrived(uid=target.uid, technology=TECHNOLOGY, applets=applets))
            case Sighting.REFUSED:
                self.noise["too_many_tags"] += 1
            case Sighting.STAYED:
                pass

    async def _applets(self, target: Target) -> tuple[str, ...]:
        return await select_fido(Card(self.chip, SELECT_WITHIN)) if target.speaks_apdus else ()

    # -- fingerprint cards ------------------------------------------------------------------------

    async def _have_done(self, action: AssertCard | MakeCredential) -> None:
        async with self._activated() as target:
            if target is None:
                await self.emit(CardFailed(failure=CardFailure.GONE))
            elif not target.speaks_apdus:
                await self.emit(CardFailed(failure=CardFailure.UNFIT))
            else:
                await self.emit(await _done(Card(self.chip, action.within + GRACE), action))

    # -- the chip ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _activated(self) -> AsyncIterator[Target | None]:
        """The card in the field, ready to be spoken to; halted afterwards, so that it can be found again."""
        resent = self.chip.resent
        try:
            target = Target.parse(await self._ask(IN_LIST_PASSIVE_TARGET, ONE_106A))
        except BadFrame as bad:
            self.noise[str(bad)] += 1
            target = None
        yield target
        if target is not None or resent != self.chip.resent:
            await self._ask(IN_RELEASE, ALL_TARGETS)

    async def _ask(self, code: int, parameters: bytes = b"") -> bytes:
        return await self.chip.command(code, parameters, within=ANSWER_WITHIN)


async def _done(
    card: Card, action: AssertCard | MakeCredential
) -> CardAsserted | CredentialMade | CardFailed:
    match action:
        case AssertCard():
            return await have_asserted(card, action)
        case MakeCredential():
            return await have_made(card, action)
