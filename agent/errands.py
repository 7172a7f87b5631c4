"""Carries commands out: each is remembered before it is done, and its outcome is an entry.

An outcome that a unit has to tell comes as a reading, on the same road as everything else. A command that was
begun when the power failed is reported as such at the next start, and not begun again.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from agent import emergency
from agent.clock import Moment
from agent.commands import (
    Admitted,
    Again,
    ConfirmConfig,
    ConfirmKeys,
    Diagnostics,
    Locate,
    LogLevel,
    OpenManyDoors,
    OpenOneDoor,
    Outcome,
    ReloadBundle,
    Resend,
    RotateKeys,
    UnlockSubject,
    admit,
    settled,
    unsettled,
)
from agent.documents import Command, Document
from agent.journal import Journal
from agent.logs import set_level
from agent.signed_time import Asked
from agent.trust import Trusted
from agent.workflow import Draft, Lane
from drivers.readings import ActionDone, OpenDoor, Signal, Tone

log = structlog.get_logger("commands")


class Premises(Protocol):
    """What commands can ask of the agent around them."""

    def status(self) -> Mapping[str, Any]:
        """What `postern status` shows."""
        ...

    def perform(self, unit: str, action: Signal) -> str:
        """Have a unit do something; the reason why it will not, or nothing."""
        ...

    def open_door(self, unit: str, door: int, told: Mapping[str, Any]) -> str:
        """Have a door opened; the reason why it will not be, or nothing."""
        ...

    def open_doors(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        """Have many doors opened once somebody in charge is there; the reason why not, or nothing.

        Whoever does it settles the command.
        """
        ...

    def keeps(self, command: str) -> bool:
        """Whether somebody goes on with this command from before the start, and will settle it."""
        ...

    def heed(self) -> None:
        """Have what is going on looked at anew: what may be opened has changed."""
        ...

    def dismiss_all(self, reason: str) -> None:
        """End whatever session there is."""
        ...

    def confirm_config(self, version: int, sha256: str) -> str:
        """Keep the config on trial; the reason why not, or nothing."""
        ...

    def resend(self, epoch: str | None, first: int, last: int) -> str:
        """Send entries again; the reason why not, or nothing."""
        ...

    def diagnose(self, command: str, lines: int) -> Mapping[str, Any]:
        """Send word of how the device is, with so many lines of the log; what the outcome says of it."""
        ...

    async def reload(self, kind: str | None) -> Mapping[str, int]:
        """Have a bundle, or all of them, fetched anew; of how many pages each is."""
        ...

    async def rotate_keys(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        """Make new keys and ask for them; the number of the request, and why there is none."""
        ...

    async def confirm_keys(self, request: int, chain: Sequence[str]) -> str:
        """The fleet has taken them; the reason why that counts for nothing, or nothing."""
        ...

    def reinstate(self, subject: str) -> Mapping[str, Any]:
        """The records that let somebody try again."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command at once. Its records are committed with the outcome."""

    outcome: Outcome
    data: Mapping[str, Any]
    records: Mapping[str, Any]


class Errands:
    """Admits commands and does them, one after the other."""

    def __init__(
        self,
        journal: Journal,
        device: str,
        premises: Premises,
        stamp: Callable[[], tuple[Moment, Mapping[str, Any]]],
    ) -> None:
        self._journal = journal
        self._device = device
        self._premises = premises
        self._stamp = stamp
        self._doors: dict[str, deque[Admitted]] = {}
        """Doors to be opened by each unit, one after the other: the first of them has its order."""
        self._answered: set[str] = set()
        """Commands that were answered again on this connection."""

    def connected(self) -> None:
        self._answered.clear()

    def restore(self) -> None:
        """What was begun by the last run is reported: nobody knows whether it was done."""
        for told in unsettled(self._journal.records):
            if self._premises.keeps(told["command"]):
                continue
            log.warning("outcome unknown", command=told["command"], name=told["name"])
            self._tell(told, Outcome.UNKNOWN, {"detail": "stopped in between"})

    async def take(self, document: Document[Command], trusted: Trusted, asked: Asked | None) -> None:
        """Raises Refused. Done once the command is carried out, or is on its way."""
        now, position = self._stamp()
        admitted = admit(
            document,
            trusted.root.body,
            trusted.audience,
            now=now,
            asked=asked,
            records=self._journal.records,
        )
        if isinstance(admitted, Again):
            self._answer_again(admitted)
            return
        log.info("command", name=admitted.command.name, command=admitted.id)
        accepted = Draft("command.accepted", self._device, admitted.told)
        await self._journal.append([accepted], now, position, admitted.records)
        await self._carry_out(admitted)

    def done(self, unit: str, reading: ActionDone) -> None:
        """A unit has told what became of an action, maybe one of ours."""
        waiting = self._doors.get(unit)
        if not waiting or reading.action != _order(waiting[0]):
            return
        outcome = Outcome.SUCCEEDED if reading.ok else Outcome.UNKNOWN if reading.unknown else Outcome.FAILED
        self._tell(waiting.popleft().told, outcome, {"detail": reading.reason[:200]})
        self._open_next(unit)

    # -- doing ------------------------------------------------------------------------------------

    async def _carry_out(self, admitted: Admitted) -> None:
        match admitted.args:
            case OpenOneDoor(unit=unit):
                waiting = self._doors.setdefault(unit, deque())
                waiting.append(admitted)
                if len(waiting) == 1:
                    self._open_next(unit)
            case OpenManyDoors():
                failed = self._premises.open_doors(admitted.args, admitted.told, admitted.until_ns)
                if failed:
                    self._tell(admitted.told, Outcome.FAILED, {"detail": failed})
            case _:
                done = await self._do(admitted)
                self._tell(admitted.told, done.outcome, done.data, done.records)
                if admitted.command.rank == "E":
                    self._premises.heed()

    def _open_next(self, unit: str) -> None:
        """Order the first door that waits, if it may still be opened."""
        waiting = self._doors[unit]
        while waiting:
            now, _ = self._stamp()
            first = waiting[0]
            late = now.mono_ns > first.until_ns
            failed = "expired" if late else self._premises.open_door(unit, _order(first).door, first.told)
            if not failed:
                return
            self._tell(waiting.popleft().told, Outcome.FAILED, {"detail": failed})

    async def _do(self, admitted: Admitted) -> Done:
        now, _ = self._stamp()
        match admitted.args, admitted.command.name:
            case Locate(unit=unit), _:
                failed = self._premises.perform(unit, Signal(tone=Tone.GOOD))
                return Done(Outcome.FAILED if failed else Outcome.SUCCEEDED, {"detail": failed}, {})
            case LogLevel(level=level), _:
                set_level(level)
                return Done(Outcome.SUCCEEDED, {}, {})
            case Diagnostics(lines=lines), _:
                return Done(Outcome.SUCCEEDED, self._premises.diagnose(admitted.id, lines), {})
            case ReloadBundle(kind=kind), _:
                return Done(Outcome.SUCCEEDED, {"counts": await self._premises.reload(kind)}, {})
            case RotateKeys(keys=keys), _:
                number, failed = await self._premises.rotate_keys(keys, "command")
                if failed:
                    return Done(Outcome.FAILED, {"detail": failed}, {})
                return Done(Outcome.SUCCEEDED, {"request": number}, {})
            case ConfirmKeys(request=number, chain=chain), _:
                failed = await self._premises.confirm_keys(number, chain)
                return Done(Outcome.FAILED if failed else Outcome.SUCCEEDED, {"detail": failed}, {})
            case UnlockSubject(subject=subject), _:
                return Done(Outcome.SUCCEEDED, {}, self._premises.reinstate(subject))
            case ConfirmConfig(version=version, sha256=digest), _:
                # The nonce proves that the word came over the connection that the new config made.
                failed = "expected the nonce of this connection"
                if admitted.command.nonce is not None:
                    failed = self._premises.confirm_config(version, digest)
                return Done(Outcome.FAILED if failed else Outcome.SUCCEEDED, {"detail": failed}, {})
            case Resend(first=first, end=last, epoch=epoch), _:
                failed = self._premises.resend(epoch, first, last)
                return Done(Outcome.FAILED if failed else Outcome.SUCCEEDED, {"detail": failed}, {})
            case _, "status":
                return Done(Outcome.SUCCEEDED, {"status": self._premises.status()}, {})
            case _, "checkpoint":
                self._journal.checkpoint()
                return Done(Outcome.SUCCEEDED, {}, {})
            case _, "session_end":
                self._premises.dismiss_all("command")
                return Done(Outcome.SUCCEEDED, {}, {})
            case _, "emergency_lock":
                return Done(Outcome.SUCCEEDED, {}, emergency.locked(now, admitted.id))
            case _, "emergency_release":
                return Done(Outcome.SUCCEEDED, {}, emergency.released())
        return Done(Outcome.FAILED, {"detail": "nobody knows how"}, {})

    # -- telling ----------------------------------------------------------------------------------

    def _tell(
        self,
        told: Mapping[str, Any],
        outcome: Outcome,
        data: Mapping[str, Any],
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """The entry that acknowledges a command, with what it changed."""
        now, position = self._stamp()
        changes = {**(records or {}), **settled(told, outcome, self._journal.records)}
        draft = Draft(f"command.{outcome}", self._device, {**told, **data})
        self._journal.append([draft], now, position, changes)

    def _answer_again(self, again: Again) -> None:
        """Once for a connection: whoever repeats a command must not fill the journal."""
        command = again.told["command"]
        if again.outcome is None or command in self._answered:
            return
        self._answered.add(command)
        now, position = self._stamp()
        draft = Draft(f"command.{again.outcome}", self._device, {**again.told, "again": True}, Lane.STATE)
        self._journal.append([draft], now, position)


def _order(admitted: Admitted) -> OpenDoor:
    assert isinstance(admitted.args, OpenOneDoor)
    return OpenDoor(door=admitted.args.door)
