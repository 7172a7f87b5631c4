"""Questions to a fingerprint module, and answers that are certainly theirs.

An acknowledgement does not say what it acknowledges, so one that arrives late could be taken for the next
command's: a late yes for LoadChar's would compare with the template of whoever came before. So after any
unanswered or cancelled question both sides first fall in step again.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Sequence

from drivers.base import ActionRefused, Dialogue, Link, NoReply
from drivers.ef01 import (
    READ_SYS_PARA,
    Ack,
    Command,
    Confirm,
    Ef01Codec,
    Frame,
    Parameters,
    Pid,
    data_packets,
    down_char,
    encode,
    load_char,
    read_index_table,
    set_password,
    slots_in,
    up_char,
    verify_password,
)

TRIES = 3


class _Line(Dialogue[Frame]):
    """Sets aside what comes in pieces, while somebody waits for the last of them."""

    pieces: list[bytes] | None = None
    begun = False
    """The module has said that pieces follow. What came before was an echo of ours."""

    def _sort(self, frames: list[Frame]) -> None:
        super()._sort([frame for frame in frames if not self._set_aside(frame)])

    def _set_aside(self, frame: Frame) -> bool:
        if self.pieces is None:
            return False
        if self.begun:
            if frame.pid is Pid.DATA:
                self.pieces.append(frame.content)
            return frame.pid is Pid.DATA
        self.begun = frame.pid is Pid.ACK and frame.content == bytes([Confirm.OK])
        return self.begun or frame.pid in (Pid.DATA, Pid.END_OF_DATA)


class Ef01Dialogue:
    """One module at one address, behind its password."""

    def __init__(self, link: Link, *, address: int, password: int, within: float) -> None:
        self.link = link
        self.codec = Ef01Codec(address)
        self.within = within
        """Seconds the answer to a plain command may take."""
        self._address = address
        self._verify = verify_password(password)
        self._dialogue = _Line(link, self.codec, within=within)
        self._turn = asyncio.Lock()
        self._astray = True
        """An answer to something asked before may still be on its way."""
        self._packet_bytes = 128
        """As the module is set; until it has told, as factories set it."""

    async def find(self, bauds: Sequence[int]) -> Parameters:
        """Try the configured line speed, long enough for a module that is just waking, then the others.

        Changes only our side of the line. Raises NoReply.
        """
        for baud in (*(None,) * TRIES, *bauds):
            if baud is not None:
                self.link.set_baud(baud)
            found = await self._fall_in_step()
            if found is not None:
                return found
        raise NoReply("no answer at any line speed")

    async def ask(self, command: Command) -> Ack:
        """The answer, yes or no. Repeats only what may be repeated. Raises NoReply."""
        ack = None
        async with self._turn:
            for tries_left in reversed(range(TRIES)):
                ack = await self._try(command)
                if not tries_left or not command.may_be_repeated(ack):
                    break
        if ack is None:
            raise NoReply(f"no answer to {command.name}")
        return ack

    async def inventory(self) -> frozenset[int]:
        """The slots that hold a template. Raises ActionRefused from modules without an index table."""
        told = Parameters.parse((await self.ask(READ_SYS_PARA)).check().payload)
        taken: set[int] = set()
        for page in range((told.capacity + 255) // 256):
            ack = (await self.ask(read_index_table(page))).check()
            taken.update(slots_in(page, ack.payload))
        return frozenset(taken)

    async def send_template(self, buffer: int, template: bytes) -> None:
        """Bring a template into `buffer`, and read it back: the module answers none of its packets, and
        drops what it does not like. Raises ActionRefused, NoReply.
        """
        command = down_char(buffer)
        async with self._turn:
            ack = await self._try(command)
            if ack is None:
                raise NoReply(f"no answer to {command.name}")
            ack.check()
            # Cut short, packets and what is asked next would run into each other.
            self._astray = True
            for packet in data_packets(template, self._packet_bytes):
                await self._dialogue.tell(encode(packet, self._address))
            self._astray = False
            held = await self._read_back(up_char(buffer))
        if not hmac.compare_digest(held, template):
            raise ActionRefused(f"expected the template back as it was sent, got {len(held)} other bytes")

    async def fetch_template(self, buffer: int, slot: int) -> bytes:
        """What a slot holds, by way of `buffer`. Raises ActionRefused, NoReply."""
        (await self.ask(load_char(buffer, slot))).check()
        async with self._turn:
            return await self._read_back(up_char(buffer))

    def use_password(self, password: int) -> None:
        """What the module is given from now on when it asks."""
        self._verify = verify_password(password)
        self._astray = True

    async def set_password(self, password: int) -> None:
        """Have the module want another one. Said to be done is not enough: it is asked. Raises ActionRefused
        where it wants the one before; NoReply where nobody knows which of the two.
        """
        async with self._turn:
            ack = await self._try(set_password(password))
            if ack is not None:
                ack.check()
            before = self._verify
            self.use_password(password)
            try:
                found = await self._fall_in_step()
            except NoReply:
                self._verify = before
                raise ActionRefused("SetPwd: not taken") from None
            if found is None:
                raise NoReply("no answer to SetPwd")

    async def count_unasked(self, within: float) -> None:
        """Read for so many seconds, counting whole frames that answer no question."""
        clock = asyncio.get_running_loop()
        until = clock.time() + within
        while (left := until - clock.time()) > 0:
            if await self._dialogue.listen(left) is not None:
                self.codec.noise["unasked"] += 1

    async def stirred(self, within: float) -> None:
        """Wait until anything is heard, be it another question's answer; so many seconds at most."""
        await self._dialogue.stirred(within)
        while self._dialogue.leftover() is not None:
            self.codec.noise["unasked"] += 1

    async def _try(self, command: Command) -> Ack | None:
        if self._astray and await self._fall_in_step() is None:
            return None
        self._astray = True
        ack = await self._once(command, command.answered_by)
        self._astray = ack is None or ack.code == Confirm.MUST_VERIFY_PASSWORD
        return ack

    async def _read_back(self, command: Command) -> bytes:
        """What follows the yes of a command. Raises ActionRefused, NoReply."""

        def ends(frame: Frame) -> bool:
            return frame.pid is Pid.END_OF_DATA or command.answered_by(frame)

        self._astray, self._dialogue.pieces, self._dialogue.begun = True, [], False
        try:
            last = await self._dialogue.ask(
                self._packed(command), ends, within=self.within * command.slowness
            )
            if last.pid is not Pid.END_OF_DATA:
                command.read(last).check()
            content = b"".join((*self._dialogue.pieces, last.content))
        finally:
            self._dialogue.pieces = None
        self._astray = False
        return content

    def _packed(self, command: Command) -> bytes:
        return encode(Frame(pid=Pid.COMMAND, content=command.content), self._address)

    async def _fall_in_step(self) -> Parameters | None:
        """Verify the password and read the parameters; None if the module is silent.

        Nothing else answers with 17 bytes, and modules answer in order: when these have come, whatever was
        late came before. Raises NoReply on a wrong password.
        """
        verified = await self._once(self._verify, self._verify.answered_by)
        if verified is None:
            return None
        if verified.code == Confirm.WRONG_PASSWORD:
            raise NoReply("wrong password")
        told = await self._once(READ_SYS_PARA, READ_SYS_PARA.accepted_by)
        if told is None:
            return None
        self._astray = False
        found = Parameters.parse(told.payload)
        self._packet_bytes = found.packet_bytes
        return found

    async def _once(self, command: Command, answers: Callable[[Frame], bool]) -> Ack | None:
        with contextlib.suppress(NoReply):
            within = self.within * command.slowness
            return command.read(await self._dialogue.ask(self._packed(command), answers, within=within))
        return None
