"""What the decider serves: a workflow together with its state, whatever the device is there for.

A desk keeps the state between two events and knows the journal's records of it. The courier's is here; a
locker has one of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from agent import past
from agent.clock import Moment
from agent.commands import OpenManyDoors
from agent.correction import LATELY, MOST, SHIFT_S, Lately
from agent.custody import Workflow
from agent.duty import Custody
from agent.session import Duty
from agent.standing import Standing
from agent.units import Unit
from agent.workflow import Decision, Draft, Event, Parcel
from drivers.readings import ActionDone, Reading

PARCEL, CUSTODY = "parcel/", "custody"
"""The journal's records of what the courier's workflow knows."""

ENDED = ("custody.corrected", "custody.untracked")
"""After these nothing about the parcel can be taken back."""


class Desk(Protocol):
    """One workflow and its state."""

    @property
    def duty(self) -> Duty:
        """Who is on duty, and who is proving who they are."""
        ...

    @property
    def held(self) -> int:
        """Parcels in custody here."""
        ...

    def restore(self, records: Mapping[str, Any], at: Moment) -> None:
        """Take up the state where the last run left it."""
        ...

    def notice(self, unit: Unit, reading: Reading, at: Moment) -> Sequence[Any] | None:
        """The events that a reading makes for this workflow alone; None for what others understand."""
        ...

    def undone(self, unit: str, done: ActionDone, at: Moment) -> Sequence[Any]:
        """The events that an order makes which its unit did not take; none where nobody waits for it."""
        ...

    def lease(self, unit: str, door: int, told: Mapping[str, Any], at: Moment) -> tuple[Any, str] | None:
        """The event that a command to open a door makes, and why it opens nothing, if it does not.

        None where the workflow does not mind this door. `told` is what the command says about itself.
        """
        ...

    def lease_many(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int, at: Moment) -> Any:
        """The event that a command to open many doors makes; in words why it opens none, if it does not.

        None of them is begun after `until_ns`, by the monotonic clock.
        """
        ...

    def keeps(self, command: str) -> bool:
        """Whether this command from before the start is still being seen to."""
        ...

    def decide(self, event: Any, standing: Standing) -> Decision[Any]:
        """What to remember and to do. Changes nothing here."""
        ...

    def changes(
        self, decision: Decision[Any], made: Sequence[tuple[str, Draft]], at: Moment
    ) -> dict[str, Any]:
        """The journal's records that a decision changes; `made` are its entries, with their ids to be."""
        ...

    def become(self, decision: Decision[Any]) -> None:
        """The decision is on its way to stable storage: its state is the state now."""
        ...

    def wake_at(self) -> int | None:
        """When the next thing is due, on the monotonic clock; None if nothing is."""
        ...

    def told(self) -> Mapping[str, Any]:
        """What `postern status` shows of this desk. Nothing secret, nothing personal."""
        ...

    def at_work(self) -> Sequence[str]:
        """What somebody is in the middle of, in words; nothing of whom."""
        ...


class CourierDesk:
    """A courier's device: parcels in custody, handed over."""

    def __init__(self, workflow: Workflow) -> None:
        self.state = Custody()
        self.parcels: dict[str, Parcel] = {}
        self.lately: dict[str, Lately] = {}
        """The last entry about each parcel that can still be taken back, oldest first."""
        self._workflow = workflow
        self._records: Mapping[str, Any] = {}

    @property
    def duty(self) -> Custody:
        return self.state

    @property
    def held(self) -> int:
        return len(self.parcels)

    def restore(self, records: Mapping[str, Any], at: Moment) -> None:
        self._records = records
        self.parcels = {
            key.removeprefix(PARCEL): Parcel(**value)
            for key, value in records.items()
            if key.startswith(PARCEL)
        }
        lately = {
            key.removeprefix(LATELY): Lately.load(value)
            for key, value in records.items()
            if key.startswith(LATELY)
        }
        self.lately = dict(sorted(lately.items(), key=lambda each: each[1].sequence))
        self.state = Custody.load(records.get(CUSTODY), held=len(self.parcels))

    def notice(self, unit: Unit, reading: Reading, at: Moment) -> None:
        return None

    def undone(self, unit: str, done: ActionDone, at: Moment) -> Sequence[Any]:
        return ()

    def lease(self, unit: str, door: int, told: Mapping[str, Any], at: Moment) -> None:
        return None

    def lease_many(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int, at: Moment) -> str:
        return "no_locker"

    def keeps(self, command: str) -> bool:
        return False

    def decide(self, event: Event, standing: Standing) -> Decision[Custody]:
        return self._workflow.decide(self.state, event, self.parcels, standing, self.lately)

    def changes(
        self, decision: Decision[Custody], made: Sequence[tuple[str, Draft]], at: Moment
    ) -> dict[str, Any]:
        records: dict[str, Any] = {
            PARCEL + label: None if parcel is None else asdict(parcel)
            for label, parcel in decision.records.items()
        }
        state = decision.state.dump()
        if state != self._records.get(CUSTODY):
            records[CUSTODY] = state
        for key in decision.notes:
            self.lately.pop(key.removeprefix(LATELY), None)
        return {**records, **self._remember(made, at), **decision.notes}

    def _remember(self, made: Sequence[tuple[str, Draft]], at: Moment) -> dict[str, Any]:
        """What can be taken back from now on, and what no longer: known before the state is the new one."""
        records: dict[str, Any] = {}
        for id_, draft in made:
            label = draft.subject
            latest = Lately.of(id_, draft, self.parcels.get(label), at)
            if latest is not None:
                self.lately.pop(label, None)
                self.lately[label] = latest
                records[LATELY + label] = latest.dump()
            elif draft.type in ENDED and self.lately.pop(label, None) is not None:
                records[LATELY + label] = None
        while self.lately:
            label, oldest = next(iter(self.lately.items()))
            if len(self.lately) <= MOST and past.ago_s(oldest.at, at) < SHIFT_S:
                break
            del self.lately[label]
            records[LATELY + label] = None
        return records

    def become(self, decision: Decision[Custody]) -> None:
        self.state = decision.state
        for label, parcel in decision.records.items():
            if parcel is None:
                self.parcels.pop(label, None)
            else:
                self.parcels[label] = parcel

    def wake_at(self) -> int | None:
        return self._workflow.wake_at(self.state)

    def told(self) -> Mapping[str, Any]:
        return {}

    def at_work(self) -> Sequence[str]:
        return people_at_work(self.state)


def people_at_work(duty: Duty) -> list[str]:
    """Who is on duty or about to be; a handover that outlives its session waits for its driver anyway."""
    return [word for word, there in (("login", duty.login), ("session", duty.session)) if there]
