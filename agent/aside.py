"""Where a damaged file is kept: under another name in the same folder, as it is.

A fresh journal is made only on the first boot and after damage. So the newest that was set aside is always
the one to go on from, even if the power went before anybody wrote that down. A roster is replaced instead:
whoever is no longer in it must not come back.
"""

from itertools import count
from pathlib import Path

from agent.keyfile import sync_folder
from agent.keystore import overwrite
from agent.soundness import suspicion_of
from agent.sqlite_file import log_of


def set_aside(path: Path) -> Path:
    """Rename the file and its log, which stay as they are; returns the new name. Durable, never overwrites.

    If the power goes meanwhile, the next call goes on with the same name.
    """
    target = _interrupted(path) or next(name for n in count(1) if not _taken(name := _aside(path, n)))
    moving = _moving(target)
    moving.touch()
    sync_folder(path.parent)
    # The file first: a log without its file is noticed, a file without its log is not.
    for old, new in zip(_parts(path), _parts(target), strict=True):
        if old.exists() and not new.exists():
            old.rename(new)
            sync_folder(path.parent)
    moving.unlink()
    sync_folder(path.parent)
    return target


def newest_set_aside(path: Path) -> Path | None:
    """The file that was set aside last, if any."""
    found = all_set_aside(path)
    return found[-1] if found else None


def all_set_aside(path: Path) -> list[Path]:
    """Every file that was set aside, or of which something is left, oldest first."""
    return [_aside(path, number) for number in sorted(_numbers(path))]


def keep_beside(path: Path, rollback: Path) -> Path:
    """Give a damaged file a second name, under which it stays when another takes its place; returns that.

    Its rollback journal goes with it. If the power goes before its place is taken, the next call goes on
    with the same name; see `is_kept`.
    """
    # Never a number of before, even if that file was given up: the highest is the newest.
    target = _same(path) or _aside(path, max(_numbers(path), default=0) + 1)
    if not target.exists():
        target.hardlink_to(path)
        sync_folder(path.parent)
    if rollback.exists():
        rollback.rename(target.with_name(target.name + "-journal"))
        sync_folder(path.parent)
    return target


def is_kept(path: Path) -> bool:
    """Whether this very file was found damaged before, and is only still in its place."""
    return path.exists() and _same(path) is not None


def delete(target: Path) -> None:
    """Overwrite and unlink a file that was set aside, and what lies beside it."""
    for part in target.parent.glob(f"{target.name}*"):
        overwrite(part)


def _same(path: Path) -> Path | None:
    return next((each for each in all_set_aside(path) if each.exists() and each.samefile(path)), None)


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")


def _numbers(path: Path) -> set[int]:
    names = path.parent.glob(f"{path.stem}.damaged-*{path.suffix}*")
    return {number for name in names if (number := _number(path, name)) is not None}


def _number(path: Path, name: Path) -> int | None:
    text = name.name.removeprefix(f"{path.stem}.damaged-").partition(path.suffix or "-")[0]
    return int(text) if text.isdecimal() else None


def _parts(path: Path) -> list[Path]:
    return [path, log_of(path), path.with_name(path.name + "-shm"), suspicion_of(path)]


def _taken(target: Path) -> bool:
    return any(part.exists() for part in _parts(target))


def _moving(target: Path) -> Path:
    return target.with_name(target.name + "-moving")


def _interrupted(path: Path) -> Path | None:
    target = newest_set_aside(path)
    return target if target and _moving(target).exists() else None
