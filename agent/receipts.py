"""Whether a message is the fleet's receipt for this journal. Pure: the caller reads, remembers and answers.

A receipt is a checkpoint that this device has signed, with the fleet's signature added. It says that the
fleet has everything up to that size, and so what may be pruned. The broker carries it and is believed
nothing: a receipt counts only for what this journal itself holds, and only ever for more than the last.

One for something else, with both signatures on it, is proof that the journal was put back to an older copy:
this device has signed more than is here, or otherwise, and the fleet has seen it.
"""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.note import BadNote, Checkpoint, Note, VerifierKey, open_note

RECORD = "receipt"
"""The journal's record of the last one."""
ROLLED_BACK = "rolled_back"
"""The record that says that this journal is an older copy: whoever grants rights must not, until the fleet
says otherwise. Nothing here ever takes it back."""


class Reason(StrEnum):
    """Why a receipt changes nothing."""

    MALFORMED = "malformed"
    OTHER_JOURNAL = "other_journal"
    """Of another device, tenant or epoch."""
    BAD_SIGNATURE = "bad_signature"
    NOT_COSIGNED = "not_cosigned"
    """No key of the fleet has signed it."""
    NOT_SIGNED_HERE = "not_signed_here"
    """Signed with our key, and not what this journal holds: it is an old copy."""
    OLDER = "older"


class Refused(Exception):
    """Not a receipt for us. `reason` names why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything up to `size` is with the fleet."""

    size: int
    root: bytes

    def record(self) -> dict[str, Any]:
        """As it is remembered."""
        return {"size": self.size, "root": base64.b64encode(self.root).decode()}


def size_of(records: Mapping[str, Any]) -> int:
    """How many entries the fleet has, as the journal's records say."""
    record = records.get(RECORD)
    return int(record["size"]) if record else 0


def rolled_back(cosigned: Checkpoint, last: int) -> dict[str, Any]:
    """What is remembered and told of a journal of `last` entries that once was another."""
    root = base64.b64encode(cosigned.root).decode()
    return {"origin": cosigned.origin, "size": last, "cosigned": cosigned.size, "root": root}


def open_receipt(raw: bytes, device: VerifierKey, fleet: Collection[VerifierKey]) -> Checkpoint:
    """What both this device and the fleet have signed. Raises Refused."""
    try:
        checkpoint = Checkpoint.parse(Note.parse(raw).text)
    except BadNote as bad:
        raise Refused(Reason.MALFORMED, str(bad)) from bad
    if checkpoint.origin != device.name:
        detail = f"expected a receipt for {device.name}, got one for {checkpoint.origin[:80]}"
        raise Refused(Reason.OTHER_JOURNAL, detail)
    try:
        signers = open_note(raw, [device, *fleet]).signers
    except BadNote as bad:
        raise Refused(Reason.BAD_SIGNATURE, str(bad)) from bad
    if device not in signers:
        raise Refused(Reason.BAD_SIGNATURE, f"expected a signature of {device.name}, got none")
    if not any(key in fleet for key in signers):
        raise Refused(Reason.NOT_COSIGNED, "expected a signature of the fleet, got none")
    return checkpoint


def accept(checkpoint: Checkpoint, own: bytes | None, last: Mapping[str, Any] | None) -> Receipt | None:
    """The receipt to remember; None for the one that is remembered already. Raises Refused.

    `own` is the root of as many entries of this journal, None while it has fewer; `last` the record of the
    last receipt.
    """
    if own != checkpoint.root:
        raise Refused(
            Reason.NOT_SIGNED_HERE, f"expected a checkpoint of this journal, got size {checkpoint.size}"
        )
    receipt = Receipt(checkpoint.size, checkpoint.root)
    size = int(last["size"]) if last else 0
    if receipt.size == size:
        return None
    if receipt.size < size:
        raise Refused(Reason.OLDER, f"expected a size above {size}, got {receipt.size}")
    return receipt
