"""Fingerprint modules of the R30x and R50x families: one live finger against one claimed slot.

Only 1:1 comparisons, done in the module: no image ever leaves it, and nobody is searched for. While an agent
runs no template leaves it but one that is just being stored, and no module parameter is changed; an operator
at the command line may take a template out, and set the password. The packets are in `ef01`, the
conversation in `ef01_dialogue`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, Secret, model_validator

from drivers.base import ActionRefused, Driver, Emit, Link, NoReply, Options, Unsupported
from drivers.ef01 import (
    ANY_MODULE,
    GEN_IMG,
    GET_FW_VER,
    MATCH,
    READ_PROD_INFO,
    READ_SYS_PARA,
    REG_MODEL,
    TEMPLATE_NUM,
    Colour,
    Command,
    Confirm,
    Mode,
    aura_led,
    delete_char,
    firmware,
    img2tz,
    index_digest,
    load_char,
    product,
    store,
)
from drivers.ef01_dialogue import Ef01Dialogue
from drivers.port import PortGone
from drivers.readings import (
    Action,
    CompareFinger,
    CompareResult,
    DeleteFinger,
    EnrolFinger,
    FingerCompared,
    FingerEnrolled,
    Signal,
    SlotsListed,
    StoreTemplate,
    Tone,
)

BAUDS = (57600, 115200, 9600, 19200, 38400)
"""Speeds a module may have been set to, likeliest first."""
LIFT_POLL = 0.25
"""Seconds between two looks whether a finger that was captured has gone."""
POLL = 0.05
"""Seconds between two captures while waiting for a finger; each takes the module another 0.1 s or more."""
CAPTURES = 3
"""Images one comparison may spend on a finger that is there but cannot be read."""

EMPTY = {Confirm.INVALID_TEMPLATE, Confirm.EMPTY_TEMPLATE, Confirm.NO_SUCH_SLOT}
POOR = {
    Confirm.IMAGE_FAILED,
    Confirm.MESSY,
    Confirm.FEW_FEATURES,
    Confirm.NO_PRIMARY_IMAGE,
    Confirm.MUST_VERIFY_PASSWORD,  # restarted between image and features: the image is gone
}

WAITING = aura_led(Mode.BREATHE, Colour.BLUE)
LIFT = aura_led(Mode.FLASH, Colour.PURPLE, speed=0x32)
DARK = aura_led(Mode.OFF, Colour.BLUE)
# Flashes end by themselves.
TONES = {
    Tone.GOOD: aura_led(Mode.FLASH, Colour.BLUE, speed=0x32, count=2),
    Tone.BAD: aura_led(Mode.FLASH, Colour.RED, speed=0x19, count=3),
    Tone.ASK: aura_led(Mode.FLASH, Colour.PURPLE, speed=0x32, count=2),
}

PASSWORD_BYTES = 4

Word = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]


class R503Options(Options):
    model_config = ConfigDict(hide_input_in_errors=True)

    password: Secret[Word] = Secret(0)
    password_file: str | None = Field(None, pattern=r"^/[^\x00]*$")
    """File of the module's password, 8 hex digits: so that it stands in no config."""
    address: Word = ANY_MODULE
    min_score: int = Field(50, ge=1)
    """A match below this is none. On the module's own scale: not comparable between models."""
    heartbeat: float = Field(10.0, gt=0, le=15)
    """Seconds between two questions whether the module is still there."""
    answer_within: float = Field(1.0, gt=0, le=2)
    """Seconds a plain command may take; capturing gets twice, storing and deleting three times as long."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_file is not None and self.password.get_secret_value():
            raise ValueError("expected a password or a password_file, got both")
        return self


class R503Driver(Driver):
    """One module on its own line."""

    kind: ClassVar[str] = "r503"
    ANSWERS = True
    OptionsType: ClassVar[type[Options]] = R503Options
    BAUD: ClassVar[int] = 57600
    performs: frozenset[type[Any]] = frozenset(
        {CompareFinger, EnrolFinger, DeleteFinger, StoreTemplate, Signal}
    )

    def __init__(self, link: Link, emit: Emit, options: R503Options) -> None:
        super().__init__(link, emit, options)
        self._module = Ef01Dialogue(
            link,
            address=options.address,
            password=options.password.get_secret_value(),
            within=options.answer_within,
        )
        self._glass = asyncio.Lock()
        self._resting = False
        """The finger last captured has not been seen to lift."""
        self._lit: bool | None = None
        """Whether the module has a ring light; None until it was tried."""
        self._taken: frozenset[int] | None = None
        """Slots that held a template when the module was identified, if it can tell."""

    @property
    def noise(self) -> Counter[str]:
        return self._module.codec.noise

    async def identify(self) -> Mapping[str, str]:
        if self.options.password_file is not None:
            self._module.use_password(password_in(Path(self.options.password_file)))
        found = await self._module.find(BAUDS)
        about = {
            "capacity": str(found.capacity),
            "security": str(found.security),
            "address": f"{found.address:08x}",
            "packet_bytes": str(found.packet_bytes),
            "baud": str(found.baud),
        }
        # Older models have no such words: they say so, or nothing.
        with contextlib.suppress(ActionRefused, NoReply):
            about |= product((await self._module.ask(READ_PROD_INFO)).check().payload)
            about["firmware"] = firmware((await self._module.ask(GET_FW_VER)).check().payload)
        with contextlib.suppress(ActionRefused):
            count = (await self._module.ask(TEMPLATE_NUM)).check()
            about["templates"] = str(int.from_bytes(count.payload))
            self._taken = await self.inventory()
            about["index"] = index_digest(self._taken)
        return about

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if self._taken is not None:
            await self.emit(SlotsListed(slots=self._taken))
        while True:
            if self._resting:
                await self._module.count_unasked(min(LIFT_POLL, self.options.heartbeat))
                await self._look_at_the_glass()
            elif (left := asked + self.options.heartbeat - loop.time()) > 0:
                # A capture in between is heard here too: a finger may be resting from then on.
                await self._module.stirred(left)
            else:
                await self._module.ask(READ_SYS_PARA)
                asked = loop.time()

    async def inventory(self) -> frozenset[int]:
        """The slots that hold a template. Raises ActionRefused from modules without an index table."""
        return await self._module.inventory()

    async def template(self, slot: int) -> bytes:
        """What a slot holds, as another module takes it. Raises ActionRefused, NoReply."""
        async with self._at_the_glass(slot):
            return await self._module.fetch_template(1, slot)

    async def set_password(self, password: int) -> None:
        """Raises ActionRefused; NoReply where nobody knows whether the module wants this one now."""
        await self._module.set_password(password)

    async def perform(self, action: Action) -> None:
        match action:
            case Signal():
                await self._show(TONES[action.tone])
            case CompareFinger():
                async with self._at_the_glass(action.slot):
                    await self._compare(action)
            case EnrolFinger():
                async with self._at_the_glass(action.slot):
                    await self._enrol(action)
            case DeleteFinger():
                async with self._at_the_glass(action.slot):
                    await self._delete(action.slot)
            case StoreTemplate():
                async with self._at_the_glass(action.slot):
                    await self._receive(action.slot, action.template)
            case _:
                await super().perform(action)

    # -- fingers ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _at_the_glass(self, slot: int) -> AsyncIterator[None]:
        """One finger action at a time. The ring goes dark when one is cut short."""
        if not 0 <= slot <= 0xFFFF:
            raise ActionRefused(f"expected a slot from 0 to 65535, got {slot}")
        async with self._glass:
            try:
                yield
            except (asyncio.CancelledError, ActionRefused):
                with contextlib.suppress(TimeoutError, NoReply, PortGone):
                    async with asyncio.timeout(self.options.answer_within):
                        await self._glow(DARK)
                raise

    async def _compare(self, action: CompareFinger) -> None:
        compared = await self._compared(action.slot, _deadline(action.within))
        await self.emit(compared)
        # The verdict is shown by the Signal that follows once it is remembered, not before.
        await self._glow(DARK)

    async def _compared(self, slot: int, deadline: float) -> FingerCompared:
        failed = await self._capture(1, deadline)
        if failed is not None:
            return FingerCompared(slot=slot, result=failed)
        loaded = await self._module.ask(load_char(2, slot))
        if loaded.code in EMPTY:
            return FingerCompared(slot=slot, result=CompareResult.EMPTY_SLOT)
        loaded.check()
        match = await self._module.ask(MATCH)
        score = int.from_bytes(match.payload)
        if match.code == Confirm.NO_MATCH:
            return FingerCompared(slot=slot, result=CompareResult.NOT_MATCHED, score=score)
        match.check()
        enough = score >= self.options.min_score
        result = CompareResult.MATCHED if enough else CompareResult.NOT_MATCHED
        return FingerCompared(slot=slot, result=result, score=score)

    async def _enrol(self, action: EnrolFinger) -> None:
        try:
            reason = await self._enrolled(action.slot, _deadline(action.within))
        except ActionRefused as refused:
            reason = str(refused)
        await self.emit(FingerEnrolled(slot=action.slot, ok=not reason, reason=reason))
        await self._glow(TONES[Tone.BAD if reason else Tone.GOOD])

    async def _enrolled(self, slot: int, deadline: float) -> str:
        """Empty, or why not. Only into a free slot, or the index could not tell whether it was stored."""
        if slot in await self.inventory():
            return "slot_taken"
        for buffer in (1, 2):
            failed = await self._capture(buffer, deadline)
            if failed is not None:
                return failed.value
        merged = await self._module.ask(REG_MODEL)
        if merged.code == Confirm.CANNOT_MERGE:
            return "fingers_differ"
        merged.check()
        return await self._stored(slot)

    async def _stored(self, slot: int) -> str:
        try:
            (await self._module.ask(store(1, slot))).check()
        except NoReply:
            if slot not in await self.inventory():
                return "not_stored"
        return ""

    async def _receive(self, slot: int, template: bytes) -> None:
        """Only into a free slot, or the index could not tell whether it was stored."""
        if slot in await self.inventory():
            raise ActionRefused("slot_taken")
        try:
            await self._module.send_template(1, template)
        except NoReply:
            # Nothing is stored yet. Whether the module is there at all, the next question finds out.
            raise ActionRefused("not_received") from None
        if reason := await self._stored(slot):
            raise ActionRefused(reason)

    async def _delete(self, slot: int) -> None:
        try:
            (await self._module.ask(delete_char(slot))).check()
        except NoReply:
            if slot in await self.inventory():
                raise ActionRefused("not_deleted") from None

    async def _capture(self, buffer: int, deadline: float) -> CompareResult | None:
        """Bring a finger newly laid on the glass into `buffer`; or say why not."""
        if self._resting and not await self._lifted(deadline):
            return CompareResult.NO_FINGER
        await self._glow(WAITING)
        poor = 0
        while poor < CAPTURES:
            ack = await self._module.ask(GEN_IMG)
            if ack.code == Confirm.OK:
                self._resting = True
                ack = await self._module.ask(img2tz(buffer))
                if ack.code == Confirm.OK:
                    return None
            if ack.code in POOR:
                poor += 1
            elif ack.code != Confirm.NO_FINGER:
                ack.check()
            if not await _time_left(deadline):
                break
        return CompareResult.POOR_IMAGE if poor else CompareResult.NO_FINGER

    async def _look_at_the_glass(self) -> None:
        """Notice the lift when it happens, so that the next finger need not wait for it."""
        async with self._glass:
            if self._resting and (await self._module.ask(GEN_IMG)).code == Confirm.NO_FINGER:
                self._resting = False

    async def _lifted(self, deadline: float) -> bool:
        """Wait for the glass to be empty: a finger left on it is one reading, not many."""
        await self._glow(LIFT)
        while (await self._module.ask(GEN_IMG)).code != Confirm.NO_FINGER:
            if not await _time_left(deadline):
                return False
        self._resting = False
        return True

    # -- light ------------------------------------------------------------------------------------

    async def _show(self, look: Command) -> None:
        """Raises Unsupported from modules without a ring light."""
        if self._lit is not False:
            ack = await self._module.ask(look)
            self._lit = ack.code == Confirm.OK
        if not self._lit:
            raise Unsupported("the module has no ring light")

    async def _glow(self, look: Command) -> None:
        """Show it if that can be done: no comparison fails for want of a light.

        Old modules may ignore a command they do not know, so the first silence counts as having none. One
        that ignores everything is found by the next question.
        """
        try:
            await self._show(look)
        except Unsupported:
            return
        except NoReply:
            if self._lit is None:
                self._lit = False


def password_in(path: Path) -> int:
    """Raises ActionRefused, and never says what the file holds."""
    try:
        digits = path.read_text(encoding="ascii").strip()
        password = bytes.fromhex(digits)
        if len(digits) != 2 * len(password) or len(password) != PASSWORD_BYTES:
            raise ValueError
        return int.from_bytes(password)
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else "something else"
        raise ActionRefused(f"{path}: expected 8 hex digits, got {found}") from None


def _deadline(within: float) -> float:
    return asyncio.get_running_loop().time() + within


async def _time_left(deadline: float) -> bool:
    """False once the deadline has passed, else True after a short pause."""
    if asyncio.get_running_loop().time() >= deadline:
        return False
    await asyncio.sleep(POLL)
    return True
