"""Secrets of this device in files of their own: 32 random bytes, 0600, made where there is none yet."""

import os
from pathlib import Path

SIZE = 32
FRESH = ".new"
"""What a file that is being written is called until it is whole."""


class BadKeyFile(Exception):
    """A key file that cannot be used, in words for the operator."""


def load(path: Path) -> bytes:
    """The secret in `path`, made and synced first where it does not exist. Raises BadKeyFile."""
    try:
        if not path.exists():
            write(path, os.urandom(SIZE))
        secret = path.read_bytes()
    except OSError as error:
        raise BadKeyFile(f"{path}: {error.strerror}") from error
    if len(secret) != SIZE:
        raise BadKeyFile(f"{path}: expected a key of {SIZE} bytes, got {len(secret)}")
    return secret


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all, for its owner alone, and durably."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + FRESH)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        if os.geteuid() == 0:
            # A command run by root in the agent's folder: the agent must be able to read what it left.
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A name in a folder is durable only once the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
