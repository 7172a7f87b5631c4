"""UHF reader modules that speak `BB .. 7E`: YRM100, M100 and QM100, R200, JRD-4035.

    BB TYPE COMMAND PLh PLl <PL bytes> SUM 7E

TYPE is 00 for a command, 01 for its answer, 02 for a notice such as one tag of an inventory round. SUM is
the low byte of the sum from TYPE on. Nothing is escaped, so BB and 7E occur inside a frame: only PL tells
where it ends.

Inventory is done in single rounds (22) that the driver asks for, not by the module's own polling (27).
Every round is then a question with an answer, which tells a deaf module from an empty field; nothing
streams into a host that is not ready; and no other question has to interrupt anything. A module that some
earlier host left polling is stopped first.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from drivers.base import ActionRefused, BadFrame, Dialogue, Driver, Emit, FrameCodec, Link, NoReply, Options
from drivers.checksums import crc16_gen2, sum8
from drivers.presence import Presence, Sighting
from drivers.readings import Action, EnableScanning, SetPower, TagArrived, TagLeft

TECHNOLOGY = "epc-gen2"

COMMAND, ANSWER, NOTICE = 0x00, 0x01, 0x02

ABOUT = 0x03
INVENTORY = 0x22
STOP = 0x28
POWER = 0xB6
ERROR = 0xFF

ABOUT_HARDWARE = b"\x00"
DONE = b"\x00"

NO_TAG = 0x15
"""The round found no tag, or none that could be read: the usual answer of a reader at rest."""

MAX_DBM = 33.0
"""2 W, above what any of these modules can send."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, either way."""

    type: int
    command: int
    parameter: bytes = b""

    @property
    def error(self) -> int | None:
        """The error code, where this is the answer of a module that could not do what it was asked."""
        if (self.type, self.command) == (ANSWER, ERROR) and self.parameter:
            return self.parameter[0]
        return None

    def encode(self) -> bytes:
        body = bytes([self.type, self.command]) + len(self.parameter).to_bytes(2, "big") + self.parameter
        return b"\xbb" + body + bytes([sum8(body), 0x7E])


class M100Codec(FrameCodec[Frame]):
    HEADERS = (b"\xbb",)
    LIMIT = 256
    """A tag with the longest EPC makes 74 bytes; a low limit makes a false header cost little."""

    def measure(self, head: bytes) -> int | None:
        if len(head) > 1 and head[1] not in (COMMAND, ANSWER, NOTICE):
            raise BadFrame("type")
        if len(head) < 5:
            return None
        return 7 + int.from_bytes(head[3:5], "big")

    def decode(self, raw: bytes) -> Frame:
        if raw[-1] != 0x7E:
            raise BadFrame("trailer")
        if sum8(raw[1:-2]) != raw[-2]:
            raise BadFrame("checksum")
        return Frame(raw[1], raw[2], raw[5:-2])


INVENTORY_REQUEST = Frame(COMMAND, INVENTORY).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """What a round tells about one tag."""

    rssi_dbm: int
    pc: int
    epc: bytes

    @classmethod
    def parse(cls, parameter: bytes) -> Self:
        """From `RSSI PCh PCl <EPC> CRCh CRCl`. Raises BadFrame with the reason.

        The CRC is the tag's own over the air, and the only check of the radio path: the sum of the frame
        is made by the module, after a misread.
        """
        pc = int.from_bytes(parameter[1:3], "big")
        # Gen2: the upper five bits of the PC are the length of the EPC in words of 16 bits.
        size = 2 * (pc >> 11)
        if len(parameter) != 1 + 2 + size + 2:
            raise BadFrame("tag_length")
        if crc16_gen2(parameter[1:-2]) != int.from_bytes(parameter[-2:], "big"):
            raise BadFrame("tag_crc")
        if not size:
            raise BadFrame("tag_without_epc")
        rssi = int.from_bytes(parameter[:1], "big", signed=True)
        return cls(rssi_dbm=rssi, pc=pc, epc=parameter[3:-2])


class M100Options(Options):
    presence_ms: int = Field(default=1500, ge=100, le=60_000)
    """Without a sighting for so long, a tag has left. Several rounds: a tag is missed now and then."""
    round_ms: int = Field(default=100, ge=20, le=5_000)
    """From the start of one inventory round to the next. Longer costs less power and processor time."""
    power_dbm: float | None = Field(default=None, ge=0, le=MAX_DBM, allow_inf_nan=False)
    """Transmit power, sent after every opening; None leaves what the module chooses."""

    @model_validator(mode="after")
    def _presence_spans_rounds(self) -> Self:
        if self.presence_ms < 2 * self.round_ms:
            raise ValueError(
                f"expected presence_ms of two rounds ({2 * self.round_ms}), got {self.presence_ms}"
            )
        return self


class M100Driver(Driver):
    """One reading when a tag comes into the field, one when it has gone.

    While scanning is disabled no tag is sighted, and so those in the field leave; they arrive again
    when it is enabled. Power set by an action holds until the port is reopened.
    """

    kind = "m100"
    ANSWERS = True
    OptionsType = M100Options
    BAUD = 115200
    performs: frozenset[type[Any]] = frozenset((EnableScanning, SetPower))

    ANSWER_WITHIN = 0.5
    """Seconds. A round takes some 50 ms, a question about the module less."""
    MISSES = 3
    """So many rounds in a row without an answer, and the module is deaf."""
    ALIVE_EVERY = 10.0
    """Seconds between questions to a module that is not scanning."""

    def __init__(self, link: Link, emit: Emit, options: M100Options) -> None:
        super().__init__(link, emit, options)
        self.codec = M100Codec()
        self.dialogue = Dialogue(link, self.codec, within=self.ANSWER_WITHIN, tries=3)
        self.presence = Presence(options.presence_ms / 1000)
        self._interval = options.round_ms / 1000
        self._power_dbm: float | None = options.power_dbm
        self._scanning = True
        self._misses = 0
        self._answered_at = 0.0

    @property
    def noise(self) -> Counter[str]:
        return self.codec.noise

    async def identify(self) -> Mapping[str, str]:
        # After a sleep the module eats the first byte it hears; that of a lost `stop` does no harm.
        with contextlib.suppress(NoReply):
            await self._ask(STOP, within=0.2, tries=1)
        answer = await self._ask(ABOUT, ABOUT_HARDWARE)
        if answer.error is not None:
            return {}
        return {"hardware": answer.parameter[1:].decode("ascii", "replace").strip("\0 ")}

    async def run(self) -> None:
        await self._settle()
        while True:
            if self._scanning:
                await self._round()
            else:
                await self._rest()

    async def perform(self, action: Action) -> None:
        match action:
            case EnableScanning(enabled=enabled):
                self._scanning = enabled
            case SetPower(dbm=dbm):
                await self._set_power(dbm)
                self._power_dbm = dbm
            case _:
                await super().perform(action)

    # -- looking ----------------------------------------------------------------------------------

    async def _round(self) -> None:
        """One inventory round, and what it says about who has come and gone.

        Everything in it carries the moment it was asked, so that the time `emit` waits for a full inbox,
        in which nobody looked, makes no tag leave.
        """
        asked = self._now()
        try:
            answer = await self.dialogue.ask(INVENTORY_REQUEST, _answers_inventory, tries=1)
        except NoReply:
            await self._miss()
            return
        self._misses = 0
        self._answered_at = asked
        await self._judge(answer, asked)
        while frame := await self.dialogue.listen(max(0.0, asked + self._interval - self._now())):
            await self._judge(frame, asked)
        await self._let_leave(asked)

    async def _miss(self) -> None:
        self._misses += 1
        if self._misses >= self.MISSES:
            raise NoReply(f"no answer to {self._misses} inventory rounds")
        # It may have slept or lost its supply, and forgotten what it was told.
        await self._settle()

    async def _rest(self) -> None:
        now = self._now()
        if now >= self._answered_at + self.ALIVE_EVERY:
            await self._ask(ABOUT, ABOUT_HARDWARE)
            self._answered_at = now
        if frame := await self.dialogue.listen(self._interval):
            await self._judge(frame, now)
        await self._let_leave(now)

    async def _judge(self, frame: Frame, now: float) -> None:
        if (frame.type, frame.command) == (NOTICE, INVENTORY):
            try:
                await self._sight(Tag.parse(frame.parameter), now)
            except BadFrame as bad:
                self.noise[str(bad)] += 1
        elif frame.error is None:
            self.noise["unexpected_frame"] += 1
        elif frame.error != NO_TAG:
            self.noise[f"error_{frame.error:02x}"] += 1

    async def _sight(self, tag: Tag, now: float) -> None:
        match self.presence.sighted(tag.epc, now):
            case Sighting.ARRIVED:
                await self.emit(
                    TagArrived(uid=tag.epc, technology=TECHNOLOGY, rssi_dbm=tag.rssi_dbm, pc=tag.pc)
                )
            case Sighting.REFUSED:
                self.noise["too_many_tags"] += 1
            case Sighting.STAYED:
                pass

    async def _let_leave(self, now: float) -> None:
        for uid in self.presence.leave(now):
            await self.emit(TagLeft(uid=uid, technology=TECHNOLOGY))

    # -- asking -----------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Tell the module what the config says; what it refuses is counted, and it may scan without."""
        if self._power_dbm is not None:
            try:
                await self._set_power(self._power_dbm)
            except ActionRefused:
                self.noise["power_refused"] += 1

    async def _set_power(self, dbm: float) -> None:
        if not 0 <= dbm <= MAX_DBM:
            raise ActionRefused(f"expected 0 to {MAX_DBM:g} dBm, got {dbm:g}")
        answer = await self._ask(POWER, round(dbm * 100).to_bytes(2, "big"))
        if answer.error is not None or answer.parameter != DONE:
            raise ActionRefused(f"{dbm:g} dBm answered by {answer.parameter.hex(' ')}")

    async def _ask(
        self, command: int, parameter: bytes = b"", *, within: float | None = None, tries: int | None = None
    ) -> Frame:
        """The answer to a question about the module itself, which may be an error."""
        request = Frame(COMMAND, command, parameter).encode()
        return await self.dialogue.ask(request, _answers(command), within=within, tries=tries)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _answers_inventory(frame: Frame) -> bool:
    return (frame.type, frame.command) == (NOTICE, INVENTORY) or frame.error is not None


def _answers(command: int) -> Callable[[Frame], bool]:
    """Errors do not say whose they are, but "no tag" is always that of a round."""
    return lambda frame: (frame.type, frame.command) == (ANSWER, command) or frame.error not in (None, NO_TAG)
