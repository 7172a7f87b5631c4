"""Secrets of this device in files of their own: 32 random bytes, 0600, made where there is none yet."""

import os
from pathlib import Path

SIZE = 32


class BadKeyFile(Exception):
    """A key file that cannot be used, in words for the operator."""


def load(path: Path) -> bytes:
    """The secret in `path`, made and synced first where it does not exist. Raises BadKeyFile."""
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise BadKeyFile(f"{path}: {error.strerror}") from error
    if len(secret) != SIZE:
        raise BadKeyFile(f"{path}: expected a key of {SIZE} bytes, got {len(secret)}")
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
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
