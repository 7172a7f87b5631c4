"""A rollout in its file: changed in steps, each whole and durable or not at all.

    file = RolloutFile(Path("roster.rollout"))
    with file.changing() as change:
        change.rollout, due = step(change.rollout, seen, now)

Several processes may change it, one at a time: whoever aborts need not stop the one that gives it out.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent import keyfile
from agent.fleet.rollout import Deed, Member, Outcome, Rollout, State

FORM = 1


class BadRollout(Exception):
    """The file cannot be used, in words for the operator."""


@dataclass(slots=True)
class Change:
    """What is in the file, and what is to be in it at the end."""

    rollout: Rollout
    source: dict[str, Any]
    """What is rolled out: a file by name and hash, and how. Never its content."""


class RolloutFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: tuple[tuple[int, int], Change] | None = None
        """What was in it, and how the file was then to be told from another."""

    def create(self, rollout: Rollout, source: dict[str, Any]) -> None:
        """Raises BadRollout where there is one that is not over."""
        with self._locked("lock"):
            if self.path.exists() and (old := self._read().rollout).state not in (State.DONE, State.ABORTED):
                raise BadRollout(
                    f"{self.path}: holds rollout {old.id}, which is {old.state}: resume or abort it"
                )
            keyfile.write(self.path, dumped(Change(rollout, source)))

    def read(self) -> Change:
        """Raises BadRollout."""
        with self._locked("lock"):
            return self._read()

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """Nobody else changes it meanwhile. What raises changes nothing. Raises BadRollout."""
        with self._locked("lock"):
            change = self._read()
            before = change.rollout
            yield change
            if change.rollout is not before and change.rollout != before:
                keyfile.write(self.path, dumped(change))
                self._last = (_identity(self.path), Change(change.rollout, change.source))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """One process at a time gives it out. Raises BadRollout while another does."""
        with self._locked("run", wait=False):
            yield

    def _read(self) -> Change:
        try:
            identity = _identity(self.path)
            if self._last is None or self._last[0] != identity:
                self._last = (identity, loaded(self.path.read_bytes()))
            return replace(self._last[1])
        except OSError as error:
            raise BadRollout(f"{self.path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadRollout(f"{self.path}: expected a rollout, got {error}") from error

    @contextlib.contextmanager
    def _locked(self, ending: str, *, wait: bool = True) -> Iterator[None]:
        path = self.path.with_name(f"{self.path.name}.{ending}")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadRollout(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        except BlockingIOError:
            raise BadRollout(f"{self.path}: another process is giving it out") from None
        finally:
            os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    """It is never changed in place: another file takes its name."""
    about = path.stat()
    return about.st_ino, about.st_mtime_ns


def dumped(change: Change) -> bytes:
    """JSON, a line for each device: it is written at every step, and may have thousands."""
    rollout = change.rollout
    tree = {"form": FORM, "source": change.source, **_flat(rollout)}
    tree["deeds"] = [_flat(each) for each in rollout.deeds]
    members = (f"{json.dumps(name)}: {json.dumps(_flat(each))}" for name, each in tree.pop("members").items())
    return (json.dumps(tree)[:-1] + ', "members": {\n' + ",\n".join(members) + "\n}}\n").encode()


def _flat(each: Rollout | Member | Deed) -> dict[str, Any]:
    return {field.name: getattr(each, field.name) for field in fields(each)}


def loaded(raw: bytes) -> Change:
    """Raises ValueError, TypeError, KeyError or AttributeError for what is no rollout."""
    tree = json.loads(raw)
    if tree.pop("form") != FORM:
        raise ValueError(f"another form than {FORM}")
    source = tree.pop("source")
    members = {name: _member(each) for name, each in tree.pop("members").items()}
    stages, deeds = tuple(tree.pop("stages")), tuple(Deed(**each) for each in tree.pop("deeds"))
    state = State(tree.pop("state"))
    return Change(Rollout(**tree, members=members, stages=stages, deeds=deeds, state=state), source)


def _member(tree: dict[str, Any]) -> Member:
    kinds = tree.pop("kinds")
    return Member(
        **{**tree, "outcome": Outcome(tree["outcome"])}, kinds=None if kinds is None else tuple(kinds)
    )
