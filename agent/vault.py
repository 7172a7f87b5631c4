"""The keys of this device, the people known under them, and how both go: all that the app needs of it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from agent.clock import Moment
from agent.control import Answer
from agent.identity import Identity
from agent.journal import Journal
from agent.keystore import Keystore
from agent.roster import Roster
from agent.tamper import RECORD, Switch, Tamper
from agent.wiping import Wiping
from agent.workflow import Dismissed, Draft
from drivers.readings import InputChanged


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def dismiss(self, event: Dismissed) -> None:
        """End sessions and logins at once."""
        ...

    def announce(self) -> None:
        """Say anew what the birth message says."""
        ...


class Vault:
    """Wipes, looks up, forgets, and watches the case."""

    def __init__(
        self,
        keystore: Keystore,
        roster: Roster,
        journal: Journal,
        switch: Switch | None,
        *,
        device: str,
        house: House,
    ) -> None:
        self._keystore, self._journal, self._device, self._house = keystore, journal, device, house
        self._switch = switch
        self.identity = Identity(roster, journal, device=device, stamp=house.stamp, forget=self._forget)
        self.wiping = Wiping(
            keystore, roster, journal, device=device, stamp=house.stamp, dismiss=self._dismiss_all
        )
        self._tamper: Tamper | None = None
        if switch is not None:
            self._tamper = Tamper(switch, armed=self._armed, arm=self._arm, alarm=self._alarm)

    async def resume(self) -> None:
        """Take up what the last run left, once the journal is open."""
        self.identity.restore()
        await self.wiping.resume()

    async def wipe(self, by: str) -> Mapping[str, Any]:
        """Take away everything that opens a row; returns what the entry says of it."""
        told = await self.wiping.wipe(by)
        self._house.announce()
        return told

    def saw(self, unit: str, reading: InputChanged) -> None:
        """An input of any unit has changed."""
        if self._tamper is not None:
            self._tamper.saw(unit, reading)

    def watch(self) -> Callable[[], Awaitable[None]] | None:
        """What runs for ever, if there is a switch at the case."""
        return None if self._tamper is None else self._tamper.run

    def status(self) -> dict[str, Any]:
        """How well each key is kept, and whether this device was wiped. Nothing secret."""
        return {"keys": self._keystore.levels(), "wiped_by": self.wiping.wiped_by}

    def answers(self) -> dict[str, Answer]:
        """What may be asked over the control socket."""
        return {"wipe": self._wipe, "identity": self._export, "erase": self._erase}

    async def _wipe(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        if question.get("device") != self._device:
            raise ValueError(f"device: expected {self._device!r} to confirm, got another")
        return await self.wipe("operator")

    async def _export(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        after = question.get("after", 0)
        if not isinstance(after, int) or after < 0:
            raise ValueError(f"after: expected a sequence, got {after!r:.40}")
        return await self.identity.export(question.get("subject", ""), after)

    async def _erase(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        told = await self.identity.erase(question.get("subject", ""))
        self._house.announce()
        return told

    def _dismiss_all(self, reason: str) -> None:
        now, _ = self._house.stamp()
        self._house.dismiss(Dismissed(at=now, reason=reason))

    def _forget(self, subject: str) -> None:
        now, _ = self._house.stamp()
        self._house.dismiss(Dismissed(at=now, reason="erased", subject=subject, forget=True))

    # -- the case ---------------------------------------------------------------------------------

    def _armed(self) -> bool:
        return RECORD in self._journal.records

    def _arm(self) -> None:
        assert self._switch is not None
        told = {"unit": self._switch.unit, "input": self._switch.input}
        now, position = self._house.stamp()
        drafts = [Draft("identity.tamper_armed", self._device, told)]
        self._journal.append(drafts, now, position, {RECORD: True})

    async def _alarm(self) -> None:
        if self.wiping.wiped_by is None:
            await self.wipe("tamper")
