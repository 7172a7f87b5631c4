"""What a fingerprint card's answer is worth, before anybody asks who holds the card.

The checks themselves are in `agent.assertion`, which brings the fido2 library with it and is loaded with the
first card that answers or is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from agent.stake import Asked, b64
from agent.workflow import Outcome
from drivers.readings import CardAsserted

MIN_ID_BYTES = 16
"""Shorter credential ids could be guessed. WebAuthn asks for at least as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is remembered of a credential."""

    counter: int = 0
    """The highest that it has shown here."""
    copied: bool = False
    """Two cards hold its key. That stays so, however high either of them counts."""

    @classmethod
    def load(cls, record: int | Mapping[str, Any] | None) -> Self:
        if isinstance(record, Mapping):
            return cls(counter=record["counter"], copied=record["copied"])
        return cls(counter=record or 0)

    def dump(self) -> int | dict[str, Any]:
        return {"counter": self.counter, "copied": True} if self.copied else self.counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A card's answer, weighed."""

    outcome: Outcome
    detail: str = ""
    """What was not as it should be."""
    counters: tuple[int, int] | None = None
    """Of a card that may be a copy: the counter it had to be above, and its own."""
    seen: Seen | None = None
    """To be kept from now on; None where there is nothing new to keep."""


def weigh(said: CardAsserted, public_key: str, asked: Asked, seen: Seen) -> Weighed:
    """`seen` is what is remembered of the credential that it names."""
    from agent import assertion

    try:
        shown = assertion.verify(
            said, key=public_key, rp_id=asked.rp_id, client_data_hash=asked.client_data_hash
        )
    except assertion.NotProven as not_proven:
        return Weighed(outcome=Outcome.FORGED, detail=str(not_proven))
    # WebAuthn level 2, section 7.2: a counter that is or was not zero has to have grown.
    if (seen.counter or shown) and shown <= seen.counter:
        return Weighed(
            outcome=Outcome.CLONED, counters=(seen.counter, shown), seen=replace(seen, copied=True)
        )
    grown = replace(seen, counter=shown) if shown else None
    return Weighed(outcome=Outcome.CLONED if seen.copied else Outcome.GRANTED, seen=grown)


def unfit(credential_id: bytes, public_key: str) -> str:
    """Why this cannot be a card's row, or nothing."""
    from agent import assertion

    if len(credential_id) < MIN_ID_BYTES:
        return f"expected a credential id of at least {MIN_ID_BYTES} bytes, got {len(credential_id)}"
    try:
        assertion.public_key(public_key)
    except assertion.BadKey as bad:
        return str(bad)
    return ""


def evidence(said: CardAsserted) -> dict[str, str]:
    """Everything but the credential's id, which opens the row."""
    return {"auth_data": b64(said.auth_data), "signature": b64(said.signature)}
