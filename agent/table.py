"""What lies on the table in a handover: how it leaves, how it goes back, what a card signs for it. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.duty import Custody, Handover
from agent.stake import SESSION, Stake, about
from agent.workflow import CodeEntered, ControlScanned, Decision, Draft, FactorShown, Parcel, sound
from drivers.readings import Tone

_Parcels = Mapping[str, Parcel]


def hand_over(
    state: Custody,
    handover: Handover,
    event: FactorShown | ControlScanned | CodeEntered,
    parcels: _Parcels,
    to: Mapping[str, Any],
) -> Decision[Custody]:
    """Everything on the table leaves, with an entry for each parcel; an empty table cannot be handed over."""
    driver, unit = handover.driver, event.unit
    leaving = sorted(label for label, parcel in parcels.items() if parcel.offered)
    if not leaving:
        draft = Draft("custody.handover_refused", driver, {"unit": unit, "reason": "nothing_offered"})
        return Decision(state=state, entries=(draft,), orders=(sound(unit, Tone.BAD),))
    data = {"unit": unit, "from": driver, "to": to, "of": len(leaving)}
    entries = [Draft("custody.handed_over", label, data) for label in leaving]
    closed = Draft("custody.handover_closed", driver, {"unit": unit, "to": to, "count": len(leaving)})
    return Decision(
        state=replace(state, handover=None, held=state.held - len(leaving)),
        entries=(*entries, closed),
        records=dict.fromkeys(leaving),
        orders=(sound(unit, Tone.GOOD),),
    )


def abandon(
    state: Custody, parcels: _Parcels, reason: str
) -> tuple[Custody, tuple[Draft, ...], dict[str, Parcel | None]]:
    """Take everything off the table again."""
    if state.handover is None:
        return state, (), {}
    back: dict[str, Parcel | None] = {
        label: replace(parcel, offered=False) for label, parcel in parcels.items() if parcel.offered
    }
    data = {"to": state.handover.to, "reason": reason, "count": len(back)}
    draft = Draft("custody.handover_abandoned", state.handover.driver, data)
    return replace(state, handover=None), (draft,), back


def stake(receiving: Handover | None, parcels: _Parcels) -> Stake:
    """What a fingerprint card signs for: a session, or exactly the parcels that lie on the table."""
    if receiving is None:
        return SESSION
    offered = sorted(label for label, parcel in parcels.items() if parcel.offered)
    return about("handover", (receiving.driver, *offered))
