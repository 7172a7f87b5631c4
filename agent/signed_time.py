"""The fleet's answer to what time it is. Pure: the caller asks, hears, and sets the clock.

Birth messages carry a nonce, a new one for each connection. Whoever answers with it, signed, answers this
device and this asking, so that the answer may set the clock to anything above the floor. It lies somewhere
between asking and hearing; half of that is its error.
"""

from dataclasses import dataclass

from agent.clock import NS, Moment
from agent.documents import Document, Time
from agent.envelope import Reason, Refused, new_id

SLOWEST_S = 60.0
"""An answer that took longer says too little."""
AGAIN_S = 6 * 3600.0
"""How long an answer is enough: for a day it outweighs others, and the connection may last for weeks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A nonce, and when it was sent."""

    nonce: str
    mono_ns: int
    answered: bool = False

    @classmethod
    def at(cls, now: Moment) -> "Asked":
        return cls(new_id(), now.mono_ns)

    def stands(self, now: Moment) -> bool:
        """Whether it need not be asked anew: it was answered not long ago, or an answer may be on its way."""
        return now.since(self.mono_ns) < (AGAIN_S if self.answered else SLOWEST_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """It was `utc_ns` at `mono_ns`, so far right to `error_s`."""

    utc_ns: int
    mono_ns: int
    error_s: float


def answer(document: Document[Time], asked: Asked | None, now: Moment) -> Answer | None:
    """None for a second answer. Raises Refused for what answers no question of ours, or too late."""
    if asked is None or document.body.nonce != asked.nonce:
        raise Refused(Reason.REPLAYED, "expected the answer to our last question, got another")
    if asked.answered:
        return None
    took_s = now.since(asked.mono_ns)
    if took_s > SLOWEST_S:
        raise Refused(
            Reason.EXPIRED, f"expected an answer within {SLOWEST_S:g} s, got one after {took_s:.0f} s"
        )
    between_ns = (now.mono_ns + asked.mono_ns) // 2
    return Answer(document.body.utc * (NS // 1000), between_ns, round(took_s / 2 + 0.001, 3))
