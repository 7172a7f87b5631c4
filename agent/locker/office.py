"""What a deposit needs of this device's keys: a grant that the recipient can use, a receipt for the courier.

A grant made here opens from the first moment, with no network: its rows are remembered with the deposit. Its
codes leave sealed for the fleet alone, which passes them on to the recipient.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from agent import strict_json
from agent.admission import Audience
from agent.clock import NS, Moment
from agent.envelope import Kind, issue, new_id
from agent.jws import Signer, encoded
from agent.locker.codes import pin_token
from agent.locker.turn import MINTED, Minted
from agent.page import seal
from agent.row_seal import Keys, seal_row, value_of

SEALED_FOR = b"postern/v1\0grant"
RECEIPT_S = 400 * 86_400
"""How long a receipt says of itself that it is good: longer than claims may be made."""
_PLAIN = {f"{digit}" * 6 for digit in range(10)} | {"123456", "654321", "012345", "543210"}
"""PINs that people try first."""


def new_pin() -> str:
    """Six random digits, none of those that are tried first."""
    while (pin := f"{secrets.randbelow(10**6):06}") in _PLAIN:
        pass
    return pin


def selector_of(label: str) -> str:
    """What is typed before the PIN: the last four letters or digits of the parcel's label."""
    letters = [char for char in label.upper() if char.isascii() and char.isalnum()]
    return "".join(letters[-4:]).rjust(4, "0")


def purpose_of(address: str, jti: str) -> bytes:
    """What the codes of a grant are sealed for. `address` is `<tenant>/<device>`."""
    return b"\0".join((SEALED_FOR, address.encode(), jti.encode()))


@dataclass(frozen=True, slots=True)
class KeyedOffice:
    """The office of a locker. `seal_to` is the fleet's key for grants, where one is known."""

    keys: Callable[[], Keys]
    signer: Signer
    audience: Audience
    seal_to: X25519PublicKey | None = None

    def mint(self, label: str, compartment: str, until: int) -> Minted | None:
        """A grant with a long code and a PIN; None where nobody could be told of them."""
        if self.seal_to is None:
            return None
        keys, jti = self.keys(), new_id()
        code, pin, selector = secrets.token_bytes(16), new_pin(), selector_of(label)
        body = {"jti": jti, "compartment": compartment, "parcel": label, "exp": until}
        tokens = {"grant": code, "grant_pin": pin_token(selector.encode(), pin.encode())}
        records = {}
        for kind, token in tokens.items():
            lookup, row = seal_row(keys, value_of(keys.epoch, kind, token), body)
            records[MINTED + lookup.hex()] = {"row": encoded(row), "exp": until}
        plain = strict_json.dumps({**body, "code": encoded(code), "selector": selector, "pin": pin})
        sealed = seal(plain, self.seal_to, purpose_of(self.audience.name, jti))
        return Minted(grant=jti, sealed=encoded(sealed), records=records)

    def receipt(self, label: str, compartment: str, by: str, at: Moment) -> str:
        """A statement that this locker took the parcel, signed by the locker: the courier's proof."""
        issued = at.utc_ns // NS
        body = {"parcel": label, "compartment": compartment, "courier": by, "clock": str(at.trust)}
        raw = issue(
            Kind.DEPOSIT,
            body,
            [self.signer],
            aud=f"{self.audience.tenant}/*",
            iat=issued,
            exp=issued + RECEIPT_S,
            ver=1,
        )
        return raw.decode()
