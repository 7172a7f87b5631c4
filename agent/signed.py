"""What a fingerprint card's answer is worth, before anybody asks who holds the card.

The checks themselves are in `agent.assertion`, which brings the fido2 library with it and is loaded with the
first card that answers or is added.
"""

from dataclasses import dataclass

from agent.stake import Asked, b64
from agent.workflow import Outcome
from drivers.readings import CardAsserted

MIN_ID_BYTES = 16
"""Shorter credential ids could be guessed. WebAuthn asks for at least as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A card's answer, weighed."""

    outcome: Outcome
    detail: str = ""
    """What was not as it should be."""
    counters: tuple[int, int] | None = None
    """Of a card that may be a copy: the counter it had to be above, and its own."""
    counter: int | None = None
    """To be kept from now on; None where there is nothing new to keep."""


def weigh(said: CardAsserted, public_key: str, asked: Asked, *, counter: int) -> Weighed:
    """`counter` is the highest that this card has shown here."""
    from agent import assertion

    try:
        shown = assertion.verify(
            said, key=public_key, rp_id=asked.rp_id, client_data_hash=asked.client_data_hash
        )
    except assertion.NotProven as not_proven:
        return Weighed(outcome=Outcome.FORGED, detail=str(not_proven))
    # WebAuthn level 2, section 7.2: a counter that is or was not zero has to have grown.
    if (counter or shown) and shown <= counter:
        return Weighed(outcome=Outcome.CLONED, counters=(counter, shown))
    return Weighed(outcome=Outcome.GRANTED, counter=shown or None)


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
