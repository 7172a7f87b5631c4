"""Commands to a PN532, and answers that are certainly theirs.

The chip acknowledges a command at once and answers it when it is done. What was not answered is aborted and
its late answer thrown away before anything else is asked. A command that was not understood, or not
acknowledged, is sent again; one whose answer came spoilt is not: the answer is asked for once more.
"""

import asyncio

from drivers.base import Dialogue, Link, NoReply
from drivers.pn532_frames import (
    ACK_FRAME,
    NACK_FRAME,
    WAKE,
    Ack,
    Answer,
    Frame,
    Pn532Codec,
    SyntaxFault,
    encode,
)

TRIES = 3
"""A command is sent, or an answer asked for again, so many times at most."""
ACK_WITHIN = 0.25
"""Seconds. The chip takes 15 ms; the rest is for USB bridges, which keep bytes back for a while."""
LATE_ACK_WITHIN = 1.0
"""For a command that is not sent twice: an acknowledgement that was spoilt is implied by a prompt answer."""
SILENCE = 0.05
"""Seconds without a byte after which an aborted command is taken to be over."""


class Unanswered(NoReply):
    """The chip has begun with a command and not come to an end in time. It is aborted before the next."""


class Pn532Dialogue:
    """One chip on its own line."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.codec = Pn532Codec()
        self._dialogue = Dialogue(link, self.codec, within=ACK_WITHIN)
        self._turn = asyncio.Lock()
        self.resent = 0
        """Commands that were sent once more. The first may have been carried out all the same."""
        self._astray = True
        """An answer to something asked before may still be on its way."""

    async def wake(self) -> None:
        """Bring the chip out of low power. It listens to a command that follows at once."""
        await self._dialogue.tell(WAKE)

    async def command(
        self, code: int, parameters: bytes = b"", *, within: float, again: bool = True
    ) -> bytes:
        """What the chip answers after its code. Raises NoReply, also when it says that the command is none.

        `within` is how long carrying it out may take. Without `again` it is sent twice only if the chip said
        that it did not understand it: a card would otherwise get the same words twice.
        """
        async with self._turn:
            if self._astray:
                await self._abort()
            self._astray = True
            answer = await self._carried_out(code, encode(bytes([code]) + parameters), within, again)
            self._astray = False
            return answer.data

    async def _carried_out(self, code: int, request: bytes, within: float, again: bool) -> Answer:
        said: Frame | None = None
        for sent in range(TRIES):
            self.resent += sent > 0
            said = await self._first(request, code, ACK_WITHIN if again else LATE_ACK_WITHIN)
            if isinstance(said, Ack):
                said = await self._answer(code, within)
                if said is None:
                    raise Unanswered(f"command {code:02x} was acknowledged and not answered")
            if isinstance(said, Answer):
                return said
            if said is None and not again:
                break
        raise NoReply(f"command {code:02x} was not {'acknowledged' if said is None else 'understood'}")

    async def _first(self, request: bytes, code: int, within: float) -> Frame | None:
        """What comes back first. An acknowledgement that was spoilt on the line is implied by an answer."""

        def ours(frame: Frame) -> bool:
            return not isinstance(frame, Answer) or frame.code == code + 1

        try:
            return await self._dialogue.ask(request, ours, within=within)
        except NoReply:
            return None

    async def _answer(self, code: int, within: float) -> Answer | SyntaxFault | None:
        """The answer, asked for again when it came spoilt; None when it does not come."""
        clock = asyncio.get_running_loop()
        until = clock.time() + within
        spoilt, repeats = self.codec.spoilt, TRIES - 1
        while (left := until - clock.time()) > 0:
            heard = self.codec.heard
            frame = await self._dialogue.listen(min(left, ACK_WITHIN))
            if isinstance(frame, SyntaxFault) or (isinstance(frame, Answer) and frame.code == code + 1):
                return frame
            if frame is not None:
                self.codec.noise["unasked"] += 1
            # What still comes may be the rest of it; after a silence this is all there will be.
            elif (
                repeats and heard == self.codec.heard and (self.codec.waiting or self.codec.spoilt != spoilt)
            ):
                self.codec.reset()
                spoilt, repeats = self.codec.spoilt, repeats - 1
                await self._dialogue.tell(NACK_FRAME)
        return None

    async def _abort(self) -> None:
        """Have the chip drop whatever it is doing, and throw away what it says until it is silent."""
        await self._dialogue.tell(ACK_FRAME)
        while await self._dialogue.listen(SILENCE) is not None:
            self.codec.noise["unasked"] += 1
        self.codec.reset()
