"""A device's one key under the name of each of its journals. No I/O."""

from agent.fleet.store import Pinned
from agent.note import BadNote, Checkpoint, Note, VerifierKey, open_checkpoint


def opened(device: str, note: bytes, pinned: Pinned) -> tuple[Checkpoint, str]:
    """The checkpoint, and the epoch it is of. Raises BadNote."""
    origin = Checkpoint.parse(Note.parse(note).text).origin
    tenant, named, epoch = parts(origin)
    if (tenant, named) != (pinned.tenant, device):
        raise BadNote(f"expected a checkpoint of {pinned.tenant}/{device}, got one of {tenant}/{named}")
    checkpoint, _ = open_checkpoint(note, VerifierKey(origin, pinned.public))
    return checkpoint, epoch


def parts(origin: str) -> tuple[str, str, str]:
    """Tenant, device and epoch. Raises BadNote."""
    found = origin.split("/")
    if len(found) != 3 or not all(found):
        raise BadNote(f"expected tenant/device/epoch, got {origin[:80]!r}")
    return found[0], found[1], found[2]
