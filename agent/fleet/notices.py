"""The codes that lockers have made for recipients: out of entries, into a file for whoever passes them on.

A locker seals the codes of a deposit for the fleet alone. Here they are opened and written, one JSON object a
line, to a file for its owner alone. They are shown nowhere else and stand in no log: a code opens a door.

    {"locker": "locker-12", "parcel": "s10:RB473124829DE", "compartment": "a1", "grant": "…",
     "code": "PICKUP:…", "typed": "29DE 471102", "until": 1796204800}
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agent import keyfile, strict_json
from agent.envelope import told
from agent.jws import BadJws, decoded
from agent.locker.office import purpose_of
from agent.page import unseal
from agent.row_seal import BadPage
from agent.strict_json import BadJson

DEPOSITED = "postern.locker.deposited"
LONG = "PICKUP:"


class _Codes(BaseModel):
    """What a locker seals. It comes from a device: closed, and bounded."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    jti: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    compartment: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,15}$")]
    parcel: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    exp: Annotated[int, Field(ge=0)]
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]
    selector: Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{4}$")]
    pin: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a recipient is to be told of one parcel."""

    locker: str
    parcel: str
    compartment: str
    grant: str
    code: str
    """To be shown as a QR code."""
    typed: str
    """To be typed where there is nothing to show it on."""
    until: int
    """Seconds since 1970 UTC."""

    def __repr__(self) -> str:
        return f"Notice({self.locker}, {self.grant}, ...)"


def read(entry: Mapping[str, Any], keys: Sequence[X25519PrivateKey]) -> Notice | None:
    """The codes of a deposit; None for any other entry, or a deposit without codes. Raises BadPage."""
    data = entry.get("data")
    if entry.get("type") != DEPOSITED or not isinstance(data, dict) or data.get("sealed") is None:
        return None
    address = str(entry.get("source", "")).removeprefix("/postern/")
    codes = _codes(str(data["sealed"]), keys, purpose_of(address, str(data.get("grant"))))
    said = (data.get("grant"), entry.get("subject"), data.get("compartment"))
    if said != (codes.jti, codes.parcel, codes.compartment):
        raise BadPage("expected codes for what the entry says was deposited, got others")
    return Notice(
        locker=address.rpartition("/")[2],
        parcel=codes.parcel,
        compartment=codes.compartment,
        grant=codes.jti,
        code=LONG + codes.code,
        typed=f"{codes.selector} {codes.pin}",
        until=codes.exp,
    )


def append(path: Path, notice: Notice) -> None:
    """Durable when it returns. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(_line(notice))
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, notices: Iterable[Notice]) -> None:
    """In place of whatever the file held. Raises OSError."""
    keyfile.write(path, b"".join(map(_line, notices)))


def _line(notice: Notice) -> bytes:
    return json.dumps(asdict(notice)).encode() + b"\n"


def _codes(sealed: str, keys: Sequence[X25519PrivateKey], purpose: bytes) -> _Codes:
    """Raises BadPage."""
    try:
        return _Codes.model_validate(strict_json.loads(_opened(decoded(sealed), keys, purpose)))
    except (BadJws, BadJson) as bad:
        raise BadPage(str(bad)) from None
    except ValidationError as error:
        raise BadPage(told(error)) from None


def _opened(raw: bytes, keys: Sequence[X25519PrivateKey], purpose: bytes) -> bytes:
    for key in keys:
        try:
            return unseal(raw, key, purpose)
        except BadPage:
            continue
    raise BadPage(f"expected codes that one of our {len(keys)} seal keys opens, got others")
